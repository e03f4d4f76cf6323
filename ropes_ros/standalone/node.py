"""Nodes: rclpy.node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ropes_ros.standalone import log, names
from ropes_ros.standalone.arguments import Override
from ropes_ros.standalone.callback_groups import CallbackGroup, MutuallyExclusiveCallbackGroup
from ropes_ros.standalone.clock import Clock, ROSClock
from ropes_ros.standalone.context import Context, get_default_context
from ropes_ros.standalone.duration import NANOSECONDS
from ropes_ros.standalone.endpoints import Publisher, Subscription, check_callback
from ropes_ros.standalone.errors import NotInitializedException, UnsupportedError
from ropes_ros.standalone.events import PublisherEventCallbacks, SubscriptionEventCallbacks
from ropes_ros.standalone.graph import LocalNode, TopicEndpointInfo, TopicEndpointTypeEnum
from ropes_ros.standalone.messages import message_class
from ropes_ros.standalone.parameter_services import ParameterServices
from ropes_ros.standalone.parameters import Parameter, Parameters, SetCallback
from ropes_ros.standalone.qos import QoSProfile, as_profile, qos_profile_services_default
from ropes_ros.standalone.rosout import Rosout
from ropes_ros.standalone.services import Client, Service
from ropes_ros.standalone.time_source import TimeSource
from ropes_ros.standalone.timer import Timer

if TYPE_CHECKING:
    from ropes_ros.standalone.executor import Executor

_UNSUPPORTED = frozenset(
    {
        "add_pre_set_parameters_callback", "add_waitable", "create_guard_condition", "create_rate", "guards",
        "resolve_service_name", "set_descriptor", "set_logger_service", "waitables", "wait_for_node",
    }
)  # fmt: skip


class Node:
    """A node with publishers, subscriptions, timers, services and parameters."""

    def __init__(
        self,
        node_name: str,
        *,
        context: Context | None = None,
        cli_args: Sequence[str] | None = None,
        namespace: str | None = None,
        use_global_arguments: bool = True,
        enable_rosout: bool = True,
        start_parameter_services: bool = True,
        parameter_overrides: Sequence[Parameter] | None = None,
        allow_undeclared_parameters: bool = False,
        automatically_declare_parameters_from_overrides: bool = False,
    ) -> None:
        if cli_args is not None:
            raise UnsupportedError("Node(cli_args=...) is not supported; give the arguments to rclpy.init(args=...)")
        self.context = context or get_default_context()
        if not self.context.ok():
            raise NotInitializedException
        arguments = self.context.arguments
        self._rules = arguments.remaps if use_global_arguments else []
        name, space = names.remap_node(node_name, namespace or "/", self._rules)
        self._name = names.check_node_name(name)
        self._namespace = names.check_namespace(space)
        self._logger = log.get_logger(self.get_fully_qualified_name().strip("/").replace("/", "."))
        self.executor: Executor | None = None
        self.watched_by: Executor | None = None
        self.started = False
        self.version = 0
        self._publishers: list[Publisher] = []
        self._subscriptions: list[Subscription] = []
        self._timers: list[Timer] = []
        self._services: list[Service] = []
        self._clients: list[Client] = []
        self._destroyed = False
        self.default_callback_group: CallbackGroup = MutuallyExclusiveCallbackGroup()
        overrides = list(arguments.overrides) if use_global_arguments else []
        for parameter in parameter_overrides or ():
            overrides.append(Override("/**", parameter.name, parameter.value, "parameter_overrides", False))
        self.parameters = Parameters(self.get_fully_qualified_name(), overrides, allow_undeclared_parameters)
        self._local = LocalNode(self._name, self._namespace)
        self.context.graph.add_node(self._local)
        self.context.add_node(self)
        try:
            self._clock = ROSClock()
            if enable_rosout:
                log.sinks[self._logger.name] = Rosout(self).publish
            self._time_source = TimeSource(self, self._clock)
            if automatically_declare_parameters_from_overrides:
                for override in self.parameters.overridden():
                    if not self.parameters.has(override):
                        descriptor = message_class("rcl_interfaces/msg/ParameterDescriptor")(dynamic_typing=True)
                        self.parameters.declare(override, None, descriptor, False)
            if start_parameter_services:
                self._parameter_services = ParameterServices(self)
        except Exception:
            self.destroy_node()
            raise

    def __getattr__(self, name: str) -> Any:
        if name in _UNSUPPORTED:
            raise UnsupportedError(f"Node.{name} is not supported by the standalone runtime")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    # -- for the executor ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """What spinning does first: refuse parameters of the command line that no node declares."""
        self.started = True
        for name, source in self.parameters.undeclared_overrides().items():
            if not any(node.parameters.has(name) for node in self.context.nodes()):
                raise self.parameters.unknown_override(name, source)

    def sources(self) -> list[Any]:
        """Everything that calls back when data arrives."""
        return [*self._subscriptions, *self._services, *self._clients]

    def eventful(self) -> list[Any]:
        """Everything that reports events."""
        return [*self._subscriptions, *self._publishers]

    def _entities_changed(self) -> None:
        self.version += 1
        if self.executor is not None:
            self.executor.wake()
        elif self.watched_by is not None:
            self.watched_by.update()

    def _announce(self, readers: Sequence[bytes] = (), writers: Sequence[bytes] = ()) -> None:
        self._local.readers.extend(readers)
        self._local.writers.extend(writers)
        self.context.graph.publish()
        self._entities_changed()

    def _withdraw(self, readers: Sequence[bytes] = (), writers: Sequence[bytes] = ()) -> None:
        self._local.readers = [gid for gid in self._local.readers if gid not in readers]
        self._local.writers = [gid for gid in self._local.writers if gid not in writers]
        if not self._destroyed:
            self.context.graph.publish()
        self._entities_changed()

    # -- names ---------------------------------------------------------------------------------------------------

    def get_name(self) -> str:
        """The node's name."""
        return self._name

    def get_namespace(self) -> str:
        """The node's namespace."""
        return self._namespace

    def get_fully_qualified_name(self) -> str:
        """Namespace and name."""
        return names.join(self._namespace, self._name)

    def resolve_topic_name(self, topic: str, *, only_expand: bool = False) -> str:
        """The absolute, remapped name of a topic."""
        full = names.expand(topic, self._name, self._namespace)
        return full if only_expand else names.remap(full, self._name, self._namespace, self._rules)

    def _service_name(self, service: str) -> str:
        full = names.expand(service, self._name, self._namespace, service=True)
        return names.remap(full, self._name, self._namespace, self._rules, service=True)

    def get_logger(self) -> log.RcutilsLogger:
        """The node's logger."""
        return self._logger

    def get_clock(self) -> ROSClock:
        """The node's clock."""
        return self._clock

    # -- entities ------------------------------------------------------------------------------------------------

    @property
    def publishers(self) -> list[Publisher]:
        """All publishers."""
        return list(self._publishers)

    @property
    def subscriptions(self) -> list[Subscription]:
        """All subscriptions."""
        return list(self._subscriptions)

    @property
    def timers(self) -> list[Timer]:
        """All timers."""
        return list(self._timers)

    @property
    def services(self) -> list[Service]:
        """All services."""
        return list(self._services)

    @property
    def clients(self) -> list[Client]:
        """All clients."""
        return list(self._clients)

    def create_publisher(
        self,
        msg_type: Any,
        topic: str,
        qos_profile: QoSProfile | int,
        *,
        callback_group: CallbackGroup | None = None,
        event_callbacks: PublisherEventCallbacks | None = None,
        qos_overriding_options: Any = None,
        publisher_class: type[Publisher] = Publisher,
    ) -> Any:
        """Publish on a topic."""
        _refuse_overriding(qos_overriding_options)
        publisher = publisher_class(
            self,
            msg_type,
            self.resolve_topic_name(topic),
            as_profile(qos_profile),
            event_callbacks or PublisherEventCallbacks(),
        )
        self._publishers.append(publisher)
        self._announce(writers=[publisher.gid])
        return publisher

    def create_subscription(
        self,
        msg_type: Any,
        topic: str,
        callback: Callable[..., Any],
        qos_profile: QoSProfile | int,
        *,
        callback_group: CallbackGroup | None = None,
        event_callbacks: SubscriptionEventCallbacks | None = None,
        qos_overriding_options: Any = None,
        raw: bool = False,
        content_filter_options: Any = None,
    ) -> Subscription:
        """Call back with each message of a topic."""
        _refuse_overriding(qos_overriding_options)
        if content_filter_options is not None:
            raise UnsupportedError("content_filter_options is not supported by the standalone runtime")
        subscription = Subscription(
            self,
            msg_type,
            self.resolve_topic_name(topic),
            callback,
            as_profile(qos_profile),
            raw,
            event_callbacks or SubscriptionEventCallbacks(),
            callback_group or self.default_callback_group,
        )
        self._subscriptions.append(subscription)
        self._announce(readers=[subscription.gid])
        return subscription

    def create_timer(
        self,
        timer_period_sec: float,
        callback: Callable[[], Any] | None,
        callback_group: CallbackGroup | None = None,
        clock: Clock | None = None,
        autostart: bool = True,
    ) -> Timer:
        """Call back every period of a clock, by default the node's."""
        if callback is not None:
            check_callback(callback, "timer")
        timer = Timer(
            callback,
            int(float(timer_period_sec) * NANOSECONDS),
            clock or self._clock,
            callback_group or self.default_callback_group,
            self._entities_changed,
        )
        if not autostart:
            timer.cancel()
        self._timers.append(timer)
        self._entities_changed()
        return timer

    def create_service(
        self,
        srv_type: Any,
        srv_name: str,
        callback: Callable[[Any, Any], Any],
        *,
        qos_profile: QoSProfile = qos_profile_services_default,
        callback_group: CallbackGroup | None = None,
    ) -> Service:
        """Answer requests with what callback(request, response) returns."""
        name = self._service_name(srv_name)
        group = callback_group or self.default_callback_group
        service = Service(self, srv_type, name, callback, qos_profile, group)
        self._services.append(service)
        reader, writer = service.gids
        self._announce([reader], [writer])
        return service

    def create_client(
        self,
        srv_type: Any,
        srv_name: str,
        *,
        qos_profile: QoSProfile = qos_profile_services_default,
        callback_group: CallbackGroup | None = None,
    ) -> Client:
        """Call a service."""
        name = self._service_name(srv_name)
        client = Client(self, srv_type, name, qos_profile, callback_group or self.default_callback_group)
        self._clients.append(client)
        reader, writer = client.gids
        self._announce([reader], [writer])
        return client

    def destroy_publisher(self, publisher: Any) -> bool:
        """Leave a topic; False where the publisher is not this node's."""
        if publisher not in self._publishers:
            return False
        self._publishers.remove(publisher)
        self._withdraw(writers=[publisher.gid])
        publisher.close()
        return True

    def destroy_subscription(self, subscription: Subscription) -> bool:
        """Leave a topic; False where the subscription is not this node's."""
        if subscription not in self._subscriptions:
            return False
        self._subscriptions.remove(subscription)
        self._withdraw(readers=[subscription.gid])
        subscription.close()
        return True

    def destroy_timer(self, timer: Timer) -> bool:
        """End a timer; False where it is not this node's."""
        if timer not in self._timers:
            return False
        self._timers.remove(timer)
        timer.destroy()
        self._entities_changed()
        return True

    def destroy_service(self, service: Service) -> bool:
        """End a service; False where it is not this node's."""
        if service not in self._services:
            return False
        self._services.remove(service)
        reader, writer = service.gids
        self._withdraw([reader], [writer])
        service.close()
        return True

    def destroy_client(self, client: Client) -> bool:
        """End a client; False where it is not this node's."""
        if client not in self._clients:
            return False
        self._clients.remove(client)
        reader, writer = client.gids
        self._withdraw([reader], [writer])
        client.close()
        return True

    def destroy_node(self) -> None:
        """Leave the graph and drop everything that the node has."""
        if self._destroyed:
            return
        self._destroyed = True
        log.sinks.pop(self._logger.name, None)
        self.context.graph.remove_node(self._local)
        if self.executor is not None:
            self.executor.remove_node(self)
        if self.watched_by is not None:
            self.watched_by.update()
            self.watched_by = None
        for timer in self.timers:
            self.destroy_timer(timer)
        for client in self.clients:
            self.destroy_client(client)
        for service in self.services:
            self.destroy_service(service)
        for subscription in self.subscriptions:
            self.destroy_subscription(subscription)
        for publisher in self.publishers:
            self.destroy_publisher(publisher)
        self.context.remove_node(self)

    # -- graph ---------------------------------------------------------------------------------------------------

    def count_publishers(self, topic_name: str) -> int:
        """Number of publishers of a topic on the domain."""
        return len(self.get_publishers_info_by_topic(topic_name))

    def count_subscribers(self, topic_name: str) -> int:
        """Number of subscriptions of a topic on the domain."""
        return len(self.get_subscriptions_info_by_topic(topic_name))

    def get_publishers_info_by_topic(self, topic_name: str, no_mangle: bool = False) -> list[TopicEndpointInfo]:
        """All publishers of a topic on the domain, with node and QoS."""
        topic = self.resolve_topic_name(topic_name)
        return self.context.graph.endpoints(topic, TopicEndpointTypeEnum.PUBLISHER)

    def get_subscriptions_info_by_topic(self, topic_name: str, no_mangle: bool = False) -> list[TopicEndpointInfo]:
        """All subscriptions of a topic on the domain, with node and QoS."""
        topic = self.resolve_topic_name(topic_name)
        return self.context.graph.endpoints(topic, TopicEndpointTypeEnum.SUBSCRIPTION)

    def get_topic_names_and_types(self, no_demangle: bool = False) -> list[tuple[str, list[str]]]:
        """All topics on the domain."""
        return self.context.graph.topics()

    def get_service_names_and_types(self) -> list[tuple[str, list[str]]]:
        """All services on the domain."""
        return self.context.graph.services()

    def get_node_names(self) -> list[str]:
        """Names of all nodes on the domain."""
        return [name for name, _ in self.context.graph.nodes()]

    def get_node_names_and_namespaces(self) -> list[tuple[str, str]]:
        """Names and namespaces of all nodes on the domain."""
        return self.context.graph.nodes()

    def get_fully_qualified_node_names(self) -> list[str]:
        """Full names of all nodes on the domain."""
        return [names.join(namespace, name) for name, namespace in self.context.graph.nodes()]

    # -- parameters ----------------------------------------------------------------------------------------------

    def declare_parameter(
        self, name: str, value: Any = None, descriptor: Any = None, ignore_override: bool = False
    ) -> Parameter:
        """Declare a parameter with a default value or a Parameter.Type."""
        return self.parameters.declare(name, value, descriptor, ignore_override)

    def declare_parameters(
        self, namespace: str, parameters: Sequence[Sequence[Any]], ignore_override: bool = False
    ) -> list[Parameter]:
        """Declare several parameters, each (name), (name, value) or (name, value, descriptor)."""
        declared = []
        for item in parameters:
            name, value, descriptor = (*item, None, None)[:3]
            full = f"{namespace}.{name}" if namespace else name
            declared.append(self.declare_parameter(full, value, descriptor, ignore_override))
        return declared

    def undeclare_parameter(self, name: str) -> None:
        """Remove a parameter."""
        self.parameters.undeclare(name)

    def has_parameter(self, name: str) -> bool:
        """Whether a parameter is declared."""
        return self.parameters.has(name)

    def get_parameter(self, name: str) -> Parameter:
        """A parameter."""
        return self.parameters.get(name)

    def get_parameters(self, names: list[str]) -> list[Parameter]:
        """Several parameters."""
        return [self.parameters.get(name) for name in names]

    def get_parameter_or(self, name: str, alternative_value: Parameter | None = None) -> Parameter:
        """A parameter, or the alternative where it is not declared."""
        if self.parameters.has(name):
            return self.parameters.get(name)
        return alternative_value or Parameter(name, Parameter.Type.NOT_SET)

    def get_parameters_by_prefix(self, prefix: str) -> dict[str, Parameter]:
        """Parameters below a prefix, by the rest of their names."""
        start = f"{prefix}." if prefix else ""
        return {
            name.removeprefix(start): self.parameters.get(name)
            for name in self.parameters.declared()
            if name.startswith(start)
        }

    def set_parameters(self, parameter_list: list[Parameter]) -> list[Any]:
        """Set parameters one by one; a result each."""
        return [self.parameters.set_all([parameter]) for parameter in parameter_list]

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> Any:
        """Set all parameters or none."""
        return self.parameters.set_all(parameter_list)

    def describe_parameter(self, name: str) -> Any:
        """A parameter's descriptor."""
        return self.parameters.descriptor(name)

    def describe_parameters(self, names: list[str]) -> list[Any]:
        """Several parameters' descriptors."""
        return [self.parameters.descriptor(name) for name in names]

    def add_on_set_parameters_callback(self, callback: SetCallback) -> None:
        """Ask callback(parameters) for a SetParametersResult before parameters change; the newest is asked first."""
        self.parameters.on_set.insert(0, callback)

    def remove_on_set_parameters_callback(self, callback: SetCallback) -> None:
        """Ask the callback no more."""
        self.parameters.on_set.remove(callback)

    def add_post_set_parameters_callback(self, callback: Callable[[list[Parameter]], Any]) -> None:
        """Call callback(parameters) after parameters have changed."""
        self.parameters.after_set.insert(0, callback)

    def remove_post_set_parameters_callback(self, callback: Callable[[list[Parameter]], Any]) -> None:
        """Call the callback no more."""
        self.parameters.after_set.remove(callback)


def _refuse_overriding(options: Any) -> None:
    if options is not None:
        raise UnsupportedError("qos_overriding_options is not supported by the standalone runtime")

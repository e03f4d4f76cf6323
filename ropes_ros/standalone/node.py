"""Nodes: rclpy.node."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ropes_ros.standalone import log, names
from ropes_ros.standalone.arguments import Override, parse
from ropes_ros.standalone.callback_groups import CallbackGroup, MutuallyExclusiveCallbackGroup
from ropes_ros.standalone.clock import Clock, ROSClock
from ropes_ros.standalone.context import Context, get_default_context
from ropes_ros.standalone.duration import NANOSECONDS
from ropes_ros.standalone.endpoints import Publisher, Subscription, check_callback
from ropes_ros.standalone.errors import NotInitializedException, UnsupportedError
from ropes_ros.standalone.events import PublisherEventCallbacks, SubscriptionEventCallbacks
from ropes_ros.standalone.graph import LocalNode, TopicEndpointInfo, TopicEndpointTypeEnum
from ropes_ros.standalone.logger_services import LoggerServices
from ropes_ros.standalone.node_parameters import NodeParameters
from ropes_ros.standalone.parameter_events import ParameterEvents
from ropes_ros.standalone.parameter_services import ParameterServices
from ropes_ros.standalone.parameters import Changes, Parameter, Parameters
from ropes_ros.standalone.qos import QoSProfile, as_profile, qos_profile_services_default
from ropes_ros.standalone.qos_overriding import QoSOverridingOptions, declare_overrides
from ropes_ros.standalone.rosout import Rosout
from ropes_ros.standalone.services import Client, Service
from ropes_ros.standalone.time_source import TimeSource
from ropes_ros.standalone.timer import Timer

if TYPE_CHECKING:
    from ropes_ros.standalone.executor import Executor

_UNSUPPORTED = frozenset(
    {
        "add_waitable", "count_clients", "count_services", "create_guard_condition", "create_rate",
        "destroy_guard_condition", "destroy_rate", "get_client_names_and_types_by_node",
        "get_node_names_and_namespaces_with_enclaves", "get_publisher_names_and_types_by_node",
        "get_service_names_and_types_by_node", "get_subscriber_names_and_types_by_node", "guards", "handle",
        "remove_waitable", "set_descriptor", "wait_for_node", "waitables",
    }
)  # fmt: skip


class Node(NodeParameters):
    """A node with publishers, subscriptions, timers, services and parameters.

    What the runtime keeps here and rclpy does not is named `_ropes_...`, so that subclasses may use all other names.
    """

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
        enable_logger_service: bool = False,
    ) -> None:
        self.context = context or get_default_context()
        if not self.context.ok():
            raise NotInitializedException
        own = parse(cli_args or ())
        shared = self.context.arguments if use_global_arguments else parse([])
        self._ropes_rules = [*own.remaps, *shared.remaps]
        name, space = names.remap_node(node_name, namespace or "/", self._ropes_rules)
        self._ropes_name = names.check_node_name(name)
        self._ropes_namespace = names.check_namespace(space)
        self._logger = log.get_logger(self.get_fully_qualified_name().strip("/").replace("/", "."))
        self.executor: Executor | None = None
        self._ropes_watched_by: Executor | None = None
        self._ropes_started = False
        self._ropes_version = 0
        self._ropes_resumed: deque[Callable[[], None]] = deque()
        self._publishers: list[Publisher] = []
        self._subscriptions: list[Subscription] = []
        self._timers: list[Timer] = []
        self._services: list[Service] = []
        self._clients: list[Client] = []
        self._ropes_destroyed = False
        self._ropes_rosout: Any = None
        self.default_callback_group: CallbackGroup = MutuallyExclusiveCallbackGroup()
        overrides = [*shared.overrides, *own.overrides]
        for parameter in parameter_overrides or ():
            overrides.append(Override("/**", parameter.name, parameter.value, "parameter_overrides", False))
        self._ropes_parameters = Parameters(
            self.get_fully_qualified_name(), overrides, allow_undeclared_parameters, self._ropes_publish_changes
        )
        self._ropes_local = LocalNode(self._ropes_name, self._ropes_namespace)
        self.context.graph.add_node(self._ropes_local)
        self.context.add_node(self)
        try:
            self._clock = ROSClock()
            if enable_rosout:
                self._ropes_connect_log()
            self._ropes_parameter_events = ParameterEvents(self)
            if automatically_declare_parameters_from_overrides:
                self.declare_parameters("", list(self._ropes_parameters.overridden().items()))
            self._time_source = TimeSource(self, self._clock)
            if start_parameter_services:
                self._ropes_parameter_services = ParameterServices(self)
            if enable_logger_service:
                self._ropes_logger_services = LoggerServices(self)
        except Exception:
            self.destroy_node()
            raise

    def __getattr__(self, name: str) -> Any:
        if name in _UNSUPPORTED:
            raise UnsupportedError(f"Node.{name} is not supported by the standalone runtime")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _ropes_connect_log(self) -> None:
        if self._logger.name in log.sinks:
            self._logger.warning(
                f"another node of this process is also named {self.get_fully_qualified_name()}: the log of both goes "
                "out under one name; rename one (-r __node:=name)"
            )
            return
        self._ropes_rosout = log.sinks[self._logger.name] = Rosout(self).publish

    def _ropes_publish_changes(self, changes: Changes) -> None:
        self._ropes_parameter_events.publish(changes)

    # -- for the executor ----------------------------------------------------------------------------------------

    def _ropes_start(self) -> None:
        """What spinning does first: refuse parameters of the command line that no node declares."""
        self._ropes_started = True
        for name, source in self._ropes_parameters.undeclared_overrides().items():
            if not any(node._ropes_parameters.has(name) for node in self.context.nodes()):
                raise self._ropes_parameters.unknown_override(name, source)

    def _ropes_sources(self) -> list[Any]:
        """Everything that calls back when data arrives."""
        return [*self._subscriptions, *self._services, *self._clients]

    def _ropes_eventful(self) -> list[Any]:
        """Everything that reports events."""
        return [*self._subscriptions, *self._publishers]

    def _ropes_resume(self, step: Callable[[], None]) -> None:
        """Let the executor's thread take a step; safe in any thread."""
        self._ropes_resumed.append(step)
        if self.executor is not None:
            self.executor.wake()

    def _ropes_entities_changed(self) -> None:
        self._ropes_version += 1
        if self.executor is not None:
            self.executor.wake()
        elif self._ropes_watched_by is not None:
            self._ropes_watched_by.update()

    def _ropes_announce(self, readers: Sequence[bytes] = (), writers: Sequence[bytes] = ()) -> None:
        self._ropes_local.readers.extend(readers)
        self._ropes_local.writers.extend(writers)
        self.context.graph.publish()
        self._ropes_entities_changed()

    def _ropes_withdraw(self, readers: Sequence[bytes] = (), writers: Sequence[bytes] = ()) -> None:
        self._ropes_local.readers = [gid for gid in self._ropes_local.readers if gid not in readers]
        self._ropes_local.writers = [gid for gid in self._ropes_local.writers if gid not in writers]
        if not self._ropes_destroyed:
            self.context.graph.publish()
        self._ropes_entities_changed()

    # -- names ---------------------------------------------------------------------------------------------------

    def get_name(self) -> str:
        """The node's name."""
        return self._ropes_name

    def get_namespace(self) -> str:
        """The node's namespace."""
        return self._ropes_namespace

    def get_fully_qualified_name(self) -> str:
        """Namespace and name."""
        return names.join(self._ropes_namespace, self._ropes_name)

    def resolve_topic_name(self, topic: str, *, only_expand: bool = False) -> str:
        """The absolute, remapped name of a topic."""
        full = names.expand(topic, self._ropes_name, self._ropes_namespace)
        return full if only_expand else names.remap(full, self._ropes_name, self._ropes_namespace, self._ropes_rules)

    def resolve_service_name(self, service: str, *, only_expand: bool = False) -> str:
        """The absolute, remapped name of a service."""
        full = names.expand(service, self._ropes_name, self._ropes_namespace, service=True)
        if only_expand:
            return full
        return names.remap(full, self._ropes_name, self._ropes_namespace, self._ropes_rules, service=True)

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
        qos_overriding_options: QoSOverridingOptions | None = None,
        publisher_class: type[Publisher] = Publisher,
    ) -> Any:
        """Publish on a topic."""
        name = self.resolve_topic_name(topic)
        publisher = publisher_class(
            self,
            msg_type,
            name,
            declare_overrides(self, "publisher", name, as_profile(qos_profile), qos_overriding_options),
            event_callbacks or PublisherEventCallbacks(),
        )
        self._publishers.append(publisher)
        self._ropes_announce(writers=[publisher.gid])
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
        qos_overriding_options: QoSOverridingOptions | None = None,
        raw: bool = False,
        content_filter_options: Any = None,
    ) -> Subscription:
        """Call back with each message of a topic."""
        if content_filter_options is not None:
            raise UnsupportedError("content_filter_options is not supported by the standalone runtime")
        name = self.resolve_topic_name(topic)
        subscription = Subscription(
            self,
            msg_type,
            name,
            callback,
            declare_overrides(self, "subscription", name, as_profile(qos_profile), qos_overriding_options),
            raw,
            event_callbacks or SubscriptionEventCallbacks(),
            callback_group or self.default_callback_group,
        )
        self._subscriptions.append(subscription)
        self._ropes_announce(readers=[subscription.gid])
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
            self._ropes_entities_changed,
        )
        if not autostart:
            timer.cancel()
        self._timers.append(timer)
        self._ropes_entities_changed()
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
        name = self.resolve_service_name(srv_name)
        group = callback_group or self.default_callback_group
        service = Service(self, srv_type, name, callback, qos_profile, group)
        self._services.append(service)
        reader, writer = service.gids
        self._ropes_announce([reader], [writer])
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
        name = self.resolve_service_name(srv_name)
        client = Client(self, srv_type, name, qos_profile, callback_group or self.default_callback_group)
        self._clients.append(client)
        reader, writer = client.gids
        self._ropes_announce([reader], [writer])
        return client

    def destroy_publisher(self, publisher: Any) -> bool:
        """Leave a topic; False where the publisher is not this node's."""
        if publisher not in self._publishers:
            return False
        self._publishers.remove(publisher)
        self._ropes_withdraw(writers=[publisher.gid])
        publisher.close()
        return True

    def destroy_subscription(self, subscription: Subscription) -> bool:
        """Leave a topic; False where the subscription is not this node's."""
        if subscription not in self._subscriptions:
            return False
        self._subscriptions.remove(subscription)
        self._ropes_withdraw(readers=[subscription.gid])
        subscription.close()
        return True

    def destroy_timer(self, timer: Timer) -> bool:
        """End a timer; False where it is not this node's."""
        if timer not in self._timers:
            return False
        self._timers.remove(timer)
        timer.destroy()
        self._ropes_entities_changed()
        return True

    def destroy_service(self, service: Service) -> bool:
        """End a service; False where it is not this node's."""
        if service not in self._services:
            return False
        self._services.remove(service)
        reader, writer = service.gids
        self._ropes_withdraw([reader], [writer])
        service.close()
        return True

    def destroy_client(self, client: Client) -> bool:
        """End a client; False where it is not this node's."""
        if client not in self._clients:
            return False
        self._clients.remove(client)
        reader, writer = client.gids
        self._ropes_withdraw([reader], [writer])
        client.close()
        return True

    def destroy_node(self) -> None:
        """Leave the graph and drop everything that the node has."""
        if self._ropes_destroyed:
            return
        self._ropes_destroyed = True
        if self._ropes_rosout is not None and log.sinks.get(self._logger.name) is self._ropes_rosout:
            del log.sinks[self._logger.name]
        self.context.graph.remove_node(self._ropes_local)
        if self.executor is not None:
            self.executor.remove_node(self)
        if self._ropes_watched_by is not None:
            self._ropes_watched_by.update()
            self._ropes_watched_by = None
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

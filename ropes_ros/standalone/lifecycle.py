"""Lifecycle nodes: rclpy.lifecycle, brought up by spinning and taken down when destroyed.

Under ROS 2 a launch file or a lifecycle manager configures and activates a node; standalone there is none, so spinning
does, unless the parameter `autostart` is false.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from enum import Enum
from functools import wraps
from typing import Any

from ropes_ros.errors import RopesError
from ropes_ros.standalone import log
from ropes_ros.standalone.endpoints import Publisher
from ropes_ros.standalone.errors import LifecycleError
from ropes_ros.standalone.lifecycle_services import LifecycleServices
from ropes_ros.standalone.messages import message_class
from ropes_ros.standalone.node import Node
from ropes_ros.standalone.states import STATES, TRANSITIONS, LifecycleState, Transition

AUTOSTART = "autostart"


class TransitionCallbackReturn(Enum):
    """What a transition callback says of its transition."""

    SUCCESS = 97
    FAILURE = 98
    ERROR = 99


class ManagedEntity:
    """Something that follows its node's transitions; each callback does nothing and succeeds."""

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """The node is configured."""
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """The node is cleaned up."""
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """The node is shut down."""
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """The node is activated."""
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """The node is deactivated."""
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """A transition failed."""
        return TransitionCallbackReturn.SUCCESS


class SimpleManagedEntity(ManagedEntity):
    """A managed entity that knows whether its node is active."""

    def __init__(self) -> None:
        self._enabled = False

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Enable the entity."""
        self._enabled = True
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Disable the entity."""
        self._enabled = False
        return TransitionCallbackReturn.SUCCESS

    @property
    def is_activated(self) -> bool:
        """Whether the entity is enabled."""
        return self._enabled

    @staticmethod
    def when_enabled(
        wrapped: Callable[..., Any] | None = None, *, when_not_enabled: Callable[..., Any] | None = None
    ) -> Callable[..., Any]:
        """Decorate a method that does nothing, or something else, while the entity is disabled."""

        def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(method)
            def call(self: SimpleManagedEntity, *args: Any, **kwargs: Any) -> Any:
                if self._enabled:
                    return method(self, *args, **kwargs)
                return None if when_not_enabled is None else when_not_enabled()

            return call

        return decorate if wrapped is None else decorate(wrapped)


class LifecyclePublisher(SimpleManagedEntity, Publisher):
    """A publisher that drops messages while its node is not active."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        SimpleManagedEntity.__init__(self)
        Publisher.__init__(self, *args, **kwargs)

    def publish(self, msg: Any) -> None:
        """Send a message if the node is active."""
        if self.is_activated:
            super().publish(msg)


class LifecycleNode(Node):
    """A node with the states unconfigured, inactive, active and finalized."""

    def __init__(self, node_name: str, *, enable_communication_interface: bool = True, **options: Any) -> None:
        self._ropes_state = STATES["unconfigured"]
        self._ropes_managed: list[ManagedEntity] = []
        self._ropes_failure: str = ""
        self._ropes_lifecycle_services: LifecycleServices | None = None
        super().__init__(node_name, **options)
        try:
            descriptor = message_class("rcl_interfaces/msg/ParameterDescriptor")(
                description="Configure and activate the node when spinning begins", read_only=True
            )
            self.declare_parameter(AUTOSTART, True, descriptor)
            if enable_communication_interface:
                self._ropes_lifecycle_services = LifecycleServices(self)
        except Exception:
            super().destroy_node()
            raise

    @property
    def _ropes_lifecycle_state(self) -> LifecycleState:
        """The current state."""
        return self._ropes_state

    def _ropes_start(self) -> None:
        """Configure and activate.

        Raises:
            LifecycleError: the node refused or failed; its own log says why.
        """
        self._ropes_started = True
        if self.get_parameter(AUTOSTART).value:
            for step, trigger in (("configured", self.trigger_configure), ("activated", self.trigger_activate)):
                if not self.context.ok():
                    return
                result = trigger()
                if result != TransitionCallbackReturn.SUCCESS:
                    reason = self._ropes_failure or "see its log above"
                    raise LifecycleError(f"node {self.get_fully_qualified_name()} could not be {step}: {reason}")
        super()._ropes_start()

    def create_lifecycle_publisher(self, *args: Any, **kwargs: Any) -> LifecyclePublisher:
        """Publish on a topic while the node is active."""
        if "publisher_class" in kwargs:
            raise TypeError("create_lifecycle_publisher takes no publisher_class")
        publisher: LifecyclePublisher = self.create_publisher(*args, publisher_class=LifecyclePublisher, **kwargs)
        self._ropes_managed.append(publisher)
        return publisher

    def destroy_lifecycle_publisher(self, publisher: LifecyclePublisher) -> bool:
        """Leave a topic."""
        return self.destroy_publisher(publisher)

    def destroy_publisher(self, publisher: Any) -> bool:
        """Leave a topic; False where the publisher is not this node's."""
        if publisher in self._ropes_managed:
            self._ropes_managed.remove(publisher)
        return super().destroy_publisher(publisher)

    def add_managed_entity(self, entity: ManagedEntity) -> None:
        """Let an entity follow the node's transitions."""
        if not isinstance(entity, ManagedEntity):
            raise TypeError(f"expected a rclpy.lifecycle.ManagedEntity, not {entity!r}")
        self._ropes_managed.append(entity)

    def destroy_node(self) -> None:
        """Deactivate and shut down, then leave the graph."""
        # A node that was interrupted within its constructor lacks what its callbacks expect.
        if not self._ropes_destroyed and (self._ropes_started or self._ropes_state.label != "unconfigured"):
            if self._ropes_state.label == "active":
                self.trigger_deactivate()
            if self._ropes_state.label in ("unconfigured", "inactive", "active"):
                self.trigger_shutdown()
        super().destroy_node()

    # -- callbacks, for subclasses to extend ---------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Set up; the managed entities follow."""
        return self._ropes_tell(lambda entity: entity.on_configure(state))

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Undo on_configure; the managed entities follow."""
        return self._ropes_tell(lambda entity: entity.on_cleanup(state))

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything; the managed entities follow."""
        return self._ropes_tell(lambda entity: entity.on_shutdown(state))

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin; the managed entities follow, and lifecycle publishers publish from now on."""
        return self._ropes_tell(lambda entity: entity.on_activate(state))

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Pause; the managed entities follow, and lifecycle publishers publish no more."""
        return self._ropes_tell(lambda entity: entity.on_deactivate(state))

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Recover from an error: SUCCESS leads to unconfigured, all else to finalized; the managed entities follow."""
        return self._ropes_tell(lambda entity: entity.on_error(state))

    def _ropes_tell(self, callback: Callable[[ManagedEntity], TransitionCallbackReturn]) -> TransitionCallbackReturn:
        for entity in tuple(self._ropes_managed):
            result = callback(entity)
            if result != TransitionCallbackReturn.SUCCESS:
                return result
        return TransitionCallbackReturn.SUCCESS

    # -- transitions ---------------------------------------------------------------------------------------------

    def trigger_configure(self) -> TransitionCallbackReturn:
        """unconfigured -> inactive."""
        return self._ropes_trigger(TRANSITIONS["configure"])

    def trigger_cleanup(self) -> TransitionCallbackReturn:
        """inactive -> unconfigured."""
        return self._ropes_trigger(TRANSITIONS["cleanup"])

    def trigger_activate(self) -> TransitionCallbackReturn:
        """inactive -> active."""
        return self._ropes_trigger(TRANSITIONS["activate"])

    def trigger_deactivate(self) -> TransitionCallbackReturn:
        """active -> inactive."""
        return self._ropes_trigger(TRANSITIONS["deactivate"])

    def trigger_shutdown(self) -> TransitionCallbackReturn:
        """Any primary state -> finalized."""
        return self._ropes_trigger(TRANSITIONS["shutdown"])

    def _ropes_trigger(self, transition: Transition) -> TransitionCallbackReturn:
        """Go through a transition.

        Raises:
            LifecycleError: the current state does not allow it.
        """
        start = self._ropes_state
        if start.label not in transition.starts:
            raise LifecycleError(
                f"node {self.get_fully_qualified_name()} cannot {transition.label} in state {start.label}"
            )
        self._ropes_go(transition.during)
        result = self._ropes_call(transition.callback, start)
        if result == TransitionCallbackReturn.SUCCESS:
            self._ropes_go(transition.success)
        elif result == TransitionCallbackReturn.FAILURE:
            self._ropes_go(transition.failure)
        else:
            self._ropes_go("errorprocessing")
            recovered = self._ropes_call("on_error", start) == TransitionCallbackReturn.SUCCESS
            self._ropes_go("unconfigured" if recovered else "finalized")
        return result

    def _ropes_go(self, label: str) -> None:
        before, self._ropes_state = self._ropes_state, STATES[label]
        if self._ropes_lifecycle_services is not None:
            self._ropes_lifecycle_services.publish(before, self._ropes_state)

    def _ropes_call(self, callback: str, state: LifecycleState) -> TransitionCallbackReturn:
        self._ropes_failure = self._ropes_failure if callback == "on_error" else ""
        log.last_errors.pop(self.get_logger().name, None)
        try:
            result = getattr(self, callback)(state)
        except RopesError as error:
            self._ropes_failure = str(error)
            self.get_logger().error(f"{callback}: {error}")
            return TransitionCallbackReturn.ERROR
        except Exception as error:
            self._ropes_failure = f"{callback} raised {type(error).__name__}: {' '.join(str(error).split())}"
            self.get_logger().error(f"{callback} failed:\n{traceback.format_exc().rstrip()}")
            return TransitionCallbackReturn.ERROR
        if not isinstance(result, TransitionCallbackReturn):
            self._ropes_failure = f"{callback} must return a TransitionCallbackReturn, not {result!r}"
            self.get_logger().error(self._ropes_failure)
            return TransitionCallbackReturn.ERROR
        answer: TransitionCallbackReturn = result
        if answer != TransitionCallbackReturn.SUCCESS and not self._ropes_failure:
            self._ropes_failure = log.last_errors.get(self.get_logger().name, "").rpartition("\n")[2]
        return answer


State = LifecycleState

"""The services and the topic by which `ros2 lifecycle` and lifecycle managers see and steer a lifecycle node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ropes_ros.standalone.messages import message_class, service_class
from ropes_ros.standalone.qos import qos_profile_default
from ropes_ros.standalone.states import EDGES, STATES, TRANSITIONS, Edge, LifecycleState

if TYPE_CHECKING:
    from ropes_ros.standalone.lifecycle import LifecycleNode

_SUCCESS = 97


def _state_message(state: LifecycleState) -> Any:
    return message_class("lifecycle_msgs/msg/State")(id=state.state_id, label=state.label)


def _description(edge: Edge) -> Any:
    return message_class("lifecycle_msgs/msg/TransitionDescription")(
        transition=message_class("lifecycle_msgs/msg/Transition")(id=edge.number, label=edge.label),
        start_state=_state_message(STATES[edge.start]),
        goal_state=_state_message(STATES[edge.goal]),
    )


class LifecycleServices:
    """Offers the lifecycle services of a node, and publishes its transitions."""

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._event = message_class("lifecycle_msgs/msg/TransitionEvent")
        self._events = node.create_publisher(self._event, "~/transition_event", qos_profile_default)
        for name, kind, callback in (
            ("change_state", "ChangeState", self._change),
            ("get_state", "GetState", self._get),
            ("get_available_states", "GetAvailableStates", self._states),
            ("get_available_transitions", "GetAvailableTransitions", self._available),
            ("get_transition_graph", "GetAvailableTransitions", self._graph),
        ):
            node.create_service(service_class(f"lifecycle_msgs/srv/{kind}"), f"~/{name}", callback)

    def publish(self, start: LifecycleState, goal: LifecycleState) -> None:
        """Publish a step from one state to another."""
        edge = next(edge for edge in EDGES if (edge.start, edge.goal) == (start.label, goal.label))
        description = _description(edge)
        self._events.publish(
            self._event(
                timestamp=self._node.get_clock().now().nanoseconds,
                transition=description.transition,
                start_state=description.start_state,
                goal_state=description.goal_state,
            )
        )

    def _change(self, request: Any, response: Any) -> Any:
        state = self._node._ropes_lifecycle_state.label
        for transition in TRANSITIONS.values():
            number = transition.starts.get(state)
            wanted = request.transition
            named = bool(wanted.label) and wanted.label == transition.label
            if number is not None and (named or (not wanted.label and wanted.id == number)):
                response.success = self._node._ropes_trigger(transition).value == _SUCCESS
                return response
        self._node.get_logger().warning(
            f"no transition {request.transition.label or request.transition.id} from state {state}"
        )
        return response

    def _get(self, request: Any, response: Any) -> Any:
        response.current_state = _state_message(self._node._ropes_lifecycle_state)
        return response

    def _states(self, request: Any, response: Any) -> Any:
        response.available_states = [_state_message(state) for state in STATES.values()]
        return response

    def _available(self, request: Any, response: Any) -> Any:
        state = self._node._ropes_lifecycle_state.label
        response.available_transitions = [_description(edge) for edge in EDGES if edge.start == state]
        return response

    def _graph(self, request: Any, response: Any) -> Any:
        response.available_transitions = [_description(edge) for edge in EDGES]
        return response

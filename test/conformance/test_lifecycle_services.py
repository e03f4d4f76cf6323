"""Lifecycle nodes from without: the services that `ros2 lifecycle` and lifecycle managers call."""

from __future__ import annotations

from typing import Any

import pytest
from conformance_support import RUNTIMES, Child, Ros, either
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetAvailableStates, GetAvailableTransitions, GetState

STATES = {
    *((0, "unknown"), (1, "unconfigured"), (2, "inactive"), (3, "active"), (4, "finalized"), (10, "configuring")),
    *((11, "cleaningup"), (12, "shuttingdown"), (13, "activating"), (14, "deactivating"), (15, "errorprocessing")),
}
GRAPH = {
    (1, "configure", "unconfigured", "configuring"),
    (10, "transition_success", "configuring", "inactive"),
    (11, "transition_failure", "configuring", "unconfigured"),
    (12, "transition_error", "configuring", "errorprocessing"),
    (2, "cleanup", "inactive", "cleaningup"),
    (20, "transition_success", "cleaningup", "unconfigured"),
    (21, "transition_failure", "cleaningup", "inactive"),
    (22, "transition_error", "cleaningup", "errorprocessing"),
    (3, "activate", "inactive", "activating"),
    (30, "transition_success", "activating", "active"),
    (31, "transition_failure", "activating", "inactive"),
    (32, "transition_error", "activating", "errorprocessing"),
    (4, "deactivate", "active", "deactivating"),
    (40, "transition_success", "deactivating", "inactive"),
    (41, "transition_failure", "deactivating", "active"),
    (42, "transition_error", "deactivating", "errorprocessing"),
    (5, "shutdown", "unconfigured", "shuttingdown"),
    (6, "shutdown", "inactive", "shuttingdown"),
    (7, "shutdown", "active", "shuttingdown"),
    (50, "transition_success", "shuttingdown", "finalized"),
    (51, "transition_failure", "shuttingdown", "finalized"),
    (52, "transition_error", "shuttingdown", "errorprocessing"),
    (60, "transition_success", "errorprocessing", "unconfigured"),
    (61, "transition_failure", "errorprocessing", "finalized"),
    (62, "transition_error", "errorprocessing", "finalized"),
}


class Remote:
    """The lifecycle services of a node."""

    def __init__(self, ros: Ros, node: Any, name: str) -> None:
        self._ros, self._node, self._name = ros, node, name

    def _call(self, kind: Any, service: str, request: Any = None) -> Any:
        return self._ros.call(self._node, kind, f"/{self._name}/{service}", request or kind.Request())

    def state(self) -> tuple[int, str]:
        current = self._call(GetState, "get_state").current_state
        return current.id, current.label

    def states(self) -> set[tuple[int, str]]:
        found = self._call(GetAvailableStates, "get_available_states").available_states
        return {(state.id, state.label) for state in found}

    def transitions(self, service: str) -> set[tuple[int, str, str, str]]:
        found = self._call(GetAvailableTransitions, service).available_transitions
        return {(t.transition.id, t.transition.label, t.start_state.label, t.goal_state.label) for t in found}

    def change(self, number: int = 0, label: str = "") -> bool:
        request = ChangeState.Request(transition=Transition(id=number, label=label))
        return bool(self._call(ChangeState, "change_state", request).success)


@pytest.fixture
def remote(ros: Ros) -> Remote:
    ros.lifecycle("beside")
    return Remote(ros, ros.node("caller"), "beside")


def test_states_and_transitions_by_number(remote: Remote) -> None:
    assert remote.state() == (State.PRIMARY_STATE_UNCONFIGURED, "unconfigured")
    for number, label in (
        (Transition.TRANSITION_CONFIGURE, "inactive"),
        (Transition.TRANSITION_ACTIVATE, "active"),
        (Transition.TRANSITION_DEACTIVATE, "inactive"),
        (Transition.TRANSITION_CLEANUP, "unconfigured"),
        (Transition.TRANSITION_UNCONFIGURED_SHUTDOWN, "finalized"),
    ):
        assert remote.change(number) and remote.state()[1] == label


def test_transitions_by_label(remote: Remote) -> None:
    for label, state in (("configure", "inactive"), ("activate", "active"), ("shutdown", "finalized")):
        assert remote.change(label=label) and remote.state()[1] == state


def test_a_label_counts_more_than_a_number(remote: Remote) -> None:
    assert remote.change(Transition.TRANSITION_ACTIVATE, "configure") and remote.state()[1] == "inactive"


def test_unknown_labels_are_refused(remote: Remote) -> None:
    assert not remote.change(label="fly") and not remote.change(label="activate")
    assert remote.state()[1] == "unconfigured"


def test_a_number_that_the_state_does_not_allow(ros: Ros) -> None:
    """Some releases of rclpy let the error out of spin; what counts is that the state stays."""
    ros.lifecycle("beside")
    remote = Remote(ros, ros.node("caller"), "beside")
    if either("transition-that-is-not-allowed", standalone=True, ros=False):
        assert not remote.change(Transition.TRANSITION_ACTIVATE)
        assert remote.state()[1] == "unconfigured"
    else:
        with pytest.raises(RuntimeError):
            remote.change(Transition.TRANSITION_ACTIVATE)


def test_what_the_services_list(remote: Remote) -> None:
    assert remote.states() == STATES
    assert remote.transitions("get_transition_graph") == GRAPH
    for step in ("", "configure", "activate"):
        if step:
            remote.change(label=step)
        state = remote.state()[1]
        assert remote.transitions("get_available_transitions") == {edge for edge in GRAPH if edge[2] == state}
    remote.change(label="shutdown")
    assert remote.transitions("get_available_transitions") == set()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_node_of_another_process(ros: Ros, children: list[Child], runtime: str) -> None:
    children.append(Child("life", runtime))
    children[0].wait_for("ready")
    remote = Remote(ros, ros.node("caller"), "life")
    assert remote.state()[1] == "unconfigured" and remote.change(Transition.TRANSITION_CONFIGURE)
    assert remote.state()[1] == "inactive"
    children[0].wait_for("configured")
    assert remote.states() == STATES and remote.transitions("get_transition_graph") == GRAPH
    assert remote.transitions("get_available_transitions") == {edge for edge in GRAPH if edge[2] == "inactive"}

"""The states and transitions of a lifecycle node, with the numbers of lifecycle_msgs."""

from __future__ import annotations

from typing import NamedTuple


class LifecycleState(NamedTuple):
    """A state's name and number."""

    label: str
    state_id: int


class Transition(NamedTuple):
    """A transition from any of `starts` through a transition state to where its callback's result leads."""

    label: str
    starts: dict[str, int]
    during: str
    callback: str
    success: str
    failure: str


class Edge(NamedTuple):
    """One arrow of the state machine: its number and name in lifecycle_msgs, and the states that it joins."""

    number: int
    label: str
    start: str
    goal: str


STATES: dict[str, LifecycleState] = {
    label: LifecycleState(label, number)
    for label, number in (
        ("unknown", 0),
        ("unconfigured", 1),
        ("inactive", 2),
        ("active", 3),
        ("finalized", 4),
        ("configuring", 10),
        ("cleaningup", 11),
        ("shuttingdown", 12),
        ("activating", 13),
        ("deactivating", 14),
        ("errorprocessing", 15),
    )
}

# `starts` gives the transition's number in lifecycle_msgs/Transition for each state in which it may begin.
TRANSITIONS: dict[str, Transition] = {
    transition.label: transition
    for transition in (
        Transition("configure", {"unconfigured": 1}, "configuring", "on_configure", "inactive", "unconfigured"),
        Transition("cleanup", {"inactive": 2}, "cleaningup", "on_cleanup", "unconfigured", "inactive"),
        Transition("activate", {"inactive": 3}, "activating", "on_activate", "active", "inactive"),
        Transition("deactivate", {"active": 4}, "deactivating", "on_deactivate", "inactive", "active"),
        Transition(
            "shutdown",
            {"unconfigured": 5, "inactive": 6, "active": 7},
            "shuttingdown",
            "on_shutdown",
            "finalized",
            "finalized",
        ),
    )
}

# What a transition callback says leads from a transition state to a primary one; the numbers are in lifecycle_msgs.
_OUTCOMES = ("transition_success", "transition_failure", "transition_error")
_FIRST_OUTCOME = {
    "configuring": 10,
    "cleaningup": 20,
    "activating": 30,
    "deactivating": 40,
    "shuttingdown": 50,
    "errorprocessing": 60,
}
_GOALS = {
    **{
        transition.during: (transition.success, transition.failure, "errorprocessing")
        for transition in TRANSITIONS.values()
    },
    "errorprocessing": ("unconfigured", "finalized", "finalized"),
}

EDGES: list[Edge] = [
    *(
        Edge(number, transition.label, start, transition.during)
        for transition in TRANSITIONS.values()
        for start, number in transition.starts.items()
    ),
    *(
        Edge(number + index, label, start, goal)
        for start, number in _FIRST_OUTCOME.items()
        for index, (label, goal) in enumerate(zip(_OUTCOMES, _GOALS[start], strict=True))
    ),
]

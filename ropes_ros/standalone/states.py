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

"""A node's parameters seen from another node, and from another process."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from conformance_support import RUNTIMES, Child, Ros, until
from rcl_interfaces.msg import ParameterDescriptor, ParameterEvent, ParameterType
from rcl_interfaces.srv import (
    DescribeParameters,
    GetParameters,
    GetParameterTypes,
    ListParameters,
    SetParameters,
    SetParametersAtomically,
)
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.qos import qos_profile_parameter_events

Results = list[tuple[bool, bool]]


class Remote:
    """The six services of another node's parameters."""

    def __init__(self, ros: Ros, node: Any, name: str) -> None:
        self._ros, self._node, self._name = ros, node, name

    def _call(self, kind: Any, service: str, request: Any) -> Any:
        return self._ros.call(self._node, kind, f"{self._name}/{service}", request)

    def get(self, *names: str) -> list[Any]:
        response = self._call(GetParameters, "get_parameters", GetParameters.Request(names=list(names)))
        return [parameter_value_to_python(value) for value in response.values]

    def types(self, *names: str) -> list[int]:
        request = GetParameterTypes.Request(names=list(names))
        return list(self._call(GetParameterTypes, "get_parameter_types", request).types)

    def describe(self, *names: str) -> list[Any]:
        request = DescribeParameters.Request(names=list(names))
        return list(self._call(DescribeParameters, "describe_parameters", request).descriptors)

    def list(self, *prefixes: str, depth: int = 0) -> tuple[set[str], set[str]]:
        request = ListParameters.Request(prefixes=list(prefixes), depth=depth)
        result = self._call(ListParameters, "list_parameters", request).result
        return set(result.names), set(result.prefixes)

    def set(self, **values: Any) -> Results:
        request = SetParameters.Request(parameters=messages(values))
        results = self._call(SetParameters, "set_parameters", request).results
        return [(result.successful, bool(result.reason)) for result in results]

    def set_together(self, **values: Any) -> tuple[bool, bool]:
        request = SetParametersAtomically.Request(parameters=messages(values))
        result = self._call(SetParametersAtomically, "set_parameters_atomically", request).result
        return result.successful, bool(result.reason)


def messages(values: dict[str, Any]) -> list[Any]:
    return [Parameter(name.replace("__", "."), value=value).to_parameter_msg() for name, value in values.items()]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_services_of_another_process(ros: Ros, children: list[Child], runtime: str) -> None:
    children.append(Child("settings", runtime, LATER="has no value yet"))
    children[0].wait_for("ready")
    remote = Remote(ros, ros.node(), "settings")
    own = {"count", "fixed", "group.gain", "group.names", "flags", "later"}
    names, prefixes = remote.list()
    assert own <= names and "use_sim_time" in names and "group" in prefixes
    assert remote.get("count", "group.gain", "group.names", "flags") == [4, 0.5, ["a", "b"], [True, False]]
    assert remote.get("count", "absent") == [] and remote.get("later") == []
    assert remote.types("count", "fixed") == [ParameterType.PARAMETER_INTEGER, ParameterType.PARAMETER_STRING]
    count, fixed = remote.describe("count", "fixed")
    assert (count.name, count.type, count.description) == ("count", ParameterType.PARAMETER_INTEGER, "how many")
    limits = count.integer_range[0]
    assert (limits.from_value, limits.to_value, limits.step) == (0, 10, 2)
    assert fixed.read_only and not count.read_only
    assert remote.describe("count", "absent") == []
    good, bad = (True, False), (False, True)
    assert remote.set(count=6, group__gain=0.25) == [good, good]
    assert remote.set(count=7) == remote.set(count=12) == remote.set(count="six") == remote.set(fixed="clay") == [bad]
    assert remote.set(absent=1) == [bad] and remote.set(count=8, fixed="clay", group__gain=0.75) == [good, bad, good]
    assert remote.set_together(count=2, fixed="clay") == bad and remote.set_together(absent=1) == bad
    assert remote.set_together(count=2, flags=[False]) == good
    assert remote.get("count", "fixed", "group.gain", "flags") == [2, "stone", 0.75, [False]]


def test_listing_by_prefix_and_depth(ros: Ros) -> None:
    target = ros.node("target")
    for name in ("a", "b.c", "b.d.e", "bb.f"):
        target.declare_parameter(name, 1)
    remote = Remote(ros, ros.node("caller"), "target")
    assert remote.list("b") == ({"b.c", "b.d.e"}, {"b", "b.d"})
    assert remote.list("b.d")[0] == {"b.d.e"} and remote.list("no") == (set(), set())
    if hasattr(type(target), "list_parameters"):  # Humble answers otherwise
        assert remote.list("b", depth=1)[0] == {"b.c"}
        assert remote.list(depth=1)[0] - {"use_sim_time", "start_type_description_service"} == {"a"}
        assert set(target.list_parameters(["b"], 0).names) == {"b.c", "b.d.e"}
        with pytest.raises(ValueError):
            target.list_parameters([], -1)
        with pytest.raises(TypeError):
            target.list_parameters("b", 0)


def test_a_node_may_do_without_the_services(ros: Ros) -> None:
    ros.node("quiet", start_parameter_services=False)
    watcher = ros.node("watcher")
    ros.spin(lambda: "/watcher/get_parameters" in dict(watcher.get_service_names_and_types()), "the watcher's services")
    assert "/quiet/get_parameters" not in dict(watcher.get_service_names_and_types())


def test_changes_are_published(ros: Ros) -> None:
    events: list[ParameterEvent] = []
    watcher = ros.node("watcher")
    watcher.create_subscription(ParameterEvent, "/parameter_events", events.append, qos_profile_parameter_events)
    target = ros.node("target", namespace="/lab")
    ros.spin(lambda: watcher.count_publishers("/parameter_events") >= 2, "the publishers")
    ros.spin_for(0.1)

    def told() -> list[tuple[dict[str, Any], dict[str, Any], list[str]]]:
        """New, changed and deleted parameters, event by event."""
        mine = [event for event in list(events) if event.node == "/lab/target"]
        return [
            (
                {p.name: parameter_value_to_python(p.value) for p in event.new_parameters},
                {p.name: parameter_value_to_python(p.value) for p in event.changed_parameters},
                [p.name for p in event.deleted_parameters],
            )
            for event in mine
            if not any(p.name == "use_sim_time" for p in event.new_parameters)
        ]

    target.declare_parameter("a", 1)
    target.declare_parameter("loose", "x", ParameterDescriptor(dynamic_typing=True))
    target.set_parameters([Parameter("a", value=2)])
    target.set_parameters([Parameter("a", value="refused")])
    target.set_parameters_atomically([Parameter("a", value=3), Parameter("loose", value=1.5)])
    target.set_parameters([Parameter("loose", Parameter.Type.NOT_SET)])
    expected: list[Any] = [
        ({"a": 1}, {}, []),
        ({"loose": "x"}, {}, []),
        ({}, {"a": 2}, []),
        ({}, {"a": 3, "loose": 1.5}, []),
        ({}, {}, ["loose"]),
    ]
    ros.spin(lambda: len([e for e in told() if e in expected]) >= len(expected), "the events")
    assert [event for event in told() if any(event)][-len(expected) :] == expected
    stamps = [event.stamp.sec * 10**9 + event.stamp.nanosec for event in events if event.node == "/lab/target"]
    assert stamps == sorted(stamps) and stamps[0] > 0


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_setting_by_service_is_published(ros: Ros, children: list[Child], runtime: str) -> None:
    events: list[ParameterEvent] = []
    node = ros.node()
    node.create_subscription(ParameterEvent, "/parameter_events", events.append, qos_profile_parameter_events)
    children.append(Child("settings", runtime))
    children[0].wait_for("ready")
    remote = Remote(ros, node, "settings")
    counts = itertools.cycle((8, 4))
    sent: list[int] = []

    def set_and_heard() -> bool:
        """Set a new value; events of the first ones may be sent before this node hears them."""
        sent.append(next(counts))
        assert remote.set(count=sent[-1]) == [(True, False)]
        return any(event.node == "/settings" and event.changed_parameters for event in events)

    until(set_and_heard, "an event of a change")
    last = [event for event in events if event.node == "/settings" and event.changed_parameters][-1]
    ((name, value),) = [(p.name, p.value.integer_value) for p in last.changed_parameters]
    assert name == "count" and value in sent

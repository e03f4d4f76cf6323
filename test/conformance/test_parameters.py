"""Parameters within a node: types, descriptors, callbacks, setting together."""

from __future__ import annotations

from array import array
from typing import Any

import pytest
from conformance_support import Ros
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, ParameterType, SetParametersResult
from rclpy.exceptions import (
    InvalidParameterException,
    InvalidParameterTypeException,
    InvalidParameterValueException,
    ParameterAlreadyDeclaredException,
    ParameterImmutableException,
    ParameterNotDeclaredException,
    ParameterUninitializedException,
)
from rclpy.parameter import Parameter

VALUES: list[tuple[Any, str]] = [
    (True, "BOOL"),
    (7, "INTEGER"),
    (-(1 << 63), "INTEGER"),
    (0.5, "DOUBLE"),
    ("text", "STRING"),
    ("", "STRING"),
    ([b"\x01", b"\xff"], "BYTE_ARRAY"),
    ([True, False], "BOOL_ARRAY"),
    ([1, 2], "INTEGER_ARRAY"),
    ([0.5, 1.0], "DOUBLE_ARRAY"),
    (["a", "b"], "STRING_ARRAY"),
]


def set_to(node: Any, name: str, value: Any) -> str:
    """Why a value was refused; empty where it was set."""
    (result,) = node.set_parameters([Parameter(name, value=value)])
    if result.successful:
        assert node.get_parameter(name).value == value
        return ""
    return str(result.reason) or "no reason"


@pytest.mark.parametrize(("value", "kind"), VALUES)
def test_every_type_keeps_value_and_type(ros: Ros, value: Any, kind: str) -> None:
    node = ros.node()
    declared = node.declare_parameter("p", value)
    assert (declared.name, declared.value, declared.type_) == ("p", value, Parameter.Type[kind])
    assert node.get_parameter("p") is not None and node.get_parameter("p").value == value
    descriptor = node.describe_parameter("p")
    assert (descriptor.name, descriptor.type) == ("p", getattr(ParameterType, f"PARAMETER_{kind}"))
    again = Parameter.from_parameter_msg(declared.to_parameter_msg())
    assert (again.name, again.type_, list(again.value) if isinstance(value, list) else again.value) == (
        "p",
        declared.type_,
        value,
    )


@pytest.mark.parametrize(("value", "kind"), VALUES)
def test_another_type_is_refused(ros: Ros, value: Any, kind: str) -> None:
    node = ros.node()
    node.declare_parameter("p", value)
    other = "text" if kind != "STRING" else 3
    assert set_to(node, "p", other)
    assert node.get_parameter("p").value == value


def test_a_typed_parameter_has_no_value_until_it_is_set(ros: Ros) -> None:
    node = ros.node()
    node.declare_parameter("p", Parameter.Type.DOUBLE)
    assert node.has_parameter("p") and node.describe_parameter("p").type == ParameterType.PARAMETER_DOUBLE
    with pytest.raises(ParameterUninitializedException):
        node.get_parameter("p")
    assert node.get_parameter_or("p", Parameter("p", value=1.0)).value == 1.0
    assert set_to(node, "p", "text") and set_to(node, "p", 2.0) == ""
    assert node.get_parameter_or("p", Parameter("p", value=1.0)).value == 2.0


def test_declaring_wrongly_is_refused(ros: Ros) -> None:
    node = ros.node()
    node.declare_parameter("p", 1)
    with pytest.raises(ParameterAlreadyDeclaredException):
        node.declare_parameter("p", 1)
    with pytest.raises(InvalidParameterException):
        node.declare_parameter("", 1)
    with pytest.raises(ValueError):
        node.declare_parameter("q", None, ParameterDescriptor())
    with pytest.raises(ValueError):
        node.declare_parameter("q", Parameter.Type.NOT_SET)
    with pytest.raises(ValueError):
        node.declare_parameter("q", Parameter.Type.STRING, ParameterDescriptor(dynamic_typing=True))
    with pytest.raises(TypeError):
        node.declare_parameters("", [("q", 1, ParameterDescriptor(), "more")])
    with pytest.raises(TypeError):
        node.declare_parameters("", [("q", 1, "no descriptor")])
    assert not node.has_parameter("q")


def test_undeclared_parameters(ros: Ros) -> None:
    node = ros.node()
    for access in (node.get_parameter, node.describe_parameter, node.undeclare_parameter):
        with pytest.raises(ParameterNotDeclaredException):
            access("p")
    with pytest.raises(ParameterNotDeclaredException):
        node.set_parameters([Parameter("p", value=1)])
    assert node.get_parameter_or("p").type_ == Parameter.Type.NOT_SET
    assert node.get_parameter_or("p", Parameter("p", value=3)).value == 3


def test_a_node_may_allow_undeclared_parameters(ros: Ros) -> None:
    node = ros.node(allow_undeclared_parameters=True)
    assert node.get_parameter("p").type_ == Parameter.Type.NOT_SET
    assert not node.describe_parameter("p").name
    assert set_to(node, "p", 1) == "" and set_to(node, "p", "now text") == ""
    assert node.has_parameter("p") and node.describe_parameter("p").dynamic_typing


def test_undeclaring(ros: Ros) -> None:
    node = ros.node()
    node.declare_parameter("p", 1)
    node.declare_parameter("fixed", 1, ParameterDescriptor(read_only=True))
    node.undeclare_parameter("p")
    assert not node.has_parameter("p")
    assert node.declare_parameter("p", "other type").value == "other type"
    with pytest.raises(ParameterImmutableException):
        node.undeclare_parameter("fixed")


def test_read_only_parameters_keep_their_value(ros: Ros) -> None:
    ros.init("-p", "fixed:=2")
    node = ros.node()
    assert node.declare_parameter("fixed", 1, ParameterDescriptor(read_only=True)).value == 2
    assert set_to(node, "fixed", 3) and node.get_parameter("fixed").value == 2


def test_dynamic_typing(ros: Ros) -> None:
    node = ros.node()
    node.declare_parameter("p", 1, ParameterDescriptor(dynamic_typing=True))
    assert node.describe_parameter("p").type == ParameterType.PARAMETER_INTEGER
    assert set_to(node, "p", "text") == "" and set_to(node, "p", [1.0]) == ""
    assert node.describe_parameter("p").type == ParameterType.PARAMETER_DOUBLE_ARRAY
    node.declare_parameter("empty", None, ParameterDescriptor(dynamic_typing=True))
    assert node.get_parameter("empty").value is None and set_to(node, "empty", True) == ""
    (result,) = node.set_parameters([Parameter("p", Parameter.Type.NOT_SET)])
    assert result.successful and not node.has_parameter("p")


def test_a_name_alone_declares_a_dynamic_parameter_and_warns(ros: Ros) -> None:
    node = ros.node()
    with pytest.warns(UserWarning, match="p"):
        node.declare_parameter("p")
    assert node.get_parameter("p").value is None and node.describe_parameter("p").dynamic_typing


@pytest.mark.parametrize(
    ("limits", "good", "bad"),
    [
        ((0, 10, 0), [0, 7, 10], [-1, 11]),
        ((0, 10, 3), [0, 3, 9, 10], [1, 4, 11]),
        ((-5, 5, 2), [-5, -3, 5], [-4, 0, 6]),
        ((10, 0, 0), [0, 10], [11]),
        ((7, 7, 0), [7], [6, 8]),
    ],
)
def test_integer_ranges(ros: Ros, limits: tuple[int, int, int], good: list[int], bad: list[int]) -> None:
    node = ros.node()
    low, high, step = limits
    bounds = IntegerRange(from_value=low, to_value=high, step=step)
    node.declare_parameter("p", good[0], ParameterDescriptor(integer_range=[bounds]))
    assert [set_to(node, "p", value) for value in good] == [""] * len(good)
    assert all(set_to(node, "p", value) for value in bad) and node.get_parameter("p").value == good[-1]


@pytest.mark.parametrize(
    ("limits", "good", "bad"),
    [
        ((0.0, 1.0, 0.0), [0.0, 0.3, 1.0], [-0.001, 1.001, float("inf"), float("nan")]),
        ((0.0, 1.0, 0.1), [0.0, 0.3, 0.7, 1.0], [0.25, 0.301]),
        ((0.5, 1.25, 0.5), [0.5, 1.0, 1.25], [0.75, 1.5]),
        ((2.5, 2.5, 0.0), [2.5], [2.6]),
    ],
)
def test_floating_point_ranges(
    ros: Ros, limits: tuple[float, float, float], good: list[float], bad: list[float]
) -> None:
    node = ros.node()
    low, high, step = limits
    bounds = FloatingPointRange(from_value=low, to_value=high, step=step)
    node.declare_parameter("p", good[0], ParameterDescriptor(floating_point_range=[bounds]))
    assert [set_to(node, "p", value) for value in good] == [""] * len(good)
    assert all(set_to(node, "p", value) for value in bad) and node.get_parameter("p").value == good[-1]


def test_overrides_are_held_to_type_and_range(ros: Ros) -> None:
    ros.init("-p", "count:=11", "-p", "gain:=1")
    node = ros.node()
    bounds = IntegerRange(from_value=0, to_value=10, step=1)
    with pytest.raises(InvalidParameterValueException, match="count"):
        node.declare_parameter("count", 1, ParameterDescriptor(integer_range=[bounds]))
    with pytest.raises(InvalidParameterTypeException, match="gain"):
        node.declare_parameter("gain", 0.5)
    assert not node.has_parameter("count") and not node.has_parameter("gain")
    assert node.declare_parameter("gain", 0.5, ignore_override=True).value == 0.5


def test_a_callback_may_refuse(ros: Ros) -> None:
    node = ros.node()
    asked: list[list[str]] = []

    def ask(parameters: list[Parameter]) -> SetParametersResult:
        asked.append([parameter.name for parameter in parameters])
        return SetParametersResult(successful=all(p.value != 8 for p in parameters), reason="not eight")

    node.declare_parameters("", [("a", 1), ("b", 2), ("fixed", 3, ParameterDescriptor(read_only=True))])
    node.add_on_set_parameters_callback(ask)
    assert set_to(node, "a", 8) == "not eight"
    with pytest.raises(InvalidParameterValueException, match="not eight"):
        node.declare_parameter("c", 8)
    assert not node.has_parameter("c") and asked == [["a"], ["c"]]
    assert set_to(node, "a", "text") and set_to(node, "fixed", 4)
    assert asked == [["a"], ["c"]]  # what the descriptor refuses is not asked for
    node.remove_on_set_parameters_callback(ask)
    assert set_to(node, "a", 8) == ""
    with pytest.raises(ValueError):
        node.remove_on_set_parameters_callback(ask)


def test_the_newest_callback_is_asked_first_and_all_must_agree(ros: Ros) -> None:
    node = ros.node()
    node.declare_parameter("p", 1)
    asked: list[str] = []

    def answer(name: str, good: bool) -> Any:
        def callback(parameters: list[Parameter]) -> SetParametersResult:
            asked.append(name)
            return SetParametersResult(successful=good, reason=name)

        return callback

    node.add_on_set_parameters_callback(answer("old", False))
    node.add_on_set_parameters_callback(answer("new", True))
    assert set_to(node, "p", 2) == "old" and asked == ["new", "old"] and node.get_parameter("p").value == 1


def test_pre_and_post_set_callbacks(ros: Ros) -> None:
    node = ros.node()
    if not hasattr(type(node), "add_pre_set_parameters_callback"):
        pytest.skip("this distribution has none")
    node.declare_parameters("", [("a", 1), ("twice_a", 2)])
    told: list[dict[str, int]] = []

    def before(parameters: list[Parameter]) -> list[Parameter]:
        (first,) = parameters
        return [] if first.value < 0 else [first, Parameter("twice_a", value=2 * first.value)]

    node.add_pre_set_parameters_callback(before)
    node.add_post_set_parameters_callback(lambda parameters: told.append({p.name: p.value for p in parameters}))
    assert set_to(node, "a", 5) == "" and node.get_parameter("twice_a").value == 10
    assert told == [{"a": 5, "twice_a": 10}]
    assert set_to(node, "a", -1) and node.get_parameter("a").value == 5 and len(told) == 1
    node.declare_parameter("c", 3)  # no pre-set callback at declaration, but a post-set callback
    assert told[1:] == [{"c": 3}]
    node.remove_pre_set_parameters_callback(before)
    assert set_to(node, "a", -1) == ""


def test_setting_together_is_all_or_nothing(ros: Ros) -> None:
    node = ros.node()
    node.declare_parameters("", [("a", 1), ("b", "x")])
    asked: list[int] = []

    def ask(parameters: list[Parameter]) -> SetParametersResult:
        asked.append(len(parameters))
        return SetParametersResult(successful=True)

    node.add_on_set_parameters_callback(ask)
    assert not node.set_parameters_atomically([Parameter("a", value=2), Parameter("b", value=3)]).successful
    assert node.get_parameter("a").value == 1 and not asked
    assert node.set_parameters_atomically([Parameter("a", value=2), Parameter("b", value="y")]).successful
    assert [p.value for p in node.get_parameters(["a", "b"])] == [2, "y"] and asked == [2]
    with pytest.raises(ParameterNotDeclaredException):
        node.set_parameters_atomically([Parameter("a", value=4), Parameter("no", value=4)])
    assert node.get_parameter("a").value == 2
    results = node.set_parameters([Parameter("a", value=5), Parameter("b", value=6)])
    assert [result.successful for result in results] == [True, False] and node.get_parameter("a").value == 5


def test_names_with_prefixes(ros: Ros) -> None:
    node = ros.node()
    declared = node.declare_parameters("arm", [("gain", 1.0), ("limits.low", -1), ("limits.high", 1)])
    assert [parameter.name for parameter in declared] == ["arm.gain", "arm.limits.low", "arm.limits.high"]
    assert {name: p.value for name, p in node.get_parameters_by_prefix("arm.limits").items()} == {"low": -1, "high": 1}
    assert set(node.get_parameters_by_prefix("arm")) == {"gain", "limits.low", "limits.high"}
    assert not node.get_parameters_by_prefix("ar")


def test_overrides_of_the_constructor_come_first(ros: Ros) -> None:
    ros.init("-p", "a:=1", "-p", "b:=2")
    node = ros.node(parameter_overrides=[Parameter("a", value=10), Parameter("c", value=30)])
    assert [node.declare_parameter(name, 0).value for name in "abcd"] == [10, 2, 30, 0]


def test_overrides_may_declare_parameters_by_themselves(ros: Ros) -> None:
    ros.init("-p", "a:=1", "-p", "group.b:=text")
    node = ros.node(automatically_declare_parameters_from_overrides=True)
    assert (node.get_parameter("a").value, node.get_parameter("group.b").value) == (1, "text")
    assert set_to(node, "a", "text")  # typed by its first value
    assert node.has_parameter("use_sim_time")


def test_values_of_parameters_are_checked_where_they_are_made() -> None:
    assert Parameter("p", value=array("d", [1.0])).type_ == Parameter.Type.DOUBLE_ARRAY
    assert Parameter("p", Parameter.Type.STRING_ARRAY, []).value == []
    with pytest.raises(ValueError):
        Parameter("p", Parameter.Type.INTEGER, "text")
    with pytest.raises(TypeError):
        Parameter("p", value={"a": 1})
    with pytest.raises(TypeError):
        Parameter("p", value=[1, "a"])
    with pytest.raises(TypeError):
        Parameter("p", "INTEGER", 3)

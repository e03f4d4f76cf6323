"""QoS that read-only parameters override."""

from __future__ import annotations

from typing import Any

import pytest
from conformance_support import Ros
from rcl_interfaces.msg import SetParametersResult
from rclpy.duration import Duration
from rclpy.exceptions import InvalidParameterTypeException
from rclpy.parameter import Parameter
from rclpy.qos import QoSDurabilityPolicy, QoSHistoryPolicy, QoSPolicyKind, QoSProfile, QoSReliabilityPolicy
from rclpy.qos_overriding_options import InvalidQosOverridesError, QoSOverridingOptions
from std_msgs.msg import Int32

DEFAULTS = QoSOverridingOptions.with_default_policies()
ALL = QoSOverridingOptions([kind for kind in QoSPolicyKind if kind != QoSPolicyKind.INVALID])


def make(node: Any, entity: str, options: Any, qos: Any = 10, topic: str = "out") -> Any:
    """A publisher or subscription of /lab/out."""
    if entity == "publisher":
        return node.create_publisher(Int32, topic, qos, qos_overriding_options=options)
    return node.create_subscription(Int32, topic, print, qos, qos_overriding_options=options)


def declared(node: Any) -> dict[str, Any]:
    return {name: p.value for name, p in node.get_parameters_by_prefix("qos_overrides").items() if "lab" in name}


@pytest.mark.parametrize("entity", ["publisher", "subscription"])
def test_default_policies_are_declared_read_only(ros: Ros, entity: str) -> None:
    node = ros.node("me", namespace="/lab")
    made = make(node, entity, DEFAULTS, QoSProfile(depth=7, reliability=QoSReliabilityPolicy.BEST_EFFORT))
    prefix = f"/lab/out.{entity}"
    expected = {f"{prefix}.history": "keep_last", f"{prefix}.depth": 7, f"{prefix}.reliability": "best_effort"}
    assert declared(node) == expected
    descriptor = node.describe_parameter(f"qos_overrides.{prefix}.depth")
    assert descriptor.read_only and "depth" in descriptor.description and "/lab/out" in descriptor.description
    (result,) = node.set_parameters([Parameter(f"qos_overrides.{prefix}.depth", value=9)])
    assert not result.successful and made.qos_profile.depth == 7


@pytest.mark.parametrize("entity", ["publisher", "subscription"])
def test_parameters_change_the_profile(ros: Ros, entity: str) -> None:
    values = {"history": "keep_all", "depth": "3", "reliability": "best_effort"}
    ros.init(*(w for k, v in values.items() for w in ("-p", f"qos_overrides./lab/out.{entity}.{k}:={v}")))
    node = ros.node("me", namespace="/lab")
    profile = make(node, entity, DEFAULTS).qos_profile
    assert (profile.history, profile.depth) == (QoSHistoryPolicy.KEEP_ALL, 3)
    assert profile.reliability == QoSReliabilityPolicy.BEST_EFFORT
    other = make(node, entity, None)
    assert other.qos_profile == QoSProfile(depth=10)


def test_the_wire_has_the_overridden_profile(ros: Ros) -> None:
    ros.init("-p", "qos_overrides./out.publisher.reliability:=best_effort")
    node = ros.node()
    make(node, "publisher", DEFAULTS)
    ros.spin(lambda: node.count_publishers("out") == 1, "the publisher")
    (info,) = node.get_publishers_info_by_topic("out")
    assert info.qos_profile.reliability == QoSReliabilityPolicy.BEST_EFFORT


def test_all_policies(ros: Ros) -> None:
    node = ros.node("me", namespace="/lab")
    qos = QoSProfile(depth=2, deadline=Duration(seconds=1), durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
    make(node, "publisher", ALL, qos)
    make(node, "subscription", ALL, qos)
    common = {
        "durability": "transient_local",
        "deadline": 1_000_000_000,
        "liveliness": "system_default",
        "reliability": "reliable",
        "history": "keep_last",
        "depth": 2,
        "liveliness_lease_duration": 0,
        "avoid_ros_namespace_conventions": False,
    }
    expected = {f"/lab/out.{entity}.{k}": v for entity in ("publisher", "subscription") for k, v in common.items()}
    assert declared(node) == {**expected, "/lab/out.publisher.lifespan": 0}  # a subscription has no lifespan


def test_durations_are_nanoseconds(ros: Ros) -> None:
    ros.init("-p", "qos_overrides./out.publisher.deadline:=250000000")
    made = make(ros.node(), "publisher", QoSOverridingOptions([QoSPolicyKind.DEADLINE]))
    assert made.qos_profile.deadline == Duration(seconds=0.25)


def test_identifiers_tell_entities_of_one_topic_apart(ros: Ros) -> None:
    ros.init("-p", "qos_overrides./lab/out.subscription_left.depth:=3")
    node = ros.node("me", namespace="/lab")
    options = [QoSOverridingOptions([QoSPolicyKind.DEPTH], entity_id=name) for name in ("left", "right")]
    assert [make(node, "subscription", option).qos_profile.depth for option in options] == [3, 10]
    assert declared(node) == {"/lab/out.subscription_left.depth": 3, "/lab/out.subscription_right.depth": 10}


def test_entities_without_identifier_share_their_parameters(ros: Ros) -> None:
    node = ros.node()
    first, second = (make(node, "publisher", DEFAULTS, depth) for depth in (5, 6))
    assert (first.qos_profile.depth, second.qos_profile.depth) == (5, 5)


def test_remapped_topics_are_named_as_they_are_on_the_wire(ros: Ros) -> None:
    ros.init("-r", "out:=/lab/renamed")
    node = ros.node()
    make(node, "publisher", QoSOverridingOptions([QoSPolicyKind.DEPTH]))
    assert declared(node) == {"/lab/renamed.publisher.depth": 10}


@pytest.mark.parametrize("entity", ["publisher", "subscription"])
def test_words_that_are_no_policy_are_refused(ros: Ros, entity: str) -> None:
    ros.init("-p", f"qos_overrides./out.{entity}.reliability:=perfect")
    with pytest.raises(RuntimeError, match="perfect"):
        make(ros.node(), entity, DEFAULTS)


def test_wrong_types_are_refused(ros: Ros) -> None:
    ros.init("-p", "qos_overrides./out.publisher.depth:=many")
    with pytest.raises(InvalidParameterTypeException):
        make(ros.node(), "publisher", DEFAULTS)


def test_a_callback_judges_the_result(ros: Ros) -> None:
    ros.init("-p", "qos_overrides./out.publisher.depth:=3")
    node = ros.node()
    seen: list[int] = []

    def judge(profile: QoSProfile) -> SetParametersResult:
        seen.append(profile.depth)
        return SetParametersResult(successful=profile.depth > 5, reason="too shallow")

    with pytest.raises(InvalidQosOverridesError, match="too shallow"):
        make(node, "publisher", QoSOverridingOptions.with_default_policies(callback=judge))
    options = QoSOverridingOptions.with_default_policies(callback=judge, entity_id="deep")
    assert make(node, "publisher", options).qos_profile.depth == 10
    assert seen == [3, 10] and options.entity_id == "deep" and options.callback is judge

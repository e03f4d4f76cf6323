"""What the standalone runtime lacks, it refuses in words that name it; docs/standalone.md lists it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rclpy
from conformance_support import STANDALONE, Ros
from rclpy.executors import MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSDurabilityPolicy, QoSLivelinessPolicy, QoSProfile, QoSReliabilityPolicy
from std_msgs.msg import String

pytestmark = pytest.mark.skipif(not STANDALONE, reason="ROS 2's rclpy has all of it")
DOCS = Path(__file__).parents[2] / "docs" / "standalone.md"


async def coroutine(*_: Any) -> None:
    """A callback that would have to be awaited."""


def publish(node: Any, **policies: Any) -> None:
    node.create_publisher(String, "topic", QoSProfile(depth=1, **policies))


def incompatible_type(node: Any) -> None:
    from rclpy.event_handler import SubscriptionEventCallbacks

    SubscriptionEventCallbacks(incompatible_type=print)


# What the documentation calls it: what a program does, and the word of the error that names it.
LACKING: dict[str, list[tuple[Callable[[Any], Any], str]]] = {
    "`MultiThreadedExecutor`": [(lambda _: MultiThreadedExecutor(), "MultiThreadedExecutor")],
    "coroutine callbacks, but of services": [
        (lambda node: node.create_subscription(String, "topic", coroutine, 1), "coroutine"),
        (lambda node: node.create_timer(1.0, coroutine), "coroutine"),
    ],
    "`create_task`": [(lambda _: SingleThreadedExecutor().create_task(print), "create_task")],
    "actions": [(lambda _: importlib.import_module("rclpy.action"), "action"), (lambda _: rclpy.action, "action")],
    "guard conditions": [(lambda node: node.create_guard_condition(print), "create_guard_condition")],
    "waitables": [(lambda node: node.add_waitable(None), "add_waitable"), (lambda node: node.waitables, "waitables")],
    "rates": [(lambda node: node.create_rate(1.0), "create_rate")],
    "BEST_AVAILABLE policies": [
        (lambda node: publish(node, reliability=QoSReliabilityPolicy.BEST_AVAILABLE), "BEST_AVAILABLE"),
        (lambda node: publish(node, durability=QoSDurabilityPolicy.BEST_AVAILABLE), "BEST_AVAILABLE"),
        (lambda node: publish(node, liveliness=QoSLivelinessPolicy.BEST_AVAILABLE), "BEST_AVAILABLE"),
        (lambda _: rclpy.qos.qos_profile_best_available, "qos_profile_best_available"),
    ],
    "MANUAL_BY_TOPIC liveliness": [
        (lambda node: publish(node, liveliness=QoSLivelinessPolicy.MANUAL_BY_TOPIC), "MANUAL_BY_TOPIC"),
        (lambda node: node.create_publisher(String, "topic", 1).assert_liveliness(), "assert_liveliness"),
    ],
    "`qos_check_compatible`": [(lambda _: rclpy.qos.qos_check_compatible, "qos_check_compatible")],
    "content filters": [
        (lambda node: node.create_subscription(String, "t", print, 1, content_filter_options="x"), "content_filter")
    ],
    "events of incompatible types": [(incompatible_type, "incompatible_type")],
    "`set_descriptor`": [(lambda node: node.set_descriptor("use_sim_time", None), "set_descriptor")],
    "the graph by node and by client": [
        (lambda node: node.count_clients("x"), "count_clients"),
        (lambda node: node.count_services("x"), "count_services"),
        (lambda node: node.get_publisher_names_and_types_by_node("me", "/"), "get_publisher_names_and_types_by_node"),
        (lambda node: node.get_client_names_and_types_by_node("me", "/"), "get_client_names_and_types_by_node"),
    ],
    "parameter clients and event handlers": [
        (lambda _: importlib.import_module("rclpy.parameter_client"), "parameter_client"),
        (lambda _: importlib.import_module("rclpy.parameter_event_handler"), "parameter_event_handler"),
    ],
    "`tf2_ros`": [(lambda _: importlib.import_module("tf2_ros"), "tf2_ros")],
    "packages of your own": [(lambda _: importlib.import_module("my_msgs.msg"), "my_msgs")],
}


@pytest.mark.parametrize("feature", list(LACKING))
def test_what_is_not_supported_says_so(ros: Ros, feature: str) -> None:
    node = ros.node()
    for use, name in LACKING[feature]:
        with pytest.raises(Exception, match=name) as caught:
            use(node)
        assert "\n" not in str(caught.value)


def test_what_nobody_has_is_an_attribute_error(ros: Ros) -> None:
    with pytest.raises(AttributeError):
        _ = ros.node().no_such_thing
    with pytest.raises(AttributeError, match=r"rclpy\.qos\.NoSuchThing"):
        _ = rclpy.qos.NoSuchThing
    assert not hasattr(LifecycleNode, "no_such_thing")


def test_the_documentation_lists_the_same() -> None:
    text = DOCS.read_text(encoding="utf-8")
    section = text.partition("## What is not supported")[2].partition("\n## ")[0]
    listed = [line.removeprefix("- ").rstrip() for line in section.splitlines() if line.startswith("- ")]
    assert listed == list(LACKING)

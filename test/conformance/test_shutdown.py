"""Ends: contexts, destroyed entities, signals."""

from __future__ import annotations

import signal
from typing import Any

import pytest
import rclpy
from conformance_support import Child, Ros, either
from rclpy.context import Context
from rclpy.exceptions import NotInitializedException
from rclpy.handle import InvalidHandle
from std_msgs.msg import Int32


def test_initialising_twice_and_shutting_down_twice_raise(ros: Ros) -> None:
    ros.init()
    assert rclpy.ok()
    with pytest.raises(RuntimeError):
        rclpy.init(args=[])
    rclpy.shutdown()
    assert not rclpy.ok()
    with pytest.raises(RuntimeError):
        rclpy.shutdown()
    rclpy.try_shutdown()
    rclpy.init(args=[])  # and it can begin anew
    assert rclpy.ok()


def test_nodes_need_an_initialised_context(ros: Ros) -> None:
    rclpy.try_shutdown()
    with pytest.raises(NotInitializedException):
        rclpy.create_node("early")
    ros.init()
    rclpy.shutdown()
    with pytest.raises(NotInitializedException):
        rclpy.create_node("late")


def test_contexts_are_apart(ros: Ros) -> None:
    ros.init("-r", "__node:=renamed")
    other = Context()
    assert not other.ok()
    rclpy.init(args=["x", "--ros-args", "-r", "__ns:=/lab"], context=other)
    node = rclpy.create_node("me", context=other)
    assert node.get_fully_qualified_name() == "/lab/me" and node.context is other
    assert ros.node("me").get_fully_qualified_name() == "/renamed"
    told: list[str] = []

    def note() -> None:
        told.append("shutdown")

    other.on_shutdown(note)
    rclpy.shutdown(context=other)
    assert told == ["shutdown"] and not other.ok() and rclpy.ok()
    node.destroy_node()


def test_init_as_a_context_manager(ros: Ros) -> None:
    made = rclpy.init(args=[])
    if made is None:
        pytest.skip("this distribution has none")
    with made:
        assert rclpy.ok()
    assert not rclpy.ok()


def test_what_is_destroyed_raises(ros: Ros) -> None:
    node = ros.node()
    publisher = node.create_publisher(Int32, "topic", 1)
    subscription = node.create_subscription(Int32, "topic", print, 1)
    assert publisher in list(node.publishers) and subscription in list(node.subscriptions)
    assert node.destroy_publisher(publisher) and not node.destroy_publisher(publisher)
    assert node.destroy_subscription(subscription) and not node.destroy_subscription(subscription)
    assert publisher not in list(node.publishers) and subscription not in list(node.subscriptions)
    with pytest.raises(InvalidHandle):
        publisher.publish(Int32())
    with pytest.raises(InvalidHandle):
        publisher.get_subscription_count()


def test_a_destroyed_node_takes_everything_along(ros: Ros) -> None:
    node, watcher = ros.node("gone"), ros.node("watcher")
    publisher = node.create_publisher(Int32, "topic", 1)
    ros.spin(lambda: watcher.count_publishers("topic") == 1 and "gone" in watcher.get_node_names(), "the node")
    ros.destroy(node)
    with pytest.raises(InvalidHandle):
        publisher.publish(Int32())
    ros.spin(lambda: watcher.count_publishers("topic") == 0 and "gone" not in watcher.get_node_names(), "its end")
    node.destroy_node()  # once more does no harm


def test_publishing_after_shutdown(ros: Ros) -> None:
    node = ros.node()
    publisher = node.create_publisher(Int32, "topic", 1)
    rclpy.shutdown()
    if either("publishing-after-shutdown", standalone=True, ros=False):
        publisher.publish(Int32())
    else:
        with pytest.raises(RuntimeError):
            publisher.publish(Int32())


@pytest.mark.parametrize(
    ("what", "message"), [("text", TypeError), (3, TypeError), (None, TypeError), (Int32, TypeError)]
)
def test_publishing_what_is_no_message_raises(ros: Ros, what: Any, message: Any) -> None:
    publisher = ros.node().create_publisher(Int32, "topic", 1)
    with pytest.raises(message):
        publisher.publish(what)


@pytest.mark.parametrize(
    ("number", "how"), [(signal.SIGINT, "KeyboardInterrupt"), (signal.SIGTERM, "ExternalShutdownException")]
)
def test_signals_end_spin(children: list[Child], number: int, how: str) -> None:
    child = Child("work")
    children.append(child)
    child.wait_for("worked")
    child.process.send_signal(number)
    # Under either runtime it depends on whether the signal meets spin within a callback or in its wait.
    assert child.wait_for("ended: ").removeprefix("ended: ") in (how, "ExternalShutdownException", "returned")
    assert child.wait_for("ok: ") == "ok: False"
    assert child.end() == 0
    assert not [line for line in child.lines if "Traceback" in line]


def test_what_a_signal_does_to_a_running_callback(children: list[Child]) -> None:
    child = Child("work", WORK="0.5")
    children.append(child)
    child.wait_for("working")
    child.process.send_signal(signal.SIGINT)
    child.wait_for("ended: ")
    assert child.end() == 0
    finished = child.lines.count("worked") == child.lines.count("working")
    assert finished is either("signals-let-callbacks-finish", standalone=True, ros=False)


def test_parameters_of_the_command_line_that_no_node_declares(ros: Ros) -> None:
    ros.init("-p", "cuont:=1")
    ros.node()
    if either("undeclared-on-the-command-line", standalone=True, ros=False):
        with pytest.raises(Exception, match="cuont"):
            ros.spin_for(1.0)
    else:
        ros.spin_for(0.05)

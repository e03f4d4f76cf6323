"""Processes of the conformance tests: `python conformance_child.py FUNCTION [--ros-args ...]`, under either runtime."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from ropes_ros import standalone

standalone.install()

import rclpy
from rcl_interfaces.msg import IntegerRange, ParameterDescriptor
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_msgs.msg import String
from std_srvs.srv import SetBool


def settings() -> None:
    """A node with parameters of all types, a topic and a service, until a signal comes."""
    rclpy.init()
    node = rclpy.create_node("settings")
    limits = IntegerRange(from_value=0, to_value=10, step=2)
    ranged = ParameterDescriptor(description="how many", integer_range=[limits])
    node.declare_parameter("count", 4, ranged)
    node.declare_parameter("fixed", "stone", ParameterDescriptor(read_only=True))
    node.declare_parameter("group.gain", 0.5)
    node.declare_parameter("group.names", ["a", "b"])
    node.declare_parameter("flags", [True, False])
    node.declare_parameter("later", Parameter.Type.STRING)
    publisher = node.create_publisher(String, "chatter", 10)
    node.create_timer(0.05, lambda: publisher.publish(String(data="hello")))
    node.create_service(SetBool, "~/switch", _switch)
    print("ready", flush=True)
    _spin(node)


def _switch(request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
    response.success, response.message = request.data, "on" if request.data else "off"
    return response


def life() -> None:
    """A lifecycle node that says what happens to it, until a signal comes."""

    class Life(LifecycleNode):
        def on_configure(self, state: object) -> TransitionCallbackReturn:
            print("configured", flush=True)
            return TransitionCallbackReturn.SUCCESS

    rclpy.init()
    node = Life("life", parameter_overrides=[Parameter("autostart", value=False)])
    print("ready", flush=True)
    _spin(node)


def work() -> None:
    """Spin a node whose timer works for a while; say how spin ended."""
    rclpy.init()
    node = rclpy.create_node("worker")

    def tick() -> None:
        print("working", flush=True)
        end = time.monotonic() + float(os.environ.get("WORK", "0"))
        while time.monotonic() < end:
            time.sleep(0.02)
        print("worked", flush=True)

    node.create_timer(0.01, tick, clock=Clock(clock_type=ClockType.STEADY_TIME))
    _spin(node)


def _spin(node: object) -> None:
    try:
        rclpy.spin(node)
        print("ended: returned", flush=True)
    except KeyboardInterrupt:
        print("ended: KeyboardInterrupt", flush=True)
    except ExternalShutdownException:
        print("ended: ExternalShutdownException", flush=True)
    print(f"ok: {rclpy.ok()}", flush=True)
    node.destroy_node()  # type: ignore[attr-defined]
    rclpy.try_shutdown()


if __name__ == "__main__":
    globals()[sys.argv[1]]()

"""Nodes that the tests of the standalone runtime start as processes: `python -m ropes_ros.standalone standalone_child`.

The environment variable CHILD names the node; a child reports to its test in lines `NAME: JSON` on stdout.
"""

import json
import os
import sys
import time

from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from ropes_ros.errors import RopesError
from ropes_ros.nodes.common import run

LATCHED = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
STEADY = Clock(clock_type=ClockType.STEADY_TIME)


def say(name: str, value: object = None) -> None:
    print(f"{name}: {json.dumps(value)}", flush=True)


def image(number: int) -> Image:
    message = Image(height=24, width=32, encoding="rgb8", step=96, data=bytes([number % 256]) * 2304)
    message.header.stamp.sec = number
    message.header.frame_id = "camera"
    return message


class Talker(Node):
    """Publishes images, joint states and one latched string; offers a service."""

    def __init__(self) -> None:
        super().__init__("talker")
        best_effort = QoSProfile(depth=10, reliability=QoSReliabilityPolicy.BEST_EFFORT)
        self.reliable = self.create_publisher(Image, "reliable", 10)
        self.best_effort = self.create_publisher(Image, "best_effort", best_effort)
        self.joints = self.create_publisher(JointState, "joint_states", 10)
        self.create_publisher(String, "latched", LATCHED).publish(String(data="said before you came"))
        self.create_timer(0.02, self.tick)
        self.create_service(Trigger, "~/ask", self.answer)
        self.number = 0

    def tick(self) -> None:
        self.number += 1
        self.reliable.publish(image(self.number))
        self.best_effort.publish(image(self.number))
        self.joints.publish(JointState(name=["a", "b"], position=[0.5, float(self.number)]))

    def answer(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = True, self.get_fully_qualified_name()
        return response


class Life(LifecycleNode):
    """Says its transitions; the environment variable FAIL names one that goes wrong, and how."""

    def __init__(self) -> None:
        super().__init__("life")
        self.dropped = self.create_lifecycle_publisher(String, "out", LATCHED)

    def _go(self, name: str) -> TransitionCallbackReturn:
        say(name)
        self.dropped.publish(String(data=name))
        step, _, how = os.environ.get("FAIL", "").partition(":")
        if step == name and how == "refuse":
            self.get_logger().error("no camera")
            return TransitionCallbackReturn.FAILURE
        if step == name and how == "raise":
            raise RopesError("camera /dev/video9 is missing; plug it in")
        if step == name:
            raise ValueError("surprise")
        return TransitionCallbackReturn.SUCCESS

    def on_configure(self, state):  # type: ignore[no-untyped-def]
        return self._go("configure")

    def on_activate(self, state):  # type: ignore[no-untyped-def]
        super().on_activate(state)
        self.create_timer(0.02, lambda: say("running"), clock=STEADY)
        return self._go("activate")

    def on_deactivate(self, state):  # type: ignore[no-untyped-def]
        return self._go("deactivate")

    def on_shutdown(self, state):  # type: ignore[no-untyped-def]
        result = self._go("shutdown")
        time.sleep(float(os.environ.get("SHUTDOWN", "0.05")))
        say("closed")
        return result


class Busy(Node):
    """Stays in one callback for a while."""

    def __init__(self) -> None:
        super().__init__("busy")
        self.create_timer(0.01, self.work)

    def work(self) -> None:
        say("working")
        end = time.monotonic() + float(os.environ["BUSY"])
        while time.monotonic() < end:
            time.sleep(0.05)
        say("worked")


class Settings(Node):
    """Declares parameters and says their values."""

    def __init__(self) -> None:
        super().__init__("settings")
        ranged = ParameterDescriptor(floating_point_range=[FloatingPointRange(from_value=0.0, to_value=1.0)])
        self.declare_parameter("gain", 0.5, ranged)
        self.declare_parameter("count", 3)
        self.declare_parameter("names", ["x"])
        self.declare_parameter("group.label", "none")
        say("values", {n: self.get_parameter(n).value for n in ("gain", "count", "names", "group.label")})
        say("name", self.get_fully_qualified_name())
        say("topic", self.create_publisher(String, "out/put", 10).topic_name)
        say("log", self.get_logger().is_enabled_for(10))


class Follower(Node):
    """Says the time at which its timer ticks."""

    def __init__(self) -> None:
        super().__init__("follower")
        self.create_timer(0.5, lambda: say("tick", self.get_clock().now().nanoseconds))
        self.create_timer(0.05, lambda: say("now", self.get_clock().now().nanoseconds), clock=STEADY)


class Mismatched(Node):
    """Requests more than the talker offers, and uses another type on one of its topics."""

    def __init__(self) -> None:
        super().__init__("mismatched")
        self.create_subscription(Image, "best_effort", lambda _: say("got"), 10)
        if "CONFLICT" in os.environ:
            self.create_subscription(String, "joint_states", lambda _: say("got"), 10)
        self.create_timer(0.1, lambda: say("alive"), clock=STEADY)


def main() -> int:
    return run(globals()[os.environ["CHILD"]], sys.argv[1:])

"""Simulated time: follows /clock while the parameter use_sim_time is true (rclpy.time_source)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ropes_ros.standalone.clock import ROSClock
from ropes_ros.standalone.duration import ClockType, Time
from ropes_ros.standalone.messages import message_class
from ropes_ros.standalone.parameters import Parameter
from ropes_ros.standalone.qos import QoSProfile, ReliabilityPolicy

if TYPE_CHECKING:
    from ropes_ros.standalone.node import Node

USE_SIM_TIME = "use_sim_time"


class TimeSource:
    """Drives a node's ROS clock."""

    def __init__(self, node: Node, clock: ROSClock) -> None:
        self._node = node
        self._clock = clock
        self._subscription: Any = None
        node.declare_parameter(USE_SIM_TIME, False)
        self._follow(node.get_parameter(USE_SIM_TIME).value)
        node.add_post_set_parameters_callback(self._changed)

    def _changed(self, parameters: list[Parameter]) -> None:
        for parameter in parameters:
            if parameter.name == USE_SIM_TIME:
                self._follow(parameter.value)

    def _follow(self, simulated: bool) -> None:
        self._clock.activate(simulated)
        if simulated and self._subscription is None:
            self._subscription = self._node.create_subscription(
                message_class("rosgraph_msgs/msg/Clock"),
                "/clock",
                self._receive,
                QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
            )
        elif not simulated and self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def _receive(self, message: Any) -> None:
        if self._clock.ros_time_is_active:
            self._clock.set_ros_time_override(Time.from_msg(message.clock, ClockType.ROS_TIME))

"""Publishing changes of a node's parameters on /parameter_events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ropes_ros.standalone.messages import message_class
from ropes_ros.standalone.parameters import Changes
from ropes_ros.standalone.qos import qos_profile_parameter_events

if TYPE_CHECKING:
    from ropes_ros.standalone.node import Node


class ParameterEvents:
    """A node's publisher of rcl_interfaces/ParameterEvent."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._type = message_class("rcl_interfaces/msg/ParameterEvent")
        self._publisher = node.create_publisher(self._type, "/parameter_events", qos_profile_parameter_events)

    def publish(self, changes: Changes) -> None:
        """Publish one step's changes."""
        self._publisher.publish(
            self._type(
                stamp=self._node.get_clock().now().to_msg(),
                node=self._node.get_fully_qualified_name(),
                new_parameters=[parameter.to_parameter_msg() for parameter in changes.new],
                changed_parameters=[parameter.to_parameter_msg() for parameter in changes.changed],
                deleted_parameters=[parameter.to_parameter_msg() for parameter in changes.deleted],
            )
        )

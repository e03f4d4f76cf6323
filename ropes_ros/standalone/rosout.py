"""Publishing log messages on /rosout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ropes_ros.standalone.messages import message_class
from ropes_ros.standalone.qos import qos_profile_rosout_default
from ropes_ros.standalone.severity import LoggingSeverity

if TYPE_CHECKING:
    from ropes_ros.standalone.node import Node


class Rosout:
    """A node's publisher of rcl_interfaces/Log."""

    def __init__(self, node: Node) -> None:
        self._clock = node.get_clock()
        self._type = message_class("rcl_interfaces/msg/Log")
        self._publisher = node.create_publisher(self._type, "/rosout", qos_profile_rosout_default)

    def publish(self, severity: LoggingSeverity, name: str, text: str, file: str, function: str, line: int) -> None:
        """Publish one record."""
        self._publisher.publish(
            self._type(
                stamp=self._clock.now().to_msg(),
                level=int(severity),
                name=name,
                msg=text,
                file=file,
                function=function,
                line=line,
            )
        )

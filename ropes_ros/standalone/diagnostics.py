"""diagnostic_updater: a node's tasks, asked once a period and published on /diagnostics."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from ropes_ros.standalone.messages import message_class

PERIOD, USE_FQN = "diagnostic_updater.period", "diagnostic_updater.use_fqn"


@cache
def status_wrapper() -> type[Any]:
    """The class DiagnosticStatusWrapper: a DiagnosticStatus that tasks fill.

    It is no subclass of the generated message, whose serialisation takes exactly its own class.
    """
    status: Any = message_class("diagnostic_msgs/msg/DiagnosticStatus")
    pair: Any = message_class("diagnostic_msgs/msg/KeyValue")

    class DiagnosticStatusWrapper:
        """What a task is given to fill."""

        def __init__(self) -> None:
            self.level, self.name, self.message, self.hardware_id = status.OK, "", "", ""
            self.values: list[Any] = []

        def summary(self, level: bytes, message: str) -> None:
            """Set level and message."""
            self.level, self.message = level, str(message)

        def add(self, key: str, val: str) -> None:
            """Append a pair of texts."""
            self.values.append(pair(key=key, value=val))

        def to_msg(self) -> Any:
            """The message."""
            return status(
                level=self.level,
                name=self.name,
                message=self.message,
                hardware_id=self.hardware_id,
                values=self.values,
            )

    return DiagnosticStatusWrapper


class Updater:
    """Runs diagnostic tasks once a period and publishes what they say.

    Args:
        node: The node; it gets the parameters `diagnostic_updater.period` (s) and `diagnostic_updater.use_fqn`.
        period: Seconds between two reports, unless the parameter says otherwise.
    """

    def __init__(self, node: Any, period: float = 1.0) -> None:
        self.node = node
        self.hwid = ""
        self.publisher = node.create_publisher(message_class("diagnostic_msgs/msg/DiagnosticArray"), "/diagnostics", 1)
        span = message_class("rcl_interfaces/msg/FloatingPointRange")(from_value=0.01, to_value=1e6)
        descriptor = message_class("rcl_interfaces/msg/ParameterDescriptor")(
            description="Seconds between two reports", floating_point_range=[span]
        )
        self.period = float(node.declare_parameter(PERIOD, period, descriptor).value)
        self.timer = node.create_timer(self.period, self.update)
        full = bool(node.declare_parameter(USE_FQN, False).value)
        self._node_name = node.get_fully_qualified_name() if full else node.get_name()
        self._tasks: list[tuple[str, Callable[[Any], Any]]] = []

    def setHardwareID(self, hwid: str) -> None:
        """Name what the statuses are about."""
        self.hwid = hwid

    def add(self, name: str, task: Callable[[Any], Any]) -> None:
        """Add a task: a function that fills the status it is given and returns it; a first word goes out at once."""
        self._tasks.append((name, task))
        self._publish([self._status(name, _starting)])

    def update(self) -> None:
        """Run all tasks and publish."""
        self._publish([self._status(name, task) for name, task in self._tasks])

    force_update = update

    def _status(self, name: str, task: Callable[[Any], Any]) -> Any:
        status = status_wrapper()()
        status.name, status.hardware_id = f"{self._node_name}: {name}", self.hwid
        return task(status).to_msg()

    def _publish(self, statuses: list[Any]) -> None:
        array: Any = message_class("diagnostic_msgs/msg/DiagnosticArray")(status=statuses)
        array.header.stamp = self.node.get_clock().now().to_msg()
        self.publisher.publish(array)


def _starting(status: Any) -> Any:
    """The task that stands for another before its first turn."""
    status.summary(status.level, "Node starting up")
    return status

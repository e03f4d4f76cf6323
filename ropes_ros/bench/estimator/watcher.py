"""Who listens: notes when each estimate or image came in, the estimator's own counters, and what its process uses."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropes_ros.cdr import header_stamp
from ropes_ros.errors import RopesError
from ropes_ros.processes import free_domain
from ropes_ros.units import NANOSECONDS

ISOLATION = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "ROS_LOCALHOST_ONLY": "", "ROS_STATIC_PEERS": ""}
TURN_S = 0.1
"""Longest that one turn of spinning waits."""


class Watcher:
    """A node in this process, on a random domain of this machine alone, with those processes started within."""

    def __enter__(self) -> Watcher:
        from ropes_ros import standalone

        standalone.install()
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        self._before = {name: os.environ.get(name) for name in (*ISOLATION, "ROS_DOMAIN_ID")}
        os.environ.update(ISOLATION, ROS_DOMAIN_ID=str(free_domain()))
        rclpy.init(args=[])
        self._node = rclpy.create_node("bench_watcher")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import rclpy

        self._executor.remove_node(self._node)
        self._node.destroy_node()
        rclpy.try_shutdown()
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    def spin(self, seconds: float) -> None:
        """Take in what comes for so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=min(left, TURN_S))

    def listen(self, topic: str, *, images: bool = False) -> Heard:
        """Note what comes in on a topic of JointState, or of images, which are only received."""
        from sensor_msgs.msg import Image, JointState

        heard = Heard(self._node)
        if images:
            heard.subscribe(Image, topic, heard.on_image, 10, raw=True)
        else:
            heard.subscribe(JointState, topic, heard.on_state, 100)
        return heard

    def follow_status(self) -> Status:
        """Listen to the estimator's own counters."""
        from diagnostic_msgs.msg import DiagnosticStatus
        from rclpy.qos import QoSDurabilityPolicy, QoSProfile

        status = Status(self._node)
        latched = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
        status.subscribe(DiagnosticStatus, "/estimator/status", status.on_status, latched)
        return status


class _Listener:
    """A subscription that ends with a `with` block."""

    def __init__(self, node: Any) -> None:
        self._node = node

    def subscribe(self, kind: Any, topic: str, callback: Any, qos: Any, **options: Any) -> None:
        """Begin."""
        self._subscription = self._node.create_subscription(kind, topic, callback, qos, **options)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self._node.destroy_subscription(self._subscription)


class Heard(_Listener):
    """Messages as (stamp, time of reception), ns."""

    def __init__(self, node: Any) -> None:
        super().__init__(node)
        self.pairs: list[tuple[int, int]] = []

    def on_state(self, message: Any) -> None:
        """Note an estimate."""
        received_ns, stamp = time.time_ns(), message.header.stamp
        self.pairs.append((stamp.sec * NANOSECONDS + stamp.nanosec, received_ns))

    def on_image(self, data: bytes) -> None:
        """Note an image."""
        received_ns = time.time_ns()
        self.pairs.append((header_stamp(data), received_ns))

    def array(self) -> NDArray[np.int64]:
        """int64 [N, 2]."""
        return np.array(self.pairs, dtype=np.int64).reshape(-1, 2)


class Status(_Listener):
    """The newest values of `/estimator/status`."""

    def __init__(self, node: Any) -> None:
        super().__init__(node)
        self.values: dict[str, str] = {}
        self.messages = 0

    def on_status(self, message: Any) -> None:
        """Take a statement in."""
        self.values = {pair.key: pair.value for pair in message.values}
        self.messages += 1

    def counters(self) -> dict[str, int]:
        """Those of the values that are whole numbers."""
        return {name: int(text) for name, text in self.values.items() if text.isdecimal()}


def cpu_seconds(pid: int) -> float:
    """Processor time that a running process has used, all its threads together (proc(5), /proc/PID/stat).

    Raises:
        RopesError: It has ended, or this system has no /proc.
    """
    fields = _proc(pid, "stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_bytes(pid: int) -> int:
    """Memory of a running process that is resident (proc(5), /proc/PID/statm).

    Raises:
        RopesError: It has ended, or this system has no /proc.
    """
    return int(_proc(pid, "statm").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _proc(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8")
    except OSError:
        if not Path("/proc/self/stat").is_file():
            raise RopesError("processor time and memory are read from /proc: run the bench on Linux") from None
        raise RopesError(f"process {pid} ended in the middle of a run; its output above says why") from None

"""`ropes top`: what a running estimator says of itself, in the terminal."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ropes_ros.cli.output import console, printable
from ropes_ros.errors import RopesError

if TYPE_CHECKING:
    from rich.console import RenderableType

RATE_S = 5.0
"""Span over which rates are taken."""
SILENCE_S = 3.0
"""Without a statement for so long, a node that makes one each second is taken to be gone."""
GATHER_S = 2.5
"""How long one screen waits for what may not come: estimates of a silent estimator, statements to compare."""
OLD_S = 2.0
"""Age from which an estimate's is told, and by which a residual may be behind an estimate to be shown beside it."""
_SPIN_S, _REFRESH_S = 0.05, 0.25
_LEVELS = {0: ("OK", "bold green"), 1: ("WARN", "bold yellow"), 2: ("ERROR", "bold red"), 3: ("STALE", "bold")}
_SHOWN_APART = ("latency_ms_p50", "latency_ms_p99", "execution_provider", "novelty")


def top(
    node: Annotated[str, typer.Option("--node", help="The estimator, with its namespace.")] = "/estimator",
    once: Annotated[bool, typer.Option("--once", help="Print one screen and exit.")] = False,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="With --once: seconds to wait for the node to say something.")
    ] = 5.0,
) -> None:
    """Watch a running estimator: state, rate, latency, joints and tip, until Ctrl-C."""
    from ropes_ros import standalone

    standalone.install()
    import rclpy
    from rclpy.exceptions import NameValidationException
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    try:
        ears = rclpy.create_node(f"ropes_top_{os.getpid()}")
        try:
            watch = Watch(ears, node)
        except NameValidationException as error:
            raise RopesError(f"--node {node}: {' '.join(str(error).split())}") from None
        executor = SingleThreadedExecutor()
        executor.add_node(ears)
        if once:
            _once(watch, executor, timeout)
        else:
            _live(watch, executor)
    except KeyboardInterrupt:
        pass
    finally:
        rclpy.try_shutdown()


def _once(watch: Watch, executor: Any, timeout: float) -> None:
    begun = time.monotonic()
    while not watch.heard:
        if time.monotonic() > begun + timeout:
            raise RopesError(
                f"{watch.name}: nothing was heard for {timeout:g} s; start the estimator, name it with --node, or see "
                "that ROS_DOMAIN_ID is the same"
            )
        executor.spin_once(timeout_sec=_SPIN_S)
    enough = time.monotonic() + GATHER_S
    while time.monotonic() < enough:
        executor.spin_once(timeout_sec=_SPIN_S)
    console.print(watch.screen())


def _live(watch: Watch, executor: Any) -> None:
    from rich.live import Live

    with Live(watch.screen(), console=console, screen=console.is_terminal, auto_refresh=False) as live:
        shown = time.monotonic()
        while True:
            executor.spin_once(timeout_sec=_SPIN_S)
            if time.monotonic() > shown + _REFRESH_S:
                shown = time.monotonic()
                live.update(watch.screen(), refresh=True)


class Watch:
    """Listens to an estimator and shows what was heard.

    Args:
        node: The node to listen with; it has to be spun.
        name: The estimator's name, with its namespace.

    Raises:
        NameValidationException: It is no node's name.
    """

    def __init__(self, node: Any, name: str) -> None:
        from diagnostic_msgs.msg import DiagnosticStatus
        from geometry_msgs.msg import PoseWithCovarianceStamped
        from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
        from sensor_msgs.msg import JointState

        self.name = "/" + name.strip("/")
        self._node = node
        self._states: Any = None
        self._deviations: Any = None
        self._pose: Any = None
        self._residual: Any = None
        self._compared = 0.0
        self._status: Any = None
        self._said = 0.0
        self._statements = 0
        self._arrivals: deque[float] = deque(maxlen=1000)
        self._counted: deque[tuple[float, dict[str, int]]] = deque(maxlen=16)
        newest = QoSProfile(depth=5, reliability=QoSReliabilityPolicy.BEST_EFFORT)
        latched = QoSProfile(
            depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL, reliability=QoSReliabilityPolicy.RELIABLE
        )
        node.create_subscription(DiagnosticStatus, f"{self.name}/status", self._on_status, latched)
        node.create_subscription(JointState, f"{self.name}/joint_states", self._on_states, newest)
        node.create_subscription(JointState, f"{self.name}/joint_std", self._on_deviations, newest)
        node.create_subscription(JointState, f"{self.name}/residual", self._on_residual, newest)
        node.create_subscription(PoseWithCovarianceStamped, f"{self.name}/pose", self._on_pose, newest)

    @property
    def heard(self) -> bool:
        """Whether the estimator has said anything."""
        return self._status is not None or self._states is not None

    @property
    def gone(self) -> bool:
        """Whether it has been heard, and now is not there any more."""
        if self._status is None:
            return False
        silent = time.monotonic() - self._said > SILENCE_S
        return silent or self._node.count_publishers(f"{self.name}/status") == 0

    def screen(self) -> RenderableType:
        """All that is known by now."""
        if not self.heard:
            return Text(f"waiting for {printable(self.name)} ...")
        parts: list[RenderableType] = [self._headline(), self._facts()]
        if self._states is not None:
            parts.append(self._joints())
        if self._pose is not None:
            parts.append(self._tip())
        return Group(*parts)

    def _on_status(self, message: Any) -> None:
        self._status, self._said = message, time.monotonic()
        counters = {}
        for key, value in self._values().items():
            if value.isdecimal() and key not in _SHOWN_APART and len(value) < 20:
                counters[key] = int(value)
        self._statements += 1
        if self._statements == 2:
            self._counted.clear()  # the first was latched, and made nobody knows when
        self._counted.append((self._said, counters))

    def _on_states(self, message: Any) -> None:
        self._states = message
        self._arrivals.append(time.monotonic())

    def _on_deviations(self, message: Any) -> None:
        self._deviations = message

    def _on_residual(self, message: Any) -> None:
        self._residual, self._compared = message, time.monotonic()

    def _on_pose(self, message: Any) -> None:
        self._pose = message

    def _values(self) -> Mapping[str, str]:
        return {} if self._status is None else {pair.key: pair.value for pair in self._status.values}

    def _headline(self) -> Text:
        """Name, state and reason."""
        line = Text(f"{printable(self.name)}  ", style="bold")
        if self.gone:
            silence = time.monotonic() - self._said
            return line.append("GONE", "bold red").append(
                f"  it no longer publishes; last heard {silence:.0f} s ago", "not bold"
            )
        if self._status is None:
            return line.append("publishes no status", "not bold")
        level = self._status.level
        number = level[0] if isinstance(level, (bytes, bytearray)) else int(level)
        state, style = _LEVELS.get(number, ("?", "bold"))
        named, _, reason = printable(self._status.message).partition(": ")
        if not (named.isupper() and " " not in named):
            named, reason = state, printable(self._status.message)
        return line.append(named, style).append(f"  {reason}", "not bold")

    def _facts(self) -> RenderableType:
        values = self._values()
        now = time.monotonic()
        recent = [moment for moment in self._arrivals if moment > now - RATE_S]
        rate = (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 and recent[-1] > recent[0] else 0.0
        age = now - self._arrivals[-1] if self._arrivals else 0.0
        last = f", the last {age:.0f} s ago" if age >= OLD_S else ""
        latency = " / ".join(values.get(key, "?") for key in ("latency_ms_p50", "latency_ms_p99"))
        grid = Table.grid(padding=(0, 2))
        for name, value in (
            ("rate", f"{rate:.1f} estimates/s{last}"),
            ("latency p50 / p99", f"{latency} ms"),
            ("novelty", values.get("novelty", "") or "?"),
            ("runs on", values.get("execution_provider", "?")),
            ("frames", self._counters()),
        ):
            grid.add_row(Text(name, style="bold"), Text(printable(value)))
        return grid

    def _counters(self) -> str:
        """Counters that are not zero, and how fast they move."""
        if not self._counted:
            return "?"
        now, counters = self._counted[-1]
        earlier = next(((then, before) for then, before in self._counted if then > now - RATE_S), (now, counters))
        then, before = earlier
        shown = []
        for name, count in counters.items():
            moved = count - before.get(name, count)
            speed = f" ({moved / (now - then):+.1f}/s)" if moved and now > then else ""
            if count:
                shown.append(f"{name} {count}{speed}")
        return ", ".join(shown) or "none yet"

    def _joints(self) -> RenderableType:
        states = self._states
        compared = self._arrivals[-1] - self._compared < OLD_S
        deviations, residuals = _by_joint(self._deviations), _by_joint(self._residual if compared else None)
        table = Table(header_style="bold")
        table.add_column("joint")
        units = self._values().get("units", "").split(", ")
        headings = ["position", "std", "velocity", *(["residual"] if residuals else []), "in"]
        for heading in headings:
            table.add_column(heading, justify="right")
        for index, name in enumerate(states.name):
            values = [_at(states.position, index), deviations.get(name, math.nan), _at(states.velocity, index)]
            if residuals:
                values.append(residuals.get(name, math.nan))
            unit, scale = ("mm", 1000.0) if units[index : index + 1] == ["m"] else ("deg", 180.0 / math.pi)
            cells = (f"{scale * value:.1f}" if math.isfinite(value) else "" for value in values)
            table.add_row(printable(name), *cells, f"{unit}, {unit}/s")
        return table

    def _tip(self) -> Text:
        pose, covariance = self._pose.pose.pose, self._pose.pose.covariance
        place, turn = pose.position, pose.orientation
        deviations = [math.sqrt(max(0.0, float(covariance[7 * axis]))) for axis in range(3)]
        line = Text("tip  ", style="bold")
        for axis, value, deviation in zip("xyz", (place.x, place.y, place.z), deviations, strict=True):
            line.append(f"{axis} {1000 * value:.0f} +- {1000 * deviation:.0f}  ", "not bold")
        line.append(f"mm in {printable(self._pose.header.frame_id)}, ", "not bold")
        line.append(f"xyzw {turn.x:.3f} {turn.y:.3f} {turn.z:.3f} {turn.w:.3f}", "not bold")
        return line


def _at(values: Any, index: int) -> float:
    return float(values[index]) if index < len(values) else math.nan


def _by_joint(message: Any) -> dict[str, float]:
    """Positions of a JointState by joint; none where there is no message."""
    return {} if message is None else {name: _at(message.position, i) for i, name in enumerate(message.name)}

"""The recorder node: writes the camera, the commands and the regimes into an intervention bag.

Messages go into the bag as they came over the wire, header stamps untouched. The log time is the receive time
by the node's clock: the system's clock, or the simulation's with `use_sim_time`. So log time minus header
stamp bounds a message's latency from above wherever both use the system's clock.
"""

from __future__ import annotations

import importlib
import os
import time
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import NameValidationException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSDurabilityPolicy, QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy

from ropes_ros.bags import ROLE_TYPES, TOPICS, BagWriter, OfferedQos
from ropes_ros.cdr import header_stamp
from ropes_ros.errors import BagError, RopesError
from ropes_ros.gaps import GapCounter
from ropes_ros.nodes.common import INACTIVE, Reporter, Statement, described, offer, run, told
from ropes_ros.regimes import Schedule
from ropes_ros.robot import load_robot

DISCOVERY_PERIOD_S = 0.1
SILENT_AFTER_S = 5.0
DEPTH = 1000
"""Messages that may wait in a subscription while the disk is busy."""
RETAINED = 100
"""Messages of a latched topic that the next bag is given too, as a late subscriber would be."""

ROLES = {
    "image": "Camera topic, Image or CompressedImage",
    "camera_info": "Calibration of the camera",
    "joint_command": "Commands of the joints",
    "joint_states": "Measured joint states, used for evaluation only",
    "regime": "Regimes that the commander announces",
}
"""Role -> description of its parameter ROLE_topic."""


@dataclass
class _Source:
    """One topic to record."""

    topic: str
    type_name: str = ""
    role: str = ""
    expected: bool = True
    subscription: Any = None
    qos: OfferedQos | None = None
    unusable: bool = False
    mistyped: bool = False
    malformed: int = 0
    silence_reported: bool = False
    count: int = 0
    gaps: GapCounter = field(default_factory=GapCounter)
    retained: deque[bytes] = field(default_factory=lambda: deque(maxlen=RETAINED))

    def begin_bag(self) -> None:
        """Count from 0."""
        self.count = self.malformed = 0
        self.silence_reported = False
        self.gaps = GapCounter()


class Recorder(LifecycleNode):
    """Records an intervention bag; see docs/interface.md for topics and parameters."""

    def __init__(self) -> None:
        self.received = 0
        """Messages since the node's start; `run` works off those that wait until none comes."""
        self._writer: BagWriter | None = None
        self._sources: dict[str, _Source] = {}
        self._clockwork: list[Any] = []
        self._problem = ""
        self._bags = 0
        self._failed = False
        super().__init__("recorder")
        for name, default, descriptor in (
            ("robot", "arm6", described("Robot preset that is recorded", read_only=True)),
            ("path", "", described("Bag to create; it must not exist", read_only=True)),
            ("schedule", "", described("Schedule that the commander runs; empty for none", read_only=True)),
            *(
                (f"{role}_topic", TOPICS[role].removeprefix("/"), described(text, read_only=True))
                for role, text in ROLES.items()
            ),
            (
                "extra_topics",
                [""],
                described(
                    "More topics, each NAME or NAME:TYPE (/tf_static is always recorded)", read_only=True
                ),
            ),
            (
                "flush_period",
                0.5,
                described("Seconds that a crash may cost at most", bounds=(0.05, 0.5), read_only=True),
            ),
            (
                "fsync",
                False,
                described("Survive power cuts too: wait for the disk at every flush", read_only=True),
            ),
            ("compression", "zstd", described("zstd, lz4 (cheaper on noisy images) or none", read_only=True)),
        ):
            self.declare_parameter(name, default, descriptor)
        self._schedule: Schedule | None = None
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._reporter = Reporter(self, "bag", self._statement)
        offer(self, "~/start", self._start)
        offer(self, "~/stop", self._end)
        offer(self, "~/split", self._split)

    @told
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Check the parameters; nothing is written yet."""
        path = self._text("path")
        if not path:
            raise BagError("parameter path is empty: give it the bag to create")
        if os.path.lexists(path):
            raise BagError(f"{path} exists already and is not overwritten: choose another path")
        robot = load_robot(self._text("robot"))
        self._robot_name = robot.name
        schedule = self._text("schedule")
        self._schedule = Schedule.load(schedule) if schedule else None
        if self._schedule is not None:
            self._schedule.check_robot(robot)
        self._sources = self._wanted()
        return TransitionCallbackReturn.SUCCESS

    @told
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Create the bag and subscribe to whatever is there, and to the rest as it appears."""
        self._sources = self._wanted()  # anew: what an earlier activation heard of is not subscribed to any more
        self._bags = 0
        self._begin(self._create(Path(self._text("path"))))
        super().on_activate(state)
        self._clockwork = [
            self.create_timer(period, callback, clock=self._steady)
            for period, callback in (
                (DISCOVERY_PERIOD_S, self._discover),
                (self._flush_period(), self._flush),
            )
        ]
        self._discover()
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Close the bag. What went wrong is logged, and remembered for on_shutdown: there is no way back to active."""
        self._stop()
        super().on_deactivate(state)
        self._reporter.update()
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of what on_configure made."""
        self._sources = {}
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Close the bag if it is open; FAILURE where a bag could not be closed or holds no image."""
        self._stop()
        return TransitionCallbackReturn.FAILURE if self._failed else TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        """Close the bag, whichever way the process was told to stop."""
        self._stop()
        super().destroy_node()

    def _text(self, name: str) -> str:
        return str(self.get_parameter(name).value)

    def _flush_period(self) -> float:
        return float(self.get_parameter("flush_period").value)

    def _create(self, path: Path) -> BagWriter:
        """Create a bag.

        Raises:
            BagError: It cannot be created.
        """
        schedule = self._schedule
        return BagWriter(
            path,
            robot=self._robot_name,
            schedule_yaml=None if schedule is None else schedule.to_yaml(),
            schedule_hash=None if schedule is None else schedule.hash,
            topics={source.role: source.topic for source in self._sources.values() if source.role},
            fsync=bool(self.get_parameter("fsync").value),
            flush_period_s=self._flush_period(),
            compression=self._text("compression"),
        )

    def _begin(self, writer: BagWriter) -> str:
        """Go on in a bag: count from 0, and begin it with what its latched topics hold."""
        self._writer = writer
        self._bags += 1
        self._started = time.monotonic()
        self._last_bytes = 0
        self._problem = ""
        now_ns = self.get_clock().now().nanoseconds
        for source in self._sources.values():
            source.begin_bag()
            if source.subscription is None:
                continue
            writer.add_topic(source.topic, source.type_name, source.qos)
            for data in source.retained:
                self._guard(partial(writer.write, source.topic, data, now_ns))
        said = f"recording to {writer.path}"
        self.get_logger().info(said)
        self._reporter.update()
        return said

    def _following(self) -> Path:
        """The next bag's path: the parameter with the first number, from that of this bag on, that is free."""
        first = Path(self._text("path"))
        paths = (first.with_name(f"{first.name}_{number}") for number in count(self._bags + 1))
        return next(path for path in paths if not os.path.lexists(path))

    def _start(self) -> str:
        """Record into the next bag: the parameter `path` with a number."""
        if not self._clockwork:
            raise BagError("the recorder is not active: activate it, which begins to record too")
        if self._writer is not None:
            raise BagError(f"{self._writer.path} is being recorded: stop or split it")
        return self._begin(self._create(self._following()))

    def _end(self) -> str:
        """Close the bag; the node stays active."""
        if self._writer is None:
            raise BagError("nothing is being recorded: start, or activate the recorder")
        said = self._close()
        self._reporter.update()
        return said

    def _split(self) -> str:
        """Go on in another bag, without a message lost between the two."""
        if self._writer is None:
            raise BagError("nothing is being recorded: start, or activate the recorder")
        following = self._create(self._following())  # first, so that this one goes on where there can be no other
        self._close()
        return self._begin(following)

    def _wanted(self) -> dict[str, _Source]:
        """The topics to record, by resolved name."""
        sources: dict[str, _Source] = {}
        for role in ROLES:
            topic = self._resolved(f"{role}_topic", self._text(f"{role}_topic"))
            expected = role != "joint_states" and (role != "regime" or self._schedule is not None)
            if topic in sources:
                raise BagError(
                    f"parameters {role}_topic and {sources[topic].role}_topic both name {topic}: change one"
                )
            sources[topic] = _Source(topic, role=role, expected=expected)
        sources["/tf_static"] = _Source("/tf_static", expected=False)
        for entry in self.get_parameter("extra_topics").value or []:
            if entry:
                name, _, type_name = entry.partition(":")
                topic = self._resolved("extra_topics", name)
                sources.setdefault(topic, _Source(topic, type_name))
        return sources

    def _resolved(self, parameter: str, name: str) -> str:
        """The full name of a topic that a parameter names.

        Raises:
            BagError: It is no topic's name.
        """
        try:
            return str(self.resolve_topic_name(name))
        except (RuntimeError, NameValidationException):  # rclpy's own error has no public base but RuntimeError
            raise BagError(f"parameter {parameter}: '{name}' is no topic's name") from None

    def _discover(self) -> None:
        """Subscribe to topics that have a publisher now, asking for no more than it offers."""
        if self._writer is None or self.get_clock().now().nanoseconds == 0:
            return  # under use_sim_time there is no receive time before the first /clock
        for source in self._sources.values():
            if source.unusable:
                continue
            publishers = self._of_its_type(source, self.get_publishers_info_by_topic(source.topic))
            if not publishers:
                continue
            offered = OfferedQos(
                reliable=all(
                    publisher.qos_profile.reliability == QoSReliabilityPolicy.RELIABLE
                    for publisher in publishers
                ),
                transient_local=all(
                    publisher.qos_profile.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL
                    for publisher in publishers
                ),
            )
            if offered != source.qos:
                self._subscribe(source, source.type_name or publishers[0].topic_type, offered)

    def _of_its_type(self, source: _Source, publishers: list[Any]) -> list[Any]:
        """Those publishers whose messages make sense on a topic; others are named once."""
        types = ROLE_TYPES.get(source.role)
        if types is None:
            return publishers
        strange = {publisher.topic_type for publisher in publishers}.difference(types)
        if strange and not source.mistyped:
            source.mistyped = True
            self.get_logger().error(
                f"{source.topic} is published as {', '.join(sorted(strange))}, which is not recorded: it must be "
                f"{' or '.join(types)}; rename that topic, or set the parameter {source.role}_topic"
            )
        return [publisher for publisher in publishers if publisher.topic_type in types]

    def _subscribe(self, source: _Source, type_name: str, offered: OfferedQos) -> None:
        """Subscribe to a topic, or again when a publisher has come that offers less."""
        assert self._writer is not None
        if source.subscription is not None:
            self.destroy_subscription(source.subscription)
            source.subscription = None
        else:
            try:
                message_class = _message_class(type_name)
                self._writer.add_topic(source.topic, type_name, offered)
            except BagError as error:
                source.unusable = True
                self.get_logger().error(f"{source.topic} is not recorded: {error}")
                return
            source.type_name = type_name
        message_class = _message_class(source.type_name)
        source.qos = offered
        source.retained.clear()  # the publisher gives its latched messages anew
        profile = QoSProfile(
            history=QoSHistoryPolicy.KEEP_LAST,
            depth=DEPTH,
            reliability=(
                QoSReliabilityPolicy.RELIABLE if offered.reliable else QoSReliabilityPolicy.BEST_EFFORT
            ),
            durability=(
                QoSDurabilityPolicy.TRANSIENT_LOCAL
                if offered.transient_local
                else QoSDurabilityPolicy.VOLATILE
            ),
        )
        source.subscription = self.create_subscription(
            message_class, source.topic, partial(self._on_message, source), profile, raw=True
        )
        if source.role == "image" and not offered.reliable:
            self.get_logger().info(
                f"{source.topic} is offered best effort: lost frames are counted, not repeated"
            )

    def _on_message(self, source: _Source, data: bytes) -> None:
        self.received += 1
        if source.qos is not None and source.qos.transient_local:
            source.retained.append(bytes(data))
        if self._writer is None:
            return
        if source.role == "image":
            try:
                source.gaps.add(header_stamp(data))
            except RopesError as error:
                source.malformed += 1
                self.get_logger().warning(
                    f"{source.topic}: not recorded: {error}; check its publisher", throttle_duration_sec=SILENT_AFTER_S
                )
                return
            self._writer.note_drops(source.topic, source.gaps.missing)
        now_ns = self.get_clock().now().nanoseconds
        self._guard(partial(self._writer.write, source.topic, bytes(data), now_ns))
        source.count += 1

    def _flush(self) -> None:
        if self._writer is not None:
            self._guard(self._writer.flush)

    def _guard(self, action: Any) -> None:
        """Run a step of writing; when the disk fails, say so everywhere and end the node."""
        try:
            action()
        except BagError as error:
            self._writer = None
            self._problem = str(error)
            self._reporter.update()
            raise

    def _stop(self) -> None:
        """End all subscriptions and timers and close the bag."""
        for timer in self._clockwork:
            self.destroy_timer(timer)
        self._clockwork = []
        for source in self._sources.values():
            if source.subscription is not None:
                self.destroy_subscription(source.subscription)
                source.subscription = None
        self._close()

    def _close(self) -> str:
        """Close the bag if one is open, and say what is in it; note where it cannot be closed or holds no image."""
        writer, self._writer = self._writer, None
        if writer is None:
            return ""
        try:
            writer.close()
        except BagError as error:
            self._failed = True
            self._problem = str(error)
            self.get_logger().error(str(error))
            return str(error)
        said = f"{writer.path}: {sum(writer.counts.values())} messages, {self._missing()} frames lost"
        self.get_logger().info(said)
        camera = next(source for source in self._sources.values() if source.role == "image")
        if not camera.count:
            self._failed = True
            self.get_logger().error(
                f"{writer.path} holds no image: nothing usable came on {camera.topic}; start the camera, or set the "
                "parameter image_topic"
            )
        return said

    def _missing(self) -> int:
        return sum(source.gaps.missing for source in self._sources.values())

    def _statement(self) -> Statement:
        """Counts of the bag in progress; names topics that stay silent."""
        if self._problem:
            return Statement(DiagnosticStatus.ERROR, self._problem, {"state": "failed"})
        if self._writer is None:
            return Statement(DiagnosticStatus.OK, "stopped", {"state": "stopped"}) if self._clockwork else INACTIVE
        size = self._writer.bytes_written
        rate, self._last_bytes = (size - self._last_bytes) / 1e6, size
        silent = [
            source.topic
            for source in self._sources.values()
            if source.expected and not source.count and time.monotonic() - self._started > SILENT_AFTER_S
        ]
        for topic in silent:
            if not self._sources[topic].silence_reported:
                self._sources[topic].silence_reported = True
                self.get_logger().warning(f"no message on {topic} since start: {self._advice(topic)}")
        missing = self._missing()
        malformed = sum(source.malformed for source in self._sources.values())
        problems = [f"no message on {topic} since start" for topic in silent]
        if missing:
            problems.append(f"{missing} frames lost")
        if malformed:
            problems.append(f"{malformed} malformed frames")
        values = {
            "state": "recording",
            "path": self._writer.path,
            "frames": sum(source.count for source in self._sources.values() if source.role == "image"),
            "drops": missing,
            "malformed": malformed,
            "bytes": size,
            "MB/s": f"{rate:.2f}",
            **{f"messages {source.topic}": source.count for source in self._sources.values()},
        }
        return Statement(
            DiagnosticStatus.WARN if problems else DiagnosticStatus.OK, "; ".join(problems) or "recording", values
        )

    def _advice(self, topic: str) -> str:
        if self._sources[topic].subscription is None:
            return "nobody publishes it, or the clock stands still (check remaps, domain, use_sim_time)"
        return "its publisher is there but sends nothing"


def _message_class(type_name: str) -> Any:
    """The Python class of a message type such as "sensor_msgs/msg/Image".

    Raises:
        BagError: It is not installed.
    """
    package, _, rest = type_name.partition("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), rest.rpartition("/")[2])
    except (ImportError, AttributeError, ValueError):
        raise BagError(f"message type {type_name!r} is not installed: install its package") from None


def main(args: list[str] | None = None) -> int:
    """Entry point."""
    return run(Recorder, args)


if __name__ == "__main__":
    raise SystemExit(main())

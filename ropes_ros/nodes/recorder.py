"""The recorder node: writes the camera, the commands and the regimes into an intervention bag.

Messages go into the bag as they came over the wire, header stamps untouched. The log time is the receive time
by the node's clock: the system's clock, or the simulation's with `use_sim_time`. So log time minus header
stamp bounds a message's latency from above wherever both use the system's clock.

Receiving and writing are two threads with a queue between them (`bag_queue`): a slow disk delays no subscription.
"""

from __future__ import annotations

import importlib
import os
import shutil
import time
from collections import deque
from collections.abc import Callable
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

from ropes_ros.bag_format import numbered, role_types
from ropes_ros.bag_queue import QUEUE_BYTES, QueuedWriter
from ropes_ros.bags import TOPICS, BagWriter, Losses, OfferedQos
from ropes_ros.cdr import header_stamp
from ropes_ros.errors import BagError, RopesError
from ropes_ros.gaps import GapCounter
from ropes_ros.nodes.common import INACTIVE, Reporter, Statement, described, offer, run, told
from ropes_ros.regimes import Schedule
from ropes_ros.robot import load_robot

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

WATCH_PERIOD_S = 0.1
"""How often it looks for publishers, at the disk's room and at the bag's size and length."""
SILENT_AFTER_S = 5.0
DEPTH = 1000
"""Messages that may wait in a subscription while the node is busy."""
IMAGE_DEPTH = 60
"""The same of a camera, whose messages are large: two seconds at 30 Hz."""
MIN_FREE_BYTES = 256 << 20
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
    transport: int = 0
    dropped: int = 0
    silence_reported: bool = False
    count: int = 0
    heard_at: float | None = None
    told: int = 0
    gaps: GapCounter = field(default_factory=GapCounter)
    retained: deque[bytes] = field(default_factory=lambda: deque(maxlen=RETAINED))

    def begin_bag(self) -> None:
        """Count from 0."""
        self.count = self.malformed = self.transport = self.dropped = self.told = 0
        self.heard_at = None
        self.silence_reported = False
        self.gaps = GapCounter()

    @property
    def is_camera(self) -> bool:
        """Whether it is of images."""
        return role_types(self.role) == role_types("image")

    @property
    def losses(self) -> Losses:
        """What of it is missing in the bag."""
        return Losses(self.gaps.missing, self.transport, self.dropped, self.malformed)


class Recorder(LifecycleNode):
    """Records an intervention bag; see docs/interface.md for topics and parameters."""

    def __init__(self) -> None:
        self.received = 0
        """Messages since the node's start; `run` works off those that wait until none comes."""
        self._writer: QueuedWriter | None = None
        self._closing: list[QueuedWriter] = []
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
                "extra_cameras",
                [""],
                described(
                    "More cameras, each IMAGE or IMAGE:CAMERA_INFO (by default camera_info beside the image topic)",
                    read_only=True,
                ),
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
            (
                "compression",
                "auto",
                described(
                    "zstd, lz4 (cheaper on noisy images), none, or auto: zstd up to 32 MB/s, none above", read_only=True
                ),
            ),
            (
                "queue_size",
                QUEUE_BYTES,
                described(
                    "Bytes that may wait for the disk; what comes beyond is dropped and counted",
                    integer_bounds=(1 << 20, 1 << 40),
                    read_only=True,
                ),
            ),
            (
                "min_free",
                MIN_FREE_BYTES,
                described(
                    "Bytes of disk to leave free: the bag is closed, and the node ends, before they are used",
                    integer_bounds=(0, 1 << 50),
                    read_only=True,
                ),
            ),
            (
                "max_bag_size",
                0,
                described(
                    "Bytes after which the recording goes on in another bag, as by ~/split; 0 for never",
                    integer_bounds=(0, 1 << 50),
                    read_only=True,
                ),
            ),
            (
                "max_bag_duration",
                0.0,
                described("The same in seconds", bounds=(0.0, 1e7), read_only=True),
            ),
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
        self._clockwork = [self.create_timer(WATCH_PERIOD_S, self._watch, clock=self._steady)]
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

    def _number(self, name: str) -> float:
        return float(self.get_parameter(name).value)

    def _create(self, path: Path) -> QueuedWriter:
        """Create a bag.

        Raises:
            BagError: It cannot be created, or there is too little room.
        """
        schedule = self._schedule
        if shortage := self._shortage(path):
            raise BagError(f"{path} is not begun: {shortage}")
        writer = BagWriter(
            path,
            robot=self._robot_name,
            schedule_yaml=None if schedule is None else schedule.to_yaml(),
            schedule_hash=None if schedule is None else schedule.hash,
            topics={source.role: source.topic for source in self._sources.values() if source.role},
            fsync=bool(self.get_parameter("fsync").value),
            flush_period_s=self._number("flush_period"),
            compression=self._text("compression"),
        )
        return QueuedWriter(writer, int(self._number("queue_size")))

    def _shortage(self, path: Path, waiting: int = 0) -> str:
        """What is to be said where a disk will have too little room once so many bytes are written; else nothing."""
        try:
            there = next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
            free = shutil.disk_usage(there).free - waiting
        except OSError:
            return ""  # who creates or writes the bag will say why
        if free >= self._number("min_free"):
            return ""
        return (
            f"{max(0, free) / 1e6:.0f} MB are free on its disk, fewer than the {self._number('min_free') / 1e6:.0f} MB "
            "of the parameter min_free: make room, or choose another disk"
        )

    def _begin(self, writer: QueuedWriter) -> str:
        """Go on in a bag: count from 0, and begin it with what its latched topics hold."""
        self._writer = writer
        self._bags += 1
        self._started = self._told_at = time.monotonic()
        self._told_bytes = 0
        self._problem = ""
        now_ns = self.get_clock().now().nanoseconds
        for source in self._sources.values():
            source.begin_bag()
            if source.subscription is None:
                continue
            writer.add_topic(source.topic, source.type_name, source.qos)
            for data in source.retained:
                writer.put(source.topic, data, now_ns)
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
        self._writer.end(self._losses())
        self._judge(self._writer)
        self._closing.append(self._writer)  # in its own time: nothing here waits for the disk
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
        for camera, entry in enumerate(filter(None, self.get_parameter("extra_cameras").value or []), start=2):
            image, _, info = entry.partition(":")
            for role, name in (("image", image), ("camera_info", info or _camera_info_beside(image))):
                topic = self._resolved("extra_cameras", name)
                wanted = _Source(topic, role=numbered(role, camera), expected=role == "image" or bool(info))
                if sources.setdefault(topic, wanted) is not wanted and role == "image":
                    raise BagError(f"parameter extra_cameras: {topic} is recorded already: name each topic once")
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

    def _watch(self) -> None:
        """What is to be done every `WATCH_PERIOD_S`."""
        for closing in [closing for closing in self._closing if closing.done]:
            self._closing.remove(closing)
            self._conclude(closing)
        if self._writer is None:
            return
        self._guard(self._writer.check)
        if shortage := self._shortage(self._writer.path, self._writer.waiting_bytes):
            self._guard(partial(self._end_short, shortage))
        size, age = self._number("max_bag_size"), self._number("max_bag_duration")
        if 0 < size <= self._writer.bytes_written or 0 < age <= time.monotonic() - self._started:
            try:
                self._split()
            except BagError as error:
                self.get_logger().error(f"goes on in the same bag: {error}", throttle_duration_sec=SILENT_AFTER_S)
        self._discover()

    def _end_short(self, shortage: str) -> None:
        """Close the bag while there is room to, and end.

        Raises:
            BagError: Always.
        """
        assert self._writer is not None
        path = self._writer.path
        self._failed = True
        self._close(shortage)
        raise BagError(f"{path} was closed, and is whole: {shortage}")

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
        types = role_types(source.role)
        if types is None:
            return publishers
        strange = {publisher.topic_type for publisher in publishers}.difference(types)
        if strange and not source.mistyped:
            source.mistyped = True
            self.get_logger().error(
                f"{source.topic} is published as {', '.join(sorted(strange))}, which is not recorded: it must be "
                f"{' or '.join(types)}; rename that topic, or set the parameter {_parameter(source.role)}"
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
            depth=IMAGE_DEPTH if source.is_camera else DEPTH,
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
            message_class,
            source.topic,
            partial(self._on_message, source),
            profile,
            raw=True,
            event_callbacks=SubscriptionEventCallbacks(message_lost=partial(self._on_lost, source)),
        )
        if source.is_camera and not offered.reliable:
            self.get_logger().info(
                f"{source.topic} is offered best effort: lost frames are counted, not repeated"
            )

    def _on_message(self, source: _Source, data: bytes) -> None:
        self.received += 1
        if source.qos is not None and source.qos.transient_local:
            source.retained.append(bytes(data))
        if self._writer is None:
            return
        source.heard_at = time.monotonic()
        if source.is_camera:
            try:
                source.gaps.add(header_stamp(data))
            except RopesError as error:
                source.malformed += 1
                self.get_logger().warning(
                    f"{source.topic}: not recorded: {error}; check its publisher", throttle_duration_sec=SILENT_AFTER_S
                )
                return
        if self._writer.put(source.topic, bytes(data), self.get_clock().now().nanoseconds):
            source.count += 1
        else:
            source.dropped += 1

    def _on_lost(self, source: _Source, event: Any) -> None:
        """What the middleware says that it lost."""
        source.transport += event.total_count_change

    def _guard(self, action: Callable[[], object]) -> None:
        """Run a step of writing; when the disk fails, say so everywhere and end the node."""
        try:
            action()
        except BagError as error:
            if self._writer is not None:
                self._writer.end(self._losses(), str(error))
                self._closing.append(self._writer)  # waited for on the way down
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
        while self._closing:
            self._conclude(self._closing.pop(0))

    def _close(self, reason: str = "") -> str:
        """Close the bag if one is open, and say what is in it; note where it cannot be closed or holds no image."""
        writer, self._writer = self._writer, None
        if writer is None:
            return ""
        writer.end(self._losses(), reason)
        said = self._conclude(writer)
        self._judge(writer)
        return said

    def _conclude(self, writer: QueuedWriter) -> str:
        """Wait until a bag is closed; say what is in it, or why it could not be closed."""
        try:
            writer.wait()
        except BagError as error:
            self._failed = True
            if str(error) != self._problem:
                self._problem = str(error)
                self.get_logger().error(str(error))
            return str(error)
        lost = sum(losses.total for losses in writer.losses.values())
        said = f"{writer.path}: {writer.accepted.total()} messages, {lost} lost"
        self.get_logger().info(said)
        return said

    def _judge(self, writer: QueuedWriter) -> None:
        """Note a bag without an image of the first camera."""
        camera = next(source for source in self._sources.values() if source.role == "image")
        if not camera.count:
            self._failed = True
            self.get_logger().error(
                f"{writer.path} holds no image: nothing usable came on {camera.topic}; start the camera, or set the "
                "parameter image_topic"
            )

    def _losses(self) -> dict[str, Losses]:
        """Topic to what of it is missing, where something is."""
        return {topic: source.losses for topic, source in self._sources.items() if any(source.losses)}

    def _statement(self) -> Statement:
        """Counts of the bag in progress; names topics that stay silent."""
        if self._problem:
            return Statement(DiagnosticStatus.ERROR, self._problem, {"state": "failed"})
        if self._writer is None:
            return Statement(DiagnosticStatus.OK, "stopped", {"state": "stopped"}) if self._clockwork else INACTIVE
        now = time.monotonic()
        elapsed, self._told_at = max(1e-3, now - self._told_at), now
        size = self._writer.bytes_written
        rate, self._told_bytes = (size - self._told_bytes) / 1e6 / elapsed, size
        sources = list(self._sources.values())
        silent = [
            source.topic
            for source in sources
            if source.expected and not source.count and now - self._started > SILENT_AFTER_S
        ]
        for topic in silent:
            if not self._sources[topic].silence_reported:
                self._sources[topic].silence_reported = True
                self.get_logger().warning(f"no message on {topic} since start: {self._advice(topic)}")
        problems = [f"no message on {topic} since start" for topic in silent]
        problems += [
            f"nothing on {source.topic} for {now - source.heard_at:.0f} s: see to that camera"
            for source in sources
            if source.is_camera and source.heard_at is not None and now - source.heard_at > SILENT_AFTER_S
        ]
        losses = self._losses()
        lost = sum(each.total for topic, each in losses.items() if self._sources[topic].is_camera)
        others = sum(each.total for each in losses.values()) - lost
        dropped = sum(each.queue for each in losses.values())
        malformed = sum(each.malformed for each in losses.values())
        if lost:
            problems.append(f"{lost} frames lost")
        if others:
            problems.append(f"{others} other messages lost")
        if dropped:
            problems.append(f"{dropped} of these since the disk does not keep up")
        if malformed:
            problems.append(f"{malformed} malformed frames")
        values = {
            "state": "recording",
            "path": self._writer.path,
            "frames": sum(source.count for source in sources if source.is_camera),
            "drops": lost + others,
            "malformed": malformed,
            "bytes": size,
            "MB/s": f"{rate:.2f}",
            "MB waiting": f"{self._writer.waiting_bytes / 1e6:.1f}",
            **{f"messages {source.topic}": source.count for source in sources},
            **{f"Hz {source.topic}": f"{(source.count - source.told) / elapsed:.1f}" for source in sources},
            **{
                f"lost {topic}": ", ".join(f"{name} {number}" for name, number in each._asdict().items())
                for topic, each in losses.items()
            },
        }
        for source in sources:
            source.told = source.count
        return Statement(
            DiagnosticStatus.WARN if problems else DiagnosticStatus.OK, "; ".join(problems) or "recording", values
        )

    def _advice(self, topic: str) -> str:
        if self._sources[topic].subscription is None:
            return "nobody publishes it, or the clock stands still (check remaps, domain, use_sim_time)"
        return "its publisher is there but sends nothing"


def _parameter(role: str) -> str:
    """The parameter that names a role's topic."""
    return f"{role}_topic" if role in ROLES else "extra_cameras"


def _camera_info_beside(image: str) -> str:
    """Where a camera's calibration is by convention: beside its images (image_transport), compressed or not."""
    namespace, slash, _ = image.removesuffix("/compressed").rpartition("/")
    return f"{namespace}{slash}camera_info"


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

"""The recorder node: writes the camera, the commands and the regimes into an intervention bag.

Messages go into the bag as they came over the wire, header stamps untouched. The log time is the receive time
by the node's clock: the system's clock, or the simulation's with `use_sim_time`. So log time minus header
stamp bounds a message's latency from above wherever both use the system's clock.

Receiving and writing are two threads with a queue between them (`bag_queue`): a slow disk delays no subscription.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import NameValidationException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSDurabilityPolicy, QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy

from ropes_ros.bag_format import role_types
from ropes_ros.bag_queue import QueuedWriter
from ropes_ros.bags import BagWriter, OfferedQos
from ropes_ros.cdr import header_stamp
from ropes_ros.errors import BagError, RopesError
from ropes_ros.nodes.common import INACTIVE, Reporter, Statement, offer, run, told
from ropes_ros.nodes.recorder_parameters import parameters
from ropes_ros.nodes.recorder_sources import ROLES, Source, message_class, parameter_of, wanted_sources
from ropes_ros.nodes.recorder_statement import SILENT_AFTER_S, Progress, losses_of
from ropes_ros.regimes import Schedule
from ropes_ros.robot import load_robot

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

WATCH_PERIOD_S = 0.1
"""How often it looks for publishers, at the disk's room and at the bag's size and length."""
DEPTH = 1000
"""Messages that may wait in a subscription while the node is busy."""
IMAGE_DEPTH = 60
"""The same of a camera, whose messages are large: two seconds at 30 Hz. Not in simulation time, which may pass many
times as fast: 60 images are a sixth of a second there, for which a busy machine often holds a process up."""


class Recorder(LifecycleNode):
    """Records an intervention bag; see docs/interface.md for topics and parameters."""

    def __init__(self) -> None:
        self.received = 0
        """Messages since the node's start; `run` works off those that wait until none comes."""
        self._writer: QueuedWriter | None = None
        self._closing: list[QueuedWriter] = []
        self._sources: dict[str, Source] = {}
        self._clockwork: list[Any] = []
        self._problem = ""
        self._bags = 0
        self._failed = False
        super().__init__("recorder")
        for name, default, descriptor in parameters():
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
        self._progress = Progress(writer, self._sources, self.get_logger().warning)
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
        self._writer.end(losses_of(self._sources))
        self._judge(self._writer)
        self._closing.append(self._writer)  # in its own time: nothing here waits for the disk
        return self._begin(following)

    def _wanted(self) -> dict[str, Source]:
        """The topics to record, by resolved name."""
        return wanted_sources(
            {role: self._text(f"{role}_topic") for role in ROLES},
            self.get_parameter("extra_cameras").value or [],
            self.get_parameter("extra_topics").value or [],
            self._resolved,
            with_regimes=self._schedule is not None,
        )

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
        if 0 < size <= self._writer.bytes_written or 0 < age <= time.monotonic() - self._progress.started:
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

    def _of_its_type(self, source: Source, publishers: list[Any]) -> list[Any]:
        """Those publishers whose messages make sense on a topic; others are named once."""
        types = role_types(source.role)
        if types is None:
            return publishers
        strange = {publisher.topic_type for publisher in publishers}.difference(types)
        if strange and not source.mistyped:
            source.mistyped = True
            self.get_logger().error(
                f"{source.topic} is published as {', '.join(sorted(strange))}, which is not recorded: it must be "
                f"{' or '.join(types)}; rename that topic, or set the parameter {parameter_of(source.role)}"
            )
        return [publisher for publisher in publishers if publisher.topic_type in types]

    def _subscribe(self, source: Source, type_name: str, offered: OfferedQos) -> None:
        """Subscribe to a topic, or again when a publisher has come that offers less."""
        assert self._writer is not None
        if source.subscription is not None:
            self.destroy_subscription(source.subscription)
            source.subscription = None
        else:
            try:
                message_class(type_name)
                self._writer.add_topic(source.topic, type_name, offered)
            except BagError as error:
                source.unusable = True
                self.get_logger().error(f"{source.topic} is not recorded: {error}")
                return
            source.type_name = type_name
        source.qos = offered
        source.retained.clear()  # the publisher gives its latched messages anew
        profile = QoSProfile(
            history=QoSHistoryPolicy.KEEP_LAST,
            depth=IMAGE_DEPTH if source.is_camera and not self.get_parameter("use_sim_time").value else DEPTH,
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
            message_class(source.type_name),
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

    def _on_message(self, source: Source, data: bytes) -> None:
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

    def _on_lost(self, source: Source, event: Any) -> None:
        """What the middleware says that it lost."""
        source.transport += event.total_count_change

    def _guard(self, action: Callable[[], object]) -> None:
        """Run a step of writing; when the disk fails, say so everywhere and end the node."""
        try:
            action()
        except BagError as error:
            if self._writer is not None:
                self._writer.end(losses_of(self._sources), str(error))
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
        writer.end(losses_of(self._sources), reason)
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

    def _statement(self) -> Statement:
        """What is said of the bag in progress, or why there is none."""
        if self._problem:
            return Statement(DiagnosticStatus.ERROR, self._problem, {"state": "failed"})
        if self._writer is None:
            return Statement(DiagnosticStatus.OK, "stopped", {"state": "stopped"}) if self._clockwork else INACTIVE
        return self._progress.statement()


def main(args: list[str] | None = None) -> int:
    """Entry point."""
    return run(Recorder, args)


if __name__ == "__main__":
    raise SystemExit(main())

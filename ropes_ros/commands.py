"""Commanded joint positions over time, out of a bag: what a robot was told, which is not yet what it did.

The messages are replayed into the buffer that the simulated arm obeys, so that trajectories which overlap, are
replaced half way or end early mean here what they mean to a controller.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ropes_ros.bags import open_bag
from ropes_ros.cdr import header_stamp
from ropes_ros.command_messages import COMMAND_TYPES, apply_command
from ropes_ros.errors import BagError, RobotError, TrainingError
from ropes_ros.robot import Robot, bundled_robot
from ropes_ros.trajectory import TrajectoryBuffer
from ropes_ros.units import NANOSECONDS

SAMPLE_NS = 10_000_000
"""Time between the samples of a track: at 20 rad/s^2 a straight line between them is off by 0.25 mrad at most."""
LONGEST_GAP_NS = 3600 * NANOSECONDS
"""Commands further apart, or further ahead of their message, than this are taken for stamps of two clocks."""


class CommandSource(Protocol):
    """What commands are read from."""

    @property
    def path(self) -> Path:
        """The bag, for messages."""
        ...

    def deserialize(self, data: bytes, type_name: str) -> Any:
        """A serialised message (CDR) as an object with the type's fields."""
        ...


@dataclass(frozen=True)
class CommandTrack:
    """Commanded positions over time, interpolated linearly between samples.

    Attributes:
        times_ns: int64 [T], nanoseconds, strictly increasing, in the clock of the images' stamps.
        u: float64 [T, J], commanded positions in half ranges about home.
        source: Where they were read, in words, for the cards of models that learn from them.

    Raises:
        TrainingError: The shapes do not fit, times do not increase, or positions are no numbers.
    """

    times_ns: NDArray[np.int64]
    u: NDArray[np.float64]
    source: str = "given commands"

    def __post_init__(self) -> None:
        if not len(self.times_ns) or self.u.ndim != 2 or len(self.u) != len(self.times_ns):
            raise TrainingError(
                f"a command track needs positions [T, J] at times [T], got {self.u.shape} and {self.times_ns.shape}"
            )
        if (np.diff(self.times_ns) <= 0).any() or not np.isfinite(self.u).all():
            raise TrainingError("a command track needs increasing times and positions that are numbers: clean it")

    def at(self, stamps_ns: NDArray[np.int64]) -> NDArray[np.float64]:
        """Commanded positions at given times.

        The last command holds for ever, as it does in a controller. Where the robot stood before the first one
        nobody said.

        Args:
            stamps_ns: int64 [N], nanoseconds, in any order.

        Returns:
            float64 [N, J] in half ranges; not a number before the first sample.
        """
        start = int(self.times_ns[0])  # float64 holds nanoseconds since then, not since the epoch
        wanted, known = (stamps_ns - start).astype(np.float64), (self.times_ns - start).astype(np.float64)
        found = np.stack([np.interp(wanted, known, column, left=np.nan) for column in self.u.T], axis=1)
        return found


def load_commands(
    bag_path: str | Path, robot: Robot | None = None, *, topics: Mapping[str, str] | None = None
) -> CommandTrack:
    """Read what was commanded while a bag was recorded.

    A message with a header counts by its stamp, one without by the time at which it was recorded.

    Args:
        bag_path: The bag.
        robot: The robot that was commanded; by default the bundled preset of the bag's schedule.
        topics: Topic of the role "joint_command", for bags from elsewhere.

    Returns:
        The track from the first commanded point on, a sample every 10 ms.

    Raises:
        BagError: No command in the bag, of a type that is not understood, for another robot, or of two clocks.
    """
    with open_bag(bag_path, topics=topics) as bag:
        arm = bundled_robot(bag.schedule.robot) if robot is None else robot
        topic = bag.topic("joint_command")
        type_name = bag.topics[topic].type_name
        kind = type_name.rpartition("/")[2]
        if kind not in COMMAND_TYPES:
            raise BagError(
                f"{bag.path}: {topic} is of type {type_name}, commands are read from {', '.join(COMMAND_TYPES)}: "
                "name the command topic (--topic joint_command=NAME)"
            )
        commands = ((message.data, message.log_time_ns) for message in bag.messages([topic]))
        return replay_commands(bag, arm, topic, type_name, commands)


def replay_commands(
    bag: CommandSource, robot: Robot, topic: str, type_name: str, commands: Iterable[tuple[bytes, int]]
) -> CommandTrack:
    """What serialised commands said over time.

    Args:
        bag: Where they come from.
        robot: The robot that was commanded.
        topic: Their topic, for messages.
        type_name: Their type, one of `COMMAND_TYPES`.
        commands: Serialised messages (CDR), at least one, with the time at which each was recorded, in ns.

    Raises:
        BagError: A command is for another robot, makes no sense, or they are of two clocks.
    """
    kind = type_name.rpartition("/")[2]
    replay = _Replay(robot, f"{topic} ({type_name})")
    for data, log_time_ns in commands:
        command = bag.deserialize(data, type_name)
        stamp_ns = 0 if kind == "Float64MultiArray" else header_stamp(data)
        try:
            replay.take(command, kind, stamp_ns or log_time_ns)
        except RobotError as error:
            raise BagError(f"{bag.path}: {topic}: {error}") from error
    return replay.track()


class _Replay:
    """A controller that obeys messages in order and notes what it is told to do at every sample time."""

    def __init__(self, robot: Robot, source: str) -> None:
        self._robot, self._source = robot, source
        unknown = np.full(len(robot.joints), np.nan)
        self._buffer = TrajectoryBuffer(unknown, robot.lower, robot.upper)
        self._times, self._positions = array("q"), array("d")
        self._next_ns: int | None = None

    def take(self, message: object, kind: str, now_ns: int) -> None:
        """Obey a message that counts from `now_ns`; what came before it is settled up to then."""
        if self._next_ns is None:
            self._next_ns = now_ns
        if now_ns - self._next_ns > LONGEST_GAP_NS:
            hours = (now_ns - self._next_ns) / LONGEST_GAP_NS
            raise RobotError(f"commands stop for {hours:.1f} hours: were their stamps of two clocks (use_sim_time)?")
        self._sample(now_ns)
        apply_command(message, kind, self._robot, self._buffer, now_ns)
        ahead_ns = (self._buffer.end_ns or 0) - now_ns
        if ahead_ns > LONGEST_GAP_NS:
            raise RobotError(
                f"a command reaches {ahead_ns / LONGEST_GAP_NS:.1f} hours ahead: is its time_from_start, or its stamp, "
                "of another unit or clock?"
            )

    def track(self) -> CommandTrack:
        """What was commanded, to the end of the last message."""
        end_ns = self._buffer.end_ns
        assert end_ns is not None  # the bag's topic holds at least one message
        self._sample(end_ns + SAMPLE_NS)
        u = self._robot.normalise(np.frombuffer(self._positions).reshape(-1, len(self._robot.joints)))
        known = np.flatnonzero(np.isfinite(u).all(axis=1))  # a trajectory may start some time after its stamp
        return CommandTrack(np.frombuffer(self._times, dtype=np.int64)[known], u[known], self._source)

    def _sample(self, until_ns: int) -> None:
        assert self._next_ns is not None
        for time_ns in range(self._next_ns, until_ns, SAMPLE_NS):
            self._times.append(time_ns)
            self._positions.frombytes(self._buffer.sample(time_ns).tobytes())
            self._next_ns = time_ns + SAMPLE_NS


"""What a commander says when: motion commands and regimes ahead of time, and the way back after a delay.

A motion goes out in messages that overlap: each replaces what the one before said about the time from its first
point on, reaches a horizon ahead, and ends in a stop, so that a robot whose commander dies comes to rest. Labels are
announced only for commands that have been sent, and end where these end. If no message came in time, the robot has
stopped: it is led back to where the motion is by then, and nothing is labelled until it is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ropes_ros.densities import NONE
from ropes_ros.errors import ScheduleError
from ropes_ros.kinematics import Array, PiecewiseQuadratic, connect, shortest_time, stop
from ropes_ros.motion import MISS, Motion
from ropes_ros.regimes import RegimeState
from ropes_ros.schedule import LIMIT_SHARE, Schedule
from ropes_ros.units import NANOSECONDS

if TYPE_CHECKING:
    from ropes_ros.robot import Robot

Times = npt.NDArray[np.int64]

MARGIN_NS = 100_000_000
"""Time that a message may take to arrive."""
APPROACH_SHARE = 0.2
"""Share of the joints' limits used on the way to the motion's start."""
APPROACH_NS = 1_000_000_000
"""Least time between the first message and the motion's start."""
STEP_NS = 20_000_000


@dataclass(frozen=True)
class Points:
    """Commanded states: times int64 [M] in ns, ascending; positions and velocities float64 [M, J] in rad, rad/s."""

    times_ns: Times
    positions: Array
    velocities: Array


@dataclass(frozen=True)
class Update:
    """What to publish now: points that replace all earlier ones from the first on, and regimes in order."""

    points: Points
    regimes: tuple[RegimeState, ...]


@dataclass(frozen=True)
class _Detour:
    """States that replace the motion's before `end_ns` (and after the detours before it)."""

    start_ns: int
    end_ns: int
    joints: Sequence[PiecewiseQuadratic]

    def states(self, t_ns: Times) -> tuple[Array, Array]:
        t = (t_ns - self.start_ns) / NANOSECONDS
        return (
            np.stack([joint.positions(t) for joint in self.joints], axis=-1),
            np.stack([joint.velocities(t) for joint in self.joints], axis=-1),
        )


class CommandStream:
    """Turns a motion, and the schedule behind it, into messages.

    Args:
        robot: The robot, for its limits.
        motion: The motion.
        schedule: The schedule that the motion follows; None for motions without regimes.
        horizon_ns: How far ahead each update reaches.
        point_ns: Time between points.
        streamed: The robot follows single targets that are sent as they are due, rather than points ahead of time:
            it stands still where updates stay away, from the last one on.
        seq: Number of the first regime.
    """

    def __init__(
        self,
        robot: Robot,
        motion: Motion,
        schedule: Schedule | None,
        *,
        horizon_ns: int,
        point_ns: int,
        streamed: bool = False,
        seq: int = 0,
    ) -> None:
        self._robot, self._motion, self._schedule = robot, motion, schedule
        self._horizon_ns, self._point_ns, self._streamed = horizon_ns, point_ns, streamed
        self._speed, self._acceleration = LIMIT_SHARE * robot.max_velocity, LIMIT_SHARE * robot.max_acceleration
        edges = [] if schedule is None else [edge for s in schedule.segments for edge in (s.start_ns, s.end_ns)]
        self._edges = np.unique(np.array(edges, dtype=np.int64))
        self._seq = seq
        self._announced: RegimeState | None = None
        self._dead: list[tuple[int, int]] = []
        self.late = 0

    def start(self, now_ns: int, position: npt.ArrayLike | None = None) -> None:
        """Begin: from now on the robot moves slowly from `position` [J] in rad (home when None) to the start.

        Raises:
            ScheduleError: A position is infinite or not a number.
        """
        p0 = self._robot.home if position is None else np.asarray(position, dtype=np.float64)
        if not np.isfinite(p0).all():
            wrong = [name for name, at in zip(self._robot.joint_names, p0, strict=True) if not np.isfinite(at)]
            raise ScheduleError(
                f"the robot's position is not a number for joint {', '.join(wrong)}: mend what measures it"
            )
        p1, speed, acceleration = (
            self._robot.home,
            *(APPROACH_SHARE * limit for limit in (self._robot.max_velocity, self._robot.max_acceleration)),
        )
        least = shortest_time(p0, 0.0, p1, 0.0, speed, acceleration).max()
        # Time for the first message to arrive before anything moves.
        wait = MARGIN_NS / NANOSECONDS
        moving = max(APPROACH_NS / NANOSECONDS - wait, float(least))
        way = connect(p0, 0.0, p1, 0.0, moving, speed, acceleration)
        rest = (np.zeros_like(p0), p0, np.zeros_like(p0), np.zeros_like(p0))
        self.start_ns = now_ns + round((wait + moving) * NANOSECONDS)
        self.end_ns = self.start_ns + self._motion.duration_ns
        self._detours = [_Detour(now_ns, self.start_ns, _joint_pieces(rest, way.pieces(), wait))]
        self._sent_ns = self._updated_ns = now_ns

    def states_at(self, t_ns: Times) -> tuple[Array, Array]:
        """Commanded positions and velocities, float64 [N, J] in rad and rad/s, at times [N] in ns."""
        t_ns = np.asarray(t_ns, dtype=np.int64)
        positions = self._motion.positions_at(t_ns - self.start_ns)
        velocities = self._motion.velocities_at(t_ns - self.start_ns)
        for detour in self._detours:
            inside = (t_ns >= detour.start_ns) & (t_ns < detour.end_ns)
            if detour is self._detours[0]:
                inside = t_ns < detour.end_ns
            if inside.any():
                positions[inside], velocities[inside] = detour.states(t_ns[inside])
        return positions, velocities

    def update(self, now_ns: int) -> Update | None:
        """What to publish now; None when all has been said."""
        if self._late(now_ns):
            self._come_back(now_ns)
        until = min(now_ns + self._horizon_ns, self.end_ns)
        said, self._updated_ns = self._sent_ns, now_ns
        if until <= said:
            return None
        # Targets that are sent one by one need labels ahead, but not with every target.
        if self._streamed and self._announced and until < self.end_ns and 2 * (until - said) < self._horizon_ns:
            return None
        self._sent_ns = until
        return Update(self._points(now_ns, until), tuple(self._regimes(said, until)))

    def halt(self, now_ns: int) -> Update:
        """End here: the robot brakes from where it is now, and no label holds."""
        self.end_ns = self._sent_ns = now_ns
        count = len(self._robot.joints)
        none = (NONE,) * count, (-1,) * count, (0,) * count
        return Update(self._braking(now_ns), (self._announce(now_ns, *none),))

    def done(self, now_ns: int) -> bool:
        """Whether the robot is home and all has been said."""
        return now_ns >= self.end_ns and self._sent_ns >= self.end_ns

    def progress(self, now_ns: int) -> float:
        """Share of the motion that has passed, in [0, 1]."""
        return min(max((now_ns - self.start_ns) / self._motion.duration_ns, 0.0), 1.0)

    def _late(self, now_ns: int) -> bool:
        """Whether the robot has come, or will have come, to the end of what it was sent."""
        if self._sent_ns >= self.end_ns and not self._streamed:
            return False
        if self._streamed:
            return self._updated_ns < self.end_ns and now_ns > self._updated_ns + max(MARGIN_NS, 3 * self._point_ns)
        first = self._announced is None
        return not first and now_ns + MARGIN_NS > self._sent_ns

    def _come_back(self, now_ns: int) -> None:
        """Lead the robot from where it has stopped to where the motion is by the time it gets there."""
        self.late += 1
        lost_ns = self._updated_ns if self._streamed else self._sent_ns
        (p0,), (v0,) = self.states_at(np.array([lost_ns]))
        if self._streamed:
            v0 = np.zeros_like(v0)
        braking, rest = stop(p0, v0, self._acceleration)
        zero = np.zeros_like(p0)
        begin_ns = max(now_ns + (0 if self._streamed else MARGIN_NS), lost_ns + int(braking.max() * NANOSECONDS) + 1)
        end_ns = begin_ns
        while True:
            end_ns += STEP_NS
            (p1,), (v1,) = (
                self._motion.positions_at(np.array([end_ns - self.start_ns])),
                self._motion.velocities_at(np.array([end_ns - self.start_ns])),
            )
            duration = (end_ns - begin_ns) / NANOSECONDS
            if (shortest_time(rest, 0.0, p1, v1, self._speed, self._acceleration) > duration).any():
                continue
            way = connect(rest, 0.0, p1, v1, duration, self._speed, self._acceleration)
            if (np.abs(way.error) <= MISS).all():
                break
        brake = tuple(
            np.stack(pair)
            for pair in ((zero, braking), (p0, rest), (v0, zero), (-np.sign(v0) * self._acceleration, zero))
        )
        joints = _joint_pieces(brake, way.pieces(), (begin_ns - lost_ns) / NANOSECONDS)
        self._detours.append(_Detour(lost_ns, end_ns, joints))
        settle = 0 if self._schedule is None else self._schedule.settle_ns
        self._dead.append((lost_ns, end_ns + settle))
        self._sent_ns = lost_ns
        self.end_ns = max(self.end_ns, end_ns)

    def _points(self, now_ns: int, until_ns: int) -> Points:
        """Points from just before now to `until_ns`, and a stop."""
        first = now_ns - now_ns % self._point_ns
        times = np.arange(first, until_ns, self._point_ns, dtype=np.int64)
        positions, velocities = self.states_at(times)
        tail = self._braking(until_ns)
        return Points(
            np.concatenate([times, tail.times_ns]),
            np.concatenate([positions, tail.positions]),
            np.concatenate([velocities, tail.velocities]),
        )

    def _braking(self, from_ns: int) -> Points:
        """The stop from the state commanded at a time."""
        (p0,), (v0,) = self.states_at(np.array([from_ns]))
        braking, _ = stop(p0, v0, self._acceleration)
        last = from_ns + int(braking.max() * NANOSECONDS) + 1
        times = np.append(np.arange(from_ns, last, self._point_ns, dtype=np.int64), last)
        t = np.minimum((times - from_ns)[:, None] / NANOSECONDS, braking)
        slowing = np.sign(v0) * self._acceleration
        return Points(times, p0 + (v0 - 0.5 * slowing * t) * t, np.where(t < braking, v0 - slowing * t, 0.0))

    def _regimes(self, from_ns: int, until_ns: int) -> list[RegimeState]:
        """Regimes from `from_ns` to `until_ns`, up to which commands have been sent."""
        schedule = self._schedule
        count = len(self._robot.joints)
        if schedule is None:
            none = (NONE,) * count, (-1,) * count, (0,) * count
            return [self._announce(from_ns, *none)] if self._announced is None else []
        begin, end = np.searchsorted(self._edges, [from_ns - self.start_ns, until_ns - self.start_ns])
        dead = [edge for pair in self._dead for edge in pair if from_ns < edge < until_ns]
        times = np.unique(np.array([from_ns, *dead, *(self._edges[begin:end] + self.start_ns)], dtype=np.int64))
        ids = schedule.segment_ids_at(times - self.start_ns)
        for since, to in self._dead:
            ids[(times >= since) & (times < to)] = -1
        said = []
        for time, row in zip(times.tolist(), ids.tolist(), strict=True):
            held = [None if i < 0 else schedule.segments[i] for i in row]
            levels = tuple(NONE if s is None else s.level for s in held)
            until = tuple(0 if s is None else min(s.end_ns + self.start_ns, until_ns) for s in held)
            last = self._announced
            if last is None or (last.levels, last.segments, last.until_ns) != (levels, tuple(row), until):
                said.append(self._announce(time, levels, tuple(row), until))
        return said

    def _announce(
        self, stamp_ns: int, levels: tuple[str, ...], segments: tuple[int, ...], until_ns: tuple[int, ...]
    ) -> RegimeState:
        name = "" if self._schedule is None else self._schedule.hash
        self._announced = RegimeState(name, stamp_ns, self._seq, levels, segments, until_ns)
        self._seq += 1
        return self._announced


def _joint_pieces(before: tuple[Array, ...], after: tuple[Array, ...], after_s: float) -> list[PiecewiseQuadratic]:
    """Per joint, pieces (start, position, velocity, acceleration), each (..., J), the second ones `after_s` later."""
    start, *states = (
        np.concatenate([np.atleast_2d(first), second]) for first, second in zip(before, after, strict=True)
    )
    start[-len(after[0]) :] += after_s
    return [PiecewiseQuadratic(start[:, j], *(state[:, j] for state in states)) for j in range(start.shape[1])]

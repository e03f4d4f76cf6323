"""What a commander says when: motion commands and regimes ahead of time, pauses, and the way back after a delay.

A motion goes out in messages that overlap: each replaces what the one before said about the time from its first
point on, reaches a horizon ahead, and ends in a stop, so that a robot whose commander dies comes to rest. Labels are
announced only for commands that have been sent, and end where these end. Where the robot had to stop, because it was
told to pause or because no message came in time, it is led back to where it left the motion, nothing is labelled until
it is there, and the rest of the motion takes place that much later.

Everything that is commanded is the average of a path (`ropes_ros.course`), which limits jerk: the path is decided half
a window ahead of what is commanded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ropes_ros.course import Course, Rest, Span, Way
from ropes_ros.densities import NONE
from ropes_ros.errors import ScheduleError
from ropes_ros.kinematics import Array, connect, shortest_time
from ropes_ros.motion import MISS, Motion
from ropes_ros.regimes import RegimeState
from ropes_ros.schedule import LIMIT_SHARE, Schedule, smoothing_ns
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
KEPT_NS = 5_000_000_000
"""How far back what was commanded can be asked for, over a stop."""


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
class _Stretch:
    """A stretch of time in which the motion is followed, its beginning being at `origin_ns`; `end_ns` is excluded."""

    start_ns: int
    end_ns: int | None
    origin_ns: int

    def holds(self, t_ns: Times) -> npt.NDArray[np.bool_]:
        inside: npt.NDArray[np.bool_] = t_ns >= self.start_ns
        return inside if self.end_ns is None else inside & (t_ns < self.end_ns)


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
        self._smooth_ns = motion.smooth_ns if schedule is not None else smoothing_ns(robot)
        self._settle_ns = 0 if schedule is None else schedule.settle_ns
        edges = [] if schedule is None else [edge for s in schedule.segments for edge in (s.start_ns, s.end_ns)]
        self._edges = np.unique(np.array(edges, dtype=np.int64))
        self._ends = np.array([] if schedule is None else [s.end_ns for s in schedule.segments], dtype=np.int64)
        self._announced: RegimeState | None = None
        self._stretches: list[_Stretch] = []
        self.seq = seq
        self.late = 0
        self.paused = False

    def start(self, now_ns: int, position: npt.ArrayLike | None = None, begin_ns: int = 0) -> None:
        """Begin: from now on the robot moves slowly from `position` [J] in rad (home when None) to its home.

        The motion begins there, or is joined where labels go on at `begin_ns` of its time.

        Raises:
            ScheduleError: A position is infinite or not a number, or the motion has ended by `begin_ns`.
        """
        p0 = self._robot.home if position is None else np.asarray(position, dtype=np.float64)
        if not np.isfinite(p0).all():
            wrong = [name for name, at in zip(self._robot.joint_names, p0, strict=True) if not np.isfinite(at)]
            raise ScheduleError(
                f"the robot's position is not a number for joint {', '.join(wrong)}: mend what measures it"
            )
        if not 0 <= begin_ns < self._motion.duration_ns:
            raise ScheduleError(
                f"the motion of {self._motion.duration_ns / NANOSECONDS:.1f} s cannot go on at"
                f" {begin_ns / NANOSECONDS:.1f} s: begin it at 0"
            )
        home = self._robot.home
        limits = (APPROACH_SHARE * limit for limit in (self._robot.max_velocity, self._robot.max_acceleration))
        speed, acceleration = limits
        half_ns = self._smooth_ns // 2
        # Time for the first message to arrive before anything moves.
        leaves_ns = now_ns + MARGIN_NS + half_ns
        least = float(shortest_time(p0, 0.0, home, 0.0, speed, acceleration).max())
        moving = max((APPROACH_NS - MARGIN_NS) / NANOSECONDS, least)
        arrives_ns = leaves_ns + round(moving * NANOSECONDS)
        way = Way(connect(p0, 0.0, home, 0.0, moving, speed, acceleration).pieces())
        self._course = Course(
            [Span(now_ns, now_ns, Rest(p0)), Span(leaves_ns, leaves_ns, way), Span(arrives_ns, arrives_ns, Rest(home))],
            self._smooth_ns,
        )
        self._stretches = []
        self._join(arrives_ns, begin_ns)
        self._sent_ns = self._updated_ns = now_ns
        self._fresh = True

    def states_at(self, t_ns: Times) -> tuple[Array, Array]:
        """Commanded positions and velocities, float64 [N, J] in rad and rad/s, at times [N] in ns."""
        return self._course.states_at(np.asarray(t_ns, dtype=np.int64))

    def followed_at(self, t_ns: Times) -> Times:
        """The motion's times int64 [N] that are followed at times [N], in ns; -1 where the motion is not followed."""
        t_ns = np.asarray(t_ns, dtype=np.int64)
        followed = np.full(t_ns.shape, -1, dtype=np.int64)
        for stretch in self._stretches:
            inside = stretch.holds(t_ns)
            followed[inside] = t_ns[inside] - stretch.origin_ns
        return followed

    def reached(self, now_ns: int) -> int:
        """The motion's time, in ns, up to which it has been followed; where it goes on."""
        last = self._stretches[-1]
        end_ns = now_ns if last.end_ns is None else last.end_ns
        return min(max(end_ns, last.start_ns) - last.origin_ns, self._motion.duration_ns)

    def progress(self, now_ns: int) -> float:
        """Share of the motion that has passed, in [0, 1]."""
        return self.reached(now_ns) / self._motion.duration_ns

    def update(self, now_ns: int) -> Update | None:
        """What to publish now; None when nothing new is to be said."""
        if self.paused:
            self._updated_ns = now_ns
            return None
        if self._late(now_ns):
            self._come_back(now_ns)
        until = min(now_ns + self._horizon_ns, self.end_ns)
        said, self._updated_ns = self._sent_ns, now_ns
        if until <= said:
            return None
        # Targets that are sent one by one need labels ahead, but not with every target.
        ahead = 2 * (until - said) < self._horizon_ns
        if self._streamed and not self._fresh and until < self.end_ns and ahead:
            return None
        self._sent_ns, self._fresh = until, False
        return Update(self._points(now_ns, until), tuple(self._regimes(said, until)))

    def pause(self, now_ns: int) -> Update:
        """Brake from where the robot is now, and hold; no label holds until the motion is joined again."""
        self._leave(now_ns, self._braking(now_ns))
        self._sent_ns, self.paused = now_ns, True
        return Update(self._until_rest(now_ns, self._course), (self._nothing(now_ns),))

    def resume(self, now_ns: int) -> Update | None:
        """Lead the robot back to where it left the motion."""
        self._go_on(now_ns, self.reached(now_ns))
        return self.update(now_ns)

    def skip(self, now_ns: int) -> Update | None:
        """Leave out what is left of the segments that are held now, or of the next one where none is.

        A robot that pauses goes on doing so; another one is led to where these segments have ended.

        Raises:
            ScheduleError: There is nothing to leave out.
        """
        reached = self.reached(now_ns)
        following = self._ends[self._ends > reached]
        if self._schedule is None or not len(following):
            raise ScheduleError("there is no segment to skip: stop the motion instead")
        held = self._schedule.segment_ids_at(np.array([reached]))
        ends = [self._schedule.segments[i].end_ns for i in held[held >= 0]]
        goal_ns = max(ends) if ends else int(following.min())
        if self.paused:
            self._stretches.append(_Stretch(now_ns, now_ns, now_ns - goal_ns))
            return None
        self._leave(now_ns, self._braking(now_ns))
        self._go_on(now_ns, goal_ns)
        return self.update(now_ns)

    def halt(self, now_ns: int, *, reason: str = "", state_ns: int | None = None) -> Update:
        """End here: the robot brakes from where it is now, and no label holds.

        Args:
            now_ns: The present time.
            reason: Why, where the robot was not meant to stop.
            state_ns: The time at which the motion is where the robot is now; another one than now after the clock
                was set.
        """
        state_ns = now_ns if state_ns is None else state_ns
        course = self._braking(state_ns)
        points = self._until_rest(state_ns, course)
        self._leave(state_ns, course)
        self.end_ns = self._sent_ns = now_ns
        moved = Points(points.times_ns + (now_ns - state_ns), points.positions, points.velocities)
        return Update(moved, (self._nothing(now_ns, reason),))

    def done(self, now_ns: int) -> bool:
        """Whether the robot is home and all has been said."""
        return not self.paused and now_ns >= self.end_ns and self._sent_ns >= self.end_ns

    def _late(self, now_ns: int) -> bool:
        """Whether the robot has come, or will have come, to the end of what it was sent."""
        if self._fresh or (self._sent_ns >= self.end_ns and not self._streamed):
            return False
        if self._streamed:
            return self._updated_ns < self.end_ns and now_ns > self._updated_ns + max(MARGIN_NS, 3 * self._point_ns)
        return now_ns + MARGIN_NS > self._sent_ns

    def _come_back(self, now_ns: int) -> None:
        """Lead the robot back from where it has stopped."""
        self.late += 1
        lost_ns = self._updated_ns if self._streamed else self._sent_ns
        if self._streamed:
            (position,), _ = self.states_at(np.array([lost_ns]))
            course = Course([Span(lost_ns, lost_ns, Rest(position))], self._smooth_ns)
        else:
            course = self._braking(lost_ns)
        self._leave(lost_ns, course)
        self._go_on(now_ns, self.reached(lost_ns))
        self._sent_ns = lost_ns

    def _leave(self, now_ns: int, course: Course) -> None:
        """Follow another course from now on, and the motion no more."""
        last = self._stretches[-1]
        if last.end_ns is None:
            self._stretches[-1] = _Stretch(last.start_ns, max(now_ns, last.start_ns), last.origin_ns)
        self._course = course

    def _go_on(self, now_ns: int, goal_ns: int) -> None:
        """Join the motion from a course that comes to rest, such that labels go on at `goal_ns` of its time."""
        arrives = now_ns + (0 if self._streamed else MARGIN_NS) + self._smooth_ns // 2
        self._join(max(arrives, self._course.rests_from), goal_ns)
        self.paused = False
        self._sent_ns = self._updated_ns = now_ns
        self._fresh = True

    def _join(self, leaves_ns: int, goal_ns: int) -> None:
        """Lead the path, which rests from `leaves_ns` on, to where the motion's path is a little before `goal_ns`."""
        half_ns = self._smooth_ns // 2
        (rest,), _ = self._course.path_at(np.array([leaves_ns]))
        met_ns = max(goal_ns - half_ns - self._settle_ns, 0)
        (p1,), (v1,) = self._motion.path_at(np.array([met_ns]))
        least = float(shortest_time(rest, 0.0, p1, v1, self._speed, self._acceleration).max())
        end_ns = leaves_ns + round(least * NANOSECONDS)
        while True:
            duration = (end_ns - leaves_ns) / NANOSECONDS
            way = connect(rest, 0.0, p1, v1, duration, self._speed, self._acceleration)
            if (np.abs(way.error) <= MISS).all():
                break
            end_ns += STEP_NS
        # Where the motion is at its beginning, the average of what lies before it must not reach into it.
        origin_ns = end_ns - met_ns + (half_ns if met_ns == 0 else 0)
        spans = [Span(leaves_ns, leaves_ns, Way(way.pieces())), Span(end_ns, origin_ns, self._motion)]
        self._course = self._course.since(leaves_ns - KEPT_NS).then(*spans)
        self._stretches.append(_Stretch(origin_ns + goal_ns, None, origin_ns))
        self.start_ns, self.end_ns = origin_ns, origin_ns + self._motion.duration_ns

    def _points(self, now_ns: int, until_ns: int) -> Points:
        """Points from just before now to `until_ns`, and a stop."""
        return self._until_rest(now_ns - now_ns % self._point_ns, self._braking(until_ns))

    def _braking(self, from_ns: int) -> Course:
        """The course until a time, and then a stop."""
        return self._course.braked(from_ns + self._smooth_ns // 2, self._acceleration)

    def _until_rest(self, from_ns: int, course: Course) -> Points:
        last = max(course.rests_from + self._smooth_ns // 2, from_ns + 1)
        times = np.append(np.arange(from_ns, last, self._point_ns, dtype=np.int64), last)
        return Points(times, *course.states_at(times))

    def _regimes(self, from_ns: int, until_ns: int) -> list[RegimeState]:
        """Regimes from `from_ns` to `until_ns`, up to which commands have been sent."""
        if self._schedule is None:
            return [self._nothing(from_ns)] if self._announced is None else []
        edges = [np.array([from_ns], dtype=np.int64)]
        for stretch in self._stretches:
            ends = [stretch.start_ns] if stretch.end_ns is None else [stretch.start_ns, stretch.end_ns]
            own = np.concatenate([ends, self._edges + stretch.origin_ns])
            edges.append(own[(own > from_ns) & (own < until_ns)])
        times = np.unique(np.concatenate(edges))
        followed = self.followed_at(times)
        ids = np.where(followed[:, None] >= 0, self._schedule.segment_ids_at(followed), -1)
        said = []
        for time, at, row in zip(times.tolist(), followed.tolist(), ids.tolist(), strict=True):
            held = [None if i < 0 else self._schedule.segments[i] for i in row]
            levels = tuple(NONE if s is None else s.level for s in held)
            until = tuple(0 if s is None else min(s.end_ns + time - at, until_ns) for s in held)
            last = self._announced
            if last is None or (last.levels, last.segments, last.until_ns) != (levels, tuple(row), until):
                said.append(self._announce(time, levels, tuple(row), until))
        return said

    def _nothing(self, stamp_ns: int, reason: str = "") -> RegimeState:
        count = len(self._robot.joints)
        return self._announce(stamp_ns, (NONE,) * count, (-1,) * count, (0,) * count, reason)

    def _announce(
        self,
        stamp_ns: int,
        levels: tuple[str, ...],
        segments: tuple[int, ...],
        until_ns: tuple[int, ...],
        reason: str = "",
    ) -> RegimeState:
        name = "" if self._schedule is None else self._schedule.hash
        self._announced = RegimeState(name, stamp_ns, self.seq, levels, segments, until_ns, reason)
        self.seq += 1
        return self._announced

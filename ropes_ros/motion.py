"""Commanded motions as functions of time: a schedule's sweeps and transitions, and waypoint motion for evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from ropes_ros.errors import ScheduleError
from ropes_ros.kinematics import Array, PiecewiseQuadratic, Sweep, connect
from ropes_ros.schedule import IMPORTED, LIMIT_SHARE, JointMotion, Schedule, Segment
from ropes_ros.units import NANOSECONDS

if TYPE_CHECKING:
    from ropes_ros.robot import Robot

Times = npt.NDArray[np.int64]
MISS = 1e-6
"""Position, in half ranges or rad, that a transition may miss: segments' times are whole nanoseconds."""


class Motion(Protocol):
    """A commanded motion of all joints, from and back to rest at home.

    It is made by averaging a path over a window of `smooth_ns`, or is its path where that is 0.
    """

    smooth_ns: int

    @property
    def duration_ns(self) -> int:
        """Length in ns; the robot rests at home before 0 and from the end on."""
        ...

    def positions_at(self, t_ns: Times) -> Array:
        """Joint angles float64 [N, J] in rad at times int64 [N] in ns from the motion's start."""
        ...

    def velocities_at(self, t_ns: Times) -> Array:
        """Joint velocities float64 [N, J] in rad/s at times int64 [N] in ns from the motion's start."""
        ...

    def path_at(self, t_ns: Times) -> tuple[Array, Array]:
        """Positions and velocities of the path itself, float64 [N, J] in rad and rad/s, at times int64 [N] in ns."""
        ...

    def path_integrals(self, t_ns: Times) -> Array:
        """Integrals of the path's positions, float64 [N, J] in rad s, up to times int64 [N] in ns from its start."""
        ...


class Trajectory:
    """The motion that a schedule commands.

    A joint sweeps (or rests, in a dwell design) from `settle_ns` before a segment's window to its end; in between it
    moves from sweep to sweep with matched position and velocity, at most at `LIMIT_SHARE` of its limits. That path is
    averaged over `smooth_ns`, which limits jerk. Everything stays within the box |u| <= 1.

    Raises:
        ScheduleError: The schedule was made for another robot, or leaves a transition no way to be made in time.
    """

    def __init__(self, robot: Robot, schedule: Schedule) -> None:
        schedule.check_robot(robot)
        if schedule.design == IMPORTED:
            raise ScheduleError(
                "this schedule tells what was commanded in a bag from elsewhere, not how to move: make one with "
                "`ropes schedule`"
            )
        self._home, self._half_range = robot.home, robot.half_range
        self.duration_ns, self.smooth_ns = schedule.duration_ns, schedule.smooth_ns
        own: list[list[Segment]] = [[] for _ in schedule.joints]
        for segment in schedule.segments:
            own[segment.joint].append(segment)
        self._joints = [_joint_pieces(schedule, j, segments) for j, segments in enumerate(own)]

    def positions_at(self, t_ns: Times) -> Array:
        """See Motion."""
        t_ns = np.asarray(t_ns, dtype=np.int64)
        return mean_position(self.path_integrals, t_ns, self.smooth_ns) if self.smooth_ns else self.path_at(t_ns)[0]

    def velocities_at(self, t_ns: Times) -> Array:
        """See Motion."""
        t_ns = np.asarray(t_ns, dtype=np.int64)
        if not self.smooth_ns:
            return self.path_at(t_ns)[1]
        return mean_position(lambda times: self.path_at(times)[0], t_ns, self.smooth_ns)

    def path_at(self, t_ns: Times) -> tuple[Array, Array]:
        """See Motion."""
        t = np.asarray(t_ns, dtype=np.int64) / NANOSECONDS
        u = np.stack([joint.positions(t) for joint in self._joints], axis=-1)
        du = np.stack([joint.velocities(t) for joint in self._joints], axis=-1)
        return np.asarray(self._home + self._half_range * u), np.asarray(du * self._half_range)

    def path_integrals(self, t_ns: Times) -> Array:
        """See Motion."""
        t = np.asarray(t_ns, dtype=np.int64) / NANOSECONDS
        area = np.stack([joint.integrals(t) for joint in self._joints], axis=-1)
        return np.asarray(self._home * t[:, None] + self._half_range * area)


def mean_position(integral: Callable[[Times], Array], t_ns: Times, window_ns: int) -> Array:
    """Means [N, J], over windows of an even number of ns around times [N], of what has the given integral.

    The mean velocity follows from the positions in the same way.
    """
    half_ns = window_ns // 2
    return np.asarray((integral(t_ns + half_ns) - integral(t_ns - half_ns)) / (window_ns / NANOSECONDS))


def _joint_pieces(schedule: Schedule, number: int, segments: list[Segment]) -> PiecewiseQuadratic:
    joint = schedule.joints[number]
    half_ns = schedule.smooth_ns // 2
    start = np.array([s.start_ns for s in segments], dtype=np.int64)
    end = np.array([s.end_ns for s in segments], dtype=np.int64)
    met, left = start - schedule.settle_ns - half_ns, end + half_ns
    rest = np.zeros(1)
    # Transitions: before every segment, and one home.
    p1, v1 = (np.concatenate([x, rest]) for x in _states(joint, segments, (met - start) / NANOSECONDS))
    p0, v0 = (np.concatenate([rest, x]) for x in _states(joint, segments, (left - start) / NANOSECONDS))
    left = np.concatenate([[half_ns], left])
    duration = (np.concatenate([met, [schedule.duration_ns - half_ns]]) - left) / NANOSECONDS
    ways = connect(p0, v0, p1, v1, duration, joint.speed_limit, joint.acceleration)
    if (np.abs(ways.error) > MISS).any():
        i = int(np.argmax(np.abs(ways.error) > MISS))
        raise ScheduleError(
            f"joint '{joint.name}': {duration[i]:.3f} s do not suffice from {p0[i]:+.3f} to {p1[i]:+.3f} half ranges at"
            f" {left[i] / NANOSECONDS:.3f} s: the segment's start or the joint's limits were changed"
        )
    times, positions, velocities, accelerations = (x.T for x in ways.pieces())
    times = times + (left / NANOSECONDS)[:, None]
    parts: list[tuple[Array, Array, Array, Array]] = []
    before = -(schedule.settle_ns + half_ns) / NANOSECONDS
    for i, segment in enumerate(segments):
        parts.append((times[i], positions[i], velocities[i], accelerations[i]))
        if segment.speed == 0.0:
            parts.append((met[i : i + 1] / NANOSECONDS, p1[i : i + 1], rest, rest))
        else:
            after = int(end[i] - start[i] + half_ns) / NANOSECONDS
            parts.append(_sweep_pieces(_sweep(joint, [segment]), before, after, int(start[i])))
    parts.append((times[-1], positions[-1], velocities[-1], accelerations[-1]))
    final = (np.array([(schedule.duration_ns - half_ns) / NANOSECONDS]), rest, rest, rest)
    parts.append(final)
    return PiecewiseQuadratic(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _sweep(joint: JointMotion, segments: list[Segment]) -> Sweep:
    """The sweeps of segments, fields [S]; those of one segment are scalars."""
    fields = [(s.lo, s.hi, s.speed, s.phase, s.direction, joint.acceleration) for s in segments]
    values = np.array(fields, dtype=np.float64).reshape(-1, 6)
    return Sweep(*(values[0] if len(segments) == 1 else values.T))


def _states(joint: JointMotion, segments: list[Segment], t: Array) -> tuple[Array, Array]:
    """Positions and velocities [S] in u of segments at a time each, in s from their starts."""
    position, velocity = np.array([s.lo for s in segments]), np.zeros(len(segments))
    moving = np.array([s.speed > 0.0 for s in segments], dtype=np.bool_)
    if moving.any():
        sweep = _sweep(joint, [s for s in segments if s.speed > 0.0])
        position[moving], velocity[moving] = sweep.state(t[moving])
    return position, velocity


def _sweep_pieces(sweep: Sweep, t0: float, t1: float, origin_ns: int) -> tuple[Array, Array, Array, Array]:
    """Pieces of a sweep between times t0 and t1 in s; start times are moved by origin_ns."""
    begins = np.concatenate([[t0], sweep.breaks(t0, t1)])
    position, velocity = sweep.state(begins)
    middle = 0.5 * (begins + np.append(begins[1:], t1))
    between, speed = sweep.state(middle)
    turning = np.abs(speed) < sweep.speed * (1.0 - 1e-9)
    side = np.where(between < 0.5 * (sweep.lo + sweep.hi), 1.0, -1.0)
    return begins + origin_ns / NANOSECONDS, position, velocity, np.where(turning, side * sweep.acceleration, 0.0)


class WaypointMotion:
    """Point-to-point motion through uniformly random waypoints in the box, for evaluation on unseen motion.

    Between waypoints, at which the robot rests, all joints move in step along minimum-jerk profiles (Flash and Hogan,
    Journal of Neuroscience 5(7), 1985), at a random pace of 30 to 80 % of the limits.

    Args:
        robot: The robot.
        seed: Seed of waypoints and paces.
        duration_s: Length in s, from and back to rest at home.

    Raises:
        ScheduleError: The duration is too short for two moves.
    """

    def __init__(self, robot: Robot, seed: int, duration_s: float) -> None:
        rng = np.random.default_rng(seed)
        self.duration_ns = round(duration_s * NANOSECONDS)
        self.smooth_ns = 0
        waypoints = [robot.home]
        times = [0.0]
        while True:
            target = robot.home + robot.half_range * rng.uniform(-1.0, 1.0, len(robot.joints))
            pace = rng.uniform(0.3, LIMIT_SHARE)
            there = times[-1] + _least_time(robot, target - waypoints[-1]) / pace
            if there + _least_time(robot, target - robot.home) / LIMIT_SHARE > duration_s:
                break
            waypoints.append(target)
            times.append(there)
        if len(waypoints) < 2:
            raise ScheduleError(f"waypoint motion of {duration_s} s is too short to go anywhere and back: take longer")
        self._times = np.array([*times, duration_s])
        self._points = np.stack([*waypoints, robot.home])
        areas = 0.5 * np.diff(self._times)[:, None] * (self._points[1:] + self._points[:-1])
        self._before = np.concatenate([np.zeros((1, len(robot.joints))), np.cumsum(areas, axis=0)])

    def _at(self, t_ns: Times) -> tuple[npt.NDArray[np.intp], Array, Array]:
        """Index of the move, share of its time that has passed [N, 1], and its duration in s [N, 1]."""
        t = np.asarray(t_ns, dtype=np.int64) / NANOSECONDS
        i = np.clip(np.searchsorted(self._times, t, side="right") - 1, 0, len(self._times) - 2)
        duration = self._times[i + 1] - self._times[i]
        return i, np.clip((t - self._times[i]) / duration, 0.0, 1.0)[:, None], duration[:, None]

    def positions_at(self, t_ns: Times) -> Array:
        """See Motion."""
        i, s, _ = self._at(t_ns)
        share = s**3 * (10.0 + s * (6.0 * s - 15.0))
        return np.asarray(self._points[i] + share * (self._points[i + 1] - self._points[i]))

    def velocities_at(self, t_ns: Times) -> Array:
        """See Motion."""
        i, s, duration = self._at(t_ns)
        return np.asarray(30.0 * s**2 * (1.0 - s) ** 2 / duration * (self._points[i + 1] - self._points[i]))

    def path_at(self, t_ns: Times) -> tuple[Array, Array]:
        """See Motion."""
        return self.positions_at(t_ns), self.velocities_at(t_ns)

    def path_integrals(self, t_ns: Times) -> Array:
        """See Motion."""
        i, s, duration = self._at(t_ns)
        t = np.asarray(t_ns, dtype=np.int64)[:, None] / NANOSECONDS
        way = self._points[i + 1] - self._points[i]
        area = duration * (s * self._points[i] + s**4 * (2.5 + s * (s - 3.0)) * way)
        resting = np.minimum(t, 0.0) * self._points[0] + np.maximum(t - self._times[-1], 0.0) * self._points[-1]
        return np.asarray(self._before[i] + area + resting)


def _least_time(robot: Robot, way: Array) -> float:
    """Shortest minimum-jerk move, in s, over `way` [J] in rad: its peaks are 1.875 d/T and 10/sqrt(3) d/T^2."""
    speed = 1.875 * np.abs(way) / robot.max_velocity
    return float(np.maximum(speed, np.sqrt(10.0 / np.sqrt(3.0) * np.abs(way) / robot.max_acceleration)).max())

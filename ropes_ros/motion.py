"""Commanded motions as functions of time: a schedule's sweeps and transitions, and waypoint motion for evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from ropes_ros.errors import ScheduleError
from ropes_ros.kinematics import Array, PiecewiseQuadratic, Sweep, connect
from ropes_ros.schedule import IMPORTED, LIMIT_SHARE, Schedule, Segment
from ropes_ros.units import NANOSECONDS

if TYPE_CHECKING:
    from ropes_ros.robot import Robot

Times = npt.NDArray[np.int64]
MISS = 1e-6
"""Position, in half ranges or rad, that a transition may miss: segments' times are whole nanoseconds."""


class Motion(Protocol):
    """A commanded motion of all joints, from and back to rest at home."""

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


class Trajectory:
    """The motion that a schedule commands.

    A joint sweeps from `settle_ns` before a segment's window to its end; in between it moves from sweep to sweep with
    matched position and velocity, at most at `LIMIT_SHARE` of its limits. Everything stays within the box |u| <= 1.

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
        self.duration_ns = schedule.duration_ns
        own: list[list[Segment]] = [[] for _ in schedule.joints]
        for segment in schedule.segments:
            own[segment.joint].append(segment)
        self._joints = [_joint_pieces(schedule, j, segments) for j, segments in enumerate(own)]

    def positions_at(self, t_ns: Times) -> Array:
        """See Motion."""
        t = np.asarray(t_ns, dtype=np.int64) / NANOSECONDS
        u = np.stack([joint.positions(t) for joint in self._joints], axis=-1)
        return np.asarray(self._home + self._half_range * u)

    def velocities_at(self, t_ns: Times) -> Array:
        """See Motion."""
        t = np.asarray(t_ns, dtype=np.int64) / NANOSECONDS
        return np.asarray(np.stack([joint.velocities(t) for joint in self._joints], axis=-1) * self._half_range)


def _joint_pieces(schedule: Schedule, number: int, segments: list[Segment]) -> PiecewiseQuadratic:
    joint = schedule.joints[number]
    fields = [(s.lo, s.hi, s.speed, s.phase, s.direction, joint.acceleration) for s in segments]
    values = np.array(fields, dtype=np.float64).reshape(-1, 6)
    start = np.array([s.start_ns for s in segments], dtype=np.int64)
    end = np.array([s.end_ns for s in segments], dtype=np.int64)
    met = start - schedule.settle_ns
    sweeps = Sweep(*values.T)
    rest = np.zeros(1)
    # Transitions: before every segment, and one home.
    p1, v1 = (np.concatenate([x, rest]) for x in sweeps.state((met - start) / NANOSECONDS))
    p0, v0 = (np.concatenate([rest, x]) for x in sweeps.state((end - start) / NANOSECONDS))
    left = np.concatenate([[0], end])
    duration = (np.concatenate([met, [schedule.duration_ns]]) - left) / NANOSECONDS
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
    before = -schedule.settle_ns / NANOSECONDS
    for i in range(len(segments)):
        parts.append((times[i], positions[i], velocities[i], accelerations[i]))
        sweep = Sweep(*values[i])
        parts.append(_sweep_pieces(sweep, before, int(end[i] - start[i]) / NANOSECONDS, int(start[i])))
    parts.append((times[-1], positions[-1], velocities[-1], accelerations[-1]))
    final = (np.array([schedule.duration_ns / NANOSECONDS]), rest, rest, rest)
    parts.append(final)
    return PiecewiseQuadratic(*(np.concatenate(column) for column in zip(*parts, strict=True)))


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


def _least_time(robot: Robot, way: Array) -> float:
    """Shortest minimum-jerk move, in s, over `way` [J] in rad: its peaks are 1.875 d/T and 10/sqrt(3) d/T^2."""
    speed = 1.875 * np.abs(way) / robot.max_velocity
    return float(np.maximum(speed, np.sqrt(10.0 / np.sqrt(3.0) * np.abs(way) / robot.max_acceleration)).max())

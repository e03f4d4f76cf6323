"""What a simulated arm makes of a schedule's commands: lag, sag under gravity, backlash, commands not executed."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from ropes_ros.errors import ScheduleError
from ropes_ros.motion import Trajectory
from ropes_ros.robot import Robot
from ropes_ros.schedule import Schedule
from ropes_ros.sim.arm import SimArm
from ropes_ros.units import NANOSECONDS

Array = npt.NDArray[np.float64]

STEPS = 17
"""Physics steps between two frames of a 30 Hz video, each a little shorter than 2 ms."""
_LOAD_SAMPLES = 2000
_CATCH_UP_S = 0.3
"""Least time in which a joint that was left behind catches up."""


@dataclass(frozen=True)
class Faults:
    """In what a recording falls short of its commands; the position controllers' lag is always there.

    Attributes:
        camera_delay_s: Time in s from a picture to its stamp.
        sag: Angle in rad by which the joint that yields most gives way to gravity in the box's worst pose; all joints
            yield in proportion to gravity's torque over their controller's stiffness.
        backlash_rad: Play of every joint in rad: the link follows its motor at a distance of up to half of it.
        unexecuted: Share of the segments whose commands are never executed: the joint stays where it was, and
            catches up afterwards.

    Raises:
        ScheduleError: A value is negative or not finite, or more than all segments are not to be executed.
    """

    camera_delay_s: float = 0.0
    sag: float = 0.01
    backlash_rad: float = 0.0
    unexecuted: float = 0.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not (np.isfinite(value) and value >= 0.0):
                raise ScheduleError(f"faults: {name} must be a finite number of at least 0, got {value}")
        if self.unexecuted > 1.0:
            raise ScheduleError(f"faults: unexecuted is a share of the segments, got {self.unexecuted}")


def follow(robot: Robot, schedule: Schedule, *, frames: int, rate: int, faults: Faults, seed: int) -> Array:
    """Simulate the arm through a schedule.

    Physics gives the controllers' lag. Sag and backlash come on top of it without dynamics of their own: sag as the
    static deflection of elastic joints, backlash as the play operator of Krasnosel'skii and Pokrovskii (Systems with
    Hysteresis, 1989, ch. 1). Without any compensation of gravity the stiff controllers of the presets sag by a few
    hundredths of a degree only, so that physics alone would not show what a light arm does.

    Args:
        robot: The robot.
        schedule: What it is commanded, from time 0 on.
        frames: Number N of frames.
        rate: Frames a second.
        faults: What it falls short in; `camera_delay_s` has no part in this.
        seed: Seed of the segments that are not executed.

    Returns:
        Positions [N, J] in rad at the times 1 / rate, 2 / rate, ...
    """
    times = np.arange(frames * STEPS + 1) / (rate * STEPS)
    commands = Trajectory(robot, schedule).positions_at(np.round(times * NANOSECONDS).astype(np.int64))
    _leave_out(commands, times, robot, schedule, faults.unexecuted, np.random.default_rng(seed))
    arm = SimArm(robot, timestep=1.0 / (rate * (STEPS - 0.5)), render=False)
    motors = np.empty((frames, len(robot.joints)))
    for frame in range(frames):
        arm.step_to((frame + 1) / rate, lambda t: commands[min(round(t * rate * STEPS), len(commands) - 1)])
        motors[frame] = arm.positions()
    links = _play(motors, robot.home, 0.5 * faults.backlash_rad)
    return links + faults.sag * _yielding(robot, arm, links) if faults.sag else links


def _leave_out(
    commands: Array, times: Array, robot: Robot, schedule: Schedule, share: float, rng: np.random.Generator
) -> None:
    """Make some segments' commands stay where the joint was before, and catch up after them; in place."""
    count = len(schedule.segments)
    left_out = np.zeros(count, dtype=np.bool_)
    left_out[rng.permutation(count)[: round(share * count)]] = True
    ends = np.zeros(len(robot.joints), dtype=np.int64)  # of the segment before, in ns
    for segment, skipped in zip(schedule.segments, left_out.tolist(), strict=True):
        joint = segment.joint
        if skipped:
            begin, end = np.searchsorted(times, [ends[joint] / NANOSECONDS, segment.end_ns / NANOSECONDS])
            stay = commands[begin, joint]
            behind = stay - commands[end, joint]
            commands[begin:end, joint] = stay
            # A minimum-jerk move of this length peaks at 1.875 times its mean speed.
            duration = max(_CATCH_UP_S, 1.875 * abs(behind) / robot.max_velocity[joint])
            after = slice(end, int(np.searchsorted(times, times[end] + duration)))
            s = (times[after] - times[end]) / duration
            commands[after, joint] += behind * (1.0 - s**3 * (10.0 + s * (6.0 * s - 15.0)))
        ends[joint] = segment.end_ns


def _play(motors: Array, start: Array, half_width: float) -> Array:
    """Links [N, J] that follow their motors [N, J] at a distance of at most `half_width`."""
    if half_width == 0.0:
        return motors
    links = np.empty_like(motors)
    now = start
    for row, motor in enumerate(motors):
        now = np.clip(now, motor - half_width, motor + half_width)
        links[row] = now
    return links


def _yielding(robot: Robot, arm: SimArm, positions: Array) -> Array:
    """Deflections [N, J] under gravity, 1 at the joint that yields most in the worst pose of the box."""
    u = np.random.default_rng(0).uniform(-1.0, 1.0, (_LOAD_SAMPLES, len(robot.joints)))
    worst = float(np.abs(arm.deflections(robot.denormalise(u))).max())
    return arm.deflections(positions) / worst

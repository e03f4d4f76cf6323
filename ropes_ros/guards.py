"""What stops a robot: joints that do not follow, measurements that stay away or jump, a clock that was set, a deadman.

It knows no ROS. Times that measurements are compared at are of the commander's clock; how long something has been
silent counts only if it was silent by a steady clock too, so that a simulation may run faster or slower than the wall.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ropes_ros.errors import ScheduleError
from ropes_ros.units import NANOSECONDS

if TYPE_CHECKING:
    from ropes_ros.kinematics import Array
    from ropes_ros.robot import Robot

Times = npt.NDArray[np.int64]

LAG_NS = 300_000_000
"""How far a joint may be behind its command: it is compared with all that was commanded in this time."""
STAMP_NS = 2 * NANOSECONDS
"""A stamp further than this from the time of receipt is of another clock, and is not compared with commands."""
JUMP_SHARE = 2.0
"""A measured position that changes faster than this many times the joint's speed limit is no motion."""
CLOCK_NS = 250_000_000
"""Least change of the clock against a steady one that is taken for its having been set."""
DELAY_NS = 200_000_000
"""Time between two looks from which the commander's own process was held up."""
TOLERANCE = 1e-6
"""Excess over a limit, relative to it, that rounding may cause."""


@dataclass
class _Measured:
    """The newest measurement of a joint: position in rad; stamp, receipt by the commander's clock and a steady one."""

    position: float
    stamp_ns: int
    now_ns: int
    steady_ns: int
    off_since_ns: int | None = None


class JointWatch:
    """Follows what joint_states say of a robot that is commanded.

    Args:
        robot: The robot.
        limits: How far joints may be from their commands, in half ranges: one for all, or one per joint.
        time_s: How long they may be further away, in s.
        timeout_s: How long a joint may be without a new measurement, in s.

    Raises:
        ScheduleError: The number of limits is neither 1 nor that of the joints, or one is not above 0.
    """

    def __init__(self, robot: Robot, limits: Sequence[float], time_s: float, timeout_s: float) -> None:
        if len(limits) not in (1, len(robot.joints)) or not all(limit > 0.0 for limit in limits):
            raise ScheduleError(
                f"parameter tracking_limit must hold one number above 0, or one for each of the {len(robot.joints)}"
                f" joints, got {list(limits)}"
            )
        self._robot = robot
        self._limits = np.broadcast_to(np.asarray(limits, dtype=np.float64), len(robot.joints)) * robot.half_range
        self._time_ns, self._timeout_ns = round(time_s * NANOSECONDS), round(timeout_s * NANOSECONDS)
        self._measured: dict[str, _Measured] = {}
        self._looked_ns: int | None = None

    @property
    def heard(self) -> bool:
        """Whether any joint has been measured."""
        return bool(self._measured)

    def unknown(self, now_ns: int, age_ns: int) -> list[str]:
        """Joints that no measurement of a certain age tells of."""
        return [
            name
            for name in self._robot.joint_names
            if name not in self._measured or now_ns - self._measured[name].now_ns > age_ns
        ]

    def outside(self) -> list[str]:
        """Joints that were measured outside their limits."""
        rows = zip(self._robot.joint_names, self._robot.lower, self._robot.upper, strict=True)
        return [
            name for name, low, high in rows if name in self._measured and not low <= self.position(name) <= high
        ]

    def far(self, half_ranges: float) -> list[str]:
        """Joints that were measured further from home than so many half ranges."""
        rows = zip(self._robot.joint_names, self._robot.home, half_ranges * self._robot.half_range, strict=True)
        return [
            name for name, home, reach in rows if name in self._measured and abs(self.position(name) - home) > reach
        ]

    def position(self, name: str) -> float:
        """The newest measured position of a joint in rad."""
        return self._measured[name].position

    def measure(
        self,
        positions: Iterable[tuple[str, float]],
        stamp_ns: int,
        now_ns: int,
        steady_ns: int,
        commanded: Callable[[Times], Array] | None,
    ) -> str:
        """Take in what a message says; why the robot must stop, or nothing.

        A message with the stamp of the one before says nothing new.

        Args:
            positions: Joints and their positions in rad; those of other joints, and what is no number, are not used.
            stamp_ns: The message's stamp, 0 for none.
            now_ns: The time of receipt by the commander's clock.
            steady_ns: The time of receipt by a steady clock.
            commanded: Positions [N, J] in rad that were commanded at times [N]; None where nothing is commanded.
        """
        stamped = stamp_ns != 0 and abs(now_ns - stamp_ns) <= STAMP_NS
        at_ns = stamp_ns if stamped else now_ns
        band: tuple[Array, Array] | None = None
        for name, position in positions:
            if name not in self._robot.joint_names or not math.isfinite(position):
                continue
            last = self._measured.get(name)
            if last is not None and stamp_ns != 0 and stamp_ns == last.stamp_ns:
                continue
            joint = self._robot.joint_names.index(name)
            new = _Measured(position, stamp_ns, now_ns, steady_ns)
            self._measured[name] = new
            if commanded is None:
                continue
            limit = float(self._limits[joint])
            if last is not None:
                new.off_since_ns = last.off_since_ns
                seconds = max(now_ns - last.now_ns, stamp_ns - last.stamp_ns, 0) / NANOSECONDS
                moved = abs(position - last.position)
                if moved > limit + JUMP_SHARE * float(self._robot.max_velocity[joint]) * seconds:
                    return f"the measured position of joint {name} jumped by {moved:.3f} rad in {seconds:.3f} s"
            if band is None:
                asked = commanded(at_ns - np.linspace(0, LAG_NS, 16).astype(np.int64))
                band = asked.min(axis=0), asked.max(axis=0)
            error = max(float(band[0][joint]) - position, position - float(band[1][joint]), 0.0)
            if error <= limit:
                new.off_since_ns = None
            elif new.off_since_ns is None:
                new.off_since_ns = at_ns
            elif at_ns - new.off_since_ns >= self._time_ns:
                return (
                    f"joint {name} does not follow: it is {error:.3f} rad from what was commanded, and was further than"
                    f" {limit:.3f} rad for {(at_ns - new.off_since_ns) / NANOSECONDS:.2f} s"
                )
        return ""

    def silent(self, now_ns: int, steady_ns: int) -> str:
        """Why the robot must stop where measurements stay away, or nothing; robots that never said any are let be.

        After a delay between two looks, what has come in meanwhile may not have been taken in: silence counts anew.
        """
        delayed = self._looked_ns is not None and steady_ns - self._looked_ns > DELAY_NS
        self._looked_ns = steady_ns
        if delayed:
            for last in self._measured.values():
                last.now_ns, last.steady_ns = now_ns, steady_ns
        for name, last in self._measured.items():
            quiet_ns = min(now_ns - last.now_ns, steady_ns - last.steady_ns)
            if quiet_ns > self._timeout_ns:
                return f"joint_states say nothing new of joint {name} for {quiet_ns / NANOSECONDS:.2f} s"
        return ""


class ClockWatch:
    """Notices a clock that is set, by a steady one.

    Args:
        simulated: The clock is a simulation's: it may run at any speed, but not back.
    """

    def __init__(self, *, simulated: bool) -> None:
        self._simulated = simulated
        self._last: tuple[int, int] | None = None

    def check(self, now_ns: int, steady_ns: int) -> tuple[str, int]:
        """Why the robot must stop, or nothing; and the time by the clock as it was before it was set."""
        last, self._last = self._last, (now_ns, steady_ns)
        if last is None:
            return "", now_ns
        passed_ns, steadily_ns = now_ns - last[0], steady_ns - last[1]
        jump_ns = passed_ns if self._simulated and passed_ns < 0 else passed_ns - steadily_ns
        set_ = passed_ns < -CLOCK_NS if self._simulated else abs(jump_ns) > CLOCK_NS
        if not set_:
            return "", now_ns
        way = "back" if jump_ns < 0 else "forward"
        return f"the clock was set {way} by {abs(jump_ns) / NANOSECONDS:.2f} s", last[0] + steadily_ns


class Deadman:
    """A switch that somebody must hold: a message that says so, again and again.

    Args:
        timeout_s: How long it may stay silent, in s.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_ns = round(timeout_s * NANOSECONDS)
        self._held_ns: int | None = None

    def hear(self, held: bool, steady_ns: int) -> None:
        """Take in a message."""
        self._held_ns = steady_ns if held else None

    def released(self, steady_ns: int) -> str:
        """Why the robot must not move, or nothing."""
        if self._held_ns is None:
            return "the deadman switch is not held"
        quiet_ns = steady_ns - self._held_ns
        return f"the deadman switch is silent for {quiet_ns / NANOSECONDS:.2f} s" if quiet_ns > self._timeout_ns else ""


class Limits:
    """What may be sent to a robot.

    Args:
        robot: The robot.
        margin: Share of each joint's range, at both of its ends, that is kept free.
    """

    def __init__(self, robot: Robot, margin: float) -> None:
        free = margin * (robot.upper - robot.lower) * ~robot.continuous
        self._robot, self.lower, self.upper = robot, robot.lower + free, robot.upper - free

    def check_box(self) -> None:
        """Refuse a robot whose box reaches into the margin.

        Raises:
            ScheduleError: It does.
        """
        low, high = self._robot.home - self._robot.half_range, self._robot.home + self._robot.half_range
        for j, joint in enumerate(self._robot.joints):
            if not (self.lower[j] <= low[j] + TOLERANCE and high[j] - TOLERANCE <= self.upper[j]):
                raise ScheduleError(
                    f"joint '{joint.name}': home +- half_range is [{low[j]:.4f}, {high[j]:.4f}], outside the soft"
                    f" limits [{self.lower[j]:.4f}, {self.upper[j]:.4f}]: reduce half_range, or the parameter"
                    " soft_limit_margin"
                )

    def widened(self, position: Array) -> None:
        """Let the robot come from where it stands, a position [J] in rad, also where that is beyond the soft limits."""
        self.lower, self.upper = np.minimum(self.lower, position), np.maximum(self.upper, position)

    def exceeded(self, times_ns: Times, positions: Array, velocities: Array) -> str:
        """What of commanded states [N, J] at times [N] exceeds the limits, or nothing.

        Accelerations are mean ones between neighbouring times; jerk is limited where accelerations are.
        """
        names = np.array(self._robot.joint_names)
        if not (np.isfinite(positions).all() and np.isfinite(velocities).all()):
            return "a command is not a number"
        checks = [
            ("position", np.maximum(self.lower - positions, positions - self.upper), TOLERANCE + 0.0 * self.lower),
            ("velocity", np.abs(velocities), (1.0 + TOLERANCE) * self._robot.max_velocity),
        ]
        seconds = np.diff(times_ns)[:, None] / NANOSECONDS
        if len(times_ns) > 1:
            slope = np.abs(np.diff(positions, axis=0))
            allowed = (1.0 + TOLERANCE) * self._robot.max_velocity * seconds + TOLERANCE
            checks.append(("velocity", slope, allowed))
            change = np.abs(np.diff(velocities, axis=0))
            checks.append(("acceleration", change, self._robot.max_acceleration * seconds + TOLERANCE))
        for what, value, limit in checks:
            over = (value > limit).any(axis=0)
            if over.any():
                return f"a command exceeds the limit of {what} of joint {', '.join(names[over])}"
        return ""

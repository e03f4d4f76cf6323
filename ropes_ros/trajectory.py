"""What the simulated arm has been commanded to do: a buffer of trajectory points that can be sampled at any time."""

from __future__ import annotations

import bisect

import numpy as np
import numpy.typing as npt

from ropes_ros.errors import RobotError

Array = npt.NDArray[np.float64]

SLOPE_NS = 10_000_000
"""Time over which a velocity is taken from positions."""
MOST_POINTS = 200_000
"""Points that are kept at most: those ahead of the present grow in number where stamps run ahead of the clock."""


class TrajectoryBuffer:
    """Commanded joint positions over time.

    Before the first point and after the last one the nearest point holds. Between two points the command is the
    cubic Hermite polynomial when both have velocities, else a straight line. Everything is clipped to the limits.

    Args:
        start: Position (J,) in rad held until the first command.
        lower: Lower limits (J,) in rad.
        upper: Upper limits (J,) in rad.
        kept_ns: How far back from the newest message's time it can be sampled, in ns.
    """

    def __init__(self, start: Array, lower: Array, upper: Array, kept_ns: int = 0) -> None:
        self._start, self._lower, self._upper, self._kept_ns = start, lower, upper, kept_ns
        self._times: list[int] = []
        self._positions: list[Array] = []
        self._velocities: list[Array | None] = []

    @property
    def end_ns(self) -> int | None:
        """Time of the last point in ns; None before the first command."""
        return self._times[-1] if self._times else None

    def add(self, times_ns: list[int], positions: Array, velocities: Array | None, now_ns: int) -> None:
        """Replace everything from the first new point on.

        Points before it stay. Where nothing is commanded between now and the first new point, the motion starts
        now from the present command.

        Args:
            times_ns: Increasing times of the new points in ns.
            positions: (N, J) in rad.
            velocities: (N, J) in rad/s, or None.
            now_ns: The present time in ns, in the clock of times_ns.

        Raises:
            RobotError: Too many points are ahead; the buffer is unchanged.
        """
        self._forget(now_ns - self._kept_ns)
        keep = bisect.bisect_left(self._times, times_ns[0])
        if keep + len(times_ns) > MOST_POINTS:
            raise RobotError(
                f"{keep + len(times_ns)} commanded points lie ahead of the present time: are their stamps of this clock"
                " (use_sim_time)?"
            )
        bridge = (keep == 0 or self._times[keep - 1] < now_ns) and now_ns < times_ns[0]
        present = self.sample(now_ns)
        del self._times[keep:], self._positions[keep:], self._velocities[keep:]
        if bridge:
            self._append(now_ns, present, None)
        for i, time in enumerate(times_ns):
            self._append(time, positions[i], None if velocities is None else velocities[i])

    def hold(self, position: Array, now_ns: int) -> None:
        """Command a position (J,) in rad from now on, at once."""
        self.add([now_ns], position[None], None, now_ns)

    def sample(self, time_ns: int) -> Array:
        """The commanded position (J,) in rad at a time in ns."""
        after = bisect.bisect_right(self._times, time_ns)
        if after == 0:
            command = self._positions[0] if self._times else self._start
        elif after == len(self._times):
            command = self._positions[-1]
        else:
            command = self._between(after, time_ns)
        return np.clip(command, self._lower, self._upper)

    def velocity(self, time_ns: int) -> Array | None:
        """The commanded velocity (J,) in rad/s at a time in ns; None where nothing is known to be commanded then."""
        before, after = self.sample(time_ns - SLOPE_NS // 2), self.sample(time_ns + SLOPE_NS // 2)
        slope: Array = (after - before) / (SLOPE_NS * 1e-9)
        if not self._times or time_ns < self._times[0] or not np.isfinite(slope).all():
            return None
        return slope

    def _between(self, after: int, time_ns: int) -> Array:
        p0, p1 = self._positions[after - 1], self._positions[after]
        v0, v1 = self._velocities[after - 1], self._velocities[after]
        span = self._times[after] - self._times[after - 1]
        s = (time_ns - self._times[after - 1]) / span
        line = p0 + s * (p1 - p0)
        if v0 is None or v1 is None:
            return line
        slope0, slope1 = v0 * span * 1e-9, v1 * span * 1e-9  # rad per span
        chord = p1 - p0
        return line + s * (1 - s) * ((1 - s) * (slope0 - chord) - s * (slope1 - chord))

    def _append(self, time_ns: int, position: Array, velocity: Array | None) -> None:
        self._times.append(time_ns)
        self._positions.append(position)
        self._velocities.append(velocity)

    def _forget(self, now_ns: int) -> None:
        """Drop the points that can no longer be sampled: all but the last one before now."""
        past = bisect.bisect_right(self._times, now_ns) - 1
        if past > 0:
            del self._times[:past], self._positions[:past], self._velocities[:past]

"""Motions of one coordinate with piecewise constant acceleration: sweeps, connections between states, stops.

A sweep runs back and forth between two turning points at constant speed, with the turns rounded to parabolas by the
acceleration limit. All functions broadcast over arrays; positions in u, times in s, unless said otherwise.

Jerk is limited by averaging such a motion over a window of time T centred on each moment (a filter with a rectangular
impulse response: Biagiotti and Melchiorri, Trajectory Planning for Automatic Machines and Robots, 2008, section 4.5).
The average of a motion keeps to the limits on position, speed and acceleration that the motion keeps to, and its jerk
is at most 2 a / T where |acceleration| <= a.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Floats = Array | np.float64

_NODES = 65


@dataclass(frozen=True)
class Sweep:
    """Back and forth between turning points lo and hi at constant speed; fields broadcast against each other.

    At time 0 the coordinate is a share `phase` (of the time) of its way from one turning point to the other, moving
    in `direction` (+1 or -1). The turns are parabolas of acceleration `acceleration`; hi - lo is at least
    speed^2 / acceleration, so that the full speed is reached.
    """

    lo: Floats
    hi: Floats
    speed: Floats
    phase: Floats
    direction: Floats
    acceleration: Floats

    @property
    def half_period(self) -> Array:
        """Duration of one pass from turning point to turning point in s."""
        return np.asarray((self.hi - self.lo) / self.speed + self.speed / self.acceleration)

    def state(self, t: npt.ArrayLike) -> tuple[Array, Array]:
        """Position and velocity at times t in s."""
        half = self.half_period
        passes = np.asarray(t, dtype=np.float64) / half + self.phase
        number = np.floor(passes)
        s = (passes - number) * half
        upward = np.where(np.mod(number, 2.0) == 0.0, self.direction, -self.direction)
        turn = self.speed / self.acceleration
        to_end = np.minimum(s, half - s)
        # Distance from the turning point just left (s <= half / 2) or just ahead.
        near = np.where(to_end < turn, 0.5 * self.acceleration * to_end**2, self.speed * (to_end - 0.5 * turn))
        gone = np.where(s <= 0.5 * half, near, self.hi - self.lo - near)
        position = np.where(upward > 0, self.lo + gone, self.hi - gone)
        return position, upward * np.minimum(self.acceleration * to_end, self.speed)

    def breaks(self, t0: float, t1: float) -> Array:
        """Times in (t0, t1) at which the acceleration changes, ascending; for scalar fields."""
        half, turn = float(self.half_period), float(self.speed / self.acceleration)
        origin = -float(self.phase) * half
        ends = origin + half * np.arange(
            np.floor((t0 - turn - origin) / half), np.ceil((t1 + turn - origin) / half) + 1
        )
        times = np.stack([ends - turn, ends + turn], axis=-1).reshape(-1)
        return np.asarray(times[(times > t0 + 1e-9) & (times < t1 - 1e-9)])

    def travelled(self, s: Array) -> Array:
        """Integral from 0 to s of the distance from a turning point that was left at time 0; for s in [-half period,
        half period], in half ranges s."""
        half, length = self.half_period, self.hi - self.lo
        turn = self.speed / self.acceleration
        whole = 0.5 * length * half

        def first(t: Array) -> Array:
            fast = 0.5 * self.speed * (t * (t - turn) + turn**2 / 3.0)
            return np.where(t < turn, self.acceleration * t**3 / 6.0, fast)

        t = np.abs(s)
        late = whole - length * (half - t) + first(half - t)
        return np.asarray(np.sign(s) * np.where(t < 0.5 * half, first(t), late))

    def averaged_occupancy(self, u: Array, window: float) -> Array:
        """As `occupancy`, of the sweep averaged over `window` s, which is at most half_period - 2 speed / acceleration.

        Args:
            u: Points [G], ascending.
            window: Width of the average in s, above 0.

        Returns:
            Shares [S, G]; the sweep's fields are [S, 1].
        """
        half = self.half_period
        bend = self.speed / self.acceleration + 0.5 * window
        t = np.concatenate([np.linspace(0.0, 1.0, _NODES) * bend, 0.5 * half + 0.0 * bend], axis=1)
        # Beyond the bend the distance grows evenly with time, so that the last node is exact.
        distance = (self.travelled(t + 0.5 * window) - self.travelled(t - 0.5 * window)) / window
        shares = np.empty((len(t), len(u)))
        lo, hi, half = (np.broadcast_to(x, (len(t), 1))[:, 0] for x in (self.lo, self.hi, half))
        for i in range(len(t)):
            lower = u < 0.5 * (lo[i] + hi[i])
            share = np.interp(np.where(lower, u - lo[i], hi[i] - u), distance[i], t[i], left=0.0) / half[i]
            shares[i] = np.where(lower, share, 1.0 - share)
        return shares

    def occupancy(self, u: npt.ArrayLike) -> Array:
        """Share of the time spent below u, over whole periods (or any time, the phase being uniform)."""
        u = np.asarray(u, dtype=np.float64)
        half, turn = self.half_period, self.speed / self.acceleration
        bend = 0.5 * self.speed * turn

        def time_from_end(distance: Array) -> Array:
            return np.where(
                distance < bend,
                np.sqrt(2.0 * np.maximum(distance, 0.0) / self.acceleration),
                (distance + bend) / self.speed,
            )

        lower = u < 0.5 * (self.lo + self.hi)
        share = time_from_end(np.where(lower, u - self.lo, self.hi - u)) / half
        return np.clip(np.where(lower, share, 1.0 - share), 0.0, 1.0)


def turning_points(
    lo: Floats, hi: Floats, speed: Floats, acceleration: Floats, window: float = 0.0, inset: Floats | float = 0.0
) -> tuple[Array, Array]:
    """Turning points of the sweep that fills an interval of [-1, 1] evenly, also where it is averaged over a window.

    Rounding the corners of a triangle wave over [lo, hi] without changing its period takes speed^2 / (2 acceleration)
    off each end; it keeps the mass and, to first order in that length, the variance of the time spent. Where the
    box itself ends the interval there is no room to even that out in each sweep: its turning point lies `inset`
    times 3/2 speed^2 / acceleration before the end. 0 reaches the end, near which each sweep then spends too long; with
    the squares of numbers spread evenly over [0, 1], sweeps together spend about as much time there as they should (the
    time spent falls with the root of the distance from a turning point; this solves Abel's integral equation).
    Intervals too narrow for the full speed are widened to speed^2 / acceleration, and the speed times the window in s.
    """
    bend = 0.5 * speed**2 / acceleration
    low = np.where(lo <= -1.0, -1.0 + 3.0 * inset * bend, lo + bend)
    high = np.where(hi >= 1.0, 1.0 - 3.0 * inset * bend, hi - bend)
    least = (2.0 * bend + speed * window) * (1.0 + 1e-6) + 4e-6
    center, half = 0.5 * (low + high), 0.5 * np.maximum(high - low, least)
    center = np.clip(center, -1.0 + half, 1.0 - half)
    return np.asarray(center - half), np.asarray(center + half)


def shortest_time(
    p0: npt.ArrayLike,
    v0: npt.ArrayLike,
    p1: npt.ArrayLike,
    v1: npt.ArrayLike,
    speed: npt.ArrayLike,
    acceleration: npt.ArrayLike,
) -> Array:
    """Shortest time from state (p0, v0) to (p1, v1) under limits on speed and acceleration; |v0|, |v1| <= speed."""
    p0, v0, p1, v1, limit, a = np.broadcast_arrays(
        *(np.asarray(x, np.float64) for x in (p0, v0, p1, v1, speed, acceleration))
    )
    way = p1 - p0
    sign = np.where(way >= (v0 + v1) * np.abs(v1 - v0) / (2.0 * a), 1.0, -1.0)
    peak = np.sqrt(np.maximum(sign * way * a + 0.5 * (v0**2 + v1**2), 0.0))
    coast = np.maximum(sign * way - (2.0 * limit**2 - v0**2 - v1**2) / (2.0 * a), 0.0) / limit
    top = np.minimum(peak, limit)
    return np.asarray(np.maximum((2.0 * top - sign * (v0 + v1)) / a, 0.0) + np.where(peak > limit, coast, 0.0))


@dataclass(frozen=True)
class Connection:
    """Ramp to a cruising velocity, cruise, ramp to the final velocity; fields share one shape, times in s.

    `error` is the position that could not be bridged in the given time under the limits (zero if feasible).
    """

    p0: Array
    v0: Array
    v1: Array
    cruise: Array
    duration: Array
    acceleration: Array
    error: Array

    def pieces(self) -> tuple[Array, Array, Array, Array]:
        """Start time, position, velocity and acceleration of the three pieces, each (3, ...)."""
        ramp0 = np.abs(self.cruise - self.v0) / self.acceleration
        ramp1 = np.abs(self.v1 - self.cruise) / self.acceleration
        begin1 = np.maximum(self.duration - ramp1, ramp0)
        at0 = self.p0 + 0.5 * (self.v0 + self.cruise) * ramp0
        at1 = at0 + self.cruise * (begin1 - ramp0)
        up0 = np.sign(self.cruise - self.v0) * self.acceleration
        up1 = np.sign(self.v1 - self.cruise) * self.acceleration
        zero = np.zeros_like(self.cruise)
        return (
            np.stack([zero, ramp0, begin1]),
            np.stack([self.p0, at0, at1]),
            np.stack([self.v0, self.cruise, self.cruise]),
            np.stack([up0, zero, up1]),
        )


def connect(
    p0: npt.ArrayLike,
    v0: npt.ArrayLike,
    p1: npt.ArrayLike,
    v1: npt.ArrayLike,
    duration: npt.ArrayLike,
    speed: npt.ArrayLike,
    acceleration: npt.ArrayLike,
) -> Connection:
    """Connect state (p0, v0) to (p1, v1) in exactly `duration` seconds.

    The way covered grows with the cruising velocity, which is therefore found by bisection. The path turns only at
    the stopping points of its two ends, so that it leaves no interval that holds both of them.
    """
    p0, v0, p1, v1, time, limit, a = np.broadcast_arrays(
        *(np.asarray(x, np.float64) for x in (p0, v0, p1, v1, duration, speed, acceleration))
    )
    low = np.maximum(0.5 * (v0 + v1 - a * time), -limit)
    high = np.minimum(0.5 * (v0 + v1 + a * time), limit)
    feasible = a * time >= np.abs(v1 - v0) - 1e-6
    low, high = np.where(feasible, low, 0.5 * (v0 + v1)), np.where(feasible, high, 0.5 * (v0 + v1))

    def covered(cruise: Array) -> Array:
        ramp0, ramp1 = np.abs(cruise - v0) / a, np.abs(v1 - cruise) / a
        coast = np.maximum(time - ramp0 - ramp1, 0.0)
        return np.asarray(0.5 * (v0 + cruise) * ramp0 + 0.5 * (cruise + v1) * ramp1 + cruise * coast)

    for _ in range(60):
        middle = 0.5 * (low + high)
        short = covered(middle) < p1 - p0
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    cruise = 0.5 * (low + high)
    error = np.where(feasible, p1 - p0 - covered(cruise), np.inf)
    return Connection(p0, v0, v1, cruise, time, a, error)


class PiecewiseQuadratic:
    """One coordinate as pieces of constant acceleration; it rests before the first piece and follows the last on.

    Args:
        start: Start times of the pieces in s, ascending, (M,).
        position, velocity, acceleration: State at each start, (M,).
    """

    def __init__(self, start: Array, position: Array, velocity: Array, acceleration: Array) -> None:
        self.start, self.position, self.velocity, self.acceleration = start, position, velocity, acceleration
        dt = np.diff(start)
        area = (position[:-1] + (0.5 * velocity[:-1] + acceleration[:-1] * dt / 6.0) * dt) * dt
        self._before = np.concatenate([[0.0], np.cumsum(area)])

    def _at(self, t: Array) -> tuple[npt.NDArray[np.intp], Array]:
        index = np.maximum(np.searchsorted(self.start, t, side="right") - 1, 0)
        return index, np.maximum(t - self.start[index], 0.0)

    def positions(self, t: Array) -> Array:
        """Positions at times t in s, any shape."""
        index, dt = self._at(t)
        return np.asarray(self.position[index] + (self.velocity[index] + 0.5 * self.acceleration[index] * dt) * dt)

    def velocities(self, t: Array) -> Array:
        """Velocities at times t in s, any shape; zero before the first piece."""
        index, dt = self._at(t)
        return np.where(t < self.start[0], 0.0, self.velocity[index] + self.acceleration[index] * dt)

    def integrals(self, t: Array) -> Array:
        """Integrals of the position from the first piece's start to times t in s, any shape."""
        index, dt = self._at(t)
        v, a = self.velocity[index], self.acceleration[index]
        area = (self.position[index] + (0.5 * v + a * dt / 6.0) * dt) * dt
        resting = np.minimum(t - self.start[0], 0.0) * self.position[0]
        return np.asarray(self._before[index] + area + resting)


def stop(p0: npt.ArrayLike, v0: npt.ArrayLike, acceleration: npt.ArrayLike) -> tuple[Array, Array]:
    """Time and position of rest when braking from (p0, v0) at the acceleration limit."""
    p0, v0, a = (np.asarray(x, np.float64) for x in (p0, v0, acceleration))
    return np.abs(v0) / a, p0 + 0.5 * v0 * np.abs(v0) / a

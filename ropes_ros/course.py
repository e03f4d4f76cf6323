"""The course of a robot: paths that follow one another, averaged over a window of time so that jerk is limited.

A path may change its acceleration in steps; the mean of it over a window centred on each moment is what is commanded
(see `ropes_ros.kinematics`). So a course has to be decided half a window ahead of what is commanded.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ropes_ros.kinematics import Array, PiecewiseQuadratic, stop
from ropes_ros.units import NANOSECONDS

Times = npt.NDArray[np.int64]


class Path(Protocol):
    """Positions of all joints over time."""

    def path_at(self, t_ns: Times) -> tuple[Array, Array]:
        """Positions and velocities, float64 [N, J] in rad and rad/s, at times int64 [N] in ns."""
        ...

    def path_integrals(self, t_ns: Times) -> Array:
        """Integrals of the positions, float64 [N, J] in rad s, up to times int64 [N] in ns."""
        ...


class Rest:
    """A path that stays at a position [J] in rad."""

    def __init__(self, position: Array) -> None:
        self._position = position

    def path_at(self, t_ns: Times) -> tuple[Array, Array]:
        """See Path."""
        positions = np.tile(self._position, (len(t_ns), 1))
        return positions, np.zeros_like(positions)

    def path_integrals(self, t_ns: Times) -> Array:
        """See Path."""
        return np.asarray(self._position * (t_ns / NANOSECONDS)[:, None])


class Way:
    """A path of pieces of constant acceleration, from time 0 on.

    Args:
        pieces: Start times in s, positions, velocities and accelerations of the pieces, each [M, J].
    """

    def __init__(self, pieces: tuple[Array, ...]) -> None:
        self._joints = [PiecewiseQuadratic(*(part[:, j] for part in pieces)) for j in range(pieces[0].shape[1])]

    def path_at(self, t_ns: Times) -> tuple[Array, Array]:
        """See Path."""
        t = t_ns / NANOSECONDS
        return (
            np.stack([joint.positions(t) for joint in self._joints], axis=-1),
            np.stack([joint.velocities(t) for joint in self._joints], axis=-1),
        )

    def path_integrals(self, t_ns: Times) -> Array:
        """See Path."""
        return np.stack([joint.integrals(t_ns / NANOSECONDS) for joint in self._joints], axis=-1)


@dataclass(frozen=True)
class Span:
    """A path that is followed from `start_ns` on, its own time 0 being at `origin_ns`."""

    start_ns: int
    origin_ns: int
    path: Path


class Course:
    """Paths that follow one another, and their mean over a window of an even number of ns (none when 0).

    The first one also holds before its start, the last one without end.
    """

    def __init__(self, spans: list[Span], window_ns: int) -> None:
        self._spans, self._window_ns = spans, window_ns

    @property
    def rests_from(self) -> int:
        """When the last path begins; for courses that end in rest."""
        return self._spans[-1].start_ns

    def path_at(self, t_ns: Times) -> tuple[Array, Array]:
        """Positions and velocities of the paths, float64 [N, J] in rad and rad/s, at times int64 [N] in ns."""
        starts = np.array([span.start_ns for span in self._spans])
        number = np.maximum(np.searchsorted(starts, t_ns, side="right") - 1, 0)
        positions = velocities = np.empty(0)
        for k in np.unique(number):
            span, inside = self._spans[k], number == k
            p, v = span.path.path_at(t_ns[inside] - span.origin_ns)
            if not positions.size:
                positions, velocities = np.empty((2, len(t_ns), p.shape[1]))
            positions[inside], velocities[inside] = p, v
        return positions, velocities

    def states_at(self, t_ns: Times) -> tuple[Array, Array]:
        """Commanded positions and velocities, float64 [N, J] in rad and rad/s, at times int64 [N] in ns."""
        if not self._window_ns:
            return self.path_at(t_ns)
        ends = np.concatenate([t_ns - self._window_ns // 2, t_ns + self._window_ns // 2])
        near = self.since(int(ends.min()))._until(int(ends.max()))
        count, seconds = len(t_ns), self._window_ns / NANOSECONDS
        area, position = near._integrals(ends), near.path_at(ends)[0]
        return (area[count:] - area[:count]) / seconds, (position[count:] - position[:count]) / seconds

    def _until(self, t_ns: int) -> Course:
        """This course without the paths that begin after a time."""
        count = bisect_right([span.start_ns for span in self._spans], t_ns)
        return Course(self._spans[: max(count, 1)], self._window_ns)

    def _integrals(self, t_ns: Times) -> Array:
        """Integrals [N, J] in rad s from a time that is the same for all of them."""
        total = np.zeros(())
        ends = [span.start_ns for span in self._spans[1:]] + [None]
        for k, (span, end_ns) in enumerate(zip(self._spans, ends, strict=True)):
            inside = np.clip(t_ns, span.start_ns if k else None, end_ns) if k or end_ns is not None else t_ns
            own = span.path.path_integrals(inside - span.origin_ns)
            if k:
                own = own - span.path.path_integrals(np.array([span.start_ns - span.origin_ns]))
            total = total + own
        return np.asarray(total)

    def then(self, *spans: Span) -> Course:
        """This course until the first of some spans, and then these."""
        count = bisect_right([span.start_ns for span in self._spans], spans[0].start_ns - 1)
        return Course([*self._spans[:count], *spans], self._window_ns)

    def braked(self, from_ns: int, acceleration: Array) -> Course:
        """This course until a time, and then a stop of all joints at an acceleration [J] in rad/s^2."""
        (p0,), (v0,) = self.path_at(np.array([from_ns]))
        braking, rest = stop(p0, v0, acceleration)
        zero = np.zeros_like(p0)
        pieces = ((zero, braking), (p0, rest), (v0, zero), (-np.sign(v0) * acceleration, zero))
        rests_ns = from_ns + int(np.ceil(braking.max() * NANOSECONDS)) + 1
        ramp = Span(from_ns, from_ns, Way(tuple(np.stack(pair) for pair in pieces)))
        return self.then(ramp, Span(rests_ns, rests_ns, Rest(rest)))

    def since(self, t_ns: int) -> Course:
        """This course without the paths that have ended by a time."""
        count = bisect_right([span.start_ns for span in self._spans], t_ns) - 1
        return Course(self._spans[max(count, 0) :], self._window_ns)

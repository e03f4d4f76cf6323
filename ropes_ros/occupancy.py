"""Where joints spend their labelled time: as designed, as a schedule's law has it, and in the segments really drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ropes_ros.kinematics import Array
from ropes_ros.units import NANOSECONDS

if TYPE_CHECKING:
    from ropes_ros.schedule import Schedule

BINS = 32
"""Equal parts of [-1, 1] that time is counted in: each is 1/16 of a half range."""
EDGES = np.linspace(-1.0, 1.0, BINS + 1)


def designed(schedule: Schedule) -> Array:
    """Shares of time [K, BINS] that the levels' densities ask for."""
    return np.stack([np.diff(density.cdf(EDGES)) for density in schedule.levels.densities])


def lawful(schedule: Schedule) -> Array:
    """Shares of time [J, K, BINS] in sweeps as they are drawn, under the speed, acceleration and jerk limits."""
    grid, density = schedule.grid, schedule.commanded
    cells = np.concatenate([[-1.0], 0.5 * (grid[1:] + grid[:-1]), [1.0]])
    mass = np.cumsum(density * np.diff(cells), axis=2)
    below = np.concatenate([np.zeros((*mass.shape[:2], 1)), mass], axis=2)
    shares = [[np.diff(np.interp(EDGES, cells, row)) for row in joint] for joint in below]
    return np.asarray(shares)


def counted(u: Array, labels: npt.NDArray[np.int16], levels: int) -> Array:
    """Shares of time [J, K, BINS] of positions u [N, J] with labels [N, J]; what is beyond the ends counts there."""
    shares = np.zeros((u.shape[1], levels, BINS))
    for j in range(u.shape[1]):
        for k in range(levels):
            held = np.clip(u[labels[:, j] == k, j], -1.0, 1.0)
            shares[j, k] = np.histogram(held, EDGES)[0] / max(len(held), 1)
    return shares


def total_variation(one: Array, other: Array) -> Array:
    """Total variation distances over the last axis: the share of time spent elsewhere."""
    return np.asarray(0.5 * np.abs(one - other).sum(axis=-1))


def expectation(schedule: Schedule) -> str:
    """How long a schedule takes, and how far what it commands is from its design, in one line."""
    distances = total_variation(lawful(schedule), designed(schedule))
    j, k = np.unravel_index(int(np.argmax(distances)), distances.shape)
    seconds = schedule.duration_ns / NANOSECONDS
    return (
        f"the schedule takes {seconds:.0f} s ({seconds / 60.0:.1f} min); under the limits of speed, acceleration and"
        f" jerk the time spent is up to {distances[j, k]:.3f} (total variation, bins of {2.0 / BINS:g} half ranges)"
        f" from the design: joint {schedule.joint_names[j]}, level {schedule.levels.ids[k]}"
    )

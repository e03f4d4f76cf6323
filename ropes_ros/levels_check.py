"""Whether a joint's levels tell its angle: from their densities on a grid alone, before anything is trained.

`densities.Levels` refuses unusable families of densities when a schedule is made. What was really commanded, and which
of the levels a recording visits, is known only afterwards; this module looks at that.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEAST_OVERLAP = 0.05
"""Share of two densities' mass, floors set aside, that must lie under both: two equal bumps 3.9 widths apart."""
APART = 0.1
"""Angles closer than this, in half ranges, need not be told apart by the check."""
RESOLUTION = 0.01
"""Least distance on the sphere of posteriors that some ten thousand frames tell: half a nat of evidence."""


def not_overlapping(log_density: NDArray[np.float64], grid: NDArray[np.float64]) -> tuple[int, int] | None:
    """Two neighbouring levels between which nothing leads from one group of overlapping levels to another.

    Levels are joined where their densities overlap; the log density ratio, and so the angle, is measured only across
    such overlaps. The uniform floor of every density is set aside first, because it overlaps with everything and tells
    nothing; a flat density overlaps with all.

    Args:
        log_density: log p_k(u) of the visited levels, float64 [K, G].
        grid: u on [-1, 1], float64 [G].

    Returns:
        Indices of the two closest levels of different groups, or None where all hang together.
    """
    density = np.exp(log_density)
    core = density - density.min(axis=1, keepdims=True)
    mass = core.mean(axis=1) * (grid[-1] - grid[0])
    flat = mass < 0.02
    core = core / np.maximum(mass, 1e-12)[:, None]
    overlap = np.minimum(core[:, None], core[None]).mean(axis=2) * (grid[-1] - grid[0])
    joined = (overlap >= LEAST_OVERLAP) | flat[:, None] | flat[None]
    reached = joined[0].copy()
    while (grown := joined[reached].any(axis=0) | reached).sum() > reached.sum():
        reached = grown
    if reached.all():
        return None
    centre = (core * grid).mean(axis=1) * (grid[-1] - grid[0])
    inside, outside = np.flatnonzero(reached), np.flatnonzero(~reached)
    distance = np.abs(centre[inside, None] - centre[None, outside])
    first, second = np.unravel_index(int(distance.argmin()), distance.shape)
    return int(inside[first]), int(outside[second])


def confusable(
    log_density: NDArray[np.float64], shares: NDArray[np.float64], grid: NDArray[np.float64]
) -> tuple[float, float] | None:
    """Two angles that give (nearly) the same posterior over the levels, so that no frame can tell them apart.

    The square root of the posterior moves on a sphere, at half the square root of the Fisher information per unit of u.
    Two angles are taken for one when their images there are closer than that speed lets neighbouring grid points be,
    or than `RESOLUTION`.

    Args:
        log_density: log p_k(u) of the visited levels, float64 [K, G].
        shares: Share of frames at each of them, float64 [K].
        grid: u on [-1, 1], evenly spaced, float64 [G].

    Returns:
        The worst pair of angles at least `APART` apart, or None where the posterior is injective.
    """
    weighted = np.exp(log_density - log_density.max(axis=0)) * shares[:, None]
    curve = 2.0 * np.sqrt(weighted / weighted.sum(axis=0)).T
    speed = np.linalg.norm(np.gradient(curve, grid, axis=0), axis=1)
    square = (curve**2).sum(axis=1)
    distance = np.sqrt(np.maximum(square[:, None] + square[None] - 2.0 * curve @ curve.T, 0.0))
    resolution = np.maximum((speed[:, None] + speed[None]) * (grid[1] - grid[0]), RESOLUTION)
    bad = (np.abs(grid[:, None] - grid[None]) >= APART) & (distance < resolution)
    if not bad.any():
        return None
    excess = np.where(bad, distance / resolution, np.inf)
    first, second = np.unravel_index(int(excess.argmin()), excess.shape)
    return float(grid[first]), float(grid[second])

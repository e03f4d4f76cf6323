"""Whether the time of a recording, or something that changes with it, tells the level: segments held in blocks.

Levels must be spread over a recording at random. Where each is held in a stretch of time of its own, whatever drifts
(light, temperature of the camera, a shadow that wanders) tells the level as well as the angle does.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BLOCKS = 10
"""Parts of equal numbers of segments that something is divided into."""
DRAWS = 200
TOLD = 0.25
"""Share of what there is to tell of the level that must be told, beyond chance, before it is said."""
LEAST_SEGMENTS = 3
"""Segments a level, in the mean, below which nothing can be said."""


class Told(NamedTuple):
    """How well something tells the levels of a joint's segments.

    Attributes:
        share: Mutual information beyond that of shuffled segments, as a share of what there is to tell; 0 for chance,
            1 where the level is known.
        flagged: Whether it exceeds `TOLD` and what any of `DRAWS` shuffles has.
        segments: Number of segments that were looked at.
    """

    share: float
    flagged: bool
    segments: int


def told_by(values: NDArray[np.float64], labels: NDArray[np.int16], segments: NDArray[np.int32]) -> Told:
    """How well a number of each frame (its time, its brightness) tells a joint's level.

    A segment counts once, by the mean of its frames. Mutual information with chance taken off is that of N. Vinh, J.
    Epps, J. Bailey, JMLR 11, 2010, sec. 3.2, with the expectation from shuffles.

    Args:
        values: One number a frame, float64 [N].
        labels: Level of each frame, int16 [N], -1 for none.
        segments: Id of the segment of each frame, int32 [N].

    Returns:
        Share 0 and no flag where there are too few segments to tell.
    """
    inside = (labels >= 0) & np.isfinite(values)
    ids, inverse = np.unique(segments[inside], return_inverse=True)
    if not len(ids):
        return Told(0.0, False, 0)
    counts = np.bincount(inverse)
    means = np.bincount(inverse, weights=values[inside]) / counts
    level = np.zeros(len(ids), dtype=np.int64)
    level[inverse] = labels[inside]
    levels = np.unique(level, return_inverse=True)[1]
    kinds = int(levels.max()) + 1
    if kinds < 2 or len(ids) < LEAST_SEGMENTS * kinds:
        return Told(0.0, False, len(ids))
    ranks = np.argsort(np.argsort(means, kind="stable"), kind="stable")
    block = ranks * min(BLOCKS, len(ids) // 2) // len(ids)
    rng = np.random.default_rng(0)
    found = _information(block, levels)
    chance = np.array([_information(block, rng.permutation(levels)) for _ in range(DRAWS)])
    share = np.bincount(levels) / len(levels)
    whole = float(-(share * np.log(share)).sum())
    beyond = (found - chance.mean()) / max(whole - chance.mean(), 1e-9)
    return Told(max(0.0, float(beyond)), bool(beyond > TOLD and found > chance.max()), len(ids))


def _information(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """Mutual information of two classifications in nats."""
    table = np.zeros((int(first.max()) + 1, int(second.max()) + 1))
    np.add.at(table, (first, second), 1.0 / len(first))
    product = table.sum(axis=1, keepdims=True) * table.sum(axis=0, keepdims=True)
    there = table > 0
    return float((table[there] * np.log(table[there] / product[there])).sum())

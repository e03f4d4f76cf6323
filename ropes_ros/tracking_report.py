"""How far the positions that a robot reached differ, as distributions, from those that it was commanded.

For evaluation only: it reads measured joint angles, which nothing that learns may see. The regime likelihood takes the
commanded densities for those of the angles in the images; where the robot did something else, it learns wrong angles.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ropes_ros.regimes import Schedule

GROSS = 0.1
"""Mean distance between commanded and reached distributions, in half ranges, that is told: two thirds of the width of
the default levels."""
FINITE = 0.4
"""A distance is told above this over the root of the segments a level: sweeps in few segments do not fill a density.
Those of a robot that follows differ from it by 0.1 to 0.2 over that root, in one case of a hundred by 0.3."""


class TrackingReport(NamedTuple):
    """Distance between commanded and reached distributions.

    Attributes:
        distance: Wasserstein-1 distance per joint and level, half ranges, float64 [J, K]; not a number for levels that
            no frame with a measured position is at. It is the mean way by which positions would have to be moved.
        mean: Mean distance per joint, over the levels' frames, half ranges, float64 [J]; not a number without any.
        shift: Mean reached minus mean commanded position per joint, over the levels' frames, half ranges, float64 [J].
        sentences: One for each joint whose distributions disagree grossly.
    """

    distance: NDArray[np.float64]
    mean: NDArray[np.float64]
    shift: NDArray[np.float64]
    sentences: tuple[str, ...]


def tracking_report(
    schedule: Schedule, labels: NDArray[np.int16], truth: NDArray[np.float64]
) -> TrackingReport:
    """Compare the commanded densities with the positions measured at the frames of each level.

    Args:
        schedule: Levels, densities, home and half ranges.
        labels: Level of each joint at the frames, in order of time, int16 [N, J], -1 for none, as recorded.
        truth: Measured positions at the same frames, float64 [N, J], rad, not a number where there are none; from
            `ropes_ros.truth.load_truth`.
    """
    half_range = np.array([joint.half_range for joint in schedule.joints])
    reached = (truth - np.array([joint.home for joint in schedule.joints])) / half_range
    log_density, level_ids = schedule.log_commanded, schedule.levels.ids
    joints, levels = len(schedule.joint_names), len(level_ids)
    distance, mean, shift = np.full((joints, levels), np.nan), np.full(joints, np.nan), np.full(joints, np.nan)
    sentences = []
    for joint, name in enumerate(schedule.joint_names):
        counts, moved = np.zeros(levels), np.zeros(levels)
        for level in range(levels):
            there = (labels[:, joint] == level) & np.isfinite(reached[:, joint])
            found = np.sort(reached[there, joint])
            if not len(found):
                continue
            wanted = _quantiles(schedule.grid, log_density[joint, level], len(found))
            distance[joint, level] = np.abs(found - wanted).mean()
            counts[level], moved[level] = len(found), (found - wanted).mean()
        if not counts.any():
            continue
        shift[joint] = moved @ counts / counts.sum()
        mean[joint] = np.nan_to_num(distance[joint]) @ counts / counts.sum()
        segments = np.count_nonzero((np.diff(labels[:, joint]) != 0) & (labels[1:, joint] >= 0)) or 1
        if mean[joint] > max(GROSS, FINITE / np.sqrt(segments / np.count_nonzero(counts))):
            worst = int(np.nanargmax(distance[joint]))
            sentences.append(
                f"joint '{name}': the positions reached differ from those commanded by {mean[joint]:.2f} half ranges "
                "in the mean, most at level "
                f"{level_ids[worst]}: it lagged, sagged, or did not execute its commands, and a model that was "
                "trained on the commanded densities is wrong by as much; slow the schedule down or mend the controller"
            )
    return TrackingReport(distance, mean, shift, tuple(sentences))


def _quantiles(grid: NDArray[np.float64], log_density: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Quantiles of a density on a grid at the shares 1 / (2 n), 3 / (2 n), ..., float64 [n]."""
    density = np.exp(log_density)
    share = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return np.interp((np.arange(count) + 0.5) / count, share / share[-1], grid)

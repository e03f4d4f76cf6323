"""How far the positions that a robot reached differ, as distributions, from those that it was commanded.

For evaluation only: it reads measured joint angles, which nothing that learns may see. The regime likelihood takes the
commanded densities for those of the angles in the images; where the robot did something else, it learns wrong angles.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ropes_ros.dataset import FrameSet
from ropes_ros.robot import Robot

GROSS = 0.1
"""Mean distance between commanded and reached distributions, in half ranges, that is told: two thirds of the width of
the default levels, and some five times what finite sweeps differ by."""


class TrackingReport(NamedTuple):
    """Distance between commanded and reached distributions.

    Attributes:
        distance: Wasserstein-1 distance per joint and level, half ranges, float64 [J, K]; not a number for levels that
            no frame with a measured position is at. It is the mean way by which positions would have to be moved.
        shift: Mean reached minus mean commanded position per joint, over the levels' frames, half ranges, float64 [J].
        sentences: One for each joint whose distributions disagree grossly.
    """

    distance: NDArray[np.float64]
    shift: NDArray[np.float64]
    sentences: tuple[str, ...]


def tracking_report(frames: FrameSet, robot: Robot, truth: NDArray[np.float64]) -> TrackingReport:
    """Compare the commanded densities with the positions measured at the frames of each level.

    Args:
        frames: Levels and densities.
        robot: Gives home and half ranges.
        truth: Measured positions at the frames' stamps, float64 [N, J], rad, not a number where there are none; from
            `ropes_ros.truth.load_truth`.
    """
    reached = robot.normalise(truth)
    joints, levels = len(frames.joint_names), len(frames.level_ids)
    distance, shift = np.full((joints, levels), np.nan), np.full(joints, np.nan)
    sentences = []
    for joint, name in enumerate(frames.joint_names):
        counts, moved = np.zeros(levels), np.zeros(levels)
        for level in range(levels):
            there = (frames.labels[:, joint] == level) & np.isfinite(reached[:, joint])
            found = np.sort(reached[there, joint])
            if not len(found):
                continue
            wanted = _quantiles(frames.grid, frames.log_density[joint, level], len(found))
            distance[joint, level] = np.abs(found - wanted).mean()
            counts[level], moved[level] = len(found), (found - wanted).mean()
        if not counts.any():
            continue
        shift[joint] = moved @ counts / counts.sum()
        mean = float(np.nan_to_num(distance[joint]) @ counts / counts.sum())
        if mean > GROSS:
            worst = int(np.nanargmax(distance[joint]))
            sentences.append(
                f"joint '{name}': the positions reached differ from those commanded by {mean:.2f} half ranges "
                f"({np.degrees(mean * robot.half_range[joint]):.1f} deg) in the mean, most at level "
                f"{frames.level_ids[worst]}: it lagged, sagged, or did not execute its commands, and a model that was "
                "trained on the commanded densities is wrong by as much; slow the schedule down or mend the controller"
            )
    return TrackingReport(distance, shift, tuple(sentences))


def _quantiles(grid: NDArray[np.float64], log_density: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Quantiles of a density on a grid at the shares 1 / (2 n), 3 / (2 n), ..., float64 [n]."""
    density = np.exp(log_density)
    share = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return np.interp((np.arange(count) + 0.5) / count, share / share[-1], grid)

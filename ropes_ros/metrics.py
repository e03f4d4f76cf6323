"""How good an estimate is: correlation, explained variance, joint error, tip error, coverage. For evaluation only."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ropes_ros.robot import Robot


class JointMetrics(NamedTuple):
    """Errors of N estimates of J joints.

    Attributes:
        mcc: Mean over joints of Pearson's |correlation| between estimate and truth, each joint compared with itself
            (the permutation is known from the commands, so none is searched for).
        r2: Mean over joints of the explained variance 1 - SSE/SST of the estimate as it is, without a fit.
        correlation: |correlation| per joint, float64 [J].
        mae_deg: Mean absolute error per joint in degrees, float64 [J].
        mean_mae_deg: Its mean over joints.
        tip_error_mm_median: Median distance between the tips of estimate and truth by forward kinematics, mm.
        tip_error_mm: All of those distances, float64 [N].
    """

    mcc: float
    r2: float
    correlation: NDArray[np.float64]
    mae_deg: NDArray[np.float64]
    mean_mae_deg: float
    tip_error_mm_median: float
    tip_error_mm: NDArray[np.float64]


def joint_metrics(robot: Robot, estimate: NDArray[np.floating], truth: NDArray[np.floating]) -> JointMetrics:
    """Compare estimated with true joint angles.

    Args:
        robot: For forward kinematics of the tip.
        estimate: float [N, J], rad.
        truth: float [N, J], rad.

    Raises:
        ValueError: Shapes differ, or fewer than two rows.
    """
    if estimate.shape != truth.shape or len(truth) < 2:
        raise ValueError(f"need two arrays of one shape [N >= 2, J], got {estimate.shape} and {truth.shape}")
    guess, real = np.asarray(estimate, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    centred_guess, centred_real = guess - guess.mean(axis=0), real - real.mean(axis=0)
    scale = np.sqrt((centred_guess**2).sum(axis=0) * (centred_real**2).sum(axis=0))
    correlation = np.abs((centred_guess * centred_real).sum(axis=0)) / np.maximum(scale, 1e-300)
    r2 = 1.0 - ((guess - real) ** 2).sum(axis=0) / np.maximum((centred_real**2).sum(axis=0), 1e-300)
    mae = np.degrees(np.abs(guess - real).mean(axis=0))
    tip = 1000.0 * np.linalg.norm(robot.fk(guess)[0] - robot.fk(real)[0], axis=-1)
    return JointMetrics(
        float(correlation.mean()), float(r2.mean()), correlation, mae, float(mae.mean()), float(np.median(tip)), tip
    )


def coverage(
    estimate: NDArray[np.floating], std: NDArray[np.floating], truth: NDArray[np.floating], sigmas: float
) -> NDArray[np.float64]:
    """Share of frames whose truth lies within so many standard deviations of the estimate, float64 [J]."""
    inside: NDArray[np.float64] = (np.abs(estimate - truth) <= sigmas * std).mean(axis=0)
    return inside

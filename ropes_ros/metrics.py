"""How good an estimate of joint angles is: correlation, explained variance, joint, tip and keypoint errors, coverage.

For evaluation only. What asks of latents whether they are the angles at all is in `disentanglement`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ropes_ros.robot import Robot

STILL_SHARE = 1e-3
"""A joint whose standard deviation is a smaller share of its half range stands still."""
_ROUNDING = 1e-12
"""Numbers that differ by a smaller share of the largest are equal."""
_STILL = 1e-9
"""A link whose origin moves by less than this (m/rad, per joint) stands still."""


class JointMetrics(NamedTuple):
    """Errors of N estimates of J joints.

    A joint that stands still (standard deviation below `STILL_SHARE` of its half range) has nothing to explain: its
    correlation is not a number, and `mcc` and `r2` are means over the joints that move, not a number without any.

    Attributes:
        mcc: Mean over joints of Pearson's |correlation| between estimate and truth, each joint compared with itself
            (the permutation is known from the commands, so none is searched for).
        r2: Mean over joints of the explained variance 1 - SSE/SST of the estimate as it is, without a fit.
        correlation: |correlation| per joint, float64 [J].
        mae: Mean absolute error per joint, float64 [J], rad (m of a prismatic joint).
        mae_deg: The same in degrees; not a number for prismatic joints.
        mean_mae_deg: Its mean over joints that turn; not a number without any.
        tip_error_mm_median: Median distance between the tips of estimate and truth by forward kinematics, mm.
        tip_error_mm: All of those distances, float64 [N].
    """

    mcc: float
    r2: float
    correlation: NDArray[np.float64]
    mae: NDArray[np.float64]
    mae_deg: NDArray[np.float64]
    mean_mae_deg: float
    tip_error_mm_median: float
    tip_error_mm: NDArray[np.float64]


class TipRotation(NamedTuple):
    """How far the tip's orientation is off.

    Attributes:
        mean_deg: Mean angle, degrees.
        median_deg: Median angle, degrees.
        error_deg: All angles, degrees, float64 [N].
    """

    mean_deg: float
    median_deg: float
    error_deg: NDArray[np.float64]


def joint_metrics(robot: Robot, estimate: NDArray[np.floating], truth: NDArray[np.floating]) -> JointMetrics:
    """Compare estimated with true joint angles.

    Args:
        robot: For forward kinematics of the tip.
        estimate: float [N, J], rad.
        truth: float [N, J], rad.

    Raises:
        ValueError: Shapes differ, or fewer than two rows.
    """
    guess, real = _pair(estimate, truth)
    centred_guess, centred_real = guess - guess.mean(axis=0), real - real.mean(axis=0)
    scale = np.sqrt((centred_guess**2).sum(axis=0) * (centred_real**2).sum(axis=0))
    correlation = np.abs((centred_guess * centred_real).sum(axis=0)) / np.maximum(scale, 1e-300)
    moving = real.std(axis=0) > STILL_SHARE * robot.half_range
    correlation[~moving] = np.nan
    explained = r2(guess[:, moving], real[:, moving])
    mae = np.abs(guess - real).mean(axis=0)
    turning = np.array([not joint.prismatic for joint in robot.joints])
    mae_deg = np.where(turning, np.degrees(mae), np.nan)
    tip = 1000.0 * np.linalg.norm(robot.fk(guess)[0] - robot.fk(real)[0], axis=-1)
    return JointMetrics(
        float(correlation[moving].mean()) if moving.any() else math.nan,
        float(explained.mean()) if moving.any() else math.nan,
        correlation,
        mae,
        mae_deg,
        float(mae_deg[turning].mean()) if turning.any() else math.nan,
        float(np.median(tip)),
        tip,
    )


def mean_error_text(robot: Robot, mae: NDArray[np.float64]) -> str:
    """The mean of errors [J] in rad (m) over the joints that turn, in degrees, and over those that slide, in mm."""
    figures = robot.in_figures(mae)
    units = dict.fromkeys(unit for _, unit in figures)
    means = ((np.mean([value for value, own in figures if own == unit]), unit) for unit in units)
    return ", ".join(f"{mean:.2f} {unit}" for mean, unit in means)


def r2(estimate: NDArray[np.floating], truth: NDArray[np.floating]) -> NDArray[np.float64]:
    """Explained variance 1 - SSE/SST of an estimate as it is, without a fit (Wright, J. Agric. Res. 20, 1921).

    Args:
        estimate: float [N, J], any unit.
        truth: float [N, J], the same unit.

    Returns:
        float64 [J]: 1 for an exact estimate, 0 for one as good as the mean of the truth, negative for a worse one; not
        a number where the truth is one number up to rounding.

    Raises:
        ValueError: Shapes differ, or fewer than two rows.
    """
    guess, real = _pair(estimate, truth)
    spread = ((real - real.mean(axis=0)) ** 2).sum(axis=0)
    still = np.ptp(real, axis=0) <= _ROUNDING * np.abs(real).max(axis=0)
    explained: NDArray[np.float64] = 1.0 - ((guess - real) ** 2).sum(axis=0) / np.where(still, np.nan, spread)
    return explained


def tip_rotation_error_deg(robot: Robot, estimate: NDArray[np.floating], truth: NDArray[np.floating]) -> TipRotation:
    """Angle of the rotation between the tip's estimated and true orientation, by forward kinematics.

    It is the geodesic distance on SO(3) (Huynh, J. Math. Imaging Vis. 35, 2009), computed from the
    chord between the unit quaternions, which stays exact for small angles.

    Args:
        robot: For forward kinematics of the tip.
        estimate: float [N, J], rad.
        truth: float [N, J], rad.

    Raises:
        ValueError: Shapes differ, or fewer than two rows.
    """
    guess, real = _pair(estimate, truth)
    first, second = robot.fk(guess)[1], robot.fk(real)[1]
    # q and -q are one orientation, and the chord between unit quaternions is 2 sin(angle / 4).
    chord = np.minimum(np.linalg.norm(first - second, axis=-1), np.linalg.norm(first + second, axis=-1))
    angle = np.degrees(4.0 * np.arcsin(np.minimum(chord / 2.0, 1.0)))
    return TipRotation(float(angle.mean()), float(np.median(angle)), angle)


def keypoint_links(robot: Robot) -> tuple[str, ...]:
    """The links whose origins the joints move, in the URDF's order: an arm's keypoints.

    The base and links whose origin lies on the first axis stand still; their distance is 0 whatever is estimated.
    """
    rng = np.random.default_rng(0)
    poses = robot.denormalise(np.vstack([np.zeros(len(robot.joints)), rng.uniform(-1, 1, (3, len(robot.joints)))]))
    return tuple(
        link for link in robot.links if any(np.abs(robot.jacobian(pose, link)[:3]).max() > _STILL for pose in poses)
    )


def keypoint_distances(
    robot: Robot, estimate: NDArray[np.floating], truth: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Distances between the estimated and the true places of an arm's keypoints, by forward kinematics.

    Args:
        robot: Its keypoints are the origins of the links that move, `keypoint_links`.
        estimate: float [N, J], rad.
        truth: float [N, J], rad.

    Returns:
        float64 [N, L], m, a column per keypoint.

    Raises:
        ValueError: Shapes differ, or fewer than two rows.
    """
    guess, real = _pair(estimate, truth)
    columns = [robot.fk(guess, link)[0] - robot.fk(real, link)[0] for link in keypoint_links(robot)]
    distances: NDArray[np.float64] = np.linalg.norm(np.stack(columns, axis=1), axis=-1)
    return distances


def add_auc(errors_m: ArrayLike, threshold: float = 0.10) -> float:
    """Area under the accuracy-threshold curve of ADD, from 0 to `threshold`, as a share of its greatest value.

    ADD of a frame is the mean distance between estimated and true points of the object; for an arm the points
    are its keypoints: `keypoint_distances(...).mean(axis=1)`. Accuracy at a threshold is the share of frames whose
    ADD lies below it. The curve up to 10 cm: Xiang et al., PoseCNN, RSS 2018 (arXiv 1711.00199), sec. V; for
    keypoints of robots: Lee et al., DREAM, ICRA 2020 (arXiv 1911.09231). The area under the steps is exact:
    a frame of error e adds max(0, 1 - e / threshold).

    Args:
        errors_m: ADD of each frame, float [N], m; an infinite one counts as missed.
        threshold: Where the curve ends, m.

    Returns:
        0 (no frame below the threshold) to 1 (no error).

    Raises:
        ValueError: No frames, a negative error or not a number, or a threshold that is not positive.
    """
    errors = np.asarray(errors_m, dtype=np.float64)
    if errors.ndim != 1 or not len(errors) or not (errors >= 0).all() or not threshold > 0:
        raise ValueError(
            f"need errors [N >= 1], none negative, and a threshold above 0, got {errors.shape}, {threshold}"
        )
    return float(np.maximum(0.0, 1.0 - errors / threshold).mean())


def coverage(
    estimate: NDArray[np.floating], std: NDArray[np.floating], truth: NDArray[np.floating], sigmas: float
) -> NDArray[np.float64]:
    """Share of frames whose truth lies within so many standard deviations of the estimate, float64 [J].

    The empirical coverage of a central interval (Gneiting et al., J. R. Stat. Soc. B 69, 2007).
    """
    inside: NDArray[np.float64] = (np.abs(estimate - truth) <= sigmas * std).mean(axis=0)
    return inside


def auroc(inside_scores: ArrayLike, outside_scores: ArrayLike) -> float:
    """Area under the ROC curve of a score that should be higher outside than inside: of novelty, for example.

    The probability that a frame from outside scores higher than one from inside, ties counting one half, which is
    the Mann-Whitney statistic (Hanley & McNeil, Radiology 143, 1982).

    Args:
        inside_scores: Scores of familiar frames, float [N].
        outside_scores: Scores of unfamiliar frames, float [M].

    Returns:
        0.5 for chance, 1 where every unfamiliar frame scores above every familiar one.

    Raises:
        ValueError: A side is empty or holds what is not a number.
    """
    inside, outside = (np.asarray(side, dtype=np.float64).ravel() for side in (inside_scores, outside_scores))
    if not len(inside) or not len(outside) or np.isnan(inside).any() or np.isnan(outside).any():
        raise ValueError(f"need numbers on both sides, got {len(inside)} inside and {len(outside)} outside")
    order = np.sort(inside)
    below, up_to = (np.searchsorted(order, outside, side=side) for side in ("left", "right"))
    return float((below + up_to).mean() / (2.0 * len(inside)))


def _pair(
    estimate: NDArray[np.floating], truth: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both as float64 [N, J]; refused unless of one such shape with two rows at least."""
    guess, real = np.asarray(estimate, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if guess.shape != real.shape or guess.ndim != 2 or len(real) < 2:
        raise ValueError(f"need two arrays of one shape [N >= 2, J], got {guess.shape} and {real.shape}")
    return guess, real

"""The tests that trained methods are put to: fresh poses, disturbed surroundings, a moved camera, strange pictures.

A test is named by how poses are drawn, and after a slash what is done to the surroundings: "uniform",
"observational", "extrapolation", "uniform/drift", "uniform/moved camera". "novelty" is about pictures that a model
should call strange. All cells see the same poses.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ropes_ros.bench.methods import Method, Reading, Trained
from ropes_ros.bench.recordings import bench_robot, shrunk
from ropes_ros.disentanglement import correlation_matrix, dci, infomec, match, mcc, r2_matrix
from ropes_ros.evaluation import novelty_auroc
from ropes_ros.metrics import add_auc, coverage, joint_metrics, keypoint_distances, tip_rotation_error_deg
from ropes_ros.robot import Robot
from ropes_ros.sim.canonical import fresh_pictures, fresh_positions

SEED = 1000
"""Seed of the tests' poses and surroundings; recordings have small ones."""
MOVED = "moved camera"
NOVELTY = "novelty"
SHOWN = (96, 72)
"""(width, height) in pixels of a traversal's pictures."""
STEPS = 7
"""Pictures a latent in a traversal."""
REACH = 1.7
"""A traversal goes so many standard deviations either way, which in a uniform factor is nearly its range."""


def run_test(name: str, trained: Trained, method: Method, poses: int, traversal: Path | None = None) -> dict[str, Any]:
    """Put a method to a test.

    Args:
        name: The test.
        trained: The method.
        method: Its entry.
        poses: Number of fresh poses.
        traversal: Where to draw what each latent does; nothing is drawn when None.

    Returns:
        Figures by name, plain values.
    """
    if name in trained.figures:
        return trained.figures[name]
    assert trained.read is not None  # only methods that are networks get other tests
    if name == NOVELTY:
        assert trained.encoder is not None
        areas = novelty_auroc(trained.encoder, bench_robot(), seed=SEED, n=poses)
        return {f"auc_{kind}": area for kind, area in areas.items()}
    drawn, _, change = name.partition("/")
    robot = bench_robot("moved" if change == MOVED else "preset")
    condition = change if change and change != MOVED else "clean"
    truth = fresh_positions(robot, poses, seed=SEED, poses=drawn)
    shown: list[NDArray[np.uint8]] = []
    pictures = fresh_pictures(robot, truth, seed=SEED, condition=condition)
    reading = trained.read(_remembered(pictures, shown))
    if traversal is not None:
        draw_traversal(traversal, reading.latents, truth, np.stack(shown), known_order=method.known_order)
    return figures(robot, reading, truth, known_order=method.known_order)


def _remembered(pictures: Iterator[NDArray[np.uint8]], shown: list[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """The pictures, small copies of which are kept."""
    for picture in pictures:
        shown.append(shrunk(picture, SHOWN))
        yield picture


def figures(robot: Robot, reading: Reading, truth: NDArray[np.float64], *, known_order: bool) -> dict[str, Any]:
    """All metrics of what a method says, as plain values.

    Args:
        robot: The robot.
        reading: Of N pictures.
        truth: True angles, float64 [N, J], rad.
        known_order: Whether latent j is joint j.
    """
    joints = joint_metrics(robot, reading.position, truth)
    turned = tip_rotation_error_deg(robot, reading.position, truth)
    latents = reading.latents
    known = known_order and latents.shape[1] == truth.shape[1]
    order: Literal["hungarian"] | None = None if known else "hungarian"
    regressions = r2_matrix(latents, truth, assignment=order)
    importances, shared = dci(latents, truth), infomec(latents, truth)
    found: dict[str, Any] = {
        "mcc": mcc(latents, truth, assignment=order),
        "mcc_spearman": mcc(latents, truth, kind="spearman", assignment=order),
        "r2": joints.r2,
        "r2_diagonal": regressions.diagonal,
        "r2_off_diagonal": regressions.off_diagonal,
        "dci_disentanglement": importances.disentanglement,
        "dci_completeness": importances.completeness,
        "dci_error": importances.informativeness_error,
        "info_m": shared.modularity,
        "info_e": shared.explicitness,
        "info_c": shared.compactness,
        "joint_mae_deg": joints.mae_deg.tolist(),
        "mean_joint_mae_deg": joints.mean_mae_deg,
        "tip_error_mm_median": joints.tip_error_mm_median,
        "tip_error_mm_mean": float(joints.tip_error_mm.mean()),
        "tip_rotation_deg_mean": turned.mean_deg,
        "tip_rotation_deg_median": turned.median_deg,
        "add_auc": add_auc(keypoint_distances(robot, reading.position, truth).mean(axis=1)),
    }
    if reading.std is not None:
        found["coverage_2std"] = coverage(reading.position, reading.std, truth, 2.0).tolist()
    return found


def draw_traversal(
    path: Path,
    latents: NDArray[np.float64],
    truth: NDArray[np.float64],
    shown: NDArray[np.uint8],
    *,
    known_order: bool,
) -> None:
    """What each latent does, in pictures: a row a joint, of the latent that is its own.

    Along a row lie the pictures nearest to evenly spaced values of that latent with the others near their medians, all
    in standard deviations. It needs no decoder.

    Args:
        path: A PNG file.
        latents: float64 [N, D].
        truth: float64 [N, J], only to tell which latent is whose.
        shown: uint8 [N, h, w, 3] RGB.
        known_order: Whether latent j is joint j.
    """
    spread = np.maximum(latents.std(axis=0), 1e-9)
    standard = (latents - np.median(latents, axis=0)) / spread
    own = np.arange(truth.shape[1])
    if not known_order or latents.shape[1] != truth.shape[1]:
        own = match(correlation_matrix(latents, truth, kind="spearman"))
    rows = []
    for latent in own[own >= 0]:
        others = np.delete(standard, latent, axis=1)
        far = (others**2).mean(axis=1) if others.shape[1] else np.zeros(len(standard))
        values = np.linspace(-REACH, REACH, STEPS)
        nearest = [int(np.argmin(far + 4.0 * (standard[:, latent] - value) ** 2)) for value in values]
        rows.append(np.concatenate(list(shown[nearest]), axis=1))
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))

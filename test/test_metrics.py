"""Metrics against cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from ropes_ros.metrics import coverage, joint_metrics
from ropes_ros.robot import Robot, load_robot


@pytest.fixture(scope="module")
def robot() -> Robot:
    return load_robot("arm6")


@pytest.fixture(scope="module")
def truth(robot: Robot) -> np.ndarray:
    rng = np.random.default_rng(0)
    return robot.denormalise(rng.uniform(-1.0, 1.0, (500, 6)))


def test_perfect_estimate(robot: Robot, truth: np.ndarray) -> None:
    metrics = joint_metrics(robot, truth, truth)
    assert metrics.mcc == pytest.approx(1.0)
    assert metrics.r2 == pytest.approx(1.0)
    assert metrics.mean_mae_deg == 0.0
    assert metrics.tip_error_mm_median == 0.0


def test_offset_costs_r2_and_not_correlation(robot: Robot, truth: np.ndarray) -> None:
    estimate = truth.copy()
    estimate[:, 2] += np.radians(10.0)
    metrics = joint_metrics(robot, estimate, truth)
    assert metrics.mcc == pytest.approx(1.0)
    assert metrics.r2 < 1.0
    np.testing.assert_allclose(metrics.mae_deg, [0, 0, 10, 0, 0, 0], atol=1e-9)


def test_swapped_joints_are_not_forgiven(robot: Robot, truth: np.ndarray) -> None:
    swapped = truth[:, [1, 0, 2, 3, 4, 5]]
    assert joint_metrics(robot, swapped, truth).mcc < 0.75


def test_tip_error_of_a_base_turn_is_a_chord(robot: Robot) -> None:
    """Turning joint 1, whose axis is vertical, moves the tip along a circle about that axis."""
    pose = np.tile(robot.home, (2, 1))
    turned = pose.copy()
    turned[:, 0] += 0.2
    radius = 1000.0 * np.linalg.norm(robot.fk(robot.home)[0][:2])
    assert joint_metrics(robot, turned, pose).tip_error_mm_median == pytest.approx(2.0 * radius * np.sin(0.1), rel=1e-6)


def test_coverage_of_gaussian_errors() -> None:
    rng = np.random.default_rng(1)
    error = rng.standard_normal((20_000, 2)) * np.array([0.1, 0.2])
    within = coverage(error, np.full((20_000, 2), 0.1), np.zeros((20_000, 2)), 1.0)
    np.testing.assert_allclose(within, [0.683, 0.383], atol=0.02)


def test_shapes_must_agree(robot: Robot, truth: np.ndarray) -> None:
    with pytest.raises(ValueError, match="one shape"):
        joint_metrics(robot, truth[:10], truth)

"""Metrics against cases whose answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from synthetic import stick_robot

from ropes_ros.metrics import (
    add_auc,
    auroc,
    coverage,
    joint_metrics,
    keypoint_distances,
    keypoint_links,
    mean_error_text,
    r2,
    tip_rotation_error_deg,
)
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


def test_a_joint_that_stands_still_is_left_out_of_the_means(robot: Robot, truth: np.ndarray) -> None:
    """Joint 4 rests with 1e-6 rad of noise: nothing is there to explain, and 0.01 rad of error would give R2 = -1e8."""
    rng = np.random.default_rng(1)
    still = truth.copy()
    still[:, 3] = 0.3 + 1e-6 * rng.standard_normal(len(truth))
    estimate = still + 0.01 * rng.standard_normal(still.shape)
    metrics = joint_metrics(robot, estimate, still)
    moving = [0, 1, 2, 4, 5]
    assert np.isnan(metrics.correlation).tolist() == [False, False, False, True, False, False]
    assert metrics.mcc == pytest.approx(metrics.correlation[moving].mean())
    assert metrics.r2 == pytest.approx(r2(estimate[:, moving], still[:, moving]).mean()) and metrics.r2 > 0.99
    assert 0.3 < metrics.mae_deg[3] < 0.7
    resting = joint_metrics(robot, np.tile(robot.home, (5, 1)) + 0.01, np.tile(robot.home, (5, 1)))
    assert np.isnan(resting.mcc) and np.isnan(resting.r2)
    constant = np.full((5, 1), 0.1 + 0.2)
    assert np.isnan(r2(constant + 0.01, constant)).all()


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


def test_coverage_by_hand() -> None:
    """Errors 0, 1, 2, 3 with a std of 1: two lie within one std and three within two, the edge included."""
    error, std = np.array([[0.0], [1.0], [2.0], [-3.0]]), np.ones((4, 1))
    assert coverage(error, std, np.zeros((4, 1)), 1.0) == pytest.approx([0.5])
    assert coverage(error, std, np.zeros((4, 1)), 2.0) == pytest.approx([0.75])


def test_r2_by_hand() -> None:
    """Truth 0..3, squares about its mean 5. Errors (0, 0, 0, 2): 1 - 4/5. Reversed, errors (3, 1, 1, 3): 1 - 20/5."""
    truth = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    estimate = np.array([[0.0, 3.0], [1.0, 2.0], [2.0, 1.0], [5.0, 0.0]])
    np.testing.assert_allclose(r2(estimate, truth), [0.2, -3.0])


def test_keypoints_of_a_stretched_arm_move_on_circles(tmp_path: Path) -> None:
    """Links of 0.3 m; the first origin is on the axis. A turn by d moves one at radius r by 2 r sin(d / 2)."""
    arm = stick_robot(tmp_path, joints=3)
    assert keypoint_links(arm) == ("link2", "link3")
    straight = np.zeros((2, 3))
    turned = straight.copy()
    turned[1, 0] = 0.4
    expected = 2.0 * np.array([0.3, 0.6]) * np.sin(0.2)
    np.testing.assert_allclose(keypoint_distances(arm, turned, straight), [[0.0, 0.0], expected], atol=1e-12)


def test_every_link_after_the_shoulder_is_a_keypoint(robot: Robot) -> None:
    """Joint 2's axis crosses joint 1's, so the origins of links 1 and 2 stand still."""
    assert keypoint_links(robot) == ("link3", "link4", "link5", "link6", "tool0")


def test_add_auc_by_hand() -> None:
    """Errors of 0, 5 and 20 cm: accuracy is 1/3 up to 5 cm and 2/3 up to 10 cm: on average 1/2."""
    assert add_auc([0.0, 0.05, 0.20]) == pytest.approx(0.5)
    assert add_auc([0.0, 0.05, np.inf]) == pytest.approx(0.5)
    assert add_auc([0.05], threshold=0.2) == pytest.approx(0.75)


def test_tip_rotation_is_the_angle_that_was_turned(robot: Robot) -> None:
    """Any one joint turned by an angle turns the tip by that angle; the quaternion's sign flips at a half turn."""
    pose = np.tile(robot.home, (4, 1))
    turned = pose.copy()
    turned[1, 0] += 0.2
    turned[2, 5] -= 2.9
    pose[3, 0], turned[3, 0] = np.pi - 0.1, np.pi + 0.2
    result = tip_rotation_error_deg(robot, turned, pose)
    np.testing.assert_allclose(result.error_deg, np.degrees([0.0, 0.2, 2.9, 0.3]), atol=1e-6)
    assert result.median_deg == pytest.approx(np.degrees(0.25))
    assert result.mean_deg == pytest.approx(np.degrees(3.4 / 4))


def test_auroc_by_hand() -> None:
    """Against 1, 2, 3: 2 wins once and ties once, 4 wins three times: (1 + 1/2 + 3) of 6 pairs."""
    assert auroc([3.0, 1.0, 2.0], [4.0, 2.0]) == pytest.approx(4.5 / 6)
    assert auroc([1.0, 1.0], [1.0, 1.0, 1.0]) == 0.5
    assert auroc([1.0], [0.0, -np.inf]) == 0.0


def test_scores_and_errors_must_be_numbers() -> None:
    for errors in ([], [0.1, np.nan], [-0.1]):
        with pytest.raises(ValueError, match="need errors"):
            add_auc(errors)
    with pytest.raises(ValueError, match="threshold"):
        add_auc([0.1], threshold=0.0)
    for inside, outside in (([], [1.0]), ([1.0], []), ([1.0], [np.nan])):
        with pytest.raises(ValueError, match="both sides"):
            auroc(inside, outside)


def test_shapes_must_agree(robot: Robot, truth: np.ndarray) -> None:
    with pytest.raises(ValueError, match="one shape"):
        joint_metrics(robot, truth[:10], truth)


def test_errors_of_prismatic_joints_are_millimetres_and_no_part_of_a_mean_in_degrees(tmp_path: Path) -> None:
    """Half a centimetre on a rail is not 0.3 degrees."""
    urdf = """<robot name="rail"><link name="base"/><link name="cart"/><link name="arm"/>
      <joint name="slide" type="prismatic"><parent link="base"/><child link="cart"/><axis xyz="1 0 0"/>
        <limit lower="-1" upper="1" velocity="1" effort="1"/></joint>
      <joint name="turn" type="revolute"><parent link="cart"/><child link="arm"/><axis xyz="0 0 1"/>
        <limit lower="-1" upper="1" velocity="1" effort="1"/></joint></robot>"""
    (tmp_path / "rail.urdf").write_text(urdf)
    joint = {"home": 0.0, "half_range": 0.5, "max_acceleration": 1.0}
    preset = {"name": "rail", "urdf": "rail.urdf", "base_link": "base", "tip_link": "arm"}
    robot = Robot({**preset, "joints": {"slide": joint, "turn": joint}}, tmp_path / "robot.yaml")
    truth = np.random.default_rng(0).uniform(-0.4, 0.4, (50, 2))
    metrics = joint_metrics(robot, truth + np.array([0.005, np.radians(2.0)]), truth)
    assert [(round(value, 6), unit) for value, unit in robot.in_figures(metrics.mae)] == [(5.0, "mm"), (2.0, "°")]
    assert mean_error_text(robot, metrics.mae) == "5.00 mm, 2.00 °"
    assert metrics.mean_mae_deg == pytest.approx(2.0) and np.isnan(metrics.mae_deg[0])

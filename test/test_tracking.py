"""The joint filter: follows motion, is consistent on noise that it models, respects limits."""

from __future__ import annotations

import numpy as np
import pytest

from ropes_ros.robot import Robot, load_robot
from ropes_ros.tracking import CORRELATION_FRAMES, JointTracker

PERIOD_NS = 33_333_333


@pytest.fixture(scope="module")
def robot() -> Robot:
    return load_robot("arm6")


def swing(robot: Robot, seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Position and velocity of a slow swing about home, [N, J]."""
    rate = 2.0 * np.pi * np.linspace(0.1, 0.3, len(robot.joints))
    size = 0.5 * robot.half_range
    phase = seconds[:, None] * rate
    return robot.home + size * np.sin(phase), size * rate * np.cos(phase)


def test_reduces_noise_and_finds_velocity(robot: Robot) -> None:
    rng = np.random.default_rng(0)
    seconds = np.arange(900) * PERIOD_NS * 1e-9
    truth, velocity = swing(robot, seconds)
    noise = 0.1 * rng.standard_normal(truth.shape)
    tracker = JointTracker(robot)
    positions, velocities = [], []
    for row in range(len(seconds)):
        tracker.update(row * PERIOD_NS, truth[row] + noise[row], np.full(6, 0.1))
        positions.append(tracker.position)
        velocities.append(tracker.velocity)
    error = np.abs(np.array(positions) - truth)[30:].mean()
    assert error < 0.75 * np.abs(noise).mean()
    correlation = np.corrcoef(np.array(velocities)[30:, 5], velocity[30:, 5])[0, 1]
    assert correlation > 0.7


def test_consistent_with_the_noise_that_it_models(robot: Robot) -> None:
    """Normalised squared errors of position average to about 1 when errors have the modelled variance."""
    rng = np.random.default_rng(1)
    seconds = np.arange(3000) * PERIOD_NS * 1e-9
    truth, _ = swing(robot, seconds)
    std = 0.04
    tracker = JointTracker(robot)
    squares = []
    for row in range(len(seconds)):
        measured = truth[row] + np.sqrt(CORRELATION_FRAMES) * std * rng.standard_normal(6)
        tracker.update(row * PERIOD_NS, measured, np.full(6, std))
        squares.append(((tracker.position - truth[row]) / tracker.std) ** 2)
    assert 0.4 < np.mean(squares[60:]) < 1.5


def test_gap_widens_the_uncertainty_of_prediction(robot: Robot) -> None:
    tracker = JointTracker(robot)
    for row in range(60):
        tracker.update(row * PERIOD_NS, robot.home, np.full(6, 0.05))
    settled = tracker.std.copy()
    tracker.update(60 * PERIOD_NS + 10**9, robot.home, np.full(6, 10.0))
    assert (tracker.std > 3.0 * settled).all()


def test_stays_within_joint_limits(robot: Robot) -> None:
    tracker = JointTracker(robot)
    tracker.update(0, robot.upper + 1.0, np.full(6, 0.01))
    np.testing.assert_array_equal(tracker.position, robot.upper)


def test_refuses_a_measurement_that_is_not_later(robot: Robot) -> None:
    tracker = JointTracker(robot)
    tracker.update(PERIOD_NS, robot.home, np.full(6, 0.05))
    with pytest.raises(ValueError, match="later"):
        tracker.update(PERIOD_NS, robot.home, np.full(6, 0.05))
    tracker.reset()
    tracker.update(PERIOD_NS, robot.upper, np.full(6, 0.05))
    np.testing.assert_allclose(tracker.position, robot.upper)


@pytest.mark.parametrize("seconds", [3.0, 3600.0, 1e9])
def test_starts_anew_after_a_silence(robot: Robot, seconds: float) -> None:
    tracker, fresh = JointTracker(robot), JointTracker(robot)
    later_ns = round(seconds * 1e9)
    tracker.update(0, robot.home, np.full(6, 0.05))
    for each in (tracker, fresh):
        each.update(later_ns, robot.home + 0.1, np.full(6, 0.02))
    np.testing.assert_array_equal(tracker.std, fresh.std)
    assert not tracker.velocity.any()

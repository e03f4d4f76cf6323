"""Estimates beside the robot's own encoders."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from ropes_ros.residuals import Residuals
from ropes_ros.robot import load_robot
from ropes_ros.units import NANOSECONDS

ROBOT = load_robot("arm6")
STD = np.full(6, 0.02)
TICK_NS = NANOSECONDS // 100


def ramp(residuals: Residuals, begin_ns: int, seconds: float) -> None:
    """Measurements at 100 Hz of joints that all move by 1 rad/s from 0 on."""
    for tick in range(round(seconds * 100)):
        residuals.add(begin_ns + tick * TICK_NS, ROBOT.joint_names, [tick / 100.0] * 6)


def test_measurements_are_taken_at_the_frames_time() -> None:
    residuals = Residuals(ROBOT)
    ramp(residuals, NANOSECONDS, 1.0)
    found = residuals.of(NANOSECONDS + 305 * NANOSECONDS // 1000, np.full(6, 0.5), STD)
    assert found is not None
    np.testing.assert_allclose(found.measured, 0.305, atol=1e-9)
    np.testing.assert_allclose(found.now, 0.195, atol=1e-9)
    np.testing.assert_allclose(found.ratio, 0.195 / 0.02, atol=1e-6)


def test_nothing_is_said_far_from_any_measurement() -> None:
    residuals = Residuals(ROBOT)
    assert residuals.of(NANOSECONDS, np.zeros(6), STD) is None
    ramp(residuals, NANOSECONDS, 1.0)
    assert residuals.of(NANOSECONDS * 5 // 2, np.zeros(6), STD) is None
    near = residuals.of(2 * NANOSECONDS + 5 * TICK_NS, np.zeros(6), STD)
    assert near is not None and near.measured[0] == pytest.approx(0.99)


def test_the_mean_tells_what_lasts_from_what_passes() -> None:
    residuals = Residuals(ROBOT)
    rng = np.random.default_rng(0)
    for frame in range(300):
        stamp_ns = NANOSECONDS + frame * NANOSECONDS // 30
        residuals.add(stamp_ns, ROBOT.joint_names, [0.0] * 6)
        estimate = 0.1 * rng.standard_normal(6)
        estimate[2] += 0.3
        found = residuals.of(stamp_ns, estimate, STD)
    assert found is not None
    assert found.mean[2] == pytest.approx(0.3, abs=0.06)
    assert (np.abs(np.delete(found.mean, 2)) < 0.06).all()


def test_joints_that_are_missing_or_not_finite_are_not_compared() -> None:
    residuals = Residuals(ROBOT)
    residuals.add(NANOSECONDS, ("joint2", "gripper", "joint3"), (0.4, 1.0, float("nan")))
    residuals.add(NANOSECONDS, ("joint4", "joint5"), (1e308, float("-inf")))
    found = residuals.of(NANOSECONDS, np.full(6, 0.5), STD)
    assert found is not None
    np.testing.assert_array_equal(np.isnan(found.now), [True, False, True, True, True, True])
    assert found.now[1] == pytest.approx(0.1)


def test_memory_is_bounded_and_time_may_jump_back() -> None:
    residuals = Residuals(ROBOT)
    ramp(residuals, 100 * NANOSECONDS, 20.0)
    assert len(residuals._measured[0]) < 500
    residuals.add(110 * NANOSECONDS, ROBOT.joint_names, [7.0] * 6)
    assert len(residuals._measured[0]) == 1, "the time after is forgotten"
    found = residuals.of(110 * NANOSECONDS, np.zeros(6), STD)
    assert found is not None and found.measured[0] == 7.0


def test_a_joint_that_is_no_longer_measured_is_no_longer_complained_of() -> None:
    residuals = Residuals(ROBOT)
    for tick in range(200):
        stamp_ns = NANOSECONDS + tick * TICK_NS
        names = ROBOT.joint_names if tick < 100 else ROBOT.joint_names[1:]
        residuals.add(stamp_ns, names, [0.5] * len(names))
        found = residuals.of(stamp_ns, np.zeros(6), STD)
    assert found is not None
    for each in (found.now, found.mean, found.ratio):
        np.testing.assert_array_equal(np.isnan(each), [True, False, False, False, False, False])
    stamp_ns += 3 * NANOSECONDS
    residuals.add(stamp_ns, ROBOT.joint_names, [0.0] * 6)
    again = residuals.of(stamp_ns, np.zeros(6), STD)
    assert again is not None
    np.testing.assert_array_equal(again.mean, 0.0)


def test_measurements_may_come_while_a_frame_is_compared() -> None:
    """Time that jumps back empties what is kept, in another thread than the one that looks it up."""
    residuals = Residuals(ROBOT)
    others: list[threading.Thread] = []

    class Kept(list[tuple[int, float]]):
        def __getitem__(self, index: Any) -> Any:
            if not others:
                jump = threading.Thread(target=residuals.add, args=(NANOSECONDS, ROBOT.joint_names, [0.0] * 6))
                others.append(jump)
                jump.start()
                jump.join(0.2)
            return super().__getitem__(index)

    begin_ns = 100 * NANOSECONDS
    ramp(residuals, begin_ns, 1.0)
    residuals._measured[0] = Kept(residuals._measured[0])
    found = residuals.of(begin_ns + TICK_NS * 5 // 2, np.zeros(6), STD)
    others[0].join()
    assert found is not None
    np.testing.assert_allclose(found.measured, 0.025, atol=1e-9)
    assert len(residuals._measured[0]) == 1

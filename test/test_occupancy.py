"""Where joints spend their time: designed, lawful, counted."""

from __future__ import annotations

import numpy as np
import pytest

from ropes_ros import occupancy
from ropes_ros.regimes import make_schedule
from ropes_ros.robot import load_robot

ROBOT = load_robot("arm6")


@pytest.mark.parametrize(
    ("design", "distance"), [("factorial", 0.015), ("single_joint", 0.015), ("dwell", 1e-3)]
)
def test_limits_move_little_of_the_time_that_was_designed(design: str, distance: float) -> None:
    schedule = make_schedule(ROBOT, duration_s=60.0, seed=0, design=design)
    law, wanted = occupancy.lawful(schedule), occupancy.designed(schedule)
    assert law.sum(axis=2) == pytest.approx(1.0, abs=1e-6) and wanted.sum(axis=1) == pytest.approx(1.0)
    distances = occupancy.total_variation(law, wanted)
    assert distances.shape == (6, len(schedule.levels)) and distances.max() < distance
    said = occupancy.expectation(schedule)
    assert "60 s" in said and f"{distances.max():.3f}" in said


def test_counting_sorts_by_joint_and_level_and_keeps_what_is_beyond_the_ends() -> None:
    u = np.array([[-1.2, 0.01], [-0.99, 0.01], [0.99, 0.5], [0.3, 0.99]])
    labels = np.array([[0, 1], [0, 1], [0, -1], [-1, 0]], dtype=np.int16)
    shares = occupancy.counted(u, labels, 2)
    assert shares.shape == (2, 2, occupancy.BINS)
    assert shares[0, 0, 0] == pytest.approx(2 / 3) and shares[0, 0, -1] == pytest.approx(1 / 3)
    assert not shares[0, 1].any()
    assert shares[1, 1, occupancy.BINS // 2] == 1.0 and shares[1, 0, -1] == 1.0


def test_total_variation_is_the_share_of_time_spent_elsewhere() -> None:
    one, other = np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.5, 0.25])
    assert occupancy.total_variation(one, other) == 0.25

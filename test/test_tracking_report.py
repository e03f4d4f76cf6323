"""Commanded against reached distributions: silent where a robot follows, plain where it does not."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import START_NS, positions_of, stick_robot

from ropes_ros.dataset import FrameSet
from ropes_ros.framing import Region
from ropes_ros.regimes import make_schedule
from ropes_ros.robot import Robot
from ropes_ros.tracking_report import TrackingReport, tracking_report


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Robot, FrameSet, np.ndarray]:
    """Ten minutes of two joints that reach what is commanded."""
    robot = stick_robot(tmp_path_factory.mktemp("robot"))
    schedule = make_schedule(robot, duration_s=600.0, seed=4)
    stamps = START_NS + 100_000_000 * np.arange(6000, dtype=np.int64)
    elapsed = stamps - START_NS
    frames = FrameSet(
        np.zeros((6000, 1, 1, 3), np.uint8), stamps, schedule.labels_at(elapsed), schedule.segment_ids_at(elapsed),
        tuple(schedule.joint_names), tuple(schedule.levels.ids), schedule.grid, schedule.log_commanded, 0.16, "stick",
        schedule.hash, (1, 1), Region(0, 0, 1, 1), "", 0,
    )  # fmt: skip
    return robot, frames, positions_of(robot, schedule, stamps)


def report(followed: tuple[Robot, FrameSet, np.ndarray], truth: np.ndarray) -> TrackingReport:
    robot, frames, _ = followed
    return tracking_report(frames, robot, truth)


def test_a_robot_that_follows_gives_no_sentence(followed: tuple[Robot, FrameSet, np.ndarray]) -> None:
    found = report(followed, followed[2])
    assert found.sentences == ()
    assert np.nanmean(found.distance) < 0.05


def test_a_shifted_joint_is_named_with_its_shift(followed: tuple[Robot, FrameSet, np.ndarray]) -> None:
    """0.36 rad of 1.2 rad half range are 0.3 half ranges."""
    found = report(followed, followed[2] + np.array([0.0, 0.36]))
    assert found.shift[1] - report(followed, followed[2]).shift[1] == pytest.approx(0.3)
    assert len(found.sentences) == 1
    assert "joint2" in found.sentences[0]


def test_a_joint_that_stands_still_is_named(followed: tuple[Robot, FrameSet, np.ndarray]) -> None:
    truth = followed[2].copy()
    truth[:, 0] = 0.1
    found = report(followed, truth)
    assert [("joint1" in sentence, "did not execute" in sentence) for sentence in found.sentences] == [(True, True)]


def test_frames_without_measurement_are_left_out(followed: tuple[Robot, FrameSet, np.ndarray]) -> None:
    truth = followed[2].copy()
    truth[::2] = np.nan
    assert report(followed, truth).sentences == ()
    assert np.isnan(report(followed, np.full_like(truth, np.nan)).distance).all()

"""Commanded against reached distributions: silent where a robot follows, plain where it does not."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import START_NS, positions_of, stick_robot

from ropes_ros.regimes import Schedule, make_schedule
from ropes_ros.tracking_report import TrackingReport, tracking_report

Followed = tuple[Schedule, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Followed:
    """Ten minutes of two joints that reach what is commanded: schedule, labels and positions."""
    robot = stick_robot(tmp_path_factory.mktemp("robot"))
    schedule = make_schedule(robot, duration_s=600.0, seed=4)
    stamps = START_NS + 100_000_000 * np.arange(6000, dtype=np.int64)
    return schedule, schedule.labels_at(stamps - START_NS), positions_of(robot, schedule, stamps)


def report(followed: Followed, truth: np.ndarray) -> TrackingReport:
    schedule, labels, _ = followed
    return tracking_report(schedule, labels, truth)


def test_a_robot_that_follows_gives_no_sentence(followed: Followed) -> None:
    found = report(followed, followed[2])
    assert found.sentences == ()
    assert found.mean.max() < 0.05
    assert np.nanmean(found.distance) < 0.05


def test_a_shifted_joint_is_named_with_its_shift(followed: Followed) -> None:
    """0.36 rad of 1.2 rad half range are 0.3 half ranges."""
    found = report(followed, followed[2] + np.array([0.0, 0.36]))
    assert found.shift[1] - report(followed, followed[2]).shift[1] == pytest.approx(0.3)
    assert len(found.sentences) == 1
    assert "joint2" in found.sentences[0]
    assert found.mean == pytest.approx(np.abs(found.shift), abs=0.05)


def test_a_joint_that_stands_still_is_named(followed: Followed) -> None:
    truth = followed[2].copy()
    truth[:, 0] = 0.1
    found = report(followed, truth)
    assert [("joint1" in sentence, "did not execute" in sentence) for sentence in found.sentences] == [(True, True)]


def test_half_a_minute_is_not_held_against_a_robot_that_follows(followed: Followed) -> None:
    """Sweeps of one segment a level do not fill a density; a joint that stands still is told from it all the same."""
    schedule, labels, truth = followed
    windows = [slice(start, start + 300) for start in range(0, len(truth), 300)]
    found = [tracking_report(schedule, labels[window], truth[window]) for window in windows]
    assert max(part.mean.max() for part in found) > 0.1
    assert [part.sentences for part in found] == [()] * len(windows)
    assert len(tracking_report(schedule, labels[:300], np.full((300, 2), 0.7)).sentences) == 2


def test_frames_without_measurement_are_left_out(followed: Followed) -> None:
    truth = followed[2].copy()
    truth[::2] = np.nan
    assert report(followed, truth).sentences == ()
    assert np.isnan(report(followed, np.full_like(truth, np.nan)).distance).all()

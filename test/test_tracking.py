"""The joint filter: averages what is white, promises no more than is so, follows, wraps, replays, and is not misled."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ropes_ros.motion import Trajectory
from ropes_ros.regimes import make_schedule
from ropes_ros.robot import Robot, load_robot
from ropes_ros.tracking import BELIEVE_NS, FORGET_NS, HISTORY_NS, JointTracker, Measured, TrackedState

PERIOD_NS = 33_333_333
STD = np.full(6, 0.05)

TURNTABLE = """<robot name="turntable">
  <link name="base"/><link name="plate"/><link name="arm"/>
  <joint name="turn" type="continuous">
    <parent link="base"/><child link="plate"/><axis xyz="0 0 1"/><limit velocity="3" effort="1"/>
  </joint>
  <joint name="lift" type="revolute">
    <parent link="plate"/><child link="arm"/><axis xyz="0 1 0"/>
    <limit lower="-1" upper="1" velocity="3" effort="1"/>
  </joint>
</robot>
"""
TURNTABLE_PRESET = """
name: turntable
urdf: turntable.urdf
base_link: base
tip_link: arm
joints:
  turn: {home: 0.5, half_range: 3.0, max_acceleration: 15.0}
  lift: {home: 0.0, half_range: 0.9, max_acceleration: 15.0}
"""


@pytest.fixture(scope="module")
def robot() -> Robot:
    return load_robot("arm6")


@pytest.fixture(scope="module")
def turntable(tmp_path_factory: pytest.TempPathFactory) -> Robot:
    folder = tmp_path_factory.mktemp("turntable")
    (folder / "turntable.urdf").write_text(TURNTABLE)
    (folder / "turntable.yaml").write_text(TURNTABLE_PRESET)
    return load_robot(folder / "turntable.yaml")


def sweeps(robot: Robot, frames: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stamps [N], positions [N, J] and velocities [N, J] of a commanded motion at 30 Hz."""
    motion = Trajectory(robot, make_schedule(robot, duration_s=60.0, seed=seed))
    stamps = np.arange(frames) * PERIOD_NS
    times = stamps + 5 * 10**9
    return stamps, motion.positions_at(times), motion.velocities_at(times)


def feed(
    tracker: JointTracker, stamps: np.ndarray, measured: np.ndarray, std: np.ndarray, command: np.ndarray | None = None
) -> tuple[list[TrackedState], list[Measured]]:
    states, reports = [], []
    for k, stamp in enumerate(stamps.tolist()):
        reports.append(tracker.update(stamp, measured[k], std, None if command is None else command[k]))
        states.append(tracker.state)
    return states, reports


def positions(states: list[TrackedState]) -> np.ndarray:
    return np.stack([state.position for state in states])


def rms(values: np.ndarray) -> float:
    return float(np.sqrt((values**2).mean()))


def settled(robot: Robot, frames: int = 90, std: np.ndarray = STD) -> JointTracker:
    """A tracker of an arm that rests at home, seen without noise."""
    tracker = JointTracker(robot)
    for k in range(frames):
        tracker.update(k * PERIOD_NS, robot.home, std)
    return tracker


@pytest.mark.parametrize(("degrees", "ratio"), [(2.0, 0.8), (4.0, 0.7)])
def test_averages_white_noise_and_is_consistent(robot: Robot, degrees: float, ratio: float) -> None:
    """Mean normalised errors and innovations of 60 independent runs lie in the 95 % band of chi-square."""
    pytest.importorskip("mujoco")
    from ropes_ros.bench.tracking import white_noise_figures

    found = white_noise_figures(robot, math.radians(degrees))
    low, high = found["nees_band"]
    assert found["rmse_ratio"] < ratio
    assert low < found["nees"] < high
    assert low < found["nis"] < high
    assert found["outliers"] < 1e-4


def test_the_chi_square_band_holds_what_it_should() -> None:
    pytest.importorskip("mujoco")
    from ropes_ros.bench.tracking import chi_square_band

    low, high = chi_square_band(180)
    means = np.random.default_rng(0).chisquare(180, 20_000) / 180
    assert abs(((means > low) & (means < high)).mean() - 0.95) < 0.006


def test_finds_the_lag_of_an_estimate() -> None:
    pytest.importorskip("mujoco")
    from ropes_ros.bench.tracking import lag

    seconds = np.arange(600) / 30
    assert lag(np.sin(seconds - 1.5 / 30)[:, None], np.sin(seconds)[:, None]) == pytest.approx(1.5, abs=0.05)


def test_an_arm_that_lags_behind_its_commands_is_tracked_better_with_them(robot: Robot) -> None:
    pytest.importorskip("mujoco")
    from ropes_ros.sim.following import Faults, follow

    schedule = make_schedule(robot, duration_s=20.0, seed=3)
    truth = follow(robot, schedule, frames=600, rate=30, faults=Faults(), seed=3)
    stamps = np.round(np.arange(1, 601) * 1e9 / 30).astype(np.int64)
    command = Trajectory(robot, schedule).velocities_at(stamps)
    velocity = np.gradient(truth, 1 / 30, axis=0)
    std = np.full(6, math.radians(4.0))
    noise = std * np.random.default_rng(0).standard_normal(truth.shape)
    errors = {}
    for name, given in (("without", None), ("with", command)):
        states, _ = feed(JointTracker(robot), stamps, truth + noise, std, given)
        errors[name] = (
            rms((positions(states) - truth)[90:]),
            rms((np.stack([state.velocity for state in states]) - velocity)[90:]),
        )
    assert errors["without"][0] < 0.7 * rms(noise[90:])
    assert errors["with"][0] < 0.9 * errors["without"][0]
    assert errors["with"][1] < 0.6 * errors["without"][1]


def test_a_robot_that_does_not_do_its_commands_is_followed_without_bias(robot: Robot) -> None:
    stamps, _, velocity = sweeps(robot, 600)
    still = np.tile(robot.home, (600, 1))
    std = np.full(6, math.radians(2.0))
    noise = std * np.random.default_rng(0).standard_normal(still.shape)
    states, reports = feed(JointTracker(robot), stamps, still + noise, std, velocity)
    error = (positions(states) - still)[90:]
    assert np.abs(error.mean(axis=0)).max() < 0.15 * std[0]
    assert rms(error) < 0.9 * rms(noise[90:])
    scaled = error / np.stack([state.position_std for state in states])[90:]
    assert (scaled**2).mean() < 1.4
    assert all(report.used.all() for report in reports)


def test_errors_that_depend_on_the_pose_are_neither_made_larger_nor_promised_away(robot: Robot) -> None:
    """The error is a smooth random function of the pose, of unit variance in stds: the same pose, the same error."""
    rng = np.random.default_rng(1)
    stamps, truth, _ = sweeps(robot, 900, seed=1)
    u = robot.normalise(truth)
    frequencies = rng.standard_normal((64, 6, 6)) / (0.25 * math.sqrt(6.0))
    phases = rng.uniform(0.0, 2.0 * math.pi, (64, 6))
    error = math.sqrt(2.0 / 64) * np.cos(np.einsum("nk,wkj->nwj", u, frequencies) + phases).sum(axis=1)
    raw = error * STD
    states, _ = feed(JointTracker(robot), stamps, truth + raw, STD)
    filtered = (positions(states) - truth)[90:]
    scaled = filtered / np.stack([state.position_std for state in states])[90:]
    assert rms(filtered) < 1.1 * rms(raw[90:])
    assert 0.5 < (scaled**2).mean() < 1.5


def test_an_arm_at_rest_keeps_its_error_however_long_it_is_looked_at(robot: Robot) -> None:
    rng = np.random.default_rng(2)
    tracker = JointTracker(robot)
    for k in range(3600):
        tracker.update(k * PERIOD_NS, robot.home + 0.04, STD * (1.0 + 0.01 * rng.standard_normal(6)))
    assert (tracker.state.position_std > 0.8 * STD).all()
    assert (tracker.state.position_std < 1.1 * STD).all()


def test_white_noise_at_rest_is_averaged_away(robot: Robot) -> None:
    rng = np.random.default_rng(3)
    stamps = np.arange(900) * PERIOD_NS
    noise = STD * rng.standard_normal((900, 6))
    states, _ = feed(JointTracker(robot), stamps, robot.home + noise, STD)
    assert (states[-1].position_std < 0.75 * STD).all()
    assert rms((positions(states) - robot.home)[300:]) < 0.7 * rms(noise)


def test_motion_at_a_low_frame_rate_is_not_taken_for_noise(robot: Robot) -> None:
    """At 6 Hz, motion without any noise: were its scatter taken for white noise, turns would be smoothed away."""
    motion = Trajectory(robot, make_schedule(robot, duration_s=60.0, seed=4))
    stamps = np.arange(240) * 166_666_667
    truth = motion.positions_at(stamps + 5 * 10**9)
    std = np.full(6, math.radians(1.0))
    states, _ = feed(JointTracker(robot), stamps, truth, std)
    assert rms((positions(states) - truth)[20:]) < 0.5 * std[0]


def test_velocity_is_found(robot: Robot) -> None:
    stamps, truth, velocity = sweeps(robot, 600, seed=5)
    std = np.full(6, math.radians(1.0))
    noise = std * np.random.default_rng(5).standard_normal(truth.shape)
    states, _ = feed(JointTracker(robot), stamps, truth + noise, std)
    error = (np.stack([state.velocity for state in states]) - velocity)[90:]
    scaled = error / np.stack([state.velocity_std for state in states])[90:]
    assert rms(error) < 0.5 * rms(velocity)
    assert 0.5 < (scaled**2).mean() < 1.5


def spiked_and_clean(robot: Robot, seed: int, size: float) -> tuple[NDArray[np.float64], list[Any], list[int]]:
    """How far spikes of a size in std, on one joint, move the estimate [N, J] in std; reports, and the spikes' rows."""
    rng = np.random.default_rng(seed)
    stamps, truth, _ = sweeps(robot, 300, seed=seed)
    std = np.full(6, math.radians(2.0))
    measured = truth + std * rng.standard_normal(truth.shape)
    spiked = measured.copy()
    rows = np.arange(100, 300, 20)
    spiked[rows, 2] += size * std[2] * np.where(rows % 40 == 0, 1.0, -1.0)
    clean, _ = feed(JointTracker(robot), stamps, measured, std)
    states, reports = feed(JointTracker(robot), stamps, spiked, std)
    return (positions(states) - positions(clean)) / std, reports, rows.tolist()


def test_single_outliers_do_not_move_the_estimate(robot: Robot) -> None:
    moved, reports, rows = spiked_and_clean(robot, 6, 14.0)
    others = [0, 1, 3, 4, 5]
    assert [k for k, report in enumerate(reports) if not report.used[2]] == rows
    assert all(report.used[others].all() for report in reports)
    assert np.abs(moved[:, 2]).max() < 1.5
    assert np.abs(moved[:, others]).max() < 0.1


@pytest.mark.parametrize("seed", range(6, 11))
def test_an_outlier_that_passes_the_gate_does_little(robot: Robot, seed: int) -> None:
    """By chance about one in eight spikes of 10 std passes; what is measured right after one is no outlier."""
    moved, reports, rows = spiked_and_clean(robot, seed, 10.0)
    assert set(k for k, report in enumerate(reports) if not report.used[2]) <= set(rows)
    assert np.abs(moved[:, 2]).max() < 5.0


def test_an_outlier_is_left_out_wholly(robot: Robot) -> None:
    spiked, predicted = settled(robot), settled(robot)
    stamp = 90 * PERIOD_NS
    forecast = predicted.predict(stamp)
    report = spiked.update(stamp, robot.home + np.array([0.0, 0.0, 10.0, 0.0, 0.0, 0.0]) * STD, STD)
    assert report.used.tolist() == [True, True, False, True, True, True]
    assert report.nis[2] > 28.0
    assert spiked.state.position[2] == forecast.position[2]
    assert spiked.state.position_std[2] == pytest.approx(forecast.position_std[2], rel=0.05)


def test_a_jump_that_stays_is_believed(robot: Robot) -> None:
    tracker = settled(robot)
    there = robot.home + np.array([0.6, 0.0, 0.0, 0.0, 0.0, 0.0])
    first = tracker.update(90 * PERIOD_NS, there, STD)
    assert not first.used[0] and first.used[1:].all()
    k = 91
    while not tracker.update(k * PERIOD_NS, there, STD).used[0]:
        k += 1
    assert (k - 90) * PERIOD_NS <= BELIEVE_NS + PERIOD_NS
    assert tracker.state.position[0] == pytest.approx(there[0], abs=STD[0])
    np.testing.assert_allclose(tracker.state.position[1:], robot.home[1:], atol=1e-3)


def test_the_fastest_motion_is_no_outlier(robot: Robot) -> None:
    """Back and forth at the limits of velocity and acceleration, measured without noise at a small std."""
    stamps = np.arange(300) * PERIOD_NS
    seconds = stamps * 1e-9
    rate = robot.max_acceleration / robot.max_velocity
    swing = robot.home + robot.max_velocity / rate * np.sin(seconds[:, None] * rate)
    _, reports = feed(JointTracker(robot), stamps, swing, np.full(6, math.radians(1.0)))
    assert all(report.used.all() for report in reports)


def test_late_measurements_give_what_measurements_in_order_give(robot: Robot) -> None:
    rng = np.random.default_rng(7)
    stamps, truth, velocity = sweeps(robot, 120, seed=7)
    measured = truth + STD * rng.standard_normal(truth.shape)
    measured[60, 1] += 15.0 * STD[1]
    ordered, shuffled = JointTracker(robot), JointTracker(robot)
    _, expected = feed(ordered, stamps, measured, STD, velocity)
    order = np.argsort(np.arange(120) + rng.integers(0, 10, 120), kind="stable")  # late by up to 9 frames
    newest = -1
    for k in order.tolist():
        late = newest > stamps[k]
        assert shuffled.can_replay(int(stamps[k])) == late
        report = shuffled.update(int(stamps[k]), measured[k], STD, velocity[k])
        assert report.late == late
        newest = max(newest, int(stamps[k]))
        assert shuffled.newest_ns == newest
    assert order.tolist() != sorted(order.tolist())
    assert not expected[60].used[1]
    for mine, right in zip(shuffled.state, ordered.state, strict=True):
        np.testing.assert_allclose(mine, right, rtol=0.0, atol=1e-12)
    ahead = int(stamps[-1]) + 10**8
    for mine, right in zip(shuffled.predict(ahead), ordered.predict(ahead), strict=True):
        np.testing.assert_allclose(mine, right, rtol=0.0, atol=1e-12)


def test_one_before_the_first_measurement_is_late_too(robot: Robot) -> None:
    ordered, shuffled = JointTracker(robot), JointTracker(robot)
    for tracker, stamps in ((ordered, (0, PERIOD_NS)), (shuffled, (PERIOD_NS, 0))):
        for stamp in stamps:
            tracker.update(stamp, robot.home + stamp * 1e-9, STD)
    np.testing.assert_array_equal(ordered.state.covariance, shuffled.state.covariance)
    np.testing.assert_array_equal(ordered.state.position, shuffled.state.position)


def test_what_is_too_late_or_known_is_refused_and_changes_nothing(robot: Robot) -> None:
    tracker = settled(robot)
    newest, before = tracker.newest_ns, tracker.state
    assert newest == 89 * PERIOD_NS
    for stamp in (newest, newest - 3 * PERIOD_NS, newest - HISTORY_NS - 1):
        assert not tracker.can_replay(stamp)
        with pytest.raises(ValueError, match="stamp must be new"):
            tracker.update(stamp, robot.home + 0.01, STD)
    assert tracker.can_replay(newest - HISTORY_NS)
    assert not tracker.can_replay(newest + 1)
    for mine, right in zip(tracker.state, before, strict=True):
        np.testing.assert_array_equal(mine, right)
    tracker.reset()
    assert tracker.newest_ns is None
    assert not tracker.can_replay(newest - 1)
    tracker.update(0, robot.upper, STD)
    np.testing.assert_array_equal(tracker.state.position, robot.upper)


def test_numbers_that_are_none_are_refused_by_name(robot: Robot) -> None:
    tracker = settled(robot)
    bad, before = robot.home.copy(), tracker.state
    bad[3] = np.nan
    for arguments, message in (
        ((bad, STD), "position is not finite"),
        ((robot.home, np.where(np.isnan(bad), np.inf, STD)), "std is not finite"),
        ((robot.home, STD, bad), "commanded velocity is not finite"),
        ((robot.home, 0.0 * STD), "std must be above 0"),
        ((robot.home[:5], STD), "position has the shape"),
    ):
        with pytest.raises(ValueError, match=message):
            tracker.update(90 * PERIOD_NS, *arguments)
    for mine, right in zip(tracker.state, before, strict=True):
        np.testing.assert_array_equal(mine, right)


def test_before_the_first_measurement_nothing_is_said(robot: Robot) -> None:
    tracker = JointTracker(robot)
    with pytest.raises(ValueError, match="before the first measurement"):
        _ = tracker.state
    with pytest.raises(ValueError, match="before the first measurement"):
        tracker.predict(0)


def test_prediction_goes_on_and_grows_unsure_and_changes_nothing(robot: Robot) -> None:
    tracker = JointTracker(robot)
    speed = np.full(6, 0.5)
    for k in range(60):
        tracker.update(k * PERIOD_NS, robot.home + speed * (k - 60) * PERIOD_NS * 1e-9, np.full(6, 0.005))
    before, newest = tracker.state, 59 * PERIOD_NS
    forecasts = [tracker.predict(newest + step) for step in (0, 10**8, 3 * 10**8, 10**9)]
    np.testing.assert_array_equal(forecasts[0].position, before.position)
    np.testing.assert_allclose(forecasts[2].position - before.position, 0.3 * before.velocity, atol=1e-9)
    assert forecasts[2].stamp_ns == newest + 3 * 10**8
    for earlier, later in pairwise(forecasts):
        assert (later.position_std > earlier.position_std).all()
        assert (later.velocity_std > earlier.velocity_std).all()
    for mine, right in zip(tracker.state, before, strict=True):
        np.testing.assert_array_equal(mine, right)
    with pytest.raises(ValueError, match="before the newest"):
        tracker.predict(newest - 1)


def test_prediction_errs_as_much_as_it_says(robot: Robot) -> None:
    """0.2 s ahead, over many moments of a commanded motion."""
    stamps, truth, _ = sweeps(robot, 900, seed=8)
    std = np.full(6, math.radians(2.0))
    measured = truth + std * np.random.default_rng(8).standard_normal(truth.shape)
    tracker, scaled = JointTracker(robot), []
    for k in range(894):
        tracker.update(int(stamps[k]), measured[k], std)
        forecast = tracker.predict(int(stamps[k + 6]))
        scaled.append((forecast.position - truth[k + 6]) / forecast.position_std)
    assert 0.6 < np.mean(np.square(scaled[90:])) < 1.4


def test_a_gap_makes_unsure(robot: Robot) -> None:
    tracker = settled(robot)
    certain = tracker.state.position_std
    tracker.update(90 * PERIOD_NS + 10**9, robot.home, np.full(6, 10.0))
    assert (tracker.state.position_std > 3.0 * certain).all()


def test_covariances_are_symmetric_and_positive(robot: Robot) -> None:
    stamps, truth, _ = sweeps(robot, 2000, seed=9)
    tracker = JointTracker(robot)
    states, _ = feed(tracker, stamps, truth, np.full(6, 1e-4))
    covariances = np.stack([state.covariance for state in states])
    np.testing.assert_allclose(covariances, covariances.swapaxes(-1, -2), rtol=1e-9)
    assert (np.linalg.eigvalsh(covariances) > 0.0).all()


def test_stays_within_joint_limits(robot: Robot) -> None:
    tracker = JointTracker(robot)
    tracker.update(0, robot.upper + 1.0, np.full(6, 0.01))
    np.testing.assert_array_equal(tracker.state.position, robot.upper)


@pytest.mark.parametrize("silence_ns", [FORGET_NS + 1, 3600 * 10**9, 10**18])
def test_starts_anew_after_a_silence(robot: Robot, silence_ns: int) -> None:
    tracker, fresh = JointTracker(robot), JointTracker(robot)
    tracker.update(0, robot.home, STD)
    for each in (tracker, fresh):
        each.update(silence_ns, robot.home + 0.1, np.full(6, 0.02))
    np.testing.assert_array_equal(tracker.state.covariance, fresh.state.covariance)
    assert not tracker.state.velocity.any()


def test_a_continuous_joint_is_followed_around(turntable: Robot) -> None:
    """Two turns and back at noisy angles, each within one turn; the other joint is not wrapped."""
    rng = np.random.default_rng(10)
    seconds = np.arange(600) * PERIOD_NS * 1e-9
    turning = 0.5 + 7.0 * np.sin(0.4 * seconds)
    truth = np.stack([turning, 0.3 * np.sin(seconds)], axis=1)
    std = np.full(2, math.radians(3.0))
    measured = truth + std * rng.standard_normal(truth.shape)
    measured[:, 0] = turntable.lower[0] + np.mod(measured[:, 0] - turntable.lower[0], 2.0 * math.pi)
    tracker = JointTracker(turntable)
    states, reports = feed(tracker, np.arange(600) * PERIOD_NS, measured, std)
    found = positions(states)
    assert (found[:, 0] >= turntable.lower[0]).all() and (found[:, 0] < turntable.upper[0]).all()
    assert np.abs(np.diff(found[:, 0])).max() > 6.0  # it went around
    error = found - truth
    error[:, 0] = np.mod(error[:, 0] + math.pi, 2.0 * math.pi) - math.pi
    assert rms(error[90:]) < 0.7 * std[0]
    assert all(report.used.all() for report in reports)
    velocity = np.array([state.velocity[0] for state in states])
    assert rms((velocity - 2.8 * np.cos(0.4 * seconds))[90:]) < 0.4
    ahead = tracker.predict(600 * PERIOD_NS + 10**9).position
    assert turntable.lower[0] <= ahead[0] < turntable.upper[0]


def test_a_hair_below_the_seam_is_not_the_upper_limit(turntable: Robot) -> None:
    tracker = JointTracker(turntable)
    tracker.update(0, np.array([np.nextafter(turntable.lower[0], -10.0), 0.0]), STD[:2])
    assert turntable.lower[0] <= tracker.state.position[0] < turntable.upper[0]


def test_a_continuous_joint_with_late_measurements_over_the_seam(turntable: Robot) -> None:
    stamps = np.arange(30) * PERIOD_NS
    angles = np.stack([3.4 + 2.0 * stamps * 1e-9, np.zeros(30)], axis=1)
    angles[:, 0] = turntable.lower[0] + np.mod(angles[:, 0] - turntable.lower[0], 2.0 * math.pi)
    ordered, shuffled = JointTracker(turntable), JointTracker(turntable)
    feed(ordered, stamps, angles, STD[:2])
    order = [k + (1 if k % 2 == 0 else -1) for k in range(30)]
    feed(shuffled, stamps[order], angles[order], STD[:2])
    assert ordered.state.position[0] == pytest.approx(angles[-1, 0], abs=0.02)
    np.testing.assert_allclose(shuffled.state.position, ordered.state.position, rtol=0.0, atol=1e-12)

"""How good the joint filter is: on white noise, for which it must be consistent, and on the encoder's own errors."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ropes_ros.encoder import Encoder, load_encoder, shipped_model
from ropes_ros.motion import Trajectory
from ropes_ros.regimes import make_schedule
from ropes_ros.robot import Robot, load_robot
from ropes_ros.sim.canonical import NO_FAULTS
from ropes_ros.sim.following import follow
from ropes_ros.sim.look import PLAIN
from ropes_ros.sim.recordings import draw
from ropes_ros.tracking import JointTracker
from ropes_ros.units import NANOSECONDS

Array = NDArray[np.float64]

RATE = 30
"""Frames a second."""
RUNS = 60
"""Independent runs on white noise."""
BURN_IN_S, RUN_S, APART_S = 3.0, 5.0, 8.0
"""Time in s until the filter has learned what it is fed with, length of a run on white noise, and time from one run's
start to the next one's."""
SIMULATED_S = 60.0
"""Length in s of the motion that the encoder sees."""
SEED = 2000
"""Of motions and noise; recordings have small ones."""
NOISE = math.radians(4.0)
"""White noise in rad: the root mean square of the shipped model's std."""
MOST_LAG = 6
"""Frames by which an estimate is shifted at most to find its lag."""


class Tracked(NamedTuple):
    """What the filter made of N measurements of J joints.

    Attributes:
        position, velocity, position_std, velocity_std: float64 [N, J], rad and rad/s.
        nis: Normalised innovations squared, float64 [N, J].
        used: bool [N, J]; False for outliers.
    """

    position: Array
    velocity: Array
    position_std: Array
    velocity_std: Array
    nis: Array
    used: NDArray[np.bool_]


def track(
    robot: Robot, stamps_ns: NDArray[np.int64], measured: Array, std: Array, commanded_velocity: Array | None = None
) -> Tracked:
    """Filter measurements one by one.

    Args:
        robot: The robot.
        stamps_ns: int64 [N].
        measured: float64 [N, J], rad.
        std: Of what was measured, float64 [N, J], rad.
        commanded_velocity: float64 [N, J], rad/s, where the filter is to know it.
    """
    tracker = JointTracker(robot)
    rows = []
    for k, stamp in enumerate(stamps_ns.tolist()):
        command = None if commanded_velocity is None else commanded_velocity[k]
        what = tracker.update(stamp, measured[k], std[k], command)
        state = tracker.state
        rows.append((state.position, state.velocity, state.position_std, state.velocity_std, what.nis, what.used))
    return Tracked(*(np.stack(column) for column in zip(*rows, strict=True)))


def chi_square_band(numbers: int) -> tuple[float, float]:
    """Where the mean of so many independent squared standard normal numbers lies in 95 % of cases.

    By Wilson and Hilferty's cube root (1931), good to 0.001 from 100 numbers up.
    """
    spread = 2.0 / (9.0 * numbers)
    low, high = ((1.0 - spread + sign * 1.96 * math.sqrt(spread)) ** 3 for sign in (-1.0, 1.0))
    return low, high


def white_noise_figures(robot: Robot, std: float, *, commands: bool = False) -> dict[str, Any]:
    """The filter's error and consistency on commanded sweeps that are seen with white noise.

    The runs are parts of one long schedule, whose segments are drawn independently, with noise of their own. Normalised
    errors are taken at the last frame of each run.

    Args:
        robot: The robot.
        std: Of the noise, rad, as the filter is told.
        commands: Whether the filter knows the commanded velocities.

    Returns:
        By name: `rmse_ratio` (filtered over raw position errors, after the burn-in), `velocity_rmse` in rad/s,
        `nees` and `nis` (means of squared normalised errors and innovations), `nees_band` (where 95 % of consistent
        filters' lie), and `outliers` (share of measurements).
    """
    first = round(BURN_IN_S * RATE)
    stamps = _stamps(RUN_S)
    motion = Trajectory(robot, make_schedule(robot, duration_s=(RUNS + 2) * APART_S, seed=SEED))
    estimates, truths, velocities, raws = [], [], [], []
    rng = np.random.default_rng(SEED)
    for run in range(1, RUNS + 1):
        times = stamps + round(run * APART_S * NANOSECONDS)
        truth, velocity = motion.positions_at(times), motion.velocities_at(times)
        raw = truth + std * rng.standard_normal(truth.shape)
        estimates.append(track(robot, stamps, raw, np.full_like(raw, std), velocity if commands else None))
        truths.append(truth)
        velocities.append(velocity)
        raws.append(raw)
    found = Tracked(*(np.stack(column)[:, first:] for column in zip(*estimates, strict=True)))
    truth, velocity, raw = (np.stack(rows)[:, first:] for rows in (truths, velocities, raws))
    last = (found.position - truth)[:, -1] / found.position_std[:, -1]
    return {
        "rmse_ratio": _rms(found.position - truth) / _rms(raw - truth),
        "velocity_rmse": _rms(found.velocity - velocity),
        "nees": float((last**2).mean()),
        "nees_band": chi_square_band(last.size),
        "nis": float(found.nis[:, -1].mean()),
        "outliers": float(1.0 - found.used.mean()),
    }


class Watched(NamedTuple):
    """A simulated motion as an encoder sees it, N frames of J joints.

    Attributes:
        stamps_ns: int64 [N].
        truth: Angles, float64 [N, J], rad.
        commanded_velocity: float64 [N, J], rad/s.
        measured, std: The encoder's, float64 [N, J], rad.
    """

    stamps_ns: NDArray[np.int64]
    truth: Array
    commanded_velocity: Array
    measured: Array
    std: Array


def watch_motion(robot: Robot, encoder: Encoder, *, seed: int = SEED, rate: int = RATE) -> Watched:
    """Let an encoder watch the simulated arm follow a schedule, with lag and sag."""
    schedule = make_schedule(robot, duration_s=SIMULATED_S, seed=seed)
    stamps = _stamps(SIMULATED_S, rate)
    truth = follow(robot, schedule, frames=len(stamps), rate=rate, faults=NO_FAULTS, seed=seed)
    estimates = [encoder.run(picture) for picture in draw(robot, truth, lambda _: PLAIN)]
    return Watched(
        stamps,
        truth,
        Trajectory(robot, schedule).velocities_at(stamps),
        np.concatenate([estimate.position for estimate in estimates]).astype(np.float64),
        np.concatenate([estimate.std for estimate in estimates]).astype(np.float64),
    )


def watched_figures(robot: Robot, watched: Watched, *, commands: bool = False) -> dict[str, Any]:
    """The filter's error and honesty on an encoder's errors, after the burn-in.

    Returns:
        By name: `rmse_ratio` (filtered over raw, mean over joints), `velocity_rmse` in rad/s, `nees` and `raw_nees`
        (mean squares of normalised position errors), `within_1_std` and `within_2_std` (shares), `lag_frames` and
        `raw_lag_frames` (by which the estimate follows the truth), and `outliers` (share of measurements).
    """
    command = watched.commanded_velocity if commands else None
    found = track(robot, watched.stamps_ns, watched.measured, watched.std, command)
    seconds = watched.stamps_ns / NANOSECONDS
    first = int(np.searchsorted(seconds, seconds[0] + BURN_IN_S))
    velocity = np.gradient(watched.truth, seconds, axis=0)[first:]
    truth, measured, std = watched.truth[first:], watched.measured[first:], watched.std[first:]
    estimate = found.position[first:]
    error, raw = estimate - truth, measured - truth
    scaled = np.abs(error / found.position_std[first:])
    return {
        "rmse_ratio": float(np.sqrt((error**2).mean(axis=0) / (raw**2).mean(axis=0)).mean()),
        "velocity_rmse": _rms(found.velocity[first:] - velocity),
        "nees": float((scaled**2).mean()),
        "raw_nees": float(((raw / std) ** 2).mean()),
        "within_1_std": float((scaled <= 1.0).mean()),
        "within_2_std": float((scaled <= 2.0).mean()),
        "lag_frames": lag(estimate, truth),
        "raw_lag_frames": lag(measured, truth),
        "outliers": float(1.0 - found.used[first:].mean()),
    }


def lag(estimate: Array, truth: Array) -> float:
    """Frames by which an estimate [N, J] follows the truth [N, J]: the peak of their cross-correlation.

    Between frames the peak is that of a parabola through the three highest values.
    """
    inner = slice(MOST_LAG, len(truth) - MOST_LAG)
    reference = truth[inner] - truth[inner].mean(axis=0)
    scores = []
    for shift in range(-MOST_LAG, MOST_LAG + 1):
        moved = estimate[MOST_LAG + shift : len(truth) - MOST_LAG + shift]
        scores.append(float(np.corrcoef((moved - moved.mean(axis=0)).ravel(), reference.ravel())[0, 1]))
    best = int(np.clip(np.argmax(scores), 1, len(scores) - 2))
    before, peak, after = scores[best - 1 : best + 2]
    return best - MOST_LAG + 0.5 * (before - after) / (before - 2.0 * peak + after)


def filter_figures() -> dict[str, Any]:
    """The figures by which the filter is judged, from arm6 and its shipped model, with fixed seeds.

    Returns:
        `filter_rmse_ratio`, `nees`, `nees_band` and `nees_ok` on white noise of 4 deg, the root mean square of the
        shipped model's std; `half_noise_rmse_ratio` of 2 deg, without and with commands; `real_rmse_ratio`, `real_nees`
        and `lag_frames` on the shipped model's estimates of simulated pictures.
    """
    robot = load_robot("arm6")
    white = white_noise_figures(robot, NOISE)
    half = [white_noise_figures(robot, NOISE / 2.0, commands=commands) for commands in (False, True)]
    encoder = load_encoder(shipped_model(robot.name), robot=robot.name, threads=1)
    real = watched_figures(robot, watch_motion(robot, encoder))
    low, high = white["nees_band"]
    return {
        "filter_rmse_ratio": white["rmse_ratio"],
        "nees": white["nees"],
        "nees_band": (low, high),
        "nees_ok": low <= white["nees"] <= high,
        "half_noise_rmse_ratio": [figures["rmse_ratio"] for figures in half],
        "real_rmse_ratio": real["rmse_ratio"],
        "real_nees": real["nees"],
        "lag_frames": real["lag_frames"],
    }


def _stamps(seconds: float, rate: int = RATE) -> NDArray[np.int64]:
    """Stamps in ns of a video from 1 / rate on."""
    return np.round(np.arange(1, round(seconds * rate) + 1) * (NANOSECONDS / rate)).astype(np.int64)


def _rms(values: Array) -> float:
    return float(np.sqrt((values**2).mean()))

"""Training in a light that drifts from start to end of a recording; see `bags.drift_figures`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ropes_ros.bags import TOPICS, BagWriter
from ropes_ros.bench.bags import image_cdr, in_order, source_times
from ropes_ros.dataset import FrameSet
from ropes_ros.importing import regime_cdr, regime_states
from ropes_ros.inspecting import inspect_bag
from ropes_ros.learning.calibrate import predict
from ropes_ros.learning.checkpoint import load_checkpoint, load_net
from ropes_ros.learning.mechanism import MechanismLikelihood, level_shares
from ropes_ros.learning.train import TrainConfig, train
from ropes_ros.learning.validation import leakage, prepare
from ropes_ros.motion import Trajectory
from ropes_ros.regimes import Schedule, make_schedule
from ropes_ros.robot import Robot, load_robot
from ropes_ros.sim.canonical import fresh_positions
from ropes_ros.sim.look import Look
from ropes_ros.sim.recordings import Looks, Take, draw, record
from ropes_ros.units import NANOSECONDS

RATE = 8
DRIFT = (0.6, 1.4)
"""Brightness of lamp and ambient light at start and end, as a share of the steady light's."""
LAMP, AMBIENT = 0.45, 0.42
"""Brightness of the steady light."""
POSES = 400
START_NS = NANOSECONDS
NETWORK_SIZE = (88, 80)


def measure(folder: Path, *, minutes: float, epochs: int) -> dict[str, Any]:
    """The figures of `bags.drift_figures`; everything is kept in `folder`."""
    robot = load_robot("arm6")
    schedule = make_schedule(robot, duration_s=60.0 * minutes, seed=0)
    steady = _recorded(robot, schedule, folder, (1.0, 1.0))
    drifting = _recorded(robot, schedule, folder, DRIFT)
    ordered_schedule, moved = in_order(schedule)
    ordered = _ordered(drifting, ordered_schedule, moved)
    config = TrainConfig(epochs=epochs)
    checkpoints = {
        name: train(frames, folder / name, config=config).checkpoint
        for name, frames in (("steady", steady), ("drifting", drifting))
    }
    errors = {
        name: _error(robot, checkpoints[name], frames) for name, frames in (("steady", steady), ("drifting", drifting))
    }
    found = {}
    for name, frames, plan in (("drifting", drifting, schedule), ("ordered", ordered, ordered_schedule)):
        _write(folder / f"bag-{name}", robot, plan, frames)
        leaks = _leaks(checkpoints["drifting"], frames, config)
        found[name] = {
            "inspect": inspect_bag(folder / f"bag-{name}", robot=robot).sequential,
            "leakage": any("held in blocks" in sentence for sentence in leaks),
            "sentences": list(leaks),
        }
    flagged = found["ordered"]["inspect"] and found["ordered"]["leakage"]
    silent = not found["drifting"]["inspect"] and not found["drifting"]["leakage"]
    return {
        "drift_error_ratio": errors["drifting"] / errors["steady"],
        "sequential_flagged": bool(flagged and silent),
        "drift_errors_deg": errors,
        "drift_found": found,
    }


def _light(level: float) -> Look:
    return Look(lamp_rgb=np.full(3, LAMP * level), ambient_rgb=np.full(3, AMBIENT * level))


def _recorded(robot: Robot, schedule: Schedule, folder: Path, light: tuple[float, float]) -> FrameSet:
    """The arm follows the schedule exactly in a light that changes linearly."""
    count = schedule.duration_ns * RATE // NANOSECONDS
    elapsed = np.arange(count, dtype=np.int64) * NANOSECONDS // RATE
    positions = Trajectory(robot, schedule).positions_at(elapsed)

    def take() -> Take:
        return Take(
            stamps_ns=START_NS + elapsed,
            labels=schedule.labels_at(elapsed),
            segments=schedule.segment_ids_at(elapsed),
            positions=positions,
            commanded=positions,
            level_ids=schedule.levels.ids,
            log_density=schedule.log_commanded,
            level_label_noise=schedule.label_noise,
            schedule_hash=schedule.hash,
        )

    def looks(frames: int) -> Looks:
        return _changing(frames, light)

    arguments = {"kind": "bench_drift", "schedule": schedule.hash, "rate": RATE, "light": list(light)}
    return record(robot, arguments, take, looks, size=NETWORK_SIZE, cache_dir=folder / "cache").frames


def _changing(frames: int, light: tuple[float, float]) -> Callable[[int], Look]:
    levels = np.linspace(*light, frames)
    return lambda frame: _light(float(levels[frame]))


def _ordered(frames: FrameSet, schedule: Schedule, moved: NDArray[np.int64]) -> FrameSet:
    """The frames put in the schedule's order, with its labels."""
    elapsed = frames.stamps_ns - START_NS
    rows = np.clip(np.round(source_times(elapsed, moved) * RATE / NANOSECONDS).astype(np.int64), 0, len(frames) - 1)
    details = frames.details
    assert details is not None
    return replace(
        frames,
        images=frames.images[rows],
        labels=schedule.labels_at(elapsed),
        segments=schedule.segment_ids_at(elapsed),
        schedule_hash=schedule.hash,
        bag_hash=schedule.hash,
        details=_Reordered(details, rows),
    )


class _Reordered:
    """Pixels of frames in another order."""

    def __init__(self, source: Any, rows: NDArray[np.int64]) -> None:
        self._source, self._rows = source, rows

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """See `dataset.PixelSource`."""
        pixels: NDArray[np.uint8] = self._source.read(self._rows[indices])
        return pixels


def _error(robot: Robot, checkpoint: Path, frames: FrameSet) -> float:
    """Mean angular error in deg of fresh poses, in lights between the ends of the drift."""
    positions = fresh_positions(robot, POSES, seed=99)
    levels = np.random.default_rng(99).uniform(*DRIFT, POSES)
    images = np.stack(
        [
            cv2.resize(frames.region.cut(picture), NETWORK_SIZE, interpolation=cv2.INTER_AREA)
            for picture in draw(robot, positions, lambda frame: _light(float(levels[frame])))
        ]
    )
    fresh = replace(frames, images=images.astype(np.uint8))
    angle = predict(load_net(load_checkpoint(checkpoint)), fresh, np.arange(POSES, dtype=np.int64)).angle
    return float(np.degrees(np.abs(robot.denormalise(angle) - positions)).mean())


def _leaks(checkpoint: Path, frames: FrameSet, config: TrainConfig) -> tuple[str, ...]:
    prepared = prepare(frames, span_s=config.span_s, seed=config.seed)
    shares = level_shares(prepared.split.labels[prepared.split.train], frames.joint_names, frames.level_ids)
    objective = MechanismLikelihood(frames.log_density, shares)
    net = load_net(load_checkpoint(checkpoint))
    return leakage(net, frames, prepared.split, objective, control=prepared.control).sentences


def _write(path: Path, robot: Robot, schedule: Schedule, frames: FrameSet) -> None:
    """The frames, as the network sees them, as a bag."""
    with BagWriter(
        path, robot=robot.name, schedule_yaml=schedule.to_yaml(), schedule_hash=schedule.hash
    ) as writer:
        writer.add_topic(TOPICS["image"], "sensor_msgs/msg/Image")
        writer.add_topic(TOPICS["regime"], "diagnostic_msgs/msg/DiagnosticArray")
        for state in regime_states(schedule, START_NS):
            writer.write(TOPICS["regime"], regime_cdr(state, schedule.joint_names), state.stamp_ns)
        for image, stamp in zip(frames.images, frames.stamps_ns.tolist(), strict=True):
            writer.write(TOPICS["image"], image_cdr(image, stamp, compressed=False), stamp)

"""Canonical data sets of the built-in simulator, by seed: independent poses, recorded sweeps, and fresh poses.

Independent poses and sweeps are what methods learn from; fresh poses are what they are judged by. The camera is the
preset's, 320x240.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ropes_ros.densities import Density, Levels
from ropes_ros.errors import RopesError, TrainingError
from ropes_ros.framing import Crop
from ropes_ros.motion import Trajectory
from ropes_ros.regimes import make_schedule
from ropes_ros.robot import Robot
from ropes_ros.schedule import GRID
from ropes_ros.sim.arm import SimArm
from ropes_ros.sim.evaluation_nuisances import evaluation_looks
from ropes_ros.sim.following import Faults, follow
from ropes_ros.sim.nuisances import CONDITIONS, check_condition
from ropes_ros.sim.recordings import CAMERA_SIZE, Looks, Recording, Take, draw, record
from ropes_ros.sim.training_nuisances import training_looks
from ropes_ros.units import NANOSECONDS

__all__ = [
    "CAMERA_SIZE",
    "CONDITIONS",
    "POSES",
    "Faults",
    "Recording",
    "fresh_pictures",
    "fresh_poses",
    "fresh_positions",
    "iid_poses",
    "sweeps",
]

RATE = 30
"""Frames a second."""
START_NS = NANOSECONDS
"""Time at which recordings start; 0 would mean 'no time' to ROS."""
OBSERVATIONAL = "obs"
"""Id of the level that joints hold which are not intervened on, in the single-joint design."""

NO_FAULTS = Faults()
POSES = ("uniform", "observational", "extrapolation")
OUTSIDE_SHARE, BEYOND = 0.2, 0.2
"""Of extrapolation: a joint's chance to lie outside the box besides the one that always does, and by how much."""

Design = Literal["factorial", "single_joint"]
LevelSet = Levels | Mapping[str, Density]


def iid_poses(
    robot: Robot,
    n: int,
    *,
    seed: int,
    size: tuple[int, int],
    cache_dir: Path,
    levels: LevelSet | None = None,
    design: Design = "factorial",
    condition: str = "clean",
) -> Recording:
    """Independent poses: each frame's angles are drawn anew from its levels, and reached exactly.

    Args:
        robot: A robot whose preset has a `sim` section.
        n: Number of frames.
        seed: Seed of levels, angles and surroundings.
        size: (width, height) in pixels of the images.
        cache_dir: Folder of the cache.
        levels: The levels; a plain mapping is not checked for telling every u from every other. By default 8 bumps,
            or for single_joint two tilts and the observational level.
        design: `factorial` (every joint's level is drawn independently) or `single_joint` (2 J + 1 regimes for three
            levels: in each at most one joint leaves the level `obs`; equally many frames of each, in random order).
        condition: Of the surroundings, one of CONDITIONS.

    Raises:
        TrainingError: The design is unknown, its levels lack `obs`, or the size does not suit.
    """
    if levels is None:
        levels = Levels.bumps() if design == "factorial" else Levels.tilts(observational=True)
    densities = {level: levels[level] for level in levels}
    arguments = {
        "kind": "iid_poses",
        "n": n,
        "seed": seed,
        "levels": [[level, density.to_mapping()] for level, density in densities.items()],
        "design": design,
        "condition": condition,
    }

    def take() -> Take:
        rng = np.random.default_rng([seed, 0])
        labels = _labels(design, list(densities), n, len(robot.joints), rng)
        u = np.empty(labels.shape)
        for index, density in enumerate(densities.values()):
            chosen = labels == index
            u[chosen] = density.sample(rng, int(chosen.sum()))
        positions = robot.denormalise(u)
        pdf = np.stack([density.pdf(GRID) for density in densities.values()])
        table = np.broadcast_to(pdf, (len(robot.joints), *pdf.shape))
        ids = np.broadcast_to(np.arange(n, dtype=np.int32)[:, None], labels.shape)
        return Take(
            stamps_ns=_stamps(n),
            labels=labels,
            segments=ids,
            positions=positions,
            commanded=positions,
            level_ids=tuple(densities),
            log_density=np.log(table),
            level_label_noise=_label_noise(pdf),
            schedule_hash=hashlib.sha256(json.dumps(arguments).encode()).hexdigest(),
        )

    looks = _looks(condition, robot, seed, video=False)
    return record(robot, arguments, take, looks, size=size, cache_dir=cache_dir)


def _labels(design: str, ids: list[str], n: int, joints: int, rng: np.random.Generator) -> NDArray[np.int16]:
    """Level of each frame and joint, int16 [N, J]."""
    if design == "factorial":
        return rng.integers(0, len(ids), (n, joints)).astype(np.int16)
    if design != "single_joint":
        raise TrainingError(f"unknown design '{design}': known are factorial, single_joint")
    if OBSERVATIONAL not in ids:
        raise TrainingError(f"the single-joint design needs a level '{OBSERVATIONAL}', got {', '.join(ids)}")
    rest = ids.index(OBSERVATIONAL)
    regimes = [(joint, level) for joint in range(joints) for level in range(len(ids)) if level != rest]
    labels = np.full((n, joints), rest, dtype=np.int16)
    for frame, regime in enumerate(rng.permutation(np.arange(n) % (len(regimes) + 1))):
        if regime < len(regimes):
            joint, level = regimes[regime]
            labels[frame, joint] = level
    return labels


def _label_noise(density: NDArray[np.float64]) -> float:
    """As Schedule.label_noise, from the levels' densities [K, G]."""
    curve = np.sqrt(density / density.sum(axis=0))
    information = 4.0 * (np.gradient(curve, GRID, axis=-1) ** 2).sum(axis=0)
    weights = density.sum(axis=0)
    weights[[0, -1]] *= 0.5
    return float(1.0 / np.sqrt(np.average(information, weights=weights)))


def _stamps(n: int) -> NDArray[np.int64]:
    """Stamps of n frames in ns."""
    return START_NS + np.round(np.arange(1, n + 1) * (NANOSECONDS / RATE)).astype(np.int64)


def sweeps(
    robot: Robot,
    minutes: float,
    *,
    seed: int,
    size: tuple[int, int],
    cache_dir: Path,
    condition: str = "clean",
    faults: Faults = NO_FAULTS,
    crop: Crop | None = None,
) -> Recording:
    """A recorded schedule of sweeps: 30 frames a second of an arm that lags behind its commands and sags a little.

    Args:
        robot: A robot whose preset has a `sim` section.
        minutes: Length of the schedule.
        seed: Seed of the schedule and of the surroundings.
        size: (width, height) in pixels of the images.
        cache_dir: Folder of the cache.
        condition: Of the surroundings, one of CONDITIONS.
        faults: In what the arm and its camera fall short of the commands and their clock.
        crop: What to keep of the pictures, for a network that knows a part of them; that in which anything moves when
            None.

    Raises:
        ScheduleError: The length is not one that a schedule can have.
        TrainingError: The size does not suit.
    """
    arguments = {
        "kind": "sweeps",
        "minutes": minutes,
        "seed": seed,
        "condition": condition,
        "faults": asdict(faults),
    }

    def take() -> Take:
        schedule = make_schedule(robot, duration_s=60.0 * minutes, seed=seed)
        count = round(60.0 * minutes * RATE)
        stamps = _stamps(count) + round(faults.camera_delay_s * NANOSECONDS)
        elapsed = stamps - START_NS
        return Take(
            stamps_ns=stamps,
            labels=schedule.labels_at(elapsed),
            segments=schedule.segment_ids_at(elapsed),
            positions=follow(robot, schedule, frames=count, rate=RATE, faults=faults, seed=seed),
            commanded=Trajectory(robot, schedule).positions_at(elapsed),
            level_ids=schedule.levels.ids,
            log_density=schedule.log_commanded,
            level_label_noise=schedule.label_noise,
            schedule_hash=schedule.hash,
        )

    looks = _looks(condition, robot, seed, video=True)
    return record(robot, arguments, take, looks, size=size, cache_dir=cache_dir, crop=crop)


def _looks(condition: str, robot: Robot, seed: int, *, video: bool) -> Callable[[int], Looks]:
    """The surroundings of a recording, given its number of frames."""
    check_condition(condition)
    return lambda count: training_looks(
        condition, robot, seed=seed, count=count, rate=RATE, video=video, size=CAMERA_SIZE
    )


def fresh_poses(
    robot: Robot, n: int, *, seed: int, poses: str = "uniform", condition: str = "clean"
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Poses never recorded, for evaluation.

    Args:
        robot: A robot whose preset has a `sim` section.
        n: Number of poses.
        seed: Seed of poses and surroundings.
        poses: One of POSES: `uniform` over the joint box; `observational`, as `iid_poses` draws them by default;
            `extrapolation`, with at least one joint outside the box by up to a fifth of a half range, free of
            collisions and within the joints' limits.
        condition: Of the surroundings, one of CONDITIONS.

    Returns:
        The camera's images, uint8 [N, H, W, 3] RGB, and the angles, float64 [N, J] in rad.

    Raises:
        RopesError: Poses or condition are unknown.
    """
    positions = fresh_positions(robot, n, seed=seed, poses=poses)
    images = np.empty((n, CAMERA_SIZE[1], CAMERA_SIZE[0], 3), dtype=np.uint8)
    for row, picture in zip(images, fresh_pictures(robot, positions, seed=seed, condition=condition), strict=True):
        row[...] = picture
    return images, positions


def fresh_pictures(
    robot: Robot, positions: NDArray[np.float64], *, seed: int, condition: str = "clean"
) -> Iterator[NDArray[np.uint8]]:
    """The pictures of `fresh_poses` of positions [N, J] in rad, each uint8 [H, W, 3], one by one."""
    return draw(robot, positions, evaluation_looks(condition, robot, seed=seed, size=CAMERA_SIZE))


def fresh_positions(robot: Robot, n: int, *, seed: int, poses: str = "uniform") -> NDArray[np.float64]:
    """The angles of `fresh_poses`, float64 [N, J] in rad."""
    rng = np.random.default_rng([seed, 1])
    shape = n, len(robot.joints)
    if poses == "uniform":
        return robot.denormalise(rng.uniform(-1.0, 1.0, shape))
    if poses == "observational":
        densities = Levels.bumps().densities
        chosen = rng.integers(0, len(densities), shape)
        draws = np.stack([density.sample(rng, shape) for density in densities])
        return robot.denormalise(np.take_along_axis(draws, chosen[None], axis=0)[0])
    if poses != "extrapolation":
        raise RopesError(f"unknown poses '{poses}': known are {', '.join(POSES)}")
    arm = SimArm(robot, render=False)
    kept: list[NDArray[np.float64]] = []
    while len(kept) < n:
        position = robot.denormalise(_beyond(rng, shape[1]))
        inside = (position >= robot.lower).all() and (position <= robot.upper).all()
        if inside and not arm.collides(position):
            kept.append(position)
    return np.stack(kept)


def _beyond(rng: np.random.Generator, joints: int) -> NDArray[np.float64]:
    """A pose u [J] with at least one joint outside the box."""
    u = rng.uniform(-1.0, 1.0, joints)
    outside = rng.random(joints) < OUTSIDE_SHARE
    outside[rng.integers(joints)] = True
    return np.where(outside, np.copysign(rng.uniform(1.0, 1.0 + BEYOND, joints), u), u)

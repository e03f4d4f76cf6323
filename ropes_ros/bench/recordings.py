"""The recordings that cells learn from, made once and shared."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ropes_ros.bench.cells import Cell
from ropes_ros.densities import Bump, Density, Levels, Observational
from ropes_ros.framing import Crop
from ropes_ros.robot import Robot, load_robot
from ropes_ros.sim.canonical import Faults, Recording, iid_poses, sweeps

ROBOT = "arm6"

LEVELS: dict[str, Mapping[str, Density] | Levels | None] = {
    "default": None,
    "4 bumps": Levels.bumps(4, 0.25),
    "12 bumps": Levels.bumps(12, 0.1),
    "tilts": Levels.tilts(),
    "variances": {"narrow": Bump(0.0, 0.25), "wide": Bump(0.0, 1.0), "obs": Observational()},
}
"""Level sets besides the canonical sets' own (8 bumps of width 0.15; for single-joint designs tilts t = 2 and `obs`).
"variances" are two hard interventions about one centre whose variances are x0.25 and x4 that of a width of 0.5."""

FAULTS: dict[str, Faults] = {
    "none": Faults(),
    "late camera": Faults(camera_delay_s=0.2),
    "sag and backlash": Faults(sag=0.05, backlash_rad=0.03),
    "not executed": Faults(unexecuted=0.05),
}
MOVED_BY = (-0.06, 0.08, 0.0)
"""How far the camera of "moved" stands from its place (10 cm), in m; it looks at the same point."""


def bench_robot(camera: str = "preset") -> Robot:
    """The arm of all cells, its camera in its place or moved."""
    robot = load_robot(ROBOT)
    if camera == "preset":
        return robot
    sim = robot.preset["sim"]
    place = [round(value + by, 6) for value, by in zip(sim["camera"]["position"], MOVED_BY, strict=True)]
    moved: dict[str, Any] = {**sim, "camera": {**sim["camera"], "position": place}}
    return Robot({**robot.preset, "sim": moved, "urdf": str(robot.urdf_path)}, robot.urdf_path)


def recording(cell: Cell, size: tuple[int, int], cache_dir: Path, crop: Crop | None = None) -> Recording:
    """A cell's recording; a second process that wants the same one waits for the first to have drawn it.

    Args:
        cell: The cell.
        size: (width, height) in pixels of the images.
        cache_dir: Folder that all cells share.
        crop: Of sweeps, what the network that is started from knows of the pictures.
    """
    arguments: dict[str, Any] = {"seed": cell.seed, "size": size, "cache_dir": cache_dir, "condition": cell.condition}
    said = [cell.kind, cell.frames, cell.design, cell.levels, cell.faults, cell.camera, cell.seed, cell.condition, size]
    said += [crop] if crop else []
    digest = hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]
    cache_dir.mkdir(parents=True, exist_ok=True)
    robot = bench_robot(cell.camera)
    with (cache_dir / f"{digest}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if cell.kind == "sweeps":
            return sweeps(robot, cell.minutes, faults=FAULTS[cell.faults], crop=crop, **arguments)
        design: Any = cell.design
        return iid_poses(robot, cell.frames, levels=LEVELS[cell.levels], design=design, **arguments)


def shrunk(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture, uint8 [H, W, 3], averaged by area to (width, height), as recordings are."""
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)

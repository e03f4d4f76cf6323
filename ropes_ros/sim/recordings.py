"""Simulated recordings on disk: drawn once, kept without loss, and offered as a bag's frames would be.

An entry of the cache is a folder that is filled under another name and renamed when it is whole. It holds the swept
region's pixels at the camera's resolution, from which images of any smaller size are made.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import cv2
import numpy as np
from numpy.typing import NDArray

from ropes_ros.dataset import FrameSet
from ropes_ros.errors import RopesError, TrainingError
from ropes_ros.framing import Crop, Region, swept_region
from ropes_ros.pixels import PixelStore, write_pixels
from ropes_ros.robot import Robot
from ropes_ros.schedule import GRID
from ropes_ros.sim.arm import SimArm
from ropes_ros.sim.look import Look
from ropes_ros.sim.scene import mujoco

CAMERA_SIZE = (320, 240)
"""(width, height) in pixels of the camera of all canonical sets."""
SURROUNDINGS_SEED = 0
"""Seed of the surroundings of all canonical sets, which is `SimArm`'s default."""

_VERSION = 1
_INDEX_FILE = "index.npz"
_REGION_SAMPLES = 1000
_BLOCK = 256

Looks = Callable[[int], Look]
"""How the surroundings of a frame look, by the frame's number."""


class Recording(NamedTuple):
    """A simulated recording, with what no real one tells.

    Attributes:
        frames: What learning may see.
        positions: float64 [N, J] in rad, the joints' angles in the picture.
        commanded: float64 [N, J] in rad, what was commanded at the frame's stamp.
        robot: The robot.
    """

    frames: FrameSet
    positions: NDArray[np.float64]
    commanded: NDArray[np.float64]
    robot: Robot


class Take(NamedTuple):
    """All of a recording but its pixels; see FrameSet and Recording."""

    stamps_ns: NDArray[np.int64]
    labels: NDArray[np.int16]
    segments: NDArray[np.int32]
    positions: NDArray[np.float64]
    commanded: NDArray[np.float64]
    level_ids: tuple[str, ...]
    log_density: NDArray[np.float64]
    level_label_noise: float
    schedule_hash: str


def record(
    robot: Robot,
    arguments: Mapping[str, Any],
    take: Callable[[], Take],
    looks: Callable[[int], Looks],
    *,
    size: tuple[int, int],
    cache_dir: Path,
    crop: Crop | None = None,
) -> Recording:
    """Draw a recording, or read it from the cache.

    Args:
        robot: The robot.
        arguments: All that `take` and `looks` depend on besides the robot, as plain values.
        take: Makes everything but the pixels.
        looks: The surroundings of the frames, given their number.
        size: (width, height) in pixels of the images.
        cache_dir: Folder of the cache; may be shared and deleted at any time.
        crop: What to keep of the pictures; that in which anything moves when None.

    Raises:
        TrainingError: The size is larger than the region in which anything moves.
    """
    said = [_VERSION, mujoco.__version__, CAMERA_SIZE, _identity(robot), arguments, *([crop] if crop else [])]
    key = json.dumps(said, sort_keys=True)
    digest = hashlib.sha256(key.encode()).hexdigest()
    folder = Path(cache_dir) / f"sim-{digest[:32]}"
    entry = _read(folder)
    if entry is None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix="partial-", dir=folder.parent))
        try:
            _fill(partial, robot, take(), looks, crop)
            with suppress(OSError):  # another process was faster with the same entry
                os.rename(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        entry = _read(folder)
        if entry is None:
            raise RopesError(f"{folder}: was written and cannot be read; free space on its disk, or name another cache")
    made, region, details = entry
    frames = FrameSet(
        images=_images(folder, details, size),
        stamps_ns=made.stamps_ns,
        labels=made.labels,
        segments=made.segments,
        joint_names=robot.joint_names,
        level_ids=made.level_ids,
        grid=GRID,
        log_density=made.log_density,
        level_label_noise=made.level_label_noise,
        robot=robot.name,
        schedule_hash=made.schedule_hash,
        camera_size=CAMERA_SIZE,
        region=region,
        bag_hash=digest,
        duplicates=0,
        details=details,
        home=robot.home,
        half_range=robot.half_range,
    )
    return Recording(frames, made.positions, made.commanded, robot)


def draw(robot: Robot, positions: NDArray[np.float64], looks: Looks) -> Iterator[NDArray[np.uint8]]:
    """The camera's pictures of the robot at positions [N, J] in rad, each uint8 [H, W, 3], one by one."""
    arm = SimArm(robot, *CAMERA_SIZE, seed=SURROUNDINGS_SEED)
    try:
        for number, position in enumerate(positions):
            arm.set_positions(position)
            yield arm.render(looks(number))
    finally:
        arm.close()


def _identity(robot: Robot) -> list[Any]:
    """What the robot's pictures and motions depend on, as plain values."""
    return [robot.preset, hashlib.sha256(robot.urdf_path.read_bytes()).hexdigest()]


def _fill(
    folder: Path, robot: Robot, take: Take, looks: Callable[[int], Looks], crop: Crop | None
) -> None:
    """Draw all frames into a cache folder, cut to the region that is swept, or to the crop."""
    count = len(take.positions)
    of_frame = looks(count)
    chosen = np.unique(np.linspace(0, count - 1, min(count, _REGION_SAMPLES)).astype(np.int64))
    samples = list(draw(robot, take.positions[chosen], lambda row: of_frame(int(chosen[row]))))
    region = swept_region(samples, (1, 1))
    if crop is not None:
        region = crop.over(region, CAMERA_SIZE)
    pictures = samples if len(samples) == count else draw(robot, take.positions, of_frame)
    write_pixels(folder, (region.cut(picture) for picture in pictures))
    values = {**take._asdict(), "level_ids": np.array(take.level_ids), "region": np.array(region)}
    np.savez(folder / _INDEX_FILE, **values)


def _read(folder: Path) -> tuple[Take, Region, PixelStore] | None:
    """A cache folder's content; None where it is missing or damaged."""
    try:
        with np.load(folder / _INDEX_FILE) as index:
            values = {name: index[name] for name in index.files}
        region = Region(*values.pop("region").tolist())
        for name in ("level_label_noise", "schedule_hash"):
            values[name] = values[name].item()
        take = Take(**{**values, "level_ids": tuple(values["level_ids"].tolist())})
        details = PixelStore(folder)
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile, RopesError):
        return None
    return (take, region, details) if len(details) == len(take.stamps_ns) else None


def _images(folder: Path, details: PixelStore, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The frames resized by area, memory-mapped, made now where there are none of this size."""
    if size[0] > details.size[0] or size[1] > details.size[1]:
        raise TrainingError(
            f"images of {size[0]}x{size[1]} were asked for, the region in which anything moves has"
            f" {details.size[0]}x{details.size[1]} pixels: ask for less"
        )
    path = folder / f"images-{size[0]}x{size[1]}.npy"
    with suppress(OSError, ValueError, EOFError):
        images: NDArray[np.uint8] = np.load(path, mmap_mode="r")
        return images
    with tempfile.NamedTemporaryFile(dir=folder, prefix="partial-", suffix=".npy", delete=False) as stream:
        partial = Path(stream.name)
    try:
        pixels = np.lib.format.open_memmap(
            partial, mode="w+", dtype=np.uint8, shape=(len(details), size[1], size[0], 3)
        )
        for start in range(0, len(details), _BLOCK):
            rows = np.arange(start, min(start + _BLOCK, len(details)))
            for row, frame in zip(rows, details.read(rows), strict=True):
                cv2.resize(frame, size, dst=pixels[row], interpolation=cv2.INTER_AREA)
        pixels.flush()
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    images = np.load(path, mmap_mode="r")
    return images

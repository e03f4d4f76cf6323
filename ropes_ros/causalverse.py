"""Reading CausalVerse's robotic scenes: frames of a camera with the true values of the factors. For evaluation only.

CausalVerse (Chen et al., NeurIPS 2025, arXiv 2510.14049) is a public benchmark of causal representation learning;
its robotic manipulation scenes (kitchen, living, study, general) are videos of a fixed arm with its state at every
frame. Read here is the layout that the benchmark's own loader reads (github.com/CausalVerse/CausalVerseBenchmark,
`video_part/readme.md` and `video_part/src/data_modules/fixed_robotics_dataset.py`, seen November 2026):

    SCENE/meta/EPISODE.npz          arrays by name, row t belongs to frame t of the videos:
                                    joint_pos, joint_vel, eef_pos, eef_quat, gripper_qpos, gripper_qvel [T, D],
                                    pos_objects, rot_objects [objects, T, D]
    SCENE/meta/EPISODE_meta.json    the scene's constants (or EPISODE.json); not needed here
    SCENE/video/EPISODE_VIEW.mp4    VIEW is agentview, birdview, frontview, robot0_eye_in_hand or sideview

The data sets on the Hugging Face hub (such as CausalVerse/CausalVerse_Video_Robotics_Kitchen) hold the same in
tables with the columns videos, metavalue and npz_data, whose types their cards do not say: write them out as files
in this layout first. CausalVerse has no regimes of known density, so it serves methods that need none.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ropes_ros.errors import RopesError

VIEWS = ("agentview", "birdview", "frontview", "robot0_eye_in_hand", "sideview")
FACTORS = (
    "joint_pos", "joint_vel", "eef_pos", "eef_quat", "gripper_qpos", "gripper_qvel", "pos_objects", "rot_objects",
)  # fmt: skip


class CausalVerse(NamedTuple):
    """Frames of one view of one scene, episode after episode.

    Attributes:
        images: uint8 [N, h, w, 3], RGB.
        factors: True values at the frames, float64 [N, F], in the data set's units (rad, m).
        names: What the columns of `factors` are, [F]: `joint_pos[0]`, `pos_objects[1][2]` (object 1, number 2), ...
        episode: Number of the frame's episode, int64 [N].
        frame: Number of the frame in its episode's video, int64 [N].
        episodes: Names of the episodes.
        unpaired: Frames without a row of factors, or the reverse, that were left out at the ends of episodes.
    """

    images: NDArray[np.uint8]
    factors: NDArray[np.float64]
    names: tuple[str, ...]
    episode: NDArray[np.int64]
    frame: NDArray[np.int64]
    episodes: tuple[str, ...]
    unpaired: int


def load_causalverse(
    scene: str | Path,
    *,
    view: str = "frontview",
    size: tuple[int, int] = (128, 128),
    factors: Sequence[str] = ("joint_pos",),
    every: int = 1,
    max_episodes: int | None = None,
) -> CausalVerse:
    """Read a scene of CausalVerse's robotic manipulation domain.

    Args:
        scene: Folder of the scene, with the folders meta and video.
        view: Camera, one of VIEWS.
        size: (width, height) to which whole frames are resized by area.
        factors: Arrays of the episodes' files to return, of FACTORS, in this order.
        every: Only every so many frames of an episode, from its first on.
        max_episodes: Only so many episodes, the first in alphabetical order; all when None.

    Raises:
        RopesError: Not this layout, an unknown view or factor, a file that is missing, damaged or holds no finite
            numbers, or episodes whose arrays differ in shape.
    """
    folder = Path(scene)
    if view not in VIEWS:
        raise RopesError(f"CausalVerse has no view '{view}': take one of {', '.join(VIEWS)}")
    unknown = [name for name in factors if name not in FACTORS]
    if unknown or not factors:
        raise RopesError(f"CausalVerse has no factors {unknown or '(none asked for)'}: take {', '.join(FACTORS)}")
    if every < 1 or min(size) < 1 or (max_episodes is not None and max_episodes < 1):
        raise RopesError(
            f"every ({every}), size {size} and max_episodes ({max_episodes}) must be at least 1 to read any frame"
        )
    for part in ("meta", "video"):
        if not (folder / part).is_dir():
            raise RopesError(
                f"{folder} is no scene of CausalVerse: it has no folder '{part}' (expected are {folder}/meta/*.npz and "
                f"{folder}/video/*_{view}.mp4)"
            )
    tables = sorted((folder / "meta").glob("*.npz"))[:max_episodes]
    if not tables:
        raise RopesError(f"{folder / 'meta'} holds no episode (*.npz): download the scene's meta folder whole")

    names: tuple[str, ...] = ()
    parts: list[tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.int64]]] = []
    unpaired = 0
    for table in tables:
        columns, values = _read_factors(table, factors)
        if names and columns != names:
            raise RopesError(
                f"{table} has {len(columns)} numbers a frame in {', '.join(factors)}, {tables[0].name} has "
                f"{len(names)}: leave out the factors whose number differs between episodes (those of objects)"
            )
        names = columns
        images, length = _read_video(folder / "video" / f"{table.stem}_{view}.mp4", len(values), every, size)
        unpaired += abs(length - len(values))
        chosen = np.arange(0, min(length, len(values)), every)
        parts.append((images, values[chosen], chosen))
    return CausalVerse(
        np.concatenate([images for images, _, _ in parts]),
        np.concatenate([values for _, values, _ in parts]),
        names,
        np.repeat(np.arange(len(parts)), [len(chosen) for _, _, chosen in parts]),
        np.concatenate([chosen for _, _, chosen in parts]),
        tuple(table.stem for table in tables),
        unpaired,
    )


def _read_factors(table: Path, factors: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Names of the columns, and float64 [T, F], of one episode."""
    names: list[str] = []
    columns: list[NDArray[np.float64]] = []
    try:
        with np.load(table, allow_pickle=False) as arrays:
            for factor in factors:
                if factor not in arrays:
                    raise RopesError(f"{table} has no array '{factor}': it has {', '.join(sorted(arrays))}")
                array = np.asarray(arrays[factor], dtype=np.float64)
                if array.ndim not in (2, 3) or not array.size:
                    raise RopesError(
                        f"{table}: '{factor}' has the shape {array.shape}: expected is [frames, numbers] or "
                        "[objects, frames, numbers], none of them 0"
                    )
                if not np.isfinite(array).all():
                    raise RopesError(f"{table}: '{factor}' holds what is not a finite number: leave the episode out")
                if array.ndim == 2:
                    names += [f"{factor}[{number}]" for number in range(array.shape[1])]
                    columns.append(array)
                else:
                    objects, frames, numbers = array.shape
                    names += [f"{factor}[{which}][{number}]" for which in range(objects) for number in range(numbers)]
                    columns.append(array.transpose(1, 0, 2).reshape(frames, objects * numbers))
    except (OSError, EOFError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise RopesError(f"{table} cannot be read as arrays of numbers ({error}): download it again") from None
    if len({len(column) for column in columns}) > 1:
        lengths = ", ".join(f"{factor} {len(column)}" for factor, column in zip(factors, columns, strict=True))
        raise RopesError(f"{table}: arrays of one episode differ in length ({lengths}): leave the episode out")
    return tuple(names), np.hstack(columns)


def _read_video(path: Path, rows: int, every: int, size: tuple[int, int]) -> tuple[NDArray[np.uint8], int]:
    """Every so many of the first `rows` frames, uint8 [n, h, w, 3] RGB, and how many frames there are in all."""
    if not path.is_file():
        raise RopesError(f"{path} does not exist: download the scene's videos of this view, or take another view")
    video = cv2.VideoCapture(str(path))
    images: list[NDArray[np.uint8]] = []
    length = 0
    try:
        while video.grab():
            if length < rows and length % every == 0:
                decoded, pixels = video.retrieve()
                if not decoded:
                    raise RopesError(f"{path}: frame {length} cannot be decoded: download the video again")
                small = cv2.resize(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), size, interpolation=cv2.INTER_AREA)
                images.append(small.astype(np.uint8, copy=False))
            length += 1
    finally:
        video.release()
    if not images:
        raise RopesError(f"{path} holds no frame that can be decoded: download the video again")
    return np.stack(images), length

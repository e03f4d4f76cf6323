"""A bag as a LeRobotDataset v3.0: Parquet tables, MP4 videos and their metadata.

The layout is that of huggingface/lerobot, `codebase_version` v3.0: data/ and videos/ in chunks of files, and
meta/info.json, stats.json, tasks.parquet and episodes/. Readers ask a video for the frame at a timestamp and allow
0.1 ms: frames therefore lie on a grid of a fixed rate, each showing the image nearest in time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ropes_ros import __version__
from ropes_ros.errors import RopesError, RuntimeSetupError
from ropes_ros.frame_table import FrameTable
from ropes_ros.optional import need
from ropes_ros.units import NANOSECONDS
from ropes_ros.whole_folder import whole_folder

VERSION = "v3.0"
CHUNK = 1000
"""Files in a folder at most."""
CAMERA = "observation.images.camera"
LONGEST_S = 300.0
"""Longest episode; longer recordings are cut, so that videos stay of a handy size."""
LONGEST_GAP_S = 0.5
"""A longer time without images ends an episode, so that no picture stands for another time."""
LEAST_FRAMES = 10
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"
_CODEC = "mp4v"
_STAT_FRAMES = 100
_QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}

Progress = Callable[[int, int], None]
"""Called with (frames done, frames in all)."""


class Dataset(NamedTuple):
    """What was written.

    Attributes:
        path: The folder.
        episodes: Number of episodes.
        frames: Number of frames.
        shown_twice: Frames that show the same image as the one before.
        left_out: Images that no frame shows.
    """

    path: Path
    episodes: int
    frames: int
    shown_twice: int
    left_out: int


class _Episode(NamedTuple):
    """Frames on the grid of time: `rows` [n] are the numbers of the images that they show."""

    rows: NDArray[np.int64]


def export_lerobot(
    frames: FrameTable, out: Path, *, fps: int | None = None, task: str, progress: Progress | None = None
) -> Dataset:
    """Write a dataset.

    `action` holds commanded positions in rad, `regime` the number of each joint's level (-1 for none; their names are
    in info.json), `observation.state` measured positions, where the frames have them.

    Args:
        frames: The images.
        out: Folder to create.
        fps: Frames a second; by default the images' own rate, rounded.
        task: What the robot does, in words.
        progress: Called now and then.

    Raises:
        RopesError: The folder exists or cannot be written, or there are too few images; nothing is left of it then.
        RuntimeSetupError: pyarrow is not installed, or OpenCV cannot write MP4.
        BagError: A damaged image, or images of several sizes.
    """
    need("pyarrow", extra="lerobot")
    steps = np.diff(frames.stamps_ns)
    if len(steps) < LEAST_FRAMES:
        raise RopesError(f"{frames.path}: {len(frames.stamps_ns)} images are too few for a dataset")
    rate = fps or max(1, round(NANOSECONDS / float(np.median(steps))))
    episodes = [episode for episode in _episodes(frames, rate) if len(episode.rows) >= LEAST_FRAMES]
    if not episodes:
        raise RopesError(f"{frames.path}: no stretch of images without a gap is as long as {LEAST_FRAMES} frames")
    writer = _Writer(frames, out, rate, task, episodes)
    total = sum(len(episode.rows) for episode in episodes)
    with whole_folder(out):
        for done in writer.write():
            if progress is not None:
                progress(done, total)
    shown = np.concatenate([episode.rows for episode in episodes])
    return Dataset(
        out,
        len(episodes),
        total,
        total - len(np.unique(shown)),
        len(frames.stamps_ns) - len(np.unique(shown)),
    )


def _episodes(frames: FrameTable, rate: int) -> Iterator[_Episode]:
    """Stretches without gaps, on a grid of time that starts with each; where commands are known, if there are any."""
    stamps = frames.stamps_ns
    usable = np.ones(len(stamps), dtype=np.bool_)
    for positions in (frames.commanded, frames.measured):
        if positions is not None:
            usable &= np.isfinite(positions).all(axis=1)
    numbers = np.flatnonzero(usable)
    if not len(numbers):
        return
    ends = np.flatnonzero(np.diff(stamps[numbers]) > LONGEST_GAP_S * NANOSECONDS) + 1
    for part in np.split(numbers, ends):
        length = (stamps[part[-1]] - stamps[part[0]]) / NANOSECONDS
        pieces = max(1, int(np.ceil(length / LONGEST_S)))
        count = int(length * rate) + 1
        grid = stamps[part[0]] + np.round(np.arange(count) * (NANOSECONDS / rate)).astype(np.int64)
        after = np.clip(np.searchsorted(stamps[part], grid), 0, len(part) - 1)
        before = np.maximum(after - 1, 0)
        nearer = np.abs(stamps[part][before] - grid) <= np.abs(stamps[part][after] - grid)
        rows = part[np.where(nearer, before, after)]
        for piece in np.array_split(rows, pieces):
            yield _Episode(piece)


class _Writer:
    """Writes episode by episode; images pass by once."""

    def __init__(self, frames: FrameTable, out: Path, rate: int, task: str, episodes: list[_Episode]) -> None:
        self._frames, self._out, self._rate, self._task, self._episodes = frames, out, rate, task, episodes
        self._columns: dict[str, NDArray[Any]] = {"regime": self._levels()}
        if frames.commanded is not None:
            self._columns["action"] = frames.commanded.astype(np.float32)
        if frames.measured is not None:
            self._columns["observation.state"] = frames.measured.astype(np.float32)
        self._size: tuple[int, int] | None = None
        self._stats: list[dict[str, dict[str, Any]]] = []

    def _levels(self) -> NDArray[np.int64]:
        found = np.full(self._frames.levels.shape, -1, dtype=np.int64)
        for number, level in enumerate(self._frames.schedule.levels.ids):
            found[self._frames.levels == level] = number
        return found

    def write(self) -> Iterator[int]:
        """Write it all; yields the number of frames written so far."""
        self._out.mkdir(parents=True)
        images = self._frames.images()
        done = 0
        for number, episode in enumerate(self._episodes):
            path = self._out / VIDEO_PATH.format(video_key=CAMERA, **_place(number))
            samples = []
            every = max(1, len(episode.rows) // _STAT_FRAMES)
            for position, image in enumerate(self._film(images, episode, path)):
                if position % every == 0:
                    samples.append(cv2.resize(image, (64, 48), interpolation=cv2.INTER_AREA).reshape(-1, 3) / 255.0)
                done += 1
                if done % 50 == 0:
                    yield done
            self._stats.append(self._table(number, episode, done - len(episode.rows), np.stack(samples)))
        self._metadata(done)
        yield done

    def _film(
        self, images: Iterator[tuple[int, NDArray[np.uint8]]], episode: _Episode, path: Path
    ) -> Iterator[NDArray[np.uint8]]:
        """Write an episode's video; yields its frames."""
        path.parent.mkdir(parents=True, exist_ok=True)
        number, image = next(images)
        while number < episode.rows[0]:
            number, image = next(images)
        size = (image.shape[1], image.shape[0])
        if self._size not in (None, size):
            raise RopesError(f"{self._frames.path}: images change their size: a video has one")
        self._size = size
        video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*_CODEC), self._rate, size)
        if not video.isOpened():
            raise RuntimeSetupError(
                f"{path}: this OpenCV cannot write MP4; install an opencv-python that was built with FFmpeg"
            )
        try:
            for row in episode.rows.tolist():
                while number < row:
                    number, image = next(images)
                if (image.shape[1], image.shape[0]) != size:
                    raise RopesError(f"{self._frames.path}: images change their size: a video has one")
                video.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
                yield image
        finally:
            video.release()

    def _table(
        self, number: int, episode: _Episode, first: int, samples: NDArray[np.float64]
    ) -> dict[str, dict[str, Any]]:
        """Write an episode's table; its statistics by feature."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        count = len(episode.rows)
        frame = np.arange(count, dtype=np.int64)
        plain: dict[str, NDArray[Any]] = {
            "timestamp": (frame / self._rate).astype(np.float32),
            "frame_index": frame,
            "episode_index": np.full(count, number, dtype=np.int64),
            "index": first + frame,
            "task_index": np.zeros(count, dtype=np.int64),
        }
        columns = {name: column[episode.rows] for name, column in self._columns.items()}
        arrays = {name: _array(values) for name, values in {**columns, **plain}.items()}
        path = self._out / DATA_PATH.format(**_place(number))
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(arrays), path)
        stats = {name: _statistics(values.reshape(count, -1)) for name, values in {**columns, **plain}.items()}
        stats[CAMERA] = {
            name: value if name == "count" else [[[channel]] for channel in value]
            for name, value in _statistics(samples.reshape(-1, 3)).items()
        }
        stats[CAMERA]["count"] = [len(samples)]
        return stats

    def _metadata(self, total: int) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        folder = self._out / "meta"
        rows = []
        first = 0
        for number, (episode, stats) in enumerate(zip(self._episodes, self._stats, strict=True)):
            count = len(episode.rows)
            place = _place(number)
            rows.append(
                {
                    "episode_index": number,
                    "tasks": [self._task],
                    "length": count,
                    "data/chunk_index": place["chunk_index"],
                    "data/file_index": place["file_index"],
                    "dataset_from_index": first,
                    "dataset_to_index": first + count,
                    f"videos/{CAMERA}/chunk_index": place["chunk_index"],
                    f"videos/{CAMERA}/file_index": place["file_index"],
                    f"videos/{CAMERA}/from_timestamp": 0.0,
                    f"videos/{CAMERA}/to_timestamp": count / self._rate,
                    "meta/episodes/chunk_index": 0,
                    "meta/episodes/file_index": 0,
                    **{f"stats/{name}/{key}": value for name, own in stats.items() for key, value in own.items()},
                }
            )
            first += count
        (folder / "episodes" / "chunk-000").mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), self._out / EPISODES_PATH)
        pq.write_table(_tasks(self._task), folder / "tasks.parquet")
        (folder / "info.json").write_text(json.dumps(self._info(total), indent=4), encoding="utf-8")
        (folder / "stats.json").write_text(json.dumps(_pooled(self._stats), indent=4), encoding="utf-8")

    def _info(self, total: int) -> dict[str, Any]:
        assert self._size is not None
        width, height = self._size
        joints = list(self._frames.schedule.joint_names)
        features: dict[str, Any] = {
            CAMERA: {
                "dtype": "video",
                "shape": [height, width, 3],
                "names": ["height", "width", "channels"],
                "info": {
                    "video.height": height,
                    "video.width": width,
                    "video.codec": "mpeg4",
                    "video.pix_fmt": "yuv420p",
                    "video.is_depth_map": False,
                    "video.fps": self._rate,
                    "video.channels": 3,
                    "has_audio": False,
                },
            }
        }
        for name, column in self._columns.items():
            features[name] = {"dtype": column.dtype.name, "shape": [column.shape[1]], "names": joints}
        features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
        for name in ("frame_index", "episode_index", "index", "task_index"):
            features[name] = {"dtype": "int64", "shape": [1], "names": None}
        return {
            "codebase_version": VERSION,
            "robot_type": self._frames.schedule.robot,
            "total_episodes": len(self._episodes),
            "total_frames": total,
            "total_tasks": 1,
            "chunks_size": CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": self._rate,
            "splits": {"train": f"0:{len(self._episodes)}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH,
            "features": features,
            "ropes_ros": {
                "version": __version__,
                "schedule_hash": self._frames.schedule.hash,
                "levels": list(self._frames.schedule.levels.ids),
            },
        }


def _place(episode: int) -> dict[str, int]:
    """Where an episode's files lie: one of each kind to an episode."""
    return {"chunk_index": episode // CHUNK, "file_index": episode % CHUNK}


def _array(values: NDArray[Any]) -> Any:
    """A column of Parquet: plain numbers, or lists of a fixed length."""
    import pyarrow as pa

    if values.ndim == 1 or values.shape[1] == 1:
        return pa.array(values.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def _tasks(task: str) -> Any:
    """The table of tasks as pandas writes one that is indexed by the task's words."""
    import pyarrow as pa

    text = {"pandas_type": "unicode", "numpy_type": "object", "metadata": None}
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [{"name": None, "field_name": None, **text, "metadata": {"encoding": "UTF-8"}}],
        "columns": [
            {
                "name": "task_index",
                "field_name": "task_index",
                "pandas_type": "int64",
                "numpy_type": "int64",
                "metadata": None,
            },
            {"name": "task", "field_name": "task", **text},
        ],
        "pandas_version": "2.2.0",
    }
    table = pa.table({"task_index": pa.array([0], pa.int64()), "task": pa.array([task])})
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def _statistics(values: NDArray[Any]) -> dict[str, list[Any]]:
    """Statistics of columns [N, n], as plain lists."""
    values = values.astype(np.float64)
    found: dict[str, Any] = {
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "mean": values.mean(axis=0),
        "std": values.std(axis=0),
        **{name: np.quantile(values, share, axis=0) for name, share in _QUANTILES.items()},
    }
    return {**{name: value.tolist() for name, value in found.items()}, "count": [len(values)]}


def _pooled(stats: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Statistics of all episodes from those of each; quantiles as their means weighted by frames, as lerobot does."""
    out: dict[str, dict[str, Any]] = {}
    for name in stats[0]:
        counts = np.array([own[name]["count"][0] for own in stats], dtype=np.float64)
        parts = {key: np.array([own[name][key] for own in stats]) for key in stats[0][name] if key != "count"}
        share = (counts / counts.sum()).reshape(-1, *(1,) * (parts["mean"].ndim - 1))
        mean = (parts["mean"] * share).sum(axis=0)
        variance = ((parts["std"] ** 2 + (parts["mean"] - mean) ** 2) * share).sum(axis=0)
        pooled = {key: (parts[key] * share).sum(axis=0) for key in _QUANTILES}
        found = {
            "min": parts["min"].min(axis=0),
            "max": parts["max"].max(axis=0),
            "mean": mean,
            "std": np.sqrt(variance),
            **pooled,
        }
        out[name] = {**{key: value.tolist() for key, value in found.items()}, "count": [int(counts.sum())]}
    return out

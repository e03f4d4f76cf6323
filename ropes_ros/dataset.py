"""From an intervention bag to labelled frames: images, the level of each joint, and the densities commanded.

There are no angles here. The loader asks the bag for the image and the regime topic and for nothing else, so
it cannot hand out what a joint state message says; measured positions are the business of `ropes_ros.truth`,
for evaluation.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from zipfile import BadZipFile

import cv2
import numpy as np
from numpy.typing import NDArray

from ropes_ros.bags import Bag, open_bag
from ropes_ros.cdr import header_stamp, parse_compressed_image, parse_image
from ropes_ros.errors import BagError, RopesError, TrainingError
from ropes_ros.framing import Region, swept_region
from ropes_ros.images import compressed_to_rgb, to_rgb
from ropes_ros.regimes import RegimeState, RegimeTimeline, Schedule, regime_from_msg
from ropes_ros.units import NANOSECONDS

CACHE_VERSION = 2
_IN_FLIGHT = 32
_PIXEL_FILE, _INDEX_FILE = "images.npy", "index.npz"
_REGION_SAMPLES = 1000

Progress = Callable[[int, int], None]
"""Called with (frames done, frames in all)."""


class PixelSource(Protocol):
    """Where the pixels of frames are kept at the camera's resolution."""

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The region's pixels of chosen frames.

        Args:
            indices: int64 [n], increasing positions in the frame set.

        Returns:
            uint8 [n, H, W, 3] RGB, H and W those of the region.
        """
        ...


class BagPixels:
    """The region's pixels of a bag's frames, decoded when they are asked for; a `PixelSource`.

    Reading goes on where the last one ended, so that increasing indices pass through the bag once; what lies behind
    is found by starting again. Images are recognised by their stamps, of equal ones the first, as when the frames
    were loaded. Holds no pixels; reading is safe from several threads, one at a time.

    Args:
        bag_path: The bag.
        image_topic: Its image topic.
        stamps_ns: Header stamps of the frames in nanoseconds, int64 [N], strictly increasing.
        camera_size: (width, height) in pixels of the recorded images.
        region: The part of them to return.
    """

    def __init__(
        self,
        bag_path: Path,
        image_topic: str,
        stamps_ns: NDArray[np.int64],
        camera_size: tuple[int, int],
        region: Region,
    ) -> None:
        self._path, self._topic, self._stamps = bag_path, image_topic, stamps_ns
        self._camera_size, self._region = camera_size, region
        self._passed = np.zeros(len(stamps_ns), dtype=np.bool_)
        self._messages: Iterator[tuple[int, bytes, bool]] | None = None
        self._turn = threading.Lock()

    def __len__(self) -> int:
        return len(self._stamps)

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The region's pixels of chosen frames.

        Args:
            indices: int64 [n], increasing positions in 0..N - 1.

        Returns:
            uint8 [n, H, W, 3] RGB, H and W those of the region, a new array.

        Raises:
            BagError: The bag is damaged, or no longer holds the images that it held when the frames were loaded.
            ValueError: Indices do not increase, or are none of the frames'.
        """
        wanted = np.asarray(indices, dtype=np.int64)
        if len(wanted) and (wanted[0] < 0 or wanted[-1] >= len(self) or (np.diff(wanted) <= 0).any()):
            raise ValueError(f"indices must increase within 0..{len(self) - 1}")
        pixels = np.empty((len(wanted), self._region.height, self._region.width, 3), dtype=np.uint8)
        rows = {int(index): row for row, index in enumerate(wanted)}
        with self._turn:
            messages, self._messages = self._messages, None  # after an error the next reading starts again
            if messages is None or self._passed[wanted].any():
                self._passed[:] = False
                messages = self._frames()
            while rows:
                try:
                    index, data, compressed = next(messages)
                except StopIteration:
                    raise BagError(
                        f"{self._path}: the image stamped {self._stamps[min(rows)]} ns is no longer there: the bag has "
                        "changed, load its frames again"
                    ) from None
                row = rows.pop(index, None)
                if row is not None:
                    pixels[row] = self._decoded(data, compressed)
            self._messages = messages
        return pixels

    def _frames(self) -> Iterator[tuple[int, bytes, bool]]:
        """Index, message and compression of every frame, in recorded order; the bag is open meanwhile."""
        with open_bag(self._path, topics={"image": self._topic}) as bag:
            compressed = _is_compressed(bag, bag.topic("image"))
            for message in bag.messages([self._topic]):
                with _naming(self._path, self._topic):
                    stamp_ns = header_stamp(message.data)
                index = int(np.searchsorted(self._stamps, stamp_ns))
                if index < len(self) and self._stamps[index] == stamp_ns:
                    self._passed[index] = True
                    yield index, message.data, compressed

    def _decoded(self, data: bytes, compressed: bool) -> NDArray[np.uint8]:
        with _naming(self._path, self._topic):
            _, image = decode_image(data, compressed, self._topic)
        if (image.shape[1], image.shape[0]) != self._camera_size:
            raise BagError(f"{self._path}: images on {self._topic} change their size: record again with one size")
        return self._region.cut(image)


@dataclass(frozen=True)
class FrameSet:
    """Frames of one bag in order of their stamps, with what is known of how they came about.

    Attributes:
        images: uint8 [N, h, w, 3] RGB, memory-mapped.
        stamps_ns: int64 [N], header stamps in nanoseconds, strictly increasing.
        labels: int16 [N, J], index of the level that each joint was commanded at, -1 for none.
        segments: int32 [N, J], id of the segment of each joint, -1 for none.
        joint_names: Names of the J joints in the robot preset's order.
        level_ids: Names of the K levels.
        grid: float64 [G], normalised angle u on [-1, 1].
        log_density: float64 [J, K, G], log of the density really commanded, per unit of u.
        level_label_noise: Standard deviation in half ranges of the position label that a level amounts to.
        robot: Name of the robot preset.
        schedule_hash: Hash of the schedule that was commanded.
        camera_size: (width, height) in pixels of the recorded images.
        region: The part of the recorded images that `images` show.
        bag_hash: SHA-256 of the bag's storage.
        duplicates: Number of images left out because their stamp had been seen.
        details: The region's pixels at the camera's resolution, where they are kept.
        home: Joint angle at u = 0 that was commanded, float64 [J], rad; empty where it is not known.
        half_range: Joint angle from u = 0 to u = 1, float64 [J], rad; empty where it is not known.
    """

    images: NDArray[np.uint8]
    stamps_ns: NDArray[np.int64]
    labels: NDArray[np.int16]
    segments: NDArray[np.int32]
    joint_names: tuple[str, ...]
    level_ids: tuple[str, ...]
    grid: NDArray[np.float64]
    log_density: NDArray[np.float64]
    level_label_noise: float
    robot: str
    schedule_hash: str
    camera_size: tuple[int, int]
    region: Region
    bag_hash: str
    duplicates: int
    details: PixelSource | None = None
    home: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    half_range: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def __len__(self) -> int:
        return len(self.stamps_ns)

    def description(self) -> dict[str, Any]:
        """Where the frames come from, as plain values."""
        return {
            "robot": self.robot,
            "joint_names": list(self.joint_names),
            "level_ids": list(self.level_ids),
            "level_label_noise": self.level_label_noise,
            "schedule_hash": self.schedule_hash,
            "camera_size": list(self.camera_size),
            "region": list(self.region),
            "bag_hash": self.bag_hash,
            "frames": len(self),
            "home": self.home.tolist(),
            "half_range": self.half_range.tolist(),
        }


class Split(NamedTuple):
    """Frames assigned to uses by contiguous spans of time.

    Attributes:
        train, validation, calibration: int64 indices of frames with at least one label, increasing.
        labels: int16 [N, J], the frames' labels without those of segments that reach into two uses.
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    calibration: NDArray[np.int64]
    labels: NDArray[np.int16]


def load_frames(
    bag_path: str | Path,
    *,
    size: tuple[int, int],
    cache_dir: str | Path,
    topics: Mapping[str, str] | None = None,
    schedule: Schedule | None = None,
    schedule_start_ns: int | None = None,
    progress: Progress | None = None,
) -> FrameSet:
    """Load the frames of a bag with their labels.

    Images are cut to the region in which anything moves, and resized once, by area, into a memory-mapped file in
    `cache_dir`, keyed by the bag's content.

    Args:
        bag_path: The bag.
        size: (width, height) in pixels to resize to, not larger than the camera's.
        cache_dir: Folder for resized images; may be shared by many bags and deleted at any time.
        topics: Topic of the roles "image" and "regime", for bags from elsewhere or with several cameras.
        schedule: The schedule, for bags that do not hold it.
        schedule_start_ns: Time at which the schedule began, for bags without a regime topic.
        progress: Called now and then while images are read.

    Raises:
        BagError: The bag lacks a topic or a schedule, holds damaged or changing images, or no labelled frame.
    """
    with open_bag(bag_path, topics=topics, schedule=schedule) as bag:
        schedule = bag.schedule
        entry = _cached(bag, size, Path(cache_dir), schedule_start_ns is None, progress)
        stamps = entry.stamps_ns
        if schedule_start_ns is None:
            timeline = _timeline(bag, entry.regimes, schedule)
            labels, segments = timeline.labels_at(stamps), timeline.segment_ids_at(stamps)
        else:
            elapsed = stamps - schedule_start_ns
            labels, segments = schedule.labels_at(elapsed), schedule.segment_ids_at(elapsed)
        if not (labels >= 0).any():
            repeated = (
                f" ({entry.duplicates} more images repeat a stamp: does the camera's driver stamp each image with its "
                "time?)"
                if entry.duplicates
                else ""
            )
            raise BagError(
                f"{bag.path}: none of its {len(stamps)} frames is in a regime{repeated}: were camera and commander on "
                "the same clock (use_sim_time), and did the commander run while the bag was recorded?"
            )
        if not np.isfinite(schedule.log_commanded).all():
            raise BagError(
                f"{bag.path}: the schedule's densities are zero somewhere: make one whose floor is higher"
            )
        return FrameSet(
            images=entry.images,
            stamps_ns=stamps,
            labels=labels,
            segments=segments,
            joint_names=tuple(schedule.joint_names),
            level_ids=tuple(schedule.levels.ids),
            grid=schedule.grid,
            log_density=schedule.log_commanded,
            level_label_noise=schedule.label_noise,
            robot=schedule.robot,
            schedule_hash=schedule.hash,
            camera_size=entry.camera_size,
            region=entry.region,
            bag_hash=entry.bag_hash,
            duplicates=entry.duplicates,
            details=BagPixels(bag.path, bag.topic("image"), stamps, entry.camera_size, entry.region),
            home=np.array([joint.home for joint in schedule.joints]),
            half_range=np.array([joint.half_range for joint in schedule.joints]),
        )


def split_spans(
    frames: FrameSet,
    *,
    span_s: float = 30.0,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
) -> Split:
    """Assign frames to training, validation and calibration by contiguous spans of time.

    Neighbouring frames of a video are near copies, so splitting frame by frame would validate on the training
    set. A segment whose frames fall into more than one use loses its label in all of them. A recording
    shorter than ten spans is cut into ten shorter ones.

    Args:
        frames: The frames.
        span_s: Length of a span in seconds.
        fractions: Shares of time for training, validation and calibration; they sum to 1.
        seed: Which spans go where.

    Raises:
        TrainingError: The fractions are no shares, or the recording is too short to fill all three uses.
    """
    if min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise TrainingError(f"fractions {fractions} must be positive and sum to 1")
    if span_s <= 0:
        raise TrainingError(f"span of {span_s} s must be positive")
    elapsed = frames.stamps_ns - frames.stamps_ns[0]
    span_ns = min(int(span_s * NANOSECONDS), -(-int(elapsed[-1] + 1) // 10))
    span_of_frame = np.unique(elapsed // max(1, span_ns), return_inverse=True)[1]
    use_of_span = _assign(int(span_of_frame[-1]) + 1, fractions, np.random.default_rng(seed))
    use = use_of_span[span_of_frame]
    labels = np.where(_crossing(frames.segments, use), np.int16(-1), frames.labels)
    labelled = (labels >= 0).any(axis=1)
    parts = [np.flatnonzero(labelled & (use == number)) for number in range(3)]
    for name, part in zip(("training", "validation", "calibration"), parts, strict=True):
        if not len(part):
            raise TrainingError(
                f"no labelled frame is left for {name}: {elapsed[-1] / NANOSECONDS:.0f} s of recording are "
                "too short, "
                "record at least some minutes"
            )
    return Split(parts[0], parts[1], parts[2], labels)


def _assign(spans: int, fractions: tuple[float, float, float], rng: np.random.Generator) -> NDArray[np.int64]:
    """Use (0, 1, 2) of each span: counts by largest remainder, at least one each, in random order."""
    exact = np.array(fractions) * spans
    counts = np.floor(exact).astype(np.int64)
    for number in np.argsort(counts - exact, kind="stable")[: spans - counts.sum()]:
        counts[number] += 1
    while counts.min() < 1 and counts.max() > 1:
        counts[np.argmax(counts)] -= 1
        counts[np.argmin(counts)] += 1
    return rng.permutation(np.repeat(np.arange(3), counts))


def _crossing(segments: NDArray[np.int32], use: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[N, J]: whether the frame's segment of that joint has frames of more than one use."""
    crossing = np.zeros(segments.shape, dtype=np.bool_)
    for joint in range(segments.shape[1]):
        ids, inverse = np.unique(segments[:, joint], return_inverse=True)
        seen = np.zeros((len(ids), 3), dtype=np.bool_)
        seen[inverse, use] = True
        crossing[:, joint] = (seen.sum(axis=1) > 1)[inverse]
    return crossing


def _timeline(bag: Bag, messages: Sequence[bytes], schedule: Schedule) -> RegimeTimeline:
    """The labels over time that a bag's regime messages tell."""
    states: list[RegimeState] = []
    for data in messages:
        message = bag.deserialize(data, "diagnostic_msgs/msg/DiagnosticArray")
        try:
            state = regime_from_msg(message, schedule.joint_names)
        except RopesError as error:
            raise BagError(f"{bag.path}: {error}") from error
        if state.schedule_hash != schedule.hash:
            raise BagError(
                f"{bag.path}: a regime of schedule {state.schedule_hash[:12]} was commanded, the schedule given is "
                f"{schedule.hash[:12]}: name the schedule that the commander ran (--schedule FILE)"
            )
        states.append(state)
    try:
        return RegimeTimeline(states, schedule.joint_names, schedule.levels.ids)
    except RopesError as error:
        raise BagError(f"{bag.path}: {error}") from error


class _Entry(NamedTuple):
    """What the cache holds of a bag."""

    images: NDArray[np.uint8]
    stamps_ns: NDArray[np.int64]
    regimes: list[bytes]
    camera_size: tuple[int, int]
    region: Region
    bag_hash: str
    duplicates: int


def _cached(
    bag: Bag, size: tuple[int, int], cache_dir: Path, with_regimes: bool, progress: Progress | None
) -> _Entry:
    """The cache's entry for a bag and a size, made now if it is not there.

    An entry is a folder that is filled under another name and renamed when it is whole.
    """
    image_topic = bag.topic("image")
    regime_topic = bag.topic("regime") if with_regimes else None
    bag_hash = bag.content_hash()
    key = json.dumps([CACHE_VERSION, bag_hash, image_topic, regime_topic, size])
    folder = cache_dir / f"frames-{hashlib.sha256(key.encode()).hexdigest()[:32]}"
    entry = _read_entry(folder, bag_hash)
    if entry is None:
        try:
            shutil.rmtree(folder, ignore_errors=True)
            cache_dir.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix="partial-", dir=cache_dir))
            try:
                _fill(bag, image_topic, regime_topic, size, partial, progress)
                with suppress(FileExistsError):  # another process was faster with the same entry
                    _publish(partial, folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        except OSError as error:
            raise BagError(
                f"{cache_dir}: frames cannot be cached ({error.strerror}): make room or choose another folder"
            ) from error
        entry = _read_entry(folder, bag_hash)
    if entry is None:
        raise BagError(f"{folder}: what was cached there just now cannot be read back: choose another cache folder")
    return entry


def _publish(partial: Path, folder: Path) -> None:
    try:
        os.rename(partial, folder)
    except OSError:
        if folder.is_dir():
            raise FileExistsError(str(folder)) from None
        raise


def _read_entry(folder: Path, bag_hash: str) -> _Entry | None:
    """An entry of the cache; None when it is not there or damaged."""
    try:
        images = np.load(folder / _PIXEL_FILE, mmap_mode="r")
        with np.load(folder / _INDEX_FILE) as index:
            ends = np.cumsum(index["regime_lengths"])
            blob = index["regimes"].tobytes()
            regimes = [
                blob[end - length : end] for end, length in zip(ends, index["regime_lengths"], strict=True)
            ]
            width, height = (int(value) for value in index["camera_size"])
            region = Region(*(int(value) for value in index["region"]))
            stamps_ns, duplicates = index["stamps_ns"], int(index["duplicates"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile, zlib.error):
        return None
    if len(images) != len(stamps_ns):
        return None
    return _Entry(images, stamps_ns, regimes, (width, height), region, bag_hash, duplicates)


def _fill(
    bag: Bag,
    image_topic: str,
    regime_topic: str | None,
    size: tuple[int, int],
    folder: Path,
    progress: Progress | None,
) -> None:
    """Decode and resize all images of a bag into a cache folder, by stamp and without duplicates."""
    total = bag.topics[image_topic].count
    width, height = size
    pixels = np.lib.format.open_memmap(
        folder / _PIXEL_FILE, mode="w+", dtype=np.uint8, shape=(total, height, width, 3)
    )
    stamps = np.empty(total, dtype=np.int64)
    cameras: set[tuple[int, int]] = set()
    regimes: list[bytes] = []
    compressed = _is_compressed(bag, image_topic)

    def convert(row: int, cdr: bytes) -> tuple[int, int]:
        stamps[row], image = decode_image(cdr, compressed, image_topic)
        camera = (image.shape[1], image.shape[0])
        if width > camera[0] or height > camera[1]:
            raise RopesError(
                f"images are {camera[0]}x{camera[1]}, {width}x{height} was asked for: ask for less"
            )
        cv2.resize(region.cut(image), size, dst=pixels[row], interpolation=cv2.INTER_AREA)
        return camera

    def collect(tasks: Iterable[Future[tuple[int, int]]]) -> None:
        for task in tasks:
            cameras.add(task.result())

    row = 0
    pending: list[Future[tuple[int, int]]] = []
    topics = [image_topic] if regime_topic is None else [image_topic, regime_topic]
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool, _naming(bag.path, image_topic):
        region = swept_region(_Samples(bag, image_topic), size)
        for message in bag.messages(topics):
            if message.topic == regime_topic:
                regimes.append(message.data)
                continue
            pending.append(pool.submit(convert, row, message.data))
            row += 1
            if len(pending) >= _IN_FLIGHT:
                collect(pending[: _IN_FLIGHT // 2])
                del pending[: _IN_FLIGHT // 2]
                if progress is not None:
                    progress(row, total)
        collect(pending)
    if row != total:
        raise BagError(
            f"{bag.path}: {total} images are announced, {row} are there: run `ropes recover {bag.path}`"
        )
    if len(cameras) != 1:
        sizes = ", ".join(f"{w}x{h}" for w, h in sorted(cameras))
        raise BagError(
            f"{bag.path}: images on {image_topic} change their size ({sizes}): record again with one size"
        )
    kept = np.unique(stamps, return_index=True)[1]
    if len(kept) != total or (kept != np.arange(total)).any():
        pixels = _reorder(pixels, kept, folder / _PIXEL_FILE)
    pixels.flush()
    np.savez(
        folder / _INDEX_FILE,
        stamps_ns=stamps[kept],
        regimes=np.frombuffer(b"".join(regimes), dtype=np.uint8),
        regime_lengths=np.array([len(data) for data in regimes], dtype=np.int64),
        camera_size=np.array(next(iter(cameras)), dtype=np.int64),
        region=np.array(region, dtype=np.int64),
        duplicates=np.int64(total - len(kept)),
    )
    if progress is not None:
        progress(total, total)


class _Samples(Sequence[NDArray[np.uint8]]):
    """Images evenly spaced over a bag; each is decoded when its turn comes, so that one is in memory at a time."""

    def __init__(self, bag: Bag, image_topic: str) -> None:
        self._bag, self._topic = bag, image_topic
        self._compressed = _is_compressed(bag, image_topic)
        self._every = max(1, bag.topics[image_topic].count // _REGION_SAMPLES)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        shape = None
        for message in islice(self._bag.messages([self._topic]), 0, None, self._every):
            image = decode_image(message.data, self._compressed, self._topic)[1]
            if shape not in (None, image.shape):
                return  # the error is told where all images are read
            shape = image.shape
            yield image

    def __getitem__(self, index: Any) -> Any:
        return next(islice(self, index, None))

    def __len__(self) -> int:
        return -(-self._bag.topics[self._topic].count // self._every)


def _is_compressed(bag: Bag, image_topic: str) -> bool:
    return bag.topics[image_topic].type_name.endswith("CompressedImage")


@contextmanager
def _naming(path: Path, topic: str) -> Iterator[None]:
    """Errors about a message name its bag and topic."""
    try:
        yield
    except BagError:
        raise
    except RopesError as error:
        raise BagError(f"{path}: {topic}: {error}") from error


def decode_image(cdr: bytes, compressed: bool, source: str) -> tuple[int, NDArray[np.uint8]]:
    """Header stamp in nanoseconds and RGB pixels, uint8 [H, W, 3], of a recorded image.

    Args:
        cdr: Serialised sensor_msgs/Image or CompressedImage.
        compressed: Which of the two it is.
        source: Topic or file, for messages.

    Raises:
        RopesError: The bytes are no such message, or of an encoding that is not supported.
    """
    if compressed:
        message = parse_compressed_image(cdr)
        return message.stamp_ns, compressed_to_rgb(message.data, source)
    raw = parse_image(cdr)
    return raw.stamp_ns, to_rgb(raw.data, raw.height, raw.width, raw.encoding, raw.step)


def _reorder(pixels: np.memmap[Any, Any], kept: NDArray[np.int64], path: Path) -> np.memmap[Any, Any]:
    """Replace the pixel file by one with the chosen rows in the given order."""
    other = path.with_name("reordered.npy")
    ordered = np.lib.format.open_memmap(
        other, mode="w+", dtype=np.uint8, shape=(len(kept), *pixels.shape[1:])
    )
    for start in range(0, len(kept), 1024):
        ordered[start : start + 1024] = pixels[kept[start : start + 1024]]
    os.replace(other, path)
    return ordered

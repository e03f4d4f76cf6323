"""Images of a bag: decoded when they are asked for, or all of them cut, resized and kept in a folder.

The folder is a cache: it holds what training reads again and again, keyed by the bag's content, and may be deleted.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from zipfile import BadZipFile

import cv2
import numpy as np
from numpy.typing import NDArray

from ropes_ros.bag_parts import Part, parts, samples
from ropes_ros.bags import Bag, open_bag
from ropes_ros.cdr import header_stamp, parse_compressed_image, parse_image
from ropes_ros.errors import BagError, RopesError
from ropes_ros.framing import AreaResizer, Crop, Region, Sweep, cells_of
from ropes_ros.images import compressed_to_rgb, message_to_rgb
from ropes_ros.mcap_chunks import ChunkReader

CACHE_VERSION = 4
_IN_FLIGHT = 32
_PIXEL_FILE, _INDEX_FILE = "images.npy", "index.npz"
_REGION_SAMPLES = 1000
"""Images that the region in which anything moves is found from, at most."""
_LEAST_SAMPLES, _SAMPLE_SHARE = 200, 10
"""As many at least where they are there; else one in ten: they are decoded twice."""

_WORKERS = 8
_ORDER = np.dtype([("stamp_ns", np.int64), ("file", np.int32), ("log_time_ns", np.int64)])
"""What places an image among the others: of equal stamps the one that was recorded first counts."""
_Result = TypeVar("_Result")

Progress = Callable[[int, int], None]
"""Called with (frames done, frames in all)."""


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
        raise BagError(f"{path}: {topic}: {str(error).removeprefix(f'{topic}: ')}") from error


def decode_image(cdr: bytes | memoryview, compressed: bool, source: str) -> tuple[int, NDArray[np.uint8]]:
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
    return raw.stamp_ns, message_to_rgb(raw, source)


def sample_images(bag_path: Path, count: int, *, topics: Mapping[str, str] | None = None) -> NDArray[np.uint8]:
    """Up to `count` images spread evenly over a bag, uint8 [N, H, W, 3] RGB.

    Args:
        bag_path: The bag.
        count: How many at most.
        topics: Topic of the role "image", for bags from elsewhere.

    Raises:
        BagError: No images, or images of several sizes.
    """
    with open_bag(bag_path, topics=topics) as bag:
        topic = bag.topic("image")
        compressed, there = _is_compressed(bag, topic), bag.topics[topic].count
        chosen = set(np.linspace(0, there - 1, min(count, there)).astype(int).tolist())
        with _naming(bag.path, topic):
            images = [
                decode_image(message.data, compressed, topic)[1]
                for number, message in enumerate(bag.messages([topic]))
                if number in chosen
            ]
    if len({image.shape for image in images}) != 1:
        raise BagError(f"{bag_path}: {topic}: images of one size are needed, it holds {len(images)} of several or none")
    return np.stack(images)


class BagPixels:
    """The region's pixels of a bag's frames, decoded when they are asked for; a `dataset.PixelSource`.

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


class CachedImages(NamedTuple):
    """What the cache holds of a bag.

    Attributes:
        images: uint8 [N, h, w, 3] RGB, memory-mapped, in order of their stamps.
        stamps_ns: int64 [N], header stamps in nanoseconds, strictly increasing.
        regimes: Serialised regime messages, as recorded.
        camera_size: (width, height) in pixels of the recorded images.
        region: The part of them that `images` show.
        bag_hash: SHA-256 of the bag's storage.
        duplicates: Number of images left out because their stamp had been seen.
    """

    images: NDArray[np.uint8]
    stamps_ns: NDArray[np.int64]
    regimes: list[bytes]
    camera_size: tuple[int, int]
    region: Region
    bag_hash: str
    duplicates: int


def cached_images(
    bag: Bag,
    size: tuple[int, int],
    cache_dir: Path,
    with_regimes: bool,
    progress: Progress | None,
    crop: Crop | None = None,
) -> CachedImages:
    """The cache's entry for a bag and a size, made now if it is not there.

    An entry is a folder that is filled under another name and renamed when it is whole. The bag is hashed meanwhile,
    which takes about as long as reading it; the bag's size in the entry's name tells whether it can be there already.

    Args:
        bag: The open bag.
        size: (width, height) in pixels to resize to.
        cache_dir: Folder of all entries.
        with_regimes: Whether to keep the regime messages as well.
        progress: Called now and then while images are read.
        crop: What to take of the images; that in which anything moves when None.

    Raises:
        BagError: Damaged images, images that change their size, or a folder that cannot be written.
    """
    image_topic = bag.topic("image")
    regime_topic = bag.topic("regime") if with_regimes else None

    size_text = str(bag.storage_bytes())

    def entry_of(bag_hash: str) -> Path:
        key = json.dumps([CACHE_VERSION, bag_hash, image_topic, regime_topic, size, crop])
        return cache_dir / f"frames-{hashlib.sha256(key.encode()).hexdigest()[:32]}-{size_text}"

    with ThreadPoolExecutor(max_workers=1) as pool:
        hashing = pool.submit(bag.content_hash)
        entry = None
        if any(cache_dir.glob(f"frames-*-{size_text}")):  # it may be there: only then is filling worth waiting for
            entry = _read_entry(entry_of(hashing.result()), hashing.result())
        if entry is None:
            try:
                cache_dir.mkdir(parents=True, exist_ok=True)
                partial = Path(tempfile.mkdtemp(prefix="partial-", dir=cache_dir))
                try:
                    _fill(bag, image_topic, regime_topic, size, crop, partial, progress)
                    folder = entry_of(hashing.result())
                    shutil.rmtree(folder, ignore_errors=True)
                    with suppress(FileExistsError):  # another process was faster with the same entry
                        _publish(partial, folder)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
            except OSError as error:
                raise BagError(
                    f"{cache_dir}: frames cannot be cached ({error.strerror}): make room or choose another folder"
                ) from error
            entry = _read_entry(folder, hashing.result())
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


def _read_entry(folder: Path, bag_hash: str) -> CachedImages | None:
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
    return CachedImages(images, stamps_ns, regimes, (width, height), region, bag_hash, duplicates)


def _fill(
    bag: Bag,
    image_topic: str,
    regime_topic: str | None,
    size: tuple[int, int],
    crop: Crop | None,
    folder: Path,
    progress: Progress | None,
) -> None:
    """Decode and resize all images of a bag into a cache folder, by stamp and without duplicates."""
    total = bag.topics[image_topic].count
    width, height = size
    needed, room = total * width * height * 3, shutil.disk_usage(folder).free
    if needed > room:
        raise BagError(
            f"{bag.path}: {total} images of {width}x{height} need {needed / 1e9:.1f} GB in {folder.parent}, where "
            f"{room / 1e9:.1f} GB are free: make room, or choose another folder (--cache); where the bag does not hold "
            f"as many, run `ropes recover {bag.path}`"
        )
    pixels = np.lib.format.open_memmap(
        folder / _PIXEL_FILE, mode="w+", dtype=np.uint8, shape=(total, height, width, 3)
    )
    order = np.zeros(total, dtype=_ORDER)
    cameras: set[tuple[int, int]] = set()
    regimes: list[tuple[int, int, int, bytes]] = []
    compressed = _is_compressed(bag, image_topic)
    desk = _Desk()

    def sampled(part: Part) -> list[tuple[tuple[int, int], NDArray[np.uint8]]]:
        found = []
        for message in part.read(desk.reader):
            image = decode_image(message.data, compressed, image_topic)[1]
            found.append(((image.shape[1], image.shape[0]), cells_of(image)))
        return found

    def convert(number: int, first: int, part: Part) -> int:
        rows = iter(range(first, first + part.counts.get(image_topic, 0)))
        for message in part.read(desk.reader):
            if message.topic == regime_topic:
                regimes.append((part.file, message.log_time_ns, number, bytes(message.data)))
                continue
            row = next(rows, None)
            if row is None:
                raise _unlike_its_index(bag.path)
            stamp_ns, image = decode_image(message.data, compressed, image_topic)
            order[row] = stamp_ns, part.file, message.log_time_ns
            its_camera = (image.shape[1], image.shape[0])
            if width > its_camera[0] or height > its_camera[1]:
                raise RopesError(
                    f"images are {its_camera[0]}x{its_camera[1]}, {width}x{height} was asked for: ask for less"
                )
            cameras.add(its_camera)
            if its_camera == camera:
                desk.resizer(region, size)(region.cut(image), pixels[row])
        if next(rows, None) is not None:
            raise _unlike_its_index(bag.path)
        return first + part.counts.get(image_topic, 0)

    topics = [image_topic] if regime_topic is None else [image_topic, regime_topic]
    row = 0

    def conversions() -> Iterator[Callable[[], int]]:
        nonlocal row
        for number, part in enumerate(parts(bag, topics)):
            if row + part.counts.get(image_topic, 0) > total:
                raise _unlike_its_index(bag.path)
            yield partial(convert, number, row, part)
            row += part.counts.get(image_topic, 0)

    workers = min(_WORKERS, os.cpu_count() or 1)
    with (
        _opencv_in_one_thread(),
        ThreadPoolExecutor(max_workers=workers) as pool,
        _naming(bag.path, image_topic),
    ):
        sweep = None
        for found in _in_turn(pool, (partial(sampled, part) for part in _samples(bag, image_topic))):
            for its_camera, cells in found:
                if sweep is None:
                    camera, sweep = its_camera, Sweep(its_camera)
                if its_camera == camera:  # the error is told where all images are read
                    sweep.add(cells)
        if sweep is None:
            raise _unlike_its_index(bag.path)
        region = sweep.region(size)
        if crop is not None:
            region = crop.over(region, camera)
        for done in _in_turn(pool, conversions()):
            if progress is not None:
                progress(done, total)
    if row != total:
        raise BagError(
            f"{bag.path}: {total} images are announced, {row} are there: run `ropes recover {bag.path}`"
        )
    if len(cameras) != 1:
        sizes = ", ".join(f"{w}x{h}" for w, h in sorted(cameras))
        raise BagError(
            f"{bag.path}: images on {image_topic} change their size ({sizes}): record again with one size"
        )
    recorded = np.lexsort((order["log_time_ns"], order["file"], order["stamp_ns"]))
    stamps, firsts = np.unique(order["stamp_ns"][recorded], return_index=True)
    kept = recorded[firsts]
    if len(kept) != total or (kept != np.arange(total)).any():
        pixels = _reorder(pixels, kept, folder / _PIXEL_FILE)
    pixels.flush()
    messages = [data for *_, data in sorted(regimes, key=lambda regime: regime[:3])]  # in one part in their order
    np.savez(
        folder / _INDEX_FILE,
        stamps_ns=stamps,
        regimes=np.frombuffer(b"".join(messages), dtype=np.uint8),
        regime_lengths=np.array([len(data) for data in messages], dtype=np.int64),
        camera_size=np.array(camera, dtype=np.int64),
        region=np.array(region, dtype=np.int64),
        duplicates=np.int64(total - len(kept)),
    )
    if progress is not None:
        progress(total, total)


class _Desk(threading.local):
    """What each thread uses again from image to image."""

    def __init__(self) -> None:
        self.reader = ChunkReader()
        self._resizer: AreaResizer | None = None

    def resizer(self, region: Region, size: tuple[int, int]) -> AreaResizer:
        """For one region and size."""
        if self._resizer is None:
            self._resizer = AreaResizer((region.width, region.height), size)
        return self._resizer


@contextmanager
def _opencv_in_one_thread() -> Iterator[None]:
    """Images are spread over threads already: threads within OpenCV's functions would wait for each other."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def _in_turn(pool: ThreadPoolExecutor, jobs: Iterable[Callable[[], _Result]]) -> Iterator[_Result]:
    """Results of jobs in their order, of which few are waiting at a time."""
    pending: deque[Future[_Result]] = deque()
    for job in jobs:
        pending.append(pool.submit(job))
        if len(pending) >= _IN_FLIGHT:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _samples(bag: Bag, image_topic: str) -> Iterator[Part]:
    """Images spread over a bag, that the region in which anything moves is found from."""
    there = bag.topics[image_topic].count
    return samples(bag, image_topic, max(min(there, _LEAST_SAMPLES), min(_REGION_SAMPLES, there // _SAMPLE_SHARE)))


def _unlike_its_index(path: Path) -> BagError:
    return BagError(f"{path}: it does not hold the images that its index tells of: run `ropes recover {path}`")


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

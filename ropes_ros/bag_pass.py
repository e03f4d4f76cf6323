"""One pass through a bag: each topic over time, and what the images are like.

Images are compared with the one before, and a bounded number of them is decoded, so that memory does not grow with the
bag but for some bytes a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from ropes_ros.bag_images import decode_image
from ropes_ros.bags import Bag
from ropes_ros.cdr import parse_compressed_image, parse_image
from ropes_ros.errors import RopesError
from ropes_ros.stream_watch import StreamWatch
from ropes_ros.units import NANOSECONDS

Array = NDArray[np.float64]

PAIRS = 600
"""Pairs of images that are decoded, evenly spread over the bag."""
APART_NS = NANOSECONDS // 20
"""Least time between the two images of a pair: long enough to move, short enough to stay near."""
SAMPLES = 6
"""Images that are kept whole."""
SMOOTH = 20
"""Part of the recording over which the background's brightness is averaged: what is slower than the motion."""
CELLS = (64, 48)
"""(width, height) of the small pictures that changes are looked at in."""

Progress = Callable[[int, int], None]
"""Called with (messages done, messages in all)."""


@dataclass(frozen=True)
class Pictures:
    """What the images of the image topic are like.

    Attributes:
        count: How many.
        encodings: Encoding (or format) to number of images.
        sizes: (width, height) of those decoded.
        repeated: Images whose bytes equal those of the one before.
        damaged: Images that could not be read, of all as far as they were looked at.
        damage: What is wrong with the first of them.
        brightness: Mean grey level, and its standard deviation over time.
        dark: Share of pixels of 5 grey levels or less.
        bright: Share of pixels of 250 grey levels or more.
        background: Times in s from the first image and mean grey level of what stands still, smoothed, float64 [M, 2].
        background_change: Last fifth minus first fifth of it, grey levels.
        samples: A few images, uint8 [H, W, 3].
        changes: Per cell, the mean change between the images of a pair, grey levels, float64 [h, w].
    """

    count: int
    encodings: Mapping[str, int]
    sizes: tuple[tuple[int, int], ...]
    repeated: int
    damaged: int
    damage: str
    brightness: tuple[float, float]
    dark: float
    bright: float
    background: Array
    background_change: float
    samples: tuple[NDArray[np.uint8], ...] = field(repr=False)
    changes: Array = field(repr=False)


class BagPass:
    """What one pass through a bag gathers; of images small pictures of pairs, in grey levels."""

    def __init__(self) -> None:
        self.watches: dict[str, StreamWatch] = {}
        self.stamps: list[int] = []
        self.damaged = 0
        self.damage = ""
        self.encodings: dict[str, int] = {}
        self.sizes: set[tuple[int, int]] = set()
        self.repeated = 0
        self.times: list[tuple[int, int]] = []
        self.small: list[NDArray[np.uint8]] = []
        self.means: list[float] = []
        self.ends: list[tuple[float, float]] = []
        self.samples: list[NDArray[np.uint8]] = []

    def spoilt(self, error: RopesError) -> None:
        """Take note of an image that cannot be read."""
        self.damaged += 1
        self.damage = self.damage or str(error)

    def note(self, data: bytes, compressed: bool, topic: str, wanted: bool) -> NDArray[np.uint8]:
        """Small grey picture of an image, whose statistics are noted, and which is kept whole where wanted.

        Raises:
            RopesError: It cannot be decoded.
        """
        _, image = decode_image(data, compressed, topic)
        self.sizes.add((image.shape[1], image.shape[0]))
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        self.means.append(float(grey.mean()))
        self.ends.append((float((grey <= 5).mean()), float((grey >= 250).mean())))
        if wanted:
            self.samples.append(image.copy())
        return np.asarray(cv2.resize(grey, CELLS, interpolation=cv2.INTER_AREA), dtype=np.uint8)

    def pictures(self) -> Pictures | None:
        """What the images are like; None without any that could be decoded."""
        if not self.small:
            return None
        pairs = np.stack(self.small).reshape(-1, 2, CELLS[1], CELLS[0])
        changes = np.abs(pairs[:, 1].astype(np.float64) - pairs[:, 0])
        still = changes.mean(axis=0) <= np.quantile(changes.mean(axis=0), 0.5)
        seconds = (np.array([first for first, _ in self.times]) - self.times[0][0]) / NANOSECONDS
        background = np.stack([seconds, _smooth(pairs[:, 0][:, still].mean(axis=1))], axis=1)
        fifth = max(1, len(background) // 5)
        change = background[-fifth:, 1].mean() - background[:fifth, 1].mean()
        dark, bright = np.mean(self.ends, axis=0)
        return Pictures(
            len(self.stamps),
            dict(self.encodings),
            tuple(sorted(self.sizes)),
            self.repeated,
            self.damaged,
            self.damage,
            (float(np.mean(self.means)), float(np.std(self.means))),
            float(dark),
            float(bright),
            background,
            float(change),
            tuple(self.samples),
            changes.mean(axis=0),
        )


def _smooth(values: Array) -> Array:
    """Mean over a window of one in `SMOOTH` of the values, shorter at the ends."""
    half = max(4, len(values) // SMOOTH) // 2
    sums = np.concatenate([[0.0], np.cumsum(values)])
    first = np.maximum(np.arange(len(values)) - half, 0)
    last = np.minimum(np.arange(len(values)) + half + 1, len(values))
    return np.asarray((sums[last] - sums[first]) / (last - first))


def pass_through(bag: Bag, image_topic: str | None, progress: Progress | None) -> BagPass:
    """Read a bag once.

    Args:
        bag: The bag.
        image_topic: The topic whose images are looked at; None for none.
        progress: Called now and then.

    Raises:
        BagError: The bag is damaged.
    """
    found = BagPass()
    found.watches = {name: StreamWatch(name, topic.type_name) for name, topic in bag.topics.items()}
    total = sum(topic.count for topic in bag.topics.values())
    images = 0 if image_topic is None else bag.topics[image_topic].count
    compressed = image_topic is not None and bag.topics[image_topic].type_name.endswith("CompressedImage")
    every = max(2, images // PAIRS)
    starts = np.arange(0, images, every)  # spread unevenly, so that commands of a fixed period are met at all phases
    starts += np.random.default_rng(0).integers(0, every, len(starts))
    wanted = set(starts.tolist())
    first: tuple[int, NDArray[np.uint8]] | None = None
    before: memoryview | None = None
    number = -1
    for done, message in enumerate(bag.messages()):
        if progress is not None and done % 500 == 0:
            progress(done, total)
        stamp = found.watches[message.topic].take(message.log_time_ns, message.data)
        if message.topic != image_topic:
            continue
        number += 1
        try:
            image = parse_compressed_image(message.data) if compressed else parse_image(message.data)
            kind = image.format if compressed else image.encoding  # type: ignore[union-attr]
            found.encodings[kind] = found.encodings.get(kind, 0) + 1
            found.repeated += before is not None and before == image.data
            before = image.data
            found.stamps.append(stamp)
            if first is None and number in wanted:
                shown = len(found.samples) < SAMPLES and number * SAMPLES >= len(found.samples) * images
                first = stamp, found.note(message.data, compressed, message.topic, shown)
            elif first is not None and not 0 < stamp - first[0] < APART_NS:
                picture = found.note(message.data, compressed, message.topic, False)
                found.times.append((first[0], stamp))
                found.small += [first[1], picture]
                first = None
        except RopesError as error:
            found.spoilt(error)
    return found

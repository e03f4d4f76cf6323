"""Which part of the camera's image is used, and how it is made small."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ropes_ros.errors import RopesError

_CELL = 4
"""Pixels along one side of the cells whose variance is looked at; sensor noise averages out within them."""
_MOVING_STD = 4.0
"""Standard deviation in grey levels from which a cell counts as moving."""
_MARGIN = 0.03
"""Share of the image's side that is added on each side of what moves."""


class Region(NamedTuple):
    """A rectangle of the camera's image, in pixels."""

    left: int
    top: int
    width: int
    height: int

    def cut(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The region's part of an image, uint8 [H, W, 3], as a view."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]


class Crop(NamedTuple):
    """The part of the camera's image that a network knows.

    Attributes:
        region: The part that it was trained on.
        follows: Whether it is moved, as little as need be and without being resized, to hold all that moves in another
            recording, of which a network is to learn; where that does not fit in, what moves is taken. Else it stays.
    """

    region: Region
    follows: bool

    def over(self, swept: Region, camera: tuple[int, int]) -> Region:
        """The part to take of a recording.

        Args:
            swept: Where anything moves in it.
            camera: (width, height) of its images in pixels.

        Raises:
            RopesError: The region stays, and is not within such images.
        """
        region = self.region
        within = region.left + region.width <= camera[0] and region.top + region.height <= camera[1]
        if not self.follows:
            if not within:
                raise RopesError(
                    f"images are {camera[0]}x{camera[1]}, the network knows {tuple(region)} (left, top, width, height) "
                    "of larger ones: set the camera to its size"
                )
            return region
        if not within or swept.width > region.width or swept.height > region.height:
            return swept
        left = min(max(region.left, swept.left + swept.width - region.width), swept.left)
        top = min(max(region.top, swept.top + swept.height - region.height), swept.top)
        return Region(left, top, region.width, region.height)


def cells_of(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mean colours of an image's cells, uint8 [h, w, 3]: what `Sweep` sees of it."""
    height, width, _ = image.shape
    cells = max(1, width // _CELL), max(1, height // _CELL)
    return np.asarray(cv2.resize(image, cells, interpolation=cv2.INTER_AREA), dtype=np.uint8)


class Sweep:
    """Where anything moves in images, found from the variance of their cells, without labels.

    Args:
        camera: (width, height) of the images in pixels.
    """

    def __init__(self, camera: tuple[int, int]) -> None:
        self._camera = camera
        self._count = 0
        shape = max(1, camera[1] // _CELL), max(1, camera[0] // _CELL), 3
        self._sums, self._squares = np.zeros(shape), np.zeros(shape)

    def add(self, cells: NDArray[np.uint8]) -> None:
        """Take one more image into account, of which `cells_of` made cells."""
        cv2.accumulate(cells, self._sums)
        cv2.accumulateSquare(cells, self._squares)
        self._count += 1

    def region(self, least: tuple[int, int]) -> Region:
        """The part of the image in which anything moved, with a margin; the whole image where nothing did.

        Args:
            least: (width, height) in pixels that the region has at least.
        """
        width, height = self._camera
        variance = self._squares / self._count - (self._sums / self._count) ** 2
        moving = variance.max(axis=-1) > _MOVING_STD**2
        if not moving.any():
            return Region(0, 0, width, height)
        left, right = _extent(moving.any(axis=0), width, least[0])
        top, bottom = _extent(moving.any(axis=1), height, least[1])
        return Region(left, top, right - left, bottom - top)


def swept_region(samples: Sequence[NDArray[np.uint8]], least: tuple[int, int]) -> Region:
    """The part of the image in which anything moves.

    Args:
        samples: Images, each uint8 [H, W, 3], from all over a recording.
        least: (width, height) in pixels that the region has at least.

    Returns:
        As `Sweep.region`.
    """
    sweep = Sweep((samples[0].shape[1], samples[0].shape[0]))
    for image in samples:
        sweep.add(cells_of(image))
    return sweep.region(least)


def _extent(moving: NDArray[np.bool_], size: int, least: int) -> tuple[int, int]:
    """First and last pixel (exclusive) of what moves along one axis, from its cells."""
    cells = np.flatnonzero(moving)
    scale, margin = size / len(moving), _MARGIN * size
    first = max(0, int(cells[0] * scale - margin))
    last = min(size, int(np.ceil((cells[-1] + 1) * scale + margin)))
    missing = min(least, size) - (last - first)
    if missing > 0:
        first = min(max(0, first - missing // 2), size - min(least, size))
        last = first + min(least, size)
    return first, last


class AreaResizer:
    """Averages images of one size into smaller ones by area: what `area_weights` says, in less than OpenCV's time.

    The sum over a rectangle is a difference of four values of the summed-area table (F. C. Crow, "Summed-area tables
    for texture mapping", SIGGRAPH 1984), which is bilinear within a pixel, since a pixel is of one colour. Sums are
    whole numbers, and halves are rounded to the even one, as in the exported graph. `cv2.resize` with INTER_AREA sums
    in 32 bits, and rounds halves up where two by two pixels become one: the two differ by one grey level at most.

    Holds buffers: each thread needs a resizer of its own.

    Args:
        source: (width, height) of the images in pixels.
        target: (width, height) of the results, not larger.

    Raises:
        RopesError: The target is larger than the source, or empty.
    """

    def __init__(self, source: tuple[int, int], target: tuple[int, int]) -> None:
        (width, height), (columns, rows) = source, target
        _check_shrinking(width, columns)
        _check_shrinking(height, rows)
        whole = 255 * width * height < 1 << 31  # else whole numbers of 32 bits do not hold the sum
        self._depth = cv2.CV_32S if whole else cv2.CV_64F
        self._table = np.empty((height + 1, width + 1, 3), dtype=np.int32 if whole else np.float64)
        left, past_left = _edges(width, columns)
        above, past_above = _edges(height, rows)
        channels = (3 * left[:, None] + np.arange(3)).ravel()
        first, line = 3 * (width + 1) * above[:, None] + channels, 3 * (width + 1)
        self._places = np.stack([first, first + 3, first + line, first + line + 3])
        right, lower = np.repeat(past_left, 3), past_above[:, None]
        upper, before = rows - lower, columns - right
        self._weights = np.stack([upper * before, upper * right, lower * before, lower * right]).astype(np.float64)
        self._pixels = float(width * height)
        self._corners = np.empty(self._places.shape, dtype=self._table.dtype)
        self._sums = np.empty(first.shape)
        self._strips = np.empty((rows, first.shape[1]))
        self._means = np.empty((rows, 3 * columns))

    def __call__(self, image: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
        """Average an image.

        Args:
            image: uint8 [H, W, 3] of the source's size.
            out: uint8 [h, w, 3] of the target's size, to be filled.
        """
        cv2.integral(image, sum=self._table, sdepth=self._depth)
        self._table.reshape(-1).take(self._places, out=self._corners, mode="clip")  # "raise" would copy
        np.einsum("krc,krc->rc", self._corners, self._weights, out=self._sums)
        np.subtract(self._sums[1:], self._sums[:-1], out=self._strips)
        np.subtract(self._strips[:, 3:], self._strips[:, :-3], out=self._means)
        np.divide(self._means, self._pixels, out=self._means)
        np.rint(self._means, out=self._means)
        out[...] = self._means.reshape(out.shape)


def _edges(source: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the edges between `target` pixels lie among `source` ones, [target + 1] each.

    The pixel, and how far into it, in parts of which `target` make a pixel.
    """
    edges = np.arange(target + 1) * source
    pixels = np.minimum(edges // target, source - 1)
    return pixels, edges - target * pixels


def _check_shrinking(source: int, target: int) -> None:
    """Refuse sizes that averaging by area cannot make.

    Raises:
        RopesError: The target is larger than the source, or empty.
    """
    if not 1 <= target <= source:
        raise RopesError(f"{source} pixels cannot be averaged into {target}: choose a size up to the camera's")


def area_weights(source: int, target: int) -> NDArray[np.float64]:
    """The matrix that averages `source` pixels into `target` ones by area, as OpenCV's INTER_AREA does.

    Returns:
        float64 [target, source], rows sum to 1; rows @ image @ columns.T is the resized image.

    Raises:
        RopesError: The target is larger than the source, or empty.
    """
    _check_shrinking(source, target)
    edges = np.arange(target + 1) * (source / target)
    pixels = np.arange(source)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.clip(covered, 0.0, None)
    normalised: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return normalised

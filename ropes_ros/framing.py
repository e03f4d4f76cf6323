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


def swept_region(samples: Sequence[NDArray[np.uint8]], least: tuple[int, int]) -> Region:
    """The part of the image in which anything moves, found from the pixels' variance, without labels.

    Args:
        samples: Images, each uint8 [H, W, 3], from all over a recording.
        least: (width, height) in pixels that the region has at least.

    Returns:
        The region, with a margin; the whole image where nothing moves.
    """
    height, width, _ = samples[0].shape
    cells = max(1, width // _CELL), max(1, height // _CELL)
    count, sums, squares = 0, np.zeros((cells[1], cells[0], 3)), np.zeros((cells[1], cells[0], 3))
    for image in samples:  # one in memory at a time
        small = cv2.resize(image, cells, interpolation=cv2.INTER_AREA)
        cv2.accumulate(small, sums)
        cv2.accumulateSquare(small, squares)
        count += 1
    variance = squares / count - (sums / count) ** 2
    moving = variance.max(axis=-1) > _MOVING_STD**2
    if not moving.any():
        return Region(0, 0, width, height)
    left, right = _extent(moving.any(axis=0), width, least[0])
    top, bottom = _extent(moving.any(axis=1), height, least[1])
    return Region(left, top, right - left, bottom - top)


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


def area_weights(source: int, target: int) -> NDArray[np.float64]:
    """The matrix that averages `source` pixels into `target` ones by area, as OpenCV's INTER_AREA does.

    Returns:
        float64 [target, source], rows sum to 1; rows @ image @ columns.T is the resized image.

    Raises:
        RopesError: The target is larger than the source, or empty.
    """
    if not 1 <= target <= source:
        raise RopesError(
            f"{source} pixels cannot be averaged into {target}: choose a size up to the camera's"
        )
    edges = np.arange(target + 1) * (source / target)
    pixels = np.arange(source)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.clip(covered, 0.0, None)
    normalised: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return normalised

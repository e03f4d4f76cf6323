"""Which part of the image is used: the swept region, and resizing by area."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ropes_ros.errors import RopesError
from ropes_ros.framing import AreaResizer, Crop, Region, area_weights, swept_region


def scene(rng: np.random.Generator, left: int, top: int) -> np.ndarray:
    """A noisy grey image of 160x120 with a bright square of 10 pixels at a place."""
    image = np.full((120, 160, 3), 90.0) + rng.normal(0.0, 3.0, (120, 160, 3))
    image[top : top + 10, left : left + 10] = (220, 30, 30)
    return image.clip(0, 255).astype(np.uint8)


def test_region_holds_what_moves_and_little_else() -> None:
    rng = np.random.default_rng(0)
    samples = [scene(rng, rng.integers(60, 91), rng.integers(20, 51)) for _ in range(200)]
    left, top, width, height = swept_region(samples, (16, 16))
    assert left <= 60 and left + width >= 100
    assert top <= 20 and top + height >= 60
    assert width <= 60 and height <= 56


def test_region_is_at_least_as_large_as_asked_and_inside() -> None:
    rng = np.random.default_rng(1)
    samples = [scene(rng, rng.integers(140, 150), rng.integers(0, 10)) for _ in range(50)]
    left, top, width, height = swept_region(samples, (64, 48))
    assert width >= 64 and height >= 48
    assert left >= 0 and top >= 0 and left + width <= 160 and top + height <= 120
    assert left + width >= 160


def test_still_pictures_give_the_whole_image() -> None:
    rng = np.random.default_rng(2)
    assert swept_region([scene(rng, 50, 50) for _ in range(50)], (16, 16)) == (0, 0, 160, 120)


def test_cut_is_the_rectangle() -> None:
    image = np.arange(120 * 160 * 3, dtype=np.int64).reshape(120, 160, 3).astype(np.uint8)
    np.testing.assert_array_equal(Region(5, 7, 30, 20).cut(image), image[7:27, 5:35])


@pytest.mark.parametrize(("source", "target"), [(64, 32), (64, 24), (50, 50), (7, 3)])
def test_area_weights_agree_with_opencv(source: int, target: int) -> None:
    image = np.random.default_rng(0).uniform(0, 255, (source, source)).astype(np.float32)
    rows = area_weights(source, target)
    expected = cv2.resize(image, (target, target), interpolation=cv2.INTER_AREA)
    assert rows.sum(axis=1) == pytest.approx(1.0)
    assert rows @ image @ rows.T == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("source", "target"),
    [((572, 319), (88, 80)), ((64, 48), (64, 48)), ((640, 480), (320, 240)), ((7, 9), (3, 1)), ((3200, 2700), (4, 3))],
)
def test_images_are_averaged_as_the_weights_say(source: tuple[int, int], target: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    resize = AreaResizer(source, target)
    found = np.empty((target[1], target[0], 3), dtype=np.uint8)
    for low in (0, 200):  # a second image, which the first one must leave no trace in
        image = rng.integers(low, 256, (source[1] + 4, source[0] + 6, 3)).astype(np.uint8)[2:-2, 3:-3]
        resize(image, found)
        rows, columns = area_weights(source[1], target[1]), area_weights(source[0], target[0])
        means = np.einsum("ij,jkc,lk->ilc", rows, image.astype(np.float64), columns, optimize=True)
        assert np.abs(found - means).max() <= 0.5 + 1e-7


def test_a_resizer_does_not_enlarge() -> None:
    with pytest.raises(RopesError, match="32 pixels cannot be averaged into 64"):
        AreaResizer((64, 32), (64, 64))


def test_area_weights_do_not_enlarge() -> None:
    with pytest.raises(RopesError, match="32 pixels cannot be averaged into 64"):
        area_weights(32, 64)


CAMERA = (320, 240)


@pytest.mark.parametrize(
    ("swept", "taken"),
    [
        (Region(60, 40, 100, 100), Region(30, 20, 200, 180)),  # within what the network knows: nothing changes
        (Region(10, 40, 100, 100), Region(10, 20, 200, 180)),
        (Region(150, 100, 120, 130), Region(70, 50, 200, 180)),
        (Region(120, 30, 200, 180), Region(120, 30, 200, 180)),
        (Region(20, 30, 240, 100), Region(20, 30, 240, 100)),  # wider than that: as for a new network
    ],
)
def test_a_crop_follows_what_moves_without_being_resized(swept: Region, taken: Region) -> None:
    assert Crop(Region(30, 20, 200, 180), follows=True).over(swept, CAMERA) == taken


def test_a_crop_that_stays_stays_and_needs_the_camera_it_is_of() -> None:
    crop = Crop(Region(130, 20, 200, 180), follows=False)
    assert crop.over(Region(0, 0, 50, 50), (330, 240)) == crop.region
    with pytest.raises(RopesError, match=r"320x240.*130, 20, 200, 180"):
        crop.over(Region(0, 0, 50, 50), CAMERA)
    moved = Region(0, 0, 50, 50)
    assert Crop(crop.region, follows=True).over(moved, CAMERA) == moved

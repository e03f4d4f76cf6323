"""Image messages to RGB: encodings, row padding, damage; and the overlay's projection."""

from __future__ import annotations

import array
import struct
import zlib

import cv2
import numpy as np
import pytest

from ropes_ros.errors import RopesError
from ropes_ros.images import compressed_to_rgb, to_rgb
from ropes_ros.overlay import PinholeCamera


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)


def encoded(picture: np.ndarray, encoding: str) -> np.ndarray:
    """The picture's bytes in an encoding, [h, w, channels]."""
    if encoding in ("bgr8", "8UC3"):
        return picture[:, :, ::-1]
    if encoding == "rgba8":
        return np.dstack([picture, np.full((6, 8), 9, np.uint8)])
    if encoding == "bgra8":
        return np.dstack([picture[:, :, ::-1], np.full((6, 8), 9, np.uint8)])
    return picture


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "8UC3", "rgba8", "bgra8"])
@pytest.mark.parametrize("padding", [0, 5])
def test_colour_encodings(picture: np.ndarray, encoding: str, padding: int) -> None:
    pixels = encoded(picture, encoding)
    rows = np.pad(pixels.reshape(6, -1), ((0, 0), (0, padding)), constant_values=77)
    data = array.array("B", rows.tobytes())
    np.testing.assert_array_equal(to_rgb(data, 6, 8, encoding, rows.shape[1]), picture)


def test_grey_has_three_equal_channels(picture: np.ndarray) -> None:
    grey = picture[:, :, 0]
    found = to_rgb(grey.tobytes(), 6, 8, "mono8", 8)
    np.testing.assert_array_equal(found, np.repeat(grey[:, :, None], 3, axis=2))


def test_rgb_is_not_copied(picture: np.ndarray) -> None:
    data = bytearray(picture.tobytes())
    view = to_rgb(data, 6, 8, "rgb8", 24)
    data[0] ^= 0xFF
    assert view[0, 0, 0] == picture[0, 0, 0] ^ 0xFF


def test_unknown_encoding_names_itself(picture: np.ndarray) -> None:
    with pytest.raises(RopesError, match="'16UC1' is not supported"):
        to_rgb(picture.tobytes(), 6, 8, "16UC1", 16)


@pytest.mark.parametrize(("height", "width", "step"), [(7, 8, 24), (6, 9, 24), (0, 8, 24), (6, 8, 23)])
def test_sizes_that_do_not_fit_are_refused(picture: np.ndarray, height: int, width: int, step: int) -> None:
    with pytest.raises(RopesError, match="does not fit"):
        to_rgb(picture.tobytes(), height, width, "rgb8", step)


def test_png_survives_exactly_and_rubbish_is_refused(picture: np.ndarray) -> None:
    _, png = cv2.imencode(".png", np.ascontiguousarray(picture[:, :, ::-1]))
    np.testing.assert_array_equal(compressed_to_rgb(array.array("B", png.tobytes()), "/camera"), picture)
    for data in (b"", b"not an image"):
        with pytest.raises(RopesError, match="/camera"):
            compressed_to_rgb(data, "/camera")


def test_projection_of_known_points() -> None:
    """A camera at x = -2 that looks along +x: left is up in y, and z is up in the image."""
    matrix = np.array([[100.0, 0.0, 50.0], [0.0, 100.0, 40.0], [0.0, 0.0, 1.0]])
    turn = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    camera = PinholeCamera(matrix, np.array([-2.0, 0.0, 0.0]), turn)
    points = np.array([[0.0, 0.0, 0.0], [0.0, 0.2, 0.0], [0.0, 0.0, 0.2], [-3.0, 0.0, 0.0]])
    np.testing.assert_allclose(camera.project(points)[:3], [[50, 40], [40, 40], [50, 30]], atol=1e-9)
    assert np.isnan(camera.project(points)[3]).all()
    same = PinholeCamera.from_pose(matrix, camera.position, np.array([-0.5, 0.5, -0.5, 0.5]))
    np.testing.assert_allclose(same.rotation, turn, atol=1e-12)


def test_an_image_larger_than_opencv_takes_is_refused() -> None:
    header = struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    )
    data = b"\x89PNG\r\n\x1a\n" + chunks
    with pytest.raises(RopesError, match="/camera: a compressed image of 2147483647x2147483647 pixels"):
        compressed_to_rgb(data, "/camera")


def test_what_opencv_raises_is_told_as_an_image_that_cannot_be_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise cv2.error("too large")

    monkeypatch.setattr(cv2, "imdecode", refuse)
    with pytest.raises(RopesError, match="/camera: a compressed image cannot be decoded"):
        compressed_to_rgb(b"data", "/camera")

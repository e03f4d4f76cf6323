"""Image messages to RGB: encodings, row padding, byte order, damage, and memory that is used again."""

from __future__ import annotations

import array
import resource
import struct
import sys
import tracemalloc
import zlib
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from ropes_ros import images
from ropes_ros.errors import RopesError
from ropes_ros.images import ENCODINGS, compressed_to_rgb, message_to_rgb, to_rgb

HEIGHT, WIDTH = 6, 8
SIXTEEN_BITS = ("mono16", "rgb16", "bgr16", "rgba16", "bgra16")
YUV = ("uyvy", "yuv422", "yuyv", "yuv422_yuy2", "nv12", "nv21")
BAYER = {"bayer_rggb8": "rggb", "bayer_bggr8": "bggr", "bayer_gbrg8": "gbrg", "bayer_grbg8": "grbg"}


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)


def padded(rows: NDArray[np.uint8], padding: int) -> tuple[array.array[int], int]:
    """The bytes of [rows, bytes] with padding, and their step."""
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    return array.array("B", rows.tobytes()), rows.shape[1]


def packed(picture: NDArray[np.uint8], encoding: str) -> NDArray[np.uint8]:
    """The picture's bytes in an encoding of 8-bit channels, [rows, bytes]."""
    alpha = np.full((*picture.shape[:2], 1), 9, np.uint8)
    channels = {
        "rgb8": picture,
        "bgr8": picture[:, :, ::-1],
        "8UC3": picture[:, :, ::-1],
        "rgba8": np.concatenate([picture, alpha], axis=2),
        "bgra8": np.concatenate([picture[:, :, ::-1], alpha], axis=2),
        "8UC4": np.concatenate([picture[:, :, ::-1], alpha], axis=2),
    }[encoding]
    return channels.reshape(len(picture), -1)


def any_message(encoding: str, *, height: int = HEIGHT, width: int = WIDTH, padding: int = 0, seed: int = 1) -> Any:
    """A message of random bytes, of the size that its encoding needs."""
    pixel = {"rgb": 3, "bgr": 3, "8UC3": 3, "rgba": 4, "bgra": 4, "8UC4": 4, "uyvy": 2, "yuyv": 2, "yuv4": 2}
    size = next((bytes_ for name, bytes_ in sorted(pixel.items(), reverse=True) if encoding.startswith(name)), 1)
    step = width * size * (2 if encoding.endswith("16") else 1) + padding
    rows = height * 3 // 2 if encoding.startswith("nv") else height
    data = np.random.default_rng(seed).integers(0, 256, rows * step).astype(np.uint8)
    return SimpleNamespace(
        height=height, width=width, encoding=encoding, is_bigendian=0, step=step, data=array.array("B", data.tobytes())
    )


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "8UC3", "rgba8", "bgra8", "8UC4"])
@pytest.mark.parametrize("padding", [0, 5])
def test_colour_encodings(picture: NDArray[np.uint8], encoding: str, padding: int) -> None:
    data, step = padded(packed(picture, encoding), padding)
    np.testing.assert_array_equal(to_rgb(data, HEIGHT, WIDTH, encoding, step), picture)


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_grey_has_three_equal_channels(picture: NDArray[np.uint8], encoding: str) -> None:
    grey = picture[:, :, 0]
    found = to_rgb(grey.tobytes(), HEIGHT, WIDTH, encoding, WIDTH)
    np.testing.assert_array_equal(found, np.repeat(grey[:, :, None], 3, axis=2))


def bt601(y: NDArray[Any], u: NDArray[Any], v: NDArray[Any]) -> NDArray[np.float64]:
    """RGB [h, w, 3] of limited-range YUV planes of one size: ITU-R BT.601-7, sections 2.5.1 to 2.5.3."""
    light, blue, red = (y - 16.0) * 255 / 219, (u - 128.0) * 255 / 224, (v - 128.0) * 255 / 224
    colours = np.stack([light + 1.402 * red, light - 0.344136 * blue - 0.714136 * red, light + 1.772 * blue], axis=2)
    return np.clip(colours, 0, 255)


@pytest.mark.parametrize(("encoding", "padding"), list(product(YUV, [0, 6])))
def test_yuv_is_bt601(encoding: str, padding: int) -> None:
    random = np.random.default_rng(3)
    y = random.integers(16, 236, (HEIGHT, WIDTH))
    rows = HEIGHT // 2 if encoding.startswith("nv") else HEIGHT
    u, v = random.integers(60, 200, (2, rows, WIDTH // 2))
    if encoding.startswith("nv"):
        pair = np.stack([u, v] if encoding == "nv12" else [v, u], axis=2).reshape(rows, WIDTH)
        stored = np.vstack([y, pair])
        wide_u, wide_v = (np.repeat(np.repeat(part, 2, axis=0), 2, axis=1) for part in (u, v))
    else:
        first, second = y[:, ::2], y[:, 1::2]
        order = [u, first, v, second] if encoding in ("uyvy", "yuv422") else [first, u, second, v]
        stored = np.stack(order, axis=2).reshape(HEIGHT, 2 * WIDTH)
        wide_u, wide_v = (np.repeat(part, 2, axis=1) for part in (u, v))
    data, step = padded(stored.astype(np.uint8), padding)
    found = to_rgb(data, HEIGHT, WIDTH, encoding, step)
    np.testing.assert_allclose(found, bt601(y, wide_u, wide_v), atol=1.5)


@pytest.mark.parametrize("encoding", YUV)
@pytest.mark.parametrize(("height", "width"), [(6, 7), (5, 8)])
def test_odd_sides_of_yuv_are_refused(encoding: str, height: int, width: int) -> None:
    message = any_message(encoding, height=height, width=width)
    if height % 2 and not encoding.startswith("nv"):
        assert message_to_rgb(message, "/camera").shape == (height, width, 3)
        return
    with pytest.raises(RopesError, match="set the camera to an even size"):
        message_to_rgb(message, "/camera")


@pytest.mark.parametrize("encoding", BAYER)
@pytest.mark.parametrize("padding", [0, 3])
def test_bayer_patterns_are_those_of_ros(encoding: str, padding: int) -> None:
    """A picture of smooth colours is seen again, channel by channel; any other pattern would swap them."""
    down, across = np.mgrid[0:32, 0:48]
    picture = np.stack([40 + 2 * across, 200 - 3 * down, 90 + down + across], axis=2).astype(np.uint8)
    mosaic = np.empty((32, 48), np.uint8)
    for place, colour in enumerate(BAYER[encoding]):
        row, column = divmod(place, 2)
        mosaic[row::2, column::2] = picture[row::2, column::2, "rgb".index(colour)]
    data, step = padded(mosaic, padding)
    found = to_rgb(data, 32, 48, encoding, step).astype(int)
    np.testing.assert_allclose(found[2:-2, 2:-2], picture[2:-2, 2:-2], atol=2)


@pytest.mark.parametrize("encoding", SIXTEEN_BITS)
@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("padding", [0, 5])
def test_of_sixteen_bits_the_high_byte_is_taken(encoding: str, big_endian: bool, padding: int) -> None:
    channels = {"mono16": 1, "rgb16": 3, "bgr16": 3, "rgba16": 4, "bgra16": 4}[encoding]
    numbers = np.random.default_rng(5).integers(0, 1 << 16, (HEIGHT, WIDTH, channels)).astype(np.uint16)
    stored = numbers.astype(">u2" if big_endian else "<u2").view(np.uint8).reshape(HEIGHT, -1)
    data, step = padded(stored, padding)
    found = to_rgb(data, HEIGHT, WIDTH, encoding, step, big_endian=big_endian)
    colours = numbers[:, :, [0, 0, 0] if channels == 1 else [0, 1, 2] if encoding[0] == "r" else [2, 1, 0]]
    np.testing.assert_array_equal(found, colours // 256)
    assert np.abs(found.astype(int) - np.round(colours / 257.0)).max() <= 1, "one level from what cv_bridge gives"


def test_rgb_is_not_copied(picture: NDArray[np.uint8]) -> None:
    data = bytearray(picture.tobytes())
    view = to_rgb(data, HEIGHT, WIDTH, "rgb8", 24, out=np.empty_like(picture))
    data[0] ^= 0xFF
    assert view[0, 0, 0] == picture[0, 0, 0] ^ 0xFF


@pytest.mark.parametrize(("encoding", "padding"), list(product(ENCODINGS, [0, 4])))
def test_memory_is_used_again(encoding: str, padding: int) -> None:
    """What fills `out` is what a new array would hold, and no other memory is taken."""
    message = any_message(encoding, height=120, width=160, padding=padding)
    out = np.empty((120, 160, 3), np.uint8)
    fresh = message_to_rgb(message, "/camera")
    if encoding == "rgb8" and not padding:
        assert not np.shares_memory(message_to_rgb(message, "/camera", out), out)
        return
    tracemalloc.start()
    result = message_to_rgb(message, "/camera", out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.shares_memory(result, out)
    assert not np.shares_memory(fresh, out)
    np.testing.assert_array_equal(result, fresh)
    assert peak < out.nbytes // 4


def test_memory_of_another_shape_is_left_alone(picture: NDArray[np.uint8]) -> None:
    out = np.zeros((HEIGHT, WIDTH + 1, 3), np.uint8)
    found = to_rgb(packed(picture, "bgr8").tobytes(), HEIGHT, WIDTH, "bgr8", 24, out=out)
    np.testing.assert_array_equal(found, picture)
    assert not out.any()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_sizes_that_do_not_fit_are_refused(encoding: str) -> None:
    fitting = vars(any_message(encoding))
    big = 2**32 - 2
    changes: list[dict[str, Any]] = [
        {"height": HEIGHT + 2},
        {"width": WIDTH + 2},
        {"height": 0},
        {"width": 0},
        {"step": fitting["step"] - 1},
        {"step": big},
        {"height": big, "width": big, "step": big},
        {"height": big, "step": 0},
        {"data": fitting["data"][:-1]},
        {"data": fitting["data"] + array.array("B", b"\0")},
        {"data": array.array("B")},
    ]
    for change in changes:
        tracemalloc.start()
        with pytest.raises(RopesError, match=r"/camera: image of .* does not fit"):
            message_to_rgb(SimpleNamespace(**{**fitting, **change}), "/camera")
        assert tracemalloc.get_traced_memory()[1] < 100_000
        tracemalloc.stop()


def test_unknown_encoding_names_itself(picture: NDArray[np.uint8]) -> None:
    with pytest.raises(RopesError, match="'16UC1' is not supported"):
        to_rgb(picture.tobytes(), HEIGHT, WIDTH, "16UC1", 16)
    with pytest.raises(RopesError) as caught:
        to_rgb(picture.tobytes(), HEIGHT, WIDTH, "\x1b[2J" + "x" * 100_000, 16)
    assert "\\x1b[2J" in str(caught.value)
    assert len(str(caught.value)) < 1000


BRIDGE = '''
import numpy as np

class CvBridge:
    def imgmsg_to_cv2(self, message, desired_encoding):
        if message.encoding == "nv24":
            raise RuntimeError("[%s] is not a\\nrecognized format" % message.encoding)
        pixels = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
        return np.repeat(pixels[:, : message.width, None], 3, axis=2)
'''


def test_other_encodings_go_through_cv_bridge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a package that has cv_bridge's method: ROS 2's own is not there where these tests usually run."""
    (tmp_path / "cv_bridge.py").write_text(BRIDGE)
    monkeypatch.syspath_prepend(tmp_path)
    images._bridge.cache_clear()
    try:
        message = any_message("other8")
        found = message_to_rgb(message, "/camera")
        np.testing.assert_array_equal(found[:, :, 1].ravel(), message.data)
        message.encoding = "nv24"
        with pytest.raises(RopesError, match=r"^/camera: cv_bridge cannot convert image encoding 'nv24'.*not a recog"):
            message_to_rgb(message, "/camera")
        message.height = 2**31
        with pytest.raises(RopesError, match=r"/camera: image of .* does not fit"):
            message_to_rgb(message, "/camera")
    finally:
        images._bridge.cache_clear()
        sys.modules.pop("cv_bridge", None)


def test_a_cv_bridge_that_kills_its_process_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one built for NumPy 1 does beside NumPy 2, at the first conversion."""
    (tmp_path / "cv_bridge.py").write_text(
        "import os, signal\n"
        "class CvBridge:\n"
        "    def imgmsg_to_cv2(self, message, desired_encoding):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    images._bridge.cache_clear()
    try:
        with pytest.raises(RopesError, match=r"/camera: .* 'other8' is not.* install cv_bridge for NumPy \d"):
            message_to_rgb(any_message("other8"), "/camera")
    finally:
        images._bridge.cache_clear()
        sys.modules.pop("cv_bridge", None)


def test_without_cv_bridge_other_encodings_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv_bridge", None)
    images._bridge.cache_clear()
    try:
        with pytest.raises(RopesError, match=r"/camera: image encoding .32FC1. is not.* install cv_bridge"):
            message_to_rgb(any_message("32FC1"), "/camera")
    finally:
        images._bridge.cache_clear()


def test_png_survives_exactly_and_rubbish_is_refused(picture: NDArray[np.uint8]) -> None:
    _, png = cv2.imencode(".png", np.ascontiguousarray(picture[:, :, ::-1]))
    data = array.array("B", png.tobytes())
    np.testing.assert_array_equal(compressed_to_rgb(data, "/camera"), picture)
    out = np.zeros_like(picture)
    assert np.shares_memory(compressed_to_rgb(data, "/camera", out), out)
    np.testing.assert_array_equal(out, picture)
    for rubbish in (b"", b"not an image"):
        with pytest.raises(RopesError, match="/camera"):
            compressed_to_rgb(rubbish, "/camera")


@pytest.mark.parametrize("length", [0x10000, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_png_whose_chunk_announces_more_than_is_there_takes_no_memory(
    picture: NDArray[np.uint8], length: int
) -> None:
    png = bytearray(cv2.imencode(".png", picture)[1].tobytes())
    place = png.index(b"IDAT") - 4
    png[place : place + 4] = struct.pack(">I", length)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RopesError, match="/camera: a compressed image cannot be decoded"):
        compressed_to_rgb(bytes(png), "/camera")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_a_png_of_several_pictures_is_refused(picture: NDArray[np.uint8]) -> None:
    """Frames of an animation have sizes of their own, which nothing has looked at."""
    png = cv2.imencode(".png", picture)[1].tobytes()
    control = b"acTL" + struct.pack(">II", 2, 0)
    chunk = struct.pack(">I", 8) + control + struct.pack(">I", zlib.crc32(control))
    place = png.index(b"IDAT") - 4
    with pytest.raises(RopesError, match="/camera: a compressed image cannot be decoded"):
        compressed_to_rgb(png[:place] + chunk + png[place:], "/camera")


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

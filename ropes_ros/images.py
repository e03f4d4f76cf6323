"""From the bytes of image messages to RGB arrays: a view where the layout allows, one OpenCV call elsewhere.

Names and layouts of encodings are those of ROS 2's sensor_msgs/image_encodings.hpp. YUV is of limited range with
BT.601's coefficients, as OpenCV takes it and V4L2's cameras give it.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from functools import cache
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ropes_ros.errors import RopesError


class _Encoding(NamedTuple):
    """How pixels lie in a message.

    Attributes:
        pixel: Bytes that a pixel takes in its row.
        conversion: OpenCV's conversion to RGB; None where there is none to make, or `channels` tells.
        channels: Of 16-bit images, where red, green and blue are among a pixel's numbers.
        columns: What the width is a multiple of.
        rows: What the height is a multiple of.
        planes: Rows in the message for `rows` of the image: semi-planar images have their colours below the brightness.
    """

    pixel: int
    conversion: int | None = None
    channels: tuple[int, int, int] | None = None
    columns: int = 1
    rows: int = 1
    planes: int = 1


_ENCODINGS: dict[str, _Encoding] = {
    "rgb8": _Encoding(3),
    "bgr8": _Encoding(3, cv2.COLOR_BGR2RGB),
    "rgba8": _Encoding(4, cv2.COLOR_RGBA2RGB),
    "bgra8": _Encoding(4, cv2.COLOR_BGRA2RGB),
    "mono8": _Encoding(1, cv2.COLOR_GRAY2RGB),
    "8UC1": _Encoding(1, cv2.COLOR_GRAY2RGB),
    "8UC3": _Encoding(3, cv2.COLOR_BGR2RGB),
    "8UC4": _Encoding(4, cv2.COLOR_BGRA2RGB),
    "uyvy": _Encoding(2, cv2.COLOR_YUV2RGB_UYVY, columns=2),
    "yuv422": _Encoding(2, cv2.COLOR_YUV2RGB_UYVY, columns=2),
    "yuyv": _Encoding(2, cv2.COLOR_YUV2RGB_YUYV, columns=2),
    "yuv422_yuy2": _Encoding(2, cv2.COLOR_YUV2RGB_YUYV, columns=2),
    "nv12": _Encoding(1, cv2.COLOR_YUV2RGB_NV12, columns=2, rows=2, planes=3),
    "nv21": _Encoding(1, cv2.COLOR_YUV2RGB_NV21, columns=2, rows=2, planes=3),
    # OpenCV names a pattern by the second and third pixel of its second row, ROS by the first two of the first
    "bayer_rggb8": _Encoding(1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": _Encoding(1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": _Encoding(1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": _Encoding(1, cv2.COLOR_BayerGB2RGB),
    "mono16": _Encoding(2, channels=(0, 0, 0)),
    "rgb16": _Encoding(6, channels=(0, 1, 2)),
    "bgr16": _Encoding(6, channels=(2, 1, 0)),
    "rgba16": _Encoding(8, channels=(0, 1, 2)),
    "bgra16": _Encoding(8, channels=(2, 1, 0)),
}
ENCODINGS = tuple(_ENCODINGS)
"""Encodings that are read without cv_bridge."""
MAX_PIXELS = 1 << 26
"""Largest compressed image that is decoded, 8192 x 8192 pixels: a few hundred bytes can announce far more."""
_TRIAL = """
from types import SimpleNamespace
from cv_bridge import CvBridge
image = SimpleNamespace(height=1, width=1, step=3, encoding="bgr8", is_bigendian=0, data=bytes(3))
assert CvBridge().imgmsg_to_cv2(image, "rgb8").shape == (1, 1, 3)
"""
_TRIAL_S = 60.0
_SHOWN = 40
"""Characters of an encoding that an error shows: a damaged message may hold any text, of any length."""
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_ALONE = frozenset([0x01, *range(0xD0, 0xD9)])
"""Markers that no length follows."""


def to_rgb(
    data: Any,
    height: int,
    width: int,
    encoding: str,
    step: int,
    *,
    big_endian: bool = False,
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """The pixels of a sensor_msgs/Image as RGB.

    Of numbers of 16 bits the high byte is taken, floor(v / 256); cv_bridge rounds v / 257 to the nearest, which differs
    by one level at most. `8UC3` and `8UC4` are taken as OpenCV's order, BGR and BGRA. Memory is taken for the result
    alone, never for what a message merely announces.

    Args:
        data: Any object with a byte buffer (array.array, bytes, uint8 array).
        height: Rows of pixels; of nv12 and nv21 the image's, half as many rows of colours follow in `data`.
        width: Pixels a row.
        encoding: As in the message, one of `ENCODINGS`.
        step: Bytes a row, padding included.
        big_endian: Whether numbers of 16 bits have their high byte first.
        out: uint8 [height, width, 3], C-contiguous, to be filled where pixels must be converted, or padded rows be
            joined; an array of another shape is left alone.

    Returns:
        uint8 [height, width, 3]: `out` where it was filled, a view of `data` where the encoding is rgb8 and nothing had
        to be done, a new array otherwise.

    Raises:
        RopesError: Unknown encoding, sides that it cannot have, or a buffer that is not of the stated size.
    """
    layout = _ENCODINGS.get(encoding)
    if layout is None:
        raise RopesError(
            f"image encoding {_shown(encoding)} is not supported; use one of {', '.join(ENCODINGS)}"
        )
    if width % layout.columns or height % layout.rows:
        raise RopesError(
            f"image of {width}x{height} {encoding}: this encoding holds two columns"
            f"{' and two rows' if layout.rows > 1 else ''} of pixels together; set the camera to an even size"
        )
    pixels = _bytes_of(data)
    stored, used = height // layout.rows * layout.planes, width * layout.pixel
    if height < 1 or width < 1 or step < used or pixels.size != stored * step:
        raise RopesError(
            f"image of {width}x{height} {encoding} with step {step} does not fit its {pixels.size} bytes; "
            "the camera driver sends damaged messages"
        )
    rows = pixels.reshape(stored, step)[:, :used]
    packed = rows if layout.pixel == 1 else rows.reshape(height, width, layout.pixel)
    shape = (height, width, 3)
    target = out if out is not None and out.shape == shape else None
    if layout.channels is not None:
        result = np.empty(shape, dtype=np.uint8) if target is None else target
        high = 0 if big_endian else 1
        pairs = [index for place, channel in enumerate(layout.channels) for index in (2 * channel + high, place)]
        cv2.mixChannels([packed], [result], pairs)
        return result
    if layout.conversion is None:
        if target is None or step == used:
            return packed
        np.copyto(target, packed)
        return target
    converted: NDArray[np.uint8] = cv2.cvtColor(packed, layout.conversion, dst=target)  # type: ignore[assignment]
    return converted


def message_to_rgb(message: Any, source: str, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """The pixels of a sensor_msgs/Image as RGB, through cv_bridge where its encoding is none of `ENCODINGS`.

    Args:
        message: Any object with the message's fields.
        source: Topic or file, for messages.
        out: As for `to_rgb`; what cv_bridge converts is always a new array.

    Returns:
        uint8 [H, W, 3].

    Raises:
        RopesError: As for `to_rgb`; or the encoding needs cv_bridge, which is not there or refuses it.
    """
    height, width, step, encoding = message.height, message.width, message.step, message.encoding
    try:
        if encoding in _ENCODINGS:
            big_endian = bool(message.is_bigendian)
            return to_rgb(message.data, height, width, encoding, step, big_endian=big_endian, out=out)
        return _bridged(message)
    except RopesError as error:
        raise RopesError(f"{source}: {error}") from error.__cause__


def compressed_to_rgb(data: Any, source: str, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """The pixels of a sensor_msgs/CompressedImage (JPEG or PNG) as RGB.

    Args:
        data: Any object with a byte buffer.
        source: Topic or file, for messages.
        out: uint8 [height, width, 3], C-contiguous, to be filled; an array of another shape is left alone. The decoder
            itself takes memory for each image.

    Returns:
        uint8 [height, width, 3]: `out` where it was filled, a new array otherwise.

    Raises:
        RopesError: The bytes are no JPEG or PNG, or one of more than `MAX_PIXELS`.
    """
    encoded = _bytes_of(data)
    width, height = stated_size(encoded.data)
    if width * height > MAX_PIXELS:
        raise RopesError(
            f"{source}: a compressed image of {width}x{height} pixels is announced, more than {MAX_PIXELS} are not "
            "decoded; check what publishes it"
        )
    try:
        decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if width and height else None
    except cv2.error:
        decoded = None
    if decoded is None:
        raise RopesError(f"{source}: a compressed image cannot be decoded; only JPEG and PNG are supported")
    target = out if out is not None and out.shape == decoded.shape else None
    image: NDArray[np.uint8] = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB, dst=target)  # type: ignore[assignment]
    return image


def _bytes_of(data: Any) -> NDArray[np.uint8]:
    return np.frombuffer(data, dtype=np.uint8) if len(data) else np.empty(0, dtype=np.uint8)


def _shown(encoding: str) -> str:
    return repr(encoding if len(encoding) <= _SHOWN else f"{encoding[:_SHOWN]}...")


@cache
def _bridge() -> Any:
    """cv_bridge's converter; None where it does not work.

    One that was built for NumPy 1 can be imported beside NumPy 2, with a warning, and ends the process at the first
    conversion. So that is tried in a process of its own.
    """
    try:
        subprocess.run(
            [sys.executable, "-c", _TRIAL],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TRIAL_S,
            check=True,
        )
        from cv_bridge import CvBridge
    except (ImportError, OSError, subprocess.SubprocessError):
        return None
    return CvBridge()


def _bridged(message: Any) -> NDArray[np.uint8]:
    """An image as cv_bridge converts it.

    Raises:
        RopesError: There is no cv_bridge, or it refuses.
    """
    encoding, size = _shown(message.encoding), len(message.data)
    bridge = _bridge()
    if bridge is None:
        raise RopesError(
            f"image encoding {encoding} is not supported here; use one of {', '.join(ENCODINGS)}, or install cv_bridge "
            f"for NumPy {np.__version__}"
        )
    if not 0 < message.height * message.step <= size or message.width < 1:
        raise RopesError(
            f"image of {message.width}x{message.height} {encoding} with step {message.step} does not fit its {size} "
            "bytes; the camera driver sends damaged messages"
        )
    try:
        image: NDArray[np.uint8] = bridge.imgmsg_to_cv2(message, "rgb8")
    except Exception as error:  # its own, OpenCV's, NumPy's
        reason = " ".join(str(error).split())[:200]
        raise RopesError(
            f"cv_bridge cannot convert image encoding {encoding} to rgb8 ({reason}); use one of {', '.join(ENCODINGS)}"
        ) from error
    return image


def _whole_png(data: memoryview) -> bool:
    """Whether all chunks of a PNG are there, up to its end, and it is one picture.

    Decoders take memory for what a chunk announces before they look whether it is there: 4 GB for one of a few bytes.
    """
    position, first = len(_PNG), True
    while True:
        length, kind = struct.unpack_from(">I4s", data, position)
        position += 12 + length
        if position > len(data) or kind == b"acTL" or (kind == b"IHDR") != first:
            return False
        if kind == b"IEND":
            return True
        first = False


def stated_size(data: memoryview) -> tuple[int, int]:
    """(width, height) that the head of a JPEG or PNG announces; (0, 0) where it is neither, or cut short.

    Of a PNG all chunks are looked at, see `_whole_png`.
    """
    try:
        if bytes(data[:8]) == _PNG and bytes(data[12:16]) == b"IHDR":
            return struct.unpack_from(">II", data, 16) if _whole_png(data) else (0, 0)
        if bytes(data[:2]) != _JPEG:
            return 0, 0
        position = 2
        while True:
            marker, kind = data[position], data[position + 1]
            if marker != 0xFF:
                return 0, 0
            if kind == 0xFF or kind in _JPEG_ALONE:  # fill bytes, or a marker without content
                position += 1 if kind == 0xFF else 2
                continue
            if kind in _JPEG_FRAMES:
                height, width = struct.unpack_from(">HH", data, position + 5)
                return width, height
            position += 2 + struct.unpack_from(">H", data, position + 2)[0]
    except (struct.error, IndexError):
        return 0, 0

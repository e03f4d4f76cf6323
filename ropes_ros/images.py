"""From the bytes of image messages to RGB arrays: a view where the layout allows, one OpenCV call elsewhere."""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ropes_ros.errors import RopesError

_CONVERSIONS: dict[str, tuple[int, int | None]] = {
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
    "8UC3": (3, cv2.COLOR_BGR2RGB),
    "8UC1": (1, cv2.COLOR_GRAY2RGB),
}
"""Encoding -> (channels, OpenCV conversion to RGB)."""
MAX_PIXELS = 1 << 26
"""Largest compressed image that is decoded, 8192 x 8192 pixels: a few hundred bytes can announce far more."""
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_ALONE = frozenset([0x01, *range(0xD0, 0xD9)])
"""Markers that no length follows."""


def to_rgb(data: Any, height: int, width: int, encoding: str, step: int) -> NDArray[np.uint8]:
    """The pixels of a sensor_msgs/Image as RGB.

    Args:
        data: Any object with a byte buffer (array.array, bytes, uint8 array).
        height: Rows of pixels.
        width: Pixels a row.
        encoding: As in the message.
        step: Bytes a row, padding included.

    Returns:
        uint8 [height, width, 3]; a view of `data` where the encoding is rgb8.

    Raises:
        RopesError: Unknown encoding, or a buffer that is too short for the stated size.
    """
    known = _CONVERSIONS.get(encoding)
    if known is None:
        raise RopesError(f"image encoding {encoding!r} is not supported; use one of {', '.join(_CONVERSIONS)}")
    channels, conversion = known
    pixels = np.frombuffer(data, dtype=np.uint8)
    if height < 1 or width < 1 or step < width * channels or pixels.size < height * step:
        raise RopesError(
            f"image of {width}x{height} {encoding} with step {step} does not fit its {pixels.size} bytes; "
            "the camera driver sends damaged messages"
        )
    rows = pixels[: height * step].reshape(height, step)[:, : width * channels].reshape(height, width, channels)
    if conversion is None:
        return rows
    converted: NDArray[np.uint8] = cv2.cvtColor(np.ascontiguousarray(rows), conversion)  # type: ignore[assignment]
    return converted


def compressed_to_rgb(data: Any, source: str) -> NDArray[np.uint8]:
    """The pixels of a sensor_msgs/CompressedImage (JPEG or PNG) as RGB.

    Args:
        data: Any object with a byte buffer.
        source: Topic or file, for messages.

    Returns:
        uint8 [height, width, 3].

    Raises:
        RopesError: The bytes are no JPEG or PNG, or one of more than `MAX_PIXELS`.
    """
    encoded = np.frombuffer(data, dtype=np.uint8) if len(data) else np.empty(0, dtype=np.uint8)
    width, height = _stated_size(encoded.data)
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
    image: NDArray[np.uint8] = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)  # type: ignore[assignment]
    return image


def _stated_size(data: memoryview) -> tuple[int, int]:
    """(width, height) that the head of a JPEG or PNG announces; (0, 0) where it is neither, or cut short."""
    try:
        if bytes(data[:8]) == _PNG and bytes(data[12:16]) == b"IHDR":
            width, height = struct.unpack_from(">II", data, 16)
            return width, height
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

"""From the bytes of image messages to RGB arrays: a view where the layout allows, one OpenCV call elsewhere."""

from __future__ import annotations

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
        RopesError: The bytes are no image.
    """
    try:
        decoded = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR) if len(data) else None
    except cv2.error:  # for example a size beyond OpenCV's limit
        decoded = None
    if decoded is None:
        raise RopesError(f"{source}: a compressed image cannot be decoded; only JPEG and PNG are supported")
    image: NDArray[np.uint8] = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)  # type: ignore[assignment]
    return image

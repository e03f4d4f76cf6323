"""From image messages to pictures of the model's size, in memory that is used again from frame to frame."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ropes_ros.errors import RopesError
from ropes_ros.images import compressed_to_rgb, message_to_rgb, stated_size

SHAPE_TOLERANCE = 0.01
"""Share by which the ratio of an image's sides may differ from the model's for it to be of the same shape."""


class FrameReader:
    """Reads sensor_msgs/Image and CompressedImage; for one thread.

    Args:
        source: Topic, for messages.
        resize: Scale images of another size, but the same ratio of sides, to the wanted one.
    """

    def __init__(self, source: str, *, resize: bool = False) -> None:
        self._source, self._resize = source, resize
        self._converted: NDArray[np.uint8] | None = None
        self._scaled: NDArray[np.uint8] | None = None

    def __call__(self, message: Any, size: tuple[int, int]) -> NDArray[np.uint8]:
        """A message's pixels, uint8 [H, W, 3] RGB; valid until the next call.

        Args:
            message: The message, or any object with its fields.
            size: (width, height) that they must have, or be scaled to.

        Raises:
            RopesError: The message is no image that can be read, or one of another size.
        """
        raw = hasattr(message, "encoding")
        stated = (message.width, message.height) if raw else stated_size(message.data)
        if not self._resize and stated != size and all(stated):
            raise RopesError(
                f"{self._source}: images are {stated[0]}x{stated[1]}, the model takes {size[0]}x{size[1]}; use the "
                "camera and resolution that it was trained with, or set resize"
            )
        if raw:
            image = message_to_rgb(message, self._source, self._converted)
        else:
            image = compressed_to_rgb(message.data, self._source, self._converted)
        if image.flags.owndata:
            self._converted = image
        height, width = image.shape[:2]
        if (width, height) == size:
            return image
        if abs(width * size[1] / (height * size[0]) - 1.0) > SHAPE_TOLERANCE:
            raise RopesError(
                f"{self._source}: images of {width}x{height} have another shape than the model's {size[0]}x{size[1]}; "
                "set the camera to a size of the same shape"
            )
        self._scaled = np.asarray(
            cv2.resize(image, size, dst=self._scaled, interpolation=cv2.INTER_AREA), dtype=np.uint8
        )
        return self._scaled

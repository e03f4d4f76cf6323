"""Random changes of lighting, colour and view: what the encoder will meet later, it meets in training.

Whole pictures change their gain, offset, colours and a smooth gradient of light, and flat rectangles and ellipses cover
parts. Work on bytes, one picture at a time, is OpenCV's; the rest is done for the batch at once.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NOISE_IMAGES = 256
SHAPES = 3
"""Most occluders in one picture."""
COVER = 0.3
"""Share of the picture that its occluders cover at most, counting what overlaps twice."""
_SUBPIXEL = 4
"""Bits of the fractions of pixels in which OpenCV takes corners."""


class Augmentation:
    """Draws an augmented float batch from uint8 images.

    Args:
        shift: Largest shift of the view in pixels of the network's input, each way.
        light: Largest relative change of gain and of each colour channel, and of light across the picture.
        noise: Largest standard deviation of pixel noise, as a share of full scale.
        occlusion: Probability of occluders over part of the image.
        colour: Largest share of a colour channel that goes into another one.
    """

    def __init__(
        self,
        *,
        shift: int = 1,
        light: float = 0.25,
        noise: float = 0.03,
        occlusion: float = 0.5,
        colour: float = 0.1,
    ) -> None:
        self.shift = shift
        self.light = light
        self.noise = noise
        self.occlusion = occlusion
        self.colour = colour
        self._noise_images: Tensor | None = None
        self._fields: Tensor | None = None

    def __call__(self, images: NDArray[np.uint8], rng: np.random.Generator) -> Tensor:
        """Augment a batch.

        Args:
            images: uint8 [N, H, W, 3] RGB.
            rng: Source of all randomness, so that a run can be repeated bit for bit.

        Returns:
            float32 [N, 3, H, W] in 0..1, channels last in memory.
        """
        count, height, width, _ = images.shape
        batch = self._shifted(images, rng)
        for index in np.flatnonzero(rng.random(count) < self.occlusion):
            _occlude(batch[index], rng)
        for image, colours in zip(batch, self._colours(count, rng), strict=True):
            cv2.transform(image, colours, dst=image)
        pixels = torch.from_numpy(batch).view(count, -1).to(torch.float32)
        pixels *= self._gradients(count, (height, width), rng)
        if self.noise > 0.0:
            level = torch.from_numpy(rng.uniform(-self.noise, self.noise, (count, 1)).astype(np.float32))
            pixels = torch.addcmul(pixels, self._noise(pixels, rng), level)
        return pixels.clamp_(0.0, 1.0).view(count, height, width, 3).permute(0, 3, 1, 2)

    def _colours(self, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """An affine map of colours for each picture, [N, 3, 4]: it multiplies the column (red, green, blue, 1).

        Channels mix so that grey stays grey up to the gains, which turns hues and changes their saturation.
        """
        gain = 1.0 + self.light * (rng.uniform(-1.0, 1.0, (count, 1)) + 0.5 * rng.uniform(-1.0, 1.0, (count, 3)))
        offset = 255.0 * 0.5 * self.light * rng.uniform(-1.0, 1.0, (count, 3))
        mixing = rng.uniform(-self.colour, self.colour, (count, 3, 3))
        diagonal = np.arange(3)
        mixing[:, diagonal, diagonal] += 1.0 - mixing.sum(axis=2)
        return np.concatenate([mixing * gain[:, :, None], offset[:, :, None]], axis=2).astype(np.float32)

    def _gradients(self, count: int, size: tuple[int, int], rng: np.random.Generator) -> Tensor:
        """Light over each picture's bytes, float [N, H * W * 3]: bilinear between its corners, about 1 / 255."""
        if self._fields is None or self._fields.shape[1] != 3 * size[0] * size[1]:
            rows, columns = np.meshgrid(np.linspace(-1, 1, size[0]), np.linspace(-1, 1, size[1]), indexing="ij")
            fields = np.stack([np.ones(size), rows, columns, rows * columns]).reshape(4, -1)
            self._fields = torch.from_numpy(np.repeat(fields, 3, axis=1).astype(np.float32))
        slopes = self.light * rng.uniform(-0.5, 0.5, (count, 4))
        slopes[:, 0] = 1.0
        return torch.from_numpy((slopes / 255.0).astype(np.float32)) @ self._fields

    def _noise(self, pixels: Tensor, rng: np.random.Generator) -> Tensor:
        """White noise of unit variance for each image, from a fixed set: drawing it anew costs as much as learning."""
        if self._noise_images is None or self._noise_images.shape[1] != pixels.shape[1]:
            self._noise_images = torch.randn(
                (NOISE_IMAGES, pixels.shape[1]), generator=torch.Generator().manual_seed(0)
            )
        return self._noise_images[torch.from_numpy(rng.integers(0, NOISE_IMAGES, len(pixels)))]

    def _shifted(self, images: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """A copy of the images, each moved by its own whole number of pixels.

        What comes in at an edge repeats it.
        """
        count, reach = len(images), self.shift
        moved = np.empty_like(images)
        steps = rng.integers(-reach, reach + 1, (count, 2))
        for index, (down, right) in enumerate(steps.tolist()):
            _move(np.ascontiguousarray(images[index]), down, right, moved[index])
        return moved


def _move(image: NDArray[np.uint8], down: int, right: int, out: NDArray[np.uint8]) -> None:
    """Write an image [H, W, 3], moved by whole pixels with its edge repeated, into `out` of the same shape."""
    height, width, _ = image.shape
    part = image[max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)]
    cv2.copyMakeBorder(
        part, max(0, down), max(0, -down), max(0, right), max(0, -right), cv2.BORDER_REPLICATE, dst=out
    )


def _occlude(image: NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Cover parts of an image [H, W, 3] with rectangles and ellipses, turned at random, each of one colour."""
    height, width, _ = image.shape
    count = int(rng.integers(1, SHAPES + 1))
    draws = rng.random((count, 6))
    colours = rng.integers(0, 256, (count, 3)).tolist()
    for (share, shape, stretch, turn, x, y), colour in zip(draws.tolist(), colours, strict=True):
        area = (0.01 + (COVER / count - 0.01) * share) * height * width
        ratio = 4.0 ** (stretch - 0.5)
        scale = 1.0 if shape < 0.5 else math.sqrt(4.0 / math.pi)  # an ellipse fills that much less of its box
        sides = (scale * math.sqrt(area * ratio), scale * math.sqrt(area / ratio))
        box = ((x * width, y * height), sides, 180.0 * turn)
        if shape < 0.5:
            corners = np.round(cv2.boxPoints(box) * (1 << _SUBPIXEL)).astype(np.int32)
            cv2.fillConvexPoly(image, corners, colour, cv2.LINE_AA, _SUBPIXEL)
        else:
            cv2.ellipse(image, box, colour, -1, cv2.LINE_AA)


def to_input(images: NDArray[np.uint8]) -> Tensor:
    """uint8 [N, H, W, 3] to the network's float32 [N, 3, H, W] in 0..1, without augmentation."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).to(torch.float32)
    return pixels.div_(255.0).contiguous(memory_format=torch.channels_last)

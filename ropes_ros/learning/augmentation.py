"""Random changes of lighting, colour and view: what the encoder will meet later, it meets in training."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NOISE_IMAGES = 256


class Augmentation:
    """Draws an augmented float batch from uint8 images.

    Args:
        shift: Largest shift of the view in pixels of the network's input, each way.
        light: Largest relative change of gain and of each colour channel.
        noise: Largest standard deviation of pixel noise, as a share of full scale.
        occlusion: Probability of a random rectangle over part of the image.
    """

    def __init__(
        self, *, shift: int = 1, light: float = 0.25, noise: float = 0.03, occlusion: float = 0.5
    ) -> None:
        self.shift = shift
        self.light = light
        self.noise = noise
        self.occlusion = occlusion
        self._noise_images: Tensor | None = None

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
            rows, columns = rng.integers(height // 10, height // 3 + 1), rng.integers(width // 10, width // 3 + 1)
            top, left = rng.integers(0, height - rows + 1), rng.integers(0, width - columns + 1)
            batch[index, top : top + rows, left : left + columns] = rng.integers(0, 256, 3)
        pixels = torch.from_numpy(batch).permute(0, 3, 1, 2).to(torch.float32)
        gain = 1.0 + self.light * (rng.uniform(-1.0, 1.0, (count, 1)) + 0.5 * rng.uniform(-1.0, 1.0, (count, 3)))
        offset = 0.5 * self.light * rng.uniform(-1.0, 1.0, (count, 3))
        scale = torch.from_numpy((gain / 255.0).astype(np.float32))[:, :, None, None]
        pixels = torch.addcmul(torch.from_numpy(offset.astype(np.float32))[:, :, None, None], pixels, scale)
        if self.noise > 0.0:
            level = rng.uniform(-self.noise, self.noise, (count, 1, 1, 1)).astype(np.float32)
            pixels = torch.addcmul(pixels, self._noise_like(pixels, rng), torch.from_numpy(level))
        return pixels.clamp_(0.0, 1.0).contiguous(memory_format=torch.channels_last)

    def _noise_like(self, pixels: Tensor, rng: np.random.Generator) -> Tensor:
        """White noise of unit variance for each image, from a fixed set: drawing it anew costs as much as learning."""
        if self._noise_images is None or self._noise_images.shape[1:] != pixels.shape[1:]:
            generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
            self._noise_images = torch.randn((NOISE_IMAGES, *pixels.shape[1:]), generator=generator)
            self._noise_images = self._noise_images.contiguous(memory_format=torch.channels_last)
        return self._noise_images[torch.from_numpy(rng.integers(0, NOISE_IMAGES, len(pixels)))]

    def _shifted(self, images: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """A copy of the images, each moved by its own whole number of pixels; the edge is repeated."""
        if self.shift == 0:
            return images.copy()
        count, height, width, _ = images.shape
        reach = self.shift
        padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
        moved = np.empty_like(images)
        for index, (down, right) in enumerate(rng.integers(0, 2 * reach + 1, (count, 2))):
            moved[index] = padded[index, down : down + height, right : right + width]
        return moved


def to_input(images: NDArray[np.uint8]) -> Tensor:
    """uint8 [N, H, W, 3] to the network's float32 [N, 3, H, W] in 0..1, without augmentation."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).to(torch.float32)
    return pixels.div_(255.0).contiguous(memory_format=torch.channels_last)

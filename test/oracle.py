"""Recordings whose pictures hold what a network shall say of them, and the network that reads it off."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ropes_ros.dataset import FrameSet, Split
from ropes_ros.densities import Levels
from ropes_ros.framing import Region
from ropes_ros.learning.mechanism import MechanismLikelihood, level_posterior
from ropes_ros.learning.networks import Prediction

GRID = np.linspace(-1.0, 1.0, 257)
SIDE = 16
CENTRES = np.linspace(-0.9375, 0.9375, 8)


class Oracle(nn.Module):
    """Says of each joint the angle that pixel (0, joint) holds, and always the same std."""

    image_size = (SIDE, SIDE)

    def __init__(self, joints: int, std: float = 0.05) -> None:
        super().__init__()
        self.joints = joints
        self.std = std

    def forward(self, images: torch.Tensor) -> Prediction:
        pixels = images[:, :, 0, : self.joints] * 255.0
        angle = (pixels[:, 0] * 256.0 + pixels[:, 1]) / 21845.0 - 1.5
        features = images.mean(dim=(2, 3)).repeat(1, 8)
        return Prediction(angle, torch.full_like(angle, float(np.log(self.std))), features)


def with_angles(images: NDArray[np.uint8], angle: NDArray[np.float64]) -> NDArray[np.uint8]:
    """A copy of the pictures with angles [N, J] in (-1.5, 1.5) written into their first row."""
    code = np.clip(np.rint((angle + 1.5) * 21845.0), 0, 65535).astype(np.int64)
    written = images.copy()
    written[:, 0, : angle.shape[1], 0], written[:, 0, : angle.shape[1], 1] = code // 256, code % 256
    return written


@dataclass(frozen=True)
class Case:
    """A recording, its split, the regime likelihood, and the true angles."""

    frames: FrameSet
    split: Split
    objective: MechanismLikelihood
    angle: NDArray[np.float64]


def case(
    *,
    segments: int = 400,
    length: int = 5,
    joints: int = 2,
    error: float = 0.05,
    seed: int = 0,
    levels: Levels | None = None,
    alike: bool = False,
) -> Case:
    """Frames at one a second of joints that change level together; half of the time trains, a quarter each tests.

    Args:
        segments: Segments of each joint.
        length: Frames a segment.
        joints: Number of joints.
        error: Standard deviation of what the pictures say about the angle, half ranges.
        seed: Source of randomness.
        levels: The levels; 8 bumps when None.
        alike: Whether all frames of a segment show one angle with one error.
    """
    rng = np.random.default_rng(seed)
    levels = levels or Levels.bumps()
    log_density = np.tile(np.stack([density.log_pdf(GRID) for density in levels.densities]), (joints, 1, 1))
    shares = np.full((joints, len(levels)), 1.0 / len(levels))
    posterior = level_posterior(log_density, shares)[0]
    per_segment = rng.integers(0, len(levels), (segments, joints))
    count = segments * length
    labels = np.repeat(per_segment, length, axis=0)
    if alike:  # the level follows from the one angle of a segment
        angle = rng.uniform(-0.9, 0.9, (segments, joints))
        cells = np.rint((angle + 1.0) * 128).astype(int)
        draw = rng.random((segments, joints))
        per_segment = (np.cumsum(posterior[:, cells], axis=0) < draw).sum(axis=0).clip(max=len(levels) - 1)
        labels, angle = np.repeat(per_segment, length, axis=0), np.repeat(angle, length, axis=0)
        noise = np.repeat(rng.standard_normal((segments, joints)), length, axis=0)
    else:
        angle = np.empty((count, joints))
        for level, density in enumerate(levels.densities):
            angle[labels == level] = density.sample(rng, int((labels == level).sum()))
        noise = rng.standard_normal((count, joints))
    images = rng.integers(80, 120, (count, SIDE, SIDE, 3)).astype(np.uint8)
    rows = np.rint((angle[:, 0].clip(-1, 1) + 1.0) * 0.5 * (SIDE - 5)).astype(int) + 1
    for index, row in enumerate(rows):
        images[index, row : row + 4, 4:12] = 220
    ids = np.tile(np.repeat(np.arange(segments, dtype=np.int32), length)[:, None], (1, joints))
    frames = FrameSet(
        with_angles(images, angle + error * noise), np.arange(count, dtype=np.int64) * 1_000_000_000,
        labels.astype(np.int16), ids, tuple(f"joint{number + 1}" for number in range(joints)), tuple(levels.ids), GRID,
        log_density, 0.165, "stick", "", (SIDE, SIDE), Region(0, 0, SIDE, SIDE), "bag", 0,
    )  # fmt: skip
    use = (np.arange(count) // (8 * length)) % 4
    split = Split(np.flatnonzero(use < 2), np.flatnonzero(use == 2), np.flatnonzero(use == 3), frames.labels.copy())
    return Case(frames, split, MechanismLikelihood(log_density, shares), angle)

"""Calibration of std from levels alone: right where levels can tell, cautious where they cannot."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn

from ropes_ros.dataset import FrameSet, Split
from ropes_ros.framing import Region
from ropes_ros.learning.calibrate import SCALES, Calibration, calibrate
from ropes_ros.learning.mechanism import MechanismLikelihood, level_posterior
from ropes_ros.learning.networks import Prediction

GRID = np.linspace(-1.0, 1.0, 257)
SEGMENTS, LENGTH = 150, 30


class Oracle(nn.Module):
    """Says what is written in each frame's pixels: the angle of one joint, and always the same std."""

    joints = 1

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = std

    def forward(self, images: torch.Tensor) -> Prediction:
        pixels = images[:, :, 0, 0]
        angle = (pixels[:, 0] * 255.0 * 256.0 + pixels[:, 1] * 255.0)[:, None] / 32768.0 - 1.0
        return Prediction(angle, torch.full_like(angle, float(np.log(self.std))), pixels.repeat(1, 3))


def recording(error: float, seed: int) -> tuple[FrameSet, Split, MechanismLikelihood]:
    """Frames of one joint whose level follows from its angle, and whose picture shows the angle with an error."""
    rng = np.random.default_rng(seed)
    centres = np.linspace(-0.9375, 0.9375, 8)
    bumps = np.exp(-0.5 * ((GRID[None] - centres[:, None]) / 0.15) ** 2)
    bumps = 0.95 * bumps / (bumps.sum(axis=1, keepdims=True) * (GRID[1] - GRID[0])) + 0.025
    log_density, shares = np.log(bumps)[None], np.full((1, 8), 1 / 8)
    posterior = level_posterior(log_density, shares)[0]
    segments = np.repeat(np.arange(SEGMENTS), LENGTH)
    angle = np.repeat(rng.uniform(-0.9, 0.9, SEGMENTS), LENGTH)
    cells = np.rint((angle + 1.0) * 128).astype(int)
    level_of = [rng.choice(8, p=posterior[:, cells[number * LENGTH]]) for number in range(SEGMENTS)]
    labels = np.repeat(np.array(level_of, dtype=np.int16), LENGTH)[:, None]
    seen = np.repeat(error * rng.standard_normal(SEGMENTS), LENGTH) + angle
    code = np.clip(np.rint((seen + 1.0) * 32768.0), 0, 65535).astype(int)
    images = np.stack([code // 256, code % 256, np.full_like(code, 7)], axis=1).astype(np.uint8)[:, None, None, :]
    count = len(segments)
    frames = FrameSet(
        images, np.arange(count, dtype=np.int64), labels, segments[:, None].astype(np.int32), ("a",),
        tuple("01234567"), GRID, log_density, 0.15, "stick", "", (1, 1), Region(0, 0, 1, 1), "", 0,
    )  # fmt: skip
    every = np.arange(count, dtype=np.int64)
    return frames, Split(every, every, every, labels), MechanismLikelihood(log_density, shares)


def calibrated_std(error: float, stated: float, seed: int) -> float:
    frames, split, objective = recording(error, seed)
    result = calibrate(Oracle(stated), frames, split, objective)  # type: ignore[arg-type]
    return float(stated * result.std_scale[0])


@pytest.mark.parametrize("stated", [0.08, 0.2, 0.4])
def test_errors_as_wide_as_the_levels_are_measured(stated: float) -> None:
    found = [calibrated_std(0.2, stated, seed) for seed in range(3)]
    assert np.mean(found) == pytest.approx(0.2, rel=0.3)


def test_errors_far_below_the_levels_are_not_understated() -> None:
    """The levels can hardly tell 0.02 from 0.005; the answer must not be the smallest that they allow."""
    found = np.array([calibrated_std(0.02, 0.02, seed) for seed in range(5)])
    assert (found > 0.015).all()
    assert (found < 4.0 * 0.02).all()


def test_calibration_survives_a_checkpoint() -> None:
    frames, split, objective = recording(0.1, 0)
    first = calibrate(Oracle(0.1), frames, split, objective)  # type: ignore[arg-type]
    again = Calibration.from_dict(first.to_dict())
    np.testing.assert_allclose(again.std_scale, first.std_scale)
    np.testing.assert_allclose(again.feature_axes, first.feature_axes)
    assert again.novelty_reference == first.novelty_reference
    assert SCALES[0] <= again.std_scale[0] <= SCALES[-1]

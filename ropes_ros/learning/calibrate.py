"""What is fitted after training on spans kept apart, without angles: the scale of std, and what counts as novel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ropes_ros.dataset import FrameSet, Split
from ropes_ros.learning.augmentation import to_input
from ropes_ros.learning.mechanism import MechanismLikelihood
from ropes_ros.learning.networks import AngleNet

SCALES = np.exp(np.linspace(np.log(0.25), np.log(4.0), 33))
"""Factors that the standard deviation may get, evenly spaced in their logarithm: the prior of the calibration."""
REFERENCE_FRAMES = 5000
RIDGE = 1e-3
"""Added to the features' variances, as a share of the largest, before they are whitened."""


@dataclass(frozen=True)
class Calibration:
    """Constants of the exported model.

    Attributes:
        std_scale: Factor on each joint's standard deviation, float64 [J].
        held_out_loss: Regime loss on the calibration spans after scaling, nats, float64 [J].
        floor: Bayes floor of that loss, nats, float64 [J].
        feature_mean: Mean of the training frames' features, float64 [F].
        feature_axes: Whitening projection of features, float64 [F, F].
        novelty_reference: 99th percentile of the calibration frames' whitened distance.
    """

    std_scale: NDArray[np.float64]
    held_out_loss: NDArray[np.float64]
    floor: NDArray[np.float64]
    feature_mean: NDArray[np.float64]
    feature_axes: NDArray[np.float64]
    novelty_reference: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values and tensors, for a checkpoint."""
        return {
            "std_scale": self.std_scale.tolist(),
            "held_out_loss": self.held_out_loss.tolist(),
            "floor": self.floor.tolist(),
            "feature_mean": torch.from_numpy(self.feature_mean),
            "feature_axes": torch.from_numpy(self.feature_axes),
            "novelty_reference": self.novelty_reference,
        }

    @staticmethod
    def from_dict(content: dict[str, Any]) -> Calibration:
        """The inverse of `to_dict`."""
        return Calibration(
            np.asarray(content["std_scale"]),
            np.asarray(content["held_out_loss"]),
            np.asarray(content["floor"]),
            content["feature_mean"].numpy(),
            content["feature_axes"].numpy(),
            float(content["novelty_reference"]),
        )


@torch.no_grad()
def calibrate(net: AngleNet, frames: FrameSet, split: Split, objective: MechanismLikelihood) -> Calibration:
    """Fit the constants on training features and on the calibration spans.

    The marginal regime likelihood tells standard deviations near the levels' width, and hardly those far below it.
    So the scale is not maximised but averaged: the variance is its posterior mean over `SCALES` under a uniform prior
    of their logarithm, each segment counting as one observation because its frames are alike. Where the levels say
    nothing, that leans to the larger of the possible values.

    Args:
        net: The trained network.
        frames: All frames.
        split: Which of them are training and calibration frames, and their labels.
        objective: The regime likelihood.
    """
    net.eval()
    evenly = np.linspace(0, len(split.train) - 1, min(REFERENCE_FRAMES, len(split.train))).astype(np.int64)
    _, _, features = _predict(net, frames, split.train[evenly])
    mean = features.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov((features - mean).T))
    axes = vectors / np.sqrt(np.maximum(values, 0.0) + RIDGE * values.max())
    angle, log_std, features = _predict(net, frames, split.calibration)
    distance = np.linalg.norm((features - mean) @ axes, axis=1)
    labels = torch.from_numpy(split.labels[split.calibration].astype(np.int64))
    segments = frames.segments[split.calibration]
    evidence = np.empty((len(SCALES), net.joints))
    for index, scale in enumerate(SCALES):
        likelihood = _log_likelihood(objective, angle, log_std + np.log(scale), labels)
        for joint in range(net.joints):
            evidence[index, joint] = _sum_of_segment_means(likelihood[:, joint], segments[:, joint])
    posterior = np.exp(evidence - evidence.max(axis=0))
    posterior /= posterior.sum(axis=0)
    scale = np.sqrt(posterior.T @ SCALES**2)
    likelihood = _log_likelihood(objective, angle, log_std + np.log(scale), labels)
    return Calibration(
        scale,
        -likelihood.sum(axis=0) / (labels >= 0).sum(dim=0).clamp(min=1).numpy(),
        objective.floor.double().numpy(),
        mean,
        axes,
        float(np.quantile(distance, 0.99)),
    )


def _log_likelihood(
    objective: MechanismLikelihood, angle: NDArray[np.float64], log_std: NDArray[np.float64], labels: torch.Tensor
) -> NDArray[np.float64]:
    found = objective.log_likelihood(torch.from_numpy(angle).float(), torch.from_numpy(log_std).float(), labels)
    likelihood: NDArray[np.float64] = found.double().numpy()
    return likelihood


def _sum_of_segment_means(values: NDArray[np.float64], segments: NDArray[np.int32]) -> float:
    """Sum over segments of the mean of their frames' values; -1 is no segment."""
    inside = segments >= 0
    _, inverse = np.unique(segments[inside], return_inverse=True)
    return float((np.bincount(inverse, values[inside]) / np.bincount(inverse)).sum())


def _predict(
    net: AngleNet, frames: FrameSet, indices: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Angle [N, J], log std [N, J] and features [N, F] of chosen frames."""
    parts = [
        [part.double().numpy() for part in net(to_input(frames.images[indices[start : start + 512]]))]
        for start in range(0, len(indices), 512)
    ]
    angle, log_std, features = (np.concatenate(column) for column in zip(*parts, strict=True))
    return angle, log_std, features

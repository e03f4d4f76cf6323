"""The mechanism likelihood: what a frame's regime says about the joint's angle, through known densities.

Each joint's command follows one of K known densities p_k(u). By Bayes' rule an angle u tells the level k with
probability P(k | u) = n_k p_k(u) / sum_m n_m p_m(u), n_k being the share of frames at level k. The network says of
an image that u is about N(angle, std^2); the likelihood of the level that was commanded is the mean of P(k | u)
under it. Maximising that likelihood makes the network tell the angle in known units, though no angle is ever shown.
The log density ratio of two levels is the score function's antiderivative, so this is the likelihood form of the
score differences of Varici et al., arXiv 2402.00849, sec. 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ropes_ros.errors import TrainingError
from ropes_ros.learning.networks import LOG_STD_RANGE

STD_STEPS = 48


def level_posterior(log_density: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """P(level | u) on the grid by Bayes' rule.

    Args:
        log_density: log p_k(u) of every joint and level, float64 [J, K, G].
        shares: Share of labelled frames at each level, float64 [J, K], rows sum to 1.

    Returns:
        float64 [J, K, G], sums to 1 over levels.
    """
    joint = np.exp(log_density) * shares[:, :, None]
    posterior: NDArray[np.float64] = joint / joint.sum(axis=1, keepdims=True)
    return posterior


def level_shares(
    labels: NDArray[np.int16], joint_names: Sequence[str], level_ids: Sequence[str]
) -> NDArray[np.float64]:
    """Share of labelled frames at each level.

    Args:
        labels: int16 [N, J], -1 where a joint is in no regime.
        joint_names: Names of the J joints.
        level_ids: Names of the K levels.

    Returns:
        float64 [J, K], rows sum to 1; equal shares for a joint that is never in a regime, whose levels do not count.

    Raises:
        TrainingError: A joint visits some of the levels, but not all.
    """
    counts = np.stack([(labels == level).sum(axis=0) for level in range(len(level_ids))], axis=1).astype(np.float64)
    counts[(counts == 0).all(axis=1)] = 1.0
    if (counts == 0).any():
        joint, level = np.argwhere(counts == 0)[0]
        raise TrainingError(
            f"joint {joint_names[joint]} has no training frame at level {level_ids[level]}: record longer (every joint "
            "must visit every level several times)"
        )
    shares: NDArray[np.float64] = counts / counts.sum(axis=1, keepdims=True)
    return shares


def _cell_weights(points: int) -> NDArray[np.float64]:
    """Weights of the trapezoid rule on an even grid, up to its step."""
    weights = np.ones(points)
    weights[[0, -1]] = 0.5
    return weights


def bayes_floor(log_density: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Entropy of the level given the true angle: the loss that a perfect encoder reaches, nats, float64 [J].

    It follows from the design alone. A training loss below it means that the net memorises segments.
    """
    posterior = level_posterior(log_density, shares)
    mixture = np.exp(log_density) * shares[:, :, None] * _cell_weights(log_density.shape[2])
    weights = mixture / mixture.sum(axis=(1, 2), keepdims=True)
    floor: NDArray[np.float64] = -(weights * np.log(posterior)).sum(axis=(1, 2))
    return floor


class MechanismLikelihood(nn.Module):
    """Loss of (angle, log_std) against commanded levels, through a precomputed table.

    The table holds log E[P(k | u')] for u' ~ N(u, s^2) restricted to [-1, 1], on a grid of u and log s, and is
    interpolated linearly in both, so that the marginal likelihood costs one look-up a frame and joint.

    Args:
        log_density: float64 [J, K, G], log density of every joint's levels on an even grid over [-1, 1].
        shares: float64 [J, K], share of labelled frames at each level.
    """

    table: Tensor
    floor: Tensor

    def __init__(self, log_density: NDArray[np.float64], shares: NDArray[np.float64]) -> None:
        super().__init__()
        joints, levels, points = log_density.shape
        posterior = level_posterior(log_density, shares)
        grid = np.linspace(-1.0, 1.0, points)
        log_std = np.linspace(*LOG_STD_RANGE, STD_STEPS)
        table = np.empty((joints, levels, STD_STEPS, points), dtype=np.float32)
        for step, value in enumerate(log_std):
            kernel = np.exp(-0.5 * ((grid[:, None] - grid[None, :]) / math.exp(value)) ** 2) * _cell_weights(points)
            kernel /= kernel.sum(axis=1, keepdims=True)
            table[:, :, step] = np.log(posterior @ kernel.T)
        self.register_buffer("table", torch.from_numpy(table))
        self.register_buffer("floor", torch.from_numpy(bayes_floor(log_density, shares).astype(np.float32)))

    def log_likelihood(self, angle: Tensor, log_std: Tensor, labels: Tensor) -> Tensor:
        """log P(level) of every frame and joint.

        Args:
            angle: float [N, J], half ranges; beyond [-1, 1] the edge's value is taken. The look-up is done in the
                table's precision, whatever that of the angle.
            log_std: float [N, J].
            labels: int64 [N, J], level index; -1 (no regime) gives 0.

        Returns:
            float [N, J], nats.
        """
        joints, levels, steps, points = self.table.shape
        low, high = LOG_STD_RANGE
        angle, log_std = angle.to(self.table.dtype), log_std.to(self.table.dtype)
        column = ((angle.clamp(-1.0, 1.0) + 1.0) * (0.5 * (points - 1))).clamp(0.0, points - 1.001)
        row = ((log_std - low) * ((steps - 1) / (high - low))).clamp(0.0, steps - 1.001)
        left, upper = column.detach().floor(), row.detach().floor()
        across, down = column - left, row - upper
        base = torch.arange(joints, device=angle.device) * levels + labels.clamp(min=0)
        index = (base * steps + upper.long()) * points + left.long()
        flat = self.table.reshape(-1)
        top = flat[index] * (1.0 - across) + flat[index + 1] * across
        bottom = flat[index + points] * (1.0 - across) + flat[index + points + 1] * across
        value = top * (1.0 - down) + bottom * down
        return torch.where(labels >= 0, value, torch.zeros_like(value))

    def forward(self, angle: Tensor, log_std: Tensor, labels: Tensor) -> Tensor:
        """Mean loss per labelled joint, in nats, plus a pull of angles back into [-1, 1]; a scalar."""
        labelled = (labels >= 0).sum().clamp(min=1)
        outside = (angle.to(self.table.dtype).abs() - 1.0).clamp(min=0.0).square().mean()
        return -self.log_likelihood(angle, log_std, labels).sum() / labelled + outside

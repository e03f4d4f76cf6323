"""Constraints: what structure the latent has, beside what a task of `ropes_ros.learning.tasks` asks of it.

    total loss = task + weight * constraint
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ropes_ros.dataset import FrameSet
from ropes_ros.errors import TrainingError
from ropes_ros.learning.networks import AngleNet, Prediction, nearest_code
from ropes_ros.learning.tasks import Batch

CONSTRAINTS = ("none", "independence", "quantized", "score")
"""Names of the constraints."""
CODES = 16
"""Values that a quantised latent may take: with the even ones of the start, an rms error of 0.04 half ranges."""
QUANTISATION, COMMITMENT = 1.0, 0.25
"""Weights in the quantised constraint; those of the published code for its pictures of a robot arm (MPI3D)."""


class Constraint(nn.Module):
    """A penalty on the latent, `prediction.angle` [N, J], of a batch."""

    def forward(self, net: AngleNet, batch: Batch, prediction: Prediction) -> Tensor:
        """The penalty, a scalar.

        Args:
            net: The network.
            batch: What it was shown.
            prediction: What it said of `batch.images`.
        """
        raise NotImplementedError


def make_constraint(name: str, frames: FrameSet, net: AngleNet) -> Constraint:
    """The constraint of a name.

    Args:
        name: One of `CONSTRAINTS`.
        frames: Gives the levels.
        net: The network that will be trained. "quantized" gives it codebooks, so that the optimiser and the average of
            weights have to be made after this call.

    Raises:
        TrainingError: The name is unknown, or the levels do not suit the constraint.
    """
    if name == "none":
        return NoConstraint()
    if name == "independence":
        return IndependenceConstraint()
    if name == "quantized":
        return QuantizedConstraint(net)
    if name == "score":
        from ropes_ros.learning.scores import score_constraint

        return score_constraint(frames, net)
    raise TrainingError(f"constraint {name!r} is unknown: choose one of {', '.join(CONSTRAINTS)}")


class NoConstraint(Constraint):
    """Asks for nothing."""

    def forward(self, net: AngleNet, batch: Batch, prediction: Prediction) -> Tensor:
        """See `Constraint`."""
        return prediction.angle.new_zeros(())


class IndependenceConstraint(Constraint):
    """Mean squared distance correlation over pairs of latents, at least 0.

    Joints are commanded independently of each other, so true angles have none. It sees any dependence, has no kernel
    width to choose, and does not depend on the latents' scale.
    """

    def forward(self, net: AngleNet, batch: Batch, prediction: Prediction) -> Tensor:
        """See `Constraint`; 0 for fewer than four frames or two latents."""
        count, latents = prediction.angle.shape
        if count < 4 or latents < 2:
            return prediction.angle.new_zeros(())
        correlation = distance_correlation(prediction.angle)
        upper = torch.triu_indices(latents, latents, 1, device=correlation.device)
        return correlation[upper[0], upper[1]].clamp(min=0.0).mean()


def distance_correlation(values: Tensor) -> Tensor:
    """Bias-corrected squared distance correlation of all pairs of columns.

    The estimator of Székely and Rizzo, Annals of Statistics 42(6), 2014: distance matrices are U-centred, and their
    inner products normalised. Its mean is 0 for independent columns at any N; single values may be negative.

    Args:
        values: float [N, J], N at least 4.

    Returns:
        float [J, J], 1 on the diagonal unless a column is constant.
    """
    count = len(values)
    distance = (values.T[:, :, None] - values.T[:, None, :]).abs()
    rows = distance.sum(dim=2)
    centred = (
        distance
        - (rows[:, :, None] + rows[:, None, :]) / (count - 2)
        + rows.sum(dim=1)[:, None, None] / ((count - 1) * (count - 2))
    )
    centred = (centred * (1.0 - torch.eye(count, device=values.device))).flatten(1)
    product = centred @ centred.T
    norm = product.diagonal().clamp(min=1e-12).sqrt()
    return product / (norm[:, None] * norm)


class QuantizedConstraint(Constraint):
    """Latent quantisation, QLAE (Hsu et al., arXiv 2305.18378): each latent takes one of few learned values.

    The network quantises its angles itself, with a straight gradient (`AngleNet.quantise`); the penalty draws values
    and latents towards each other. The method owes its effect to strong weight decay as well, 0.1 with AdamW in its
    published code: keep the weight decay of training there.

    Args:
        net: The network, which gets codebooks if it has none.
    """

    def __init__(self, net: AngleNet) -> None:
        super().__init__()
        if net.codebook is None:
            net.quantise(CODES)

    def forward(self, net: AngleNet, batch: Batch, prediction: Prediction) -> Tensor:
        """See `Constraint`."""
        if net.codebook is None:
            raise TrainingError("the quantized constraint was made for another network: this one has no codebooks")
        latent = net.continuous(prediction)
        code = nearest_code(latent, net.codebook)
        quantisation = (latent.detach() - code).square().mean()
        commitment = (latent - code.detach()).square().mean()
        return QUANTISATION * quantisation + COMMITMENT * commitment

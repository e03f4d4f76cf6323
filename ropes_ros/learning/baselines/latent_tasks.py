"""Representations learned without positions: autoencoders of four kinds on the backbone that all methods share.

Each is a task for `train` that owns a linear head on the backbone's hidden layer and a decoder. The network sees the
augmented picture as in all methods, but what is reconstructed is the recorded one, at half size: light and occluders
that augmentation adds would otherwise be most of what there is to keep.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ropes_ros.learning.augmentation import to_input
from ropes_ros.learning.networks import AngleNet, Prediction, nearest_code
from ropes_ros.learning.tasks import Batch, PictureDecoder, Task


class LatentTask(Task):
    """An autoencoder; the base of the others.

    Args:
        net: The network whose hidden layer is read.
        images: uint8 [N, h, w, 3], all frames, which `Batch.index` points into.
        dims: Length of the code D.
        outputs: Numbers of the head a latent.
    """

    def __init__(self, net: AngleNet, images: NDArray[np.uint8], dims: int, *, outputs: int = 1) -> None:
        super().__init__()
        self.images = images
        self.dims = dims
        width, height = net.image_size
        self.size = ((height + 1) // 2, (width + 1) // 2)
        self.head = nn.Linear(net.units, outputs * dims)
        self.decoder = PictureDecoder(dims, self.size)

    def encode(self, net: AngleNet, images: Tensor) -> Tensor:
        """Latents of images [N, 3, h, w] in 0..1, float [N, D]."""
        latents: Tensor = self.head(net.embed(images))[:, : self.dims]
        return latents

    def forward(self, net: AngleNet, batch: Batch) -> tuple[Tensor, Prediction]:
        """The loss, a scalar, and a prediction whose angles are the first J latents, without units."""
        hidden = net.embed(batch.images)
        loss, latents = self.loss(self.head(hidden), batch)
        joints = latents[:, : net.joints]
        return loss, Prediction(joints, torch.zeros_like(joints), hidden)

    def loss(self, raw: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss, a scalar, and the latents [N, D], of the head's numbers."""
        return self.reconstruction(raw, batch), raw

    def reconstruction(self, code: Tensor, batch: Batch) -> Tensor:
        """Binary cross-entropy of the recorded pictures given codes [N, D], nats a picture."""
        logits = self.decoder(code)
        recorded = to_input(self.images[batch.index.cpu().numpy()])
        target = F.interpolate(recorded, self.size, mode="area").to(logits.device)
        return F.binary_cross_entropy_with_logits(logits, target, reduction="sum") / len(target)


class BetaVaeTask(LatentTask):
    """beta-VAE with the capacity that grows: cross-entropy + gamma |KL - C|, C from 0 up to `CAPACITY` nats.

    Burgess et al., Understanding disentangling in beta-VAE, arXiv 1804.03599, sec. 5, with its gamma and largest C;
    beta-VAE is Higgins et al., ICLR 2017.

    Args:
        net, images, dims: See `LatentTask`.
        steps: Steps over which the capacity grows.
    """

    GAMMA = 1000.0
    CAPACITY = 25.0
    progress: Tensor

    def __init__(self, net: AngleNet, images: NDArray[np.uint8], dims: int, *, steps: int) -> None:
        super().__init__(net, images, dims, outputs=2)
        self._steps = steps
        self.register_buffer("progress", torch.zeros((), dtype=torch.int64))

    def loss(self, raw: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """See `LatentTask`."""
        mean, log_variance = torch.chunk(raw, 2, dim=1)
        if self.training:
            self.progress += 1
        capacity = self.CAPACITY * (self.progress / self._steps).clamp(max=1.0)
        excess = (divergence(mean, log_variance).sum(dim=1).mean() - capacity).abs()
        loss = self.reconstruction(sample(mean, log_variance), batch) + self.GAMMA * excess
        return loss, mean


class QuantizedTask(LatentTask):
    """QLAE: every latent takes one of ten learned values, and strong weight decay keeps codes simple.

    Hsu et al., Disentanglement via Latent Quantization, NeurIPS 2023, arXiv 2305.18378, sec. 3: scalar codebooks that
    start even on [-0.5, 0.5], gradients straight through, losses that draw values to latents and latents to values.
    The number of values, both weights and the weight decay of 0.1 are the authors' published settings for MPI3D, a
    robot arm; the weights are taken to be relative to the mean over pixels of the reconstruction loss.
    """

    VALUES = 10
    QUANTIZATION = 1.0
    COMMITMENT = 0.25

    def __init__(self, net: AngleNet, images: NDArray[np.uint8], dims: int) -> None:
        super().__init__(net, images, dims)
        self.codebook = nn.Parameter(torch.linspace(-0.5, 0.5, self.VALUES).repeat(dims, 1))

    def loss(self, raw: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """See `LatentTask`."""
        code = nearest_code(raw, self.codebook)
        apart = self.QUANTIZATION * (code - raw.detach()).square() + self.COMMITMENT * (code.detach() - raw).square()
        through = raw + (code - raw).detach()
        pixels = 3 * self.size[0] * self.size[1]
        return self.reconstruction(through, batch) + pixels * apart.mean(), through

    def encode(self, net: AngleNet, images: Tensor) -> Tensor:
        """The quantized latents."""
        return nearest_code(super().encode(net, images), self.codebook)


class FactorSubspacesTask(LatentTask):
    """A subspace a joint, in which frames of one level attract each other and others repel, and a residual one.

    After XFactors (arXiv 2601.21688): a variational autoencoder whose factor subspaces are trained by InfoNCE over
    pairs that share the factor's value, with a KL term on all latents. The factor's value is here the joint's level.
    The paper's own sizes and weights were not at hand. The weight of the contrast is the best of 100, 2,000 and 20,000
    on a simulated recording of eight minutes: reconstruction is a sum over pixels and drowns a smaller one.

    Args:
        net, images: See `LatentTask`.
    """

    WIDTH = 2
    TEMPERATURE = 0.1
    KL_WEIGHT = 1.0
    CONTRAST_WEIGHT = 20_000.0

    def __init__(self, net: AngleNet, images: NDArray[np.uint8]) -> None:
        super().__init__(net, images, 2 * self.WIDTH * net.joints, outputs=2)
        self._joints = net.joints

    def loss(self, raw: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """See `LatentTask`."""
        mean, log_variance = torch.chunk(raw, 2, dim=1)
        code = sample(mean, log_variance)
        loss = self.reconstruction(code, batch) + self.KL_WEIGHT * divergence(mean, log_variance).sum(1).mean()
        contrast = [
            shared_value_loss(code[:, self.WIDTH * joint :][:, : self.WIDTH], batch.labels[:, joint], self.TEMPERATURE)
            for joint in range(self._joints)
        ]
        return loss + self.CONTRAST_WEIGHT * torch.stack(contrast).mean(), mean


def sample(mean: Tensor, log_variance: Tensor) -> Tensor:
    """A draw from N(mean, exp(log_variance)) that gradients pass through, of the same shape."""
    return mean + (0.5 * log_variance).exp() * torch.randn_like(mean)


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL of N(mean, exp(log_variance)) from N(0, 1) a latent, nats, float [N, D]."""
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance)


def shared_value_loss(codes: Tensor, values: Tensor, temperature: float) -> Tensor:
    """InfoNCE in which the positives of a frame are the other frames of its value.

    Mean over pairs of equal value of -log of the pair's share among all pairs of its first frame; similarity is the
    cosine (Khosla et al., NeurIPS 2020, arXiv 2004.11362, eq. 2).

    Args:
        codes: float [N, W].
        values: int64 [N]; frames of -1 take no part.
        temperature: Divides the cosine.

    Returns:
        A scalar, nats; 0 without any pair of equal value.
    """
    there = values >= 0
    directions, values = F.normalize(codes[there], dim=1), values[there]
    others = ~torch.eye(len(values), dtype=torch.bool, device=values.device)
    logits = (directions @ directions.T / temperature).masked_fill(~others, -math.inf)
    share = logits - logits.logsumexp(dim=1, keepdim=True)
    pairs = (values[:, None] == values[None, :]) & others
    return -share.masked_fill(~pairs, 0.0).sum() / pairs.sum().clamp(min=1)

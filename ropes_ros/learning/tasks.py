"""Tasks: what the representation must keep of an image. One is trained with one of `ropes_ros.learning.constraints`.

    total loss = task + weight * constraint

The latent of a frame is `prediction.angle`, J numbers, whatever the task. Only the mechanism task gives it units;
`ropes_ros.learning.align` turns the latents of the others into angles, with no label of pose either.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ropes_ros.dataset import FrameSet
from ropes_ros.encoder import LEVELS_ONLY as LEVELS_ONLY
from ropes_ros.errors import TrainingError
from ropes_ros.learning.augmentation import to_input
from ropes_ros.learning.mechanism import MechanismLikelihood
from ropes_ros.learning.networks import AngleNet, Prediction, prediction_part

TASKS = ("mechanism", "reconstruction", "contrastive", "contrastive-time", "masked")
"""Names of the tasks."""
CODE = 32
"""Numbers beside the latent from which a picture is reconstructed: what varies in the scene besides the joints."""
CODE_SHARE = 0.5
"""Share of training frames whose picture is reconstructed with the code; the others have the latent alone."""
TEMPERATURE = 0.1
"""Of the contrastive losses: cosine similarity and half ranges are divided by it."""
PROJECTION = 64
HIDDEN_BLOCKS = 3
"""Blocks of the feature map that the masked task hides, each `HIDDEN_SIDE` of its width and height."""
HIDDEN_SIDE = 0.45
TARGET_DECAY = 0.99
"""Of the moving average that gives the masked task its targets, a step."""
_SAMPLE = 512
"""Frames from which the pixels' variance is taken."""


REGIME_LOSSES = ("mechanism", "refinement", "ropes")
"""Names in a training's history whose losses are regime losses, where it was told levels only."""


class Batch(NamedTuple):
    """What one step of training sees of N frames.

    Attributes:
        images: float [N, 3, h, w] in 0..1, augmented, channels last in memory.
        other: A second augmented view of the same frames, for tasks with `views` = 2.
        neighbour: An augmented view of the frames next in time, for tasks with `neighbours`.
        labels: int64 [N, J], index of the level that each joint was commanded at, -1 for none.
        index: int64 [N], the frames' positions in the frame set.
    """

    images: Tensor
    other: Tensor | None
    neighbour: Tensor | None
    labels: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody asks a batch for


class Task(nn.Module):
    """A loss of a network on a batch; may own decoders and projectors, which are trained with the network.

    Attributes:
        views: 2 where the task wants `Batch.other`.
        neighbours: Whether the task wants `Batch.neighbour`.
        supervision: What a model that was trained by it has been told, for its card.
        truncated: Whether `Prediction.angle` is the location of a normal cut to [-1, 1], see `calibrate`.
    """

    views: int = 1
    neighbours: bool = False
    truncated: bool = False
    supervision: str = LEVELS_ONLY

    def forward(self, net: AngleNet, batch: Batch) -> tuple[Tensor, Prediction]:
        """The loss, a scalar, and the network's prediction on `batch.images`."""
        raise NotImplementedError


def make_task(name: str, frames: FrameSet, shares: NDArray[np.float64], net: AngleNet) -> Task:
    """The task of a name.

    Args:
        name: One of `TASKS`.
        frames: Gives the levels' densities, and the pictures that are reconstructed.
        shares: Share of training frames at each level, float64 [J, K].
        net: The network that will be trained, on its final device; the masked task copies it.

    Raises:
        TrainingError: The name is unknown.
    """
    if name == "mechanism":
        return MechanismTask(frames.log_density, shares)
    if name == "reconstruction":
        return ReconstructionTask(net, frames.images)
    if name in ("contrastive", "contrastive-time"):
        return ContrastiveTask(net, neighbours=name == "contrastive-time")
    if name == "masked":
        return MaskedTask(net)
    raise TrainingError(f"task {name!r} is unknown: choose one of {', '.join(TASKS)}")


class MechanismTask(Task):
    """The likelihood of the commanded levels, in nats per labelled joint; see `ropes_ros.learning.mechanism`.

    Args:
        log_density: float64 [J, K, G].
        shares: float64 [J, K].
    """

    truncated = True

    def __init__(self, log_density: NDArray[np.float64], shares: NDArray[np.float64]) -> None:
        super().__init__()
        self.objective = MechanismLikelihood(log_density, shares)

    def forward(self, net: AngleNet, batch: Batch) -> tuple[Tensor, Prediction]:
        """See `Task`."""
        prediction: Prediction = net(batch.images)
        return self.objective(prediction.angle, prediction.log_std.float(), batch.labels), prediction


class ReconstructionTask(Task):
    """A denoising autoencoder: the recorded picture, at half size, from what the net makes of the augmented one.

    Light, shift and occluders that augmentation adds are not in the target (Vincent et al., JMLR 11, 2010), so that
    what is asked for is the scene. The latent alone must do for half of the training frames, so that it takes what the
    picture varies with most; a small code takes the rest, and keeps the features rich enough to start another task
    from. Each pixel is taken in units of its own spread (plus the mean one), as else the links that fill the picture
    outweigh the wrist. The loss is the share of the variance that is not explained, in these units.

    Args:
        net: The network.
        images: uint8 [N, h, w, 3], all frames, which `Batch.index` points into.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, net: AngleNet, images: NDArray[np.uint8]) -> None:
        super().__init__()
        self.images = images
        width, height = net.image_size
        self.size = ((height + 1) // 2, (width + 1) // 2)
        sample = np.unique(np.linspace(0, len(images) - 1, _SAMPLE).astype(np.int64))
        pictures = self._pictures(torch.from_numpy(sample))
        variance = pictures.var(dim=0, keepdim=True).mean(dim=1, keepdim=True)
        spread = (variance + variance.mean()).sqrt()
        self.register_buffer("centre", pictures.mean(dim=0, keepdim=True))
        self.register_buffer("spread", spread * (variance / spread.square()).mean().sqrt())
        self.code = nn.Linear(net.units, CODE)
        self.decoder = PictureDecoder(net.joints + CODE, self.size)

    def forward(self, net: AngleNet, batch: Batch) -> tuple[Tensor, Prediction]:
        """See `Task`."""
        prediction: Prediction = net(batch.images)
        code = self.code(net.hidden_of(prediction))
        if self.training:
            code = code * (torch.rand(len(code), 1, device=code.device) < CODE_SHARE)
        found = self.decoder(torch.cat([prediction.angle, code], dim=1)).float()
        target = (self._pictures(batch.index).to(found.device) - self.centre) / self.spread
        return (found - target).square().mean(), prediction

    def _pictures(self, index: Tensor) -> Tensor:
        """Recorded pictures at half size, float [n, 3, height, width] in 0..1."""
        return F.interpolate(to_input(self.images[index.cpu().numpy()]), self.size, mode="area")


class PictureDecoder(nn.Module):
    """Pictures from short vectors: two dense layers, then three doublings with a convolution each.

    Args:
        inputs: Length of a vector.
        size: (height, width) of the pictures.
    """

    def __init__(self, inputs: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.sizes = [(-(-size[0] // scale), -(-size[1] // scale)) for scale in (8, 4, 2, 1)]
        rows, columns = self.sizes[0]
        self.dense = nn.Sequential(
            nn.Linear(inputs, 256), nn.ReLU(), nn.Linear(256, 64 * rows * columns), nn.ReLU()
        )
        self.convolutions = nn.ModuleList(
            nn.Conv2d(previous, channels, 3, padding=1) for previous, channels in ((64, 48), (48, 32), (32, 16))
        )
        self.colours = nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, vectors: Tensor) -> Tensor:
        """float [N, inputs] to float [N, 3, height, width]."""
        maps = self.dense(vectors).unflatten(1, (64, *self.sizes[0]))
        for convolution, size in zip(self.convolutions, self.sizes[1:], strict=True):
            maps = F.relu(convolution(F.interpolate(maps, size, mode="nearest")))
        pictures: Tensor = self.colours(maps)
        return pictures


class ContrastiveTask(Task):
    """InfoNCE between two views of a frame, or between a frame and the next: of the latent and of the features.

    The latent is compared by the L1 distance in a box, under which what the loss recovers is unmixed up to order and
    sign when neighbours differ by a Laplace step (Zimmermann et al., arXiv 2102.08850, on convex bodies; between two
    views of one frame there is no such step, and structure is the constraint's business). The features pass a
    projector and are compared by cosine (Chen et al., arXiv 2002.05709). Other frames of the batch are the negatives.

    Args:
        net: The network.
        neighbours: Compare with the next frame instead of with another view.
    """

    def __init__(self, net: AngleNet, *, neighbours: bool) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.views = 1 if neighbours else 2
        self.project = nn.Sequential(nn.Linear(net.units, net.units), nn.ReLU(), nn.Linear(net.units, PROJECTION))

    def forward(self, net: AngleNet, batch: Batch) -> tuple[Tensor, Prediction]:
        """See `Task`."""
        partner = batch.neighbour if self.neighbours else batch.other
        if partner is None:
            raise TrainingError("the contrastive task needs a second view of each frame, and the batch has none")
        both: Prediction = net(torch.cat([batch.images, partner]))
        first, second = both.angle.chunk(2)
        projected = F.normalize(self.project(net.hidden_of(both)).float(), dim=1)
        one, two = projected.chunk(2)
        outside = (both.angle.abs() - 1.0).clamp(min=0.0).square().mean()
        loss = info_nce(-torch.cdist(first, second, p=1.0)) + info_nce(one @ two.T) + outside
        return loss, prediction_part(both, slice(len(first)))


def info_nce(similarity: Tensor) -> Tensor:
    """Cross-entropy of telling each row's partner, on the diagonal, from all others, both ways; a scalar in nats.

    Args:
        similarity: float [N, N] (van den Oord et al., arXiv 1807.03748), before the temperature.
    """
    target = torch.arange(len(similarity), device=similarity.device)
    logits = similarity / TEMPERATURE
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


class MaskedTask(Task):
    """Embeddings of hidden patches, predicted from what is left of the picture and from the latent.

    As in I-JEPA (Assran et al., arXiv 2301.08243) targets are the feature maps that a moving average of the network
    makes of the whole picture, and only cells of hidden blocks count. What is left of the picture passes the network
    itself, with the hidden cells grey. The predictor also has the latent of the whole picture, J numbers, which
    therefore learns to tell what the visible part does not. Unlike there, targets are centred and scaled over the
    frames of the batch, as a reconstruction is: with one camera most of a map never changes, and would be all that is
    predicted. The loss is the share of the hidden cells' variance that is not explained.

    Args:
        net: The network; its trunk is copied.
    """

    def __init__(self, net: AngleNet) -> None:
        super().__init__()
        self.target = copy.deepcopy(net).requires_grad_(False)
        self.target.hidden = nn.Sequential()  # the trunk is all that is needed of it
        self.columns, self.rows = net.map_size
        self.spread = nn.Linear(net.joints, 32 * self.rows * self.columns)
        self.predictor = nn.Sequential(
            nn.Conv2d(net.channels + 33, 128, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(128, 128, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(128, net.channels, 1),
        )

    def forward(self, net: AngleNet, batch: Batch) -> tuple[Tensor, Prediction]:
        """See `Task`."""
        hidden = self._hidden_cells(len(batch.images), batch.images.device)
        self.target.eval()
        with torch.no_grad():
            if self.training:
                for average, weight in zip(self.target.stem.parameters(), net.stem.parameters(), strict=True):
                    average.lerp_(weight, 1.0 - TARGET_DECAY)
                for statistic, current in zip(self.target.stem.buffers(), net.stem.buffers(), strict=True):
                    statistic.copy_(current)
            wanted = _standardised(self.target.trunk(batch.images))
        prediction: Prediction = net(batch.images)
        covered = F.interpolate(hidden, batch.images.shape[2:], mode="nearest")
        with _statistics_kept(net):
            context = net.trunk(torch.lerp(batch.images, torch.full_like(batch.images, 0.5), covered))
        latent = self.spread(prediction.angle).unflatten(1, (32, self.rows, self.columns))
        found = self.predictor(torch.cat([context, latent, hidden], dim=1)).float()
        error = ((found - wanted).square() * hidden).sum()
        return error / (wanted.square() * hidden).sum().clamp(min=1e-6), prediction

    def _hidden_cells(self, count: int, device: torch.device) -> Tensor:
        """1 where a cell is hidden, float [count, 1, rows, columns]; the same ones every time out of training."""
        generator = None if self.training else torch.Generator().manual_seed(count)
        draws = torch.rand((2, count, HIDDEN_BLOCKS), generator=generator).to(device)
        inside = []
        for draw, cells in zip(draws, (self.rows, self.columns), strict=True):
            side = max(1, round(HIDDEN_SIDE * cells))
            first = (draw * (cells - side + 1)).floor()[:, :, None]
            place = torch.arange(cells, device=device)
            inside.append((place >= first) & (place < first + side))
        covered: Tensor = (inside[0][:, :, :, None] & inside[1][:, :, None, :]).any(dim=1, keepdim=True)
        return covered.float()


def _standardised(maps: Tensor) -> Tensor:
    """Maps [N, C, h, w] in float32, less their mean over frames, in units of their spread (plus the mean one)."""
    centred = maps.float() - maps.float().mean(dim=0, keepdim=True)
    variance = centred.square().mean(dim=0, keepdim=True)
    return centred * (variance + variance.mean() + 1e-8).rsqrt()


@contextmanager
def _statistics_kept(net: nn.Module) -> Iterator[None]:
    """Leave the running statistics of batch normalisation as they are: masked pictures are none that will be met."""
    layers = [layer for layer in net.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum

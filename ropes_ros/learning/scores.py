"""Score differences between regimes: what two interventions on one joint say of a representation.

Stein's score of a density is the gradient of its logarithm. Two regimes that differ in joint i's mechanism alone have
scores that, in the true coordinates, differ in coordinate i alone (Varici et al., arXiv 2402.00849, sec. 4). The
difference is estimated without either density: a classifier that tells the two regimes apart has the log density ratio
(LDR) as its logit, and the ratio's gradient is the score difference (Gutmann and Hyvarinen, JMLR 13, 2012). Carried
through a decoder's Jacobian J, d_Z = J(z)^T d_Y, its mean magnitude over frames fills one row of the score-difference
matrix D [pairs, latents], which a disentangled representation makes diagonal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from ropes_ros.dataset import FrameSet
from ropes_ros.errors import TrainingError
from ropes_ros.learning.constraints import Constraint
from ropes_ros.learning.networks import AngleNet, Prediction
from ropes_ros.learning.tasks import Batch

FLAT = 0.1
"""A level whose log density changes by less than this over the inner four fifths of the range is observational."""
SIGNED = 0.02
"""Means of two densities, in half ranges, that lie closer than this do not tell which way a joint turns."""
DISTINCT = 0.05
"""Least total variation distance of two densities that are to be told apart."""
RECONSTRUCTION_WEIGHT = 0.1


class LevelPair(NamedTuple):
    """Two hard interventions on one joint, each a level or several levels pooled.

    Attributes:
        joint: Number of the joint.
        first, second: Level numbers of the two regimes; the second's mean is the larger where the means differ.
        signed: Whether the means differ, so that the pair tells which way the joint turns.
    """

    joint: int
    first: tuple[int, ...]
    second: tuple[int, ...]
    signed: bool

    def targets(self, labels: NDArray[np.int16]) -> NDArray[np.int64]:
        """Regime of frames: 0 for the first, 1 for the second, -1 for neither.

        Args:
            labels: int16 [N, J], levels of all joints, -1 for none.

        Returns:
            int64 [N].
        """
        own = labels[:, self.joint]
        return np.where(np.isin(own, self.second), 1, np.where(np.isin(own, self.first), 0, -1)).astype(np.int64)


def observational_level(frames: FrameSet) -> int | None:
    """Number of the level whose density is flat for every joint: that of a joint that is not intervened on."""
    inner = np.abs(frames.grid) <= 0.8
    flat = (np.ptp(frames.log_density[:, :, inner], axis=2) < FLAT).all(axis=0)
    return int(np.flatnonzero(flat)[0]) if flat.any() else None


def level_pairs(frames: FrameSet, levels: tuple[str, str] | None = None) -> list[LevelPair]:
    """One pair of regimes for each joint.

    Args:
        frames: Give the levels and their densities.
        levels: Ids of the two levels to compare. None takes the two that are not observational, or, where there are
            more, the lower half of them pooled against the upper half (by mean; an odd one in the middle is left out):
            pooled levels are a hard intervention as well, whose density is their mean.

    Returns:
        J pairs, in the order of the joints.

    Raises:
        TrainingError: Fewer than two levels, an unknown level, or two regimes of one density.
    """
    if levels is not None:
        unknown = [name for name in levels if name not in frames.level_ids]
        if unknown:
            raise TrainingError(f"no level {unknown[0]!r}: the recording has {', '.join(frames.level_ids)}")
        usable = [frames.level_ids.index(name) for name in levels]
    else:
        observational = observational_level(frames)
        usable = [level for level in range(len(frames.level_ids)) if level != observational]
    if len(usable) < 2:
        raise TrainingError(
            f"levels {', '.join(frames.level_ids)}: two interventions on each joint are needed, besides the "
            "observational level; record with another schedule"
        )
    return [_pair(frames, joint, usable) for joint in range(len(frames.joint_names))]


def _pair(frames: FrameSet, joint: int, usable: Sequence[int]) -> LevelPair:
    density = np.exp(frames.log_density[joint])
    density /= density.sum(axis=1, keepdims=True)
    means = density @ frames.grid
    ordered = sorted(usable, key=lambda level: means[level].round(3))
    half = len(ordered) // 2
    first, second = tuple(ordered[:half]), tuple(ordered[len(ordered) - half :])
    pooled = [density[list(side)].mean(axis=0) for side in (first, second)]
    if 0.5 * np.abs(pooled[0] - pooled[1]).sum() < DISTINCT:
        names = [" + ".join(frames.level_ids[level] for level in side) for side in (first, second)]
        raise TrainingError(
            f"joint {frames.joint_names[joint]!r}: the densities of {names[0]} and {names[1]} hardly differ; "
            "name two levels that do"
        )
    return LevelPair(joint, first, second, bool(abs((pooled[1] - pooled[0]) @ frames.grid) > SIGNED))


def ldr_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of telling regimes apart; its minimum makes logits log density ratios, second to first.

    Each pair's two regimes weigh the same, whatever their numbers of frames, so that no log ratio of counts enters.

    Args:
        logits: float [N, P].
        targets: [N, P]; 0 first regime, 1 second, -1 neither.

    Returns:
        Scalar, nats, mean over the pairs that have frames of both regimes; 0 when none has.
    """
    ones = (targets == 1).to(logits.dtype)
    zeros = (targets == 0).to(logits.dtype)
    counts = ones.sum(dim=0), zeros.sum(dim=0)
    weights = 0.5 * (ones / counts[0].clamp(min=1) + zeros / counts[1].clamp(min=1))
    loss = (binary_cross_entropy_with_logits(logits, ones, reduction="none") * weights).sum(dim=0)
    both = ((counts[0] > 0) & (counts[1] > 0)).to(logits.dtype)
    return (loss * both).sum() / both.sum().clamp(min=1)


def score_differences(ldr: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """Gradient of a log density ratio at points.

    Args:
        ldr: From a batch [N, ...] to N log density ratios, each of its own point alone.
        points: float [N, ...].

    Returns:
        Of the points' shape, detached.
    """
    leaf = points.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(ldr(leaf).sum(), leaf)
    return gradient


def to_latents(decoder: nn.Module, latents: Tensor, differences: Tensor) -> Tensor:
    """Score differences in latent coordinates: d_Z = J(z)^T d_Y, J the decoder's Jacobian.

    One vector-Jacobian product a pair; the Jacobian itself is never formed.

    Args:
        decoder: From z [N, J] to y [N, F], sample by sample.
        latents: z, float [N, J].
        differences: d_Y, float [N, P, F].

    Returns:
        float [N, P, J].
    """
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        start = latents if latents.requires_grad else latents.detach().requires_grad_(True)
        end = decoder(start)
        rows = [
            torch.autograd.grad(end, start, difference, retain_graph=True, create_graph=keep)[0]
            for difference in differences.unbind(dim=1)
        ]
    return torch.stack(rows, dim=1)


def score_matrix(differences: Tensor) -> Tensor:
    """D [P, J]: mean magnitude over frames of score differences [N, P, J] in latent coordinates."""
    return differences.abs().mean(dim=0)


def assign(matrix: NDArray[np.float64]) -> NDArray[np.int64]:
    """The latent of each pair: the assignment that gathers most of D, each column as a share of its sum.

    Args:
        matrix: D, float [P, J] with P <= J.

    Returns:
        int64 [P], column of each row (Hungarian method; Kuhn 1955).
    """
    from scipy.optimize import linear_sum_assignment

    share = matrix / np.maximum(matrix.sum(axis=0, keepdims=True), 1e-12)
    order: NDArray[np.int64] = linear_sum_assignment(share, maximize=True)[1].astype(np.int64)
    return order


class DenseCoder(nn.Sequential):
    """Linear, ReLU, LayerNorm, linear: the dense encoder or decoder of the published third stage.

    Args:
        inputs, outputs: Widths of its ends.
        hidden: Units between.
    """

    def __init__(self, inputs: int, outputs: int, hidden: int = 256) -> None:
        super().__init__(nn.Linear(inputs, hidden), nn.ReLU(), nn.LayerNorm(hidden), nn.Linear(hidden, outputs))


class ScoreConstraint(Constraint):
    """Score differences diagonal in the latent, for end-to-end training with any task.

    The third stage of ROPES (arXiv 2510.20884) without its first two: the network's features stand for y; small
    classifiers on them, one a pair, give d_Y; a decoder from the latent z to the features gives the Jacobian. The
    value is ||D_n - I||_1 / J + 0.1 E||y - decoder(z)||^2 / F + the classifiers' cross-entropy. D_n is D with each
    column divided by its sum, so that the latent keeps whatever unit the task gives it. Features are standardised and
    detached, and d_Y carries no gradient: classifiers learn from the cross-entropy alone, and the network from z.
    All parts are parameters of this module and are trained with the network's.

    Args:
        pairs: One pair of regimes for each joint, in the order of the joints.
        features: Width F of the network's features.
        hidden: Hidden units of each classifier.
    """

    table: Tensor

    def __init__(self, pairs: Sequence[LevelPair], features: int, *, hidden: int = 32) -> None:
        super().__init__()
        count, levels = len(pairs), 1 + max(max(pair.first + pair.second) for pair in pairs)
        table = np.full((count, levels + 1), -1, dtype=np.int64)  # a type that gloo can broadcast
        for row, pair in enumerate(pairs):
            table[row, list(pair.first)] = 0
            table[row, list(pair.second)] = 1
        self.register_buffer("table", torch.from_numpy(table))
        self.standardise = nn.BatchNorm1d(features, affine=False)
        self.inner = nn.Parameter(torch.randn(count, hidden, features) / features**0.5)
        self.bias = nn.Parameter(torch.zeros(count, hidden))
        self.outer = nn.Parameter(torch.randn(count, hidden) / hidden**0.5)
        self.offset = nn.Parameter(torch.zeros(count))
        self.decoder = DenseCoder(count, features)

    def forward(self, net: AngleNet, batch: Batch, prediction: Prediction) -> Tensor:
        """See the class.

        Args:
            net: The network; not called again.
            batch: Gives the labels.
            prediction: Of the batch's images: the latent z = `angle`, and the features.

        Returns:
            Scalar.
        """
        with torch.autocast(prediction.angle.device.type, enabled=False):
            latents = prediction.angle.float()
            features = self.standardise(prediction.features.detach().float())
            units = torch.tanh(torch.einsum("nf,phf->nph", features, self.inner) + self.bias)
            logits = (units * self.outer).sum(dim=2) + self.offset
            with torch.no_grad():
                differences = torch.einsum("nph,phf->npf", (1.0 - units.square()) * self.outer, self.inner)
            matrix = score_matrix(to_latents(self.decoder, latents, differences))
            shares = matrix / matrix.sum(dim=0, keepdim=True).clamp(min=1e-6)
            joints = len(self.table)
            off = (shares - torch.eye(joints, device=matrix.device)).abs().sum() / joints
            unexplained = (features - self.decoder(latents)).square().mean()
            loss: Tensor = off + RECONSTRUCTION_WEIGHT * unexplained + ldr_loss(logits, self.regimes(batch.labels))
            return loss

    def regimes(self, labels: Tensor) -> Tensor:
        """Regime of each frame in each pair, int16 [N, P]: 0 first, 1 second, -1 neither; labels int64 [N, J]."""
        joints, levels = self.table.shape
        column = torch.where((labels >= 0) & (labels < levels - 1), labels, levels - 1)
        regimes: Tensor = self.table[torch.arange(joints, device=labels.device), column]
        return regimes


def score_constraint(frames: FrameSet, net: AngleNet) -> ScoreConstraint:
    """The constraint for a recording and a network.

    Args:
        frames: Give the levels; see `level_pairs`.
        net: The network whose features and latent are constrained; shown one grey image, to count its features.

    Raises:
        TrainingError: The levels give no pair of regimes for some joint.
    """
    width, height = net.image_size
    training = net.training
    with torch.no_grad():
        grey = torch.full((1, 3, height, width), 0.5, device=net.head.weight.device)
        features = net.eval()(grey).features.shape[1]
    net.train(training)
    return ScoreConstraint(level_pairs(frames), features)

"""Latents without units become normalised angles, with no angle known: order, direction, and a monotone map.

Tasks other than the mechanism likelihood give latents that are the joints at best up to order, direction and a
monotone map each (Varici et al., arXiv 2402.00849, on general transformations, for two hard interventions a joint).
All three follow from what was commanded. The order is the assignment of latents to joints under which latents vary
most with the joint's level; the direction is that in which a latent grows with the mean of the level; and the map
takes the latent's quantiles to those of the positions commanded, a distribution that is never paired with frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ropes_ros.dataset import FrameSet, Split
from ropes_ros.errors import TrainingError
from ropes_ros.learning.augmentation import to_input
from ropes_ros.learning.mechanism import MechanismLikelihood
from ropes_ros.learning.networks import KINDS, LOG_STD_RANGE, Prediction, build

SHARES = np.concatenate([[0.002, 0.005], np.linspace(0.01, 0.99, 50), [0.995, 0.998]])
"""Quantiles that are matched."""
LEAST_SPREAD = 0.02
"""Half ranges by which the means of a joint's levels have to differ before they tell a direction."""
LEAST_Z = 4.0
"""How many standard errors a correlation must have to tell a direction, each segment counting as one observation."""
LEAST_FRAMES = 100
_STD_STEPS = 20


@dataclass(frozen=True)
class Alignment:
    """Which latent is which joint, its direction, and the map to u.

    Attributes:
        order: int64 [J], the column of the latents that is each joint.
        sign: float64 [J], +1 or -1.
        sign_identified: bool [J]; False where the levels cannot tell the direction, and +1 was taken.
        correlation: float64 [J], magnitude of the correlation of the latent with what the level says of the joint.
        knots_z: float64 [J, Q], strictly increasing, in units of the ordered and signed latent.
        knots_u: float64 [J, Q], half ranges, increasing or, for ties and joints without labels, level.
    """

    order: NDArray[np.int64]
    sign: NDArray[np.float64]
    sign_identified: NDArray[np.bool_]
    correlation: NDArray[np.float64]
    knots_z: NDArray[np.float64]
    knots_u: NDArray[np.float64]

    def apply(self, latents: NDArray[np.float64]) -> NDArray[np.float64]:
        """Normalised angles of latents: float [N, D] to float64 [N, J].

        Linear between knots; beyond the outermost with the mean slope of all.
        """
        turned = np.asarray(latents, dtype=np.float64)[:, self.order] * self.sign
        angle = np.empty_like(turned)
        for joint, (z, u) in enumerate(zip(self.knots_z, self.knots_u, strict=True)):
            slope = (u[-1] - u[0]) / (z[-1] - z[0])
            beyond = np.minimum(turned[:, joint] - z[0], 0.0) + np.maximum(turned[:, joint] - z[-1], 0.0)
            angle[:, joint] = np.interp(turned[:, joint], z, u) + slope * beyond
        return angle


def align(
    latents: NDArray[np.float64], frames: FrameSet, split: Split, *, order: NDArray[np.int64] | None = None
) -> Alignment:
    """Find order, direction and map of latents from what was commanded.

    Training and calibration spans are used; validation spans stay unseen. A joint without any label is left at home:
    it gets a latent that no other joint wants, and a map to 0.

    Args:
        latents: float [N, D], D at least J, one row for every frame of the set; rows of NaN are left out.
        frames: The frames.
        split: Their uses, and the labels that count.
        order: int64 [J], column of each joint where it is known otherwise; None finds it.

    Raises:
        TrainingError: Fewer latents than joints, too few labelled frames, or a latent that does not vary.
    """
    joints = len(frames.joint_names)
    if len(latents) != len(frames):
        raise TrainingError(f"{len(latents)} rows of latents for {len(frames)} frames: give one a frame (NaN for none)")
    if latents.shape[1] < joints:
        raise TrainingError(f"{latents.shape[1]} latents cannot be {joints} joints: take a representation with more")
    used = np.concatenate([split.train, split.calibration])
    used = used[np.isfinite(latents[used]).all(axis=1)]
    values, labels, segments = np.asarray(latents[used], dtype=np.float64), split.labels[used], frames.segments[used]
    for joint, name in enumerate(frames.joint_names):
        count = int((labels[:, joint] >= 0).sum())
        if 0 < count < LEAST_FRAMES:
            raise TrainingError(f"joint {name}: {count} labelled frames are too few to align it; record longer")
    direct, folded = _correlations(values, labels, frames)
    found = _assigned(np.maximum(np.abs(direct), np.abs(folded))) if order is None else np.asarray(order)
    rows = np.arange(joints)
    chosen = direct[rows, found]
    observations = np.array([len(np.unique(segments[labels[:, joint] >= 0, joint])) for joint in rows])
    identified = np.abs(chosen) * np.sqrt(observations) > LEAST_Z
    sign = np.where(identified & (chosen < 0), -1.0, 1.0)
    knots = [
        _quantile_map(sign[joint] * values[:, found[joint]], labels[:, joint], frames, joint) for joint in range(joints)
    ]
    return Alignment(
        found,
        sign,
        identified,
        np.maximum(np.abs(direct), np.abs(folded))[rows, found],
        np.stack([z for z, _ in knots]),
        np.stack([u for _, u in knots]),
    )


def _correlations(
    values: NDArray[np.float64], labels: NDArray[np.int16], frames: FrameSet
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Correlation of every latent with the mean of each joint's level, and of its square with the level's variance.

    The second finds the order where levels share a centre and differ in width alone.

    Returns:
        Two float64 [J, D]; 0 where the levels of a joint do not differ in that moment.
    """
    count, latents = len(frames.joint_names), values.shape[1]
    direct, folded = np.zeros((count, latents)), np.zeros((count, latents))
    density = np.exp(frames.log_density)
    density /= density.sum(axis=2, keepdims=True)
    for joint in range(count):
        rows = labels[:, joint] >= 0
        if not rows.any():
            continue
        own = labels[rows, joint]
        shares = np.bincount(own, minlength=len(frames.level_ids)) / len(own)
        means = density[joint] @ frames.grid
        widths = density[joint] @ (frames.grid - shares @ means) ** 2
        latent = values[rows]
        if np.ptp(means[shares > 0]) > LEAST_SPREAD:
            direct[joint] = _correlation(means[own], latent)
        if np.ptp(widths[shares > 0]) > LEAST_SPREAD:
            folded[joint] = _correlation(widths[own], (latent - np.median(latent, axis=0)) ** 2)
    return direct, folded


def _correlation(known: NDArray[np.float64], latents: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson correlation of one variable [n] with each column of latents [n, D]; 0 for a constant column."""
    one, many = known - known.mean(), latents - latents.mean(axis=0)
    norm = np.sqrt((one @ one) * (many * many).sum(axis=0))
    correlation: NDArray[np.float64] = (one @ many) / np.where(norm > 0, norm, np.inf)
    return correlation


def _assigned(score: NDArray[np.float64]) -> NDArray[np.int64]:
    """The column of each row, all different, with the largest sum of scores [J, D] (Kuhn, 1955)."""
    from scipy.optimize import linear_sum_assignment

    columns: NDArray[np.int64] = linear_sum_assignment(score, maximize=True)[1]
    return columns


def _quantile_map(
    latent: NDArray[np.float64], labels: NDArray[np.int16], frames: FrameSet, joint: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Knots (z, u) at which the latent's quantiles are those of the commanded positions of the same frames."""
    own = labels[labels >= 0]
    if not len(own):
        return np.linspace(-1.0, 1.0, len(SHARES)), np.zeros(len(SHARES))
    shares = np.bincount(own, minlength=len(frames.level_ids)) / len(own)
    mixture = shares @ np.exp(frames.log_density[joint])
    steps = 0.5 * (mixture[1:] + mixture[:-1]) * np.diff(frames.grid)
    cumulative = np.concatenate([[0.0], np.cumsum(steps)])
    u = np.interp(SHARES, cumulative / cumulative[-1], frames.grid)
    z = np.quantile(latent[labels >= 0], SHARES)
    if not z[-1] > z[0]:
        raise TrainingError(
            f"joint {frames.joint_names[joint]}: its latent is the same in all frames, so nothing was learned of it; "
            "train with another task or constraint"
        )
    _, ties = np.unique(z, return_inverse=True)  # a quantised latent has them: each value stands for a range of u
    u = (np.bincount(ties, u) / np.bincount(ties))[ties]
    return z + 1e-5 * (z[-1] - z[0]) * np.arange(len(z)), u


class AlignedNet(nn.Module):
    """A network whose latents are turned into angles; what is exported of a task that has no units.

    Args:
        inner: The network; its `angle` is the latent.
        joints: Number of joints J.
        knots: Number of knots Q of each joint's map.
    """

    order: Tensor
    sign: Tensor
    knots_z: Tensor
    knots_u: Tensor
    log_std: Tensor

    def __init__(self, inner: nn.Module, joints: int, knots: int) -> None:
        super().__init__()
        self.inner = inner
        self.image_size: tuple[int, int] = inner.image_size  # type: ignore[assignment]
        self.joints = joints
        self.register_buffer("order", torch.zeros(joints, dtype=torch.int64))
        self.register_buffer("sign", torch.ones(joints))
        self.register_buffer("knots_z", torch.linspace(-1.0, 1.0, knots).repeat(joints, 1))
        self.register_buffer("knots_u", torch.linspace(-1.0, 1.0, knots).repeat(joints, 1))
        self.register_buffer("log_std", torch.full((joints,), LOG_STD_RANGE[1]))

    def architecture(self) -> dict[str, Any]:
        """Plain values from which `networks.build` makes an equal, untrained network."""
        inner: dict[str, Any] = self.inner.architecture()  # type: ignore[operator]
        return {"kind": "aligned", "inner": inner, "joints": self.joints, "knots": self.knots_z.shape[1]}

    def forward(self, images: Tensor) -> Prediction:
        """Predict from images [N, 3, height, width]; the spread is the same for all."""
        prediction: Prediction = self.inner(images)
        turned = prediction.angle[:, self.order] * self.sign
        width, rise = (knots[:, 1:] - knots[:, :-1] for knots in (self.knots_z, self.knots_u))
        inside = (turned[:, :, None] - self.knots_z[:, :-1]).clamp(min=0.0).minimum(width)
        slope = (self.knots_u[:, -1] - self.knots_u[:, 0]) / (self.knots_z[:, -1] - self.knots_z[:, 0])
        beyond = (turned - self.knots_z[:, 0]).clamp(max=0.0) + (turned - self.knots_z[:, -1]).clamp(min=0.0)
        angle = self.knots_u[:, 0] + (inside * (rise / width)).sum(dim=2) + slope * beyond
        return Prediction(angle, self.log_std.expand_as(angle), prediction.features)


def _aligned_net(architecture: dict[str, Any]) -> nn.Module:
    return AlignedNet(build(architecture["inner"]), architecture["joints"], architecture["knots"])


KINDS["aligned"] = _aligned_net


@torch.no_grad()
def aligned(net: nn.Module, frames: FrameSet, split: Split, objective: MechanismLikelihood) -> AlignedNet:
    """A network with its latents turned into angles, and the spread that the regimes find likeliest.

    A joint without labels in the calibration spans gets the largest spread.

    Args:
        net: The trained network; its `angle` is the latent.
        frames: The frames.
        split: Their uses. Training and calibration spans give the map, calibration spans the spread.
        objective: The regime likelihood.

    Raises:
        TrainingError: See `align`.
    """
    net.eval()
    latents = np.full((len(frames), len(frames.joint_names)), np.nan)
    for part in (split.train, split.calibration):
        for start in range(0, len(part), 512):
            chosen = part[start : start + 512]
            latents[chosen] = net(to_input(frames.images[chosen])).angle.double().numpy()
    alignment = align(latents, frames, split)
    outer = AlignedNet(net, len(frames.joint_names), alignment.knots_z.shape[1])
    for name in ("order", "sign", "knots_z", "knots_u"):
        buffer: Tensor = getattr(outer, name)
        buffer.copy_(torch.from_numpy(getattr(alignment, name)))
    angle = torch.from_numpy(alignment.apply(latents[split.calibration])).float()
    labels = torch.from_numpy(split.labels[split.calibration].astype(np.int64))
    steps = torch.linspace(*LOG_STD_RANGE, _STD_STEPS)
    likelihood = torch.stack(
        [objective.log_likelihood(angle, torch.full_like(angle, float(step)), labels).sum(dim=0) for step in steps]
    )
    outer.log_std.copy_(torch.where((labels >= 0).any(dim=0), steps[likelihood.argmax(dim=0)], LOG_STD_RANGE[1]))
    return outer.eval()

"""What is fitted after training on spans kept apart, without angles: a monotone map, the scale of std, and novelty.

The regime likelihood reads a prediction as a normal of location `angle` and width exp(log_std), cut to [-1, 1]. The
location is not the estimate: where the image leaves the angle open it lies at the edge, or beyond. What a model states
is therefore the mean and the standard deviation of the cut normal (`truncated_moments`), after each joint's location
went through its map and its width was scaled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ropes_ros.dataset import FrameSet, Split, crossing
from ropes_ros.errors import TrainingError
from ropes_ros.learning.augmentation import Augmentation, to_input
from ropes_ros.learning.mechanism import MechanismLikelihood
from ropes_ros.learning.networks import LOG_STD_RANGE

SCALES = np.exp(np.linspace(np.log(0.25), np.log(4.0), 33))
"""Factors that the standard deviation may get, evenly spaced in their logarithm: the prior of the calibration."""
SPREADS = (0.1, 0.3, 1.0)
"""Standard deviations, equally probable beforehand, of the logarithm of the joints' factors about their common mean."""
QUANTILES = np.linspace(0.01, 0.99, 25)
LEAST_SEGMENTS = 80
"""A map is fitted to no fewer pooled segments: some three for each of its points."""
FOLDS = 4
REFERENCE_FRAMES = 5000
LIGHT, NOISE, SHIFT = 0.1, 0.01, 1
"""What the reference frames' light, noise and place are changed by before their features are taken, see `Augmentation`:
less than in training, but so much that another lamp or another hour is not novel."""
RIDGE = 1e-4
"""Added to the variances of the standardised features' principal components, as a share of the largest."""
AXES = 256
"""Principal axes of the features that are told apart."""
LEAST_SPREAD = 1e-4
"""Least standard deviation of a feature, as a share of the largest: what never varied in training is not weighed up."""
IGNORANCE = 3.0**-0.5
"""Standard deviation of an angle of which only the range is known, half ranges."""


class Familiar(NamedTuple):
    """The features of training frames as a normal distribution: D principal axes, and one variance for the rest.

    Tipping and Bishop, Probabilistic Principal Component Analysis, JRSS B 61, 1999.

    Attributes:
        mean: float64 [F].
        unit: Factors that make the features' variances alike, float64 [F].
        axes: Principal axes of the standardised features, float64 [F, D], orthonormal.
        weights: Inverse variances along them, and of all others, float64 [D + 1].
    """

    mean: NDArray[np.float64]
    unit: NDArray[np.float64]
    axes: NDArray[np.float64]
    weights: NDArray[np.float64]

    @staticmethod
    def of(features: NDArray[np.float64], like: Familiar | None = None) -> Familiar:
        """Fit to features [N, F]; along the axes and in the units of another one where that is given."""
        if like is not None:
            mean = features.mean(axis=0)
            centred = (features - mean) * like.unit
            along = (centred @ like.axes).var(axis=0)
            others = max(1, centred.shape[1] - len(along))
            rest = max((centred.var(axis=0).sum() - along.sum()) / others, 0.0)
            return Familiar(mean, like.unit, like.axes, 1.0 / (np.append(along, rest) + RIDGE * along.max()))
        mean, spread = features.mean(axis=0), features.std(axis=0)
        unit = 1.0 / np.maximum(spread, LEAST_SPREAD * spread.max())
        values, vectors = np.linalg.eigh(np.cov(((features - mean) * unit).T))
        values, vectors = values[::-1], vectors[:, ::-1]
        ridge = RIDGE * values[0]
        rest = np.maximum(values[AXES:], 0.0).mean() if len(values) > AXES else 0.0
        weights = 1.0 / (np.append(np.maximum(values[:AXES], 0.0), rest) + ridge)
        return Familiar(mean, unit, np.ascontiguousarray(vectors[:, :AXES]), weights)

    def axis_scale(self) -> NDArray[np.float64]:
        """What a unit of 8 bits is worth along each axis, float64 [D]."""
        return np.asarray(np.abs(self.axes).max(axis=0) / 127.0)

    def whole(self) -> Familiar:
        """With axes in whole units of 8 bits, as quantised models store them."""
        scale = self.axis_scale()
        return self._replace(axes=np.rint(self.axes / scale) * scale)

    def distance(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mahalanobis distance of features [N, F], float64 [N]."""
        centred = (features - self.mean) * self.unit
        along = (centred @ self.axes) ** 2
        rest = np.maximum((centred**2).sum(axis=1) - along.sum(axis=1), 0.0)
        return np.asarray(np.sqrt(along @ self.weights[:-1] + rest * self.weights[-1]))


@dataclass(frozen=True)
class Calibration:
    """Constants of the exported model.

    Attributes:
        std_scale: Factor on each joint's standard deviation, float64 [J].
        std_scale_range: Ends of the 90 % interval of its posterior, float64 [J, 2]: how well the levels tell it.
        knots: Locations at which each joint's map is given, float64 [J, Q], increasing.
        mapped: The map there, float64 [J, Q]; equal to `knots` for joints whose map was not accepted.
        map_gain: Nats a frame by which the map lowers the regime loss on spans that it was not fitted on, and the
            standard error of that over segments, float64 [J, 2]; not a number where too few segments were pooled.
        identified: Joints that had labels; the others are stated at home with the spread of their range, bool [J].
        truncated: Whether the net's angle is the location of a cut normal (true of everything that was trained with the
            regime likelihood) or already an estimate.
        held_out_loss: Regime loss on the calibration spans after both, nats, float64 [J]; not a number without a label.
        floor: Bayes floor of that loss, nats, float64 [J].
        familiar: From features to novelty, before `novelty_reference`.
        novelty_reference: 99th percentile of the calibration frames' distance.
    """

    std_scale: NDArray[np.float64]
    std_scale_range: NDArray[np.float64]
    knots: NDArray[np.float64]
    mapped: NDArray[np.float64]
    map_gain: NDArray[np.float64]
    identified: NDArray[np.bool_]
    truncated: bool
    held_out_loss: NDArray[np.float64]
    floor: NDArray[np.float64]
    familiar: Familiar
    novelty_reference: float

    @property
    def loss(self) -> float:
        """Mean of `held_out_loss` over the joints of which it is known, nats."""
        return float(self.held_out_loss[np.isfinite(self.held_out_loss)].mean())

    @property
    def bayes_floor(self) -> float:
        """Mean of `floor` over the same joints, nats."""
        return float(self.floor[np.isfinite(self.held_out_loss)].mean())

    @property
    def map_accepted(self) -> NDArray[np.bool_]:
        """Joints whose location is mapped, bool [J]."""
        return np.asarray((self.knots != self.mapped).any(axis=1))

    def to_dict(self) -> dict[str, Any]:
        """Plain values and tensors, for a checkpoint."""
        plain = {**vars(self), "familiar": self.familiar._asdict()}
        plain["familiar"] = {name: torch.from_numpy(value) for name, value in plain["familiar"].items()}
        return {
            name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for name, value in plain.items()
        }

    @staticmethod
    def from_dict(content: dict[str, Any]) -> Calibration:
        """The inverse of `to_dict`."""
        values: dict[str, Any] = {
            name: value.numpy() if isinstance(value, Tensor) else value for name, value in content.items()
        }
        values["familiar"] = Familiar(**{name: value.numpy() for name, value in values["familiar"].items()})
        return Calibration(**values)


class Calibrated(nn.Module):
    """The map, the scale and the cut as one step of the exported graph.

    Args:
        calibration: Its constants.
    """

    knots: Tensor
    bends: Tensor
    start: Tensor
    log_scale: Tensor
    identified: Tensor

    def __init__(self, calibration: Calibration) -> None:
        super().__init__()
        slopes = np.diff(calibration.mapped, axis=1) / np.diff(calibration.knots, axis=1)
        outer = np.ones((len(slopes), 1))  # beyond the knots the map is a shift
        constants = {
            "knots": calibration.knots,
            "bends": np.diff(np.concatenate([outer, slopes, outer], axis=1), axis=1),
            "start": calibration.mapped[:, 0] - calibration.knots[:, 0],
            "log_scale": np.log(calibration.std_scale),
            "identified": calibration.identified,
        }
        for name, value in constants.items():
            self.register_buffer(name, torch.from_numpy(np.asarray(value, dtype=np.float32)))
        self.truncated = calibration.truncated

    def forward(self, angle: Tensor, log_std: Tensor) -> tuple[Tensor, Tensor]:
        """The net's angle and log std, float [N, J], to the estimate and its std, float [N, J], all in half ranges."""
        bent = ((angle[:, :, None] - self.knots).clamp(min=0.0) * self.bends).sum(dim=2)
        angle = angle + self.start + bent
        log_std = (log_std + self.log_scale).clamp(*LOG_STD_RANGE)  # where the likelihood that fitted the scale ends
        mean, std = truncated_moments(angle, log_std) if self.truncated else (angle, log_std.exp())
        return mean * self.identified, std * self.identified + (1.0 - self.identified) * IGNORANCE


def truncated_moments(angle: Tensor, log_std: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a normal cut to [-1, 1]; locations beyond the ends are taken there.

    That is what the table of `MechanismLikelihood` does, so these are the moments of the distribution that was trained.
    Johnson, Kotz, Balakrishnan, Continuous Univariate Distributions 1, 2nd edition, sec. 10.1.

    Args:
        angle: Location, float [N, J].
        log_std: Logarithm of the width before the cut, float [N, J].
    """
    location, width = angle.clamp(-1.0, 1.0), log_std.exp()
    low, high = (-1.0 - location) / width, (1.0 - location) / width
    at_low, at_high = torch.exp(-0.5 * low * low), torch.exp(-0.5 * high * high)
    mass = (2.0 * torch.pi) ** 0.5 * 0.5 * (torch.erf(high * 0.5**0.5) - torch.erf(low * 0.5**0.5))
    shift = (at_high - at_low) / mass
    variance = 1.0 - (high * at_high - low * at_low) / mass - shift * shift
    return location - width * shift, width * variance.clamp(min=1e-6).sqrt()


def calibrate(
    net: nn.Module,
    frames: FrameSet,
    split: Split,
    objective: MechanismLikelihood,
    *,
    truncated: bool = True,
    axes: Familiar | None = None,
    whole: bool = False,
) -> Calibration:
    """Fit the constants on training features and on the validation and calibration spans.

    *Map.* The quantiles of each joint's location over labelled held-out frames are matched to those of the mixture of
    the levels' densities that was commanded in the same frames: positions as a distribution, never paired with
    frames. The map is kept where, fitted on three quarters of the segments, it lowers the regime loss on the fourth,
    averaged over the four, by more than the standard error of that gain.

    *Scale.* The regime likelihood tells standard deviations near the levels' width well and those far below it hardly.
    So the scale is not maximised but averaged over its posterior on `SCALES`. Frames of a segment are alike, so the
    logarithm of their likelihood is weighted by the ratio of the score's variance frame by frame to that of its
    sum over segments (the adjustment of composite likelihoods, Ribatet, Cooley, Davison, Statistica Sinica 22, 2012).
    The joints' scales are drawn about a common one (`SPREADS`), because what makes a net misjudge its errors is
    common to its outputs: joints whose errors are small lean on those that the levels tell. Where the levels say
    nothing, the mean of the variance leans to the larger of the possible values.

    Args:
        net: The trained network; its forward gives a Prediction in half ranges.
        frames: All frames.
        split: Which of them are training, validation and calibration frames, and their labels.
        objective: The regime likelihood.
        truncated: See `Calibration`.
        axes: Whose principal axes of features are taken, where those of a similar net are known.
        whole: Store axes in 8 bits, see `Familiar.whole`.
    """
    evenly = np.linspace(0, len(split.train) - 1, min(REFERENCE_FRAMES, len(split.train))).astype(np.int64)
    varied = Augmentation(shift=SHIFT, light=LIGHT, noise=NOISE, occlusion=0.0)
    features = predict(net, frames, split.train[evenly], varied).features
    familiar = Familiar.of(features, axes)
    if whole and axes is None:
        familiar = Familiar.of(features, familiar.whole())
    pooled = np.union1d(split.validation, split.calibration)
    angle, log_std, features = predict(net, frames, pooled)
    held_out = _HeldOut(angle, log_std, split.labels[pooled], frames.segments[pooled])
    final = np.isin(pooled, split.calibration)
    distance = familiar.distance(features[final])
    maps = _fit_maps(frames, objective, held_out)
    held_out = held_out._replace(angle=_move(angle, maps.knots, maps.mapped))
    scale = fit_scale(objective, *held_out)
    likelihood = log_likelihood(objective, held_out.angle, log_std + np.log(scale.value), held_out.labels)[final]
    labelled = held_out.labels >= 0
    count = labelled[final].sum(axis=0)
    return Calibration(
        std_scale=scale.value,
        std_scale_range=scale.interval,
        knots=maps.knots,
        mapped=maps.mapped,
        map_gain=maps.gain,
        identified=np.asarray(labelled.any(axis=0)),
        truncated=truncated,
        held_out_loss=np.where(count > 0, -likelihood.sum(axis=0) / np.maximum(count, 1), np.nan),
        floor=objective.floor.double().cpu().numpy(),
        familiar=familiar,
        novelty_reference=float(np.quantile(distance, 0.99)),
    )


class _HeldOut(NamedTuple):
    """Predictions for held-out frames (angle and log std, float64 [N, J]) with their levels and segments."""

    angle: NDArray[np.float64]
    log_std: NDArray[np.float64]
    labels: NDArray[np.int16]
    segments: NDArray[np.int32]


class Scale(NamedTuple):
    """Factor on the joints' standard deviations: its value, float64 [J], and the 90 % interval, float64 [J, 2]."""

    value: NDArray[np.float64]
    interval: NDArray[np.float64]


def fit_scale(
    objective: MechanismLikelihood,
    angle: NDArray[np.float64],
    log_std: NDArray[np.float64],
    labels: NDArray[np.int16],
    segments: NDArray[np.int32],
) -> Scale:
    """Posterior of the factor on std given the levels of held-out frames; see `calibrate`.

    Args:
        objective: The regime likelihood.
        angle: Predicted locations, float64 [N, J].
        log_std: Their predicted log widths, float64 [N, J].
        labels: Levels, int16 [N, J], -1 for none.
        segments: Ids of segments, int32 [N, J].
    """
    return _scale_posterior(_by_scale(objective, angle, log_std, labels), labels, segments)


def _by_scale(
    objective: MechanismLikelihood,
    angle: NDArray[np.float64],
    log_std: NDArray[np.float64],
    labels: NDArray[np.int16],
) -> NDArray[np.float64]:
    """Log likelihood of every frame and joint with each of the scales, float64 [S, N, J]."""
    return np.stack([log_likelihood(objective, angle, log_std + np.log(scale), labels) for scale in SCALES])


def _scale_posterior(likelihood: NDArray[np.float64], labels: NDArray[np.int16], segments: NDArray[np.int32]) -> Scale:
    """The scales' posterior from what `_by_scale` gives."""
    steps = np.log(SCALES)
    joints = range(labels.shape[1])
    evidence = np.stack([_weighted(likelihood[:, :, j], segments[:, j], labels[:, j] >= 0) for j in joints])
    evidence = np.exp(evidence - evidence.max(axis=1, keepdims=True))
    # prior[t, m, s]: probability of scale s where the common one is m and the joints' spread about it is t
    prior = np.exp(-0.5 * ((steps[:, None] - steps) / np.array(SPREADS)[:, None, None]) ** 2)
    prior /= prior.sum(axis=2, keepdims=True)
    given_common = np.log(np.maximum(np.einsum("js,tms->jtm", evidence, prior), 1e-300))
    others = given_common.sum(axis=0) - given_common
    others = np.exp(others - others.max(axis=(1, 2), keepdims=True))
    posterior = evidence * np.einsum("jtm,tms->js", others, prior)
    posterior /= posterior.sum(axis=1, keepdims=True)
    below = np.cumsum(posterior, axis=1) - 0.5 * posterior
    ends = [[np.exp(np.interp(share, entry, steps)) for share in (0.05, 0.95)] for entry in below]
    return Scale(np.sqrt(posterior @ SCALES**2), np.array(ends))


def _weighted(
    likelihood: NDArray[np.float64], segments: NDArray[np.int32], labelled: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Log likelihood [S] of each scale from those of one joint's frames [S, N], as if frames were independent."""
    if not labelled.any():
        return np.zeros(len(likelihood))
    total = likelihood[:, labelled].sum(axis=1)
    best = int(np.clip(total.argmax(), 1, len(total) - 2))
    score = likelihood[best + 1, labelled] - likelihood[best - 1, labelled]
    score -= score.mean()
    _, inverse = np.unique(segments[labelled], return_inverse=True)
    alone, together = (score**2).sum(), (np.bincount(inverse, score) ** 2).sum()
    least = (inverse.max() + 1) / len(inverse)
    weight = float(np.clip(alone / max(together, 1e-300), least, 1.0))
    return np.asarray(weight * total)


class _Maps(NamedTuple):
    """The joints' maps: where they are given and their values, [J, Q], and gain with standard error in nats, [J, 2]."""

    knots: NDArray[np.float64]
    mapped: NDArray[np.float64]
    gain: NDArray[np.float64]


def _fit_maps(frames: FrameSet, objective: MechanismLikelihood, held_out: _HeldOut) -> _Maps:
    """Maps of all joints, the identity where they do not pay on segments that they were not fitted on."""
    angle, log_std, labels, segments = held_out
    fold = np.arange(len(angle)) * FOLDS // len(angle)
    plain = _by_scale(objective, angle, log_std, labels)
    gain = np.zeros(angle.shape)
    for number in range(FOLDS):
        fitted, out = fold != number, fold == number
        knots, mapped = _match(frames, angle[fitted], labels[fitted])
        moved = _by_scale(objective, _move(angle, knots, mapped), log_std, labels)
        before, after = (
            _at(_scale_posterior(entry[:, fitted], labels[fitted], segments[fitted]), entry[:, out])
            for entry in (plain, moved)
        )
        gain[out] = after - before
    knots, mapped = _match(frames, angle, labels)
    judged = (labels >= 0) & ~crossing(segments, fold)
    gains = np.full((angle.shape[1], 2), np.nan)
    for joint in range(angle.shape[1]):
        inside = judged[:, joint]
        if len(np.unique(segments[inside, joint])) >= LEAST_SEGMENTS:
            gains[joint] = mean_over_segments(gain[inside, joint], segments[inside, joint])
    accepted = gains[:, 0] > gains[:, 1]  # false where not a number
    return _Maps(knots, np.where(accepted[:, None], mapped, knots), gains)


def _at(scale: Scale, likelihood: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log likelihoods [N, J] with a scale, taken from those with each of `SCALES` [S, N, J], linearly in its log."""
    position = np.interp(np.log(scale.value), np.log(SCALES), np.arange(len(SCALES)))
    lower = np.minimum(position.astype(np.int64), len(SCALES) - 2)
    joints = np.arange(likelihood.shape[2])
    share = position - lower
    return np.asarray((1.0 - share) * likelihood[lower, :, joints].T + share * likelihood[lower + 1, :, joints].T)


def _match(
    frames: FrameSet, angle: NDArray[np.float64], labels: NDArray[np.int16]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Quantiles of each joint's labelled locations, and of the positions commanded in the same frames; [J, Q] each."""
    knots = np.tile(np.linspace(-1.0, 1.0, len(QUANTILES)), (angle.shape[1], 1))
    mapped = knots.copy()
    for joint in range(angle.shape[1]):
        inside = labels[:, joint] >= 0
        if not inside.any():
            continue
        found = np.quantile(angle[inside, joint], QUANTILES)
        knots[joint] = np.maximum.accumulate(found + 1e-6 * np.arange(len(found)))
        counts = np.bincount(labels[inside, joint], minlength=len(frames.level_ids))
        density = counts / counts.sum() @ np.exp(frames.log_density[joint])
        share = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
        mapped[joint] = np.interp(QUANTILES, share / share[-1], frames.grid)
    return knots, mapped


def _move(angle: NDArray[np.float64], knots: NDArray[np.float64], mapped: NDArray[np.float64]) -> NDArray[np.float64]:
    """Locations [N, J] through the maps; beyond the outer knots a shift, as in `Calibrated`."""
    moved = np.empty_like(angle)
    for joint in range(angle.shape[1]):
        inner = np.clip(angle[:, joint], knots[joint, 0], knots[joint, -1])
        moved[:, joint] = np.interp(inner, knots[joint], mapped[joint]) + angle[:, joint] - inner
    return moved


def mean_over_segments(values: NDArray[np.float64], segments: NDArray[np.int32]) -> tuple[float, float]:
    """Mean over frames [N], and its standard error when the frames of a segment are alike."""
    mean = float(values.mean())
    _, inverse = np.unique(segments, return_inverse=True)
    return mean, float(np.sqrt((np.bincount(inverse, values - mean) ** 2).sum()) / len(values))


@torch.no_grad()
def log_likelihood(
    objective: MechanismLikelihood,
    angle: NDArray[np.float64],
    log_std: NDArray[np.float64],
    labels: NDArray[np.int16],
) -> NDArray[np.float64]:
    """log P(level) of each frame and joint, float64 [N, J], nats; 0 where there is no label."""
    device = objective.table.device
    found = objective.log_likelihood(
        torch.from_numpy(angle).float().to(device),
        torch.from_numpy(log_std).float().to(device),
        torch.from_numpy(labels.astype(np.int64)).to(device),
    )
    likelihood: NDArray[np.float64] = found.double().cpu().numpy()
    return likelihood


class Predicted(NamedTuple):
    """What a net says of chosen frames: angle [N, J], log std [N, J] (half ranges) and features [N, F], float64."""

    angle: NDArray[np.float64]
    log_std: NDArray[np.float64]
    features: NDArray[np.float64]


@torch.no_grad()
def predict(
    net: nn.Module, frames: FrameSet, indices: NDArray[np.int64], augmentation: Augmentation | None = None
) -> Predicted:
    """Run a net, in evaluation mode and on the device where it is, over chosen frames.

    Args:
        net: The net; one that `sees_region` also gets the frames' pixels.
        frames: All frames.
        indices: int64 [n], increasing.
        augmentation: Changes to the frames, the same at every call; none when None.

    Raises:
        TrainingError: The net needs pixels that the frames come without.
    """
    net.eval()
    device = next((parameter.device for parameter in net.parameters()), torch.device("cpu"))
    closely = getattr(net, "sees_region", False)
    if closely and frames.details is None:
        raise TrainingError("a refined network needs the camera's pixels, and these frames come without them")
    rng = np.random.default_rng(0)
    parts = []
    for chosen in np.array_split(indices, max(1, math.ceil(len(indices) / (64 if closely else 512)))):
        small = frames.images[chosen]
        if not closely:
            pictures = [to_input(small) if augmentation is None else augmentation(small, rng)]
        else:
            assert frames.details is not None  # said above
            pixels = frames.details.read(chosen)
            if augmentation is None:
                pictures = [to_input(small), 255.0 * to_input(pixels)]
            else:
                region = augmentation(pixels, rng)
                pictures = [F.interpolate(region, small.shape[1:3], mode="area"), 255.0 * region]
        parts.append([part.double().cpu().numpy() for part in net(*(picture.to(device) for picture in pictures))])
    return Predicted(*(np.concatenate(column) for column in zip(*parts, strict=True)))

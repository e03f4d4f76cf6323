"""What can be said of a recording before training, and of a net after it, without a measured angle.

    identifiability = check(frames, split)              # raises where nothing can be learned
    split = identifiability.restrict(split)             # joints that cannot be identified lose their labels
    split, control = keep_out(split, seed=seed)         # a few frames of the training spans are not trained on
    ... training on split.train ...
    report = leakage(net, frames, split, objective, control=control)
    print(*identifiability.sentences, *report.sentences, sep="\\n")

Both results hold plain sentences for the user, one a finding, none where all is well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ropes_ros.dataset import FrameSet, Split, crossing, split_spans
from ropes_ros.errors import TrainingError
from ropes_ros.learning.calibrate import log_likelihood, mean_over_segments, predict
from ropes_ros.learning.mechanism import MechanismLikelihood
from ropes_ros.levels_check import confusable, not_overlapping
from ropes_ros.order_check import told_by
from ropes_ros.units import NANOSECONDS

SAMPLE = 2000
"""Frames that the check of images looks at."""
LEAST_CHANGE = 0.5
"""Standard deviation over time, in grey levels, of averages over blocks of 8 x 8 pixels, below which nothing moved."""
FEW_SEGMENTS = 3
"""Fewer segments of a level in the training spans are worth a warning."""
HELD_OUT_FRAMES = 4000
GAP_SHARE = 0.1
"""Share of what the levels can tell (chance minus floor) that a leak must amount to before it is told."""
BEYOND_NATS = 0.03
"""Nats a frame by which the level may be predictable beyond the angle before it is told."""
ERRORS = 3.0
"""Standard errors (over segments) that a finding must exceed."""
PRIOR = 0.1
"""Standard deviation beforehand of the weights by which features may change the log odds of the levels."""
LEARNED_SHARE = 0.1
"""Share of (chance minus floor) that a joint must gain on held-out spans to count as learned."""
COARSE_SHARE = 0.5
"""A joint whose level is told with less than this share of what its angle could tell is worth a sentence."""


@dataclass(frozen=True)
class Identifiability:
    """Which joints' angles the recording can tell.

    Attributes:
        joint_names: Names of the J joints.
        identified: bool [J].
        reasons: Why a joint is not identified, one entry a joint, empty for those that are.
        warnings: What is not wrong but weak.
    """

    joint_names: tuple[str, ...]
    identified: NDArray[np.bool_]
    reasons: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    @property
    def sentences(self) -> tuple[str, ...]:
        """What to tell the user: one sentence for each joint left out, then the warnings."""
        out = [
            f"joint '{name}' is not identified and is left out of training: {reason}"
            for name, reason in zip(self.joint_names, self.reasons, strict=True)
            if reason
        ]
        return (*out, *self.warnings)

    def restrict(self, split: Split) -> Split:
        """The split without the labels of joints that are not identified, and without frames that keep none."""
        labels = np.where(self.identified, split.labels, np.int16(-1))
        kept = np.asarray((labels >= 0).any(axis=1))
        uses = [part[kept[part]] for part in (split.train, split.validation, split.calibration)]
        return split._replace(train=uses[0], validation=uses[1], calibration=uses[2], labels=labels)


@dataclass(frozen=True)
class Leakage:
    """How far a net's success rests on something other than the angle; all in nats a labelled frame, float64 [J].

    Attributes:
        joint_names: Names of the J joints.
        held_out: Regime loss on validation and calibration spans.
        seen: Regime loss on frames of the training spans.
        gap_error: Standard error of held_out - seen, over segments.
        held_out_error: Standard error of held_out, over segments.
        floor: Bayes floor of both.
        chance: Loss of always saying the levels' shares.
        beyond: By how much a classifier that also sees brightness, sharpness and the net's features tells the level
            better than one that sees the angle's estimate alone, on segments that neither was fitted on; a lower
            bound, as the classifier is a plain one.
        beyond_error: Its standard error, over segments.
        sentences: Plain findings, one each; empty where all is well.
    """

    joint_names: tuple[str, ...]
    held_out: NDArray[np.float64]
    seen: NDArray[np.float64]
    gap_error: NDArray[np.float64]
    held_out_error: NDArray[np.float64]
    floor: NDArray[np.float64]
    chance: NDArray[np.float64]
    beyond: NDArray[np.float64]
    beyond_error: NDArray[np.float64]
    sentences: tuple[str, ...]

    @property
    def learned(self) -> NDArray[np.bool_]:
        """Joints whose level the net tells better than chance on spans it has not seen, bool [J]."""
        return np.asarray(self.chance - self.held_out >= LEARNED_SHARE * (self.chance - self.floor))


class Prepared(NamedTuple):
    """What is decided about a recording before it is trained on.

    Attributes:
        split: The uses of its frames; joints that cannot be identified have no labels.
        control: int64, increasing, frames of training spans that are not trained on, for the check for leaks.
        findings: Sentences for the user: joints left out and why, weak spots.
    """

    split: Split
    control: NDArray[np.int64]
    findings: tuple[str, ...]


def prepare(frames: FrameSet, *, span_s: float, seed: int) -> Prepared:
    """Split a recording and look whether its joints can be identified; training begins with this.

    Args:
        frames: The recording.
        span_s: Length of the contiguous spans of time that are split, in seconds.
        seed: Which spans go where.

    Raises:
        TrainingError: Nothing can be learned from it; see `check`.
    """
    split = split_spans(frames, span_s=span_s, seed=seed)
    identifiability = check(frames, split)
    split, control = keep_out(identifiability.restrict(split), seed=seed)
    return Prepared(split, control, identifiability.sentences)


def check(frames: FrameSet, split: Split) -> Identifiability:
    """Look at a recording before it is trained on.

    Args:
        frames: The frames; at most `SAMPLE` of their images are read.
        split: Their assignment to uses, by `dataset.split_spans`.

    Returns:
        Which joints can be identified, with the reason where one cannot.

    Raises:
        TrainingError: The images are no uint8, do not change, or do not change within a level; or no joint can be
            identified. It names the joint and the level.
    """
    check_images(frames, split)
    reasons = tuple(_reason(frames, split, joint) for joint in range(len(frames.joint_names)))
    identified = np.array([not reason for reason in reasons])
    if not identified.any():
        told = "; ".join(f"{name}: {reason}" for name, reason in zip(frames.joint_names, reasons, strict=True))
        raise TrainingError(f"no joint's angle can be told from this recording: {told}")
    return Identifiability(frames.joint_names, identified, reasons, _weak_spots(frames, split, identified))


def keep_out(split: Split, *, share: float = 0.02, seed: int = 0) -> tuple[Split, NDArray[np.int64]]:
    """Keep a few frames of the training spans out of training, to compare them with held-out spans.

    Args:
        split: The split.
        share: Share of the training frames.
        seed: Which ones.

    Returns:
        The split with the rest as training frames, and the indices kept out, int64, increasing.
    """
    out = np.random.default_rng([seed, 0x1EAC]).random(len(split.train)) < share
    return split._replace(train=split.train[~out]), split.train[out]


def leakage(
    net: nn.Module,
    frames: FrameSet,
    split: Split,
    objective: MechanismLikelihood,
    *,
    control: NDArray[np.int64] | None = None,
) -> Leakage:
    """Ask whether a net tells levels by something other than the angle.

    That the time tells the level is told first, see `order_sentences`. Then three signs are looked for. (1) The loss
    on held-out spans exceeds that on frames of training spans: the net recognises moments (drifting light, memorised
    segments). (2) The loss on held-out spans lies below the Bayes floor, or (3) a classifier of the level gains from
    features of the same image beside the angle's estimate: the picture shows the level itself (motion blur that goes
    with the speed of a sweep, a light that follows the schedule).
    Differences between frames are no such feature, because the net sees one image at a time.

    Args:
        net: Trained net; its forward gives a Prediction in half ranges.
        frames: All frames.
        split: As it was trained on.
        objective: The regime likelihood.
        control: Frames of training spans that were not trained on (see `keep_out`); without them training frames
            themselves are taken, which overstates the gap by what was learned from each frame alone.
    """
    held_out = np.sort(np.concatenate([split.validation, split.calibration]))
    held_out = held_out[_evenly(len(held_out), HELD_OUT_FRAMES)]
    near = split.train if control is None or not len(control) else control
    near = near[_evenly(len(near), HELD_OUT_FRAMES)]
    angle, log_std, features = predict(net, frames, held_out)
    loss = -log_likelihood(objective, angle, log_std, split.labels[held_out])
    near_angle, near_log_std, _ = predict(net, frames, near)
    near_loss = -log_likelihood(objective, near_angle, near_log_std, split.labels[near])
    joints, levels = len(frames.joint_names), len(frames.level_ids)
    floor = objective.floor.double().cpu().numpy()
    figures = np.full((7, joints), np.nan)
    beside = _image_features(frames.images, held_out, features)
    for joint in range(joints):
        label, near_label = split.labels[held_out, joint], split.labels[near, joint]
        inside, near_inside = label >= 0, near_label >= 0
        if not inside.any() or not near_inside.any():
            continue
        segments = frames.segments[held_out[inside], joint]
        mean, error = mean_over_segments(loss[inside, joint], segments)
        near_mean, near_error = mean_over_segments(
            near_loss[near_inside, joint], frames.segments[near[near_inside], joint]
        )
        counts = np.bincount(split.labels[split.train, joint].clip(-1) + 1, minlength=levels + 1)[1:]
        chance = -np.log(counts / counts.sum())[label[inside]].mean()
        about_angle = _angle_features(angle[inside, joint], log_std[inside, joint])
        offset = _level_logits(objective, joint, angle[inside], log_std[inside], levels)
        gained = _gain(offset, about_angle, beside[inside], label[inside].astype(np.int64), segments)
        figures[:, joint] = (mean, near_mean, np.hypot(error, near_error), error, chance, *gained)
    held_loss, seen, gap_error, held_error, chance, beyond, beyond_error = figures
    report = Leakage(
        frames.joint_names, held_loss, seen, gap_error, held_error, floor, chance, beyond, beyond_error, ()
    )
    return replace(report, sentences=(*order_sentences(frames), *_findings(report)))


def order_sentences(frames: FrameSet) -> tuple[str, ...]:
    """A sentence for each joint whose level the time tells: whatever drifts can then be taken for its angle.

    No net shows this by itself: where levels are held in blocks, spans that are held out have the light, and the level,
    of their neighbours that were trained on.
    """
    seconds = (frames.stamps_ns - frames.stamps_ns[0]) / NANOSECONDS
    out = []
    for joint, name in enumerate(frames.joint_names):
        told = told_by(seconds, frames.labels[:, joint], frames.segments[:, joint])
        if told.flagged:
            out.append(
                f"joint '{name}': the time tells {told.share:.0%} of its level beyond chance: levels were held in "
                "blocks, so that light or anything else that drifts may be taken for the angle; record with a "
                "randomised schedule"
            )
    return tuple(out)


def check_images(frames: FrameSet, split: Split) -> None:
    """Refuse images from which nothing can be learned; see `check`."""
    if frames.images.dtype != np.uint8 or frames.images.ndim != 4 or frames.images.shape[3] != 3:
        raise TrainingError(
            f"images are {frames.images.dtype} {list(frames.images.shape)}, they must be uint8 [N, h, w, 3]: convert "
            "them (not-a-number pixels cannot be learned from)"
        )
    used = np.sort(np.concatenate(split[:3]))
    used = used[_evenly(len(used), SAMPLE)]
    height, width = frames.images.shape[1:3]
    size = (max(1, width // 8), max(1, height // 8))
    blocks = np.stack([cv2.resize(frames.images[k], size, interpolation=cv2.INTER_AREA) for k in used])
    blocks = blocks.reshape(len(used), -1, 3).astype(np.float32)
    if np.median(blocks.std(axis=1).max(axis=1)) < LEAST_CHANGE and blocks.shape[1] > 1:
        raise TrainingError("most images show one colour all over: is the lens covered, or the exposure off?")
    if blocks.std(axis=0).max() < LEAST_CHANGE:
        raise TrainingError(
            f"the images do not change: {len(used)} of them, spread over the recording, differ by noise alone: did the "
            "robot move, and is it in the camera's view?"
        )
    for joint, name in enumerate(frames.joint_names):
        for level, level_id in enumerate(frames.level_ids):
            there = split.labels[used, joint] == level
            if there.sum() >= 3 and blocks[there].std(axis=0).max() < LEAST_CHANGE:
                raise TrainingError(
                    f"the images do not change while joint '{name}' is at level {level_id}: did the robot stand still "
                    "then, or the camera repeat one picture? Record again"
                )


def _reason(frames: FrameSet, split: Split, joint: int) -> str:
    """Why a joint's angle cannot be told; empty where it can."""
    labels = split.labels[split.train, joint]
    if not (frames.labels[:, joint] >= 0).any():
        return "no frame of the recording holds it in a regime; let the schedule intervene on it"
    for name, part in zip(("training", "validation", "calibration"), split[:3], strict=True):
        if not (split.labels[part, joint] >= 0).any():
            return f"no labelled frame of it is left in the {name} spans; record longer, or take shorter spans"
    counts = np.bincount(labels[labels >= 0], minlength=len(frames.level_ids))
    visited = np.flatnonzero(counts)
    if len(visited) < 2:
        return f"it only ever is at level {frames.level_ids[visited[0]]}; two levels at least are needed"
    if len(visited) < len(counts):
        level = frames.level_ids[int(np.argmin(counts))]
        return f"no frame of it at level {level} is in the training spans; record longer"
    log_density = frames.log_density[joint, visited]
    finite = np.isfinite(log_density).all(axis=1)
    if not finite.all():
        level = frames.level_ids[visited[int(np.argmin(finite))]]
        return f"the density of its level {level} is zero somewhere; mix it with some of the uniform density"
    pair = not_overlapping(log_density, frames.grid)
    if pair is not None:
        first, second = (frames.level_ids[visited[index]] for index in pair)
        return f"the densities of its levels {first} and {second} do not overlap; take wider or more levels"
    angles = confusable(log_density, counts[visited] / counts.sum(), frames.grid)
    if angles is not None:
        return (
            f"its levels {', '.join(frames.level_ids[level] for level in visited)} are as probable at u = "
            f"{angles[0]:+.2f} as at u = {angles[1]:+.2f}, so that no frame can tell the two apart; take levels whose "
            "centres or tilts differ and that overlap"
        )
    return ""


def _weak_spots(frames: FrameSet, split: Split, identified: NDArray[np.bool_]) -> tuple[str, ...]:
    """A sentence for every identified joint with levels that hardly a segment of the training spans is at."""
    out = []
    for joint in np.flatnonzero(identified):
        labels, segments = split.labels[split.train, joint], frames.segments[split.train, joint]
        held = [len(np.unique(segments[labels == level])) for level in range(len(frames.level_ids))]
        few = [level for level, count in zip(frames.level_ids, held, strict=True) if count < FEW_SEGMENTS]
        if few:
            out.append(
                f"joint {frames.joint_names[joint]}: level{'s' if len(few) > 1 else ''} {', '.join(few)} held in fewer "
                f"than {FEW_SEGMENTS} segments of the training spans; whatever else was special then may be taken for "
                "the angle, record longer"
            )
    return tuple(out)


def _evenly(count: int, most: int) -> NDArray[np.int64]:
    """At most so many of the positions 0 .. count - 1, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(np.int64))


def _image_features(
    images: NDArray[np.uint8], chosen: NDArray[np.int64], features: NDArray[np.float64]
) -> NDArray[np.float64]:
    """What a frame shows besides one joint's angle: colour, sharpness in 3 x 3 fields, the net's features (16 axes)."""
    centred = features - features.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov(centred.T))
    rows = []
    for index in chosen:
        image = images[index]
        edges = np.abs(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_32F))
        fields = cv2.resize(edges, (3, 3), interpolation=cv2.INTER_AREA)
        rows.append([*image.mean(axis=(0, 1)), *np.log(1.0 + fields.ravel())])
    beside = np.concatenate([np.asarray(rows, dtype=np.float64), centred @ vectors[:, -16:]], axis=1)
    standard: NDArray[np.float64] = (beside - beside.mean(axis=0)) / (beside.std(axis=0) + 1e-6)
    return standard


def _angle_features(angle: NDArray[np.float64], log_std: NDArray[np.float64]) -> NDArray[np.float64]:
    """Smooth functions of one joint's estimate [N]: 13 bumps of its location, and its log std; [N, 14]."""
    centres = np.linspace(-1.0, 1.0, 13)
    bumps = np.exp(-0.5 * ((angle.clip(-1.0, 1.0)[:, None] - centres) / 0.17) ** 2)
    return np.concatenate([bumps, (log_std - log_std.mean())[:, None]], axis=1)


def _level_logits(
    objective: MechanismLikelihood,
    joint: int,
    angle: NDArray[np.float64],
    log_std: NDArray[np.float64],
    levels: int,
) -> NDArray[np.float64]:
    """log P(level) of every level by the net's estimate, float64 [N, K]."""
    return np.stack(
        [
            log_likelihood(objective, angle, log_std, np.full(angle.shape, level, np.int16))[:, joint]
            for level in range(levels)
        ],
        axis=1,
    )


def _gain(
    offset: NDArray[np.float64],
    about_angle: NDArray[np.float64],
    beside: NDArray[np.float64],
    labels: NDArray[np.int64],
    segments: NDArray[np.int32],
) -> tuple[float, float]:
    """Nats a frame that `beside` adds to `about_angle` in telling the level, on segments not fitted on; and its error.

    Logistic regression on top of the net's own log probabilities, in two halves of the time that take turns.
    """
    _, inverse, length = np.unique(segments, return_inverse=True, return_counts=True)
    half = (np.arange(len(labels)) * 10 // len(labels)) % 2
    weight = 1.0 / length[inverse]  # a segment is one observation
    both = np.concatenate([about_angle, beside], axis=1)
    gained = np.empty(len(labels))
    for number in (0, 1):
        fitted, out = half == number, half != number
        told = [_told(offset, features, labels, weight, fitted)[out, labels[out]] for features in (about_angle, both)]
        gained[out] = told[1] - told[0]
    whole = ~crossing(segments[:, None], half)[:, 0]
    if not whole.any():
        return math.nan, math.nan
    return mean_over_segments(gained[whole], segments[whole])


def _told(
    offset: NDArray[np.float64],
    features: NDArray[np.float64],
    labels: NDArray[np.int64],
    weight: NDArray[np.float64],
    fitted: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Log probabilities [N, K] of a logistic regression with an offset, fitted to some of the frames."""
    start, x, y, w = (torch.from_numpy(part).double() for part in (offset, features, labels, weight))
    y, chosen = y.long(), torch.from_numpy(np.flatnonzero(fitted))
    matrix = torch.zeros((features.shape[1], offset.shape[1]), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([matrix], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        told = torch.log_softmax(start[chosen] + x[chosen] @ matrix, dim=1)
        loss = -(w[chosen] * told.gather(1, y[chosen, None])[:, 0]).sum() + 0.5 * (matrix / PRIOR).square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        optimiser.step(closure)  # type: ignore[no-untyped-call]
    result: NDArray[np.float64] = torch.log_softmax(start + x @ matrix, dim=1).detach().numpy()
    return result


def _findings(report: Leakage) -> tuple[str, ...]:
    """The sentences of a report."""
    out = []
    told = report.chance - report.floor
    gap, below = report.held_out - report.seen, report.floor - report.held_out
    for joint, name in enumerate(report.joint_names):
        if not np.isfinite(report.held_out[joint]):
            continue
        if not report.learned[joint]:
            out.append(
                f"joint '{name}' was not learned: on held-out spans its level is told no better than by chance "
                f"({report.held_out[joint]:.2f} of {report.chance[joint]:.2f} nats); is it in view, and did it follow "
                "its commands?"
            )
        elif (known := (report.chance[joint] - report.held_out[joint]) / told[joint]) < COARSE_SHARE:
            out.append(
                f"joint '{name}' is known coarsely: on held-out spans the network tells {known:.0%} of what its angle "
                f"can tell of its level ({report.held_out[joint]:.2f} nats, Bayes floor {report.floor[joint]:.2f}); "
                "record longer, or train longer"
            )
        if gap[joint] > max(GAP_SHARE * told[joint], ERRORS * report.gap_error[joint]):
            out.append(
                f"joint '{name}': its level is told {gap[joint]:.2f} nats a frame better in spans that were trained on "
                f"than in held-out ones ({report.seen[joint]:.2f} against {report.held_out[joint]:.2f}): the net knows "
                "the moments by something other than the pose (drifting light, memorised segments); record longer, or "
                "train shorter or with stronger augmentation"
            )
        if below[joint] > max(BEYOND_NATS, ERRORS * report.held_out_error[joint]):
            out.append(
                f"joint '{name}': its level is told {below[joint]:.2f} nats a frame better than its angle can tell it: "
                "the images show the level by something else (motion blur, a light that follows the schedule), or the "
                "densities are not those commanded; record with a shorter exposure, or with slower joints (a lower "
                "max_velocity in the robot's preset)"
            )
        if report.beyond[joint] > max(BEYOND_NATS, ERRORS * report.beyond_error[joint]):
            out.append(
                f"joint '{name}': brightness, sharpness or other features of the image tell its level "
                f"{report.beyond[joint]:.2f} nats a frame better than its estimated angle alone: speed or surroundings "
                "betray the level; record with a shorter exposure or slower joints (a lower max_velocity in the "
                "robot's preset), in a light that does not follow the schedule"
            )
    return tuple(out)

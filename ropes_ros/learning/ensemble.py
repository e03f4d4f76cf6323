"""Several networks from different spans: how far they differ, one network taught by all, and the choice among models.

    members = train_members(frames, split, folder, train_one)          # each never sees the spans of one group
    result = train(frames, folder / "student", config=config, task=distil_task(members, frames))
    checkpoints = [result.checkpoint, *(member.checkpoint for member in members)]
    comparison = compare(checkpoints, [frames] * len(checkpoints), split)
    keep = comparison.best == 0

The regime likelihood tells a standard deviation near the levels' width; below it, what is left is that networks from
different data disagree (Lakshminarayanan, Pritzel, Blundell, Deep Ensembles, NeurIPS 2017). What they get wrong alike
that does not show; `calibrate.fit_scale` widens the student's standard deviation as far as the levels ask for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ropes_ros.dataset import FrameSet, Split, split_spans
from ropes_ros.errors import TrainingError
from ropes_ros.learning.calibrate import log_likelihood, mean_over_segments, predict
from ropes_ros.learning.checkpoint import bags_of, load_checkpoint, load_net
from ropes_ros.learning.mechanism import MechanismLikelihood
from ropes_ros.learning.networks import AngleNet, Prediction
from ropes_ros.learning.tasks import Batch, Task
from ropes_ros.units import NANOSECONDS

TrainOne = Callable[[FrameSet, Path], Path]
"""Trains a network on frames, in a folder, always with the same split; gives its checkpoint."""


class Member(NamedTuple):
    """A network of an ensemble: its checkpoint, and the frames that it was trained on, bool [N]."""

    checkpoint: Path
    seen: NDArray[np.bool_]


def train_members(
    frames: FrameSet,
    split: Split,
    out_dir: Path,
    train_one: TrainOne,
    *,
    count: int = 4,
    span_s: float = 30.0,
    seed: int = 0,
) -> list[Member]:
    """Train networks that each miss another part of the training spans.

    The training spans are dealt to as many groups as there are members, and each member is given the labels of all
    groups but one. A segment that reaches into what a member does not see is hidden from it as a whole. Validation and
    calibration spans are the same for all.

    Args:
        frames: The frames.
        split: Its training spans are dealt out.
        out_dir: Each member gets a folder in it.
        train_one: Trains one, with the settings (seed, length of spans) that give `split`, so that what is held out
            here is held out there.
        count: Number of members M, at least 2.
        span_s: Length of a span in seconds.
        seed: Which span goes to which group.

    Raises:
        TrainingError: There are fewer training spans than members.
    """
    span = (frames.stamps_ns - frames.stamps_ns[0]) // int(span_s * NANOSECONDS)
    spans = np.unique(span[split.train])
    if not 2 <= count <= len(spans):
        raise TrainingError(
            f"an ensemble of {count} needs at least two members and one training span for each, there are {len(spans)} "
            f"spans of {span_s:.0f} s: record longer, or take shorter spans"
        )
    trained = np.zeros(len(frames), dtype=np.bool_)
    trained[split.train] = True
    group = np.zeros(int(span.max()) + 1, dtype=np.int64)
    group[np.random.default_rng(seed).permutation(spans)] = np.arange(len(spans)) % count
    members = []
    for number in range(count):
        missed = trained & (group[span] == number)
        hidden = np.stack([np.isin(column, np.unique(column[missed])) for column in frames.segments.T], axis=1)
        given = replace(frames, labels=np.where(hidden, np.int16(-1), frames.labels))
        members.append(Member(train_one(given, out_dir / f"member{number}"), trained & ~missed))
    return members


class DistilTask(Task):
    """Learn from augmented images what an ensemble says of the clean ones: its mean, and its spread as std.

    The loss is the negative log likelihood of the members' locations under the student's normal distribution: its
    optimum is their mean and their standard deviation among frames that look alike. Where a frame was hidden from some
    members, these alone teach it, because the others may have memorised it.

    Args:
        angle: The members' locations, cut to [-1, 1], float32 [M, N, J].
        weight: Share of each member in each frame, float32 [M, N], sums to 1 over members.
    """

    angle: Tensor
    weight: Tensor
    truncated = True

    def __init__(self, angle: NDArray[np.float32], weight: NDArray[np.float32]) -> None:
        super().__init__()
        self.register_buffer("angle", torch.from_numpy(angle), persistent=False)
        self.register_buffer("weight", torch.from_numpy(weight), persistent=False)

    def forward(self, net: AngleNet, batch: Batch) -> tuple[Tensor, Prediction]:
        """See `Task`."""
        prediction: Prediction = net(batch.images)
        mean, log_std = prediction.angle.float(), prediction.log_std.float()
        taught, weight = self.angle[:, batch.index], self.weight[:, batch.index, None]
        loss = 0.5 * ((taught - mean) * torch.exp(-log_std)).square() + log_std
        return (weight * loss).sum(dim=0).mean(), prediction


def distil_task(
    members: Sequence[Member], frames: FrameSet
) -> Callable[[FrameSet, NDArray[np.float64], AngleNet], DistilTask]:
    """A factory, for `train`, of the task to learn from an ensemble, whose networks run over all frames now."""
    every = np.arange(len(frames), dtype=np.int64)
    angle = np.stack([predict(load_net(load_checkpoint(m.checkpoint)), frames, every).angle for m in members])
    unseen = ~np.stack([member.seen for member in members])
    weight = np.where(unseen.any(axis=0), unseen, True).astype(np.float32)
    task = DistilTask(angle.clip(-1.0, 1.0).astype(np.float32), weight / weight.sum(axis=0))
    return lambda frames, shares, net: task


class Comparison(NamedTuple):
    """Models on frames that none of them was trained on.

    Attributes:
        losses: Regime loss of each model, nats, float64 [C, J]; not a number without a label.
        errors: Standard error, over segments, of each model's mean loss minus that of the best, float64 [C].
        best: Number of the model with the lowest mean loss; the first of equals.
        frames: Number of frames compared on.
    """

    losses: NDArray[np.float64]
    errors: NDArray[np.float64]
    best: int
    frames: int


def compare(checkpoints: Sequence[Path], recordings: Sequence[FrameSet], split: Split) -> Comparison:
    """Compare finished models by the regime likelihood on the calibration spans of a split that all of them left alone.

    Networks are compared as they were trained, without maps and scales, which were fitted on such spans.

    Lower is better among models of one family; between families (another resolution, another task) a lower regime loss
    need not mean a lower error of the angle.

    Args:
        checkpoints: Finished models, at least one.
        recordings: For each, all frames of one recording, cut as its network knows them.
        split: Its calibration spans decide.

    Raises:
        TrainingError: A checkpoint is unreadable or unfinished.
    """
    frames = recordings[0]
    labels, segments = split.labels[split.calibration], frames.segments[split.calibration]
    counts = np.stack([(labels == level).sum(axis=0) for level in range(len(frames.level_ids))], axis=1) + 0.5
    objective = MechanismLikelihood(frames.log_density, counts / counts.sum(axis=1, keepdims=True))
    loss = np.stack(
        [
            -log_likelihood(objective, *_said(path, cut, split.calibration), labels)
            for path, cut in zip(checkpoints, recordings, strict=True)
        ]
    )
    labelled = labels >= 0
    joints = labelled.any(axis=0)
    losses = np.where(joints, loss.sum(axis=1) / np.maximum(labelled.sum(axis=0), 1), np.nan)
    best = int(losses[:, joints].mean(axis=1).argmin())
    errors = np.zeros(len(loss))
    for number, beyond in enumerate(loss - loss[best]):
        spread = [
            mean_over_segments(beyond[labelled[:, joint], joint], segments[labelled[:, joint], joint])[1]
            for joint in np.flatnonzero(joints)
        ]
        errors[number] = np.sqrt(np.sum(np.square(spread))) / len(spread)
    return Comparison(losses, errors, best, len(split.calibration))


def select(checkpoints: Sequence[Path], recordings: Sequence[FrameSet]) -> Comparison:
    """Choose among finished models without labels of pose: the lowest regime loss on frames that none was trained on.

    Of a bag that a model was trained on, its calibration spans count as such (validation spans chose its epoch); of
    another bag, all.

    Args:
        checkpoints: Finished models, at least one.
        recordings: For each, the frames of one recording to compare on, cut as its network knows them.

    Raises:
        TrainingError: A checkpoint is unreadable or unfinished, or no frame was left alone by all models.
    """
    frames = recordings[0]
    labels = frames.labels.copy()
    for path in checkpoints:
        content = load_checkpoint(path)
        if frames.bag_hash not in bags_of(content):
            continue
        own = split_spans(frames, span_s=content["config"]["span_s"], seed=content["config"]["seed"])
        left = np.zeros(len(frames), dtype=np.bool_)
        left[own.calibration] = True
        labels[~left] = -1
        labels[own.labels < 0] = -1
    chosen = np.flatnonzero((labels >= 0).any(axis=1))
    if not len(chosen):
        raise TrainingError(
            f"no frame was left out of training by all {len(checkpoints)} models: train them with one seed, or compare "
            "them on a bag that none was trained on"
        )
    return compare(checkpoints, recordings, Split(chosen, chosen, chosen, labels))


def _said(
    checkpoint: Path, frames: FrameSet, indices: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Location and log width [n, J] that a finished model's network gives chosen frames."""
    content = load_checkpoint(checkpoint)
    if content["calibration"] is None:
        raise TrainingError(f"{checkpoint}: its training did not end; continue it with `ropes train --resume`")
    angle, log_std, _ = predict(load_net(content), frames, indices)
    return angle, log_std

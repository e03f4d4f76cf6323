"""Baselines that are shown positions: true ones (the bound, and a few of them), or the commanded ones."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ropes_ros.dataset import FrameSet, split_spans
from ropes_ros.errors import TrainingError
from ropes_ros.learning.augmentation import Augmentation
from ropes_ros.learning.baselines.common import (
    Fitted,
    LabelledFrames,
    NetFitted,
    command_track,
    is_continuous,
    run,
    seeded,
)
from ropes_ros.learning.baselines.unsupervised import autoencoder, plain, train_latents
from ropes_ros.learning.checkpoint import load_checkpoint, load_net
from ropes_ros.learning.networks import AngleNet, Prediction
from ropes_ros.learning.supervision import MAX_LAG_S, CommandSupervision
from ropes_ros.learning.tasks import Batch, Task
from ropes_ros.learning.train import TrainConfig, train

FEW_STEPS = 1500
FEW_RATE = 5e-4
FEW_BATCH = 64
FEW_CHECK = 50
"""Fine-tuning on few labels: most steps, peak learning rate, most frames a step, and steps between validations."""


def gaussian_loss(prediction: Prediction, target: Tensor) -> Tensor:
    """Negative log likelihood of N(angle, std^2), up to a constant.

    Args:
        prediction: The network's, of N frames.
        target: float [N, J], half ranges; terms that are not a number are left out.

    Returns:
        A scalar, nats a term.
    """
    known = torch.isfinite(target)
    error = torch.where(known, target - prediction.angle, torch.zeros_like(target))
    nats = 0.5 * error.square() * (-2.0 * prediction.log_std).exp() + prediction.log_std
    return torch.where(known, nats, torch.zeros_like(nats)).sum() / known.sum().clamp(min=1)


def squared_loss(prediction: Prediction, target: Tensor) -> Tensor:
    """Mean squared error of the angle against float [N, J]; what is not a number is left out."""
    known = torch.isfinite(target)
    error = torch.where(known, target - prediction.angle, torch.zeros_like(target))
    return error.square().sum() / known.sum().clamp(min=1)


class PositionTask(Task):
    """Regression of the angle on one position a frame.

    Args:
        u: float64 [N, J], half ranges, by the frame's position in the frame set; not a number where unknown.
        gaussian: Whether std is learned too, by `gaussian_loss`; else `squared_loss`.
    """

    supervision = "a position of every labelled frame"
    targets: Tensor

    def __init__(self, u: NDArray[np.float64], *, gaussian: bool) -> None:
        super().__init__()
        self.register_buffer("targets", torch.from_numpy(u.astype(np.float32)), persistent=False)
        self._loss = gaussian_loss if gaussian else squared_loss

    def forward(self, net: AngleNet, batch: Batch) -> tuple[Tensor, Prediction]:
        """The loss, a scalar, and the prediction."""
        prediction: Prediction = net(batch.images)
        return self._loss(prediction, self.targets[batch.index]), prediction


def _position_task(
    u: NDArray[np.float64], gaussian: bool, frames: FrameSet, shares: NDArray[np.float64], net: AngleNet
) -> Task:
    """`PositionTask` as a factory for `train`, with the first two arguments bound."""
    return PositionTask(u, gaussian=gaussian)


def fit_all_labels(recording: LabelledFrames, *, seed: int, config: TrainConfig, out_dir: Path) -> Fitted:
    """The bound: every training frame with its true position; std scaled on the calibration spans, with labels."""
    config = seeded(config, seed)
    u = recording.robot.normalise(recording.positions)
    result = train(recording.frames, out_dir, config=config, task=partial(_position_task, u, True))
    net = load_net(load_checkpoint(result.checkpoint))
    split = split_spans(recording.frames, span_s=config.span_s, seed=config.seed)
    angle, std = run(net, recording.frames.images[split.calibration])
    return NetFitted(net, _Scaled(_std_scale(u[split.calibration] - angle, std)))


def fit_commanded(recording: LabelledFrames, *, seed: int, config: TrainConfig, out_dir: Path) -> Fitted:
    """Least squares on the commanded position at the frame's stamp: what a practitioner tries first."""
    u = recording.robot.normalise(recording.commanded)
    factory = partial(_position_task, u, False)
    result = train(recording.frames, out_dir, config=seeded(config, seed), task=factory)
    return NetFitted(load_net(load_checkpoint(result.checkpoint)), None)


def fit_command_likelihood(
    recording: LabelledFrames, *, seed: int, config: TrainConfig, out_dir: Path, blur: float = 0.0
) -> Fitted:
    """The likelihood of the command with learned lag, width and share of commands not carried out.

    Args:
        recording: The frames with their commands. Where they are no recording over time, no lag is learned.
        seed: See `Fit`.
        config: See `Fit`.
        out_dir: See `Fit`.
        blur: Noise put on the commands, half ranges; see `CommandSupervision`.
    """
    max_lag_s = MAX_LAG_S if is_continuous(recording.frames) else 0.0
    supervision = CommandSupervision(command_track(recording), max_lag_s, blur, seed)
    result = train(recording.frames, out_dir, config=seeded(config, seed), task=supervision)
    net = load_net(load_checkpoint(result.checkpoint))
    return CommandFitted(net, _Widened(supervision.report().width), supervision)


@dataclass(frozen=True)
class CommandFitted(NetFitted):
    """A network trained on commands, with what was learned of the way from command to image.

    Attributes:
        supervision: Its `report()` tells lag, width and share of commands not carried out.
    """

    supervision: CommandSupervision


def fit_few_labels(
    recording: LabelledFrames, *, seed: int, config: TrainConfig, out_dir: Path, labels: int
) -> Fitted:
    """A net that an autoencoder on all frames has prepared, fine-tuned on few true positions.

    The labelled frames are drawn at random from the training spans. A fifth of them decides when to stop.

    Args:
        recording: The frames with their positions.
        seed: See `Fit`; also of the choice of labels.
        config: See `Fit`; the autoencoder gets its epochs.
        out_dir: Folder; the autoencoder in it is taken if it fits, so that several numbers of labels may share one.
        labels: How many.

    Raises:
        TrainingError: There are fewer labelled frames.
    """
    frames = recording.frames
    prepared = train_latents(frames, out_dir / "prepared", config=plain(config, seed), make=autoencoder)
    config = seeded(config, seed)
    u = recording.robot.normalise(recording.positions)
    train_frames = split_spans(frames, span_s=config.span_s, seed=config.seed).train
    train_frames = train_frames[np.isfinite(u[train_frames]).all(axis=1)]
    if len(train_frames) < labels:
        raise TrainingError(f"{labels} labels are asked for, {len(train_frames)} frames have one: ask for fewer")
    chosen = np.random.default_rng([seed, labels]).choice(train_frames, labels, replace=False)
    net, scale = _fine_tune(prepared.net, frames.images, u, chosen, config)
    return NetFitted(net, _Scaled(scale))


def _fine_tune(
    net: AngleNet,
    images: NDArray[np.uint8],
    u: NDArray[np.float64],
    chosen: NDArray[np.int64],
    config: TrainConfig,
) -> tuple[AngleNet, NDArray[np.float64]]:
    """Train on chosen frames; the weights that are best on a fifth of them, and their scale of std, float64 [J]."""
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    held_out, used = np.split(chosen, [max(2, len(chosen) // 5)])
    truth = torch.from_numpy(u[held_out]).float()
    augmentation = Augmentation(
        shift=config.shift, light=config.light, noise=config.noise, occlusion=config.occlusion
    )
    optimiser = torch.optim.AdamW(net.parameters(), lr=FEW_RATE, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, FEW_RATE, total_steps=FEW_STEPS, pct_start=0.1)
    best, kept = math.inf, copy.deepcopy(net.state_dict())
    for step in range(1, FEW_STEPS + 1):
        net.train()
        index = np.sort(rng.choice(used, min(FEW_BATCH, len(used)), replace=False))
        prediction = net(augmentation(np.asarray(images[index]), rng))
        loss = gaussian_loss(prediction, torch.from_numpy(u[index]).float())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % FEW_CHECK == 0:
            angle, _ = run(net, np.asarray(images[held_out]))
            error = float(np.abs(angle - truth.numpy()).mean())
            if error < best:
                best, kept = error, copy.deepcopy(net.state_dict())
    net.load_state_dict(kept)
    angle, std = run(net, np.asarray(images[held_out]))
    return net, _std_scale(u[held_out] - angle, std)


@dataclass(frozen=True)
class _Scaled:
    """Multiplies std [N, J] by a factor per joint, float64 [J]."""

    scale: NDArray[np.float64]

    def __call__(self, std: NDArray[np.float64]) -> NDArray[np.float64]:
        return std * self.scale


@dataclass(frozen=True)
class _Widened:
    """Adds the width that all commands have, float64 [J], to std [N, J]: only their sum is identified."""

    width: NDArray[np.float64]

    def __call__(self, std: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.hypot(std, self.width)


def _std_scale(error: NDArray[np.float64], std: NDArray[np.float64]) -> NDArray[np.float64]:
    """The factor on std that makes errors of unit variance, float64 [J]; frames without label are left out."""
    scale: NDArray[np.float64] = np.sqrt(np.nanmean((error / std) ** 2, axis=0))
    return scale

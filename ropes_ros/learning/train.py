"""Training of the encoder from intervention bags, without measured poses.

    frames = load_frames(bag, size=config.image_size, cache_dir=...)
    result = train(frames, out_dir, config=config)

The only supervision is the level that each joint was commanded at; see `ropes_ros.learning.mechanism`. Time is cut
into contiguous spans: training, validation (the epoch to keep is the one with the lowest regime loss there) and
calibration (the scale of the standard deviation and the threshold of novelty).
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ropes_ros.dataset import FrameSet, Split, split_spans
from ropes_ros.errors import TrainingError
from ropes_ros.learning.augmentation import Augmentation, to_input
from ropes_ros.learning.calibrate import Calibration, calibrate
from ropes_ros.learning.mechanism import MechanismLikelihood
from ropes_ros.learning.networks import AngleNet

CHECKPOINT_VERSION = 1


@dataclass(frozen=True)
class TrainConfig:
    """What a run of training depends on besides the frames.

    Attributes:
        image_size: (width, height) of the network's input in pixels.
        epochs: Passes over the training frames.
        batch_size: Frames a step.
        learning_rate: Peak of the one-cycle schedule (AdamW).
        weight_decay: Decoupled weight decay.
        dropout: Dropout before the head.
        ema_decay: Decay of the moving average of weights that is validated and exported.
        shift, light, noise, occlusion: See `Augmentation`.
        span_s: Length of the contiguous spans of time that are split, in seconds.
        seed: Source of the split, the initial weights and the order of frames.
    """

    image_size: tuple[int, int] = (88, 80)
    epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    dropout: float = 0.2
    ema_decay: float = 0.998
    shift: int = 2
    light: float = 0.25
    noise: float = 0.03
    occlusion: float = 0.5
    span_s: float = 30.0
    seed: int = 0


@dataclass(frozen=True)
class Epoch:
    """One line of the training log: losses in nats per labelled joint and frame."""

    epoch: int
    training_loss: float
    validation_loss: float
    seconds: float


@dataclass(frozen=True)
class TrainResult:
    """What training gives.

    Attributes:
        checkpoint: File to export from.
        history: One entry an epoch.
        floor: Bayes floor of the loss, nats, mean over joints.
        best_epoch: The epoch whose weights were kept.
        calibration: Scale of std and reference of novelty.
        seconds: Wall time of training.
        frames: Frames in the training spans.
    """

    checkpoint: Path
    history: list[Epoch]
    floor: float
    best_epoch: int
    calibration: Calibration
    seconds: float
    frames: int


@dataclass
class _State:
    """All that changes in training, and so all that a resumed run needs."""

    net: AngleNet
    average: AngleNet
    optimiser: torch.optim.AdamW
    epoch: int = 0
    step: int = 0
    best_loss: float = math.inf
    best_epoch: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    history: list[Epoch] = field(default_factory=list)


Progress = Callable[[int, int, float], None]
"""Called after every step with (steps done, steps in all, smoothed training loss)."""


def train(
    frames: FrameSet,
    out_dir: Path,
    *,
    config: TrainConfig | None = None,
    resume: bool = False,
    on_step: Progress | None = None,
    on_epoch: Callable[[Epoch, float], None] | None = None,
) -> TrainResult:
    """Train an encoder on the frames of intervention bags.

    Args:
        frames: Images with the level of each joint; holds no angles.
        out_dir: Folder for `checkpoint.pt`, rewritten after every epoch.
        config: Settings; the default ones when None.
        resume: Continue from `checkpoint.pt` when it was made with the same settings and frames.
        on_step: Progress callback.
        on_epoch: Called after each epoch with the log entry and the Bayes floor.

    Raises:
        TrainingError: Too few labelled frames, or a checkpoint that does not fit.
    """
    config = config or TrainConfig()
    torch.set_flush_denormal(True)
    split = split_spans(frames, span_s=config.span_s, seed=config.seed)
    shares = level_shares(split.labels[split.train], len(frames.level_ids))
    objective = MechanismLikelihood(frames.log_density, shares)
    floor = float(objective.floor.mean())
    state = _initial_state(frames, config)
    checkpoint = out_dir / "checkpoint.pt"
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"{out_dir}: cannot be made ({error.strerror}); choose another folder") from None
    if resume and checkpoint.exists():
        _restore(state, checkpoint, config, frames)
    started = time.monotonic()
    steps = max(1, len(split.train) // config.batch_size)
    while state.epoch < config.epochs:
        began = time.monotonic()
        training_loss = _train_epoch(state, frames, split, objective, config, steps, on_step)
        validation_loss = _held_out_loss(state.average, frames, split.labels, split.validation, objective)
        state.epoch += 1
        entry = Epoch(state.epoch, training_loss, validation_loss, time.monotonic() - began)
        state.history.append(entry)
        if validation_loss < state.best_loss:
            state.best_loss, state.best_epoch = validation_loss, state.epoch
            state.best_weights = copy.deepcopy(state.average.state_dict())
        _save(state, checkpoint, config, frames, None)
        if on_epoch is not None:
            on_epoch(entry, floor)
    state.average.load_state_dict(state.best_weights)
    calibration = calibrate(state.average, frames, split, objective)
    _save(state, checkpoint, config, frames, calibration)
    return TrainResult(
        checkpoint,
        state.history,
        floor,
        state.best_epoch,
        calibration,
        time.monotonic() - started,
        len(split.train),
    )


def level_shares(labels: NDArray[np.int16], levels: int) -> NDArray[np.float64]:
    """Share of labelled frames at each level.

    Args:
        labels: int16 [N, J], -1 where a joint is in no regime.
        levels: Number of levels K.

    Returns:
        float64 [J, K], rows sum to 1.

    Raises:
        TrainingError: A joint never visits one of the levels.
    """
    counts = np.stack([(labels == level).sum(axis=0) for level in range(levels)], axis=1).astype(np.float64)
    if (counts == 0).any():
        joint, level = np.argwhere(counts == 0)[0]
        raise TrainingError(
            f"joint number {joint + 1} has no training frame at level number {level + 1}: record longer "
            "(every joint must visit every level several times)"
        )
    shares: NDArray[np.float64] = counts / counts.sum(axis=1, keepdims=True)
    return shares


def _initial_state(frames: FrameSet, config: TrainConfig) -> _State:
    torch.manual_seed(config.seed)
    net = AngleNet(config.image_size, len(frames.joint_names), dropout=config.dropout)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    decayed = [p for p in net.parameters() if p.ndim > 1]
    plain = [p for p in net.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=config.learning_rate,
    )
    average = copy.deepcopy(net).requires_grad_(False)
    return _State(net, average, optimiser)


def _train_epoch(
    state: _State,
    frames: FrameSet,
    split: Split,
    objective: MechanismLikelihood,
    config: TrainConfig,
    steps: int,
    on_step: Progress | None,
) -> float:
    """One pass over the training frames in an order that depends on seed and epoch alone; the mean loss."""
    rng = np.random.default_rng([config.seed, state.epoch])
    torch.manual_seed(config.seed * 100_003 + state.epoch)
    augmentation = Augmentation(
        shift=config.shift, light=config.light, noise=config.noise, occlusion=config.occlusion
    )
    order = rng.permutation(split.train)
    total, smoothed = 0.0, math.nan
    state.net.train()
    for number in range(steps):
        chosen = np.sort(order[number * config.batch_size : (number + 1) * config.batch_size])
        images = augmentation(frames.images[chosen], rng)
        labels = torch.from_numpy(split.labels[chosen].astype(np.int64))
        for group in state.optimiser.param_groups:
            group["lr"] = config.learning_rate * _one_cycle(state.step / (steps * config.epochs))
        prediction = state.net(images)
        loss = objective(prediction.angle, prediction.log_std, labels)
        state.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(state.net.parameters(), 1.0)
        state.optimiser.step()
        state.step += 1
        _follow(state.average, state.net, min(config.ema_decay, (1 + state.step) / (10 + state.step)))
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingError(f"the loss became {value} at step {state.step}: lower the learning rate")
        total += value
        smoothed = value if math.isnan(smoothed) else 0.98 * smoothed + 0.02 * value
        if on_step is not None:
            on_step(state.step, steps * config.epochs, smoothed)
    return total / steps


def _one_cycle(progress: float) -> float:
    """Learning rate as a share of its peak: a short linear rise, then half a cosine down to 1 %."""
    if progress < 0.08:
        return 0.05 + 0.95 * progress / 0.08
    return 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * (progress - 0.08) / 0.92))


@torch.no_grad()
def _follow(average: AngleNet, net: AngleNet, decay: float) -> None:
    """Move the average's weights and statistics towards the net's."""
    current = net.state_dict()
    for name, value in average.state_dict().items():
        if value.dtype.is_floating_point:
            value.lerp_(current[name], 1.0 - decay)
        else:
            value.copy_(current[name])


def batches(indices: NDArray[np.int64], size: int = 512) -> Iterator[NDArray[np.int64]]:
    """Consecutive pieces of an index array."""
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


@torch.no_grad()
def _held_out_loss(
    net: AngleNet,
    frames: FrameSet,
    labels: NDArray[np.int16],
    indices: NDArray[np.int64],
    objective: MechanismLikelihood,
) -> float:
    """Mean loss in nats over frames that were not trained on, each joint weighing the same."""
    net.eval()
    total = torch.zeros(net.joints, dtype=torch.float64)
    count = torch.zeros(net.joints, dtype=torch.float64)
    for chosen in batches(indices):
        prediction = net(to_input(frames.images[chosen]))
        target = torch.from_numpy(labels[chosen].astype(np.int64))
        total -= objective.log_likelihood(prediction.angle, prediction.log_std, target).sum(dim=0)
        count += (target >= 0).sum(dim=0)
    return float((total / count.clamp(min=1)).mean())


def _identity(config: TrainConfig, frames: FrameSet) -> dict[str, Any]:
    """What a checkpoint must agree in before it is continued."""
    return {"config": asdict(config), "bag_hash": frames.bag_hash, "schedule_hash": frames.schedule_hash}


def _save(
    state: _State, path: Path, config: TrainConfig, frames: FrameSet, calibration: Calibration | None
) -> None:
    """Write the checkpoint next to its place and move it there, so that a killed run leaves the last whole one."""
    content = {
        "version": CHECKPOINT_VERSION,
        **_identity(config, frames),
        "frames": frames.description(),
        "net": state.net.state_dict(),
        "average": state.average.state_dict(),
        "best": state.best_weights,
        "optimiser": state.optimiser.state_dict(),
        "progress": [state.epoch, state.step, state.best_loss, state.best_epoch],
        "history": [asdict(entry) for entry in state.history],
        "calibration": None if calibration is None else calibration.to_dict(),
    }
    temporary = path.with_suffix(".partial")
    try:
        torch.save(content, temporary)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch tells a full disk as a RuntimeError
        raise TrainingError(f"{path}: cannot be written ({error}); make room or choose another folder") from None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint (tensors and plain values only, so that a foreign file cannot run code).

    Raises:
        TrainingError: Missing, damaged, or of another version.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TrainingError(f"{path}: no such checkpoint; run `ropes train` first") from None
    except Exception as error:
        raise TrainingError(f"{path}: cannot be read as a checkpoint ({type(error).__name__}); train again") from None
    if not isinstance(content, dict) or content.get("version") != CHECKPOINT_VERSION:
        raise TrainingError(f"{path}: not a checkpoint of version {CHECKPOINT_VERSION}; train again")
    return content


def _restore(state: _State, path: Path, config: TrainConfig, frames: FrameSet) -> None:
    content = load_checkpoint(path)
    wanted = _identity(config, frames)
    for key, value in wanted.items():
        if content[key] != value:
            raise TrainingError(f"{path}: made with another {key}; train without --resume or into another folder")
    state.net.load_state_dict(content["net"])
    state.average.load_state_dict(content["average"])
    state.optimiser.load_state_dict(content["optimiser"])
    state.best_weights = content["best"]
    state.epoch, state.step, state.best_loss, state.best_epoch = content["progress"]
    state.history = [Epoch(**entry) for entry in content["history"]]

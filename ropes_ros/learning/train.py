"""Training of the encoder from intervention bags, without measured poses.

    frames = load_frames(bag, size=config.image_size, cache_dir=...)
    result = train(frames, out_dir, config=config)

The loss is a task (what the latent must keep) plus a weighted constraint (what structure it has), see
`ropes_ros.learning.tasks` and `ropes_ros.learning.constraints`; the default task is the likelihood of the level that
each joint was commanded at. Time is cut into contiguous spans: training, validation (the epoch to keep is the one with
the task's lowest loss there; the constraint has no say in it) and calibration (the scale of the standard deviation and
the threshold of novelty).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ropes_ros.dataset import FrameSet, Split
from ropes_ros.errors import TrainingError
from ropes_ros.learning.align import AlignedNet, aligned
from ropes_ros.learning.augmentation import Augmentation
from ropes_ros.learning.board import Board
from ropes_ros.learning.calibrate import Calibration, calibrate
from ropes_ros.learning.checkpoint import (
    CHECKPOINT_FILE,
    encoder_of,
    find_checkpoint,
    load_checkpoint,
    provenance,
    save_checkpoint,
    start_from,
)
from ropes_ros.learning.constraints import Constraint, make_constraint
from ropes_ros.learning.distributed import World, joined
from ropes_ros.learning.loader import Loader, batches, block_length, shuffled
from ropes_ros.learning.mechanism import MechanismLikelihood, level_shares
from ropes_ros.learning.networks import AngleNet
from ropes_ros.learning.optimisation import PRECISIONS, check_compiler, follow, one_cycle, takes_bfloat16
from ropes_ros.learning.tasks import Batch, Task, make_task
from ropes_ros.learning.validation import prepare

INIT_RATE = 0.25
"""Share of the learning rate with which a model that is started from is adapted."""
REPORT_STEPS = 10
"""Steps between two looks at the loss, each of which waits for the device."""


@dataclass(frozen=True)
class TrainConfig:
    """What a run of training depends on besides the frames.

    Attributes:
        image_size: (width, height) of the network's input in pixels.
        backbone: Name of the network's convolutions, see `networks.AngleNet`.
        task: What the latent must keep, see `tasks.make_task`.
        constraint: What structure it has, see `constraints.make_constraint`.
        constraint_weight: Factor on the constraint's penalty.
        pretrain: Task that is trained first on all frames outside the validation and calibration spans, or "none".
        pretrain_epochs: Passes over those frames.
        epochs: Passes over the training frames.
        batch_size: Frames a step, of all processes together.
        learning_rate: Peak of the one-cycle schedule (AdamW).
        weight_decay: Decoupled weight decay.
        dropout: Dropout before the head.
        ema_decay: Decay of the moving average of weights that is validated and exported.
        shift, light, noise, occlusion: See `Augmentation`.
        precision: "float32", "bfloat16" for the network's products (weights and losses stay float32), or "auto":
            bfloat16 where the hardware multiplies it faster.
        compile: Compile the network with torch.compile, which takes about half a minute and a C++ compiler.
        span_s: Length of the contiguous spans of time that are split, in seconds.
        seed: Source of the split, the initial weights, the order of frames and the augmentation.
    """

    image_size: tuple[int, int] = (88, 80)
    backbone: str = "small"
    task: str = "mechanism"
    constraint: str = "none"
    constraint_weight: float = 1.0
    pretrain: str = "none"
    pretrain_epochs: int = 3
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
    precision: str = "auto"
    compile: bool = False
    span_s: float = 30.0
    seed: int = 0


@dataclass(frozen=True)
class Epoch:
    """One line of the training log.

    Attributes:
        epoch: Number from 1, pretraining included.
        training_loss: Loss of the task on augmented training frames; of mechanism in nats per labelled joint and frame.
        validation_loss: The same on validation spans, without augmentation, of the averaged weights.
        seconds: Wall time.
        task: What was trained.
        constraint_loss: Penalty of the constraint on training frames, unweighted.
    """

    epoch: int
    training_loss: float
    validation_loss: float
    seconds: float
    task: str = "mechanism"
    constraint_loss: float = 0.0


@dataclass(frozen=True)
class TrainResult:
    """What training gives.

    Attributes:
        checkpoint: File to export from.
        history: One entry an epoch, pretraining first.
        floor: Bayes floor of the regime loss, nats, mean over joints.
        best_epoch: The epoch whose weights were kept; 0 for those that were started from.
        calibration: Scale of std and reference of novelty.
        seconds: Wall time of training.
        frames: Frames in the training spans.
        held_out_loss: Loss on validation spans of the weights that were kept.
    """

    checkpoint: Path
    history: list[Epoch]
    floor: float
    best_epoch: int
    calibration: Calibration
    seconds: float
    frames: int
    held_out_loss: float


class TaskFactory(Protocol):
    """Makes the task of a run from the frames, the levels' shares, float64 [J, K], and the network."""

    def __call__(self, frames: FrameSet, shares: NDArray[np.float64], net: AngleNet, /) -> Task: ...


@dataclass(frozen=True)
class _Stage:
    """Epochs that train one task: the pretraining, or the training proper.

    Attributes:
        name: Of the task.
        make: Makes the task; None takes the one of that name.
        constraint: Name of the constraint.
        frames: int64 [n], increasing, frames to train on.
        first_epoch, epochs: Where it lies among all epochs.
        first_step, steps: Steps before it, and in each of its epochs.
        final: Whether it is the training proper, whose best epoch is kept.
    """

    name: str
    make: TaskFactory | None
    constraint: str
    frames: NDArray[np.int64]
    first_epoch: int
    epochs: int
    first_step: int
    steps: int
    final: bool


class _Loss(nn.Module):
    """Task plus weighted constraint of one network, as one module, which several processes can train together."""

    def __init__(self, net: AngleNet, task: Task, constraint: Constraint, weight: float) -> None:
        super().__init__()
        self.net = net
        self.task = task
        self.constraint = constraint
        self.weight = weight

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss, a scalar, and [task, constraint] apart, float [2], without gradient."""
        loss, prediction = self.task(self.net, batch)
        penalty = self.constraint(self.net, batch, prediction)
        return loss + self.weight * penalty, torch.stack([loss.detach(), penalty.detach()]).float()


@dataclass
class _State:
    """All that changes in training, and so all that a resumed run needs."""

    loss: _Loss
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
    task: TaskFactory | None = None,
    init: Path | None = None,
    resume: bool = False,
    log_dir: Path | None = None,
    on_step: Progress | None = None,
    on_epoch: Callable[[Epoch, float], None] | None = None,
) -> TrainResult:
    """Train an encoder on the frames of intervention bags.

    Processes that `torchrun` started train together: each takes its share of every batch, the first one writes and
    calls back.

    Args:
        frames: Images with the level of each joint; holds no angles.
        out_dir: Folder for `checkpoint.pt`, rewritten after every epoch.
        config: Settings; the default ones when None.
        task: Makes the task, in place of the one that the settings name.
        init: Checkpoint, or folder of a model with its checkpoint, whose weights are adapted at a lower learning rate.
        resume: Continue from `checkpoint.pt` when it was made with the same settings and frames.
        log_dir: Folder for TensorBoard's event files; none are written when None.
        on_step: Progress callback.
        on_epoch: Called after each epoch with the log entry and the Bayes floor.

    Raises:
        TrainingError: Too few labelled frames, a setting that is unknown, or a checkpoint that does not fit.
    """
    config = config or TrainConfig()
    torch.set_flush_denormal(True)
    with joined() as world:
        return _Run(frames, out_dir, config, task, init, world, log_dir, on_step, on_epoch).run(resume)


class _Run:
    """One call of `train`."""

    def __init__(
        self,
        frames: FrameSet,
        out_dir: Path,
        config: TrainConfig,
        task: TaskFactory | None,
        init: Path | None,
        world: World,
        log_dir: Path | None,
        on_step: Progress | None,
        on_epoch: Callable[[Epoch, float], None] | None,
    ) -> None:
        _check(config, world)
        self.frames, self.config, self.world = frames, config, world
        self.on_step, self.on_epoch = on_step if world.leads else None, on_epoch if world.leads else None
        self.board = Board(log_dir if world.leads else None)
        self.checkpoint = out_dir / CHECKPOINT_FILE
        try:
            out_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(f"{out_dir}: cannot be made ({error.strerror}); choose another folder") from None
        self.split, _, self.findings = prepare(frames, span_s=config.span_s, seed=config.seed)
        self.shares = level_shares(self.split.labels[self.split.train], frames.joint_names, frames.level_ids)
        self.objective = MechanismLikelihood(frames.log_density, self.shares)
        self.floor = float(self.objective.floor[self._labelled()].mean())
        self.init = None if init is None else find_checkpoint(init)
        self.start = None if self.init is None else load_checkpoint(self.init)
        self.stages = _stages(config, task, frames, self.split)
        self.steps = sum(stage.steps * stage.epochs for stage in self.stages)
        self.identity = {
            "config": asdict(config),
            "bag_hash": frames.bag_hash,
            "schedule_hash": frames.schedule_hash,
            "init": None if self.init is None else sha256(self.init.read_bytes()).hexdigest(),
        }

    def run(self, resume: bool) -> TrainResult:
        started = time.monotonic()
        content: dict[str, Any] | None = None
        if resume and self.world.leads and self.checkpoint.exists():
            content = self._resumed()
        content = self.world.share(content)
        done = 0 if content is None else int(content["progress"][0])
        net = self._net()
        state: _State | None = None
        self.board.open(0 if content is None else int(content["progress"][1]))
        for stage in self.stages:
            if not stage.final and done >= stage.first_epoch + stage.epochs:
                continue
            before = state
            if before is not None:
                net = self._net(before.average.state_dict())
            elif content is not None and done == stage.first_epoch:
                net = self._net(content["average"])
            state = self._begin(stage, net)
            if before is not None:
                state.epoch, state.step, state.history = before.epoch, before.step, before.history
            elif content is not None:
                _restore(state, content, whole=done > stage.first_epoch)
            self._stage(stage, state)
        assert state is not None  # there is always the final stage
        self.board.close()
        return self._end(state, started)

    def _stage(self, stage: _Stage, state: _State) -> None:
        """Train one task to its last epoch."""
        if self.config.compile:
            state.loss.net.compile()
        wrapped = self.world.wrap(state.loss)
        augmentation = Augmentation(
            shift=self.config.shift,
            light=self.config.light,
            noise=self.config.noise,
            occlusion=self.config.occlusion,
        )
        if stage.final and self.init is not None and state.epoch == stage.first_epoch:
            # What is started from is kept where no epoch tells the regimes of held-out spans better.
            state.best_loss, state.best_epoch = self._held_out(stage, state, augmentation), state.epoch
            state.best_weights = copy.deepcopy(state.average.state_dict())
        while state.epoch < stage.first_epoch + stage.epochs:
            began = time.monotonic()
            losses = self._epoch(stage, state, wrapped, augmentation)
            held_out = self._held_out(stage, state, augmentation)
            if not math.isfinite(held_out):
                raise TrainingError(f"the loss on validation spans became {held_out}: lower the learning rate")
            state.epoch += 1
            entry = Epoch(state.epoch, losses[0], held_out, time.monotonic() - began, stage.name, losses[1])
            state.history.append(entry)
            if stage.final and held_out < state.best_loss:
                state.best_loss, state.best_epoch = held_out, state.epoch
                state.best_weights = copy.deepcopy(state.average.state_dict())
            self._save(state, state.average, None)
            self.board.write(
                state.step, {"loss/epoch": entry.training_loss, "loss/held_out": held_out, "loss/floor": self.floor}
            )
            if self.on_epoch is not None:
                self.on_epoch(entry, self.floor)

    def _epoch(
        self, stage: _Stage, state: _State, wrapped: nn.Module, augmentation: Augmentation
    ) -> tuple[float, float]:
        """One pass in an order that depends on seed and epoch alone; the mean losses of task and constraint."""
        config, world = self.config, self.world
        rng = np.random.default_rng([config.seed, state.epoch])
        torch.manual_seed(config.seed * 100_003 + state.epoch + 7919 * world.rank)
        order = shuffled(stage.frames, rng, block=block_length(self.frames.images))
        chosen = [
            np.sort(order[number * config.batch_size : (number + 1) * config.batch_size][world.rank :: world.size])
            for number in range(stage.steps)
        ]
        rate = config.learning_rate * (1.0 if self.init is None else INIT_RATE)
        total, since, smoothed = torch.zeros(2), torch.zeros(2, device=world.device), math.nan
        looked = time.monotonic()
        wrapped.train()
        for number, batch in enumerate(self._loader(state.loss.task, augmentation)(chosen, state.epoch, world.rank)):
            in_stage = state.step - stage.first_step
            for group in state.optimiser.param_groups:
                group["lr"] = rate * one_cycle(in_stage / (stage.steps * stage.epochs))
            with self._precision():
                loss, parts = wrapped(batch)
            state.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(wrapped.parameters(), 1.0)
            state.optimiser.step()
            state.step += 1
            follow(state.average, state.loss.net, min(config.ema_decay, (1 + in_stage) / (10 + in_stage)))
            since += parts
            if (number + 1) % REPORT_STEPS == 0 or number + 1 == stage.steps:
                mean = since.cpu() / (number % REPORT_STEPS + 1)
                if not mean.isfinite().all():
                    raise TrainingError(
                        f"the loss became {float(mean.sum())} before step {state.step}: lower the learning rate"
                    )
                total += since.cpu()
                since.zero_()
                now, value = time.monotonic(), float(mean[0])
                self.board.write(
                    state.step,
                    {
                        "loss/training": value,
                        "loss/constraint": float(mean[1]),
                        "learning_rate": state.optimiser.param_groups[0]["lr"],
                        "frames_per_second": (number % REPORT_STEPS + 1) * config.batch_size / (now - looked),
                    },
                )
                looked = now
                smoothed = value if math.isnan(smoothed) else smoothed + (1.0 - 0.98**REPORT_STEPS) * (value - smoothed)
            if self.on_step is not None:
                self.on_step(state.step, self.steps, smoothed)
        task_loss, penalty = (world.sum(total) / (stage.steps * world.size)).tolist()
        return task_loss, penalty

    @torch.no_grad()
    def _held_out(self, stage: _Stage, state: _State, augmentation: Augmentation) -> float:
        """Loss of the averaged weights on the validation spans.

        That of mechanism is the regime loss, nats, each joint weighing the same; that of another task its own.
        """
        world = self.world
        torch.manual_seed(self.config.seed)
        state.average.eval()
        state.loss.task.eval()
        regimes = stage.name == "mechanism"
        chosen = batches(self.split.validation)[world.rank :: world.size]
        total = torch.zeros(len(self.frames.joint_names) if regimes else 1, dtype=torch.float64)
        count = torch.zeros_like(total)
        loader = self._loader(state.loss.task, augmentation if state.loss.task.views > 1 else None)
        for batch in loader(chosen, world.rank):
            if regimes:
                prediction = state.average(batch.images)
                labels = batch.labels.cpu()
                found = self.objective.log_likelihood(prediction.angle.cpu(), prediction.log_std.cpu(), labels)
                total -= found.sum(dim=0)
                count += (labels >= 0).sum(dim=0)
            else:
                total += state.loss.task(state.average, batch)[0].double().cpu() * len(batch.index)
                count += len(batch.index)
        total, count = world.sum(total), world.sum(count)
        return float((total / count)[count > 0].mean())

    def _labelled(self) -> NDArray[np.bool_]:
        """Which joints are trained at all, bool [J]."""
        return np.asarray((self.split.labels[self.split.train] >= 0).any(axis=0))

    def _loader(self, task: Task, augmentation: Augmentation | None) -> Loader:
        return Loader(
            self.frames.images,
            self.split.labels,
            device=self.world.device,
            augmentation=augmentation,
            views=task.views,
            neighbours=task.neighbours,
            seed=self.config.seed,
        )

    def _precision(self) -> torch.autocast:
        return torch.autocast(
            self.world.device.type,
            dtype=torch.bfloat16,
            enabled=takes_bfloat16(self.config.precision, self.world.device),
        )

    def _net(self, pretrained: dict[str, Tensor] | None = None) -> AngleNet:
        """The network before the first step of a stage.

        Its weights are random, or those that are started from. Pretrained ones take their place, but for the head's:
        another task's latents may lie anywhere, and this one's have a range.
        """
        config = self.config
        torch.manual_seed(config.seed)
        net = AngleNet(
            config.image_size, len(self.frames.joint_names), backbone=config.backbone, dropout=config.dropout
        )
        if self.start is not None:
            start_from(net, self.start, self.init)
        if pretrained is not None:
            kept = {name: value for name, value in pretrained.items() if not name.startswith("head.")}
            net.load_state_dict(kept, strict=False)
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return net.to(self.world.device)

    def _begin(self, stage: _Stage, net: AngleNet) -> _State:
        """The state before a stage's first step: a fresh task, constraint and optimiser for the network."""
        config = self.config
        torch.manual_seed(config.seed * 100_003 - stage.first_epoch - 1)
        make: TaskFactory = stage.make or partial(make_task, stage.name)
        task = make(self.frames, self.shares, net)
        loss = _Loss(net, task, make_constraint(stage.constraint, self.frames, net), config.constraint_weight)
        loss.to(self.world.device)
        trained = [parameter for parameter in loss.parameters() if parameter.requires_grad]
        optimiser = torch.optim.AdamW(
            [
                {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
                {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
        )
        return _State(loss, copy.deepcopy(net).requires_grad_(False), optimiser)

    def _resumed(self) -> dict[str, Any]:
        content = load_checkpoint(self.checkpoint)
        for key, value in self.identity.items():
            if content[key] != value:
                raise TrainingError(
                    f"{self.checkpoint}: made with another {key}; train without --resume or into another folder"
                )
        return content

    def _save(self, state: _State, best: AngleNet | AlignedNet, calibration: Calibration | None) -> None:
        """Write the checkpoint; `best` is the module that the best weights belong to."""
        if not self.world.leads:
            return
        save_checkpoint(
            self.checkpoint,
            {
                **self.identity,
                "architecture": best.architecture(),
                "frames": self.frames.description(),
                "findings": list(self.findings),
                **provenance(state.loss.task.supervision, self.frames.bag_hash, self.start),
                "net": state.loss.net.state_dict(),
                "task": state.loss.task.state_dict(),
                "constraint": state.loss.constraint.state_dict(),
                "average": state.average.state_dict(),
                "best": state.best_weights if calibration is None else best.state_dict(),
                "optimiser": state.optimiser.state_dict(),
                "progress": [state.epoch, state.step, state.best_loss, state.best_epoch],
                "history": [asdict(entry) for entry in state.history],
                "calibration": None if calibration is None else calibration.to_dict(),
            },
        )

    def _end(self, state: _State, started: float) -> TrainResult:
        """Calibrate the best epoch's weights, in the first process, and write all that is needed for export."""
        calibration: Calibration | None = None
        if self.world.leads:
            state.average.load_state_dict(state.best_weights)
            net: AngleNet | AlignedNet = copy.deepcopy(state.average).cpu()
            if self.stages[-1].name not in ("mechanism", "given"):
                net = aligned(net, self.frames, self.split, self.objective)
            calibration = calibrate(
                net, self.frames, self.split, self.objective, truncated=state.loss.task.truncated
            )
            self._save(state, net, calibration)
        calibration = self.world.share(calibration)
        assert calibration is not None  # the first process has one
        return TrainResult(
            self.checkpoint,
            state.history,
            self.floor,
            state.best_epoch,
            calibration,
            time.monotonic() - started,
            len(self.split.train),
            state.best_loss,
        )


def _check(config: TrainConfig, world: World) -> None:
    if config.precision not in PRECISIONS:
        raise TrainingError(f"precision {config.precision!r} is unknown: choose one of {', '.join(PRECISIONS)}")
    if config.compile:
        check_compiler(world.device)
    if config.batch_size % world.size:
        raise TrainingError(
            f"a batch of {config.batch_size} frames cannot be shared by {world.size} processes: choose a multiple"
        )


def _stages(config: TrainConfig, task: TaskFactory | None, frames: FrameSet, split: Split) -> list[_Stage]:
    """What is trained, in order."""
    stages: list[_Stage] = []
    if config.pretrain != "none":
        every = np.setdiff1d(np.arange(len(frames)), np.concatenate([split.validation, split.calibration]))
        steps = max(1, len(every) // config.batch_size)
        stages.append(_Stage(config.pretrain, None, "none", every, 0, config.pretrain_epochs, 0, steps, False))
    before = sum(stage.epochs for stage in stages), sum(stage.epochs * stage.steps for stage in stages)
    steps = max(1, len(split.train) // config.batch_size)
    name = config.task if task is None else "given"
    stages.append(
        _Stage(name, task, config.constraint, split.train, before[0], config.epochs, before[1], steps, True)
    )
    return stages


def _restore(state: _State, content: dict[str, Any], *, whole: bool) -> None:
    """Continue from a checkpoint; `whole` where it was written within the same stage.

    Raises:
        TrainingError: It was told something else.
    """
    state.epoch, state.step, best_loss, best_epoch = content["progress"]
    state.history = [Epoch(**entry) for entry in content["history"]]
    if whole:
        told = state.loss.task.supervision
        if not str(content["supervision"]).startswith(told):
            raise TrainingError(
                f"the checkpoint was told {content['supervision']!r}, this training {told!r}: train without --resume "
                "or into another folder"
            )
        state.loss.net.load_state_dict(content["net"])
        state.loss.task.load_state_dict(content["task"])
        state.loss.constraint.load_state_dict(content["constraint"])
        state.average.load_state_dict(content["average"])
        state.optimiser.load_state_dict(content["optimiser"])
        state.best_weights, state.best_loss, state.best_epoch = encoder_of(content)[1], best_loss, best_epoch

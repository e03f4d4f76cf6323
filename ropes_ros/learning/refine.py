"""The second stage of training: find the camera, look closer at the arm, correct the first network's angles.

    first = train(frames, out_dir / "first", config=config)
    result = refine(frames, first.checkpoint, out_dir)

Needs the robot's kinematics and the recording's pixels, no labels beyond those of the first stage. The second network
is given guesses off the first one's angles by a known random amount, so that it learns to look where the arm is rather
than to repeat the guess. It is kept only if the loss on held-out spans falls.
"""

from __future__ import annotations

import copy
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ropes_ros.dataset import FrameSet, PixelSource, Split
from ropes_ros.errors import TrainingError
from ropes_ros.learning.augmentation import Augmentation, to_input
from ropes_ros.learning.calibrate import calibrate, log_likelihood, predict
from ropes_ros.learning.camera import FRAMES, find_camera
from ropes_ros.learning.checkpoint import (
    CHECKPOINT_FILE,
    bags_of,
    find_checkpoint,
    load_checkpoint,
    load_net,
    part,
    save_checkpoint,
)
from ropes_ros.learning.glimpse import MARGIN, SIDE, Aim, CascadeNet, GlimpseNet, bounded, cut
from ropes_ros.learning.kinematics import Kinematics
from ropes_ros.learning.mechanism import MechanismLikelihood, level_shares
from ropes_ros.learning.networks import AngleNet, Prediction
from ropes_ros.learning.optimisation import follow, one_cycle, takes_bfloat16
from ropes_ros.learning.tasks import Batch, Task, make_task
from ropes_ros.learning.train import (
    INIT_RATE,
    Epoch,
    Progress,
    TaskFactory,
    TrainConfig,
    TrainResult,
)
from ropes_ros.learning.validation import prepare
from ropes_ros.robot import Robot

HIDING = 1.5
"""Variance of the change of guesses, in variances of what the first network memorised."""
COVERED = 0.95
"""Share of changed guesses whose glimpses lie wholly within the cuttings, unless those would pass `MARGIN`."""
_CHUNK = 256
_KEPT = ("config", "bag_hash", "schedule_hash", "init", "findings", "supervision")
"""Entries of the first network's checkpoint that the second one's takes over."""


@dataclass(frozen=True)
class RefineConfig:
    """Settings of the second stage.

    Attributes:
        epochs: Passes over the training frames.
        batch_size: Frames a step.
        learning_rate: Peak of the one-cycle schedule (AdamW).
        weight_decay: Decoupled weight decay.
        ema_decay: Decay of the moving average of weights that is validated and exported.
        jitter: Standard deviation of the random change of guesses in half ranges, where the first network memorised
            nothing; see `changed_by`.
        light, noise, occlusion: See `Augmentation`.
    """

    epochs: int = 6
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    ema_decay: float = 0.998
    jitter: float = 0.05
    light: float = 0.25
    noise: float = 0.03
    occlusion: float = 0.25


class _Glimpses:
    """Training's glimpses: cut once around the first network's guesses, with a margin; then moved with each guess.

    Beyond a cutting its last pixel is repeated.

    Args:
        pixels: The region's pixels.
        aim: Where to look.
        guess: Normalised angles of all frames, float64 [N, J].
        indices: Frames that will be asked for, int64 [n], increasing.
        jitter: Standard deviation by which guesses will be changed, half ranges.
        folder: Where the cuttings are kept.
    """

    def __init__(
        self,
        pixels: PixelSource,
        aim: Aim,
        guess: NDArray[np.float64],
        indices: NDArray[np.int64],
        jitter: float,
        folder: Path,
    ) -> None:
        self.aim, self.guess = aim, guess
        self.spacing = aim.spacing.numpy()
        self.row = np.full(len(guess), -1)
        self.row[indices] = np.arange(len(indices))
        self.centres = self._aimed(guess)
        self.side = self._side(guess[indices], jitter)
        shape = (len(indices), len(aim.weights), self.side, self.side, 3)
        self.cuttings = np.lib.format.open_memmap(folder / "cuttings.npy", mode="w+", dtype=np.uint8, shape=shape)
        for start in range(0, len(indices), _CHUNK):
            chosen = indices[start : start + _CHUNK]
            for frame, picture in zip(chosen, pixels.read(chosen), strict=True):
                for centre, spacing, cutting in zip(
                    self.centres[frame], self.spacing, self.cuttings[self.row[frame]], strict=True
                ):
                    cut(picture, centre, float(spacing), self.side, cutting)

    def take(self, indices: NDArray[np.int64], guess: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Glimpses uint8 [n * M, SIDE, SIDE, 3] of frames [n], aimed by guesses float64 [n, J]."""
        offset = (self._aimed(guess) - self.centres[indices]) / self.spacing[:, None] + 0.5 * (self.side - 1)
        taken = np.empty((*offset.shape[:2], SIDE, SIDE, 3), dtype=np.uint8)
        for position, frame in enumerate(indices):
            for number in range(offset.shape[1]):
                cutting = self.cuttings[self.row[frame], number]
                cut(cutting, offset[position, number], 1.0, SIDE, taken[position, number])
        return taken.reshape(-1, SIDE, SIDE, 3)

    def _side(self, guess: NDArray[np.float64], jitter: float) -> int:
        """Width and height of the cuttings in pixels of a glimpse."""
        sample = guess[np.linspace(0, len(guess) - 1, 1000).astype(np.int64)]
        changed = sample + np.random.default_rng(0).normal(0.0, jitter, sample.shape)
        moved = np.abs(self._aimed(changed) - self._aimed(sample)).max(axis=2) / self.spacing
        return int(min(SIDE + 2.0 * np.quantile(moved, COVERED), MARGIN * SIDE))

    @torch.no_grad()
    def _aimed(self, guess: NDArray[np.float64]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = self.aim(torch.from_numpy(guess).float()).numpy()
        return found


def refine(
    frames: FrameSet,
    checkpoint: Path,
    out_dir: Path,
    *,
    robot: Robot,
    config: RefineConfig | None = None,
    task: TaskFactory | None = None,
    init: Path | None = None,
    on_step: Progress | None = None,
    on_epoch: Callable[[Epoch, float], None] | None = None,
    on_phase: Callable[[str], None] | None = None,
) -> TrainResult:
    """Train the second look on top of a trained first network.

    Args:
        frames: The frames that the first network was trained on, with their `details`.
        checkpoint: Of the first network.
        out_dir: Folder for the `checkpoint.pt` of both together.
        robot: The robot that was recorded.
        config: Settings; the default ones when None.
        task: Makes the task in place of the likelihood of levels, as for `train`.
        init: Checkpoint, or folder of a model with its checkpoint, whose second network is adapted if it has one.
        on_step: Progress callback.
        on_epoch: Called after each epoch with the log entry and the Bayes floor.
        on_phase: Called with what is done next, where that takes long and no step is told.

    Raises:
        TrainingError: The frames' pixels are not there, or the checkpoint cannot be read.
    """
    config = config or RefineConfig()
    if frames.details is None:
        raise TrainingError("the refinement needs the camera's pixels, and these frames come without them")
    started = time.monotonic()
    torch.set_flush_denormal(True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    content = load_checkpoint(checkpoint)
    first = TrainConfig(**content["config"])
    base: Any = load_net(content)
    split, seed = prepare(frames, span_s=first.span_s, seed=first.seed).split, first.seed
    shares = level_shares(split.labels[split.train], frames.joint_names, frames.level_ids)
    objective = MechanismLikelihood(frames.log_density, shares)
    labelled = (split.labels[split.train] >= 0).any(axis=0)
    floor = float(objective.floor.double().numpy()[labelled].mean())
    wanted = np.sort(np.concatenate([split.train, split.validation]))
    found = predict(base, frames, wanted)
    validated = np.isin(wanted, split.validation)
    guess = np.zeros((len(frames), len(frames.joint_names)))
    guess[wanted] = bounded(torch.from_numpy(found.angle)).numpy()
    loss = np.full(guess.shape, np.nan)
    loss[wanted] = -log_likelihood(objective, found.angle, found.log_std, split.labels[wanted])
    loss[split.labels < 0] = np.nan
    jitter = changed_by(config.jitter, frames.level_label_noise, loss[split.train], loss[split.validation])
    cascade = CascadeNet.of(base, _aim(frames, frames.details, robot, guess, split.train, seed))
    if init is not None:
        _start_from(cascade.look, init)
    make: TaskFactory = task or partial(make_task, "mechanism")
    loss_of = make(frames, shares, cast(AngleNet, cascade.look))
    out_dir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="glimpses-", dir=out_dir))
    try:
        stage = _Stage(
            cascade.look,
            loss_of,
            _Glimpses(frames.details, cascade.aim, guess, wanted, jitter, folder),
            split,
            config,
            seed,
            jitter=jitter,
            rate=config.learning_rate * (1.0 if init is None else INIT_RATE),
            device=device,
            bfloat16=takes_bfloat16(first.precision, device),
        )
        history = stage.fit(on_step, None if on_epoch is None else partial(_with_floor, on_epoch, floor))
        before = stage.held_out_of(found.angle[validated], found.log_std[validated])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    best = min(history, key=lambda entry: entry.validation_loss)
    refined = best.validation_loss < before
    net: Any = cascade if refined else base
    if on_phase is not None:
        on_phase("calibrating on spans kept out of training, from the recording's own pixels")
    calibration = calibrate(net, frames, split, objective, truncated=loss_of.truncated)
    earlier = [Epoch(**entry) for entry in content["history"]]
    save_checkpoint(
        out_dir / CHECKPOINT_FILE,
        {
            **{key: content[key] for key in _KEPT},
            "bags": list(bags_of(content)),
            "refinement": {**asdict(config), "jitter": jitter},
            "refined": refined,
            "architecture": net.architecture(),
            "frames": frames.description(),
            "best": net.state_dict(),
            "progress": [0, 0, best.validation_loss, len(earlier) + best.epoch] if refined else content["progress"],
            "history": [asdict(entry) for entry in (*earlier, *history)],
            "calibration": calibration.to_dict(),
        },
    )
    return TrainResult(
        out_dir / CHECKPOINT_FILE,
        [*earlier, *history],
        floor,
        len(earlier) + best.epoch if refined else int(content["progress"][3]),
        calibration,
        time.monotonic() - started,
        len(split.train),
        best.validation_loss if refined else float(content["progress"][2]),
    )


def changed_by(
    least: float, label_noise: float, training: NDArray[np.float64], held_out: NDArray[np.float64]
) -> float:
    """Standard deviation of the random change of training guesses, half ranges.

    On a video the first network recognises moments: its guesses of training frames lean to the levels that were
    commanded then, which guesses of new frames do not. A second network that could read this off a guess would learn
    to trust guesses. A net that is g nats better on training spans than on held-out ones has moved its angles by about
    sqrt(2 g) times the label's noise (to second order of the likelihood in the angle); the change must hide that.

    Args:
        least: The change where nothing was memorised, half ranges.
        label_noise: Standard deviation of the position label that a level amounts to, half ranges.
        training: Regime loss of frames and joints, float64 [N, J], nats; not a number without a label.
        held_out: The same of held-out frames.
    """
    memorised = max(0.0, float(np.nanmean(held_out) - np.nanmean(training)))
    return math.sqrt(least**2 + HIDING * 2.0 * memorised * label_noise**2)


def _with_floor(on_epoch: Callable[[Epoch, float], None], floor: float, entry: Epoch) -> None:
    on_epoch(entry, floor)


def _start_from(net: GlimpseNet, init: Path) -> None:
    """Take over the second network's weights of a refined checkpoint."""
    content = load_checkpoint(find_checkpoint(init))
    if content["architecture"]["kind"] == "cascade":
        net.load_state_dict(part(content["best"], "look"))


def _aim(
    frames: FrameSet,
    pixels: PixelSource,
    robot: Robot,
    guess: NDArray[np.float64],
    training: NDArray[np.int64],
    seed: int,
) -> Aim:
    """Find the camera on training frames, and look where it says."""
    kinematics = Kinematics.of(robot)
    evenly = np.unique(training[np.linspace(0, len(training) - 1, FRAMES).astype(np.int64)])
    (width, height), region = frames.camera_size, frames.region
    centre = (0.5 * (width - 1) - region.left, 0.5 * (height - 1) - region.top)
    camera = find_camera(kinematics, guess[evenly], pixels.read(evenly), width=width, centre=centre, seed=seed)
    return Aim.at(kinematics, camera)


class _Stage:
    """The training of the second network.

    Args:
        net: The network; afterwards it holds the averaged weights of the best epoch, on the CPU.
        loss_of: The task.
        glimpses: What it sees.
        split: The frames' uses and labels.
        config: Settings.
        seed: Source of the order of frames, of guesses and of the augmentation.
        jitter: Standard deviation of the change of guesses, half ranges.
        rate: Peak of the learning rate.
        device: Where it is trained; glimpses are cut on the CPU.
        bfloat16: Whether products are taken in bfloat16.
    """

    def __init__(
        self,
        net: GlimpseNet,
        loss_of: Task,
        glimpses: _Glimpses,
        split: Split,
        config: RefineConfig,
        seed: int,
        *,
        jitter: float,
        rate: float,
        device: torch.device,
        bfloat16: bool,
    ) -> None:
        torch.manual_seed(seed)
        self.net, self.loss_of, self.glimpses, self.split = net, loss_of, glimpses, split
        self.config, self.seed, self.jitter, self.rate = config, seed, jitter, rate
        self.device, self.bfloat16 = device, bfloat16
        net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        loss_of.to(device)
        self.average = copy.deepcopy(net).requires_grad_(False)
        trained = [p for p in (*net.parameters(), *loss_of.parameters()) if p.requires_grad]
        self.optimiser = torch.optim.AdamW(
            [
                {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
                {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=rate,
        )
        self.steps = max(1, len(split.train) // config.batch_size)
        self.done = 0

    def fit(self, on_step: Progress | None, on_epoch: Callable[[Epoch], None] | None) -> list[Epoch]:
        """Train to the last epoch, and keep the best one."""
        history: list[Epoch] = []
        best: dict[str, Tensor] = {}
        for number in range(self.config.epochs):
            began = time.monotonic()
            loss = self._epoch(number, on_step)
            entry = Epoch(number + 1, loss, self._held_out(), time.monotonic() - began, "refinement")
            if not history or entry.validation_loss < min(earlier.validation_loss for earlier in history):
                best = copy.deepcopy(self.average.state_dict())
            history.append(entry)
            if on_epoch is not None:
                on_epoch(entry)
        self.net.load_state_dict(best)
        self.net.cpu().eval()
        return history

    def _epoch(self, number: int, on_step: Progress | None) -> float:
        """One pass over the training frames; the mean loss."""
        config, total = self.config, 0.0
        order = np.random.default_rng([self.seed, number]).permutation(self.split.train)
        chosen = [np.sort(order[i * config.batch_size : (i + 1) * config.batch_size]) for i in range(self.steps)]
        self.net.train()
        for position, (batch, guess) in enumerate(self._batches(chosen, number)):
            for group in self.optimiser.param_groups:
                group["lr"] = self.rate * one_cycle(self.done / (self.steps * config.epochs))
            loss = self._loss(self.net, batch, guess)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            self.optimiser.step()
            self.done += 1
            follow(self.average, self.net, min(config.ema_decay, (1 + self.done) / (10 + self.done)))
            value = loss.item()
            if not math.isfinite(value):
                raise TrainingError(f"the loss of the refinement became {value}: lower its learning rate")
            total += value
            if on_step is not None:
                on_step(self.done, self.steps * config.epochs, total / (position + 1))
        return total / self.steps

    def _loss(self, net: GlimpseNet, batch: Batch, guess: Tensor) -> Tensor:
        def look(glimpses: Tensor) -> Prediction:
            found: Prediction = net(glimpses, guess)
            return Prediction(found.angle.float(), found.log_std.float(), found.features)

        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            loss, _ = self.loss_of(look, batch)
        return cast(Tensor, loss)

    def _batches(self, chosen: list[NDArray[np.int64]], epoch: int) -> Iterator[tuple[Batch, Tensor]]:
        """Augmented glimpses with the guesses that they were aimed by, one batch made ahead by a thread."""
        config = self.config
        augmentation = Augmentation(shift=0, light=config.light, noise=config.noise, occlusion=config.occlusion)

        def make(number: int) -> tuple[Batch, Tensor]:
            rng = np.random.default_rng([self.seed, epoch, number])
            guess = self.glimpses.guess[chosen[number]]
            guess = guess + rng.normal(0.0, self.jitter, guess.shape)
            return self._batch(chosen[number], guess, augmentation(self.glimpses.take(chosen[number], guess), rng))

        with ThreadPoolExecutor(1) as pool:
            following = pool.submit(make, 0)
            for number in range(len(chosen)):
                made = following.result()
                if number + 1 < len(chosen):
                    following = pool.submit(make, number + 1)
                yield made

    def _batch(self, chosen: NDArray[np.int64], guess: NDArray[np.float64], pictures: Tensor) -> tuple[Batch, Tensor]:
        labels = torch.from_numpy(self.split.labels[chosen].astype(np.int64))
        glimpses = pictures.view(len(chosen), -1, 3, SIDE, SIDE)
        index, guesses = torch.from_numpy(chosen), torch.from_numpy(guess).float()
        moved, labels, index = (part.to(self.device) for part in (glimpses, labels, index))
        return Batch(moved, None, None, labels, index), guesses.to(self.device)

    @torch.no_grad()
    def held_out_of(self, angle: NDArray[np.float64], log_std: NDArray[np.float64]) -> float:
        """The loss on validation spans of what the first network says of them, float64 [n, J] each."""
        self.loss_of.eval()
        total = 0.0
        for start in range(0, len(angle), _CHUNK):
            part = slice(start, start + _CHUNK)
            chosen = self.split.validation[part]
            said = [torch.from_numpy(values[part]).float().to(self.device) for values in (angle, log_std)]
            prediction = Prediction(said[0], said[1], said[0][:, :0])
            labels, index = (
                torch.from_numpy(values).to(self.device)
                for values in (self.split.labels[chosen].astype(np.int64), chosen)
            )
            loss, _ = self.loss_of(lambda _, said=prediction: said, Batch(said[0], None, None, labels, index))
            total += float(loss) * len(chosen)
        self.loss_of.train()
        return total / len(angle)

    @torch.no_grad()
    def _held_out(self) -> float:
        """Loss of the averaged weights on validation spans, without augmentation and with the guesses as they are."""
        self.average.eval()
        self.loss_of.eval()
        total = 0.0
        for start in range(0, len(self.split.validation), _CHUNK):
            chosen = self.split.validation[start : start + _CHUNK]
            guess = self.glimpses.guess[chosen]
            batch, guesses = self._batch(chosen, guess, to_input(self.glimpses.take(chosen, guess)))
            total += float(self._loss(self.average, batch, guesses)) * len(chosen)
        self.loss_of.train()
        return total / len(self.split.validation)

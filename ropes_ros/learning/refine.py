"""The second stage of training: find the camera, look closer at the arm, correct the first network's angles.

    first = train(frames, out_dir / "first", config=config)
    result = refine(frames, first.checkpoint, out_dir)

Needs the robot's kinematics and the recording's pixels, no labels beyond those of the first stage. The second network
is given guesses off the first one's angles by a known random amount, so that it learns to look where the arm is rather
than to repeat the guess. It is kept only if the regime loss on held-out spans falls.
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

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ropes_ros.dataset import FrameSet, PixelSource, Split
from ropes_ros.errors import TrainingError
from ropes_ros.learning.augmentation import Augmentation, to_input
from ropes_ros.learning.calibrate import calibrate, predict
from ropes_ros.learning.camera import FRAMES, find_camera
from ropes_ros.learning.checkpoint import CHECKPOINT_FILE, load_checkpoint, load_net, save_checkpoint
from ropes_ros.learning.glimpse import MARGIN, SIDE, Aim, CascadeNet, GlimpseNet, bounded, cut
from ropes_ros.learning.kinematics import Kinematics
from ropes_ros.learning.mechanism import MechanismLikelihood
from ropes_ros.learning.networks import Prediction
from ropes_ros.learning.tasks import Batch, make_task
from ropes_ros.learning.train import (
    Epoch,
    Progress,
    TaskFactory,
    TrainConfig,
    TrainResult,
    level_shares,
    prepare,
)
from ropes_ros.learning.train import _follow as follow
from ropes_ros.learning.train import _one_cycle as one_cycle
from ropes_ros.robot import Robot

_CUTTING = int(SIDE * MARGIN)
_CHUNK = 256


@dataclass(frozen=True)
class RefineConfig:
    """Settings of the second stage.

    Attributes:
        epochs: Passes over the training frames.
        batch_size: Frames a step.
        learning_rate: Peak of the one-cycle schedule (AdamW).
        weight_decay: Decoupled weight decay.
        ema_decay: Decay of the moving average of weights that is validated and exported.
        jitter: Standard deviation of the random change of guesses, half ranges.
        light, noise, occlusion: See `Augmentation`.
    """

    epochs: int = 6
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    ema_decay: float = 0.998
    jitter: float = 0.12
    light: float = 0.25
    noise: float = 0.03
    occlusion: float = 0.25


class _Glimpses:
    """Training's glimpses: cut once around the first network's guesses, with a margin; then moved with each guess.

    Args:
        pixels: The region's pixels.
        aim: Where to look.
        guess: Normalised angles of all frames, float64 [N, J].
        indices: Frames that will be asked for, int64 [n], increasing.
        folder: Where the cuttings are kept.
    """

    def __init__(
        self, pixels: PixelSource, aim: Aim, guess: NDArray[np.float64], indices: NDArray[np.int64], folder: Path
    ) -> None:
        self.aim, self.guess = aim, guess
        self.spacing = float(aim.spacing)
        self.row = np.full(len(guess), -1)
        self.row[indices] = np.arange(len(indices))
        self.centres = self._aimed(guess)
        shape = (len(indices), len(aim.weights), _CUTTING, _CUTTING, 3)
        self.cuttings = np.lib.format.open_memmap(folder / "cuttings.npy", mode="w+", dtype=np.uint8, shape=shape)
        for start in range(0, len(indices), _CHUNK):
            chosen = indices[start : start + _CHUNK]
            for frame, picture in zip(chosen, pixels.read(chosen), strict=True):
                for number, centre in enumerate(self.centres[frame]):
                    cut(picture, centre, self.spacing, _CUTTING, self.cuttings[self.row[frame], number])

    def take(self, indices: NDArray[np.int64], guess: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Glimpses uint8 [n * M, SIDE, SIDE, 3] of frames [n], aimed by guesses float64 [n, J]."""
        offset = (self._aimed(guess) - self.centres[indices]) / self.spacing + 0.5 * (_CUTTING - 1)
        taken = np.empty((*offset.shape[:2], SIDE, SIDE, 3), dtype=np.uint8)
        for position, frame in enumerate(indices):
            for number in range(offset.shape[1]):
                cutting = self.cuttings[self.row[frame], number]
                cut(cutting, offset[position, number], 1.0, SIDE, taken[position, number])
        return taken.reshape(-1, SIDE, SIDE, 3)

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
    on_step: Progress | None = None,
    on_epoch: Callable[[Epoch, float], None] | None = None,
) -> TrainResult:
    """Train the second look on top of a trained first network.

    Args:
        frames: The frames that the first network was trained on, with their `details`.
        checkpoint: Of the first network.
        out_dir: Folder for the `checkpoint.pt` of both together.
        robot: The robot that was recorded.
        config: Settings; the default ones when None.
        task: Makes the task in place of the likelihood of levels, as for `train`.
        on_step: Progress callback.
        on_epoch: Called after each epoch with the log entry and the Bayes floor.

    Raises:
        TrainingError: The frames' pixels are not there, or the checkpoint cannot be read.
    """
    config = config or RefineConfig()
    if frames.details is None:
        raise TrainingError("the refinement needs the camera's pixels, and these frames come without them")
    started = time.monotonic()
    torch.set_flush_denormal(True)
    content = load_checkpoint(checkpoint)
    base = load_net(content)
    first = TrainConfig(**content["config"])
    split, seed = prepare(frames, first).split, first.seed
    objective = MechanismLikelihood(
        frames.log_density, level_shares(split.labels[split.train], len(frames.level_ids))
    )
    everything = np.sort(np.concatenate([split.train, split.validation]))
    guess = np.zeros((len(frames), len(frames.joint_names)))
    guess[everything] = bounded(torch.from_numpy(predict(base, frames, everything).angle)).numpy()
    aim = _aim(frames, frames.details, robot, guess, split.train, seed)
    out_dir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="glimpses-", dir=out_dir))
    try:
        glimpses = _Glimpses(frames.details, aim, guess, everything, folder)
        cascade = CascadeNet.of(base, aim)
        history = _fit(cascade.look, glimpses, frames, split, objective, config, task, seed, on_step, on_epoch)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    best = min(history, key=lambda entry: entry.validation_loss)
    net: nn.Module = cascade
    if task is None and best.validation_loss > float(content["progress"][2]):
        net = base
    calibration = calibrate(net, frames, split, objective)
    earlier = [Epoch(**entry) for entry in content["history"]]
    save_checkpoint(
        out_dir / CHECKPOINT_FILE,
        {
            **{key: content[key] for key in ("config", "bag_hash", "schedule_hash", "init", "findings")},
            "refinement": asdict(config),
            "refined": net is cascade,
            "architecture": net.architecture(),
            "frames": frames.description(),
            "best": net.state_dict(),
            "progress": content["progress"] if net is base else [0, 0, best.validation_loss, best.epoch],
            "history": [asdict(entry) for entry in (*earlier, *history)],
            "calibration": calibration.to_dict(),
        },
    )
    return TrainResult(
        out_dir / CHECKPOINT_FILE,
        [*earlier, *history],
        float(objective.floor.mean()),
        best.epoch,
        calibration,
        time.monotonic() - started,
        len(split.train),
    )


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


def _fit(
    net: GlimpseNet,
    glimpses: _Glimpses,
    frames: FrameSet,
    split: Split,
    objective: MechanismLikelihood,
    config: RefineConfig,
    task: TaskFactory | None,
    seed: int,
    on_step: Progress | None,
    on_epoch: Callable[[Epoch, float], None] | None,
) -> list[Epoch]:
    """Train the second network; afterwards it holds the averaged weights of the best epoch."""
    torch.manual_seed(seed)
    for parameter in net.parameters():
        parameter.requires_grad_(True)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(net).requires_grad_(False)
    shares = level_shares(split.labels[split.train], len(frames.level_ids))
    make: TaskFactory = task or partial(make_task, "mechanism")
    loss_of = make(frames, shares, net)
    trained = [*net.parameters(), *(p for p in loss_of.parameters() if p.requires_grad)]
    optimiser = torch.optim.AdamW(
        [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
    )
    steps = max(1, len(split.train) // config.batch_size)
    history: list[Epoch] = []
    best: dict[str, Tensor] = {}
    done = 0
    for epoch in range(config.epochs):
        began, total = time.monotonic(), 0.0
        net.train()
        for batch, guess in _batches(glimpses, split, config, seed, epoch, steps):
            for group in optimiser.param_groups:
                group["lr"] = config.learning_rate * one_cycle(done / (steps * config.epochs))
            loss, _ = loss_of(lambda pictures, guess=guess: net(pictures, guess), batch)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            done += 1
            follow(average, net, min(config.ema_decay, (1 + done) / (10 + done)))
            value = loss.item()
            if not math.isfinite(value):
                raise TrainingError(f"the loss of the refinement became {value}: lower its learning rate")
            total += value
            if on_step is not None:
                on_step(done, steps * config.epochs, total / (done - epoch * steps))
        held_out = _held_out(average, glimpses, split, objective)
        entry = Epoch(epoch + 1, total / steps, held_out, time.monotonic() - began, "refinement")
        if not history or held_out < min(earlier.validation_loss for earlier in history):
            best = copy.deepcopy(average.state_dict())
        history.append(entry)
        if on_epoch is not None:
            on_epoch(entry, float(objective.floor.mean()))
    net.load_state_dict(best)
    net.eval()
    return history


def _batches(
    glimpses: _Glimpses, split: Split, config: RefineConfig, seed: int, epoch: int, steps: int
) -> Iterator[tuple[Batch, Tensor]]:
    """Batches of augmented glimpses with the guesses they were aimed by, one made ahead by a thread."""
    augmentation = Augmentation(shift=0, light=config.light, noise=config.noise, occlusion=config.occlusion)
    order = np.random.default_rng([seed, epoch]).permutation(split.train)

    def make(number: int) -> tuple[Batch, Tensor]:
        rng = np.random.default_rng([seed, epoch, number])
        chosen = np.sort(order[number * config.batch_size : (number + 1) * config.batch_size])
        guess = glimpses.guess[chosen] + rng.normal(0.0, config.jitter, (len(chosen), glimpses.guess.shape[1]))
        pictures = augmentation(glimpses.take(chosen, guess), rng).unflatten(0, (len(chosen), -1))
        labels = torch.from_numpy(split.labels[chosen].astype(np.int64))
        return Batch(pictures, None, None, labels, torch.from_numpy(chosen)), torch.from_numpy(guess).float()

    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(make, 0)
        for number in range(steps):
            made = following.result()
            if number + 1 < steps:
                following = pool.submit(make, number + 1)
            yield made


@torch.no_grad()
def _held_out(net: GlimpseNet, glimpses: _Glimpses, split: Split, objective: MechanismLikelihood) -> float:
    """Regime loss on validation spans in nats, each joint weighing the same."""
    net.eval()
    total = torch.zeros(net.joints, dtype=torch.float64)
    count = torch.zeros(net.joints, dtype=torch.float64)
    for start in range(0, len(split.validation), _CHUNK):
        chosen = split.validation[start : start + _CHUNK]
        guess = glimpses.guess[chosen]
        pictures = to_input(glimpses.take(chosen, guess)).unflatten(0, (len(chosen), -1))
        found: Prediction = net(pictures, torch.from_numpy(guess).float())
        labels = torch.from_numpy(split.labels[chosen].astype(np.int64))
        total -= objective.log_likelihood(found.angle, found.log_std, labels).sum(dim=0)
        count += (labels >= 0).sum(dim=0)
    return float((total / count)[count > 0].mean())

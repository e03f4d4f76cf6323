"""The methods of the table: how each is trained on a cell's recording, and what it then says of camera pictures."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ropes_ros.bench.cells import BUDGETS, Budget, Cell
from ropes_ros.bench.published import measure_published
from ropes_ros.bench.recordings import shrunk
from ropes_ros.bench.watch import Watch
from ropes_ros.dataset import FrameSet
from ropes_ros.encoder import Encoder, load_encoder
from ropes_ros.evaluation import estimate_images
from ropes_ros.export import export
from ropes_ros.learning.baselines import BASELINES, Fitted
from ropes_ros.learning.baselines.supervised import PositionTask
from ropes_ros.learning.ensemble import distil_task, train_members
from ropes_ros.learning.refine import RefineConfig, refine
from ropes_ros.learning.ropes import RopesConfig, train_ropes
from ropes_ros.learning.scm import check_identifiability
from ropes_ros.learning.train import TaskFactory, TrainConfig, TrainResult, train
from ropes_ros.learning.validation import prepare
from ropes_ros.sim.recordings import Recording

ROPES_SIZE = (64, 64)
"""Images of the published method, pixels."""
ROPES_FRAMES = 500
"""Most frames of each regime of the published method, whose cost grows with them: with its own numbers of epochs it
then takes more than twice the time of ours on 20,000 frames."""
MEMBERS = 4
CHECKPOINT = "checkpoint.pt"
_BATCH = 64

OURS, LABEL_FREE, COMMANDS, LABELS, CHECK = "ours", "label-free", "commands", "labels", "check"
"""Roles: our methods, what they compete with, what sees commands, what sees true positions, and mere measurements."""


class Reading(NamedTuple):
    """What a method says of N pictures.

    Attributes:
        position: Joint angles, float64 [N, J], rad.
        std: Their standard deviation, float64 [N, J], rad; None where the method has none.
        latents: What it makes of a picture before any label reads it, float64 [N, D].
    """

    position: NDArray[np.float64]
    std: NDArray[np.float64] | None
    latents: NDArray[np.float64]


Read = Callable[[Iterable[NDArray[np.uint8]]], Reading]
"""Camera pictures, each uint8 [H, W, 3], to what a method says of them."""


@dataclass(frozen=True)
class Job:
    """A cell being worked on.

    Attributes:
        cell: The cell.
        recording: What it learns from.
        folder: For checkpoints that are not kept.
        models: Folder of all finished cells' models; this cell's is `models / cell.name`.
    """

    cell: Cell
    recording: Recording
    folder: Path
    models: Path

    @property
    def budget(self) -> Budget:
        """The cell's budget."""
        return BUDGETS[self.cell.budget]

    @property
    def config(self) -> TrainConfig:
        """The first network's settings."""
        cell, budget = self.cell, self.budget
        return TrainConfig(
            image_size=budget.image_size,
            epochs=budget.passes(budget.epochs, len(self.recording.frames)),
            span_s=budget.span_s,
            seed=cell.seed,
            task=cell.task,
            constraint=cell.constraint,
            pretrain=cell.pretrain,
            pretrain_epochs=min(TrainConfig.pretrain_epochs, budget.most_epochs),
            backbone=cell.backbone,
        )


class Trained(NamedTuple):
    """A method after its training.

    Attributes:
        read: What it says of pictures; None where there is no network, but figures.
        encoder: The exported model, where there is one.
        facts: Of training, plain values: seconds, losses, notes.
        figures: Results by test, of methods that are no networks.
    """

    read: Read | None
    encoder: Encoder | None
    facts: dict[str, Any]
    figures: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Method:
    """An entry of `METHODS`.

    Attributes:
        role: One of the roles above.
        supervision: What it is told, in plain words.
        train: Trains it; None where it needs no recording and `figures` says all.
        figures: Measures a cell that learns nothing.
        size: (width, height) of the images in pixels; the budget's when None.
        known_order: Whether latent j is joint j; else latents are matched with joints by assignment.
    """

    role: str
    supervision: str
    train: Callable[[Job], Trained] | None
    figures: Callable[[Cell], dict[str, Any]] | None = None
    size: tuple[int, int] | None = None
    known_order: bool = True


def encoder_reader(encoder: Encoder) -> Read:
    """Read pictures with an exported model."""

    def read(pictures: Iterable[NDArray[np.uint8]]) -> Reading:
        found = estimate_images(encoder, pictures)
        return Reading(found.position, found.std, found.position)

    return read


def load_kept(folder: Path) -> Encoder:
    """A finished cell's model."""
    return load_encoder(folder, threads=1)


def _fitted_reader(fitted: Fitted, recording: Recording) -> Read:
    """Read pictures with a baseline, which takes them cut and resized as its recording's are."""
    region, robot = recording.frames.region, recording.robot
    height, width = recording.frames.images.shape[1:3]

    def read(pictures: Iterable[NDArray[np.uint8]]) -> Reading:
        parts = [fitted.predict(np.stack(batch)) for batch in _batched(map(small, pictures))]
        u, latents = (np.concatenate([getattr(part, name) for part in parts]) for name in ("u", "latents"))
        spreads = [part.std for part in parts if part.std is not None]
        std = np.concatenate(spreads) * robot.half_range if spreads else None
        return Reading(robot.denormalise(u), std, latents)

    def small(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return shrunk(region.cut(picture), (width, height))

    return read


def _batched(pictures: Iterator[NDArray[np.uint8]]) -> Iterator[list[NDArray[np.uint8]]]:
    while batch := list(islice(pictures, _BATCH)):
        yield batch


def _finished(job: Job, first: TrainResult, last: TrainResult, seconds: float, facts: dict[str, Any]) -> Trained:
    """Export the last stage's checkpoint and keep it with the first one's, from which others may start."""
    kept = job.models / job.cell.name
    export(last.checkpoint, kept)
    shutil.copy(last.checkpoint, kept / CHECKPOINT)
    (kept / "first").mkdir(exist_ok=True)
    shutil.copy(first.checkpoint, kept / "first" / CHECKPOINT)
    encoder = load_kept(kept)
    return Trained(encoder_reader(encoder), encoder, {**_losses(last), "seconds": seconds, **facts}, {})


def _losses(result: TrainResult) -> dict[str, Any]:
    """What a training says of itself."""
    return {
        "held_out_loss": result.calibration.loss,
        "floor": result.floor,
        "frames_trained": result.frames,
        "epochs": len(result.history),
    }


def _first(job: Job, task: TaskFactory | None, watch: Watch | None) -> tuple[TrainResult, float]:
    """The first network, continued where an earlier attempt was interrupted; and its seconds, pauses left out."""
    init = job.models / job.cell.start / "first" if job.cell.start else None
    result = train(
        job.recording.frames,
        job.folder / "first",
        config=job.config,
        task=task,
        init=init,
        resume=True,
        on_epoch=watch,
    )
    return result, sum(epoch.seconds for epoch in result.history)


def _train_first(job: Job) -> Trained:
    watch = Watch(job.recording, job.folder / "first" / CHECKPOINT, job.budget.watched)
    result, seconds = _first(job, None, watch if job.cell.task == "mechanism" else None)
    return _finished(job, result, result, seconds, watch.facts)


def _train_both(job: Job, *, supervised: bool) -> Trained:
    """First network and refinement, by levels or by true positions."""
    task = _position_task(job.recording) if supervised else None
    watch = Watch(job.recording, job.folder / "first" / CHECKPOINT, job.budget.watched)
    first, seconds = _first(job, task, watch)
    last, more = _refined(job, first, task)
    return _finished(job, first, last, seconds + more, watch.facts)


def _refined(job: Job, first: TrainResult, task: TaskFactory | None) -> tuple[TrainResult, float]:
    """The second stage, and its seconds."""
    frames, budget = job.recording.frames, job.budget
    started = time.monotonic()
    last = refine(
        frames,
        first.checkpoint,
        job.folder / "second",
        robot=job.recording.robot,
        config=RefineConfig(epochs=budget.passes(budget.refine_epochs, len(frames))),
        task=task,
    )
    return last, time.monotonic() - started


def _position_task(recording: Recording) -> TaskFactory:
    u = recording.robot.normalise(recording.positions)
    return lambda _frames, _shares, _net: PositionTask(u, gaussian=True)


def _train_ensemble(job: Job) -> Trained:
    """Networks of different spans, one first network taught by all of them, and its refinement."""
    frames, config = job.recording.frames, job.config
    started = time.monotonic()

    def train_one(given: FrameSet, folder: Path) -> Path:
        return train(given, folder, config=config, resume=True).checkpoint

    split = prepare(frames, span_s=config.span_s, seed=config.seed).split
    members = train_members(
        frames, split, job.folder, train_one, count=MEMBERS, span_s=config.span_s, seed=config.seed
    )
    student, _ = _first(job, distil_task(members, frames), None)
    last, _ = _refined(job, student, None)
    return _finished(job, student, last, time.monotonic() - started, {})


def _train_baseline(job: Job, *, name: str) -> Trained:
    started = time.monotonic()
    fitted = BASELINES[name].fit(job.recording, seed=job.cell.seed, config=job.config, out_dir=job.folder)
    facts: dict[str, Any] = {"seconds": time.monotonic() - started, "epochs": job.config.epochs}
    supervision = getattr(fitted, "supervision", None)
    if supervision is not None:
        report = supervision.report()
        facts |= {"lag_s": float(np.mean(report.lag_s)), "unexecuted": report.unexecuted}
    return Trained(_fitted_reader(fitted, job.recording), None, facts, {})


def _ropes_config(job: Job) -> RopesConfig:
    autoencoder, classifier, latent = job.budget.ropes
    return RopesConfig(
        image_size=ROPES_SIZE,
        frames_per_regime=ROPES_FRAMES,
        precision="auto",
        autoencoder_epochs=autoencoder,
        classifier_epochs=classifier,
        latent_epochs=latent,
        span_s=job.budget.span_s,
        seed=job.cell.seed,
    )


def _train_ropes(job: Job, *, permutation: str) -> Trained:
    result = train_ropes(job.recording.frames, job.folder, config=replace(_ropes_config(job), permutation=permutation))
    return _finished(job, result, result, result.seconds, {"notes": result.notes})


def _time_published(job: Job) -> Trained:
    return Trained(None, None, {}, {"time": measure_published(job.recording.frames, job.folder, job.budget.timed)})


def _recover(cell: Cell) -> dict[str, Any]:
    """Latents and graph of random causal models with exact scores; the design names model and mixing."""
    model, mixing = cell.design.split("/")
    found = check_identifiability(seed=cell.seed, mixing=mixing, model=model, steps=BUDGETS[cell.budget].oracle_steps)
    return {name: found[name] for name in ("error", "correlation", "shd", "edges", "seconds")}


_LEVELS = "the commanded level of every joint"

METHODS: dict[str, Method] = {
    "ours": Method(OURS, _LEVELS, partial(_train_both, supervised=False)),
    "first network": Method(OURS, _LEVELS, _train_first),
    "distilled ensemble": Method(OURS, _LEVELS, _train_ensemble),
    "supervised bound": Method(
        LABELS, "the true position of every training frame", partial(_train_both, supervised=True)
    ),
    "ROPES": Method(
        LABEL_FREE,
        "two interventions on every joint, and which joint each is on",
        partial(_train_ropes, permutation="commands"),
        size=ROPES_SIZE,
    ),
    "ROPES, permutation found": Method(
        LABEL_FREE,
        "two interventions on every joint",
        partial(_train_ropes, permutation="found"),
        size=ROPES_SIZE,
    ),
    "published recipe, timed": Method(CHECK, "none: only its speed is measured", _time_published, size=ROPES_SIZE),
    "exact scores": Method(CHECK, "exact score differences", None, _recover),
}
for _name, _baseline in BASELINES.items():
    _role = COMMANDS if "command" in _name else LABELS if "labels" in _name else LABEL_FREE
    METHODS[_name] = Method(
        _role, _baseline.supervision, partial(_train_baseline, name=_name), known_order=_role != LABEL_FREE
    )

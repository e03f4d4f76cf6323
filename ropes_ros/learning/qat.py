"""Fine-tuning of a trained encoder so that its integer weights serve several precisions at once.

    result = quantise(frames, checkpoint, out_dir)
    export_quantised(result.checkpoint, model_dir)

The loss is summed over precisions with weights (Nair et al., Matryoshka Quantization, arXiv 2502.06786, sec. 3.2). In
each it is the likelihood of the commanded levels, plus the divergence from what the float encoder says of the same
picture, a normal distribution a joint, plus that from what the highest precision says (co-distillation, the same).
Unlike there, the lowest precision is trained alone first: see `QuantiseConfig.settled`.
Convolutions are integers of 8 bits in every precision, and stay as they are: so each frame is looked at once, and what
is trained are the linear layers behind them. No measured angle is read: not here, not in the choice of the check that
is kept, not in calibration.
"""

from __future__ import annotations

import copy
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ropes_ros.dataset import FrameSet, Split
from ropes_ros.errors import TrainingError
from ropes_ros.learning.augmentation import Augmentation, to_input
from ropes_ros.learning.calibrate import predict
from ropes_ros.learning.checkpoint import load_checkpoint, load_net
from ropes_ros.learning.glimpse import SIDE, bounded, cut
from ropes_ros.learning.mechanism import MechanismLikelihood, level_shares
from ropes_ros.learning.networks import Prediction
from ropes_ros.learning.optimisation import follow, one_cycle
from ropes_ros.learning.quantised_checkpoint import QUANTISED_FILE, assert_trained_on, precision_name, save_quantised
from ropes_ros.learning.quantize import LEAST, ActivationRange, Precision, QuantisedConv2d, QuantisedNet, parts_of
from ropes_ros.learning.validation import prepare
from ropes_ros.nested import WIDTHS

RANGE_FRAMES = 2048
"""Training frames, augmented, whose activations set the ranges of integers."""
HELD_OUT_FRAMES = 2000
"""Validation frames on which checks are compared."""
_CHUNK = 200
@dataclass(frozen=True)
class QuantiseConfig:
    """Settings of the fine-tuning.

    Attributes:
        frames: Training frames at most, evenly spread, each augmented once.
        steps: Steps of the optimiser.
        settled: Share of them, before all precisions are trained together, that the lowest one has for itself. Its
            weights are then taken as they were rounded, so that each lies in the middle of what is rounded to it, and
            what the others learn hardly moves it.
        gentle: Share of the learning rate that the steps after these have.
        batch_size: Frames a step.
        learning_rate: Peak of the one-cycle schedule (AdamW).
        ema_decay: Decay of the moving average of weights that is judged and kept.
        widths: Weight of each number of bits in the loss; one alone is plain quantisation-aware training.
        distil: Weight of the divergence from the float encoder.
        codistil: Weight of the divergence from the highest of the precisions.
        extra: Slices have the value that clamping takes from them, see `ropes_ros.nested`.
        least: Bits that the first and last layers, and convolutions, have at least, see `quantize.LEAST`. Convolutions
            of fewer than 8 are rounded, but not trained.
        jitter: Standard deviation of the change of guesses that the second look is trained with, half ranges.
        light, noise, occlusion: See `Augmentation`.
        checks: How often on the way the held-out loss is looked at.
        seed: Source of the order of frames and of the augmentation.
    """

    frames: int = 24_000
    steps: int = 500
    settled: float = 0.6
    gentle: float = 0.1
    batch_size: int = 256
    learning_rate: float = 2e-3
    ema_decay: float = 0.99
    widths: Mapping[int, float] = field(default_factory=lambda: {8: 4.0, 4: 1.0, 2: 1.0})
    distil: float = 1.0
    codistil: float = 1.0
    extra: bool = False
    least: Mapping[str, int] = field(default_factory=lambda: dict(LEAST))
    jitter: float = 0.06
    light: float = 0.25
    noise: float = 0.03
    occlusion: float = 0.25
    checks: int = 5
    seed: int = 0

    @property
    def bits(self) -> tuple[int, ...]:
        """Numbers of bits that are trained, the highest first."""
        return tuple(sorted(self.widths, reverse=True))


class Quantised(NamedTuple):
    """What `quantise` gives.

    Attributes:
        checkpoint: The file, for `export`.
        held_out: Loss on validation spans by precision, of the weights that were kept; nats and divergences.
        history: The sum of these at every check, the start included.
        seconds: Wall time.
    """

    checkpoint: Path
    held_out: dict[str, float]
    history: list[float]
    seconds: float


def quantise(
    frames: FrameSet,
    checkpoint: Path,
    out_dir: Path,
    *,
    config: QuantiseConfig | None = None,
    plans: Callable[[QuantisedNet, Lesson], Mapping[str, Mapping[str, int]]] | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
    on_phase: Callable[[str], None] | None = None,
) -> Quantised:
    """Fine-tune a trained checkpoint for integer weights, and calibrate every precision.

    Args:
        frames: The frames that it was trained on, with their `details` if its network sees them.
        checkpoint: The float encoder's.
        out_dir: Folder for `QUANTISED_FILE`.
        config: Settings; the default ones when None.
        plans: Names further precisions, by layer, of the network that was fine-tuned; see `learning.mixing`.
        on_step: Called after every step with (steps done, steps in all, loss).
        on_phase: Called with what is done next, where that takes long and no step is told.

    Raises:
        TrainingError: The checkpoint is unreadable, unfinished or quantised already, or the frames do not fit.
    """
    config, started = config or QuantiseConfig(), time.monotonic()
    if not set(config.widths) <= set(WIDTHS) or not config.widths:
        raise TrainingError(f"weights of {sorted(config.widths)} bits were asked for: take some of {WIDTHS}")
    if set(config.least) != set(LEAST) or not set(config.least.values()) <= set(WIDTHS):
        raise TrainingError(f"least bits of {dict(config.least)} were asked for: take one of {WIDTHS} for {[*LEAST]}")
    content = load_checkpoint(checkpoint)
    if content["calibration"] is None or content["architecture"]["kind"] == "quantised":
        raise TrainingError(f"{checkpoint}: is unfinished, or quantised already; name the one that `ropes train` wrote")
    teacher: Any = load_net(content).requires_grad_(False)
    if getattr(teacher, "sees_region", False) and frames.details is None:
        raise TrainingError("a refined network needs the camera's pixels, and these frames come without them")
    assert_trained_on(content, frames)
    split = prepare(frames, span_s=content["config"]["span_s"], seed=content["config"]["seed"]).split
    if on_phase is not None:
        on_phase("looking at the frames once, with convolutions in integers")
    lesson = prepare_lesson(teacher, frames, split, config)
    tuned = fine_tune(lesson, config, on_step)
    net, judge = tuned.net, lesson.judge
    held_out = {precision_name(bits): judge(net, bits) for bits in config.bits}
    precisions: dict[str, Precision] = {precision_name(bits): bits for bits in config.bits}
    if plans is not None:
        if on_phase is not None:
            on_phase("choosing each layer's precision on validation spans")
        precisions |= plans(net, lesson)
    if on_phase is not None:
        on_phase("calibrating every precision on spans kept out of training")
    out_dir.mkdir(parents=True, exist_ok=True)
    path = out_dir / QUANTISED_FILE
    save_quantised(path, content, net, frames, split, precisions, {**_plain(config), "held_out": held_out})
    return Quantised(path, held_out, tuned.history, time.monotonic() - started)


def _plain(config: QuantiseConfig) -> dict[str, Any]:
    return {**asdict(config), "widths": dict(config.widths), "least": dict(config.least)}


def divergence(wanted: Prediction, found: Prediction) -> Tensor:
    """Of the normal distributions that one prediction states from those of another, nats, mean over frames and joints.

    KL(wanted || found). Its gradient is that of `found` alone.
    """
    gap = (wanted.angle.detach().float() - found.angle.float()).square()
    ours, theirs = found.log_std.float(), wanted.log_std.detach().float()
    return (ours - theirs + 0.5 * ((2.0 * theirs).exp() + gap) * (-2.0 * ours).exp() - 0.5).mean()


class _Seen(NamedTuple):
    """What the networks of a cascade see of N frames, and what they are taught there.

    Attributes:
        maps: Of each network's convolutions, float16 [N, ...], by the convolutions' bits.
        guess: What each network corrects, float [N, J]; None for the first.
        taught: What the float encoder's network says of the same pictures.
        labels: Levels, int64 [N, J].
    """

    maps: dict[tuple[int, ...], tuple[Tensor, ...]]
    guess: tuple[Tensor | None, ...]
    taught: tuple[Prediction, ...]
    labels: Tensor

    def of(self, chosen: slice | Tensor) -> _Seen:
        """Some of the frames."""
        return _Seen(
            {bits: tuple(part[chosen].float() for part in maps) for bits, maps in self.maps.items()},
            tuple(None if guess is None else guess[chosen] for guess in self.guess),
            tuple(Prediction(*(part[chosen] for part in said)) for said in self.taught),
            self.labels[chosen],
        )

    def on(self, device: torch.device) -> _Seen:
        """All of it on a device."""
        return _Seen(
            {bits: tuple(part.to(device) for part in maps) for bits, maps in self.maps.items()},
            tuple(None if guess is None else guess.to(device) for guess in self.guess),
            tuple(Prediction(*(part.to(device) for part in said)) for said in self.taught),
            self.labels.to(device),
        )


def _read(part: Any, maps: Tensor, guess: Tensor | None) -> Prediction:
    """What a network says of its maps; nothing of its features is kept."""
    prediction = part.read(maps) if guess is None else part.read(maps, guess)
    return Prediction(prediction.angle.float(), prediction.log_std.float(), prediction.features[:, :0])


def _said(net: QuantisedNet, seen: _Seen, precision: Precision) -> tuple[Prediction, ...]:
    """What the networks say in a precision, which is served from now on."""
    net.serve(precision)
    maps = seen.maps[net.sliced_convolutions(precision)]
    return tuple(_read(*entry) for entry in zip(parts_of(net.inner), maps, seen.guess, strict=True))


class Lesson:
    """What fine-tunings of one encoder share: its frames as they leave the convolutions, which stay as they are.

    Attributes:
        start: The network with integer weights before any fine-tuning, with scales for all precisions alike.
        teacher: The float encoder.
        objective: The likelihood of levels.
        training, held_out: What is seen of training frames, augmented, and of validation frames.
    """

    def __init__(
        self, start: QuantisedNet, teacher: Any, objective: MechanismLikelihood, training: _Seen, held_out: _Seen
    ) -> None:
        self.start, self.teacher, self.objective = start, teacher, objective
        self.training, self.held_out = training, held_out

    @torch.no_grad()
    def judge(self, net: QuantisedNet, precision: Precision) -> float:
        """Regime loss plus divergence from the float encoder on validation spans, mean over a cascade's networks."""
        total, count = 0.0, len(self.held_out.labels)
        for begin in range(0, count, _CHUNK):
            seen = self.held_out.of(slice(begin, begin + _CHUNK))
            total += float(self.loss(_said(net, seen, precision), seen)) * len(seen.labels)
        return total / count

    def loss(self, said: tuple[Prediction, ...], seen: _Seen, distil: float = 1.0) -> Tensor:
        """Regime loss plus weighted divergence from the float encoder, mean over a cascade's networks, nats."""
        total = torch.zeros((), device=seen.labels.device)
        for ours, theirs in zip(said, seen.taught, strict=True):
            total = total + self.objective(ours.angle, ours.log_std, seen.labels) + distil * divergence(theirs, ours)
        return total / len(said)


def prepare_lesson(teacher: Any, frames: FrameSet, split: Split, config: QuantiseConfig) -> Lesson:
    """Look at all frames once.

    Args:
        teacher: The float encoder, of any kind with `trunk` and `read`.
        frames: The frames, with their `details` for a cascade.
        split: Their uses and labels.
        config: Of the augmentation and the number of frames.
    """
    torch.manual_seed(config.seed)
    torch.set_flush_denormal(True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shares = level_shares(split.labels[split.train], frames.joint_names, frames.level_ids)
    chosen, judged = _evenly(split.train, config.frames), _evenly(split.validation, HELD_OUT_FRAMES)
    augmentation = Augmentation(shift=0, light=config.light, noise=config.noise, occlusion=config.occlusion)
    net = QuantisedNet.of(teacher.eval(), least=config.least).eval()
    views = _Views(frames, split, teacher, np.union1d(chosen, judged), config.jitter)
    teacher, net = copy.deepcopy(teacher).to(device), net.to(device)
    with torch.no_grad():
        _watch(net.ranges(), lambda: views.pass_by(_evenly(chosen, RANGE_FRAMES), augmentation, net, teacher, 1))
        training = views.pass_by(chosen, augmentation, net, teacher, config.seed + 2)
        held_out = views.pass_by(judged, None, net, teacher, 0)
    objective = MechanismLikelihood(frames.log_density, shares).to(device)
    return Lesson(net, teacher, objective, training.on(device), held_out.on(device))


class _Views:
    """Pictures for the networks of a cascade; the second one's around changed guesses of the first.

    Args:
        frames: All frames.
        split: Their labels.
        teacher: The float encoder.
        wanted: Frames that will be asked for, int64 [n], increasing.
        jitter: See `QuantiseConfig`.
    """

    def __init__(
        self, frames: FrameSet, split: Split, teacher: Any, wanted: NDArray[np.int64], jitter: float
    ) -> None:
        self.frames, self.split, self.jitter = frames, split, jitter
        self.aim = copy.deepcopy(getattr(teacher, "aim", None))
        if self.aim is not None:
            found = predict(teacher.base, frames, wanted).angle
            self.guess = np.zeros((len(frames), found.shape[1]))
            self.guess[wanted] = bounded(torch.from_numpy(found)).numpy()

    def pass_by(
        self, chosen: NDArray[np.int64], augmentation: Augmentation | None, net: QuantisedNet, teacher: Any, seed: int
    ) -> _Seen:
        """What the networks see of frames int64 [n], on the CPU."""
        device = next(net.parameters()).device
        rounded = {net.sliced_convolutions(bits): bits for bits in sorted(WIDTHS)}
        found: list[_Seen] = []
        parts = np.array_split(chosen, max(1, len(chosen) // _CHUNK))

        def make(number: int) -> tuple[tuple[Tensor, Tensor | None], ...]:
            return self._shown(parts[number], augmentation, np.random.default_rng([seed, number]))

        ahead = min(8, max(1, (os.cpu_count() or 2) // 2))
        with ThreadPoolExecutor(ahead) as pool:
            waiting = deque(pool.submit(make, number) for number in range(min(ahead, len(parts))))
            for number, part in enumerate(parts):
                shown = waiting.popleft().result()
                if number + ahead < len(parts):
                    waiting.append(pool.submit(make, number + ahead))
                maps: dict[tuple[int, ...], list[Tensor]] = {bits: [] for bits in rounded}
                taught, guesses = [], []
                for ours, theirs, (pictures, guess) in zip(parts_of(net.inner), parts_of(teacher), shown, strict=True):
                    moved, guessed = pictures.to(device), None if guess is None else guess.to(device)
                    for bits, precision in rounded.items():
                        net.serve(precision)
                        seen = ours.trunk(moved)
                        _read(ours, seen, guessed)  # so that ranges are watched behind the maps, too
                        maps[bits].append(seen.half().cpu())
                    said = _read(theirs, theirs.trunk(moved), guessed)
                    taught.append(Prediction(*(values.cpu() for values in said)))
                    guesses.append(guess)
                labels = torch.from_numpy(self.split.labels[part].astype(np.int64))
                whole = {bits: tuple(values) for bits, values in maps.items()}
                found.append(_Seen(whole, tuple(guesses), tuple(taught), labels))
        return _joined(found)

    def _shown(
        self, chosen: NDArray[np.int64], augmentation: Augmentation | None, rng: np.random.Generator
    ) -> tuple[tuple[Tensor, Tensor | None], ...]:
        """For each network its pictures, and the guess that it corrects."""

        def shown(pictures: NDArray[np.uint8]) -> Tensor:
            return to_input(pictures) if augmentation is None else augmentation(pictures, rng)

        first = shown(self.frames.images[chosen])
        if self.aim is None:
            return ((first, None),)
        assert self.frames.details is not None  # whoever made this has said so
        changes = rng.normal(0.0, self.jitter, (len(chosen), self.guess.shape[1]))
        guess = torch.from_numpy(self.guess[chosen] + changes).float()
        with torch.no_grad():
            centres = self.aim(guess).numpy()
        spacing = self.aim.spacing.numpy()
        glimpses = np.empty((len(chosen), len(spacing), SIDE, SIDE, 3), dtype=np.uint8)
        for row, picture in enumerate(self.frames.details.read(chosen)):
            for number in range(len(spacing)):
                cut(picture, centres[row, number], float(spacing[number]), SIDE, glimpses[row, number])
        pictures = shown(glimpses.reshape(-1, SIDE, SIDE, 3))
        return (first, None), (pictures.view(len(chosen), len(spacing), 3, SIDE, SIDE), guess)


def _joined(parts: Sequence[_Seen]) -> _Seen:
    """Frames after each other."""

    def each(values: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        return list(zip(*values, strict=True))

    return _Seen(
        {bits: tuple(torch.cat(maps) for maps in each(part.maps[bits] for part in parts)) for bits in parts[0].maps},
        tuple(None if guess[0] is None else torch.cat(guess) for guess in each(part.guess for part in parts)),
        tuple(Prediction(*map(torch.cat, each(said))) for said in each(part.taught for part in parts)),
        torch.cat([part.labels for part in parts]),
    )


def _watch(ranges: Iterable[ActivationRange], look: Callable[[], object]) -> None:
    """Set ranges to what passes while something is looked at."""
    watched = list(ranges)
    for part in watched:
        part.watching, part.low, part.high = True, 0.0, 0.0
    look()
    for part in watched:
        part.watching = False
        part.settle()


class Tuned(NamedTuple):
    """A fine-tuned network, and the weighted sums of held-out losses at the start and the checks of each part."""

    net: QuantisedNet
    history: list[float]


def fine_tune(
    lesson: Lesson, config: QuantiseConfig, on_step: Callable[[int, int, float], None] | None = None
) -> Tuned:
    """Train weights and scales behind the convolutions; of the moving average, the best check is kept.

    Args:
        lesson: What is seen.
        config: Settings.
        on_step: Called after every step with (steps done, steps in all, loss).
    """
    torch.manual_seed(config.seed)
    net, lowest = copy.deepcopy(lesson.start), min(config.widths)
    alone = round(config.settled * config.steps) if len(config.widths) > 1 else 0
    net.choose_scales({lowest: 1.0} if alone else config.widths, extra=config.extra)
    history: list[float] = []
    if alone:
        first = replace(config, widths={lowest: 1.0}, steps=alone)
        net, history = _descend(net, lesson, first, lambda done, loss: _tell(on_step, done, config.steps, loss))
        net.settle(lowest)
    rate = config.learning_rate * (config.gentle if alone else 1.0)
    rest = replace(config, steps=config.steps - alone, learning_rate=rate)
    net, more = _descend(net, lesson, rest, lambda done, loss: _tell(on_step, alone + done, config.steps, loss))
    return Tuned(net, history + more)


def _tell(on_step: Callable[[int, int, float], None] | None, done: int, total: int, loss: float) -> None:
    if on_step is not None:
        on_step(done, total, loss)


def _descend(
    net: QuantisedNet, lesson: Lesson, config: QuantiseConfig, on_step: Callable[[int, float], None]
) -> tuple[QuantisedNet, list[float]]:
    """Train a network from its present weights with one set of precisions; see `fine_tune`."""
    for layer in net.layers().values():
        layer.nested = len(config.widths) > 1
    learned = [layer for name, layer in net.layers().items() if not isinstance(layer, QuantisedConv2d)]
    net.requires_grad_(False)
    for layer in learned:
        layer.requires_grad_(True)
    weights = [layer.weight for layer in learned]
    others = [part for layer in learned for part in (layer.bias, layer.log_scale)]
    optimiser = torch.optim.AdamW(
        [{"params": weights, "weight_decay": 0.0}, {"params": others, "weight_decay": 0.0}], lr=config.learning_rate
    )
    average = copy.deepcopy(net).requires_grad_(False)
    rng = np.random.default_rng([config.seed, 1])
    count, size = len(lesson.training.labels), min(config.batch_size, len(lesson.training.labels))

    def held_out() -> float:
        _set_ranges(average, lesson)
        return sum(share * lesson.judge(average, bits) for bits, share in config.widths.items())

    history = [held_out()]
    best, kept = history[0], copy.deepcopy(average.state_dict())
    checks = {round(config.steps * (number + 1) / config.checks) for number in range(config.checks)}
    order = np.empty(0, dtype=np.int64)
    for step in range(config.steps):
        if len(order) < size:
            order = rng.permutation(count)
        chosen, order = order[:size], order[size:]
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * one_cycle(step / config.steps)
        picked = torch.from_numpy(chosen).to(lesson.training.labels.device)
        loss = _summed(net, lesson, config, lesson.training.of(picked))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_((*weights, *others), 1.0)
        if not torch.isfinite(norm):
            raise TrainingError("the loss of the quantised network became infinite: lower its learning rate")
        optimiser.step()
        follow(average, net, min(config.ema_decay, (1 + step) / (10 + step)))
        on_step(step + 1, float(loss.detach()))
        if step + 1 in checks:
            _set_ranges(net, lesson)
            history.append(held_out())
            if history[-1] < best:
                best, kept = history[-1], copy.deepcopy(average.state_dict())
    average.load_state_dict(kept)
    return average, history


def _summed(net: QuantisedNet, lesson: Lesson, config: QuantiseConfig, seen: _Seen) -> Tensor:
    """The loss of a batch, summed over precisions."""
    total = torch.zeros((), device=seen.labels.device)
    higher: tuple[Prediction, ...] | None = None
    for bits in config.bits:
        said = _said(net, seen, bits)
        loss = lesson.loss(said, seen, config.distil)
        if higher is not None:
            pulls = [divergence(theirs, ours) for theirs, ours in zip(higher, said, strict=True)]
            loss = loss + config.codistil * torch.stack(pulls).mean()
        total = total + config.widths[bits] * loss
        higher = higher or said
    return total


@torch.no_grad()
def _set_ranges(net: QuantisedNet, lesson: Lesson) -> None:
    """Ranges of what the linear layers meet, in all precisions: the last ones meet integers in each."""
    linear = [layer.range for layer in net.layers().values() if not isinstance(layer, QuantisedConv2d)]
    looked_at = torch.from_numpy(_evenly(np.arange(len(lesson.training.labels)), RANGE_FRAMES))
    seen = lesson.training.of(looked_at.to(lesson.training.labels.device))

    def look() -> None:
        for bits in WIDTHS:
            _said(net, seen, bits)

    _watch(linear, look)


def _evenly(indices: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most so many of the indices, evenly spread."""
    return np.unique(indices[np.linspace(0, len(indices) - 1, min(most, len(indices))).astype(np.int64)])

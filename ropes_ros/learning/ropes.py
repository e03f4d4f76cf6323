"""ROPES as published: pose from score differences between interventions, in three stages (arXiv 2510.20884).

    result = train_ropes(frames, out_dir)

Stage 1: an autoencoder from the image x to y in R^64. Stage 2: for each pair of regimes a classifier of images whose
logit is their log density ratio; its gradient, carried through the first decoder, is the score difference
d_Y = J_dec1(y)^T d_X. Stage 3: an encoder and a decoder between y and z in R^J that minimise

    sum_i || E|J_dec2(z)^T d_Y^i| - e_i ||_1 + lambda E||y - dec2(enc2(y))||^2.

Networks, optimisers and numbers are those that GSCALE-I was published with for images (arXiv 2402.00849, sec. 7.5),
except that batch normalisation keeps running statistics, as a model that sees one image at a time has no batch. As
there, autoencoders see the frames of the observational regime; designs without one use frames of all regimes. After
that come our own steps, label free as well: the permutation, and the monotone map to radians
(`ropes_ros.learning.align`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ropes_ros.dataset import FrameSet, Split, split_spans
from ropes_ros.errors import TrainingError
from ropes_ros.learning import networks
from ropes_ros.learning.align import AlignedNet, Alignment, align
from ropes_ros.learning.augmentation import to_input
from ropes_ros.learning.calibrate import Calibration, calibrate
from ropes_ros.learning.checkpoint import CHECKPOINT_FILE, provenance, save_checkpoint
from ropes_ros.learning.mechanism import MechanismLikelihood, level_shares
from ropes_ros.learning.networks import LOG_STD_RANGE, Prediction
from ropes_ros.learning.optimisation import takes_bfloat16
from ropes_ros.learning.scores import (
    DenseCoder,
    LevelPair,
    assign,
    ldr_loss,
    level_pairs,
    observational_level,
    score_differences,
    score_matrix,
    to_latents,
)
from ropes_ros.learning.tasks import LEVELS_ONLY
from ropes_ros.learning.train import Epoch, Progress, TrainResult
from ropes_ros.learning.validation import check_images

PERMUTATIONS = ("commands", "found")
LEAST_FRAMES = 50
STD_CANDIDATES = 20
CHANCE = math.log(2.0) - 0.005
"""Held-out loss, in nats, of a classifier that has learned nothing worth speaking of."""
_CHUNK = 512


@dataclass(frozen=True)
class RopesConfig:
    """What a run depends on besides the frames; the defaults are the published ones.

    Attributes:
        image_size: (width, height) of the images in pixels, multiples of 2 to the power of the number of channels.
        code: Width of y.
        channels: Channels of the autoencoder's convolutions, each followed by a halving.
        classifier_channels: The same of the classifiers.
        frames_per_regime: Most frames of each regime; all regimes get equally many.
        autoencoder_epochs, classifier_epochs, latent_epochs: Passes of the three stages.
        autoencoder_rate, classifier_rate, latent_rate: Their learning rates (Adam).
        weight_decay: L2 penalty of all three.
        reconstruction: lambda, as in ROPES; GSCALE-I's public code has 1 as its default.
        batch_size: Frames a step.
        precision: Of the autoencoder's products, as `TrainConfig` has it; all that scores come from stays float32.
        levels: Ids of the two levels to compare; None: see `level_pairs`.
        permutation: "commands": latent i is made joint i. "found": the latents come in any order, and the
            score-difference matrix tells which of them each pair of regimes moves.
        span_s: Length of the contiguous spans of time that are split, in seconds.
        seed: Source of the split, the weights and the order of frames.
    """

    image_size: tuple[int, int] = (64, 64)
    code: int = 64
    channels: tuple[int, ...] = (64, 128, 256, 512)
    classifier_channels: tuple[int, ...] = (32, 64)
    frames_per_regime: int = 10_000
    autoencoder_epochs: int = 100
    classifier_epochs: int = 10
    latent_epochs: int = 150
    autoencoder_rate: float = 1e-3
    classifier_rate: float = 1e-5
    latent_rate: float = 1e-2
    weight_decay: float = 0.01
    reconstruction: float = 0.1
    batch_size: int = 256
    precision: str = "float32"
    levels: tuple[str, str] | None = None
    permutation: str = "commands"
    span_s: float = 30.0
    seed: int = 0


@dataclass(frozen=True)
class RopesResult(TrainResult):
    """What the three stages give.

    Attributes:
        score_differences: The matrix D, float64 [J, J]: row i is the pair of regimes of joint i, column j the latent
            that became joint j; the diagonal is what should be large.
        reconstruction_error: Share of the pixels' variance that the first autoencoder leaves on validation spans.
        classifier_loss: Held-out cross-entropy of each joint's classifier, nats, float64 [J]; ln 2 is chance, not a
            number where the validation spans lack one of its regimes.
        sign_identified: Whether the levels tell which way each joint turns, bool [J].
        notes: Sentences for the user.
    """

    score_differences: NDArray[np.float64]
    reconstruction_error: float
    classifier_loss: NDArray[np.float64]
    sign_identified: NDArray[np.bool_]
    notes: list[str]


class RopesNet(nn.Module):
    """The two autoencoders of ROPES, one inside the other; the decoders are kept for pictures of what z does.

    Args:
        image_size: (width, height) of the images in pixels.
        joints: Number of joints J.
        code: Width of y.
        channels: Channels of the autoencoder's convolutions.

    Raises:
        TrainingError: The image's sides are no multiples of 2 to the power of the number of channels.
    """

    def __init__(self, image_size: tuple[int, int], joints: int, *, code: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        step = 2 ** len(channels)
        if image_size[0] % step or image_size[1] % step:
            raise TrainingError(f"images of {image_size[0]}x{image_size[1]} pixels: sides must be multiples of {step}")
        self.image_size = image_size
        self.joints = joints
        self.code = code
        self.channels = channels
        width, height = image_size[0] // step, image_size[1] // step
        cells = channels[-1] * width * height
        down: list[nn.Module] = []
        for previous, count in zip((3, *channels), channels, strict=False):
            down += [nn.Conv2d(previous, count, 3, padding=1), nn.BatchNorm2d(count), nn.ReLU(), nn.MaxPool2d(2)]
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(cells, code))
        up: list[nn.Module] = [nn.Linear(code, cells), nn.Unflatten(1, (channels[-1], height, width))]
        for previous, count in zip(channels[::-1], channels[-2::-1], strict=False):
            up += [nn.Upsample(scale_factor=2), nn.Conv2d(previous, count, 3, padding=1), nn.BatchNorm2d(count)]
            up += [nn.ReLU()]
        up += [nn.Upsample(scale_factor=2), nn.Conv2d(channels[0], 3, 3, padding=1), nn.Sigmoid()]
        self.decoder = nn.Sequential(*up)
        self.latent_encoder = DenseCoder(code, joints)
        self.latent_decoder = DenseCoder(joints, code)

    def architecture(self) -> dict[str, Any]:
        """Plain values from which `networks.build` makes an equal, untrained network."""
        return {
            "kind": "ropes",
            "image_size": list(self.image_size),
            "joints": self.joints,
            "code": self.code,
            "channels": list(self.channels),
        }

    def forward(self, images: Tensor) -> Prediction:
        """Latents z as `angle`, and y as `features`, of images [N, 3, height, width]; the spread means nothing."""
        code = self.encoder(images)
        latents = self.latent_encoder(code)
        return Prediction(latents, torch.full_like(latents, LOG_STD_RANGE[1]), code)


def _ropes_net(architecture: dict[str, Any]) -> nn.Module:
    width, height = architecture["image_size"]
    return RopesNet(
        (width, height), architecture["joints"], code=architecture["code"], channels=tuple(architecture["channels"])
    )


networks.KINDS["ropes"] = _ropes_net


def ldr_classifier(image_size: tuple[int, int], channels: tuple[int, ...]) -> nn.Sequential:
    """A classifier of images [N, 3, h, w] with one logit [N], the log density ratio of two regimes."""
    layers: list[nn.Module] = []
    width, height = image_size
    for previous, count in zip((3, *channels), channels, strict=False):
        layers += [nn.Conv2d(previous, count, 3, padding=1), nn.BatchNorm2d(count), nn.ReLU(), nn.Dropout2d(0.1)]
        layers += [nn.MaxPool2d(2)]
        width, height = width // 2, height // 2
    cells = channels[-1] * width * height
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(cells, 128), nn.ReLU(), nn.Linear(128, 1), nn.Flatten(0))


def train_ropes(
    frames: FrameSet,
    out_dir: Path,
    *,
    config: RopesConfig | None = None,
    on_step: Progress | None = None,
    on_epoch: Callable[[Epoch, float], None] | None = None,
) -> RopesResult:
    """Train ROPES on the frames of an intervention recording, of a single-joint or a factorial design.

    The history has one entry per epoch of stage 3: the regime loss of the aligned angles on training and on validation
    frames, so that it compares with other methods and with the Bayes floor. The last epoch is kept, as published.

    Args:
        frames: Images with the level of each joint; holds no angles.
        out_dir: Folder for `checkpoint.pt`.
        config: Settings; the published ones when None.
        on_step: Called after every step of all stages with (steps done, steps in all, loss of the stage).
        on_epoch: Called after each epoch of stage 3 with the log entry and the Bayes floor.

    Raises:
        TrainingError: Images of another size or that do not change, levels that give no pairs of regimes, or too few
            frames.
    """
    config = config or RopesConfig()
    if config.permutation not in PERMUTATIONS:
        raise TrainingError(f"permutation {config.permutation!r}: choose one of {', '.join(PERMUTATIONS)}")
    if frames.images.shape[1:3] != config.image_size[::-1]:
        height, width = frames.images.shape[1:3]
        raise TrainingError(
            f"frames of {width}x{height} pixels: load them at {config.image_size[0]}x{config.image_size[1]}, or set "
            "image_size"
        )
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"{out_dir}: cannot be made ({error.strerror}); choose another folder") from None
    started = time.monotonic()
    run = _Run(frames, config, on_step)
    unexplained = run.reconstruct()
    classifier_loss = run.compare()
    history, alignment, angle = run.disentangle(on_epoch)
    matrix = run.matrix()[:, alignment.order]
    notes = run.notes(alignment, unexplained, classifier_loss, matrix)
    net, calibration = run.finish(alignment, angle)
    checkpoint = out_dir / CHECKPOINT_FILE
    save_checkpoint(
        checkpoint,
        {
            "config": asdict(config),
            "bag_hash": frames.bag_hash,
            "schedule_hash": frames.schedule_hash,
            "frames": frames.description(),
            "architecture": net.architecture(),
            "best": net.state_dict(),
            "progress": [len(history), run.done, history[-1].validation_loss, len(history)],
            "history": [asdict(entry) for entry in history],
            "calibration": calibration.to_dict(),
            **provenance(LEVELS_ONLY, frames.bag_hash, None),
            "notes": notes,
        },
    )
    return RopesResult(
        checkpoint,
        history,
        run.floor,
        len(history),
        calibration,
        time.monotonic() - started,
        len(run.split.train),
        history[-1].validation_loss,
        score_differences=matrix,
        reconstruction_error=unexplained,
        classifier_loss=classifier_loss,
        sign_identified=alignment.sign_identified,
        notes=notes,
    )


class _Run:
    """The three stages on one recording; each leaves what the next one needs."""

    def __init__(self, frames: FrameSet, config: RopesConfig, on_step: Progress | None) -> None:
        self.frames, self.config, self.on_step = frames, config, on_step
        self.split: Split = split_spans(frames, span_s=config.span_s, seed=config.seed)
        check_images(frames, self.split)
        self.objective = MechanismLikelihood(
            frames.log_density,
            level_shares(self.split.labels[self.split.train], frames.joint_names, frames.level_ids),
        )
        self.floor = float(self.objective.floor.mean())
        self.rng = np.random.default_rng(config.seed)
        torch.manual_seed(config.seed)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.net = RopesNet(config.image_size, len(frames.joint_names), code=config.code, channels=config.channels)
        self.net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.pairs: list[LevelPair] = level_pairs(frames, config.levels)
        self.regimes, self.points = self._choose()
        points = self._batches(len(self.points))
        compared = sum(self._batches(sum(len(side) for side in pair)) for pair in self.regimes)
        self.total = (
            points * (config.autoencoder_epochs + config.latent_epochs) + compared * config.classifier_epochs
        )
        self.done = 0

    def _choose(self) -> tuple[list[list[NDArray[np.int64]]], NDArray[np.int64]]:
        """Frames of each pair's two regimes, equally many each, and those that autoencoders see."""
        train, labels = self.split.train, self.split.labels[self.split.train]
        sides = [[np.flatnonzero(pair.targets(labels) == side) for side in (0, 1)] for pair in self.pairs]
        observational = observational_level(self.frames)
        points = np.arange(len(train))
        if observational is not None:
            points = np.flatnonzero((labels == observational).all(axis=1))
        sizes = {"the observational regime": len(points)}
        for pair, two in zip(self.pairs, sides, strict=True):
            for levels, side in zip((pair.first, pair.second), two, strict=True):
                names = " + ".join(self.frames.level_ids[level] for level in levels)
                sizes[f"joint {self.frames.joint_names[pair.joint]} at {names}"] = len(side)
        smallest = min(sizes, key=lambda regime: sizes[regime])
        if sizes[smallest] < LEAST_FRAMES:
            raise TrainingError(
                f"{smallest} has {sizes[smallest]} training frames, at least {LEAST_FRAMES} are needed: record longer"
            )
        count = min(sizes[smallest], self.config.frames_per_regime)

        def some(indices: NDArray[np.int64]) -> NDArray[np.int64]:
            return np.sort(train[self.rng.choice(indices, count, replace=False)])

        return [[some(side) for side in pair] for pair in sides], some(points)

    def _batches(self, count: int) -> int:
        return -(-count // self.config.batch_size)

    def _images(self, indices: NDArray[np.int64]) -> Tensor:
        return to_input(self.frames.images[indices]).to(self.device)

    def _epochs(self, count: int, epochs: int) -> Iterator[list[NDArray[np.int64]]]:
        """For every epoch its batches, as positions among `count`."""
        size = self.config.batch_size
        for _ in range(epochs):
            order = self.rng.permutation(count)
            yield [np.sort(order[start : start + size]) for start in range(0, count, size)]

    def _optimiser(self, parameters: Iterator[nn.Parameter], rate: float) -> torch.optim.Adam:
        return torch.optim.Adam(parameters, lr=rate, weight_decay=self.config.weight_decay)

    def _step(self, optimiser: torch.optim.Adam, loss: Tensor) -> None:
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(f"the loss became {value} at step {self.done}: lower the learning rate")
        self.done += 1
        if self.on_step is not None:
            self.on_step(self.done, self.total, value)

    def reconstruct(self) -> float:
        """Stage 1; the share of the variance left on validation spans."""
        config, net = self.config, self.net
        net.train()
        optimiser = self._optimiser(
            iter([*net.encoder.parameters(), *net.decoder.parameters()]), config.autoencoder_rate
        )
        restarts = _restarts(optimiser, config.autoencoder_epochs // 5 + 1, 4)
        bfloat16 = takes_bfloat16(config.precision, self.device)
        for batches in self._epochs(len(self.points), config.autoencoder_epochs):
            for chosen in batches:
                images = self._images(self.points[chosen])
                with torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16):
                    again = net.decoder(net.encoder(images))
                self._step(optimiser, (again.float() - images).square().mean(dim=0).sum())
            restarts.step()
        net.eval()
        validation = self.split.validation
        evenly = validation[np.linspace(0, len(validation) - 1, min(_CHUNK, len(validation))).astype(np.int64)]
        with torch.no_grad():
            images = self._images(evenly)
            left = (net.decoder(net.encoder(images)) - images).square().mean()
            return float(left / (images - images.mean(dim=0)).square().mean().clamp(min=1e-12))

    def compare(self) -> NDArray[np.float64]:
        """Stage 2; the classifiers' losses on validation spans, nats, float64 [J]."""
        self.differences = torch.zeros(len(self.points), len(self.pairs), self.config.code)
        self.codes = self._encode(self.points)
        losses = np.zeros(len(self.pairs))
        for number, sides in enumerate(self.regimes):
            classifier = self._train_classifier(sides)
            losses[number] = self._held_out(classifier, self.pairs[number])
            for start in range(0, len(self.points), _CHUNK):
                part = slice(start, start + _CHUNK)
                images = self._images(self.points[part])
                direction = score_differences(classifier, images)
                codes = self.codes[part].to(self.device)
                self.differences[part, number] = _pull_back(self.net.decoder, codes, direction).cpu()
        return losses

    def _train_classifier(self, sides: list[NDArray[np.int64]]) -> nn.Sequential:
        config = self.config
        classifier = ldr_classifier(config.image_size, config.classifier_channels).train()
        classifier.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimiser = self._optimiser(classifier.parameters(), config.classifier_rate)
        frames = np.concatenate(sides)
        targets = torch.repeat_interleave(torch.tensor([0, 1]), len(sides[0])).to(self.device)
        for batches in self._epochs(len(frames), config.classifier_epochs):
            for chosen in batches:
                order = np.argsort(frames[chosen], kind="stable")
                images = self._images(frames[chosen[order]])
                self._step(optimiser, ldr_loss(classifier(images)[:, None], targets[chosen[order]][:, None]))
        return classifier.eval()

    @torch.no_grad()
    def _held_out(self, classifier: nn.Module, pair: LevelPair) -> float:
        labels = self.split.labels[self.split.validation]
        targets = pair.targets(labels)
        if not {0, 1} <= set(targets.tolist()):
            return math.nan
        frames = self.split.validation[targets >= 0]
        logits = [classifier(self._images(frames[start : start + _CHUNK])) for start in range(0, len(frames), _CHUNK)]
        known = torch.from_numpy(targets[targets >= 0]).to(self.device)
        return float(ldr_loss(torch.cat(logits)[:, None], known[:, None]))

    @torch.no_grad()
    def _encode(self, indices: NDArray[np.int64]) -> Tensor:
        """y of frames, float [n, code], on the CPU."""
        parts = [
            self.net.encoder(self._images(indices[start : start + _CHUNK])).cpu()
            for start in range(0, len(indices), _CHUNK)
        ]
        return torch.cat(parts)

    def disentangle(
        self, on_epoch: Callable[[Epoch, float], None] | None
    ) -> tuple[list[Epoch], Alignment, NDArray[np.float64]]:
        """Stage 3; its log, and the alignment and u of its last epoch; see `_align`."""
        config, net = self.config, self.net
        labelled = np.concatenate([self.split.train, self.split.validation, self.split.calibration])
        known = self._encode(labelled)
        encoder, decoder = net.latent_encoder, net.latent_decoder
        optimiser = self._optimiser(iter([*encoder.parameters(), *decoder.parameters()]), config.latent_rate)
        restarts = _restarts(optimiser, config.latent_epochs // 15 + 1, 2)
        history: list[Epoch] = []
        began = time.monotonic()
        for batches in self._epochs(len(self.points), config.latent_epochs):
            encoder.train(), decoder.train()
            for chosen in batches:
                codes, differences = self.codes[chosen].to(self.device), self.differences[chosen].to(self.device)
                latents = encoder(codes)
                matrix = score_matrix(to_latents(decoder, latents, differences))
                unexplained = (decoder(latents) - codes).square().mean(dim=0).sum()
                off = (matrix - self._wanted(matrix)).abs().sum()
                self._step(optimiser, off + config.reconstruction * unexplained)
            restarts.step()
            alignment, angle = self._align(labelled, known)
            training, validation = (
                float(self._best_std(angle, use)[1].mean()) for use in (self.split.train, self.split.validation)
            )
            history.append(Epoch(len(history) + 1, training, validation, time.monotonic() - began, "ropes"))
            began = time.monotonic()
            if on_epoch is not None:
                on_epoch(history[-1], self.floor)
        return history, alignment, angle

    def _wanted(self, matrix: Tensor) -> Tensor:
        """What D should be: ones where pair and latent belong together."""
        unit = torch.eye(len(matrix), device=matrix.device)
        if self.config.permutation == "commands":
            return unit
        return unit[:, np.argsort(assign(matrix.detach().double().cpu().numpy()))]

    @torch.no_grad()
    def matrix(self) -> NDArray[np.float64]:
        """D over the autoencoders' frames, float64 [pairs, latents]."""
        total = torch.zeros(len(self.pairs), self.net.joints, dtype=torch.float64)
        for start in range(0, len(self.points), _CHUNK):
            part = slice(start, start + _CHUNK)
            latents = self.net.latent_encoder(self.codes[part].to(self.device))
            found = to_latents(self.net.latent_decoder, latents, self.differences[part].to(self.device))
            total += found.abs().sum(dim=0).double().cpu()
        return (total / len(self.points)).numpy()

    def _align(self, labelled: NDArray[np.int64], codes: Tensor) -> tuple[Alignment, NDArray[np.float64]]:
        """The alignment at the present weights, and u of all frames, float64 [N, J], NaN where no joint is labelled."""
        with torch.no_grad():
            found = self.net.latent_encoder.eval()(codes.to(self.device)).double().cpu().numpy()
        latents = np.full((len(self.frames), self.net.joints), np.nan)
        latents[labelled] = found
        order = np.arange(self.net.joints)
        if self.config.permutation == "found":
            order = assign(self.matrix())
        alignment = align(latents, self.frames, self.split, order=order)
        return alignment, alignment.apply(latents)

    def _best_std(self, angle: NDArray[np.float64], use: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Log of the constant std of each joint that makes regimes likeliest, and the loss there: float [J] each.

        Args:
            angle: u of all frames, float64 [N, J].
            use: int64 [n], the frames that count.
        """
        u = torch.from_numpy(angle[use]).float()
        labels = torch.from_numpy(self.split.labels[use].astype(np.int64))
        counts = (labels >= 0).sum(dim=0).clamp(min=1)
        candidates = torch.linspace(*LOG_STD_RANGE, STD_CANDIDATES)
        likelihoods = [
            self.objective.log_likelihood(u, torch.full_like(u, float(value)), labels).sum(dim=0) / counts
            for value in candidates
        ]
        best = torch.stack(likelihoods).max(dim=0)
        return candidates[best.indices], -best.values

    def finish(self, alignment: Alignment, angle: NDArray[np.float64]) -> tuple[AlignedNet, Calibration]:
        """The network with its alignment and the std of the validation spans, and its calibration."""
        aligned = AlignedNet(self.net.cpu(), self.net.joints, alignment.knots_z.shape[1])
        for name in ("order", "sign", "knots_z", "knots_u"):
            getattr(aligned, name).copy_(torch.from_numpy(getattr(alignment, name)))
        aligned.log_std.copy_(self._best_std(angle, self.split.validation)[0])
        return aligned.eval(), calibrate(
            aligned, self.frames, self.split, self.objective, truncated=False
        )

    def notes(
        self,
        alignment: Alignment,
        unexplained: float,
        classifier_loss: NDArray[np.float64],
        matrix: NDArray[np.float64],
    ) -> list[str]:
        """What the user should know of how each stage went."""
        names = self.frames.joint_names
        notes = [f"the autoencoder leaves {unexplained:.1%} of the validation images' variance unexplained"]
        chance = [names[joint] for joint in np.flatnonzero(classifier_loss >= CHANCE)]
        if chance:
            notes.append(
                f"the classifiers of {', '.join(chance)} do no better than chance on validation spans: their score "
                "differences are noise; train classifiers longer or at a higher rate"
            )
        own = np.diag(matrix)
        blurred = [names[joint] for joint in np.flatnonzero(~((own > 0.5) & (2.0 * own > matrix.sum(axis=1))))]
        if blurred:
            notes.append(
                f"the score differences of {', '.join(blurred)} are not in one latent each: stage 3 fell short; "
                "train the autoencoder longer, which all else is built on"
            )
        unknown = [pair for pair, known in zip(self.pairs, alignment.sign_identified, strict=True) if not known]
        unsigned = [names[pair.joint] for pair in unknown if not pair.signed]
        if unsigned:
            notes.append(
                f"the levels of {', '.join(unsigned)} share their mean and so do not tell its direction: the sign +1 "
                "was taken, which is as often wrong as right; record levels whose means differ"
            )
        lost = [names[pair.joint] for pair in unknown if pair.signed]
        if lost:
            notes.append(
                f"the latent of {', '.join(lost)} does not follow its level: it was not found; try another seed, more "
                "epochs, or the mechanism likelihood"
            )
        return notes


def _restarts(
    optimiser: torch.optim.Adam, first: int, growth: int
) -> torch.optim.lr_scheduler.CosineAnnealingWarmRestarts:
    """Cosine annealing whose periods, in epochs, begin at `first` and grow by a factor (arXiv 1608.03983)."""
    return torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimiser, T_0=first, T_mult=growth)


def _pull_back(decoder: nn.Module, codes: Tensor, directions: Tensor) -> Tensor:
    """d_Y = J_dec(y)^T d_X, as a vector-Jacobian product.

    Args:
        decoder: From y to images.
        codes: y, float [N, code].
        directions: d_X, float [N, 3, h, w].

    Returns:
        float [N, code].
    """
    leaf = codes.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad((decoder(leaf) * directions).sum(), leaf)
    return gradient

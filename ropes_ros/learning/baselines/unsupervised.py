"""Fitting of the baselines that see no position, and the reading of their latents by an oracle map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ropes_ros.dataset import FrameSet, split_spans
from ropes_ros.errors import TrainingError
from ropes_ros.learning.augmentation import to_input
from ropes_ros.learning.baselines.common import Estimate, Fitted, LabelledFrames, seeded
from ropes_ros.learning.baselines.latent_tasks import BetaVaeTask, FactorSubspacesTask, LatentTask, QuantizedTask
from ropes_ros.learning.baselines.oracle import LABELS, OracleMap, monotone_map, subspace_map
from ropes_ros.learning.checkpoint import load_checkpoint
from ropes_ros.learning.loader import batches
from ropes_ros.learning.networks import AngleNet, build
from ropes_ros.learning.train import TrainConfig, train

CODE = 64
"""Length of an autoencoder's code, and number of principal components, before independent components are sought."""
LATENTS_A_JOINT = 2
"""Latents of the other methods, and independent components, a joint: some room for what is no joint."""
WEIGHT_DECAY = 0.1
"""Of QLAE, at least."""
PCA_FRAMES = 8000
PCA_SHARE = 2
"""Images are reduced by this factor each way before principal components are sought."""

Encode = Callable[[NDArray[np.uint8]], NDArray[np.float64]]
"""Images, uint8 [N, h, w, 3], to latents, float64 [N, D]."""
MakeTask = Callable[[AngleNet, NDArray[np.uint8], int], LatentTask]
"""Makes a task for a network, given all images, uint8 [N, h, w, 3], and the number of training steps."""


@dataclass(frozen=True)
class LatentFitted:
    """A representation, and the oracle map that reads it.

    Attributes:
        encode: Images to latents.
        read: Latents to angles.
    """

    encode: Encode
    read: OracleMap

    def predict(self, images: NDArray[np.uint8]) -> Estimate:
        """See `Fitted`; there is no std."""
        latents = self.encode(images)
        return Estimate(self.read(latents), None, latents)


@dataclass(frozen=True)
class NetEncode:
    """The latents of a trained network and task."""

    net: AngleNet
    task: LatentTask

    @torch.no_grad()
    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        parts = [self.task.encode(self.net, to_input(images[rows])) for rows in batches(np.arange(len(images)))]
        latents: NDArray[np.float64] = torch.cat(parts).double().numpy()
        return latents


def plain(config: TrainConfig, seed: int) -> TrainConfig:
    """The settings with a seed, and without what our methods add: constraint and pretraining."""
    return replace(seeded(config, seed), pretrain="none")


def train_latents(frames: FrameSet, out_dir: Path, *, config: TrainConfig, make: MakeTask) -> NetEncode:
    """Train a latent task; an ended training in the folder is taken if it fits.

    The weights are the last ones, not averages: head and decoder, which the task owns, are not averaged either.

    Args:
        frames: The frames.
        out_dir: Folder for the checkpoint.
        config: Settings.
        make: Makes the task.
    """
    split = split_spans(frames, span_s=config.span_s, seed=config.seed)
    steps = config.epochs * max(1, len(split.train) // config.batch_size)

    def factory(frames: FrameSet, shares: NDArray[np.float64], net: AngleNet) -> LatentTask:
        return make(net, frames.images, steps)

    result = train(frames, out_dir, config=config, task=factory, resume=True)
    content = load_checkpoint(result.checkpoint)
    net = build(content["architecture"])
    assert isinstance(net, AngleNet)
    net.load_state_dict(content["net"])
    task = make(net, frames.images, steps)
    task.load_state_dict(content["task"])
    return NetEncode(net.eval(), task.eval())


def oracle_labels(recording: LabelledFrames, config: TrainConfig) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Up to `LABELS` training frames with a position, int64 [M], and these, float64 [M, J] half ranges.

    Raises:
        TrainingError: None has one.
    """
    u = recording.robot.normalise(recording.positions)
    split = split_spans(recording.frames, span_s=config.span_s, seed=config.seed)
    known = split.train[np.isfinite(u[split.train]).all(axis=1)]
    if not len(known):
        raise TrainingError("no training frame has a position: record joint_states")
    chosen = np.sort(np.random.default_rng(config.seed).permutation(known)[:LABELS])
    return chosen, u[chosen]


def _fit_latents(
    recording: LabelledFrames, config: TrainConfig, out_dir: Path, make: MakeTask
) -> Fitted:
    """Train a task and read its latents by a monotone map."""
    encode = train_latents(recording.frames, out_dir, config=config, make=make)
    chosen, u = oracle_labels(recording, config)
    return LatentFitted(encode, monotone_map(encode(recording.frames.images[chosen]), u))


def fit_beta_vae(recording: LabelledFrames, *, seed: int, config: TrainConfig, out_dir: Path) -> Fitted:
    """`BetaVaeTask`; the capacity grows over the first four fifths of the steps."""
    dims = LATENTS_A_JOINT * len(recording.frames.joint_names)

    def make(net: AngleNet, images: NDArray[np.uint8], steps: int) -> LatentTask:
        return BetaVaeTask(net, images, dims, steps=max(1, 4 * steps // 5))

    return _fit_latents(recording, plain(config, seed), out_dir, make)


def fit_qlae(recording: LabelledFrames, *, seed: int, config: TrainConfig, out_dir: Path) -> Fitted:
    """`QuantizedTask`."""
    dims = LATENTS_A_JOINT * len(recording.frames.joint_names)
    config = replace(plain(config, seed), weight_decay=max(WEIGHT_DECAY, config.weight_decay))
    return _fit_latents(recording, config, out_dir, lambda net, images, _steps: QuantizedTask(net, images, dims))


def fit_factor_subspaces(recording: LabelledFrames, *, seed: int, config: TrainConfig, out_dir: Path) -> Fitted:
    """`FactorSubspacesTask`; the joints' subspaces are known, and read by cubic polynomials."""
    config = plain(config, seed)
    encode = train_latents(
        recording.frames, out_dir, config=config, make=lambda net, images, _steps: FactorSubspacesTask(net, images)
    )
    chosen, u = oracle_labels(recording, config)
    latents = encode(recording.frames.images[chosen])
    return LatentFitted(encode, subspace_map(latents, u, FactorSubspacesTask.WIDTH))


def fit_autoencoder_ica(recording: LabelledFrames, *, seed: int, config: TrainConfig, out_dir: Path) -> Fitted:
    """An autoencoder's code, then independent components."""
    config = plain(config, seed)
    encode = train_latents(recording.frames, out_dir, config=config, make=autoencoder)
    return _fit_ica(recording, config, encode)


def autoencoder(net: AngleNet, images: NDArray[np.uint8], steps: int) -> LatentTask:
    """An autoencoder with a code of `CODE` numbers, as a `MakeTask`."""
    return LatentTask(net, images, CODE)


def fit_pca_ica(recording: LabelledFrames, *, seed: int, config: TrainConfig, out_dir: Path) -> Fitted:
    """Principal components of the pixels, then independent components; nothing is written."""
    from sklearn.decomposition import PCA  # type: ignore[import-untyped, unused-ignore]

    config = seeded(config, seed)
    split = split_spans(recording.frames, span_s=config.span_s, seed=seed)
    evenly = np.linspace(0, len(split.train) - 1, min(PCA_FRAMES, len(split.train))).astype(np.int64)
    pixels = _pixels(recording.frames.images[split.train[evenly]])
    pca = PCA(min(CODE, *pixels.shape), svd_solver="randomized", random_state=seed).fit(pixels)
    return _fit_ica(recording, config, _Pca(pca))


@dataclass(frozen=True)
class _Pca:
    """Principal components of images."""

    pca: Any

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        parts = [self.pca.transform(_pixels(images[rows])) for rows in batches(np.arange(len(images)))]
        return np.concatenate(parts).astype(np.float64)


@dataclass(frozen=True)
class _Ica:
    """Independent components of a code."""

    code: Encode
    ica: Any

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        components: NDArray[np.float64] = self.ica.transform(self.code(images))
        return components


def _fit_ica(recording: LabelledFrames, config: TrainConfig, code: Encode) -> Fitted:
    """FastICA (Hyvärinen & Oja, Neural Networks 13, 2000) on a code, read by a monotone map."""
    from sklearn.decomposition import FastICA

    chosen, u = oracle_labels(recording, config)
    codes = code(recording.frames.images[chosen])
    components = min(LATENTS_A_JOINT * u.shape[1], codes.shape[1])
    ica = FastICA(components, whiten="unit-variance", max_iter=1000, tol=1e-3, random_state=config.seed).fit(codes)
    encode = _Ica(code, ica)
    return LatentFitted(encode, monotone_map(ica.transform(codes), u))


def _pixels(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Reduced images as rows, float32 [N, P] in 0..1."""
    size = max(1, images.shape[2] // PCA_SHARE), max(1, images.shape[1] // PCA_SHARE)
    small = np.stack([cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in images])
    return small.reshape(len(small), -1).astype(np.float32) / 255.0

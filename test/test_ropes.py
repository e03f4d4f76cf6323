"""ROPES on pictures of two sliding blobs: latents follow the joints they should, and the model exports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import stick_robot

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from numpy.typing import NDArray

from ropes_ros.dataset import FrameSet
from ropes_ros.densities import Bump, Density, Levels, Observational, Tilt
from ropes_ros.encoder import Encoder
from ropes_ros.errors import TrainingError
from ropes_ros.export import export
from ropes_ros.framing import Region
from ropes_ros.learning.augmentation import to_input
from ropes_ros.learning.checkpoint import load_checkpoint, load_net
from ropes_ros.learning.ropes import RopesConfig, RopesResult, train_ropes
from ropes_ros.learning.train import Epoch
from ropes_ros.robot import load_robot

SIZE = 16
CONFIG = RopesConfig(
    image_size=(SIZE, SIZE),
    code=8,
    channels=(8, 16),
    classifier_channels=(8, 16),
    autoencoder_epochs=14,
    classifier_epochs=5,
    latent_epochs=20,
    classifier_rate=3e-3,
    batch_size=64,
    span_s=5.0,
    seed=1,
)
GRID = np.linspace(-1.0, 1.0, 257)
SEGMENT = 20
"""Frames of each segment."""


def blobs(u: NDArray[np.float64]) -> NDArray[np.uint8]:
    """A red blob that the first joint slides sideways, and a green one that the second slides upwards."""
    place = np.arange(SIZE)
    moving = np.exp(-0.5 * ((place - (SIZE - 1) * (0.5 + 0.35 * u[:, :, None])) / (0.2 * SIZE)) ** 2)
    still = np.exp(-0.5 * ((place - 0.5 * (SIZE - 1)) / (0.2 * SIZE)) ** 2)
    images = np.full((len(u), SIZE, SIZE, 3), 30.0)
    images[..., 0] += 200.0 * still[:, None] * moving[:, 0, None, :]
    images[..., 1] += 200.0 * moving[:, 1, :, None] * still
    return images.round().astype(np.uint8)


def recording(
    folder: Path, densities: list[Density], count: int, *, single_joint: bool = False, seed: int = 0
) -> tuple[FrameSet, NDArray[np.float64]]:
    """Pictures of independent poses, in segments of one level each, and their angles u [N, 2].

    In the single-joint design the last density is the observational one, and at most one joint leaves it.
    """
    robot = stick_robot(folder)
    rng = np.random.default_rng(seed)
    segments = count // SEGMENT
    if single_joint:
        levels = np.full((segments, 2), len(densities) - 1)
        regime = rng.permutation(np.arange(segments) % (2 * len(densities) - 1))
        for joint in range(2):
            own = regime // (len(densities) - 1) == joint
            levels[own, joint] = regime[own] % (len(densities) - 1)
    else:
        levels = rng.integers(0, len(densities), (segments, 2))
    labels = levels.repeat(SEGMENT, axis=0).astype(np.int16)
    u = np.empty(labels.shape)
    for number, density in enumerate(densities):
        u[labels == number] = density.sample(rng, int((labels == number).sum()))
    frames = FrameSet(
        images=blobs(u),
        stamps_ns=np.arange(len(u), dtype=np.int64) * 100_000_000,
        labels=labels,
        segments=np.arange(2 * segments, dtype=np.int32).reshape(-1, 2).repeat(SEGMENT, axis=0),
        joint_names=tuple(robot.joint_names),
        level_ids=tuple(f"level{number}" for number in range(len(densities))),
        grid=GRID,
        log_density=np.stack([np.stack([density.log_pdf(GRID) for density in densities])] * 2),
        level_label_noise=0.8,
        robot=robot.name,
        schedule_hash="1" * 64,
        camera_size=(SIZE, SIZE),
        region=Region(0, 0, SIZE, SIZE),
        bag_hash="0" * 64,
        duplicates=0,
        home=robot.home,
        half_range=robot.half_range,
    )
    return frames, u


def correlations(result: RopesResult, frames: FrameSet, u: NDArray[np.float64]) -> NDArray[np.float64]:
    """[estimated joint, true joint] of the kept model."""
    net = load_net(load_checkpoint(result.checkpoint))
    with torch.no_grad():
        angle = net(to_input(frames.images)).angle.double().numpy()
    assert np.abs(angle).max() < 1.5
    return np.corrcoef(angle.T, u.T)[:2, 2:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ropes")


@pytest.fixture(scope="module")
def tilted(folder: Path) -> tuple[FrameSet, NDArray[np.float64]]:
    return recording(folder / "robot", list(Levels.tilts(3.0).densities), 2000)


@pytest.fixture(scope="module")
def trained(tilted: tuple[FrameSet, NDArray[np.float64]], folder: Path) -> tuple[RopesResult, list[Epoch], list[int]]:
    epochs: list[Epoch] = []
    steps: list[int] = []
    result = train_ropes(
        tilted[0],
        folder / "trained",
        config=CONFIG,
        on_step=lambda done, total, loss: steps.append(total - done),
        on_epoch=lambda epoch, floor: epochs.append(epoch),
    )
    return result, epochs, steps


def test_factorial_tilts_give_angles_in_the_commands_order_and_direction(
    trained: tuple[RopesResult, list[Epoch], list[int]], tilted: tuple[FrameSet, NDArray[np.float64]]
) -> None:
    result = trained[0]
    found = correlations(result, *tilted)
    assert (np.diag(found) > 0.9).all()
    assert abs(found[0, 1]) < 0.5 and abs(found[1, 0]) < 0.5
    assert result.sign_identified.all()
    assert (np.diag(result.score_differences) > 4.0 * result.score_differences[[0, 1], [1, 0]]).all()
    assert (result.classifier_loss < 0.5).all()
    assert result.reconstruction_error < 0.3
    assert len(result.notes) == 1 and "variance unexplained" in result.notes[0]


def test_progress_counts_down_to_nothing_and_losses_are_in_nats(
    trained: tuple[RopesResult, list[Epoch], list[int]],
) -> None:
    result, epochs, steps = trained
    assert steps == list(range(len(steps)))[::-1]
    assert epochs == result.history and len(epochs) == CONFIG.latent_epochs == result.best_epoch
    assert {epoch.task for epoch in epochs} == {"ropes"}
    # Below the floor by chance only: the regimes of unseen frames cannot be told better than the angles tell them.
    assert result.floor - 0.1 < epochs[-1].validation_loss < 0.5 * np.log(2.0)


def test_the_checkpoint_exports_and_the_model_agrees(
    trained: tuple[RopesResult, list[Epoch], list[int]],
    tilted: tuple[FrameSet, NDArray[np.float64]],
    folder: Path,
) -> None:
    frames, u = tilted
    preset = folder / "robot" / "robot.yaml"
    robot = load_robot(preset)
    model = export(trained[0].checkpoint, folder / "model", robot=str(preset)).parent
    estimate = Encoder(model).run(frames.images[:200])
    normalised = (estimate.position - robot.home) / robot.half_range
    assert (np.diag(np.corrcoef(normalised.T, u[:200].T)[:2, 2:]) > 0.9).all()
    assert (estimate.std > 0).all()


def test_pooled_bumps_and_a_permutation_found_without_commands(folder: Path) -> None:
    frames, u = recording(folder / "robot", list(Levels.bumps(4, 0.25).densities), 2000)
    result = train_ropes(frames, folder / "found", config=replace(CONFIG, permutation="found"))
    assert (np.diag(correlations(result, frames, u)) > 0.85).all()


def test_single_joint_widths_find_joints_but_no_directions(folder: Path) -> None:
    densities = [Bump(0.0, 0.25), Bump(0.0, 1.0), Observational()]
    frames, u = recording(folder / "robot", densities, 4000, single_joint=True)
    result = train_ropes(frames, folder / "widths", config=CONFIG)
    assert (np.abs(np.diag(correlations(result, frames, u))) > 0.85).all()
    assert not result.sign_identified.any()
    assert any("joint1, joint2 share their mean" in note and "as often wrong as right" in note for note in result.notes)


def test_regimes_get_equally_many_frames_and_an_untrained_run_says_so(folder: Path) -> None:
    densities = [Tilt(-3.0), Tilt(3.0), Observational()]
    frames, _ = recording(folder / "robot", densities, 2000, single_joint=True)
    # Take most frames of one regime away: all others must shrink with it.
    poor = np.where(np.arange(len(frames)) % 3 > 0, frames.labels[:, 0], -1)
    labels = frames.labels.copy()
    labels[:, 0] = np.where(labels[:, 0] == 1, poor, labels[:, 0])
    # With seed 0 the validation spans hold frames of both regimes of each joint, with seed 2 of neither joint.
    config = replace(CONFIG, autoencoder_epochs=1, classifier_epochs=1, latent_epochs=1, classifier_rate=1e-6, seed=0)
    counts: list[int] = []
    result = train_ropes(
        replace(frames, labels=labels),
        folder / "equal",
        config=config,
        on_step=lambda done, total, loss: counts.append(total),
    )
    regime = int((labels[:, 0] == 1).sum())
    batches = -(-regime // config.batch_size)
    # Training spans are 0.8 of the time: five regimes of one size, two of them in each of two pairs, one observational.
    expected = 0.8 * (2 * batches + 2 * 2 * batches)
    assert counts[0] == pytest.approx(expected, rel=0.3)
    assert len(result.history) == 1
    assert any("joint1, joint2 do no better than chance" in note for note in result.notes)
    assert any("are not in one latent each" in note for note in result.notes)
    unjudged = train_ropes(frames, folder / "unjudged", config=replace(config, seed=2))
    assert np.isnan(unjudged.classifier_loss).all()
    assert not any("chance" in note for note in unjudged.notes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"permutation": "guessed"}, "choose one of commands, found"),
        ({"image_size": (32, 16)}, "frames of 16x16 pixels: load them at 32x16"),
        ({"channels": (4,) * 5}, "sides must be multiples of 32"),
        ({"levels": ("level0", "level7")}, "no level 'level7'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    tilted: tuple[FrameSet, NDArray[np.float64]], folder: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        train_ropes(tilted[0], folder / "refused", config=replace(CONFIG, **changes))


def test_a_regime_of_few_frames_is_refused(tilted: tuple[FrameSet, NDArray[np.float64]], folder: Path) -> None:
    frames, _ = tilted
    labels = frames.labels.copy()
    labels[(labels[:, 1] == 0) & (np.arange(len(labels)) % 40 > 0), 1] = -1
    with pytest.raises(TrainingError, match=r"joint joint2 at level0 has \d\d training frames, .*: record longer"):
        train_ropes(replace(frames, labels=labels), folder / "poor", config=CONFIG)


def test_pictures_that_show_nothing_are_refused_before_training(
    tilted: tuple[FrameSet, NDArray[np.float64]], folder: Path
) -> None:
    black = replace(tilted[0], images=np.zeros_like(tilted[0].images))
    with pytest.raises(TrainingError, match="one colour all over"):
        train_ropes(black, folder / "black", config=CONFIG, on_step=lambda *_: pytest.fail("a step was taken"))


def test_the_defaults_are_the_published_ones() -> None:
    config = RopesConfig()
    assert (config.code, config.reconstruction, config.image_size) == (64, 0.1, (64, 64))
    assert (config.classifier_epochs, config.autoencoder_epochs, config.latent_epochs) == (10, 100, 150)

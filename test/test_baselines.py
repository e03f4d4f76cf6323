"""Baselines: each sees what it says and no more, and what learns without labels cannot reach them."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic import START_NS, draw, joint_states_cdr, message, serialize, stick_robot

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from ropes_ros.bags import TOPICS, BagWriter
from ropes_ros.dataset import FrameSet, split_spans
from ropes_ros.errors import TrainingError
from ropes_ros.framing import Region
from ropes_ros.learning.baselines import BASELINES, CommandFitted, Labelled, blurred_commands, labelled_bag, supervised
from ropes_ros.learning.baselines.common import command_track, is_continuous
from ropes_ros.learning.baselines.latent_tasks import QuantizedTask, divergence, shared_value_loss
from ropes_ros.learning.baselines.oracle import monotone_map, subspace_map
from ropes_ros.learning.networks import AngleNet, Prediction
from ropes_ros.learning.tasks import Batch
from ropes_ros.learning.train import TrainConfig
from ropes_ros.motion import Trajectory
from ropes_ros.regimes import make_schedule

CONFIG = TrainConfig(image_size=(32, 24), epochs=2, batch_size=64, shift=0, occlusion=0.1, span_s=4.0)
LONG = replace(CONFIG, epochs=8, batch_size=32, dropout=0.0)
SIZE = (32, 24)
FRAMES = 1500


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Labelled:
    """50 s of a stick arm that follows its commands but for 0.05 rad."""
    robot = stick_robot(tmp_path_factory.mktemp("robot"))
    schedule = make_schedule(robot, duration_s=50.0, seed=4)
    elapsed = (np.arange(FRAMES) * 33_333_333).astype(np.int64)
    commanded = Trajectory(robot, schedule).positions_at(elapsed)
    positions = commanded + 0.05
    frames = FrameSet(
        images=np.stack([draw(position, SIZE) for position in positions]),
        stamps_ns=START_NS + elapsed,
        labels=schedule.labels_at(elapsed),
        segments=schedule.segment_ids_at(elapsed),
        joint_names=robot.joint_names,
        level_ids=tuple(schedule.levels.ids),
        grid=schedule.grid,
        log_density=schedule.log_commanded,
        level_label_noise=schedule.label_noise,
        robot=robot.name,
        schedule_hash=schedule.hash,
        camera_size=SIZE,
        region=Region(0, 0, *SIZE),
        bag_hash="0" * 64,
        duplicates=0,
    )
    return Labelled(frames, positions, commanded, robot)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervised, "FEW_STEPS", 60)
    monkeypatch.setattr(supervised, "FEW_CHECK", 30)


def test_names_are_keys_and_every_row_says_what_it_was_told() -> None:
    assert all(name == baseline.name for name, baseline in BASELINES.items())
    assert all(baseline.description and baseline.supervision for baseline in BASELINES.values())
    oracles = {name for name, baseline in BASELINES.items() if "oracle map" in baseline.supervision}
    assert oracles == {"PCA + ICA", "autoencoder + ICA", "beta-VAE", "QLAE", "factor subspaces"}
    assert blurred_commands(0.1).name not in BASELINES


@pytest.mark.parametrize(
    "name", ["PCA + ICA", pytest.param("beta-VAE", marks=pytest.mark.slow), "QLAE", "factor subspaces"]
)
def test_representations_are_read_in_half_ranges(name: str, recording: Labelled, tmp_path: Path) -> None:
    fitted = BASELINES[name].fit(recording, seed=0, config=replace(CONFIG, epochs=1), out_dir=tmp_path)
    estimate = fitted.predict(recording.frames.images[:100])
    assert estimate.u.shape == (100, 2) and np.isfinite(estimate.u).all()
    assert len(estimate.latents) == 100 and np.isfinite(estimate.latents).all()
    assert estimate.std is None and "oracle map" in BASELINES[name].supervision


def test_all_labels_beat_chance_and_say_how_well(recording: Labelled, tmp_path: Path) -> None:
    config = replace(LONG, epochs=24)
    fitted = BASELINES["all labels"].fit(recording, seed=0, config=config, out_dir=tmp_path)
    split = split_spans(recording.frames, span_s=CONFIG.span_s, seed=0)
    u = recording.robot.normalise(recording.positions)[split.validation]
    estimate = fitted.predict(recording.frames.images[split.validation])
    error = np.abs(estimate.u - u)
    chance = np.abs(u - np.median(u, axis=0)).mean(axis=0)
    assert (error.mean(axis=0) < 0.5 * chance).all(), (error.mean(axis=0), chance)
    assert estimate.std is not None
    assert 0.8 < (error < 2.0 * estimate.std).mean() <= 1.0


def test_few_labels_use_no_other_label(recording: Labelled, tmp_path: Path) -> None:
    """With wrong positions everywhere but in the chosen frames the result is the same."""
    config = replace(CONFIG, epochs=1)
    first = BASELINES["50 labels"].fit(recording, seed=3, config=config, out_dir=tmp_path)
    split = split_spans(recording.frames, span_s=config.span_s, seed=3)
    chosen = np.random.default_rng([3, 50]).choice(split.train, 50, replace=False)
    wrong = np.zeros_like(recording.positions)
    wrong[chosen] = recording.positions[chosen]
    second = BASELINES["50 labels"].fit(recording._replace(positions=wrong), seed=3, config=config, out_dir=tmp_path)
    images = recording.frames.images[:20]
    estimate = first.predict(images)
    np.testing.assert_array_equal(estimate.u, second.predict(images).u)
    assert estimate.std is not None and estimate.std.shape == (20, 2) and (estimate.std > 0.0).all()
    unlabelled = np.full_like(wrong, np.nan)
    unlabelled[chosen[:40]] = 0.0
    with pytest.raises(TrainingError, match="50 labels are asked for, 40 frames have one"):
        BASELINES["50 labels"].fit(
            recording._replace(positions=unlabelled), seed=3, config=config, out_dir=tmp_path
        )


@pytest.mark.parametrize("name", [pytest.param("commanded position", marks=pytest.mark.slow), "command likelihood"])
def test_commands_are_learned_without_positions(name: str, recording: Labelled, tmp_path: Path) -> None:
    blind = recording._replace(positions=np.full_like(recording.positions, np.nan))
    fitted = BASELINES[name].fit(blind, seed=0, config=LONG, out_dir=tmp_path)
    u = recording.robot.normalise(recording.commanded)
    error = np.abs(fitted.predict(recording.frames.images).u - u).mean(axis=0)
    assert (error < 0.5 * np.abs(u - np.median(u, axis=0)).mean(axis=0)).all()
    if isinstance(fitted, CommandFitted):
        assert (np.abs(fitted.supervision.report().lag_s) < 0.05).all()
        width = fitted.supervision.report().width
        assert (fitted.predict(recording.frames.images[:5]).std >= width).all()  # type: ignore[operator]
    else:
        assert name == "commanded position"


def test_latents_do_not_depend_on_positions(recording: Labelled, tmp_path: Path) -> None:
    """Positions enter by the oracle map alone."""
    config = replace(CONFIG, epochs=1)
    mirrored = recording._replace(positions=-recording.positions)
    first = BASELINES["autoencoder + ICA"].fit(recording, seed=1, config=config, out_dir=tmp_path / "a")
    second = BASELINES["autoencoder + ICA"].fit(mirrored, seed=1, config=config, out_dir=tmp_path / "b")
    answers = [fitted.predict(recording.frames.images[:50]) for fitted in (first, second)]
    np.testing.assert_array_equal(answers[0].latents, answers[1].latents)
    assert np.abs(answers[0].u - answers[1].u).max() > 0.1


def test_a_track_of_poses_one_by_one_is_told_from_a_recording(recording: Labelled) -> None:
    assert is_continuous(recording.frames)
    alone = replace(recording.frames, segments=np.repeat(np.arange(FRAMES, dtype=np.int32)[:, None], 2, axis=1))
    assert not is_continuous(alone)
    late = recording.commanded.copy()
    late[:10] = np.nan
    assert command_track(recording._replace(commanded=late)).times_ns[0] == recording.frames.stamps_ns[10]
    with pytest.raises(TrainingError, match="no frame of the recording has a command"):
        command_track(recording._replace(commanded=np.full_like(late, np.nan)))


def test_a_bags_labels_are_read(recording: Labelled, tmp_path: Path) -> None:
    stamps = START_NS + np.arange(3) * 10**8
    frames = replace(recording.frames, images=recording.frames.images[:3], stamps_ns=stamps)
    path, robot = tmp_path / "bag", recording.robot
    layout = message("std_msgs/msg/MultiArrayLayout", dim=[], data_offset=0)
    target = message("std_msgs/msg/Float64MultiArray", layout=layout, data=np.array([0.3, 0.2]))
    with BagWriter(path, robot="stick") as writer:
        writer.add_topic(TOPICS["joint_command"], "std_msgs/msg/Float64MultiArray")
        writer.add_topic(TOPICS["joint_states"], "sensor_msgs/msg/JointState")
        writer.write(TOPICS["joint_command"], serialize(target), int(stamps[1]))
        for number, stamp in enumerate(stamps.tolist()):
            state = joint_states_cdr(stamp, robot.joint_names, np.array([0.1 * number, 0.5]))
            writer.write(TOPICS["joint_states"], state, stamp)
    labelled = labelled_bag(frames, path, robot)
    np.testing.assert_allclose(labelled.positions, [[0.0, 0.5], [0.1, 0.5], [0.2, 0.5]], atol=1e-12)
    np.testing.assert_allclose(labelled.commanded, [[np.nan, np.nan], [0.3, 0.2], [0.3, 0.2]], atol=1e-12)


def test_a_monotone_map_undoes_permutation_sign_and_warp() -> None:
    rng = np.random.default_rng(0)
    u = rng.uniform(-1.0, 1.0, (2000, 3))
    latents = np.stack([rng.normal(size=2000), -np.tanh(2.0 * u[:, 1]), u[:, 0] ** 3, np.exp(u[:, 2])], axis=1)
    read = monotone_map(latents, u)
    assert read.order.tolist() == [2, 1, 3]
    assert np.abs(read(latents) - u).max() < 0.05
    with pytest.raises(TrainingError, match="2 latents cannot tell 3 joints"):
        monotone_map(latents[:, :2], u)
    with pytest.raises(TrainingError, match="cannot be matched"):
        monotone_map(latents, np.zeros_like(u))


def test_a_subspace_map_reads_an_arc() -> None:
    u = np.random.default_rng(0).uniform(-1.0, 1.0, (2000, 2))
    latents = np.concatenate([np.stack([np.cos(2 * column), np.sin(2 * column)], axis=1) for column in u.T], axis=1)
    read = subspace_map(np.concatenate([latents, np.ones((2000, 3))], axis=1), u, 2)
    assert np.abs(read(latents) - u).mean() < 0.03


def test_the_gaussian_loss_is_least_at_the_errors_spread() -> None:
    """Errors of ±0.2: the gradient vanishes at std 0.2; at std 1 the weight is 1 and the loss 0.5 * 0.04 + 0."""
    target = torch.tensor([[0.2], [-0.2], [math.nan]])
    angle = torch.zeros((3, 1))
    one = supervised.gaussian_loss(Prediction(angle, torch.zeros((3, 1)), angle), target)
    assert one.item() == pytest.approx(0.02)
    log_std = torch.full((3, 1), math.log(0.2), requires_grad=True)
    supervised.gaussian_loss(Prediction(angle, log_std, angle), target).backward()
    assert log_std.grad is not None and log_std.grad.abs().max().item() < 1e-6
    squared = supervised.squared_loss(Prediction(angle, torch.zeros((3, 1)), angle), target)
    assert squared.item() == pytest.approx(0.04)


def test_contrast_is_the_share_of_the_pair() -> None:
    """Two pairs along two axes: each frame sees its partner at cosine 1, two others at 0, and not the unlabelled."""
    codes = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0], [5.0, 5.0]])
    values = torch.tensor([0, 0, 1, 1, -1])
    expected = -math.log(math.exp(2.0) / (math.exp(2.0) + 2.0))
    assert shared_value_loss(codes, values, 0.5).item() == pytest.approx(expected, rel=1e-5)
    assert shared_value_loss(codes, torch.tensor([0, 1, 2, 3, 4]), 0.5).item() == 0.0


def test_divergence_by_hand() -> None:
    """KL of N(1, 1) is 1/2; of N(0, e^2) it is (e^2 - 1 - 2) / 2."""
    found = divergence(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]]))
    np.testing.assert_allclose(found.numpy(), [[0.5, (math.exp(2.0) - 3.0) / 2.0]], rtol=1e-6)


def test_quantized_latents_take_few_values_and_pass_gradients() -> None:
    torch.manual_seed(0)
    net = AngleNet(SIZE, 2)
    recorded = np.random.default_rng(0).integers(0, 256, (64, 24, 32, 3)).astype(np.uint8)
    task = QuantizedTask(net, recorded, 4)
    images = torch.rand((64, 3, 24, 32))
    latents = task.encode(net.eval(), images)
    assert torch.isin(latents, task.codebook).all()
    loss, _ = task(net, Batch(images, None, None, torch.zeros((64, 2), dtype=torch.int64), torch.arange(64)))
    loss.backward()
    weight = net.stem[0].weight
    assert weight.grad is not None and weight.grad.abs().max().item() > 0.0


def test_latents_are_held_near_the_values_that_they_take() -> None:
    """At 3 the code is 0.5 as it is at 0.5, so that only the distance differs: 1.25 * 2.5^2 for each of 3*12*16 pixels.

    Without the pixels' number latents run away from a reconstruction that is a sum over them, and all say one value.
    """
    torch.manual_seed(0)
    task = QuantizedTask(AngleNet(SIZE, 2), np.zeros((2, 24, 32, 3), dtype=np.uint8), 4)
    images = torch.zeros((2, 3, 24, 32))
    batch = Batch(images, None, None, torch.zeros((2, 2), dtype=torch.int64), torch.arange(2))
    far, _ = task.loss(torch.full((2, 4), 3.0), batch)
    near, _ = task.loss(torch.full((2, 4), 0.5), batch)
    assert (far - near).item() == pytest.approx(1.25 * 2.5**2 * 3 * 12 * 16, rel=1e-4)


PACKAGE = Path(__file__).parents[1] / "ropes_ros"
LABEL_FREE = (
    "dataset",
    "export",
    *(
        f"learning.{name}"
        for name in (
            *("train", "tasks", "constraints", "mechanism", "calibrate", "refine", "ensemble", "validation", "ropes"),
            *("networks", "align", "scores", "augmentation", "loader", "checkpoint"),
        )
    ),
)
FORBIDDEN = ("truth", "sim", "learning.baselines", "learning.supervision", "metrics", "evaluation", "commands")


def source(module: str) -> Path | None:
    """The file of a module of the package, by its name below the package."""
    path = PACKAGE.joinpath(*module.split("."))
    found = [candidate for candidate in (path.with_suffix(".py"), path / "__init__.py") if candidate.is_file()]
    return found[0] if found else None


def imports(module: str) -> Iterator[str]:
    """Modules of the package that a module imports anywhere in it, with the packages that hold them."""
    path = source(module)
    assert path is not None
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert not node.level and node.module is not None, f"{path}: relative import"
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            below = name.removeprefix("ropes_ros.")
            if below != name and source(below) is not None:
                yield below


def test_what_learns_without_labels_cannot_reach_them() -> None:
    """The import graph from the label-free modules holds nothing that reads positions."""
    roots = [module for module in LABEL_FREE if source(module) is not None]
    assert {"dataset", "learning.train", "learning.mechanism"} <= set(roots)
    came_from = {root: "" for root in roots}
    waiting = list(roots)
    while waiting:
        module = waiting.pop()
        for below in imports(module):
            if below not in came_from:
                came_from[below] = module
                waiting.append(below)
    bad = {m: came_from[m] for m in came_from if any(m == f or m.startswith(f + ".") for f in FORBIDDEN)}
    assert not bad, f"imported by the modules named: {bad}"
    assert "truth" in set(imports("learning.baselines.common"))  # the walk sees such imports where there are some

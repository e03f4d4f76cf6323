"""Learning on a small synthetic recording: it finds angles, repeats itself, resumes, and cannot see labels of pose."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from synthetic import START_NS, positions_of, stick_robot, write_synthetic_bag

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from ropes_ros.dataset import FrameSet, load_frames, split_spans
from ropes_ros.encoder import INPUT, OUTPUTS, Encoder, file_sha256
from ropes_ros.errors import ModelError, TrainingError
from ropes_ros.evaluation import evaluate
from ropes_ros.export import PARITY_SHARE, DeployedEncoder, _assert_parity, export
from ropes_ros.framing import Region
from ropes_ros.learning.calibrate import Calibrated, Calibration
from ropes_ros.learning.checkpoint import load_checkpoint, load_net
from ropes_ros.learning.networks import Prediction
from ropes_ros.learning.train import TrainConfig, TrainResult, train

CONFIG = TrainConfig(image_size=(32, 24), epochs=14, batch_size=64, occlusion=0.1, shift=0, seed=3)
SHORT = replace(CONFIG, epochs=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("learning")


@pytest.fixture(scope="module")
def bag(folder: Path) -> Path:
    write_synthetic_bag(folder / "bag", frames=4500, size=(64, 48), joints=2, seed=2)
    return folder / "bag"


@pytest.fixture(scope="module")
def frames(bag: Path, folder: Path) -> FrameSet:
    return load_frames(bag, size=CONFIG.image_size, cache_dir=folder / "cache")


@pytest.fixture(scope="module")
def trained(frames: FrameSet, folder: Path) -> TrainResult:
    return train(frames, folder / "trained", config=CONFIG)


@pytest.fixture(scope="module")
def model(trained: TrainResult, folder: Path) -> Path:
    return export(trained.checkpoint, folder / "model", robot=str(folder / "bag.robot" / "robot.yaml"))


def weights(path: Path) -> dict[str, torch.Tensor]:
    content: dict[str, torch.Tensor] = load_checkpoint(path)["best"]
    return content


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_beats_chance_on_motion_of_another_seed(model: Path, folder: Path) -> None:
    """Chance is the best constant answer, whose mean error over the box is about half of a half range."""
    write_synthetic_bag(folder / "other", frames=900, size=(64, 48), joints=2, seed=99)
    robot = stick_robot(folder / "chance")
    stamps = START_NS + 33_333_333 * np.arange(800, dtype=np.int64)
    encoder = Encoder(model)
    from synthetic import draw

    schedule_positions = _other_positions(folder, robot, stamps)
    images = np.stack([draw(position, (64, 48)) for position in schedule_positions])
    error = np.abs(encoder.run(images).position - schedule_positions).mean(axis=0)
    chance = np.abs(schedule_positions - np.median(schedule_positions, axis=0)).mean(axis=0)
    assert (error < 0.35 * chance).all(), (error, chance)


def _other_positions(folder: Path, robot: object, stamps: np.ndarray) -> np.ndarray:
    from ropes_ros.bags import open_bag
    from ropes_ros.robot import Robot

    assert isinstance(robot, Robot)
    with open_bag(folder / "other") as other:
        return positions_of(robot, other.schedule, stamps)


def test_losses_respect_the_floor(trained: TrainResult) -> None:
    held_out = min(entry.validation_loss for entry in trained.history)
    assert trained.history[0].validation_loss < np.log(8.0)
    assert held_out > trained.floor - 0.15
    assert trained.history[trained.best_epoch - 1].validation_loss == held_out


def test_std_covers_a_fair_share(
    model: Path, bag: Path, frames: FrameSet, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """Of three nets together: one so small, from so little, may well be too sure by itself."""
    monkeypatch.setattr("ropes_ros.evaluation.bundled_robot", lambda name: stick_robot(folder / "again"))
    models = [model]
    for seed in (0, 1):
        other = train(frames, folder / f"trained{seed}", config=replace(CONFIG, seed=seed))
        models.append(export(other.checkpoint, folder / f"model{seed}", robot=str(folder / "bag.robot" / "robot.yaml")))
    evaluations = [evaluate(Encoder(each), bag) for each in models]
    assert (np.mean([evaluation.coverage["2"] for evaluation in evaluations], axis=0) > 0.7).all()
    assert min(evaluation.metrics.mcc for evaluation in evaluations) > 0.9


def test_noise_is_novel(model: Path, frames: FrameSet) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (20, 48, 64, 3)).astype(np.uint8)
    assert (Encoder(model).run(noise).novelty > 1.0).all()


def test_joint_states_do_not_reach_training(folder: Path, frames: FrameSet) -> None:
    """A bag without joint states gives the same weights, bit for bit."""
    stripped = folder / "stripped"
    write_synthetic_bag(stripped, frames=4500, size=(64, 48), joints=2, seed=2, with_joint_states=False)
    blind = load_frames(stripped, size=CONFIG.image_size, cache_dir=folder / "cache")
    assert blind.bag_hash != frames.bag_hash
    first = train(frames, folder / "seeing", config=SHORT)
    second = train(blind, folder / "blind", config=SHORT)
    assert same(weights(first.checkpoint), weights(second.checkpoint))


def test_learning_imports_no_truth() -> None:
    """The rooms that learn load neither the reader of measured angles nor the evaluation."""
    rooms = ("pipeline", "ropes", "ensemble", "supervision", "scores", "align", "scm")
    code = (
        f"import sys, ropes_ros.export, {', '.join(f'ropes_ros.learning.{room}' for room in rooms)};"
        "sys.exit(any(name in sys.modules for name in ('ropes_ros.truth', 'ropes_ros.evaluation')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_resumed_run_equals_an_uninterrupted_one(folder: Path, frames: FrameSet) -> None:
    class Killed(Exception):
        pass

    def kill_in_second_epoch(done: int, total: int, loss: float) -> None:
        if done == total - 3:
            raise Killed

    whole = train(frames, folder / "whole", config=SHORT)
    with pytest.raises(Killed):
        train(frames, folder / "cut", config=SHORT, on_step=kill_in_second_epoch)
    resumed = train(frames, folder / "cut", config=SHORT, resume=True)
    assert same(weights(whole.checkpoint), weights(resumed.checkpoint))
    with pytest.raises(TrainingError, match="another config"):
        train(frames, folder / "cut", config=replace(SHORT, seed=4), resume=True)


def test_unfinished_training_is_not_exported(folder: Path, frames: FrameSet) -> None:
    class Killed(Exception):
        pass

    def kill(done: int, total: int, loss: float) -> None:
        if done == total - 3:
            raise Killed

    with pytest.raises(Killed):
        train(frames, folder / "unfinished", config=SHORT, on_step=kill)
    with pytest.raises(TrainingError, match="did not end"):
        export(folder / "unfinished" / "checkpoint.pt", folder / "unfinished_model")


def test_model_says_what_it_is(model: Path, frames: FrameSet) -> None:
    info = Encoder(model).info
    assert info.robot == "stick"
    assert info.joint_names == ("joint1", "joint2")
    assert info.camera_size == (64, 48)
    assert info.bags == (frames.bag_hash,)
    assert info.schedule_hash == frames.schedule_hash
    assert info.level_label_noise == pytest.approx(0.165, abs=0.005)
    assert file_sha256(model) in (model.parent / "card.md").read_text()


def test_batches_give_what_single_images_give(model: Path) -> None:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (5, 48, 64, 3)).astype(np.uint8)
    encoder = Encoder(model)
    together = encoder.run(images)
    for index in range(5):
        alone = encoder.run(images[index])
        np.testing.assert_allclose(alone.position[0], together.position[index], atol=1e-5)
        np.testing.assert_allclose(alone.novelty[0], together.novelty[index], rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [({"robot": "arm6"}, "was trained for robot 'stick'"), ({"require_gpu": True}, "GPU was required")],
)
def test_unsuitable_use_is_refused(model: Path, arguments: dict[str, object], complaint: str) -> None:
    from ropes_ros.errors import RopesError

    with pytest.raises(RopesError, match=complaint):
        Encoder(model, **arguments)  # type: ignore[arg-type]


def test_wrong_images_are_refused(model: Path) -> None:
    with pytest.raises(ModelError, match="takes uint8 RGB images of 64x48"):
        Encoder(model).run(np.zeros((1, 24, 32, 3), dtype=np.uint8))


def test_damaged_models_are_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model"):
        Encoder(tmp_path)
    copy = tmp_path / "model.onnx"
    copy.write_bytes(model.read_bytes())
    with pytest.raises(ModelError, match=r"card\.md: missing"):
        Encoder(copy)
    card = (model.parent / "card.md").read_text()
    (tmp_path / "card.md").write_text(card)
    copy.write_bytes(model.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"not the one in card\.md"):
        Encoder(copy)
    (tmp_path / "card.md").write_text(card.replace(file_sha256(model), file_sha256(copy)))
    with pytest.raises(ModelError, match="cannot load it"):
        Encoder(copy)


def test_unknown_schema_version_is_refused(model: Path, tmp_path: Path) -> None:
    import onnx

    changed = onnx.load(str(model))
    for entry in changed.metadata_props:
        entry.value = entry.value.replace('"schema_version": 2', '"schema_version": 99')
    onnx.save(changed, str(tmp_path / "model.onnx"))
    digest = file_sha256(tmp_path / "model.onnx")
    (tmp_path / "card.md").write_text(f"SHA-256 of model.onnx: `{digest}`")
    with pytest.raises(ModelError, match="schema version 99 is unknown"):
        Encoder(tmp_path)


def test_graph_resizes_as_the_dataset_does(model: Path, trained: TrainResult, frames: FrameSet, folder: Path) -> None:
    """Estimates from camera-size images equal those of network and calibration on images averaged for the dataset."""
    from ropes_ros.framing import AreaResizer
    from ropes_ros.learning.augmentation import to_input

    rng = np.random.default_rng(2)
    images = cv2.blur(rng.integers(0, 256, (48, 64, 3)).astype(np.uint8), (5, 5))[None]
    seen = np.ascontiguousarray(frames.region.cut(images[0]))
    small = np.empty((1, CONFIG.image_size[1], CONFIG.image_size[0], 3), dtype=np.uint8)
    AreaResizer((seen.shape[1], seen.shape[0]), CONFIG.image_size)(seen, small[0])
    content = load_checkpoint(trained.checkpoint)
    said = load_net(content)(to_input(small))
    angle, _ = Calibrated(Calibration.from_dict(content["calibration"]))(said.angle, said.log_std)
    robot = stick_robot(folder / "third")
    expected = np.clip(robot.denormalise(angle.detach().numpy()), robot.lower, robot.upper)
    np.testing.assert_allclose(Encoder(model).run(images).position, expected, atol=1e-3)


@pytest.mark.parametrize("region, size", [((256, 240), (88, 80)), ((64, 48), (32, 24)), ((61, 47), (30, 24))])
def test_what_lies_between_two_grey_levels_is_rounded_as_the_exact_average(
    region: tuple[int, int], size: tuple[int, int], trained: TrainResult, folder: Path
) -> None:
    """A sum that a runtime rounds another way would move a hundredth of the pixels by a grey level."""

    class Watching(torch.nn.Module):
        image_size = size

        def forward(self, small: torch.Tensor) -> Prediction:
            self.seen = small
            return Prediction(torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1, widths))

    calibration = Calibration.from_dict(load_checkpoint(trained.checkpoint)["calibration"])
    widths, robot = len(calibration.familiar.mean), stick_robot(folder / "fourth")
    (width, height), net = region, Watching()
    box = np.zeros(2), np.ones(2)
    deployed = DeployedEncoder(net, calibration, robot, Region(1, 2, width, height), *box)
    image = np.random.default_rng(4).integers(0, 256, (height + 4, width + 3, 3)).astype(np.uint8)
    deployed(torch.from_numpy(image[None]))
    # of source pixel k and target pixel j, what they share, in units of 1 / target of a source pixel
    shared = [
        np.array([[max(0, min((j + 1) * source, (k + 1) * target) - max(j * source, k * target)) for k in range(source)]
                  for j in range(target)])
        for source, target in ((height, size[1]), (width, size[0]))
    ]  # fmt: skip
    cut = image[2 : 2 + height, 1 : 1 + width].astype(np.int64)
    total = np.einsum("ij,jkc,lk->cil", shared[0], cut, shared[1])
    np.testing.assert_array_equal((255.0 * net.seen[0]).round().numpy(), np.round(total / (height * width)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_exports_may_differ_from_torch_by_a_share_of_the_output(tmp_path: Path) -> None:
    """Of an output of 1,000 that is 1.001, far more than of one in radians; twice as much is refused."""

    class Answers(torch.nn.Module):
        def __init__(self, novelty: float) -> None:
            super().__init__()
            self.novelty = novelty

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
            nothing = 0.0 * image.to(torch.float32).mean(dim=(1, 2, 3))
            return nothing[:, None], nothing[:, None] + 0.1, nothing + self.novelty

    path, camera = tmp_path / "model.onnx", (8, 6)
    torch.onnx.export(
        Answers(1000.0),
        (torch.zeros((1, camera[1], camera[0], 3), dtype=torch.uint8),),
        str(path),
        input_names=[INPUT],
        output_names=list(OUTPUTS),
        dynamic_axes={name: {0: "batch"} for name in (INPUT, *OUTPUTS)},
        dynamo=False,
    )
    _assert_parity(Answers(1000.0 * (1.0 + 0.9 * PARITY_SHARE)), camera, path)
    with pytest.raises(ModelError, match="output novelty differs between torch and onnxruntime"):
        _assert_parity(Answers(1000.0 * (1.0 + 2.0 * PARITY_SHARE)), camera, path)


def test_spans_keep_segments_apart(frames: FrameSet) -> None:
    split = split_spans(frames, span_s=10.0, seed=0)
    for joint in range(2):
        used = [
            set(frames.segments[part, joint][split.labels[part, joint] >= 0].tolist())
            for part in (split.train, split.validation, split.calibration)
        ]
        assert not (used[0] & used[1] or used[0] & used[2] or used[1] & used[2])

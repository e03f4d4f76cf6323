"""The loop beyond the plain case: other tasks, pretraining, starting from a model, precision, logs."""

from __future__ import annotations

import builtins
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stick_frames import SIZE, stick_frames

torch = pytest.importorskip("torch")

from ropes_ros.dataset import FrameSet
from ropes_ros.errors import RuntimeSetupError, TrainingError
from ropes_ros.learning.augmentation import to_input
from ropes_ros.learning.checkpoint import encoder_of, find_checkpoint, load_checkpoint, load_net
from ropes_ros.learning.mechanism import level_shares
from ropes_ros.learning.optimisation import one_cycle
from ropes_ros.learning.train import INIT_RATE, TrainConfig, TrainResult, train

CONFIG = TrainConfig(
    image_size=SIZE, epochs=2, batch_size=64, occlusion=0.0, shift=0, span_s=4.0, precision="float32", seed=1
)
BOTH = replace(CONFIG, pretrain="reconstruction", pretrain_epochs=1)


@pytest.fixture(scope="module")
def frames() -> FrameSet:
    return stick_frames(1100)


@pytest.fixture(scope="module")
def plain(frames: FrameSet, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return train(frames, tmp_path_factory.mktemp("plain"), config=CONFIG)


@pytest.fixture(scope="module")
def pretrained(frames: FrameSet, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return train(frames, tmp_path_factory.mktemp("pretrained"), config=BOTH)


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_history_tells_pretraining_from_training(pretrained: TrainResult) -> None:
    tasks = [(entry.epoch, entry.task) for entry in pretrained.history]
    assert tasks == [(1, "reconstruction"), (2, "mechanism"), (3, "mechanism")]
    kept = pretrained.history[pretrained.best_epoch - 1]
    assert kept.validation_loss == min(entry.validation_loss for entry in pretrained.history[1:])
    assert load_checkpoint(pretrained.checkpoint)["progress"][3] == pretrained.best_epoch > 1


def test_pretraining_is_built_upon_with_a_fresh_head(pretrained: TrainResult, plain: TrainResult) -> None:
    """The first loss of the task is not that of latents that another task spread beyond the joints' range."""
    assert pretrained.history[1].training_loss < np.log(8.0) + 0.3
    assert pretrained.history[1].training_loss != plain.history[0].training_loss


@pytest.mark.parametrize("done_epochs", [1, 2])
def test_a_run_cut_in_training_resumes_to_the_same_weights(
    frames: FrameSet, pretrained: TrainResult, tmp_path: Path, done_epochs: int
) -> None:
    """Cut where the checkpoint is the pretraining's last one, and an epoch later."""

    class Killed(Exception):
        pass

    def kill(done: int, total: int, _loss: float) -> None:
        if done > done_epochs * total // 3 + 3:
            raise Killed

    with pytest.raises(Killed):
        train(frames, tmp_path, config=BOTH, on_step=kill)
    assert load_checkpoint(tmp_path / "checkpoint.pt")["progress"][0] == done_epochs
    resumed = train(frames, tmp_path, config=BOTH, resume=True)
    assert same(load_checkpoint(pretrained.checkpoint)["best"], load_checkpoint(resumed.checkpoint)["best"])
    assert [entry.task for entry in resumed.history] == [entry.task for entry in pretrained.history]


@pytest.mark.parametrize(("task", "constraint"), [("reconstruction", "quantized"), ("contrastive", "independence")])
def test_any_task_with_any_constraint_ends_in_angles(
    frames: FrameSet, tmp_path: Path, task: str, constraint: str
) -> None:
    config = replace(CONFIG, task=task, constraint=constraint, epochs=2)
    result = train(frames, tmp_path, config=config)
    content = load_checkpoint(result.checkpoint)
    assert content["architecture"]["kind"] == "aligned"
    assert result.history[0].constraint_loss != 0.0
    assert result.history[1].training_loss < result.history[0].training_loss
    prediction = load_net(content)(to_input(frames.images[:64]))
    assert prediction.angle.shape == (64, 2)
    assert prediction.angle.abs().max() < 2.0
    inner, weights = encoder_of(content)
    assert inner["kind"] == "angle" and weights.keys() == content["average"].keys()
    assert train(frames, tmp_path, config=config, resume=True).best_epoch == result.best_epoch


def test_constraints_weigh_in(frames: FrameSet, tmp_path: Path) -> None:
    """A heavy weight on dependence lowers it."""
    config = replace(CONFIG, constraint="independence")
    light = train(frames, tmp_path / "light", config=replace(config, constraint_weight=0.0))
    heavy = train(frames, tmp_path / "heavy", config=replace(config, constraint_weight=50.0))
    assert heavy.history[-1].constraint_loss < 0.7 * light.history[-1].constraint_loss


def test_starting_from_a_model_keeps_what_it_knows(frames: FrameSet, plain: TrainResult, tmp_path: Path) -> None:
    one = replace(CONFIG, epochs=1, seed=2)
    fresh = train(frames, tmp_path / "fresh", config=one)
    adapted = train(frames, tmp_path / "adapted", config=one, init=plain.checkpoint.parent)
    assert adapted.history[0].validation_loss < fresh.history[0].validation_loss - 0.1
    rate = load_checkpoint(adapted.checkpoint)["optimiser"]["param_groups"][0]["lr"]
    usual = load_checkpoint(fresh.checkpoint)["optimiser"]["param_groups"][0]["lr"]
    assert rate == pytest.approx(INIT_RATE * usual)
    assert adapted.held_out_loss == min(entry.validation_loss for entry in adapted.history)
    with pytest.raises(TrainingError, match="another init"):
        train(frames, tmp_path / "adapted", config=one, resume=True)


def test_what_is_started_from_is_kept_where_training_makes_it_worse(
    frames: FrameSet, plain: TrainResult, tmp_path: Path
) -> None:
    """Adapted at a learning rate that ruins it."""
    hot = replace(CONFIG, epochs=1, learning_rate=50.0)
    adapted = train(frames, tmp_path, config=hot, init=plain.checkpoint)
    assert adapted.best_epoch == 0
    assert adapted.history[0].validation_loss > adapted.held_out_loss == pytest.approx(plain.held_out_loss, abs=0.05)
    content, start = (load_checkpoint(result.checkpoint)["best"] for result in (adapted, plain))
    assert all(torch.equal(content[name], start[name]) for name in start)


def test_starting_from_what_does_not_fit_is_refused(frames: FrameSet, plain: TrainResult, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="its network differs in backbone"):
        other = replace(CONFIG, backbone="residual-small")
        train(frames, tmp_path / "other", config=other, init=plain.checkpoint)
    model = tmp_path / "model"
    model.mkdir()
    with pytest.raises(TrainingError, match=r"holds no checkpoint\.pt"):
        find_checkpoint(model / "model.onnx")
    with pytest.raises(TrainingError, match="no such model or checkpoint"):
        find_checkpoint(tmp_path / "nowhere")


def test_bfloat16_learns_as_float32_does(frames: FrameSet, plain: TrainResult, tmp_path: Path) -> None:
    coarse = train(frames, tmp_path, config=replace(CONFIG, precision="bfloat16"))
    assert coarse.history[-1].validation_loss == pytest.approx(plain.history[-1].validation_loss, abs=0.08)
    best = load_checkpoint(coarse.checkpoint)["best"]
    assert {value.dtype for value in best.values()} <= {torch.float32, torch.int64}
    assert not same(best, load_checkpoint(plain.checkpoint)["best"])


@pytest.mark.slow
def test_a_compiled_network_learns_the_same(frames: FrameSet, plain: TrainResult, tmp_path: Path) -> None:
    pytest.importorskip("torch._inductor")
    compiled = train(frames, tmp_path, config=replace(CONFIG, compile=True))
    assert compiled.history[-1].validation_loss == pytest.approx(plain.history[-1].validation_loss, abs=0.08)
    kept, other = (load_checkpoint(result.checkpoint)["best"] for result in (compiled, plain))
    assert kept.keys() == other.keys()


def test_compiling_without_a_compiler_is_refused(
    frames: FrameSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(TrainingError, match=r"there is no g\+\+: install g\+\+"):
        train(frames, tmp_path, config=replace(CONFIG, compile=True))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"precision": "float8"}, "precision 'float8' is unknown: choose one of"),
        ({"task": "guessing"}, "task 'guessing' is unknown"),
        ({"constraint": "tight"}, "constraint 'tight' is unknown"),
        ({"backbone": "spine"}, "backbone 'spine' is unknown"),
        ({"pretrain": "guessing"}, "task 'guessing' is unknown"),
        ({"learning_rate": 1e30}, "lower the learning rate"),
    ],
)
def test_settings_that_are_unknown_are_refused(
    frames: FrameSet, tmp_path: Path, change: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(TrainingError, match=complaint):
        train(frames, tmp_path, config=replace(CONFIG, **change))


def test_logs_hold_the_losses(frames: FrameSet, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = train(frames, tmp_path / "run", config=CONFIG, log_dir=tmp_path / "log")
    log = EventAccumulator(str(tmp_path / "log"))
    log.Reload()
    held_out = [event.value for event in log.Scalars("loss/held_out")]
    assert held_out == pytest.approx([entry.validation_loss for entry in result.history])
    assert [event.value for event in log.Scalars("loss/floor")] == pytest.approx([result.floor] * 2)
    rates = [event.value for event in log.Scalars("learning_rate")]
    assert min(rates) > 0.0 and max(rates) <= CONFIG.learning_rate
    assert all(event.value > 0.0 for event in log.Scalars("frames_per_second"))


def test_logs_without_tensorboard_are_refused(
    frames: FrameSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.startswith("torch.utils.tensorboard"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(RuntimeSetupError, match=r"pip install 'ropes_ros\[log\]'"):
        train(frames, tmp_path / "run", config=CONFIG, log_dir=tmp_path / "log")
    assert not (tmp_path / "run").exists()


def test_a_joint_that_was_never_in_a_regime_is_left_out(frames: FrameSet, tmp_path: Path, plain: TrainResult) -> None:
    labels = frames.labels.copy()
    labels[:, 1] = -1
    blind = replace(frames, labels=labels, segments=np.where(labels < 0, -1, frames.segments).astype(np.int32))
    result = train(blind, tmp_path, config=CONFIG)
    assert any("joint2" in finding for finding in load_checkpoint(result.checkpoint)["findings"])
    assert result.calibration.identified.tolist() == [True, False]
    assert result.floor == pytest.approx(plain.floor, abs=0.05)


def test_shares_of_levels() -> None:
    labels = np.array([[0, -1], [1, -1], [1, -1], [-1, -1]], dtype=np.int16)
    np.testing.assert_allclose(level_shares(labels, ("a", "b"), ("low", "high")), [[1 / 3, 2 / 3], [0.5, 0.5]])
    with pytest.raises(TrainingError, match="joint a has no training frame at level other"):
        level_shares(labels, ("a", "b"), ("low", "high", "other"))


def test_the_learning_rate_rises_once_and_falls() -> None:
    values = [one_cycle(progress) for progress in np.linspace(0.0, 1.0, 101)]
    top = int(np.argmax(values))
    assert values[top] == pytest.approx(1.0) and 5 <= top <= 10
    assert (np.diff(values[:top]) > 0).all() and (np.diff(values[top:]) < 0).all()
    assert values[-1] == pytest.approx(0.01)

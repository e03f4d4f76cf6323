"""Ensembles: what each member is not shown, what the student learns from them, and how models are compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from oracle import Case, Oracle, case
from torch import nn

from ropes_ros.dataset import FrameSet, Split, split_spans
from ropes_ros.errors import TrainingError
from ropes_ros.learning import networks
from ropes_ros.learning.calibrate import Calibration, calibrate
from ropes_ros.learning.checkpoint import save_checkpoint
from ropes_ros.learning.ensemble import (
    DistilTask,
    Member,
    compare,
    distil_task,
    select,
    train_members,
)
from ropes_ros.learning.networks import Prediction
from ropes_ros.learning.tasks import Batch


class Off(Oracle):
    """An oracle whose angles are off by a constant."""

    def __init__(self, joints: int, by: float, std: float = 0.05) -> None:
        super().__init__(joints, std)
        self.by = by

    def forward(self, images: torch.Tensor) -> Prediction:
        prediction = super().forward(images)
        return prediction._replace(angle=prediction.angle + self.by)


@pytest.fixture(scope="module")
def made() -> Case:
    """Segments of 7 s, so that some reach over the borders of spans of 30 s."""
    return case(segments=300, length=7)


@pytest.fixture
def checkpoint(made: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes finished checkpoints of nets that are off by something."""
    monkeypatch.setitem(networks.KINDS, "off", lambda plain: Off(2, plain["by"], plain["std"]))
    calibrations: dict[tuple[float, float], Calibration] = {}

    def write(by: float, *, std: float = 0.05, seed: int = 0, bag: str = "bag", finished: bool = True) -> Path:
        path = tmp_path / f"{by}-{std}-{seed}-{bag}-{finished}.pt"
        if (by, std) not in calibrations:
            calibrations[by, std] = calibrate(Off(2, by, std), made.frames, made.split, made.objective)
        save_checkpoint(
            path,
            {
                "architecture": {"kind": "off", "by": by, "std": std},
                "best": {},
                "config": {"span_s": 30.0, "seed": seed},
                "frames": {"bag_hash": bag},
                "calibration": calibrations[by, std].to_dict() if finished else None,
            },
        )
        return path

    return write


def members_of(made: Case, tmp_path: Path, count: int) -> tuple[Split, list[Member], list[FrameSet]]:
    split = split_spans(made.frames, span_s=30.0, seed=0)
    given: list[FrameSet] = []

    def train_one(frames: FrameSet, folder: Path) -> Path:
        given.append(frames)
        return folder / "checkpoint.pt"

    return split, train_members(made.frames, split, tmp_path, train_one, count=count), given


def test_members_are_shown_all_groups_but_one(made: Case, tmp_path: Path) -> None:
    split, members, given = members_of(made, tmp_path, 3)
    seen = np.stack([member.seen for member in members])
    assert (seen[:, split.train].sum(axis=0) == 2).all()
    assert not seen[:, np.concatenate([split.validation, split.calibration])].any()
    for member, frames in zip(members, given, strict=True):
        missed = np.setdiff1d(split.train, np.flatnonzero(member.seen))
        assert (frames.labels[missed] == -1).all()
        assert (frames.labels[member.seen] >= 0).mean() > 0.5
        again = split_spans(frames, span_s=30.0, seed=0)
        assert np.isin(again.train, np.flatnonzero(member.seen)).all()
        for joint in range(2):
            shown = frames.segments[frames.labels[:, joint] >= 0, joint]
            assert not np.isin(shown, frames.segments[missed, joint]).any()
    assert len({str(member.checkpoint) for member in members}) == 3


def test_an_ensemble_needs_a_span_for_each_member(made: Case, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="ensemble of 500"):
        members_of(made, tmp_path, 500)
    with pytest.raises(TrainingError, match="ensemble of 1 "):
        members_of(made, tmp_path, 1)


class Constant(nn.Module):
    """Says the same of every image."""

    def __init__(self) -> None:
        super().__init__()
        self.angle = nn.Parameter(torch.zeros(1, 2))
        self.log_std = nn.Parameter(torch.full((1, 2), -1.0))

    def forward(self, images: torch.Tensor) -> Prediction:
        count = len(images)
        return Prediction(self.angle.expand(count, -1), self.log_std.expand(count, -1), images)


def test_the_student_learns_mean_and_spread_of_those_who_may_teach() -> None:
    """Members say 0.1, 0.3 and, where it may not teach, 0.9: the mean is 0.2, the spread 0.1."""
    angle = np.tile(np.array([0.1, 0.3, 0.9], np.float32)[:, None, None], (1, 4, 2))
    weight = np.tile(np.array([0.5, 0.5, 0.0], np.float32)[:, None], (1, 4))
    task, net = DistilTask(angle, weight), Constant()
    batch = Batch(torch.zeros(4, 3, 2, 2), None, None, torch.zeros(4, 2).long(), torch.arange(4))
    optimiser = torch.optim.LBFGS(net.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss: torch.Tensor = task(net, batch)[0]
        loss.backward()
        return loss

    optimiser.step(closure)
    np.testing.assert_allclose(net.angle.detach().numpy(), 0.2, atol=1e-3)
    np.testing.assert_allclose(net.log_std.detach().exp().numpy(), 0.1, rtol=1e-2)


def test_those_who_saw_a_frame_do_not_teach_it(made: Case, checkpoint: Callable[..., Path]) -> None:
    paths = [checkpoint(0.0), checkpoint(0.2)]
    first = np.zeros(len(made.frames), dtype=np.bool_)
    first[:10] = True
    second = np.zeros_like(first)
    second[5:15] = True
    task = distil_task([Member(paths[0], first), Member(paths[1], second)], made.frames)(
        made.frames,
        np.ones((2, 8)),
        None,  # type: ignore[arg-type]
    )
    assert task.weight[:, [0, 7, 12, 20]].T.tolist() == [[0.0, 1.0], [0.5, 0.5], [1.0, 0.0], [0.5, 0.5]]
    inside = np.abs(made.angle) < 0.6
    np.testing.assert_allclose((task.angle[1] - task.angle[0]).numpy()[inside], 0.2, atol=1e-5)


def test_the_model_with_the_lowest_regime_loss_is_best(made: Case, checkpoint: Callable[..., Path]) -> None:
    """As it was trained: a map would mend what the first is off by, on the very frames that are compared on."""
    result = compare([checkpoint(0.2), checkpoint(0.0)], [made.frames] * 2, made.split)
    assert result.best == 1 and (result.losses[0] > result.losses[1] + 0.05).all()
    assert result.errors[1] == 0.0 and result.errors[0] > 0.0
    assert result.frames == len(made.split.calibration)


def test_selection_uses_only_frames_that_no_model_was_trained_on(made: Case, checkpoint: Callable[..., Path]) -> None:
    own = [split_spans(made.frames, span_s=30.0, seed=seed) for seed in (0, 1)]
    left = [split.calibration for split in own]
    found = select([checkpoint(0.0, seed=0), checkpoint(0.1, seed=1)], [made.frames] * 2)
    assert 0 < found.frames <= len(np.intersect1d(*left))
    assert select([checkpoint(0.0, bag="other")], [made.frames]).frames == len(made.frames)


def test_unfinished_models_are_not_compared(made: Case, checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(TrainingError, match="did not end"):
        compare([checkpoint(0.0, finished=False)], [made.frames], made.split)


def test_models_without_a_frame_in_common_are_refused(made: Case, checkpoint: Callable[..., Path]) -> None:
    paths = [checkpoint(0.0, seed=seed) for seed in range(40)]
    with pytest.raises(TrainingError, match="no frame was left out of training by all 40 models"):
        select(paths, [made.frames] * len(paths))

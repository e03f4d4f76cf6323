"""Score differences: pairs of regimes, log density ratios, the score-difference matrix, and the constraint."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")

from test_ropes import GRID, recording

from ropes_ros.dataset import FrameSet
from ropes_ros.densities import Bump, Levels
from ropes_ros.errors import TrainingError
from ropes_ros.learning.networks import AngleNet, Prediction
from ropes_ros.learning.scores import (
    DenseCoder,
    LevelPair,
    ScoreConstraint,
    assign,
    ldr_loss,
    level_pairs,
    observational_level,
    score_constraint,
    score_differences,
    score_matrix,
    to_latents,
)
from ropes_ros.learning.tasks import Batch


def with_levels(frames: FrameSet, levels: Levels | list[Bump]) -> FrameSet:
    """The same frames, as if other levels had been commanded."""
    densities = list(levels.densities) if isinstance(levels, Levels) else levels
    table = np.stack([density.log_pdf(GRID) for density in densities])
    return replace(
        frames, log_density=np.stack([table] * 2), level_ids=tuple(f"level{number}" for number in range(len(table)))
    )


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> FrameSet:
    return recording(tmp_path_factory.mktemp("robot"), list(Levels.tilts().densities), 200)[0]


def test_pairs_leave_the_observational_level_out(frames: FrameSet) -> None:
    tilted = with_levels(frames, Levels.tilts(observational=True))
    assert observational_level(tilted) == 2
    assert level_pairs(tilted) == [LevelPair(0, (0,), (1,), True), LevelPair(1, (0,), (1,), True)]
    assert observational_level(frames) is None


def test_the_second_regime_is_the_one_of_larger_mean(frames: FrameSet) -> None:
    turned = with_levels(frames, [Bump(0.5, 0.3), Bump(-0.5, 0.3)])
    assert level_pairs(turned)[0] == LevelPair(0, (1,), (0,), True)


def test_many_levels_are_pooled_by_halves(frames: FrameSet) -> None:
    bumps = with_levels(frames, Levels.bumps(5))
    assert level_pairs(bumps)[1] == LevelPair(1, (0, 1), (3, 4), True)
    assert level_pairs(bumps, ("level4", "level1"))[0] == LevelPair(0, (1,), (4,), True)


def test_two_widths_about_one_centre_have_no_direction(frames: FrameSet) -> None:
    assert level_pairs(with_levels(frames, [Bump(0.0, 0.25), Bump(0.0, 1.0)]))[0] == LevelPair(0, (0,), (1,), False)


@pytest.mark.parametrize(
    ("levels", "named", "message"),
    [
        ([Bump(0.0, 0.3), Bump(0.0, 0.31)], None, "joint 'joint1'.*level0 and level1 hardly differ"),
        ([Bump(0.0, 0.3), Bump(0.0, 10.0)], None, "two interventions on each joint"),
        ([Bump(0.0, 0.3), Bump(0.5, 0.3)], ("level0", "up"), "no level 'up'.*level0, level1"),
    ],
)
def test_levels_that_give_no_pair_are_refused(
    frames: FrameSet, levels: list[Bump], named: tuple[str, str] | None, message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        level_pairs(with_levels(frames, levels), named)


def test_targets_follow_the_joints_own_level() -> None:
    labels = np.array([[0, 3], [1, 0], [2, 1], [-1, 2], [3, -1]], dtype=np.int16)
    assert LevelPair(0, (0, 1), (3,), True).targets(labels).tolist() == [0, 0, -1, -1, 1]


def test_the_loss_is_least_at_the_log_density_ratio_whatever_the_counts() -> None:
    # Two kinds of frames: 30 and 10 of them in the first regime, 5 and 15 in the second. The ratios of densities are
    # (5/20) / (30/40) = 1/3 and (15/20) / (10/40) = 3.
    kinds = torch.tensor([0] * 30 + [1] * 10 + [0] * 5 + [1] * 15 + [0] * 7)
    targets = torch.tensor([0] * 40 + [1] * 20 + [-1] * 7)[:, None]
    ratio = torch.tensor([math.log(1 / 3), math.log(3.0)], dtype=torch.float64, requires_grad=True)
    loss = ldr_loss(ratio[kinds][:, None], targets)
    (gradient,) = torch.autograd.grad(loss, ratio)
    assert gradient.abs().max() < 1e-12
    # By hand: half of 3/4 log(4/3) + 1/4 log 4, twice.
    assert loss.item() == pytest.approx(0.75 * math.log(4 / 3) + 0.25 * math.log(4.0))


def test_a_pair_without_frames_of_both_regimes_counts_nothing() -> None:
    logits = torch.tensor([[1.0, 5.0], [-1.0, 5.0]])
    both = ldr_loss(logits, torch.tensor([[0, 1], [1, -1]]))
    assert both.item() == pytest.approx(ldr_loss(logits[:, :1], torch.tensor([[0], [1]])).item())
    assert ldr_loss(logits, torch.full((2, 2), -1)).item() == 0.0


def test_the_gradient_of_a_trained_classifier_is_the_score_difference() -> None:
    # N(0.5, 1) against N(-0.5, 1): the log density ratio is x, its gradient 1 everywhere.
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([-0.5, 0.5]).repeat_interleave(10_000)
    points = (torch.randn(20_000, generator=generator) + centres)[:, None]
    targets = torch.tensor([0, 1]).repeat_interleave(10_000)[:, None]
    classifier = torch.nn.Linear(1, 1)
    optimiser = torch.optim.LBFGS(classifier.parameters(), max_iter=30)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = ldr_loss(classifier(points), targets)
        loss.backward()
        return loss

    optimiser.step(closure)
    found = score_differences(lambda at: classifier(at)[:, 0], points[:5])
    assert found.shape == (5, 1)
    assert found.numpy() == pytest.approx(1.0, abs=0.05)


def test_differences_are_carried_through_the_decoders_jacobian() -> None:
    torch.manual_seed(0)
    decoder, latents = DenseCoder(2, 5).double(), torch.randn(7, 2, dtype=torch.float64)
    differences = torch.randn(7, 3, 5, dtype=torch.float64)
    found = to_latents(decoder, latents, differences)
    for pair in range(3):
        product = score_differences(lambda z, pair=pair: (decoder(z) * differences[:, pair]).sum(dim=1), latents)
        assert torch.allclose(found[:, pair], product)
    # By hand: means of magnitudes, (|1| + |-3|) / 2 = 2 and (|2| + |0|) / 2 = 1.
    assert score_matrix(torch.tensor([[[1.0, 2.0]], [[-3.0, 0.0]]])).tolist() == [[2.0, 1.0]]


def test_pairs_find_their_latents_whatever_the_latents_units() -> None:
    # The first column is in small units: by raw size no pair would take it.
    matrix = np.array([[0.002, 0.1, 1.0], [0.01, 0.3, 0.1], [0.001, 2.0, 0.2]])
    assert assign(matrix).tolist() == [2, 0, 1]


def factors(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two independent tilted factors u [count, 2], and their levels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (count, 2))
    low, high = Levels.tilts(2.0).densities
    u = np.where(labels == 1, high.sample(rng, labels.shape), low.sample(rng, labels.shape))
    return torch.from_numpy(u).float(), torch.from_numpy(labels)


def test_the_constraint_turns_latents_until_each_follows_one_pair() -> None:
    torch.manual_seed(0)
    u, labels = factors(2000)
    mixing = torch.linalg.qr(torch.randn(6, 2)).Q
    pairs = [LevelPair(0, (0,), (1,), True), LevelPair(1, (0,), (1,), True)]
    constraint = ScoreConstraint(pairs, 6)
    turn = torch.tensor(0.6, requires_grad=True)
    optimiser = torch.optim.Adam([{"params": constraint.parameters()}, {"params": [turn]}], lr=7e-3)
    net = AngleNet((16, 16), 2)
    values = []
    for step in range(450):
        chosen = torch.randint(0, len(u), (128,))
        rows = torch.stack([torch.stack([turn.cos(), turn.sin()]), torch.stack([-turn.sin(), turn.cos()])])
        latents = u[chosen] @ rows.T
        features = (u[chosen] @ mixing.T).requires_grad_(True)
        batch = Batch(torch.zeros(0), None, None, labels[chosen], chosen)
        value = constraint(net, batch, Prediction(latents, torch.zeros_like(latents), features))
        optimiser.zero_grad()
        value.backward()
        assert features.grad is None, f"step {step}: the constraint must not shape the features"
        optimiser.step()
        values.append(value.item())
    assert abs(float(turn)) < 0.15
    assert np.mean(values[-20:]) < np.mean(values[:20]) - 0.3


def test_the_constraint_knows_regimes_and_fits_a_network(frames: FrameSet) -> None:
    net = AngleNet((16, 16), 2)
    constraint = score_constraint(with_levels(frames, Levels.bumps(5)), net)
    labels = torch.tensor([[0, 4], [2, -1], [3, 1]])
    assert constraint.regimes(labels).tolist() == [[0, 1], [-1, -1], [1, 0]]
    images = torch.rand(3, 3, 16, 16)
    value = constraint(net, Batch(images, None, None, labels, torch.arange(3)), net(images))
    value.backward()
    assert math.isfinite(value.item())
    head = net.head.weight.grad
    assert head is not None and head[:2].abs().sum() > 0

"""Latents to angles: order, direction and map are found from levels alone, and what cannot be found is said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")

from test_tasks import GRID, SHARES, SIZE, angles_of, bumps, draw_levels, frame_set

from ropes_ros.dataset import FrameSet, Split, split_spans
from ropes_ros.errors import TrainingError
from ropes_ros.learning.align import AlignedNet, Alignment, align, aligned
from ropes_ros.learning.mechanism import MechanismLikelihood
from ropes_ros.learning.networks import AngleNet, build

COUNT = 4000


@pytest.fixture(scope="module")
def frames() -> FrameSet:
    """Frames whose pictures do not matter."""
    small = frame_set(4)
    labels, _ = draw_levels(np.random.default_rng(0), COUNT, small.log_density)
    return replace(
        small,
        images=np.zeros((COUNT, 24, 32, 3), dtype=np.uint8),
        stamps_ns=np.arange(COUNT, dtype=np.int64) * 10**9,
        labels=labels,
        segments=np.repeat(np.arange(COUNT, dtype=np.int32)[:, None], 2, axis=1),
    )


@pytest.fixture(scope="module")
def split(frames: FrameSet) -> Split:
    return split_spans(frames, seed=0)


def distorted(u: np.ndarray) -> np.ndarray:
    """Three latents: noise, minus a bent elbow, and a bent shoulder."""
    noise = np.random.default_rng(1).normal(size=len(u))
    return np.stack([noise, -np.exp(1.5 * u[:, 1]) + 4.0, 5.0 * np.tanh(1.2 * u[:, 0]) - 2.0], axis=1)


def test_order_direction_and_map_are_found(frames: FrameSet, split: Split) -> None:
    u = angles_of(COUNT)
    found = align(distorted(u), frames, split)
    assert found.order.tolist() == [2, 1]
    assert found.sign.tolist() == [1.0, -1.0]
    assert found.sign_identified.all()
    assert (found.correlation > 0.5).all()
    assert np.abs(found.apply(distorted(u)) - u).mean() < 0.02


def test_beyond_the_knots_it_goes_on() -> None:
    """By hand: knots (0, -1), (1, 0), (4, 1): mean slope 0.5; z = -2 is -1 - 1, z = 2.5 is 0.5, z = 6 is 1 + 1."""
    alignment = Alignment(
        np.array([0]), np.array([1.0]), np.array([True]), np.ones(1), np.array([[0.0, 1.0, 4.0]]),
        np.array([[-1.0, 0.0, 1.0]]),
    )  # fmt: skip
    np.testing.assert_allclose(alignment.apply(np.array([[-2.0], [0.5], [2.5], [6.0]]))[:, 0], [-2, -0.5, 0.5, 2])


def test_a_given_order_is_kept(frames: FrameSet, split: Split) -> None:
    latents = angles_of(COUNT)[:, ::-1].copy()
    assert align(latents, frames, split).order.tolist() == [1, 0]
    assert align(latents, frames, split, order=np.array([1, 0])).order.tolist() == [1, 0]
    wrong = align(latents, frames, split, order=np.array([0, 1]))
    assert wrong.order.tolist() == [0, 1] and not wrong.sign_identified.any()


def test_widths_tell_the_order_but_no_direction() -> None:
    """Levels about one centre, of a quarter and of twice the width."""
    density = np.exp(-0.5 * (GRID[None] / np.array([0.15, 0.6])[:, None]) ** 2)
    density /= density.mean(axis=1, keepdims=True) * 2.0
    log_density = np.repeat(np.log(0.95 * density + 0.025)[None], 2, axis=0)
    labels, u = draw_levels(np.random.default_rng(3), COUNT, log_density)
    frames = replace(
        frame_set(4, log_density=log_density),
        images=np.zeros((COUNT, 24, 32, 3), dtype=np.uint8),
        stamps_ns=np.arange(COUNT, dtype=np.int64) * 10**9,
        labels=labels,
        segments=np.repeat(np.arange(COUNT, dtype=np.int32)[:, None], 2, axis=1),
    )
    found = align(-3.0 * u[:, ::-1], frames, split_spans(frames, seed=0))
    assert found.order.tolist() == [1, 0]
    assert not found.sign_identified.any() and found.sign.tolist() == [1.0, 1.0]
    assert np.abs(found.apply(-3.0 * u[:, ::-1]) + u).mean() < 0.03, "right up to direction"


def test_quantised_latents_get_the_middle_of_their_range(frames: FrameSet, split: Split) -> None:
    """Latents of five even steps: each step's angle is the mean angle of its frames."""
    u = angles_of(COUNT)
    coarse = np.round(2.0 * u) / 2.0
    angle = align(coarse, frames, split).apply(coarse)
    for value in (-0.5, 0.0, 0.5):
        rows = coarse[:, 0] == value
        assert angle[rows, 0].std() < 1e-9
        assert angle[rows, 0].mean() == pytest.approx(u[rows, 0].mean(), abs=0.06)


def test_validation_frames_and_missing_rows_do_not_count(frames: FrameSet, split: Split) -> None:
    latents = distorted(angles_of(COUNT))
    spoilt = latents.copy()
    spoilt[split.validation] = 1e6
    np.testing.assert_array_equal(align(spoilt, frames, split).knots_z, align(latents, frames, split).knots_z)
    partly = latents.copy()
    partly[split.train[::2]] = np.nan
    assert np.isfinite(align(partly, frames, split).knots_z).all()


def test_what_cannot_be_aligned_is_refused(frames: FrameSet, split: Split) -> None:
    u = angles_of(COUNT)
    with pytest.raises(TrainingError, match="one a frame"):
        align(u[:-1], frames, split)
    with pytest.raises(TrainingError, match="1 latents cannot be 2 joints"):
        align(u[:, :1], frames, split)
    with pytest.raises(TrainingError, match="joint elbow: its latent is the same"):
        align(u * [1.0, 0.0], frames, split)
    few = split._replace(labels=np.where(np.arange(COUNT)[:, None] < 50, split.labels, np.int16(-1)))
    with pytest.raises(TrainingError, match=r"joint shoulder: .* labelled frames are too few"):
        align(u, frames, few)


def test_a_joint_without_labels_is_left_at_home(frames: FrameSet, split: Split) -> None:
    u = angles_of(COUNT)
    blind = split._replace(labels=split.labels.copy())
    blind.labels[:, 0] = -1
    found = align(distorted(u), frames, blind)
    assert found.order[1] == 1 and found.order[0] != 1
    assert found.sign_identified.tolist() == [False, True] and found.correlation[0] == 0.0
    angle = found.apply(distorted(u))
    assert (angle[:, 0] == 0.0).all() and np.abs(angle[:, 1] - u[:, 1]).mean() < 0.02


def test_an_aligned_network_does_what_the_alignment_says(frames: FrameSet) -> None:
    """The module agrees with `Alignment.apply`, describes itself, and gives the spread that fits its error."""
    learned = frame_set(1500, seed=2)
    split = split_spans(learned, seed=0)
    torch.manual_seed(0)
    net = AngleNet(SIZE, 2, dropout=0.0)
    objective = MechanismLikelihood(bumps(), SHARES)
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3)
    from ropes_ros.learning.augmentation import to_input

    rng = np.random.default_rng(0)
    for _ in range(60):
        index = rng.choice(split.train, 64)
        prediction = net(to_input(learned.images[index]))
        labels = torch.from_numpy(split.labels[index].astype(np.int64))
        loss = objective(prediction.angle, prediction.log_std, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        net.head.weight[:2] = -2.0 * net.head.weight[:2].flip(0)
        net.head.bias[:2] = -2.0 * net.head.bias[:2].flip(0) + 0.7
    outer = aligned(net, learned, split, objective)
    assert isinstance(outer, AlignedNet)
    assert outer.order.tolist() == [1, 0] and outer.sign.tolist() == [-1.0, -1.0]
    pixels = to_input(learned.images[:200])
    with torch.no_grad():
        prediction = outer(pixels)
        raw = np.full((1500, 2), np.nan)
        for start in range(0, 1500, 500):
            raw[start : start + 500] = net(to_input(learned.images[start : start + 500])).angle.double().numpy()
    used = align(raw, learned, split)
    np.testing.assert_allclose(prediction.angle.numpy(), used.apply(raw[:200]), atol=2e-4)
    error = np.abs(prediction.angle.numpy() - angles_of(1500, seed=2)[:200])
    assert error.mean() < 0.2
    assert torch.equal(prediction.log_std[0], prediction.log_std[-1])
    twin = build(outer.architecture())
    twin.load_state_dict(outer.state_dict())
    assert torch.equal(twin.eval()(pixels).angle, prediction.angle)

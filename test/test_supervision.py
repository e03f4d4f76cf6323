"""Learning from commands: the lag is found, what was not carried out is ignored, what is common becomes the width."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from synthetic import START_NS, draw

torch = pytest.importorskip("torch")

from torch import Tensor, nn

from ropes_ros.commands import CommandTrack
from ropes_ros.dataset import FrameSet
from ropes_ros.errors import TrainingError
from ropes_ros.framing import Region
from ropes_ros.learning.networks import AngleNet, Prediction
from ropes_ros.learning.supervision import CommandTask, commands_task, scan_lag
from ropes_ros.learning.tasks import Batch

SECOND = 1_000_000_000
LEVEL_NOISE = 0.15


def motion(seconds: np.ndarray) -> np.ndarray:
    """Two joints that sweep, float64 [N, 2]."""
    return np.stack([0.8 * np.sin(1.9 * seconds), 0.8 * np.sin(1.3 * seconds + 1.0)], axis=1)


def command_track(seconds: float) -> CommandTrack:
    times = np.arange(0.0, seconds, 0.02)
    return CommandTrack(START_NS + (times * SECOND).astype(np.int64), motion(times))


def frame_set(images: np.ndarray, stamps_ns: np.ndarray) -> FrameSet:
    count = len(stamps_ns)
    grid = np.linspace(-1.0, 1.0, 257)
    return FrameSet(
        images=images,
        stamps_ns=stamps_ns,
        labels=np.zeros((count, 2), dtype=np.int16),
        segments=np.zeros((count, 2), dtype=np.int32),
        joint_names=("a", "b"),
        level_ids=("x", "y"),
        grid=grid,
        log_density=np.full((2, 2, 257), -np.log(2.0)),
        level_label_noise=LEVEL_NOISE,
        robot="stick",
        schedule_hash="0",
        camera_size=(32, 24),
        region=Region(0, 0, 32, 24),
        bag_hash="0",
        duplicates=0,
    )


class Seer(nn.Module):
    """Sees the angles in the pixels, up to a gain and an offset that it must learn."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(2))
        self.offset = nn.Parameter(torch.zeros(2))
        self.log_std = nn.Parameter(torch.full((2,), -1.2))

    def forward(self, images: Tensor) -> Prediction:
        angle = self.gain * images[:, :2, 0, 0] + self.offset
        return Prediction(angle, self.log_std.clamp(-4.5, -0.7).expand_as(angle), angle)


def learn(task: CommandTask, seen: np.ndarray, steps: int = 600) -> Seer:
    """Fit a seer and the task's own parameters to frames that show `seen` [N, 2]."""
    torch.manual_seed(0)
    net = Seer()
    optimiser = torch.optim.Adam([*net.parameters(), *(p for p in task.parameters() if p.requires_grad)], lr=0.03)
    pixels = torch.from_numpy(seen).float()[:, :, None, None]
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 0.03 * (1.0 - step / steps)
        index = torch.randint(len(seen), (128,))
        batch = Batch(pixels[index], None, None, torch.zeros((128, 2), dtype=torch.int64), index)
        loss, _ = task(cast(AngleNet, net), batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net


def test_lag_width_and_share_are_learned_together() -> None:
    """Images 0.23 s late; 10 % of the commands not carried out; tracking noise of 0.03 on the first joint."""
    rng = np.random.default_rng(0)
    seconds = rng.uniform(1.0, 59.0, 4000)
    seen = motion(seconds - 0.23)
    seen[:, 0] += rng.normal(0.0, 0.03, len(seen))
    lost = rng.random(len(seen)) < 0.1
    seen[lost] = rng.uniform(-1.0, 1.0, (lost.sum(), 2))
    task = CommandTask(command_track(60.0), START_NS + (seconds * SECOND).astype(np.int64), width=LEVEL_NOISE)
    net = learn(task, seen)
    report = task.report()
    np.testing.assert_allclose(report.lag_s, 0.23, atol=0.01)
    np.testing.assert_allclose(net.gain.detach().numpy(), 1.0, atol=0.02)
    assert report.unexecuted == pytest.approx(0.1, abs=0.03)
    total = np.sqrt(report.width**2 + np.exp(2.0 * net.log_std.detach().numpy()))
    assert total[0] == pytest.approx(0.03, abs=0.006)
    assert (report.width < 0.5 * LEVEL_NOISE).all() and total[1] < 0.02


def test_without_room_for_lag_there_is_none() -> None:
    rng = np.random.default_rng(0)
    seconds = rng.uniform(1.0, 59.0, 500)
    stamps = START_NS + (seconds * SECOND).astype(np.int64)
    task = CommandTask(command_track(60.0), stamps, max_lag_s=0.0)
    learn(task, motion(seconds - 0.2), steps=50)
    assert (task.report().lag_s == 0.0).all()
    command, known = task.commanded(torch.arange(500))
    np.testing.assert_allclose(command.detach().numpy(), motion(seconds), atol=1e-3)
    assert known.all()


def test_frames_before_the_first_command_say_nothing() -> None:
    stamps = START_NS + np.array([-SECOND, SECOND])
    task = CommandTask(command_track(60.0), stamps)
    answer = torch.tensor([[5.0, -5.0], [0.0, 0.0]])
    prediction = Prediction(answer, torch.zeros((2, 2)), answer)
    value, known = task.log_likelihood(prediction, torch.arange(2))
    assert known.tolist() == [[False, False], [True, True]]

    class Constant(nn.Module):
        def forward(self, images: Tensor) -> Prediction:
            return prediction

    images = torch.zeros((2, 3, 4, 4))
    batch = Batch(images, None, None, torch.zeros((2, 2), dtype=torch.int64), torch.arange(2))
    loss, _ = task(cast(AngleNet, Constant()), batch)
    assert loss.item() == pytest.approx(-value[1].mean().item(), rel=1e-5)


def test_the_density_is_one() -> None:
    """Over all commands the density integrates to 1, but for what of the Gaussian lies outside the box."""
    u = np.linspace(-1.0, 1.0, 2001)
    track = CommandTrack(START_NS + np.arange(2001) * SECOND, np.stack([u, u], axis=1))
    task = CommandTask(track, track.times_ns, max_lag_s=0.0, width=0.1)
    answer = torch.zeros((2001, 2)) + torch.tensor([0.2, -0.3])
    value, _ = task.log_likelihood(Prediction(answer, torch.full_like(answer, -2.5), answer), torch.arange(2001))
    area = np.trapezoid(value.double().exp().detach().numpy(), u, axis=0)
    np.testing.assert_allclose(area, 1.0, atol=1e-4)


@functools.cache
def drawn(delay_s: float, frames: int = 1000) -> FrameSet:
    """Frames of a stick arm at 30 Hz whose stamps are late by `delay_s`."""
    seconds = 1.5 + np.arange(frames) / 30.0
    images = np.stack([draw(1.2 * u + 0.1, (32, 24)) for u in motion(seconds - delay_s)])
    return frame_set(images, START_NS + (seconds * SECOND).astype(np.int64))


@pytest.mark.parametrize("delay_s", [0.0, 0.2, -0.4])
def test_the_scan_finds_the_lag(delay_s: float) -> None:
    assert scan_lag(command_track(50.0), drawn(delay_s)) == pytest.approx(delay_s, abs=0.021)


def test_the_factory_begins_at_the_scanned_lag_and_the_levels_width() -> None:
    supervision = commands_task(command_track(50.0), blur=0.1, seed=3)
    with pytest.raises(TrainingError, match="train first"):
        supervision.report()
    frames = drawn(0.2)
    task = supervision(frames, np.full((2, 2), 0.5), AngleNet((32, 24), 2))
    report = supervision.report()
    np.testing.assert_allclose(report.lag_s, 0.2, atol=0.021)
    np.testing.assert_allclose(report.width, LEVEL_NOISE, rtol=1e-5)
    with torch.no_grad():
        task.lag_raw.fill_(0.0)
    command, _ = task.commanded(torch.arange(len(frames)))
    noise = command.detach().numpy() - motion((frames.stamps_ns - START_NS) / SECOND)
    assert noise.std() == pytest.approx(0.1, rel=0.1)
    again, _ = commands_task(command_track(50.0), blur=0.1, seed=3)(
        frames, np.full((2, 2), 0.5), AngleNet((32, 24), 2)
    ).commanded(torch.arange(len(frames)))
    assert np.abs(again.detach().numpy() - command.detach().numpy()).max() < 0.5  # one noise, another lag


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"joint_names": ("a", "b", "c")}, "commands are of 2 joints, the frames of 3"),
        ({"stamps_ns": np.arange(1200)}, "older than the first command"),
        ({"stamps_ns": START_NS + np.arange(1200)}, "0 frames lie within the commands"),
    ],
)
def test_frames_that_do_not_fit_the_commands_are_refused(change: dict[str, Any], complaint: str) -> None:
    frames = frame_set(np.zeros((1200, 24, 32, 3), dtype=np.uint8), START_NS + np.arange(1200))
    with pytest.raises(TrainingError, match=complaint):
        commands_task(command_track(50.0))(replace(frames, **change), np.full((2, 2), 0.5), AngleNet((32, 24), 2))

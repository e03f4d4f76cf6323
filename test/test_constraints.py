"""The constraints: what they call structure, measured on latents whose structure is known."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from test_tasks import batch_of, frame_set

from ropes_ros.errors import TrainingError
from ropes_ros.learning.constraints import (
    CODES,
    CONSTRAINTS,
    QuantizedConstraint,
    distance_correlation,
    make_constraint,
)
from ropes_ros.learning.networks import AngleNet, Prediction
from ropes_ros.learning.tasks import make_task


def naive_distance_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """The definition, element by element."""
    n = len(x)

    def centred(values: np.ndarray) -> np.ndarray:
        distance = np.abs(values[:, None] - values[None])
        result = np.zeros((n, n))
        for i in range(n):
            for j in range(n):
                if i != j:
                    result[i, j] = (
                        distance[i, j]
                        - distance[i].sum() / (n - 2)
                        - distance[:, j].sum() / (n - 2)
                        + distance.sum() / ((n - 1) * (n - 2))
                    )
        return result

    a, b = centred(x), centred(y)
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def test_distance_correlation_is_its_definition() -> None:
    values = np.random.default_rng(0).normal(size=(9, 3))
    values[:, 2] = values[:, 0] ** 2
    found = distance_correlation(torch.from_numpy(values)).numpy()
    for i in range(3):
        for j in range(3):
            assert found[i, j] == pytest.approx(naive_distance_correlation(values[:, i], values[:, j]), abs=1e-9)


def test_distance_correlation_sees_dependence_without_correlation() -> None:
    """Independent columns give 0 in the mean; a parabola has no linear correlation and is seen all the same."""
    generator = torch.Generator().manual_seed(0)
    free = torch.stack(
        [distance_correlation(torch.rand((64, 2), generator=generator))[0, 1] for _ in range(200)]
    )
    assert abs(float(free.mean())) < 4.0 * float(free.std()) / 200**0.5
    u = torch.linspace(-1.0, 1.0, 64)
    assert float(distance_correlation(torch.stack([u, u.square()], dim=1))[0, 1]) > 0.15
    stretched = distance_correlation(torch.stack([u, 100.0 * u + 3.0], dim=1))
    assert float(stretched[0, 1]) == pytest.approx(1.0, abs=1e-4)


def prediction_of(angle: torch.Tensor) -> Prediction:
    return Prediction(angle, torch.zeros_like(angle), torch.zeros(len(angle), 4))


def test_independence_unmixes() -> None:
    """Descent on the constraint alone turns a rotation of two independent uniform latents back to the axes."""
    frames = frame_set(8)
    net = AngleNet((32, 24), 2)
    constraint = make_constraint("independence", frames, net)
    generator = torch.Generator().manual_seed(0)
    turn = torch.tensor(0.5, requires_grad=True)
    optimiser = torch.optim.Adam([turn], lr=0.1)
    for _ in range(40):
        source = 2.0 * torch.rand((128, 2), generator=generator) - 1.0
        rotation = torch.stack([torch.stack([turn.cos(), -turn.sin()]), torch.stack([turn.sin(), turn.cos()])])
        loss = constraint(net, batch_of(frames, 4), prediction_of(source @ rotation))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    quarters = float(turn.detach()) / (0.5 * np.pi)
    assert abs(quarters - round(quarters)) < 0.06, "order and sign are free"


def test_independence_of_a_handful_is_zero() -> None:
    frames = frame_set(8)
    net = AngleNet((32, 24), 2)
    constraint = make_constraint("independence", frames, net)
    assert float(constraint(net, batch_of(frames, 3), prediction_of(torch.rand(3, 2)))) == 0.0


def test_quantized_draws_latents_and_codes_together() -> None:
    frames = frame_set(16)
    torch.manual_seed(0)
    net = AngleNet((32, 24), 2, dropout=0.0)
    constraint = make_constraint("quantized", frames, net)
    assert net.architecture()["codes"] == CODES
    batch = batch_of(frames, 16)
    with torch.no_grad():
        net.head.weight.mul_(20.0)
    net.eval()
    optimiser = torch.optim.SGD([net.head.weight, net.head.bias, net.codebook], lr=0.05)
    losses = []
    for _ in range(30):
        loss = constraint(net, batch, net(batch.images))
        optimiser.zero_grad()
        loss.backward()
        assert net.codebook.grad.abs().sum() > 0 and net.head.weight.grad.abs().sum() > 0
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_quantized_wants_its_network() -> None:
    constraint = QuantizedConstraint(AngleNet((32, 24), 2))
    frames = frame_set(8)
    other = AngleNet((32, 24), 2)
    with pytest.raises(TrainingError, match="no codebooks"):
        constraint(other, batch_of(frames, 4), other(batch_of(frames, 4).images))


def test_unknown_constraints_are_refused() -> None:
    with pytest.raises(TrainingError, match="constraint 'order' is unknown: choose one of none, independence"):
        make_constraint("order", frame_set(8), AngleNet((32, 24), 2))


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_any_pair_trains(name: str) -> None:
    """One step of each task with each constraint changes the trunk and leaves finite numbers."""
    frames = frame_set(32)
    shares = np.full((2, 3), 1 / 3)
    for task_name in ("mechanism", "reconstruction", "contrastive", "masked"):
        torch.manual_seed(0)
        net = AngleNet((32, 24), 2)
        constraint = make_constraint(name, frames, net)
        task = make_task(task_name, frames, shares, net)
        before = net.stem[0].weight.detach().clone()
        modules = torch.nn.ModuleList([net, task, constraint])
        optimiser = torch.optim.AdamW([p for p in modules.parameters() if p.requires_grad], lr=1e-3)
        batch = batch_of(frames, 32)
        loss, prediction = task(net, batch)
        penalty = constraint(net, batch, prediction)
        assert penalty.ndim == 0 and loss.ndim == 0
        (loss + penalty).backward()
        optimiser.step()
        assert torch.isfinite(loss + penalty) and len(prediction.angle) == 32
        assert not torch.equal(net.stem[0].weight, before)

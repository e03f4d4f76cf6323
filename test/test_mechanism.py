"""The mechanism likelihood: floor, information, table against direct integration, and that it finds angles."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ropes_ros.learning.mechanism import MechanismLikelihood, bayes_floor, level_posterior

GRID = np.linspace(-1.0, 1.0, 257)


def bump_log_densities(centres: list[float], sigma: float, joints: int = 1) -> np.ndarray:
    """log of truncated Gaussian bumps mixed with 5 % uniform, [J, K, G]."""
    bumps = np.exp(-0.5 * ((GRID[None] - np.array(centres)[:, None]) / sigma) ** 2)
    bumps /= np.trapezoid(bumps, GRID, axis=1)[:, None] if hasattr(np, "trapezoid") else np.trapz(bumps, GRID)[:, None]
    return np.repeat(np.log(0.95 * bumps + 0.025)[None], joints, axis=0)


def equal_shares(joints: int, levels: int) -> np.ndarray:
    return np.full((joints, levels), 1.0 / levels)


def test_floor_is_the_entropy_found_by_fine_integration() -> None:
    """Levels with most of their mass at the ends, where a grid that weighs its end cells in full goes wrong."""
    tilts = np.array([-6.0, 0.0, 6.0])
    shares = np.array([[0.5, 0.2, 0.3]])

    def densities(u: np.ndarray) -> np.ndarray:
        scale = np.where(tilts == 0.0, 0.5, tilts / np.where(tilts == 0.0, 1.0, 2.0 * np.sinh(tilts)))
        return scale[:, None] * np.exp(tilts[:, None] * u)

    u = (np.arange(200_000) + 0.5) / 100_000 - 1.0
    joint = densities(u) * shares[0][:, None]
    entropy = -(joint * np.log(joint / joint.sum(axis=0))).sum() / 100_000
    assert bayes_floor(np.log(densities(GRID))[None], shares)[0] == pytest.approx(entropy, abs=2e-4)


def test_identical_levels_tell_nothing() -> None:
    log_density = bump_log_densities([0.0, 0.0], 0.3)
    assert bayes_floor(log_density, equal_shares(1, 2))[0] == pytest.approx(np.log(2.0), abs=1e-9)


def test_table_equals_direct_integration() -> None:
    log_density = bump_log_densities([-0.7, 0.1, 0.8], 0.2, joints=2)
    shares = equal_shares(2, 3)
    objective = MechanismLikelihood(log_density, shares)
    posterior = level_posterior(log_density, shares)
    rng = np.random.default_rng(1)
    for _ in range(20):
        angle, std = rng.uniform(-1, 1, 2), np.exp(rng.uniform(-3.5, -0.8, 2))
        level = rng.integers(0, 3, 2)
        found = objective.log_likelihood(
            torch.tensor(angle[None]).float(), torch.tensor(np.log(std)[None]).float(), torch.tensor(level[None])
        )
        for joint in range(2):
            weights = np.exp(-0.5 * ((GRID - angle[joint]) / std[joint]) ** 2)
            weights[[0, -1]] *= 0.5
            expected = np.log((weights * posterior[joint, level[joint]]).sum() / weights.sum())
            assert float(found[0, joint]) == pytest.approx(expected, abs=0.02)


def test_joints_in_no_regime_do_not_count() -> None:
    objective = MechanismLikelihood(bump_log_densities([-0.5, 0.5], 0.3, joints=2), equal_shares(2, 2))
    angle = torch.tensor([[0.4, 0.9]], requires_grad=True)
    log_std = torch.full((1, 2), -2.0)
    loss = objective(angle, log_std, torch.tensor([[1, -1]]))
    loss.backward()
    assert angle.grad is not None
    assert angle.grad[0, 0] != 0.0
    assert angle.grad[0, 1] == 0.0


def test_gradient_matches_finite_differences() -> None:
    objective = MechanismLikelihood(bump_log_densities([-0.5, 0.5], 0.3), equal_shares(1, 2)).double()
    point = torch.tensor([[0.1037]], dtype=torch.float64)
    spread = torch.tensor([[-1.93]], dtype=torch.float64)
    label = torch.tensor([[1]])
    angle = point.clone().requires_grad_()
    log_std = spread.clone().requires_grad_()
    objective.log_likelihood(angle, log_std, label).sum().backward()
    step = 1e-5
    for value, gradient, other in ((angle, angle.grad, "angle"), (log_std, log_std.grad, "std")):
        shift = torch.full_like(value, step)
        with torch.no_grad():
            if other == "angle":
                up = objective.log_likelihood(point + shift, spread, label)
                down = objective.log_likelihood(point - shift, spread, label)
            else:
                up = objective.log_likelihood(point, spread + shift, label)
                down = objective.log_likelihood(point, spread - shift, label)
        assert gradient is not None
        assert float(gradient) == pytest.approx(float((up - down) / (2 * step)), rel=1e-3)


def test_maximising_it_finds_angle_and_spread_of_a_noisy_source() -> None:
    """Levels drawn from a known u + N(0, 0.15^2): the best constant answer is that u and about that spread."""
    log_density = bump_log_densities(list(np.linspace(-0.875, 0.875, 8)), 0.15)
    objective = MechanismLikelihood(log_density, equal_shares(1, 8))
    posterior = level_posterior(log_density, equal_shares(1, 8))[0]
    rng = np.random.default_rng(2)
    cells = np.clip(np.rint((0.3 + 0.15 * rng.standard_normal(40_000) + 1.0) * 128), 0, 256).astype(int)
    labels = np.array([rng.choice(8, p=posterior[:, cell]) for cell in cells])
    angle = torch.zeros(1, requires_grad=True)
    log_std = torch.full((1,), -1.2, requires_grad=True)
    optimiser = torch.optim.Adam([angle, log_std], lr=0.02)
    for _ in range(400):
        optimiser.zero_grad()
        objective(
            angle.expand(len(labels), 1), log_std.expand(len(labels), 1), torch.from_numpy(labels)[:, None]
        ).backward()
        optimiser.step()
    assert float(angle.detach()) == pytest.approx(0.3, abs=0.02)
    assert float(log_std.detach().exp()) == pytest.approx(0.15, abs=0.03)

"""Latent causal models: their scores are exact, and GSCALE-I finds latents and graph from score differences."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")

from ropes_ros.errors import TrainingError
from ropes_ros.learning.scm import (
    MIXINGS,
    MODELS,
    CausalModel,
    Mixing,
    check_identifiability,
    recover_graph,
)
from ropes_ros.learning.scores import score_differences


def test_the_score_of_a_linear_model_is_that_of_its_gaussian() -> None:
    # z = B z + e, so z ~ N(0, S) with S^-1 = (I - B)^T V^-1 (I - B), and the score is -S^-1 z.
    model = CausalModel(4, kind="linear", seed=1)
    eye = torch.eye(4, dtype=torch.float64)
    weights = torch.stack([model.link(node, eye) for node in range(4)])
    precision = (eye - weights).T @ torch.diag(1.0 / model.variances) @ (eye - weights)
    z = model.sample(50, np.random.default_rng(0))
    assert model.adjacency.any()
    assert torch.allclose(score_differences(model.log_density, z), -z @ precision)


@pytest.mark.parametrize("kind", MODELS)
def test_two_hard_interventions_differ_in_their_own_node_alone(kind: str) -> None:
    # The node is N(0, v / 4) in one regime and N(0, 4 v) in the other: the difference of scores is (4 - 1/4) z / v.
    model = CausalModel(4, kind=kind, seed=2)
    z = model.sample(50, np.random.default_rng(0))
    found = score_differences(lambda at: model.log_density(at, 2, 4.0) - model.log_density(at, 2, 0.25), z)
    expected = torch.zeros_like(z)
    expected[:, 2] = 3.75 * z[:, 2] / model.variances[2]
    assert torch.allclose(found, expected)


@pytest.mark.parametrize("kind", MODELS)
def test_samples_follow_the_links(kind: str) -> None:
    model = CausalModel(4, kind=kind, seed=3)
    z = model.sample(40_000, np.random.default_rng(0))
    for node in range(4):
        noise = z[:, node] - model.link(node, z)
        assert noise.var().item() == pytest.approx(model.variances[node].item(), rel=0.05)
        for earlier in range(node):
            assert abs(np.corrcoef(noise, z[:, earlier])[0, 1]) < 0.02


@pytest.mark.parametrize("kind", MIXINGS)
def test_a_mixing_is_undone_and_carries_scores_both_ways(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    mixing = Mixing(torch.randn(6, 3, generator=generator, dtype=torch.float64), kind)
    z = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    assert (mixing.weight[0] > 0).all()
    assert torch.allclose(mixing.invert(mixing(z)), z)
    differences = torch.randn(20, 2, 3, generator=generator, dtype=torch.float64)
    assert torch.allclose(mixing.pull_back(mixing(z), mixing.push_forward(mixing(z), differences)), differences)
    # Against the chain rule: with h(z) = sum of squares of x, J^T grad_x h = grad_z h.
    gradient = score_differences(lambda at: mixing(at).square().sum(dim=1), z)
    assert torch.allclose(mixing.pull_back(mixing(z), 2.0 * mixing(z)[:, None])[:, 0], gradient)


def test_the_graph_is_read_off_and_circles_are_cut_at_their_weakest_edge() -> None:
    # Rows: intervention on a node; 0 -> 1 with strength 0.5, 1 -> 2 with 0.4, and a spurious 2 -> 0 with 0.2. The
    # second row is twice as large all over, which must not matter; 0.05 lies below the threshold.
    matrix = torch.tensor([[1.0, 0.0, 0.2], [1.0, 2.0, 0.0], [0.05, 0.4, 1.0]], dtype=torch.float64)
    z = torch.tensor([[1.0], [-1.0]], dtype=torch.float64).repeat(1, 3) / 2.0**0.5
    graph = recover_graph(z, matrix.repeat(2, 1, 1))
    assert graph.tolist() == [[False, True, False], [False, False, True], [False, False, False]]


@pytest.mark.parametrize(("mixing", "model"), [("linear", "linear"), ("mlp", "quadratic"), ("mlp", "mlp")])
def test_latents_and_graph_come_back(mixing: str, model: str) -> None:
    found = check_identifiability(3, 4, mixing, model=model, d=8, samples=200, steps=300)
    assert found["edges"] > 0
    assert found["error"] < 0.04
    assert found["correlation"] > 0.999
    assert found["shd"] == 0


def test_unknown_names_are_refused() -> None:
    with pytest.raises(TrainingError, match="choose one of linear, mlp"):
        check_identifiability(3, 0, "cubic")
    with pytest.raises(TrainingError, match="choose one of linear, quadratic, mlp"):
        CausalModel(3, kind="cubic", seed=0)

"""Where the method is known to work: latent causal models with exact scores, mixed into more dimensions.

The published check of GSCALE-I (Varici et al., arXiv 2402.00849, sec. 7.2): a random causal graph over n latent
variables, each a function of its parents plus Gaussian noise; two hard interventions on every node, which cut it from
its parents and multiply the variance of its noise by 0.25 and by 4; observations x = G z, or x = tanh(G z), of d
dimensions. Given the score differences of x exactly, the latent variables and their graph must come back. A faithful
implementation reaches an error ||Z - Zhat|| / ||Z|| of 0.03 to 0.04 and a structural Hamming distance of about 0.1 at
n = 5.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ropes_ros.disentanglement import shd
from ropes_ros.errors import TrainingError
from ropes_ros.learning.scores import assign, score_differences, score_matrix

MODELS = ("linear", "quadratic", "mlp")
MIXINGS = ("linear", "mlp")
SCALES = (0.25, 4.0)
"""Factors on the noise's variance in the two hard interventions on a node."""
EDGE_PROBABILITY = 0.5
EDGE_THRESHOLD = 0.1
"""Least entry of the normalised score-difference matrix that is taken for an edge."""
_SATURATED = 1.0 - 1e-9


class CausalModel:
    """A random causal model z_i = f_i(parents) + noise of variance v_i, with v_i drawn from 0.5 to 1.5.

    Links are linear (weights of magnitude 0.5 to 1.5), quadratic (the square root of a positive definite form), or a
    perceptron with one hidden layer.

    Args:
        n: Number of nodes; the order of their numbers is a causal order.
        kind: One of `MODELS`.
        seed: Source of graph, links and variances.

    Raises:
        TrainingError: The kind is unknown.
    """

    def __init__(self, n: int, *, kind: str, seed: int) -> None:
        if kind not in MODELS:
            raise TrainingError(f"causal model {kind!r}: choose one of {', '.join(MODELS)}")
        rng = np.random.default_rng(seed)
        self.n = n
        self.kind = kind
        self.adjacency: NDArray[np.bool_] = np.triu(rng.random((n, n)) < EDGE_PROBABILITY, 1)
        self.variances = torch.from_numpy(rng.uniform(0.5, 1.5, n))
        self._weights = [self._draw(int(parents.sum()), rng) for parents in self.adjacency.T]

    def _draw(self, parents: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        if self.kind == "linear":
            drawn = rng.uniform(0.5, 1.5, parents) * rng.choice([-1.0, 1.0], parents), np.empty(0)
        elif self.kind == "quadratic":
            root = np.eye(parents) + 0.5 * rng.uniform(-1.0, 1.0, (parents, parents))
            drawn = root, np.empty(0)
        else:
            drawn = rng.normal(size=(parents, 32)) / math.sqrt(max(1, parents)), rng.normal(size=32) / math.sqrt(8.0)
        return torch.from_numpy(drawn[0]), torch.from_numpy(drawn[1])

    def link(self, node: int, z: Tensor) -> Tensor:
        """f of a node, float64 [N], at z [N, n]."""
        parents = z[:, torch.from_numpy(np.flatnonzero(self.adjacency[:, node]))]
        first, second = self._weights[node]
        if not parents.shape[1]:
            return torch.zeros(len(z), dtype=z.dtype)
        if self.kind == "linear":
            return torch.mv(parents, first)
        if self.kind == "quadratic":
            return (parents @ first.T).square().sum(dim=1).sqrt()
        return torch.mv(torch.tanh(parents @ first), second)

    def sample(self, count: int, rng: np.random.Generator) -> Tensor:
        """Observational samples z, float64 [count, n]."""
        noise = torch.from_numpy(rng.normal(size=(count, self.n))) * self.variances.sqrt()
        z = torch.zeros(count, self.n, dtype=torch.float64)
        for node in range(self.n):
            z[:, node] = self.link(node, z) + noise[:, node]
        return z

    def log_density(self, z: Tensor, node: int | None = None, scale: float = 1.0) -> Tensor:
        """log p(z) [N] up to a constant, observational or under a hard intervention.

        Args:
            z: float64 [N, n].
            node: The node intervened on; None for none.
            scale: Factor of the intervention on the variance of its noise.
        """
        total = torch.zeros(len(z), dtype=z.dtype)
        for i in range(self.n):
            if i == node:
                total = total - 0.5 * z[:, i].square() / (scale * self.variances[i])
            else:
                total = total - 0.5 * (z[:, i] - self.link(i, z)).square() / self.variances[i]
        return total


class Mixing:
    """x = G z ("linear") or x = tanh(G z) ("mlp": one layer), the columns of G of unit length, first entries positive.

    Args:
        weight: G, float64 [d, n]; normalised here.
        kind: One of `MIXINGS`.
    """

    def __init__(self, weight: Tensor, kind: str) -> None:
        weight = weight / weight.norm(dim=0, keepdim=True)
        self.weight = weight * torch.sign(weight[0])
        self.kind = kind

    def __call__(self, z: Tensor) -> Tensor:
        """Observations [N, d] of latents [N, n]."""
        return _activate(z @ self.weight.T, self.kind)

    def invert(self, x: Tensor) -> Tensor:
        """Latents [N, n] of observations [N, d], by the pseudo-inverse."""
        return torch.matmul(_deactivate(x, self.kind), torch.linalg.pinv(self.weight).T)

    def pull_back(self, x: Tensor, differences: Tensor) -> Tensor:
        """J^T d_X: score differences [N, P, d] at observations x [N, d] in latent coordinates [N, P, n]."""
        return torch.matmul(differences * _slope(x, self.kind)[:, None], self.weight)

    def push_forward(self, x: Tensor, differences: Tensor) -> Tensor:
        """(J^T)^+ d_Z: score differences [N, P, n] in latent coordinates as those of x, [N, P, d]."""
        jacobian = _slope(x, self.kind)[:, :, None] * self.weight
        return torch.matmul(differences, torch.linalg.pinv(jacobian))


def _activate(inner: Tensor, kind: str) -> Tensor:
    return inner if kind == "linear" else torch.tanh(inner)


def _deactivate(x: Tensor, kind: str) -> Tensor:
    return x if kind == "linear" else torch.atanh(x.clamp(-_SATURATED, _SATURATED))


def _slope(x: Tensor, kind: str) -> Tensor:
    """Derivative of the activation where it gives x."""
    return torch.ones_like(x) if kind == "linear" else 1.0 - x.square()


def recover_mixing(
    x: Tensor, differences: Tensor, kind: str, *, steps: int = 2000, restarts: int = 3, seed: int = 0
) -> Mixing:
    """GSCALE-I: the mixing that reconstructs x and under which the score-difference matrix is diagonal.

    The column space of G is that of the observations before the activation, whose singular vectors span it. Every
    invertible change of basis in it reconstructs x, so that the published loss ||D - I||_1 + ||x - mix(invert(x))||^2
    is left with its first term, which is minimised over the basis (Adam, with the rate falling to nothing) from several
    starts of which the lowest loss is kept: it is not convex.

    Args:
        x: Observations, float64 [N, d].
        differences: Score differences of x between the two interventions on each node, float64 [N, n, d].
        kind: One of `MIXINGS`.
        steps: Steps of each start.
        restarts: Number of starts.
        seed: Source of the starts.

    Returns:
        The mixing, whose columns are in the order of the interventions.
    """
    n = differences.shape[1]
    generator = torch.Generator().manual_seed(seed)
    target = torch.eye(n, dtype=x.dtype)
    span = torch.linalg.svd(_deactivate(x, kind), full_matrices=False).Vh[:n].T
    inside = (differences * _slope(x, kind)[:, None]) @ span
    inside = inside / inside.abs().mean()
    best_loss, best = math.inf, target
    for _ in range(restarts):
        basis = torch.randn(n, n, generator=generator, dtype=x.dtype).requires_grad_(True)
        optimiser = torch.optim.Adam([basis], lr=0.05)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for _ in range(steps):
            loss = (score_matrix(inside @ basis) - target).abs().sum()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
        final = float((score_matrix(inside @ basis.detach()) - target).abs().sum())
        if final < best_loss:
            best_loss, best = final, basis.detach().clone()
    return Mixing(span @ best[:, torch.from_numpy(assign(score_matrix(inside @ best).numpy()))], kind)


def recover_graph(
    z: Tensor, differences: Tensor, *, threshold: float = EDGE_THRESHOLD
) -> NDArray[np.bool_]:
    """The latent graph from score differences between the observational regime and a hard intervention on each node.

    Such a difference is non-zero in the node's own coordinate and in its parents' (arXiv 2402.00849, sec. 4). Rows are
    divided by their own node's entry after latents are brought to unit variance; edges join from the strongest on while
    they close no circle.

    Args:
        z: Latents, float64 [N, n].
        differences: In latent coordinates, float64 [N, n, n]; the second index is the node intervened on.
        threshold: Least entry that is an edge.

    Returns:
        bool [n, n]; [i, j]: i is a parent of j.
    """
    matrix = score_matrix(differences * z.std(dim=0)).numpy()
    strength = (matrix / np.diag(matrix)[:, None]).T
    n = len(strength)
    edges = np.zeros((n, n), dtype=np.bool_)
    reach = np.eye(n, dtype=np.bool_)
    np.fill_diagonal(strength, 0.0)
    for flat in np.argsort(-strength, axis=None):
        cause, effect = divmod(int(flat), n)
        if strength[cause, effect] <= threshold:
            break
        if not reach[effect, cause]:
            edges[cause, effect] = True
            reach |= np.outer(reach[:, cause], reach[effect])
    return edges


def check_identifiability(
    n: int = 5,
    seed: int = 0,
    mixing: str = "mlp",
    *,
    model: str = "quadratic",
    d: int = 25,
    samples: int = 500,
    steps: int = 2000,
) -> dict[str, Any]:
    """Recover the latents and the graph of a random causal model from exact score differences.

    Args:
        n: Number of latent variables.
        seed: Source of the model, the mixing, the samples and the starts.
        mixing: One of `MIXINGS`.
        model: One of `MODELS`.
        d: Dimensions of x.
        samples: Observational samples at which scores are known.
        steps: Steps of optimisation a start.

    Returns:
        Plain values: the arguments, `error` = ||Z - Zhat|| / ||Z|| in the spectral norm, `correlation` (mean over
        latents), `shd` (edges too many, missing or turned round), `edges` (true number), `seconds`.

    Raises:
        TrainingError: The mixing or the model is unknown.
    """
    if mixing not in MIXINGS:
        raise TrainingError(f"mixing {mixing!r}: choose one of {', '.join(MIXINGS)}")
    started = time.monotonic()
    causal = CausalModel(n, kind=model, seed=seed)
    rng = np.random.default_rng([seed, 1])
    truth = Mixing(torch.from_numpy(rng.normal(size=(d, n))), mixing)
    z = causal.sample(samples, rng)
    x = truth(z)

    def difference(node: int, first: float | None, second: float) -> Tensor:
        def ldr(points: Tensor) -> Tensor:
            base = causal.log_density(points) if first is None else causal.log_density(points, node, first)
            return causal.log_density(points, node, second) - base

        return score_differences(ldr, z)

    between = torch.stack([difference(node, *SCALES) for node in range(n)], dim=1)
    against = torch.stack([difference(node, None, SCALES[1]) for node in range(n)], dim=1)
    found = recover_mixing(x, truth.push_forward(x, between), mixing, steps=steps, seed=seed)
    estimate = found.invert(x)
    graph = recover_graph(estimate, found.pull_back(x, truth.push_forward(x, against)))
    correlation = np.corrcoef(estimate.numpy(), z.numpy(), rowvar=False)[:n, n:]
    return {
        "n": n,
        "d": d,
        "seed": seed,
        "mixing": mixing,
        "model": model,
        "samples": samples,
        "error": float(torch.linalg.matrix_norm(estimate - z, 2) / torch.linalg.matrix_norm(z, 2)),
        "correlation": float(np.abs(np.diag(correlation)).mean()),
        "shd": shd(graph, causal.adjacency),
        "edges": int(causal.adjacency.sum()),
        "seconds": time.monotonic() - started,
    }

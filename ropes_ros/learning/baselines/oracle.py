"""Oracle maps: labels read what a method that never saw one has found, so that its error can be told in degrees.

They flatter the method; a table says "oracle map" in its row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ropes_ros.disentanglement import correlation_matrix, match
from ropes_ros.errors import TrainingError

LABELS = 5000
"""Labelled frames from which a map is fitted, at most."""
RIDGE = 1e-3


class OracleMap(Protocol):
    """Latents, float64 [N, D], to normalised angles, float64 [N, J]."""

    def __call__(self, latents: NDArray[np.float64]) -> NDArray[np.float64]:
        """Read latents."""


@dataclass(frozen=True)
class MonotoneMap:
    """One latent a joint, by the assignment with the greatest sum of Spearman's |correlation|, and a monotone map.

    Attributes:
        order: int64 [J], the latent of each joint.
        curves: J fitted isotonic regressions.
    """

    order: NDArray[np.int64]
    curves: list[Any]

    def __call__(self, latents: NDArray[np.float64]) -> NDArray[np.float64]:
        columns = [curve.predict(latents[:, latent]) for latent, curve in zip(self.order, self.curves, strict=True)]
        return np.stack(columns, axis=1)


def monotone_map(latents: NDArray[np.float64], u: NDArray[np.float64]) -> MonotoneMap:
    """Fit a `MonotoneMap`.

    Args:
        latents: float64 [N, D], D >= J.
        u: Labels, float64 [N, J].

    Raises:
        TrainingError: There are fewer latents than joints, or labels without variation.
    """
    from sklearn.isotonic import IsotonicRegression  # type: ignore[import-untyped, unused-ignore]

    if latents.shape[1] < u.shape[1]:
        raise TrainingError(f"{latents.shape[1]} latents cannot tell {u.shape[1]} joints: give the method more")
    try:
        order = match(correlation_matrix(latents, u, kind="spearman"))
    except ValueError as error:
        raise TrainingError(f"latents cannot be matched with labels ({error}): check the labels") from None
    curves = []
    for latent, target in zip(order, u.T, strict=True):
        rising = bool(np.corrcoef(latents[:, latent].argsort().argsort(), target)[0, 1] > 0.0)
        curves.append(IsotonicRegression(increasing=rising, out_of_bounds="clip").fit(latents[:, latent], target))
    return MonotoneMap(order, curves)


@dataclass(frozen=True)
class SubspaceMap:
    """One known subspace a joint, read by a cubic polynomial.

    Attributes:
        width: Latents in each joint's subspace; joint j has those from j * width on.
        centre, scale: Of the latents, float64 [J * width].
        weights: float64 [J, P].
    """

    width: int
    centre: NDArray[np.float64]
    scale: NDArray[np.float64]
    weights: NDArray[np.float64]

    def __call__(self, latents: NDArray[np.float64]) -> NDArray[np.float64]:
        blocks = _blocks(latents, self.width, self.centre, self.scale)
        return np.stack([_cubic(block) @ weights for block, weights in zip(blocks, self.weights, strict=True)], axis=1)


def subspace_map(latents: NDArray[np.float64], u: NDArray[np.float64], width: int) -> SubspaceMap:
    """Fit a `SubspaceMap` by ridge regression.

    Args:
        latents: float64 [N, D], of which the first J * width are the joints' subspaces.
        u: Labels, float64 [N, J].
        width: Latents a subspace.
    """
    used = latents[:, : width * u.shape[1]]
    centre, scale = used.mean(axis=0), np.maximum(used.std(axis=0), 1e-9)
    weights = []
    for block, target in zip(_blocks(latents, width, centre, scale), u.T, strict=True):
        inputs = _cubic(block)
        gram = inputs.T @ inputs / len(inputs) + RIDGE * np.eye(inputs.shape[1])
        weights.append(np.linalg.solve(gram, inputs.T @ target / len(inputs)))
    return SubspaceMap(width, centre, scale, np.stack(weights))


def _blocks(
    latents: NDArray[np.float64], width: int, centre: NDArray[np.float64], scale: NDArray[np.float64]
) -> list[NDArray[np.float64]]:
    """The standardised subspaces, each float64 [N, width], kept within 4 standard deviations."""
    standard = np.clip((latents[:, : len(centre)] - centre) / scale, -4.0, 4.0)
    return np.split(standard, len(centre) // width, axis=1)


def _cubic(block: NDArray[np.float64]) -> NDArray[np.float64]:
    """All products of up to three columns, and 1."""
    with_one = np.concatenate([np.ones((len(block), 1)), block], axis=1)
    products = np.einsum("na,nb,nc->nabc", with_one, with_one, with_one).reshape(len(block), -1)
    size = with_one.shape[1]
    index = np.arange(size**3).reshape(size, size, size)
    kept = [index[a, b, c] for a in range(size) for b in range(a, size) for c in range(b, size)]
    kept_products: NDArray[np.float64] = products[:, kept]
    return kept_products

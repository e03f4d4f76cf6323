"""Metrics of latents against cases computed by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ropes_ros.disentanglement import (
    _halves,
    correlation_matrix,
    dci,
    dci_scores,
    infomec,
    match,
    mcc,
    r2_matrix,
    shd,
)

FACTORS = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
"""Two binary factors, each combination once: independent, and each of entropy log 2."""


def column(*values: float) -> np.ndarray:
    return np.array(values)[:, None]


@pytest.fixture(scope="module")
def angles() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1.0, 1.0, (2000, 3))


def test_pearson_by_hand() -> None:
    """Deviations (-1.5, -.5, .5, 1.5) and (1.5, -.5, .5, -1.5): products sum to -4, squares to 5 each: |-4 / 5|."""
    x, y = column(1, 2, 3, 4), column(4, 2, 3, 1)
    assert correlation_matrix(x, y)[0, 0] == pytest.approx(0.8)
    assert mcc(x, y) == pytest.approx(0.8)


def test_spearman_shares_the_rank_of_ties() -> None:
    """Ranks (1, 2.5, 2.5, 4) and (1, 2, 3, 4): products 4.5, squares 4.5 and 5: 4.5 / sqrt(22.5)."""
    x, y = column(1, 2, 2, 3), column(1, 2, 3, 10)
    assert mcc(x, y, kind="spearman") == pytest.approx(4.5 / np.sqrt(22.5))


def test_spearman_does_not_mind_a_monotone_map(angles: np.ndarray) -> None:
    warped = np.exp(5.0 * angles)
    assert mcc(warped, angles, kind="spearman") == pytest.approx(1.0)
    assert mcc(warped, angles) < 0.9


def test_matching_finds_what_was_permuted_and_flipped(angles: np.ndarray) -> None:
    latents = -3.0 * angles[:, [2, 0, 1]] + 1.0
    np.testing.assert_array_equal(match(correlation_matrix(latents, angles)), [1, 2, 0])
    assert mcc(latents, angles, assignment="hungarian") == pytest.approx(1.0)
    assert mcc(latents, angles) < 0.1


def test_matching_is_the_best_sum_not_the_greedy_one() -> None:
    """Greedy takes .9 and is left with 0; the other assignment sums to 1.6."""
    np.testing.assert_array_equal(match(np.array([[0.9, 0.8], [0.8, 0.0]])), [1, 0])


def test_factor_without_a_latent_counts_as_nothing(angles: np.ndarray) -> None:
    """One of three factors is there: a third."""
    assert mcc(angles[:, 1:2], angles, assignment="hungarian") == pytest.approx(1.0 / 3.0)
    np.testing.assert_array_equal(match(correlation_matrix(angles[:, 1:2], angles)), [-1, 0, -1])


def test_collapsed_latent_has_no_correlation(angles: np.ndarray) -> None:
    """Two of three are exact, the third is constant."""
    collapsed = angles.copy()
    collapsed[:, 2] = 0.3
    assert mcc(collapsed, angles) == pytest.approx(2.0 / 3.0)


def test_r2_matrix_of_swapped_latents(angles: np.ndarray) -> None:
    """Latents (2b + 1, -a) of factors (a, b): R2 is [[0, 1], [1, 0]]."""
    factors = angles[:, :2]
    result = r2_matrix(np.stack([2.0 * factors[:, 1] + 1.0, -factors[:, 0]], axis=1), factors, assignment="hungarian")
    np.testing.assert_allclose(result.matrix, [[0, 1], [1, 0]], atol=0.02)
    np.testing.assert_array_equal(result.order, [1, 0])
    assert result.diagonal == pytest.approx(1.0)
    assert result.off_diagonal < 0.02


def test_r2_matrix_sees_what_is_doubled_and_what_is_missing(angles: np.ndarray) -> None:
    """Latents (a, a): R2 is [[1, 1], [0, 0]]; own 1 and 0, best of another factor 0 and 1."""
    result = r2_matrix(angles[:, [0, 0]], angles[:, :2])
    assert result.diagonal == pytest.approx(0.5, abs=0.01)
    assert result.off_diagonal == pytest.approx(0.5, abs=0.01)


def test_r2_matrix_of_a_sum_and_of_a_curve(angles: np.ndarray) -> None:
    """Of a + b with equal variances a explains one half; |a| is no linear function of a but a function of it."""
    factors = angles[:, :2]
    total = factors.sum(axis=1)
    half = r2_matrix(np.stack([total, factors[:, 1]], axis=1), factors)
    assert half.matrix[0, 0] == pytest.approx(0.5, abs=0.05)
    curved = np.stack([np.abs(factors[:, 0]), factors[:, 1]], axis=1)
    assert correlation_matrix(factors, curved)[0, 0] < 0.1
    assert r2_matrix(factors, curved).matrix[0, 0] > 0.98


def test_dci_scores_by_hand() -> None:
    """Importances [[3, 1], [0, 4]].

    Latent 0 tells factor 0 only: 1, weight 3. Latent 1: shares .2 and .8, entropy .7219 bits: .2781, weight 5.
    D = (3 + 5 * .2781) / 8. Factor 0: shares .75 and .25, .8113 bits: .1887; factor 1: 1. C = (.1887 + 1) / 2.
    """
    disentanglement, completeness = dci_scores(np.array([[3.0, 1.0], [0.0, 4.0]]))
    assert disentanglement == pytest.approx((3 + 5 * 0.27807) / 8, abs=1e-5)
    assert completeness == pytest.approx((0.18872 + 1) / 2, abs=1e-5)


def test_dci_of_axes_and_of_a_rotation(angles: np.ndarray) -> None:
    """Scaled axes are best; of a + b and a - b each tells both factors alike, though together they tell all."""
    factors = angles[:, :2]
    axes = dci(factors[:, ::-1] * np.array([5.0, -0.1]), factors)
    assert axes.disentanglement > 0.99 and axes.completeness > 0.99
    assert axes.informativeness_error < 0.01
    rotated = dci(factors @ np.array([[1.0, 1.0], [1.0, -1.0]]), factors)
    assert rotated.disentanglement < 0.02 and rotated.completeness < 0.02
    assert rotated.informativeness_error < 0.02


def test_dci_gives_latents_that_tell_nothing_no_importance(angles: np.ndarray) -> None:
    noise = np.random.default_rng(2).standard_normal((len(angles), 6))
    result = dci(np.hstack([angles + 0.3 * noise[:, :3], noise[:, 3:]]), angles)
    assert (result.importance[:, 3:] == 0.0).all()
    assert result.disentanglement > 0.97 and result.completeness > 0.97


def test_dci_error_is_that_of_the_best_line(angles: np.ndarray) -> None:
    """A latent a + n, n of a's variance, leaves half of a's variance: error sqrt(1/2). One without any leaves 1."""
    noise = np.random.default_rng(1).uniform(-1.0, 1.0, (len(angles), 2))
    noisy = dci(np.stack([angles[:, 0] + noise[:, 0], angles[:, 1]], axis=1), angles[:, :2])
    assert noisy.informativeness_error == pytest.approx((np.sqrt(0.5) + 0.0) / 2, abs=0.02)
    blind = dci(noise, angles[:, :2])
    assert blind.informativeness_error == pytest.approx(1.0, abs=0.02)


def test_dci_error_is_not_of_the_rows_that_chose_the_penalty(angles: np.ndarray) -> None:
    """Latents that are exact where the penalty is chosen, and a + n, n of a's variance, on the other half.

    The line of the exact half, 1, leaves n on the other: error 1. Where the penalty was chosen, the other half's line,
    1/2 of a's variance short, would leave 1/2.
    """
    factors = angles[:, :2]
    latents = factors.copy()
    first, _ = _halves(len(angles), seed=0)[0]
    latents[first] += np.random.default_rng(1).uniform(-1.0, 1.0, (len(first), 2))
    assert dci(latents, factors, seed=0).informativeness_error == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(
    ("pick", "modularity", "compactness"),
    [
        # One latent per factor.
        (lambda s: s, 1.0, 1.0),
        # The first factor twice: rows (1/2, 1/2, 0) and (0, 0, 1): mean .75, rescaled from 1/3: 5/8.
        (lambda s: s[:, [0, 0, 1]], 1.0, 0.625),
        # A latent that tells both factors (NMI 1 and 1) beside a clean one: columns 1/2 and 1: mean 3/4, from 1/2: 1/2.
        # Rows (1, 1) and (1, 0): 1/2 and 1: 1/2 again.
        (lambda s: np.stack([s @ [2.0, 1.0], 3.0 * s[:, 0]], axis=1), 0.5, 0.5),
        # A copy of too small a range is pruned.
        (lambda s: np.hstack([s, 0.01 * s[:, :1]]), 1.0, 1.0),
    ],
)
def test_infomec_by_hand(pick: Callable[[np.ndarray], np.ndarray], modularity: float, compactness: float) -> None:
    """NMI of binary factors and latents on all four combinations is 0 or 1, and the factors are linear in all."""
    result = infomec(pick(FACTORS), FACTORS)
    assert result.modularity == pytest.approx(modularity)
    assert result.compactness == pytest.approx(compactness)
    assert result.explicitness == pytest.approx(1.0)


def test_infomec_prunes_by_range() -> None:
    np.testing.assert_array_equal(infomec(FACTORS * [1.0, 0.01], FACTORS).active, [True, False])
    collapsed = infomec(np.zeros((4, 2)), FACTORS)
    assert not collapsed.active.any()
    assert (collapsed.modularity, collapsed.explicitness, collapsed.compactness) == (0.0, 0.0, 0.0)


def test_explicitness_is_linear_and_nmi_is_not(angles: np.ndarray) -> None:
    """a + n with n of a's variance: a line explains one half. |a| tells a up to its sign, but no line does."""
    noise = np.random.default_rng(1).uniform(-1.0, 1.0, angles.shape)
    assert infomec(angles + noise, angles).explicitness == pytest.approx(0.5, abs=0.03)
    folded = infomec(np.abs(angles), angles)
    assert folded.explicitness < 0.02
    assert folded.nmi[0, 0] > 0.7  # log 2 of log 20 nats is missing
    warped = infomec(np.exp(3.0 * angles), angles)
    np.testing.assert_allclose(warped.nmi, infomec(angles, angles).nmi)


def test_independent_latents_share_no_information(angles: np.ndarray) -> None:
    """Uncorrected, 20 x 20 bins of 2,000 rows would show 19 * 19 / 4000 = .09 nats, .03 of log 20."""
    nmi = infomec(angles, angles).nmi
    assert nmi[~np.eye(3, dtype=bool)].max() < 0.012
    np.testing.assert_allclose(nmi.diagonal(), 1.0)


def test_shd_by_hand() -> None:
    """True 0->1->2. Found 1->0 (reversed: 1), 0->2 (added: 1), and 1->2 is missing (1)."""
    true = np.array([[0, 1, 0], [0, 0, 1], [0, 0, 0]])
    found = np.array([[0, 0, 0.7], [0.2, 0, 0], [0, 0, 0]])
    assert shd(found, true) == 3
    assert shd(true, true) == 0
    assert shd(np.zeros((3, 3)), true) == 2
    assert shd(true, np.zeros((3, 3))) == shd(true.T, np.zeros((3, 3))) == 2


def test_arguments_are_not_modified(angles: np.ndarray) -> None:
    latents, truth = angles[:, ::-1].copy(), angles.copy()
    before = latents.copy(), truth.copy()
    for measure in (mcc, r2_matrix, dci, infomec):
        measure(latents, truth)
    mcc(latents, truth, kind="spearman", assignment="hungarian")
    r2_matrix(latents, truth, assignment="hungarian")
    np.testing.assert_array_equal(latents, before[0])
    np.testing.assert_array_equal(truth, before[1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: mcc(a[:10], a), "N >= 2"),
        (lambda a: mcc(a[:, :2], a), "one by one"),
        (lambda a: mcc(a, a, kind="kendall"), "kendall"),
        (lambda a: mcc(a, a, assignment="greedy"), "greedy"),
        (lambda a: mcc(a, a * [1, 1, 0]), "column 2 of truth is constant"),
        (lambda a: infomec(np.where(a > 0.9, np.nan, a), a), "finite"),
        (lambda a: infomec(a, a, bins=1), "2 bins"),
        (lambda a: infomec(a, a[:, :1]), "2 factors"),
        (lambda a: dci(a[:, :1], a), "2 latents"),
        (lambda a: r2_matrix(a[:20], a[:20]), "28 rows"),
        (lambda a: shd(np.eye(3), np.zeros((3, 3))), "itself"),
        (lambda a: shd(np.zeros((2, 2)), np.zeros((3, 3))), "one shape"),
    ],
)
def test_bad_input_is_refused(angles: np.ndarray, call: Callable[[np.ndarray], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(angles)

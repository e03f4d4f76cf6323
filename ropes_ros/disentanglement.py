"""Whether latents are the angles: MCC, R2 matrix, DCI, InfoMEC, and the distance between graphs. For evaluation only.

A latent is one number of a representation, a factor one true joint angle. Matrices have a row per factor and a
column per latent. Units do not matter (but see `infomec` on inactive latents), and no argument is ever modified.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Matrix = NDArray[np.float64]
Latents = NDArray[np.floating]

KNOTS = 5
"""Inner knots of the linear splines that `r2_matrix` fits."""
PENALTIES = np.geomspace(1.0, 1e-3, 16)
"""Lasso penalties that `dci` tries, as shares of the one that leaves no weight."""
SWEEPS = 200
"""Most sweeps of coordinate descent per penalty."""
ACTIVE_RANGE = 0.05
"""A latent whose range is a smaller share of the widest latent's is inactive, in InfoMEC."""


class R2Matrix(NamedTuple):
    """How well each latent alone tells each factor.

    Attributes:
        matrix: R2 on the half that was not fitted, float64 [J, D], at least 0.
        order: The latent of each factor, int64 [J], -1 where there is none.
        diagonal: Mean R2 of the factors from their own latents; 1 is best.
        off_diagonal: Mean over those latents of the best R2 of another factor; 0 is best for independent factors.
    """

    matrix: Matrix
    order: NDArray[np.int64]
    diagonal: float
    off_diagonal: float


class Dci(NamedTuple):
    """Disentanglement, completeness, informativeness.

    Attributes:
        disentanglement: 0 to 1, best 1: each latent tells one factor only.
        completeness: 0 to 1, best 1: each factor is told by one latent only.
        informativeness_error: Mean over factors of the prediction's root mean square error, as a share of that of the
            mean, on rows that it was not fitted to and that its penalty was not chosen by; best 0.
        importance: float64 [J, D], at least 0.
    """

    disentanglement: float
    completeness: float
    informativeness_error: float
    importance: Matrix


class InfoMec(NamedTuple):
    """InfoM, InfoE and InfoC.

    Attributes:
        modularity: InfoM, 0 to 1, best 1: each active latent informs on one factor only.
        explicitness: InfoE, 0 to 1, best 1: the factors are linear functions of the latents.
        compactness: InfoC, 0 to 1, best 1: one active latent informs on each factor.
        nmi: Mutual information of factor and latent as a share of the factor's entropy, float64 [J, D].
        active: Latents that were not pruned, bool [D].
    """

    modularity: float
    explicitness: float
    compactness: float
    nmi: Matrix
    active: NDArray[np.bool_]


def correlation_matrix(latents: Latents, truth: Latents, *, kind: Literal["pearson", "spearman"] = "pearson") -> Matrix:
    """|Correlation| of every factor with every latent; 0 for a latent that is constant.

    Args:
        latents: float [N, D].
        truth: float [N, J].
        kind: Pearson's, or Spearman's: Pearson's of the ranks, tied values sharing their mean rank.

    Returns:
        float64 [J, D], 0 to 1.

    Raises:
        ValueError: Unequal or fewer than two rows, not finite, a constant factor, or an unknown kind.
    """
    if kind not in ("pearson", "spearman"):
        raise ValueError(f"correlation is 'pearson' or 'spearman', not {kind!r}")
    codes, factors = _columns(latents, truth)
    if kind == "spearman":
        codes, factors = _ranks(codes), _ranks(factors)
    absolute: Matrix = np.abs(_standardise(factors).T @ _standardise(codes)) / len(factors)
    return np.minimum(absolute, 1.0)


def match(scores: Matrix) -> NDArray[np.int64]:
    """The assignment of latents to factors with the greatest sum of scores (Kuhn, Nav. Res. Logist. Q. 2, 1955).

    Args:
        scores: float [J, D], higher is better.

    Returns:
        The latent of each factor, int64 [J], no latent twice; -1 for a factor that is left without one.
    """
    from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped, unused-ignore]

    order = np.full(len(scores), -1, dtype=np.int64)
    rows, columns = linear_sum_assignment(scores, maximize=True)
    order[rows] = columns
    return order


def mcc(
    estimate: Latents,
    truth: Latents,
    *,
    kind: Literal["pearson", "spearman"] = "pearson",
    assignment: Literal["hungarian"] | None = None,
) -> float:
    """Mean correlation coefficient: the mean over factors of |correlation| with their latents.

    Hyvärinen & Morioka, NeurIPS 2016 (arXiv 1605.06336), where latents are matched to factors by assignment; with
    the permutation known, factor j is compared with latent j.

    Args:
        estimate: Latents, float [N, D].
        truth: Factors, float [N, J].
        kind: "pearson", which asks for a linear relation, or "spearman", which asks for a monotone one.
        assignment: None, latent j is factor j (D = J), or "hungarian". Factors left without a latent count as 0.

    Raises:
        ValueError: As `correlation_matrix`, an unknown assignment, or none where D is not J.
    """
    if assignment not in (None, "hungarian"):
        raise ValueError(f"assignment is None or 'hungarian', not {assignment!r}")
    scores = correlation_matrix(estimate, truth, kind=kind)
    return float(_of_own(scores, _order(scores, known=assignment is None)).mean())


def r2_matrix(
    latents: Latents, truth: Latents, *, assignment: Literal["hungarian"] | None = None, seed: int = 0
) -> R2Matrix:
    """R2 of regressions of each factor on each latent alone, summarised as R2-diag and R2-off-diag.

    The convention of Lippe et al., BISCUIT, UAI 2023 (arXiv 2306.09643), for CausalWorld: fit on half of the rows,
    score on the others, mean over latents of the best R2 of a factor that is not theirs. There the regression is a
    small network, here a linear spline with KNOTS inner knots at the latent's quantiles, fitted by least squares, and
    each half is scored once by the other's fit; negative R2 counts as 0.

    Args:
        latents: float [N, D].
        truth: float [N, J], J >= 2.
        assignment: None, latent j is factor j (D = J), or "hungarian" on the matrix.
        seed: How rows fall into halves.

    Raises:
        ValueError: As `mcc`, fewer than two factors, or fewer rows than four times the spline's parameters.
    """
    if assignment not in (None, "hungarian"):
        raise ValueError(f"assignment is None or 'hungarian', not {assignment!r}")
    codes, factors = _columns(latents, truth, least_factors=2)
    if len(codes) < 4 * (KNOTS + 2):
        raise ValueError(f"need at least {4 * (KNOTS + 2)} rows to fit on one half and score on the other")
    errors = np.zeros((factors.shape[1], codes.shape[1]))
    spread = np.zeros(factors.shape[1])
    for fitted, scored in _halves(len(codes), seed):
        spread += ((factors[scored] - factors[fitted].mean(axis=0)) ** 2).sum(axis=0)
        for column in range(codes.shape[1]):
            knots = np.quantile(codes[fitted, column], np.linspace(0, 1, KNOTS + 2))
            weights = np.linalg.lstsq(_spline(codes[fitted, column], knots), factors[fitted], rcond=None)[0]
            predicted = _spline(codes[scored, column], knots) @ weights
            errors[:, column] += ((factors[scored] - predicted) ** 2).sum(axis=0)
    matrix = np.maximum(0.0, 1.0 - errors / spread[:, None])
    order = _order(matrix, known=assignment is None)
    others = [np.delete(matrix[:, latent], factor).max() for factor, latent in enumerate(order) if latent >= 0]
    return R2Matrix(matrix, order, float(_of_own(matrix, order).mean()), float(np.mean(others)))


def dci(latents: Latents, truth: Latents, *, seed: int = 0) -> Dci:
    """DCI of Eastwood & Williams, ICLR 2018 (openreview By-7dz-AZ), sec. 2.

    Importances are the absolute weights of a lasso regression of each standardised factor on all standardised
    latents, one of the two regressors of that paper: a latent that is not linear in its factor is rated
    too low. The penalty per factor is the largest whose error on the other half of the rows is within one standard
    error of the least one (Hastie et al., The Elements of Statistical Learning, 2009, sec. 7.10). The error that is
    given is not of the half that chose: with that penalty it is fitted on this half, and measured on the first one.

    Args:
        latents: float [N, D], D >= 2.
        truth: float [N, J], J >= 2.
        seed: How rows fall into halves.

    Raises:
        ValueError: Unequal or fewer than eight rows, not finite, a constant factor, or fewer than two columns.
    """
    codes, factors = _columns(latents, truth, least_factors=2, least_latents=2)
    if len(codes) < 8:
        raise ValueError(f"need at least 8 rows, got {len(codes)}")
    fitted, scored = _halves(len(codes), seed)[0]
    path, losses, _ = _lasso_losses(codes, factors, fitted, scored)
    means = losses.mean(axis=1)
    best = means.argmin(axis=0)
    chosen = np.empty_like(best)
    for factor, least in enumerate(best):
        margin = losses[least, :, factor].std() / np.sqrt(len(scored))
        chosen[factor] = np.flatnonzero(means[:, factor] <= means[least, factor] + margin)[0]
    numbers = np.arange(len(best))
    importance: Matrix = np.abs(path[chosen, :, numbers])
    _, losses, spread = _lasso_losses(codes, factors, scored, fitted)
    means = losses.mean(axis=1)
    error = np.where(spread > 0, np.sqrt(means[chosen, numbers] / np.where(spread > 0, spread, 1.0)), 1.0)
    return Dci(*dci_scores(importance), float(error.mean()), importance)


def dci_scores(importance: Matrix) -> tuple[float, float]:
    """Disentanglement and completeness of importances (Eastwood & Williams, ICLR 2018, sec. 2).

    Disentanglement of a latent is 1 - H(its importances as shares) / log J, and the mean weighs latents by their
    importance; completeness of a factor is 1 - H(...) / log D, and the mean is plain. A factor of no importances
    counts as 0.

    Args:
        importance: float [J >= 2, D >= 2], at least 0.

    Returns:
        Disentanglement and completeness, 0 to 1.
    """
    total = importance.sum()
    if total <= 0:
        return 0.0, 0.0
    by_latent = 1.0 - _entropy(importance.T) / np.log(importance.shape[0])
    by_factor = np.where(importance.sum(axis=1) > 0, 1.0 - _entropy(importance) / np.log(importance.shape[1]), 0.0)
    return float((by_latent * importance.sum(axis=0)).sum() / total), float(by_factor.mean())


def infomec(latents: Latents, truth: Latents, *, bins: int = 20) -> InfoMec:
    """InfoM, InfoE and InfoC of Hsu et al., NeurIPS 2023 (arXiv 2305.18378), sec. 4.

    Modularity is the mean over active latents of max / sum of their column of normalised mutual information,
    compactness the mean over factors of max / sum of their row, both rescaled from [1 / n, 1] to [0, 1].
    Explicitness is predictive V-information (Xu et al., ICLR 2020, arXiv 2002.10689) of linear models as a share of
    the null model's entropy, which for continuous factors is the R2 of a linear regression on all latents. It is that
    of the rows that were fitted: with few rows for many latents it is too high, by D / N for latents of noise.

    Mutual information is that of equally filled bins, values that are equal sharing one, with the bias correction
    of Miller and Madow (Miller, 1955; Paninski, Neural Comput. 15, 2003): it does not change under monotone
    maps. The paper's nearest-neighbour estimator for continuous latents is not used, so figures of that kind compare
    with each other and not with the published ones. Inactive latents, with less than ACTIVE_RANGE of the widest
    latent's range, are pruned as there, which presumes latents on one scale; of fewer than two active latents
    compactness has no meaning and is given as 0.

    Args:
        latents: float [N, D].
        truth: float [N, J], J >= 2.
        bins: Bins per factor and latent.

    Raises:
        ValueError: Unequal or fewer than two rows, not finite, a constant factor, or fewer than two factors or bins.
    """
    if bins < 2:
        raise ValueError(f"mutual information needs at least 2 bins, not {bins}")
    codes, factors = _columns(latents, truth, least_factors=2)
    ranges = np.ptp(codes, axis=0)
    active = (ranges > 0) & (ranges > ACTIVE_RANGE * ranges.max())
    binned_factors = [_bin(column, bins) for column in factors.T]
    binned_codes = [_bin(column, bins) for column in codes.T]
    nmi = np.array([[_shared(factor, code) for code in binned_codes] for factor in binned_factors])
    pruned = nmi[:, active]
    design = np.hstack([np.ones((len(codes), 1)), _standardise(codes)])
    targets = _standardise(factors)
    residuals = targets - design @ np.linalg.lstsq(design, targets, rcond=None)[0]
    explicitness = 1.0 - (residuals**2).mean(axis=0)
    return InfoMec(_concentration(pruned.T), float(explicitness.mean()), _concentration(pruned), nmi, active)


def shd(adjacency: ArrayLike, truth: ArrayLike) -> int:
    """Structural Hamming distance: edges to add, remove or turn round until one directed graph is the other.

    A reversal counts once (Tsamardinos et al., Mach. Learn. 65, 2006), so it is the number of pairs of nodes
    between which the graphs differ.

    Args:
        adjacency: [n, n], entry (i, j) not 0: an edge from i to j. The diagonal is 0.
        truth: The same of the true graph.

    Raises:
        ValueError: The shapes differ or are not square, or a node has an edge to itself.
    """
    found, true = np.asarray(adjacency) != 0, np.asarray(truth) != 0
    if found.shape != true.shape or found.ndim != 2 or found.shape[0] != found.shape[1]:
        raise ValueError(f"need two square matrices of one shape, got {found.shape} and {true.shape}")
    if found.diagonal().any() or true.diagonal().any():
        raise ValueError("an adjacency matrix has edges from a node to itself: set its diagonal to 0")
    differs = found != true
    return int(np.triu(differs | differs.T).sum())


def _columns(
    latents: Latents, truth: Latents, *, least_factors: int = 1, least_latents: int = 1
) -> tuple[Matrix, Matrix]:
    """Both as float64 matrices of N rows, with at least so many columns; refused with a reason otherwise."""
    codes, real = np.asarray(latents, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if codes.ndim != 2 or real.ndim != 2 or len(codes) != len(real) or len(real) < 2:
        raise ValueError(f"need latents [N >= 2, D] and truth [N, J], got {codes.shape} and {real.shape}")
    if codes.shape[1] < least_latents or real.shape[1] < least_factors:
        raise ValueError(
            f"need at least {least_latents} latents and {least_factors} factors,"
            f" got {codes.shape[1]} and {real.shape[1]}"
        )
    if not np.isfinite(codes).all() or not np.isfinite(real).all():
        raise ValueError("latents or truth hold what is not a finite number: leave those rows out")
    constant = np.flatnonzero(np.ptp(real, axis=0) == 0)
    if len(constant):
        raise ValueError(f"column {constant[0]} of truth is constant: nothing can be compared with it")
    return codes, real


def _standardise(values: Matrix, rows: NDArray[np.int64] | None = None) -> Matrix:
    """Columns with mean 0 and variance 1, over some rows or all; a column that is constant there becomes 0."""
    reference = values if rows is None else values[rows]
    scale, constant = reference.std(axis=0), np.ptp(reference, axis=0) == 0
    standard: Matrix = np.where(constant, 0.0, (values - reference.mean(axis=0)) / np.where(constant, 1.0, scale))
    return standard


def _ranks(values: Matrix) -> Matrix:
    """Ranks of each column, equal values sharing their mean rank."""
    ranks = np.empty_like(values)
    for number, column in enumerate(values.T):
        _, inverse, counts = np.unique(column, return_inverse=True, return_counts=True)
        ranks[:, number] = (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]
    return ranks


def _order(scores: Matrix, *, known: bool) -> NDArray[np.int64]:
    """The latent of each factor: of the same number, or by `match`."""
    if not known:
        return match(scores)
    if scores.shape[0] != scores.shape[1]:
        raise ValueError(
            f"{scores.shape[1]} latents cannot be compared one by one with {scores.shape[0]} factors:"
            " ask for assignment='hungarian'"
        )
    return np.arange(len(scores))


def _of_own(scores: Matrix, order: NDArray[np.int64]) -> Matrix:
    """Scores of the factors with their own latents, [J]; 0 where there is none."""
    own: Matrix = np.where(order >= 0, scores[np.arange(len(scores)), order], 0.0)
    return own


def _halves(rows: int, seed: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Two random halves, as (one, other) and (other, one)."""
    shuffled = np.random.default_rng(seed).permutation(rows)
    one, other = shuffled[: rows // 2], shuffled[rows // 2 :]
    return [(one, other), (other, one)]


def _spline(values: Matrix, knots: Matrix) -> Matrix:
    """Basis of linear splines [N, KNOTS + 2]; beyond the outer knots they stay at their last value."""
    inside = np.clip(values, knots[0], knots[-1])
    return np.stack([np.ones_like(inside), *(np.maximum(0.0, inside - knot) for knot in knots[:-1])], axis=1)


def _lasso_path(inputs: Matrix, targets: Matrix) -> Matrix:
    """Lasso weights for PENALTIES, float64 [penalties, D, J].

    Cyclic coordinate descent, started from the last penalty's weights (Friedman et al., J. Stat. Softw. 33, 2010).
    """
    gram, products = inputs.T @ inputs / len(inputs), inputs.T @ targets / len(inputs)
    curvature = gram.diagonal()
    weights = np.zeros_like(products)
    path = np.empty((len(PENALTIES), *products.shape))
    for number, penalty in enumerate(PENALTIES[:, None] * np.abs(products).max(axis=0)):
        for _ in range(SWEEPS):
            before = weights.copy()
            for latent in np.flatnonzero(curvature > 0):
                rest = products[latent] - gram[latent] @ weights + curvature[latent] * weights[latent]
                weights[latent] = np.sign(rest) * np.maximum(np.abs(rest) - penalty, 0.0) / curvature[latent]
            if np.abs(weights - before).max() < 1e-6:
                break
        path[number] = weights
    return path


def _lasso_losses(
    codes: Matrix, factors: Matrix, fitted: NDArray[np.int64], scored: NDArray[np.int64]
) -> tuple[Matrix, Matrix, Matrix]:
    """Weights of `_lasso_path` on some rows, their squared errors on others, and there the mean's mean squared errors.

    Shapes [penalties, D, J], [penalties, scored rows, J] and [J]; variances of factors on the fitted rows are 1.
    """
    inputs, targets = _standardise(codes, fitted), _standardise(factors, fitted)
    path = _lasso_path(inputs[fitted], targets[fitted])
    return path, (targets[scored] - inputs[scored] @ path) ** 2, (targets[scored] ** 2).mean(axis=0)


def _entropy(rows: Matrix) -> Matrix:
    """Entropy of each row's shares in nats, 0 for a row of zeros."""
    shares = rows / np.maximum(rows.sum(axis=1, keepdims=True), 1e-300)
    entropy: Matrix = -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(axis=1)
    return entropy


def _bin(values: Matrix, bins: int) -> NDArray[np.int64]:
    """Numbers 0, 1, ... of the bin of each value."""
    edges = np.unique(np.quantile(values, np.arange(1, bins) / bins, method="inverted_cdf"))
    codes: NDArray[np.int64] = np.unique(np.searchsorted(edges, values, side="left"), return_inverse=True)[1]
    return codes


def _shared(factor: NDArray[np.int64], code: NDArray[np.int64]) -> float:
    """Mutual information of two sequences of bins as a share of the first one's entropy, 0 to 1."""
    joint = factor * (int(code.max()) + 1) + code
    own, other, both = (_corrected_entropy(sequence) for sequence in (factor, code, joint))
    return float(np.clip((own + other - both) / own, 0.0, 1.0))


def _corrected_entropy(sequence: NDArray[np.int64]) -> float:
    """Entropy in nats, with Miller and Madow's correction by the number of values that occur."""
    counts = np.unique(sequence, return_counts=True)[1]
    return float(_entropy(counts[None].astype(np.float64))[0]) + (len(counts) - 1) / (2.0 * len(sequence))


def _concentration(rows: Matrix) -> float:
    """Mean over rows of max / sum, rescaled so that even rows give 0; a row of zeros counts as even."""
    if rows.shape[0] < 1 or rows.shape[1] < 2:
        return 0.0
    even = 1.0 / rows.shape[1]
    total = rows.sum(axis=1)
    shares = np.where(total > 0, rows.max(axis=1) / np.where(total > 0, total, 1.0), even)
    return float((shares.mean() - even) / (1.0 - even))

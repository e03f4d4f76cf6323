"""Regimes out of commands alone: where a joint's command keeps one distribution, and what distribution that is.

Change points of the distribution are found by kernel change-point detection (C. Truong, L. Oudre, N. Vayatis, Selective
review of offline change point detection methods, Signal Processing 167, 2020, sec. 4.2.3, the package `ruptures`),
segments of like distributions are one level, and densities are kernel estimates of the commanded positions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ropes_ros.commands import SAMPLE_NS, CommandTrack
from ropes_ros.densities import Bump, Density, Tabulated, Tilt
from ropes_ros.errors import ScheduleError
from ropes_ros.optional import need
from ropes_ros.regime_files import Span
from ropes_ros.units import NANOSECONDS

Array = NDArray[np.float64]

TABLE = 65
"""Points of an estimated density over [-1, 1]."""
DENSITY_FLOOR = 0.05
FITS = 0.1
"""Total variation between a family's density and the kernel estimate below which the family is taken."""
MOST_SAMPLES = 12_000
"""Samples a joint at which changes are looked for; more would take minutes."""
LEAST_SEGMENT_S = 2.0
KERNEL_WIDTH = 0.25
"""Width in half ranges of the kernel that distributions are compared by: the width of levels of practical use."""
PENALTY = 0.4
"""What a change must gain, times the logarithm of the number of independent samples. A change too many does no harm:
neighbouring segments of one level are joined again."""
STILL = 0.01
"""Standard deviation of u below which a joint was not commanded to move."""
_QUANTILES = (np.arange(40) + 0.5) / 40
_LONGEST_LAG_S = 3.0
_COUNTS = range(2, 17)


class Inferred(NamedTuple):
    """Regimes found in commands.

    Attributes:
        spans: The segments of all joints.
        levels: Number of levels that each joint that moves has.
        sentences: What was assumed, and what to check.
    """

    spans: tuple[Span, ...]
    levels: int
    sentences: tuple[str, ...]


def infer_regimes(track: CommandTrack, joint_names: Sequence[str], *, levels: int | None = None) -> Inferred:
    """Find each joint's regimes from what it was commanded.

    Args:
        track: The commands.
        joint_names: Names of the J joints, for messages.
        levels: Number of levels; by default as many as can be told apart, the same number for every joint.

    Raises:
        ScheduleError: No joint's commands change their distribution.
        RuntimeSetupError: ruptures or scipy is not installed.
    """
    need("ruptures", "scipy", extra="import")
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import pdist, squareform

    scores: dict[int, Array] = {}
    moving = [joint for joint in range(track.u.shape[1]) if track.u[:, joint].std() > STILL]
    edges = {joint: _change_points(track.u[:, joint]) for joint in moving}
    trees: dict[int, Array] = {}
    for joint in moving:
        quantiles = np.stack(
            [np.quantile(track.u[a:b, joint], _QUANTILES) for a, b in zip(edges[joint], edges[joint][1:], strict=False)]
        )
        if len(quantiles) < max(3, levels or 0):
            continue
        distance = pdist(quantiles / len(_QUANTILES), "cityblock")
        trees[joint] = linkage(distance, "average")
        scores[joint] = np.array(
            [_silhouette(squareform(distance), fcluster(trees[joint], k, "maxclust")) for k in _COUNTS]
        )
    usable = list(trees)
    if not usable:
        raise ScheduleError(
            "no joint's commands change their distribution, so that no regime can be told from them: write the regimes "
            "down in a file (--regimes FILE)"
        )
    count = levels or _COUNTS[int(np.argmax(np.mean([scores[joint] for joint in usable], axis=0)))]
    spans: list[Span] = []
    for joint in usable:
        spans += _segments(track, joint, edges[joint], fcluster(trees[joint], count, "maxclust"))
    sentences = [
        f"regimes were inferred: {count} levels a joint, from changes in the distribution of commanded positions; "
        f"segments shorter than {LEAST_SEGMENT_S:.0f} s are not told apart; look at the plot before you train",
        "that the robot reached what it was commanded is assumed, and that commands in a segment are draws from one "
        "density that has nothing to do with the other joints or the time",
    ]
    for joint in moving:
        if joint not in usable:
            sentences.append(f"joint {joint_names[joint]} moves without a change of distribution: it has no regimes")
        elif (own := _COUNTS[int(np.argmax(scores[joint]))]) != count:
            sentences.append(f"joint {joint_names[joint]} on its own looks as if it had {own} levels, {count} are used")
    still = [joint_names[joint] for joint in range(track.u.shape[1]) if joint not in moving]
    if still:
        sentences.append(f"joint {', '.join(still)} was not commanded to move: no regimes")
    return Inferred(tuple(spans), count, tuple(sentences))


def estimate_density(u: Array, segments: int, *, smoothing: float = 1.0) -> Density:
    """Density of commanded positions: a Gaussian bump or an exponential tilt where one fits, else a table.

    Families come first because their log density ratios are smooth where a level hardly ever is; the noise of a table
    there would make angles look alike.

    Args:
        u: Commanded positions at even times, float64 [N], in half ranges; what lies outside [-1, 1] counts as the end.
        segments: How many stretches of time they are from: neighbouring samples say nearly the same.
        smoothing: Factor on the width of the table's kernel.

    Raises:
        RuntimeSetupError: scipy is not installed.
    """
    need("scipy", extra="import")
    from scipy.optimize import minimize
    from scipy.stats import gaussian_kde

    u = np.clip(u[np.linspace(0, len(u) - 1, min(len(u), 3000)).astype(np.int64)], -1.0, 1.0)
    low, high = np.quantile(u, (0.25, 0.75))
    spread = min(float(u.std()), float(high - low) / 1.34) or float(u.std())
    independent = min(len(u), 40 * max(1, segments))
    width = min(max(0.9 * spread * independent**-0.2, 0.02), 0.15) * smoothing  # Silverman's rule
    mirrored = np.concatenate([u, 2.0 - u, -2.0 - u])  # so that nothing is lost at the ends
    grid = np.linspace(-1.0, 1.0, TABLE)
    values = gaussian_kde(mirrored, bw_method=width / float(mirrored.std(ddof=1)))(grid)
    values = values / (0.5 * (values[1:] + values[:-1]).sum() * (grid[1] - grid[0]))

    def bump(at: Array) -> Bump:
        return Bump(float(np.clip(at[0], -1.0, 1.0)), float(np.exp(np.clip(at[1], -4.0, 1.5))), DENSITY_FLOOR)

    def tilt(at: Array) -> Tilt:
        return Tilt(math.copysign(float(np.clip(abs(at[0]), 0.05, 15.0)), at[0]), DENSITY_FLOOR)

    def misfit(density: Density) -> float:
        return -float(density.log_pdf(u).mean())

    starts = ((bump, [float(np.median(u)), math.log(max(spread, 0.03))]), (tilt, [math.copysign(2.0, float(u.mean()))]))
    fits = [
        of(minimize(lambda at, of=of: misfit(of(at)), start, method="Nelder-Mead").x) for of, start in starts
    ]
    best = min(fits, key=misfit)
    apart = 0.5 * np.abs(best.pdf(grid) - ((1 - DENSITY_FLOOR) * values + 0.5 * DENSITY_FLOOR)).sum()
    if apart * (grid[1] - grid[0]) < FITS:
        return best
    return Tabulated(tuple(float(value) for value in np.round(values, 5)), DENSITY_FLOOR)


def _change_points(u: Array) -> list[int]:
    """Edges of segments of one distribution, from 0 to the number of samples [T] (every `SAMPLE_NS`)."""
    import ruptures

    memory = _memory(u)
    step = max(memory, -(-len(u) // MOST_SAMPLES))
    samples = np.ascontiguousarray(u[step // 2 :: step, None])
    least = max(2, math.ceil(LEAST_SEGMENT_S * NANOSECONDS / SAMPLE_NS / step))
    if len(samples) < 2 * least:
        return [0, len(u)]
    search = ruptures.KernelCPD(kernel="rbf", params={"gamma": 0.5 / KERNEL_WIDTH**2}, min_size=least)
    found = search.fit(samples).predict(pen=PENALTY * math.log(len(samples)))
    return [0, *(min(len(u), end * step) for end in found[:-1]), len(u)]


def _silhouette(distance: Array, clusters: NDArray[np.int32]) -> float:
    """Mean silhouette of a clustering (P. Rousseeuw, J. Comp. Appl. Math. 20, 1987), from distances [S, S]."""
    members = clusters[:, None] == np.unique(clusters)
    sizes = members.sum(axis=0)
    if len(sizes) < 2 or len(sizes) >= len(clusters):
        return -1.0
    sums = distance @ members
    own = sums[members] / np.maximum(sizes[members.argmax(axis=1)] - 1, 1)
    other = np.where(members, np.inf, sums / sizes).min(axis=1)
    width = np.where(sizes[members.argmax(axis=1)] > 1, (other - own) / np.maximum(np.maximum(own, other), 1e-12), 0.0)
    return float(width.mean())


def _memory(u: Array) -> int:
    """Samples after which a command has nearly forgotten where it was."""
    lags = np.unique(np.geomspace(1, _LONGEST_LAG_S * NANOSECONDS / SAMPLE_NS, 40).astype(np.int64))
    lags = lags[lags < len(u) // 4]
    if not len(lags):
        return 1
    moved = np.array([np.abs(u[lag:] - u[:-lag]).mean() for lag in lags]) + 1e-9
    growth = np.gradient(np.log(moved), np.log(lags))  # 1 while it moves on, 0 once it has been everywhere
    return int(lags[int(np.argmax(growth < 0.4))])


def _segments(track: CommandTrack, joint: int, edges: list[int], clusters: NDArray[np.int32]) -> list[Span]:
    """Neighbouring segments of one cluster joined; levels numbered by their mean position."""
    means = {
        cluster: np.mean(
            np.concatenate(
                [
                    track.u[a:b, joint]
                    for a, b, own in zip(edges, edges[1:], clusters, strict=False)
                    if own == cluster
                ]
            )
        )
        for cluster in np.unique(clusters)
    }
    rank = {cluster: number for number, cluster in enumerate(sorted(means, key=lambda key: float(means[key])))}
    margin = NANOSECONDS // 4  # a change is found to within some samples
    spans: list[Span] = []
    for a, b, cluster in zip(edges, edges[1:], clusters, strict=False):
        level, end_ns = f"l{rank[cluster]}", int(track.times_ns[b - 1])
        if spans and spans[-1].level == level:
            spans[-1] = spans[-1]._replace(end_ns=end_ns - margin)
        else:
            spans.append(Span(joint, level, int(track.times_ns[a]) + margin, end_ns - margin))
    return spans

"""From what was sent and heard to figures; times in ns in, in ms out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropes_ros.estimation import OUTCOMES

PERCENTILES = (50.0, 99.0, 99.9)
INFERENCE_S = 0.05
"""How long the encoder takes for a frame in the overload run."""
GRID_NS = 1_000_000
"""Steps of time at which the age of the newest estimate is looked at."""


def spread(values_ns: NDArray[np.int64]) -> dict[str, float | None]:
    """Percentiles and the maximum in ms; None of no values."""
    names = [f"p{percentile:g}_ms" for percentile in PERCENTILES]
    if not len(values_ns):
        return {**dict.fromkeys(names), "max_ms": None}
    found = np.percentile(values_ns, PERCENTILES) * 1e-6
    return {**dict(zip(names, found.tolist(), strict=True)), "max_ms": float(values_ns.max()) * 1e-6}


def latencies(sent: NDArray[np.int64], heard: NDArray[np.int64], warmup_s: float) -> NDArray[np.int64]:
    """From publication to reception, ns, of what was published after the warm-up.

    Args:
        sent: Stamps of what was published, int64 [N], increasing.
        heard: Stamps and times of reception, int64 [M, 2].
        warmup_s: Seconds from the first publication on that do not count.
    """
    counted = heard[:, 0] >= sent[0] + int(warmup_s * 1e9)
    taken: NDArray[np.int64] = heard[counted, 1] - heard[counted, 0]
    return taken


def newest_ages(heard: NDArray[np.int64]) -> tuple[float | None, float | None]:
    """Age of the newest estimate that a listener has, over time from the first one to the last: p99 and maximum, ms.

    The maximum is taken just before each reception, where the age is greatest; the percentile on a grid of time.
    """
    if len(heard) < 2:
        return None, None
    stamps, received = np.maximum.accumulate(heard[:, 0]), heard[:, 1]
    moments = np.arange(received[0], received[-1], GRID_NS)
    newest = stamps[np.searchsorted(received, moments, side="right") - 1]
    return float(np.percentile(moments - newest, 99)) * 1e-6, float((received[1:] - stamps[:-1]).max()) * 1e-6


def accounted(counters: Mapping[str, int], sent: int, heard: int) -> dict[str, Any]:
    """Whether all frames are accounted for once nothing is at work any more.

    Args:
        counters: The estimator's.
        sent: Frames that the camera published.
        heard: Estimates that were received.

    Returns:
        The counters, `lost_in_transport` (sent, but not received by the estimator), and `exact`: each received frame is
        in one of `OUTCOMES`, none came twice, and each published estimate was heard.
    """
    received = counters.get("received", 0)
    outcomes = {name: counters.get(name, 0) for name in OUTCOMES}
    exact = received == sum(outcomes.values()) and 0 < received <= sent and outcomes["published"] == heard
    return {"received": received, **outcomes, "lost_in_transport": sent - received, "exact": exact}


def slope_per_hour(seconds: NDArray[np.float64], values: NDArray[np.float64]) -> float | None:
    """Least squares slope of values [N] over time [N] in the values' unit per hour; None of fewer than two values."""
    return 3600.0 * float(np.polyfit(seconds, values, 1)[0]) if len(values) > 1 else None


def medians(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The median over runs of each number that all runs have."""
    columns = {name: [run[name] for run in runs] for name in runs[0]}
    return {
        name: float(np.median(values))
        for name, values in columns.items()
        if all(isinstance(value, (int, float)) for value in values)
    }

"""What the estimator must reach, and the judgement of measured figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ropes_ros.bench.estimator.runs import FLOOR, OURS, PEER, TRANSPORT
from ropes_ros.bench.judged import Judged

FLOORS, BESIDE_MS = 2.5, 5.0
"""What the 99th percentile of latency may be: so many of the floor's 99th percentile, and so much beside."""
AGE_MS = 100.0
"""Greatest age of an estimate as it arrives, with an encoder that keeps up."""
CPU_RATIO = 0.5
INFERENCES = 2.0
"""Greatest age of an estimate as it arrives under overload, in inferences, beside the transport's 99th percentile."""
RMSE_RATIO = 0.7
FUZZ_MESSAGES = 10_000


def key_figures(bench: Mapping[str, Any]) -> dict[str, float | bool | None]:
    """The figures that targets are about.

    Args:
        bench: What `runs.measure` gave.

    Returns:
        "p99_ms", "age_max_ms" (the greatest latency of all rounds), "floor_ms" (the same
        percentile of bare inferences) and "floor_p50_ms", "cpu_ratio_vs_peer" (of medians), "overload_age_ms" (greatest
        on arrival) and "overload_newest_age_ms" (just before the next arrival, which even a perfect node lets grow to
        two inferences and half a frame period or more), "inference_ms" under overload, "transport_p99_ms", and whether
        "frames_accounted_for" in every run of the estimator.
    """
    rows, overload = bench["latency"], bench["overload"]
    ours, theirs = rows[OURS].get("cpu_ms_per_frame"), rows[PEER].get("cpu_ms_per_frame")
    ages = [run["max_ms"] for run in rows[OURS]["runs"]]
    return {
        "p99_ms": rows[OURS].get("p99_ms"),
        "age_max_ms": None if None in ages else max(ages),
        "floor_ms": rows[FLOOR].get("p99_ms"),
        "floor_p50_ms": rows[FLOOR].get("p50_ms"),
        "cpu_ratio_vs_peer": ours / theirs if ours is not None and theirs else None,
        "overload_age_ms": overload["age_on_arrival_ms"],
        "overload_newest_age_ms": overload["newest_age_max_ms"],
        "inference_ms": overload["inference_ms"],
        "transport_p99_ms": rows[TRANSPORT].get("p99_ms"),
        "frames_accounted_for": all(run["frames"]["exact"] for run in (*rows[OURS]["runs"], overload)),
    }


def judge(figures: Mapping[str, Any]) -> list[Judged]:
    """Compare with all targets.

    Args:
        figures: `key_figures`, and "filter_rmse_ratio", "nees_ok", "faults_tested", "faults_passed" and
            "fuzz_messages"; what is None or missing was not measured.
    """

    def sum_of(factor: float, name: str, beside: float | None) -> float | None:
        value = figures.get(name)
        return None if value is None or beside is None else factor * value + beside

    tested = figures.get("faults_tested")
    return [
        Judged("p99_ms", figures.get("p99_ms"), sum_of(FLOORS, "floor_ms", BESIDE_MS), "<="),
        Judged("age_max_ms", figures.get("age_max_ms"), AGE_MS, "<="),
        Judged("cpu_ratio_vs_peer", figures.get("cpu_ratio_vs_peer"), CPU_RATIO, "<="),
        Judged(
            "overload_age_ms",
            figures.get("overload_age_ms"),
            sum_of(INFERENCES, "inference_ms", figures.get("transport_p99_ms")),
            "<=",
        ),
        Judged("frames_accounted_for", figures.get("frames_accounted_for"), True, "is"),
        Judged("filter_rmse_ratio", figures.get("filter_rmse_ratio"), RMSE_RATIO, "<="),
        Judged("nees_ok", figures.get("nees_ok"), True, "is"),
        Judged("faults_passed", figures.get("faults_passed") if tested else None, tested, ">="),
        Judged("fuzz_messages", figures.get("fuzz_messages"), FUZZ_MESSAGES, ">="),
    ]

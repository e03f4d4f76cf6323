"""Measure the shipped model's precisions against their targets, and write out/verify/precision.json.

`make verify-precision`; exit status 1 where a target is missed, or not measured.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ropes_ros.bench.judged import conclude
from ropes_ros.bench.precision import measure
from ropes_ros.bench.precision_targets import judge, key_figures, nested_exact, size_shares
from ropes_ros.encoder import shipped_model
from ropes_ros.errors import RopesError

ROOT = Path(__file__).parent.parent
OUT = ROOT / "out"
RESULT = OUT / "verify" / "precision.json"
TRAININGS = ROOT / "benchmarks" / "nesting.json"
"""Fine-tunings of nested weights, and of weights for one precision alone, that were run; judged on the same poses."""


def trained(variant: str) -> list[float]:
    """Mean error of int2, degrees, of the seeds of a variant that were run."""
    if not TRAININGS.is_file():
        return []
    rows = [row for row in json.loads(TRAININGS.read_text(encoding="utf-8"))["rows"] if row["variant"] == variant]
    return [row["accuracy"]["int2"]["clean"]["mean_joint_mae_deg"] for row in rows]


def main() -> int:
    """Exit status 0 where all targets are measured and reached."""
    model = shipped_model("arm6")
    bench: dict[str, Any] = {}
    figures: dict[str, Any] = {}
    shares: dict[str, float] = {}
    exact: bool | None = None
    try:
        bench = measure(model, OUT / "bench-precision", on_step=print)
        figures, shares, exact = key_figures(bench), size_shares(model), nested_exact(model)
    except RopesError as error:
        print(f"error: {error}")
    judged = judge(figures, shares, exact=exact, nested=trained("nested"), alone=trained("int2 alone"))
    measured = {entry.name: entry.measured for entry in judged}
    return conclude(judged, {**figures, **measured}, RESULT, weights_share=shares, bench=bench)


if __name__ == "__main__":
    sys.exit(main())

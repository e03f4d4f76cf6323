"""Measure the estimator against its targets, and write out/verify/estimator.json: `make verify-estimator`.

Exit status 1 where a target is missed, or not measured.
"""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from outcomes import Outcomes

from ropes_ros.bench.estimator.runs import Settings, measure
from ropes_ros.bench.estimator.targets import judge, key_figures
from ropes_ros.bench.judged import conclude, finite
from ropes_ros.bench.tracking import filter_figures
from ropes_ros.errors import RopesError

HERE = Path(__file__).parent
OUT = HERE.parent / "out"
RESULT = OUT / "verify" / "estimator.json"
FAULTS, FUZZ = "test_estimator_faults", "test_fuzz_images"
_FAULT = re.compile(r"::test_fault_(\w+)")
"""How a test of one fault is named."""


def faults() -> dict[str, Any]:
    """Faults that are tested, and those of them whose tests all pass."""
    results = _run(FAULTS)
    passed: dict[str, bool] = {}
    for test, outcome in results.outcomes.items():
        if found := _FAULT.search(test):
            passed[found[1]] = passed.get(found[1], True) and outcome == "passed"
    return {
        "faults_tested": len(passed),
        "faults_passed": sum(passed.values()),
        "faults": passed,
    }


def fuzz() -> dict[str, Any]:
    """Random messages that the estimator took, None unless all tests of them pass."""
    results = _run(FUZZ)
    whole = 0 < len(results.outcomes) == results.count("passed")
    return {"fuzz_messages": int(importlib.import_module(FUZZ).MESSAGES) if whole else None}


def _run(module: str) -> Outcomes:
    results = Outcomes()
    pytest.main(["-q", "-p", "no:cacheprovider", str(HERE / f"{module}.py")], plugins=[results])
    return results


def main() -> int:
    """Exit status 0 where all targets are measured and reached."""
    tracked = {name: finite(value) for name, value in filter_figures().items()}
    try:
        bench = measure(Settings(), OUT / "bench-estimator", on_step=print)
    except RopesError as error:
        print(f"error: {error}")
        bench = None
    figures: dict[str, Any] = {**(key_figures(bench) if bench else {}), **tracked, **faults(), **fuzz()}
    return conclude(judge(figures), figures, RESULT, bench=bench)


if __name__ == "__main__":
    sys.exit(main())

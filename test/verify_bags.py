"""Measure recording, survival and training data against their targets, and write out/verify/bags.json.

`make verify-bags`; exit status 1 where a target is missed, or not measured.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ropes_ros.bench.judged import conclude, finite
from ropes_ros.bench.recorder.runs import Settings, measure
from ropes_ros.bench.recorder.targets import CAMERAS, KILLS, SECONDS, SIZE, judge, loss_figures
from ropes_ros.errors import RopesError

OUT = Path(__file__).parent.parent / "out"
RESULT = OUT / "verify" / "bags.json"
BENCH = "ropes_ros.bench."


def main() -> int:
    """Exit status 0 where all targets are measured and reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="length of the recording of four cameras")
    given = parser.parse_args()
    figures: dict[str, Any] = {}
    details: dict[str, Any] = {}
    for name, make in _parts(given.seconds).items():
        print(name, flush=True)
        try:
            details[name], found = make()
        except (ImportError, RopesError) as error:
            print(f"not measured: {error}")
            continue
        figures.update({key: finite(value) for key, value in found.items()})
    return conclude(judge(figures), figures, RESULT, details=details)


def _parts(seconds: float) -> dict[str, Callable[[], tuple[Any, Mapping[str, Any]]]]:
    """What is measured, by name: each gives details for the file, and figures."""

    def loss() -> tuple[Any, Mapping[str, Any]]:
        settings = Settings(seconds=seconds, sizes=(SIZE,), cameras=(CAMERAS,), peers=False)
        bench = measure(settings, OUT / "bench-recorder", on_step=print)
        return bench, loss_figures(bench)

    def kills() -> tuple[Any, Mapping[str, Any]]:
        folder = OUT / "bench-recorder" / "kills"
        shutil.rmtree(folder, ignore_errors=True)
        found = _function("recorder.kills", "kill_figures")(folder, kills=KILLS, on_step=print)
        return found, {name: found[name] for name in ("kills", "recovered", "seconds_lost_max")}

    def made_by(module: str, name: str) -> Callable[[], tuple[Any, Mapping[str, Any]]]:
        def make() -> tuple[Any, Mapping[str, Any]]:
            found = _function(module, name)()
            return found, found

        return make

    return {
        "loss": loss,
        "kills": kills,
        "occupancy": made_by("occupancy", "occupancy_figures"),
        "dataset": made_by("bags", "dataset_figures"),
        "drift": made_by("bags", "drift_figures"),
    }


def _function(module: str, name: str) -> Callable[..., dict[str, Any]]:
    """A function of the bench, whose optional packages may be missing."""
    found: Callable[..., dict[str, Any]] = getattr(importlib.import_module(BENCH + module), name)
    return found


if __name__ == "__main__":
    sys.exit(main())

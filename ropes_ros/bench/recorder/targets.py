"""What recording, survival and training data must reach, and the judgement of measured figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ropes_ros.bench.judged import Judged
from ropes_ros.bench.recorder.runs import OURS

SECONDS = 60.0
CAMERAS, SIZE = 4, (640, 480)
SECONDS_LOST = 1.0
KILLS = 50
SPEED_RATIO = 0.6
OCCUPANCY_TV = 0.05
DRIFT_RATIO = 1.3


def loss_figures(bench: Mapping[str, Any]) -> dict[str, float | bool]:
    """The share of frames of four cameras that is not in the bag, and whether the bag says so exactly.

    Args:
        bench: What `runs.measure` gave.
    """
    (run,) = (run for run in bench["runs"] if run["cameras"] == CAMERAS and tuple(run["size"]) == SIZE)
    row = run["rows"][OURS]
    return {"loss_4x640_30hz": row["lost"] / row["sent"], "losses_told": row["exact"]}


def judge(figures: Mapping[str, Any]) -> list[Judged]:
    """Compare with all targets.

    Args:
        figures: By the names of the targets; what is None or missing was not measured.
    """
    kills = figures.get("kills")
    return [
        Judged("loss_4x640_30hz", figures.get("loss_4x640_30hz"), 0.0, "<="),
        Judged("losses_told", figures.get("losses_told"), True, "is"),
        Judged("seconds_lost_max", figures.get("seconds_lost_max"), SECONDS_LOST, "<="),
        Judged("kills", kills, KILLS, ">="),
        Judged("recovered", figures.get("recovered"), kills, ">="),
        Judged("dataset_speed_ratio", figures.get("dataset_speed_ratio"), SPEED_RATIO, ">="),
        Judged("occupancy_tv_max", figures.get("occupancy_tv_max"), OCCUPANCY_TV, "<="),
        Judged("drift_error_ratio", figures.get("drift_error_ratio"), DRIFT_RATIO, "<="),
        Judged("sequential_flagged", figures.get("sequential_flagged"), True, "is"),
    ]

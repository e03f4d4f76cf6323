"""What the committed models must reach, as a table, and the judgement of measured figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

NOVELTY = "novelty"
COVERED = (0.90, 0.98)
"""Share of frames within two std, for every joint."""
WORSE = 1.5
"""Most that a nuisance may multiply the clean error by."""


class Target(NamedTuple):
    """One figure that models must reach.

    Attributes:
        row: The row of `models.yaml` whose models it is about; their mean counts.
        test: Condition of fresh uniform poses, or "novelty".
        metric: Key of the figure; of a figure by joint the worst joint counts.
        least, most: Bounds; None for none.
        relative_to: Row whose figure on clean poses `most` multiplies; "" for an absolute bound.
    """

    row: str
    test: str
    metric: str
    least: float | None = None
    most: float | None = None
    relative_to: str = ""


TARGETS: tuple[Target, ...] = (
    Target("iid", "clean", "mcc", least=0.99),
    Target("iid", "clean", "mean_joint_mae_deg", most=2.5),
    Target("iid", "clean", "tip_error_mm_median", most=20.0),
    Target("iid", "clean", "coverage_2std", *COVERED),
    Target("iid", NOVELTY, "auc_covered", least=0.95),
    Target("iid", NOVELTY, "auc_object", least=0.95),
    Target("iid", NOVELTY, "auc_moved", least=0.95),
    Target("sweeps", "clean", "mcc", least=0.985),
    Target("sweeps", "clean", "mean_joint_mae_deg", most=3.5),
    Target("sweeps", "clean", "tip_error_mm_median", most=28.0),
    Target("sweeps", "clean", "coverage_2std", *COVERED),
    Target("iid-20k", "clean", "mcc", least=0.96),
    Target("iid-5k", "clean", "mcc", least=0.90),
    *(
        Target(f"iid-{condition}", condition, "mean_joint_mae_deg", most=WORSE, relative_to="iid")
        for condition in ("drift", "jitter", "occlusion")
    ),
)
ROWS = tuple(dict.fromkeys(target.row for target in TARGETS))

Figures = Mapping[str, Mapping[str, Any]]
"""Figures of one model by test, and by name."""


class Judged(NamedTuple):
    """A target beside what was measured.

    Attributes:
        target: The target.
        measured: Mean over the row's models, of a figure by joint the worst joint's; None where no model stands for it.
        bounds: The bounds in the figure's unit, each None for none.
        reached: Whether it lies within them; None where nothing was measured.
        models: Number of models.
    """

    target: Target
    measured: float | None
    bounds: tuple[float | None, float | None]
    reached: bool | None
    models: int


def judge(rows: Mapping[str, Sequence[Figures]]) -> list[Judged]:
    """Compare all targets with the figures of the models that stand for each row."""
    return [_judge(target, rows) for target in TARGETS]


def _judge(target: Target, rows: Mapping[str, Sequence[Figures]]) -> Judged:
    models = rows.get(target.row, ())
    least, most = target.least, target.most
    if target.relative_to:
        clean = rows.get(target.relative_to, ())
        reference = _mean([figures["clean"][target.metric] for figures in clean])
        most = None if reference is None or most is None else most * reference
    values = [_worst(figures[target.test][target.metric], (least, most)) for figures in models]
    measured = _mean(values)
    if measured is None or (target.relative_to and most is None):
        return Judged(target, measured, (least, most), None, len(models))
    reached = (least is None or measured >= least) and (most is None or measured <= most)
    return Judged(target, measured, (least, most), reached, len(models))


def _worst(value: Any, bounds: tuple[float | None, float | None]) -> float:
    """A number as it is; of numbers by joint the one that is furthest out of, or the least inside, the bounds."""
    if not isinstance(value, list):
        return float(value)
    low = -math.inf if bounds[0] is None else bounds[0]
    high = math.inf if bounds[1] is None else bounds[1]
    return float(min(value, key=lambda entry: min(entry - low, high - entry)))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def tests_of(row: str) -> tuple[str, ...]:
    """Tests whose figures the targets of a row need."""
    return tuple(dict.fromkeys(target.test for target in TARGETS if target.row == row))

"""What the committed models must reach, as a table, and the judgement of measured figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

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
        metric: Key of the figure; of a figure by joint each joint's mean is taken, and the worst of these counts.
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
        measured: Mean over the row's models; of a figure by joint the means of each joint, and of these the one that is
            furthest out of, or the least inside, the bounds. None where no model stands for it.
        lowest, highest: The least and the greatest figure of any one model, and of any one joint in it.
        bounds: The bounds in the figure's unit, each None for none.
        reached: Whether it lies within them; None where nothing was measured.
        models: Number of models.
    """

    target: Target
    measured: float | None
    lowest: float | None
    highest: float | None
    bounds: tuple[float | None, float | None]
    reached: bool | None
    models: int

    def plain(self) -> dict[str, Any]:
        """All of it as one level of plain values, for JSON."""
        own = self._asdict()
        return {**own.pop("target")._asdict(), **own}


def judge(rows: Mapping[str, Sequence[Figures]]) -> list[Judged]:
    """Compare all targets with the figures of the models that stand for each row."""
    return [_judge(target, rows) for target in TARGETS]


def _judge(target: Target, rows: Mapping[str, Sequence[Figures]]) -> Judged:
    least, most = target.least, target.most
    if target.relative_to:
        clean = _by_joint(rows.get(target.relative_to, ()), "clean", target.metric)
        most = None if most is None or not len(clean) else most * float(clean.mean())
    figures = _by_joint(rows.get(target.row, ()), target.test, target.metric)
    if not len(figures):
        return Judged(target, None, None, None, (least, most), None, 0)
    low, high = -math.inf if least is None else least, math.inf if most is None else most
    measured = min(figures.mean(axis=0).tolist(), key=lambda mean: min(mean - low, high - mean))
    reached = None if target.relative_to and most is None else low <= measured <= high
    return Judged(
        target, measured, float(figures.min()), float(figures.max()), (least, most), reached, len(figures)
    )


def _by_joint(models: Sequence[Figures], test: str, metric: str) -> NDArray[np.float64]:
    """A figure of M models, float64 [M, J], of a figure that is not by joint [M, 1]; [0] without models."""
    return np.array([np.atleast_1d(figures[test][metric]) for figures in models], dtype=np.float64)


def tests_of(row: str) -> tuple[str, ...]:
    """Tests whose figures the targets of a row need."""
    return tuple(dict.fromkeys(target.test for target in TARGETS if target.row == row))

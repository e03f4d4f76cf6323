"""A figure beside its target."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ropes_ros.bench.cells import write_json


class Judged(NamedTuple):
    """A target beside what was measured.

    Attributes:
        name: Key of the figure.
        measured: The figure; None where it was not measured.
        bound: What it was compared with; None where that was not measured.
        sign: How: "<=", ">=" or "is".
    """

    name: str
    measured: float | bool | None
    bound: float | bool | None
    sign: str

    @property
    def reached(self) -> bool | None:
        """Whether it is reached; None where it was not measured."""
        if self.measured is None or self.bound is None:
            return None
        if self.sign == "is":
            return self.measured == self.bound
        return self.measured <= self.bound if self.sign == "<=" else self.measured >= self.bound

    def plain(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        return {**self._asdict(), "reached": self.reached}


def finite(value: Any) -> Any:
    """A figure, or None where it is no finite number."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def conclude(judged: Sequence[Judged], figures: Mapping[str, Any], path: Path, **details: Any) -> int:
    """Write figures, targets and details to a file, and print each target with its verdict.

    Returns:
        0 where all targets are measured and reached, else 1.
    """
    keys = dict.fromkeys(entry.name for entry in judged)
    write_json(path, {**keys, **figures, "targets": [entry.plain() for entry in judged], **details})
    for entry in judged:
        verdict = {True: "pass", False: "MISS", None: "not measured"}[entry.reached]
        print(f"{entry.name:22} {_text(entry.measured):>12} {entry.sign} {_text(entry.bound):<10} {verdict}")
    print(f"written: {path}")
    return 0 if all(entry.reached for entry in judged) else 1


def _text(value: float | bool | None) -> str:
    return "" if value is None else str(value) if isinstance(value, bool) else f"{value:.4g}"

"""A figure beside its target."""

from __future__ import annotations

import math
from typing import Any, NamedTuple


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

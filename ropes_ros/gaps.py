"""Lost frames, told from the stamps of those that arrived."""

from __future__ import annotations

import statistics
from collections import deque

WINDOW = 60
WARM_UP = 10
"""Periods to see before the median is trusted."""
TOLERANCE = 1.5
PAUSE_NS = 60_000_000_000


class GapCounter:
    """Counts the frames that are missing between stamps, given the median of the last periods.

    A gap of more than 1.5 median periods counts as the whole periods that are missing in it. A stamp that is
    not later than the last one (a clock that was set back, a camera that restarted) starts the count of
    periods afresh.

    Attributes:
        missing: Frames missing so far.
    """

    def __init__(self) -> None:
        self.missing = 0
        self._last_ns: int | None = None
        self._periods: deque[int] = deque(maxlen=WINDOW)

    def add(self, stamp_ns: int) -> None:
        """Take note of a frame by its stamp in nanoseconds."""
        if self._last_ns is not None:
            period = stamp_ns - self._last_ns
            if not 0 < period <= PAUSE_NS:
                self._periods.clear()
            else:
                if len(self._periods) >= WARM_UP:
                    usual = statistics.median(self._periods)
                    if period > TOLERANCE * usual:
                        self.missing += round(period / usual) - 1
                self._periods.append(period)
        self._last_ns = stamp_ns

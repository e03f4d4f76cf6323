"""Lost frames, told from the stamps of those that arrived."""

from __future__ import annotations

import statistics
from collections import deque

WINDOW = 60
WARM_UP = 10
"""Periods to see before the median is trusted."""
PAUSE_NS = 60_000_000_000
FOLLOW = 0.25
"""Share of a frame's lateness by which the frames after it are expected later."""
PATIENCE = 5
"""Frames, beside two for each that is missing, within which those may still come that were taken for lost."""


class GapCounter:
    """Counts the frames that are missing between stamps, given the median of the last periods.

    A frame is expected one period after the last one; it counts as lost where the next one is nearer to a later place.
    A frame that is merely late is followed by one that comes before its time, which takes the loss back: a driver that
    is held up and catches up has lost nothing. A stamp that is not later than the last one (a clock that was set back,
    a camera that restarted) starts all afresh.

    Attributes:
        missing: Frames missing so far.
    """

    def __init__(self) -> None:
        self.missing = 0
        self._last_ns: int | None = None
        self._periods: deque[int] = deque(maxlen=WINDOW)
        self._place_ns: float | None = None
        self._doubtful, self._patience = 0, 0

    def add(self, stamp_ns: int) -> None:
        """Take note of a frame by its stamp in nanoseconds."""
        last, self._last_ns = self._last_ns, stamp_ns
        if last is None:
            return
        period = stamp_ns - last
        if not 0 < period <= PAUSE_NS:
            self._periods.clear()
            self._place_ns = None
            self._doubtful = 0
            return
        if len(self._periods) >= WARM_UP:
            self._compare(stamp_ns, float(last), statistics.median(self._periods))
        self._periods.append(period)

    def _compare(self, stamp_ns: int, last: float, usual: float) -> None:
        """Count the periods between the last frame's place and this one's."""
        place = last if self._place_ns is None else self._place_ns
        steps = round((stamp_ns - place) / usual)
        self._patience -= 1
        if self._patience <= 0:
            self._doubtful = 0
        if steps > 1:
            self.missing += steps - 1
            self._doubtful += steps - 1
            self._patience = 2 * self._doubtful + PATIENCE
        elif steps < 1:
            found = min(1 - steps, self._doubtful)
            self.missing -= found
            self._doubtful -= found
            if not found:  # the camera has become faster: what is expected begins here
                self._place_ns = float(stamp_ns)
                return
        expected = place + steps * usual
        self._place_ns = expected + FOLLOW * (stamp_ns - expected)

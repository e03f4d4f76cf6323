"""A topic of a bag as it passes by: rates, gaps, and how its stamps go with the times of recording."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ropes_ros.cdr import header_stamp
from ropes_ros.errors import RopesError
from ropes_ros.gaps import GapCounter
from ropes_ros.units import NANOSECONDS

KEPT = 4000
"""Offsets between clocks that are kept of each topic, evenly spread."""
JUMP_NS = NANOSECONDS // 2
"""Change of the offset between stamp and log time that counts as a jump, where it lasts."""
WINDOW_NS = 2 * NANOSECONDS
"""Time of which the least offset counts: the others are of messages that were held up on their way."""
HELD_UP = 5
"""Windows to both sides of one: where messages were held up for less time than these are, no clock was set."""
SIMULATED_NS = 10**8 * NANOSECONDS
"""Log times before this (1973) are of a simulation, whose time is one for all: offsets are delays, however long."""

_PERIODIC = (
    "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/CameraInfo",
    "sensor_msgs/msg/JointState",
)  # fmt: skip
_WITH_HEADER = (*_PERIODIC, "trajectory_msgs/msg/JointTrajectory", "diagnostic_msgs/msg/DiagnosticArray")
"""Commands and regimes come when there is something to say, and may be stamped with the time from which they hold."""


class Stream(NamedTuple):
    """A topic over time.

    Attributes:
        name: The topic.
        type_name: Its messages' type.
        count: Messages read.
        rate_hz: Messages a second over the time from first to last, 0 where there are fewer than two.
        longest_gap_s: Longest time without a message, by log time.
        missing: Messages missing by the stamps' period; None for types that need not have one.
        dropped: Messages that the recorder says it lost; None where it says nothing.
        backward: Stamps that are not later than the one before.
        offset_s: Median of log time minus stamp; not a number without stamps.
        drift_ppm: Drift of that offset in millionths, 0 where it is lost in the offset's scatter; not a number where it
            cannot be told.
        jumps: Times that the offset jumped by more than half a second, and stayed there; 0 in simulation time.
        unstamped: Messages with a header whose stamp is zero (or less).
        damaged: Messages too short for the header that their type has.
    """

    name: str
    type_name: str
    count: int  # type: ignore[assignment]  # hides tuple.count
    rate_hz: float
    longest_gap_s: float
    missing: int | None
    dropped: int | None
    backward: int
    offset_s: float
    drift_ppm: float
    jumps: int
    unstamped: int
    damaged: int


class StreamWatch:
    """A topic as it passes by.

    Args:
        name: The topic.
        type_name: Its messages' type.
    """

    def __init__(self, name: str, type_name: str) -> None:
        self.name, self.type_name = name, type_name
        self.count, self._first, self._last, self._gap = 0, 0, 0, 0
        self._stamped, self._periodic = type_name in _WITH_HEADER, type_name in _PERIODIC
        self._gaps, self._last_stamp, self._backward = GapCounter(), 0, 0
        self._unstamped = self._damaged = 0
        self._window, self._least = -1, [0][:0]
        self._every, self._pairs = 1, [(0, 0)][:0]

    def take(self, log_time_ns: int, data: bytes) -> int:
        """Take note of a message; its stamp in ns, 0 for none."""
        if self.count:
            self._gap = max(self._gap, log_time_ns - self._last)
        else:
            self._first = log_time_ns
        self._last = log_time_ns
        self.count += 1
        if not self._stamped:
            return 0
        try:
            stamp = header_stamp(data)
        except RopesError:
            self._damaged += 1
            return 0
        if stamp <= 0:
            self._unstamped += 1
            return 0
        self._gaps.add(stamp)
        self._backward += stamp <= self._last_stamp
        self._last_stamp = stamp
        self._compare(log_time_ns, log_time_ns - stamp)
        return stamp

    def _compare(self, log_time_ns: int, offset: int) -> None:
        """Take note of an offset between log time and stamp."""
        window = log_time_ns // WINDOW_NS
        if window != self._window:
            self._window = window
            self._least.append(offset)
        self._least[-1] = min(self._least[-1], offset)
        if self.count % self._every == 0:
            self._pairs.append((log_time_ns, offset))
            if len(self._pairs) > KEPT:
                self._pairs, self._every = self._pairs[::2], 2 * self._every

    def stream(self, dropped: int | None) -> Stream:
        """What was seen.

        Args:
            dropped: Messages that the recorder says it lost; None where it says nothing.
        """
        seconds = (self._last - self._first) / NANOSECONDS
        pairs = np.array(self._pairs, dtype=np.int64).reshape(-1, 2)
        clocks = self._periodic and self._first > SIMULATED_NS
        offset, drift, jumps = float("nan"), float("nan"), _jumps(self._least) if clocks else 0
        if len(pairs):
            offset = float(np.median(pairs[:, 1])) / NANOSECONDS
        if clocks and len(pairs) > 20 and seconds > 30.0 and not jumps:
            drift = _drift((pairs[:, 0] - pairs[0, 0]) / NANOSECONDS, (pairs[:, 1] - pairs[0, 1]) / NANOSECONDS)
        return Stream(
            self.name,
            self.type_name,
            self.count,
            (self.count - 1) / seconds if seconds > 0 else 0.0,
            self._gap / NANOSECONDS,
            self._gaps.missing if self._periodic else None,
            dropped,
            self._backward if self._periodic else 0,
            offset,
            drift,
            jumps,
            self._unstamped,
            self._damaged,
        )


def _drift(times: NDArray[np.float64], offsets: NDArray[np.float64]) -> float:
    """Slope of offsets [N] in s over times [N] in s, in millionths; 0 where all of it is lost in the scatter."""
    slope, start = np.polyfit(times, offsets, 1)
    scatter = float((offsets - slope * times - start).std())
    return 1e6 * float(slope) if abs(slope) * (times[-1] - times[0]) > 3.0 * scatter else 0.0


def _jumps(least: Sequence[int]) -> int:
    """Steps in least offsets, one a window, after an opening: what is higher than its surroundings for a while goes."""
    spread = [min(least[max(0, i - HELD_UP) : i + HELD_UP + 1]) for i in range(len(least))]
    opened = [max(spread[max(0, i - HELD_UP) : i + HELD_UP + 1]) for i in range(len(spread))]
    return sum(abs(after - before) > JUMP_NS for before, after in pairwise(opened))

"""How far the estimate is from the robot's own encoders, where it has any: a slipping joint, a bumped camera.

The encoders' angles are compared, and never used for an estimate.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ropes_ros.robot import Robot
from ropes_ros.units import NANOSECONDS

KEPT_NS = 2 * NANOSECONDS
"""How long measured angles are kept for the frames that they belong to."""
NEAR_NS = NANOSECONDS // 10
"""A measurement further than this from a frame says nothing of it."""
MOST = 1e6
"""Angle in rad above which a measurement is none."""
MEAN_S = 2.0
"""Time constant over which residuals are averaged: what lasts is no error of single frames."""


class Residual(NamedTuple):
    """Estimate minus measurement at one frame, [J] rad, not a number for joints that were not measured then.

    Attributes:
        now: Of this frame.
        mean: Averaged over `MEAN_S`, or over the time since the joint was first measured.
        ratio: The mean in units of the estimate's std.
        measured: The measured angles.
    """

    now: NDArray[np.float64]
    mean: NDArray[np.float64]
    ratio: NDArray[np.float64]
    measured: NDArray[np.float64]


class Residuals:
    """Measured angles of the last seconds, and what estimates differ from them by; two threads may call it.

    Args:
        robot: Its joints.
    """

    def __init__(self, robot: Robot) -> None:
        self._names = robot.joint_names
        self._continuous = robot.continuous
        self._measured: list[list[tuple[int, float]]] = [[] for _ in robot.joint_names]
        self._turn = threading.Lock()
        self._mean = np.full(len(robot.joint_names), np.nan)
        self._last_ns = np.zeros(len(robot.joint_names), dtype=np.int64)

    def add(self, stamp_ns: int, names: Sequence[str], positions: Sequence[float]) -> None:
        """Take in a joint state; joints that the robot does not have, and what is no angle, are left out."""
        for name, position in zip(names, positions, strict=False):
            if name not in self._names or not abs(position) <= MOST:
                continue
            with self._turn:
                self._keep(self._measured[self._names.index(name)], stamp_ns, float(position))

    def of(self, stamp_ns: int, position: NDArray[np.float64], std: NDArray[np.float64]) -> Residual | None:
        """What an estimate differs by from the measurements at its time; None where there are none near it.

        Args:
            stamp_ns: Its stamp.
            position: Angles [J], rad.
            std: Their standard deviations [J], rad.
        """
        with self._turn:
            measured = np.array([_at(kept, stamp_ns) for kept in self._measured])
        if np.isnan(measured).all():
            return None
        now = position - measured
        now = np.where(self._continuous, (now + np.pi) % (2.0 * np.pi) - np.pi, now)
        elapsed_s = (stamp_ns - self._last_ns) / NANOSECONDS
        going_on = np.isfinite(self._mean) & (elapsed_s > 0.0) & (elapsed_s < MEAN_S)
        share = 1.0 - np.exp(-np.maximum(elapsed_s, 0.0) / MEAN_S)
        mean = np.where(going_on, self._mean + share * (now - self._mean), now)
        there = np.isfinite(now)
        self._mean, self._last_ns = np.where(there, mean, self._mean), np.where(there, stamp_ns, self._last_ns)
        return Residual(now, mean, mean / std, measured)

    @staticmethod
    def _keep(kept: list[tuple[int, float]], stamp_ns: int, position: float) -> None:
        if kept and stamp_ns <= kept[-1][0]:
            if stamp_ns > kept[-1][0] - KEPT_NS:
                return
            kept.clear()  # time jumped back
        kept.append((stamp_ns, position))
        if kept[0][0] < stamp_ns - 2 * KEPT_NS:
            del kept[: bisect_left(kept, (stamp_ns - KEPT_NS, -np.inf))]


def _at(kept: Sequence[tuple[int, float]], stamp_ns: int) -> float:
    """Angle at a time, between measurements or of a near one; not a number where there is none."""
    after = bisect_left(kept, (stamp_ns, -np.inf))
    if 0 < after < len(kept) and kept[after][0] - kept[after - 1][0] <= 2 * NEAR_NS:
        (t0, p0), (t1, p1) = kept[after - 1], kept[after]
        return p0 + (p1 - p0) * (stamp_ns - t0) / (t1 - t0)
    near = [entry for entry in kept[max(after - 1, 0) : after + 1] if abs(entry[0] - stamp_ns) <= NEAR_NS]
    return min(near, key=lambda entry: abs(entry[0] - stamp_ns))[1] if near else float("nan")

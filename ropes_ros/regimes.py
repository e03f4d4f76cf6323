"""Regimes: levels, schedules, and what is said about them on the topic `ropes/regime`; the one home of the contract.

A regime is, per joint, the level that the joint holds, or none. Densities and level sets live in
`ropes_ros.densities`, schedules in `ropes_ros.schedule` and `ropes_ros.scheduling`; all are offered here too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ropes_ros.densities import NONE, Bump, Density, Levels, Observational, Tilt
from ropes_ros.errors import BagError
from ropes_ros.schedule import GRID, JointMotion, Schedule, Segment
from ropes_ros.scheduling import make_schedule
from ropes_ros.units import NANOSECONDS

__all__ = [
    "GRID",
    "NONE",
    "Bump",
    "Density",
    "JointMotion",
    "Levels",
    "Observational",
    "RegimeState",
    "RegimeTimeline",
    "Schedule",
    "Segment",
    "Tilt",
    "make_schedule",
    "regime_from_msg",
    "regime_to_msg",
    "regime_values",
]

STATUS_NAME = "ropes/regime"
REACH_NS = 30 * NANOSECONDS
"""How far ahead of its publication a regime may be announced."""


@dataclass(frozen=True)
class RegimeState:
    """The regime from `stamp_ns` on, in the joints' order.

    Per joint: the level's id or `none`, the segment's id (-1 for none), and the time until which that holds (0 for
    none), in ns since the epoch, excluded. `seq` counts the states of one commander. `stop_reason` says why the robot
    was stopped, where it was not meant to; it is empty otherwise.
    """

    schedule_hash: str
    stamp_ns: int
    seq: int
    levels: tuple[str, ...]
    segments: tuple[int, ...]
    until_ns: tuple[int, ...]
    stop_reason: str = ""


def regime_to_msg(state: RegimeState, joint_names: Sequence[str]) -> Any:
    """A regime as diagnostic_msgs/DiagnosticArray.

    The message has one status, `ropes/regime`, with the schedule's hash as hardware_id and the values `seq` and, per
    joint, `<joint>` (level id or `none`), `<joint>/segment` and `<joint>/until`. Where the robot was stopped by a guard
    there also is `stop_reason`.
    """
    from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

    values = [KeyValue(key=key, value=value) for key, value in regime_values(state, joint_names)]
    message = DiagnosticArray()
    message.header.stamp.sec = state.stamp_ns // NANOSECONDS
    message.header.stamp.nanosec = state.stamp_ns % NANOSECONDS
    message.status = [DiagnosticStatus(name=STATUS_NAME, hardware_id=state.schedule_hash, values=values)]
    return message


def regime_values(state: RegimeState, joint_names: Sequence[str]) -> list[tuple[str, str]]:
    """Keys and values of a regime message's one status, for writers that have other message classes."""
    values = [("seq", str(state.seq))]
    for name, level, segment, until in zip(joint_names, state.levels, state.segments, state.until_ns, strict=True):
        values += [(name, level), (f"{name}/segment", str(segment)), (f"{name}/until", str(until))]
    if state.stop_reason:
        values.append(("stop_reason", state.stop_reason))
    return values


def regime_from_msg(msg: Any, joint_names: Sequence[str] | None = None) -> RegimeState:
    """A regime from a DiagnosticArray of rclpy, the standalone runtime or rosbags.

    Args:
        msg: The message.
        joint_names: The joints expected, in the order wanted; the message's own when None.

    Raises:
        BagError: The message is not a regime, or is one of other joints.
    """
    statuses = [status for status in msg.status if status.name == STATUS_NAME]
    if len(statuses) != 1:
        raise BagError(f"regime message: needs exactly one status named '{STATUS_NAME}', has {len(statuses)}")
    values = {pair.key: pair.value for pair in statuses[0].values}
    found = [key for key in values if f"{key}/segment" in values]
    names = list(found if joint_names is None else joint_names)
    if set(found) != set(names):
        raise BagError(f"regime message: it is about the joints {', '.join(found)}, expected {', '.join(names)}")
    try:
        return RegimeState(
            schedule_hash=statuses[0].hardware_id,
            stamp_ns=int(msg.header.stamp.sec) * NANOSECONDS + int(msg.header.stamp.nanosec),
            seq=int(values["seq"]),
            levels=tuple(values[name] for name in names),
            segments=tuple(int(values[f"{name}/segment"]) for name in names),
            until_ns=tuple(int(values[f"{name}/until"]) for name in names),
            stop_reason=values.get("stop_reason", ""),
        )
    except KeyError as error:
        raise BagError(f"regime message: value {error} is missing") from None
    except ValueError as error:
        raise BagError(f"regime message: seq, segment and until must be integers: {error}") from None


class RegimeTimeline:
    """Labels over time from recorded regimes.

    A state holds from its stamp, joint by joint to its `until`, and no longer than to the next state's stamp. A state
    whose stamp lies before earlier ones' (a correction) replaces them from there on. Repeated messages are taken once.

    Where `seq` begins again at a later stamp, the commander began anew: segments from there on are others than those of
    the same number before, and get numbers of their own.

    What is missing in a gap of `seq` may have been a correction. Corrections never reach back before the publication
    of the message before them, which was at most `REACH_NS` before that message's stamp: from then to the stamp of the
    next message there are no labels.

    Args:
        states: The recorded states in the order of their publication.
        joint_names: The joints, in the states' order.
        level_ids: Ids of the schedule's levels, for the labels' indices.

    Raises:
        BagError: States of two schedules, of another number of joints, or with an unknown level.
    """

    def __init__(self, states: Iterable[RegimeState], joint_names: Sequence[str], level_ids: Sequence[str]) -> None:
        index = {NONE: -1, **{level: k for k, level in enumerate(level_ids)}}
        kept: list[RegimeState] = []
        gaps: list[tuple[int, int]] = []
        last: RegimeState | None = None
        numbers: list[npt.NDArray[np.int32]] = []
        first = following = 0
        for state in states:
            if state == last:
                continue
            if last is not None and state.schedule_hash != last.schedule_hash:
                raise BagError(
                    f"regime messages of two schedules, {last.schedule_hash[:12]} and {state.schedule_hash[:12]}:"
                    " record one schedule per bag"
                )
            if len(state.levels) != len(joint_names):
                raise BagError(f"regime message with {len(state.levels)} joints, expected {', '.join(joint_names)}")
            for level in state.levels:
                if level not in index:
                    raise BagError(f"regime message with unknown level '{level}': known are {', '.join(level_ids)}")
            if last is not None and state.seq != last.seq + 1:
                gaps.append((last.stamp_ns - REACH_NS, state.stamp_ns))
                if state.seq <= last.seq and state.stamp_ns > last.stamp_ns:
                    first = following
            while kept and kept[-1].stamp_ns >= state.stamp_ns:
                kept.pop()
                numbers.pop()
            kept.append(state)
            numbers.append(first + np.array(state.segments, dtype=np.int32))
            following = max(following, 1 + int(numbers[-1].max()))
            last = state
        self._gaps = gaps
        shape = (len(kept), len(joint_names))
        self._stamps = np.array([state.stamp_ns for state in kept], dtype=np.int64)
        self._until = np.array([state.until_ns for state in kept], dtype=np.int64).reshape(shape)
        levels = np.array([[index[level] for level in state.levels] for state in kept], dtype=np.int16)
        self._levels = levels.reshape(shape)
        self._segments = np.where(self._levels >= 0, np.array(numbers, dtype=np.int32).reshape(shape), np.int32(-1))

    def labels_at(self, t_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.int16]:
        """Level indices int16 [N, J] at times int64 [N] in ns since the epoch; -1 for none."""
        return np.asarray(self._lookup(t_ns, self._levels), dtype=np.int16)

    def segment_ids_at(self, t_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """Segment ids int32 [N, J] at times int64 [N] in ns since the epoch; -1 for none."""
        return np.asarray(self._lookup(t_ns, self._segments), dtype=np.int32)

    def _lookup(self, t_ns: npt.NDArray[np.int64], values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        t_ns = np.asarray(t_ns, dtype=np.int64)
        if len(self._stamps) == 0:
            return np.full((len(t_ns), values.shape[1]), -1)
        i = np.searchsorted(self._stamps, t_ns, side="right") - 1
        holds = (i >= 0)[:, None] & (t_ns[:, None] < self._until[i])
        for begin_ns, end_ns in self._gaps:
            holds &= ((t_ns < begin_ns) | (t_ns >= end_ns))[:, None]
        return np.where(holds, values[i], -1)

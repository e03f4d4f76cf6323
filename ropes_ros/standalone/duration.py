"""Durations and points in time: rclpy.duration and rclpy.time."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, overload

from ropes_ros.standalone.messages import message_class

NANOSECONDS = 1_000_000_000
_LIMIT = 1 << 63


class ClockType(IntEnum):
    """The source of a clock's time."""

    ROS_TIME = 1
    SYSTEM_TIME = 2
    STEADY_TIME = 3


def _seconds_to_nanoseconds(seconds: float) -> int:
    if isinstance(seconds, int):
        return seconds * NANOSECONDS
    whole = int(seconds)
    return whole * NANOSECONDS + round((seconds - whole) * NANOSECONDS)


class Duration:
    """A span of time in integer nanoseconds."""

    __slots__ = ("nanoseconds",)

    def __init__(self, *, seconds: float = 0, nanoseconds: int = 0) -> None:
        total = _seconds_to_nanoseconds(seconds) + int(nanoseconds)
        if not -_LIMIT <= total < _LIMIT:
            raise OverflowError("total nanoseconds value is too large to store in C duration")
        self.nanoseconds = total

    def to_msg(self) -> Any:
        """As builtin_interfaces/Duration."""
        sec, nanosec = divmod(self.nanoseconds, NANOSECONDS)
        return message_class("builtin_interfaces/msg/Duration")(sec=sec, nanosec=nanosec)

    @classmethod
    def from_msg(cls, msg: Any) -> Duration:
        """From builtin_interfaces/Duration."""
        return cls(seconds=msg.sec, nanoseconds=msg.nanosec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Duration) and self.nanoseconds == other.nanoseconds

    def __lt__(self, other: Duration) -> bool:
        return self.nanoseconds < other.nanoseconds

    def __le__(self, other: Duration) -> bool:
        return self.nanoseconds <= other.nanoseconds

    def __gt__(self, other: Duration) -> bool:
        return self.nanoseconds > other.nanoseconds

    def __ge__(self, other: Duration) -> bool:
        return self.nanoseconds >= other.nanoseconds

    def __hash__(self) -> int:
        return hash(self.nanoseconds)

    def __repr__(self) -> str:
        return f"Duration(nanoseconds={self.nanoseconds})"


class Time:
    """A point in time of one clock, in integer nanoseconds."""

    __slots__ = ("clock_type", "nanoseconds")

    def __init__(
        self, *, seconds: float = 0, nanoseconds: int = 0, clock_type: ClockType = ClockType.SYSTEM_TIME
    ) -> None:
        total = _seconds_to_nanoseconds(seconds) + int(nanoseconds)
        if total < 0:
            raise ValueError("a Time cannot be negative")
        if total >= _LIMIT:
            raise OverflowError("total nanoseconds value is too large to store in C time point")
        self.nanoseconds = total
        self.clock_type = clock_type

    def seconds_nanoseconds(self) -> tuple[int, int]:
        """Whole seconds and the rest in nanoseconds."""
        return divmod(self.nanoseconds, NANOSECONDS)

    def to_msg(self) -> Any:
        """As builtin_interfaces/Time."""
        sec, nanosec = self.seconds_nanoseconds()
        return message_class("builtin_interfaces/msg/Time")(sec=sec, nanosec=nanosec)

    @classmethod
    def from_msg(cls, msg: Any, clock_type: ClockType = ClockType.ROS_TIME) -> Time:
        """From builtin_interfaces/Time."""
        return cls(seconds=msg.sec, nanoseconds=msg.nanosec, clock_type=clock_type)

    def __add__(self, other: Duration) -> Time:
        if not isinstance(other, Duration):
            return NotImplemented
        return Time(nanoseconds=self.nanoseconds + other.nanoseconds, clock_type=self.clock_type)

    __radd__ = __add__

    @overload
    def __sub__(self, other: Time) -> Duration: ...
    @overload
    def __sub__(self, other: Duration) -> Time: ...
    def __sub__(self, other: Time | Duration) -> Time | Duration:
        if isinstance(other, Time):
            self._same_clock(other, "subtract")
            return Duration(nanoseconds=self.nanoseconds - other.nanoseconds)
        if isinstance(other, Duration):
            return Time(nanoseconds=self.nanoseconds - other.nanoseconds, clock_type=self.clock_type)
        return NotImplemented

    def _same_clock(self, other: Time, what: str) -> None:
        if self.clock_type != other.clock_type:
            raise TypeError(f"Can't {what} times with different clock types")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Time):
            return NotImplemented
        self._same_clock(other, "compare")
        return self.nanoseconds == other.nanoseconds

    def __lt__(self, other: Time) -> bool:
        self._same_clock(other, "compare")
        return self.nanoseconds < other.nanoseconds

    def __le__(self, other: Time) -> bool:
        self._same_clock(other, "compare")
        return self.nanoseconds <= other.nanoseconds

    def __gt__(self, other: Time) -> bool:
        self._same_clock(other, "compare")
        return self.nanoseconds > other.nanoseconds

    def __ge__(self, other: Time) -> bool:
        self._same_clock(other, "compare")
        return self.nanoseconds >= other.nanoseconds

    def __hash__(self) -> int:
        return hash((self.nanoseconds, self.clock_type))

    def __repr__(self) -> str:
        return f"Time(nanoseconds={self.nanoseconds}, clock_type={self.clock_type.name})"

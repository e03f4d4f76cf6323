"""Clocks (system, steady, ROS) with simulated time: rclpy.clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from ropes_ros.standalone.duration import NANOSECONDS, ClockType, Duration, Time


class ClockChange(IntEnum):
    """What happened to a ROS clock's source."""

    ROS_TIME_NO_CHANGE = 1
    ROS_TIME_ACTIVATED = 2
    ROS_TIME_DEACTIVATED = 3
    SYSTEM_TIME_NO_CHANGE = 4


@dataclass(frozen=True)
class TimeJump:
    """A step of a clock: its kind and size."""

    clock_change: ClockChange
    delta: Duration


class JumpThreshold:
    """Which jumps a callback is called for."""

    def __init__(
        self,
        *,
        min_forward: Duration | None = None,
        min_backward: Duration | None = None,
        on_clock_change: bool = True,
    ) -> None:
        if min_forward is not None and min_forward.nanoseconds <= 0:
            raise ValueError("min_forward must be a positive non-zero duration")
        if min_backward is not None and min_backward.nanoseconds >= 0:
            raise ValueError("min_backward must be a negative non-zero duration")
        if min_forward is None and min_backward is None and not on_clock_change:
            raise ValueError("At least one jump threshold must be enabled")
        self.min_forward = min_forward
        self.min_backward = min_backward
        self.on_clock_change = on_clock_change

    def reached(self, jump: TimeJump) -> bool:
        """Whether a jump is large enough."""
        if jump.clock_change in (ClockChange.ROS_TIME_ACTIVATED, ClockChange.ROS_TIME_DEACTIVATED):
            return self.on_clock_change
        if self.min_forward is not None and jump.delta >= self.min_forward:
            return True
        return self.min_backward is not None and jump.delta <= self.min_backward


class JumpHandle:
    """A registered jump callback; `unregister` ends it."""

    def __init__(
        self,
        clock: Clock,
        threshold: JumpThreshold,
        pre_callback: Callable[[], Any] | None,
        post_callback: Callable[[TimeJump], Any] | None,
    ) -> None:
        self.threshold = threshold
        self.pre_callback = pre_callback
        self.post_callback = post_callback
        self._clock = clock

    def unregister(self) -> None:
        """End the callbacks."""
        if self in self._clock._jumps:
            self._clock._jumps.remove(self)


class Clock:
    """A clock; one of type ROS_TIME is a ROSClock."""

    def __new__(cls, *, clock_type: ClockType = ClockType.SYSTEM_TIME) -> Clock:
        if clock_type == ClockType.ROS_TIME:
            cls = ROSClock
        return super().__new__(cls)

    def __init__(self, *, clock_type: ClockType = ClockType.SYSTEM_TIME) -> None:
        self.clock_type = ClockType(clock_type)
        self._jumps: list[JumpHandle] = []

    def now(self) -> Time:
        """The current time."""
        read = time.monotonic_ns if self.clock_type == ClockType.STEADY_TIME else time.time_ns
        return Time(nanoseconds=read(), clock_type=self.clock_type)

    def create_jump_callback(
        self,
        threshold: JumpThreshold,
        *,
        pre_callback: Callable[[], Any] | None = None,
        post_callback: Callable[[TimeJump], Any] | None = None,
    ) -> JumpHandle:
        """Call back before and after the clock jumps."""
        if pre_callback is None and post_callback is None:
            raise ValueError("One of pre_callback or post_callback must be callable")
        handle = JumpHandle(self, threshold, pre_callback, post_callback)
        self._jumps.append(handle)
        return handle

    def sleep_until(self, until: Time, context: Any = None) -> bool:
        """Sleep until a time of this clock.

        Returns:
            False where the context was shut down, or simulated time was turned on or off meanwhile.
        """
        if until.clock_type != self.clock_type:
            raise ValueError("until's clock type does not match this clock's type")
        return self._sleep(until.nanoseconds, context)

    def sleep_for(self, rel_time: Duration, context: Any = None) -> bool:
        """Sleep for a span of this clock's time; see sleep_until."""
        return self._sleep(self.now().nanoseconds + rel_time.nanoseconds, context)

    def _sleep(self, until: int, context: Any) -> bool:
        from ropes_ros.standalone.context import get_default_context

        context = context or get_default_context()
        wake = threading.Event()
        context.add_waker(wake.set)
        try:
            while context.ok():
                left = until - self.now().nanoseconds
                if left <= 0:
                    return True
                wake.wait(left / NANOSECONDS)
            return False
        finally:
            context.remove_waker(wake.set)


class ROSClock(Clock):
    """Simulated time of /clock where it is active, system time elsewhere."""

    def __new__(cls, **options: Any) -> ROSClock:
        return object.__new__(cls)

    def __init__(self, *, clock_type: ClockType = ClockType.ROS_TIME) -> None:
        super().__init__(clock_type=ClockType.ROS_TIME)
        self._changed = threading.Condition()
        self._simulated: int | None = None

    @property
    def ros_time_is_active(self) -> bool:
        """Whether time comes from /clock."""
        return self._simulated is not None

    def now(self) -> Time:
        """Simulated or system time; simulated time is zero before the first /clock message."""
        simulated = self._simulated
        return Time(nanoseconds=time.time_ns() if simulated is None else simulated, clock_type=ClockType.ROS_TIME)

    def set_ros_time_override(self, value: Time) -> None:
        """Set simulated time; jump callbacks are called where it steps."""
        if self._simulated is None:
            raise ValueError("simulated time is not active")
        self._set(value.nanoseconds, ClockChange.ROS_TIME_NO_CHANGE)

    def activate(self, active: bool) -> None:
        """Turn simulated time on, starting at zero, or off."""
        if active and self._simulated is None:
            self._set(0, ClockChange.ROS_TIME_ACTIVATED)
        elif not active and self._simulated is not None:
            self._set(None, ClockChange.ROS_TIME_DEACTIVATED)

    def _set(self, value: int | None, change: ClockChange) -> None:
        before = self.now().nanoseconds
        after = time.time_ns() if value is None else value
        jump = TimeJump(change, Duration(nanoseconds=after - before))
        reached = [handle for handle in self._jumps if handle.threshold.reached(jump)]
        for handle in reached:
            if handle.pre_callback is not None:
                handle.pre_callback()
        with self._changed:
            self._simulated = value
            self._changed.notify_all()
        for handle in reached:
            if handle.post_callback is not None:
                handle.post_callback(jump)

    def _sleep(self, until: int, context: Any) -> bool:
        if self._simulated is None:
            return super()._sleep(until, context)
        from ropes_ros.standalone.context import get_default_context

        context = context or get_default_context()

        def wake() -> None:
            with self._changed:
                self._changed.notify_all()

        context.add_waker(wake)
        try:
            with self._changed:
                while context.ok() and self._simulated is not None:
                    if self._simulated >= until:
                        return True
                    self._changed.wait()
            return False
        finally:
            context.remove_waker(wake)

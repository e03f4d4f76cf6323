"""Timers on any clock: rclpy.timer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ropes_ros.standalone.clock import Clock, JumpThreshold, ROSClock, TimeJump
from ropes_ros.standalone.duration import Duration
from ropes_ros.standalone.errors import InvalidHandle


class Timer:
    """Calls back every period of its clock.

    On wall time it runs on the monotonic clock, so that a step of the system clock neither stalls nor floods it. On
    simulated time a jump backward starts a new period; periods missed by a jump forward are not made up for.
    """

    def __init__(
        self,
        callback: Callable[[], Any] | None,
        period_ns: int,
        clock: Clock,
        callback_group: Any,
        changed: Callable[[], None],
    ) -> None:
        if period_ns < 0:
            raise ValueError("timer period must not be negative")
        self.callback = callback
        self.callback_group = callback_group
        self.clock = clock
        self.timer_period_ns = period_ns
        self.destroyed = False
        self._canceled = False
        self._next = self._now() + period_ns
        self._last = self._now()
        self._changed = changed
        self._jump = None
        if isinstance(clock, ROSClock):
            threshold = JumpThreshold(min_backward=Duration(nanoseconds=-1), on_clock_change=True)
            self._jump = clock.create_jump_callback(threshold, post_callback=self._jumped)

    @property
    def simulated(self) -> bool:
        """Whether the timer follows /clock."""
        return isinstance(self.clock, ROSClock) and self.clock.ros_time_is_active

    def _now(self) -> int:
        return self.clock.now().nanoseconds if self.simulated else time.monotonic_ns()

    def _jumped(self, jump: TimeJump) -> None:
        self._last = self._now()
        self._next = self._last + self.timer_period_ns

    def is_canceled(self) -> bool:
        """Whether cancel was called."""
        return self._canceled

    def cancel(self) -> None:
        """Stop calling back until reset."""
        self._canceled = True

    def reset(self) -> None:
        """Start a new period now."""
        if self.destroyed:
            raise InvalidHandle("the timer is destroyed")
        self._canceled = False
        self._last = self._now()
        self._next = self._last + self.timer_period_ns
        self._changed()

    def is_ready(self) -> bool:
        """Whether the timer is due."""
        return not self._canceled and not self.destroyed and self._now() >= self._next

    def time_since_last_call(self) -> int:
        """Nanoseconds since the last call."""
        return self._now() - self._last

    def time_until_next_call(self) -> int | None:
        """Nanoseconds to the next call; None for a canceled timer."""
        return None if self._canceled else self._next - self._now()

    def due_in(self) -> int | None:
        """Nanoseconds of wall time to wait; None where wall time does not decide."""
        if self._canceled or self.destroyed or self.simulated:
            return None
        return max(0, self._next - time.monotonic_ns())

    def call(self) -> None:
        """Advance to the next period and call back."""
        now = self._now()
        self._last = now
        periods = max(0, now - self._next) // self.timer_period_ns + 1 if self.timer_period_ns else 0
        self._next += periods * self.timer_period_ns
        if self.callback is not None:
            self.callback()

    def destroy(self) -> None:
        """Never call back again."""
        self.destroyed = True
        if self._jump is not None:
            self._jump.unregister()

"""Executors and spinning: rclpy.executors and rclpy.spin.

One thread waits in one DDS wait set for messages, requests, graph changes and wake-ups, with the next timer as timeout,
and runs the callbacks. Nothing polls.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cyclonedds.core import GuardCondition, WaitSet

from ropes_ros.standalone.context import Context, ExternalShutdownException, get_default_context
from ropes_ros.standalone.errors import MisuseError, UnsupportedError
from ropes_ros.standalone.future import Future
from ropes_ros.standalone.wire import DDS_INFINITY

if TYPE_CHECKING:
    from ropes_ros.standalone.node import Node

_LEAVE_SECONDS = 1.0

__all__ = ["Executor", "ExternalShutdownException", "MultiThreadedExecutor", "SingleThreadedExecutor"]


class ShutdownException(Exception):
    """The executor was shut down."""


class TimeoutException(Exception):
    """A timeout occurred."""


class Executor:
    """Runs the callbacks of its nodes in the thread that spins."""

    def __init__(self, *, context: Context | None = None) -> None:
        self._context = context or get_default_context()
        self._nodes: list[Node] = []
        self._versions: list[tuple[int, int]] = []
        self._sources: list[Any] = []
        self._eventful: list[Any] = []
        self._attached: dict[int, Any] = {}
        self._woken = False
        self._is_shutdown = False
        self._busy = threading.RLock()
        self._waitset: Any = WaitSet(self._context.participant)
        self._guard: Any = GuardCondition(self._context.participant)
        self._waitset.attach(self._guard)
        self._context.add_waker(self.wake)
        self._context.on_close(self._leave)

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    @property
    def context(self) -> Context:
        """The context of all nodes."""
        return self._context

    @property
    def is_shutdown(self) -> bool:
        """Whether shutdown was called."""
        return self._is_shutdown

    def add_node(self, node: Node) -> bool:
        """Take a node's callbacks in; False where it is in already."""
        if node in self._nodes:
            return False
        if node.context is not self._context:
            raise MisuseError(f"node {node.get_fully_qualified_name()} belongs to another context")
        self._nodes.append(node)
        node.executor = node._ropes_watched_by = self
        self.wake()
        return True

    def remove_node(self, node: Node) -> None:
        """Leave a node's callbacks out.

        The wait set goes on watching the node until the next `update`, so that spinning the same node once
        and again costs little.
        """
        if node in self._nodes:
            self._nodes.remove(node)
            if node.executor is self:
                node.executor = None

    def get_nodes(self) -> list[Node]:
        """The nodes whose callbacks run here."""
        return list(self._nodes)

    def wake(self) -> None:
        """End the current wait; safe in any thread."""
        self._woken = True
        guard = self._guard
        if guard is not None:
            guard.set(True)

    def create_task(self, callback: Any, *args: Any, **kwargs: Any) -> Future:
        """Not supported."""
        raise UnsupportedError("Executor.create_task is not supported by the standalone runtime; use a timer or thread")

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """End spinning, then drop the nodes and the wait set.

        Args:
            timeout_sec: Seconds to wait for a callback that another thread runs; None or negative for any number.

        Returns:
            Whether spinning has ended; else nothing is dropped.
        """
        self._is_shutdown = True
        self.wake()
        if not self._busy.acquire(timeout=-1 if timeout_sec is None or timeout_sec < 0 else timeout_sec):
            return False
        try:
            self._drop()
        finally:
            self._busy.release()
        return True

    def _leave(self) -> None:
        """Shut down before the participant goes, even under a callback that does not end."""
        if not self.shutdown(_LEAVE_SECONDS):
            self._drop()

    def _drop(self) -> None:
        if self._waitset is None:
            return
        for node in tuple(self._nodes):
            self.remove_node(node)
        self.update()
        self._context.remove_waker(self.wake)
        self._attached.clear()
        self._waitset = self._guard = None

    # -- spinning ------------------------------------------------------------------------------------------------

    def spin(self) -> None:
        """Run callbacks until shutdown.

        Raises:
            KeyboardInterrupt: after SIGINT. ExternalShutdownException: after SIGTERM or a shutdown from elsewhere.
            LifecycleError: a lifecycle node could not be configured or activated.
        """
        ran = False
        while self._context.ok() and not self._is_shutdown:
            ran = self._spin(DDS_INFINITY)
        self._raise_if_interrupted()
        if not self._is_shutdown and not ran:
            raise ExternalShutdownException

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Run what is ready, each source once, waiting up to the timeout (None: for ever) for something."""
        self._spin_until(None, timeout_sec)

    def spin_until_future_complete(self, future: Future, timeout_sec: float | None = None) -> None:
        """Run callbacks until a future is done."""
        future.add_done_callback(lambda _: self.wake())
        end = None if timeout_sec is None or timeout_sec < 0 else time.monotonic() + timeout_sec
        while not future.done() and not future.cancelled():
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                return
            self._spin_until(future.done, left)

    def spin_once_until_future_complete(self, future: Future, timeout_sec: float | None = None) -> None:
        """Run what is ready unless the future is done."""
        if not future.done():
            self.spin_once(timeout_sec)

    def _spin_until(self, enough: Callable[[], bool] | None, timeout_sec: float | None) -> None:
        """Spin until there is enough (None: until a callback ran), or the time is up."""
        if not self._context.ok():
            self._raise_if_interrupted()
            raise ExternalShutdownException
        endless = timeout_sec is None or timeout_sec < 0
        end = 0 if endless else time.monotonic_ns() + int((timeout_sec or 0) * 1e9)
        while self._context.ok() and not self._is_shutdown:
            ran = self._spin(DDS_INFINITY if endless else max(0, end - time.monotonic_ns()))
            if ran if enough is None else enough():
                return
            if not endless and time.monotonic_ns() >= end:
                return
        self._raise_if_interrupted()

    def _raise_if_interrupted(self) -> None:
        if not self._context.ok() and self._context.interrupted:
            raise KeyboardInterrupt

    def _spin(self, timeout_ns: int) -> bool:
        """One round: timers that are due, then each source that is ready once; whether any callback ran."""
        with self._busy:
            return self._round(timeout_ns)

    def _round(self, timeout_ns: int) -> bool:
        self._context.spinning += 1
        try:
            self._start_nodes()
            if not self._context.ok() or self._is_shutdown:
                return False
            self.update()
            ran = self._run_resumed() | self._run_timers()
            if ran and not self._context.ok():
                return True
            timeout_ns = 0 if ran else self._next_timer(timeout_ns)
            triggered = self._waitset.wait(timeout_ns)
            return (triggered > 0 and self._dispatch(triggered)) or ran or self._run_timers()
        finally:
            self._context.spinning -= 1

    def _start_nodes(self) -> None:
        for node in tuple(self._nodes):
            if not node._ropes_started:
                node._ropes_start()

    def _run_resumed(self) -> bool:
        ran = False
        for node in tuple(self._nodes):
            while node._ropes_resumed:
                node._ropes_resumed.popleft()()
                ran = True
        return ran

    def _run_timers(self) -> bool:
        ran = False
        for node in tuple(self._nodes):
            for timer in tuple(node.timers):
                if timer.is_ready():
                    timer.call()
                    ran = True
                    if not self._context.ok() or self._is_shutdown:
                        return True
        return ran

    def _next_timer(self, timeout_ns: int) -> int:
        for node in self._nodes:
            for timer in node.timers:
                due = timer.due_in()
                if due is not None and due < timeout_ns:
                    timeout_ns = due
        return timeout_ns

    def _dispatch(self, triggered: int) -> bool:
        """Run the sources that woke us. The most recently active are asked first, until all triggers are found."""
        if self._woken:
            self._woken = False
            if self._guard.take():
                triggered -= 1
        ran = False
        for source in tuple(self._sources):
            if triggered <= 0 or not self._context.ok() or self._is_shutdown:
                return ran
            if source.poll():
                triggered -= 1
                ran = True
                if self._sources and self._sources[0] is not source and source in self._sources:
                    self._sources.remove(source)
                    self._sources.insert(0, source)
        if triggered > 0:
            self._context.graph.refresh()
            for entity in tuple(self._eventful):
                entity.check_events()
        return ran

    def update(self) -> None:
        """Let the wait set watch what the nodes have now, and nothing else, so that what is destroyed can go."""
        versions = [(id(node), node._ropes_version) for node in self._nodes]
        if versions == self._versions or self._waitset is None:
            return
        self._versions = versions
        sources = [source for node in self._nodes for source in node._ropes_sources()]
        known = set(map(id, sources))
        kept = [source for source in self._sources if id(source) in known]
        old = set(map(id, kept))
        self._sources = kept + [source for source in sources if id(source) not in old]
        self._eventful = [entity for node in self._nodes for entity in node._ropes_eventful()]
        wanted = {
            id(entity): entity
            for entity in (
                *(source.condition for source in sources),
                *(entity.event_entity for entity in self._eventful),
                *(self._context.graph.conditions if self._nodes else ()),
            )
        }
        for key in self._attached.keys() - wanted.keys():
            self._waitset.detach(self._attached.pop(key))
        for key in wanted.keys() - self._attached.keys():
            self._waitset.attach(wanted[key])
            self._attached[key] = wanted[key]


class SingleThreadedExecutor(Executor):
    """Runs callbacks one after the other in the spinning thread."""


class MultiThreadedExecutor(Executor):
    """Not supported."""

    def __init__(self, num_threads: int | None = None, *, context: Context | None = None) -> None:
        raise UnsupportedError(
            "MultiThreadedExecutor is not supported by the standalone runtime; use SingleThreadedExecutor and do long "
            "work in a thread of your own"
        )

"""Results to come: rclpy.task.Future."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from typing import Any


class Future:
    """A result that is set later."""

    def __init__(self, *, executor: Any = None) -> None:
        self._done = self._cancelled = False
        self._result: Any = None
        self._exception: BaseException | None = None
        self._callbacks: list[Callable[[Future], Any]] = []
        self._lock = threading.Lock()

    def __await__(self) -> Generator[Future, None, Any]:
        while not self._done and not self._cancelled:
            yield self
        return self.result()

    def done(self) -> bool:
        """Whether a result or exception is set."""
        return self._done

    def cancelled(self) -> bool:
        """Whether cancel was called before a result was set."""
        return self._cancelled

    def cancel(self) -> None:
        """Give the result up."""
        if not self._done:
            self._cancelled = True
            self._call_back()

    def result(self) -> Any:
        """The result; raises the exception if one is set."""
        if self._exception is not None:
            raise self._exception
        return self._result

    def exception(self) -> BaseException | None:
        """The exception, if one is set."""
        return self._exception

    def set_result(self, result: Any) -> None:
        """Complete with a result."""
        self._result = result
        self._done = True
        self._call_back()

    def set_exception(self, exception: BaseException) -> None:
        """Complete with an exception."""
        self._exception = exception
        self._done = True
        self._call_back()

    def add_done_callback(self, callback: Callable[[Future], Any]) -> None:
        """Call back when done, at once if it is."""
        with self._lock:
            waiting = not self._done and not self._cancelled
            if waiting:
                self._callbacks.append(callback)
        if not waiting:
            callback(self)

    def _call_back(self) -> None:
        with self._lock:
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)

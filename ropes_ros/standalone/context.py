"""The context of a process: arguments, the DDS participant, shutdown and signals (rclpy.context)."""

from __future__ import annotations

import atexit
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from enum import IntEnum
from types import FrameType
from typing import TYPE_CHECKING, Any

from ropes_ros.standalone import arguments, log
from ropes_ros.standalone.discovery import Membership, domain_id
from ropes_ros.standalone.errors import DiscoveryError, MisuseError, NotInitializedException
from ropes_ros.standalone.graph import Graph

if TYPE_CHECKING:
    from ropes_ros.standalone.node import Node


class SignalHandlerOptions(IntEnum):
    """Which signals rclpy.init() takes over."""

    NO = 0
    SIGINT = 1
    SIGTERM = 2
    ALL = 3


class ExternalShutdownException(Exception):
    """The context was shut down while something waited in spin."""

    def __init__(self) -> None:
        super().__init__("the context was shut down")


class Context:
    """What all nodes of a process share; `init` joins the domain, `shutdown` leaves it."""

    def __init__(self) -> None:
        self.arguments = arguments.Arguments()
        self.interrupted = False
        self.spinning = 0
        self._membership: Membership | None = None
        self._graph: Graph | None = None
        self._ok = False
        self._domain: int | None = None
        self._nodes: list[Node] = []
        self._wakers: list[Callable[[], None]] = []
        self._on_shutdown: list[Callable[[], Any]] = []
        self._on_close: list[Callable[[], Any]] = []
        self._lock = threading.RLock()

    def init(
        self,
        args: Sequence[str] | None = None,
        *,
        initialize_logging: bool = True,
        domain_id: int | None = None,
    ) -> None:
        """Read the command line and join the domain.

        Raises:
            MisuseError: the context is already initialised.
            ArgumentsError, DiscoveryError: the command line or the environment is malformed.
        """
        if self._ok:
            raise MisuseError("Context.init() must only be called once")
        self.arguments = arguments.parse(args)
        if initialize_logging:
            for name, level in self.arguments.log_levels.items():
                log.set_logger_level(name, level)
        self._domain = _domain_of(domain_id)
        self._close()
        self._membership = Membership(self._domain)
        self._graph = Graph(self._membership.participant)
        self.interrupted = False
        self._ok = True
        _contexts.append(self)

    def ok(self) -> bool:
        """Whether the context is initialised and not shut down."""
        return self._ok

    @property
    def participant(self) -> Any:
        """The DDS participant."""
        if self._membership is None:
            raise NotInitializedException
        return self._membership.participant

    @property
    def graph(self) -> Graph:
        """What is known of all nodes and endpoints on the domain."""
        if self._graph is None:
            raise NotInitializedException
        return self._graph

    def get_domain_id(self) -> int:
        """The DDS domain."""
        if self._domain is None:
            raise NotInitializedException
        return self._domain

    def add_node(self, node: Node) -> None:
        """Note a node that must be destroyed before the participant is."""
        self._nodes.append(node)

    def remove_node(self, node: Node) -> None:
        """Forget a node that is destroyed; after shutdown the last one takes the participant along."""
        if node in self._nodes:
            self._nodes.remove(node)
        if not self._ok and not self._nodes:
            self._close()

    def nodes(self) -> list[Node]:
        """All nodes that are not destroyed."""
        return list(self._nodes)

    def add_waker(self, waker: Callable[[], None]) -> None:
        """Call this when the context is shut down, from any thread."""
        self._wakers.append(waker)

    def remove_waker(self, waker: Callable[[], None]) -> None:
        """Undo add_waker."""
        if waker in self._wakers:
            self._wakers.remove(waker)

    def on_shutdown(self, callback: Callable[[], Any]) -> None:
        """Call this when the context is shut down."""
        self._on_shutdown.append(callback)

    def on_close(self, callback: Callable[[], Any]) -> None:
        """Call this before the participant goes, to drop what was created through it."""
        self._on_close.append(callback)

    def request_shutdown(self) -> None:
        """End all spinning; nodes stay until they are destroyed. Safe in any thread."""
        with self._lock:
            if not self._ok:
                return
            self._ok = False
            callbacks, self._on_shutdown = self._on_shutdown, []
        for waker in tuple(self._wakers):
            waker()
        for callback in callbacks:
            callback()

    def shutdown(self) -> None:
        """End all spinning and, where no node is left, leave the domain.

        Raises:
            NotInitializedException: the context is not initialised or already shut down.
        """
        if not self._ok:
            raise NotInitializedException
        self.try_shutdown()

    def try_shutdown(self) -> None:
        """Shut down if that has not been done yet."""
        self.request_shutdown()
        if not self._nodes:
            self._close()

    def _close(self) -> None:
        membership, self._membership = self._membership, None
        if membership is not None:
            closers, self._on_close = self._on_close, []
            for close in closers:
                close()
            if self._graph is not None:
                self._graph.close()
            self._graph = None
            membership.close()
        if self in _contexts:
            _contexts.remove(self)


def _domain_of(asked: int | None) -> int:
    if asked is None:
        return domain_id()
    if not 0 <= asked <= 232:
        raise DiscoveryError(f"domain id {asked} is not in [0, 232]")
    return asked


_contexts: list[Context] = []
_default: Context | None = None


def get_default_context() -> Context:
    """The context that is used where none is named."""
    global _default
    if _default is None:
        _default = Context()
    return _default


@atexit.register
def _leave() -> None:
    """Take down what a program has left, while the interpreter is still whole."""
    uninstall_signal_handlers()
    for context in tuple(_contexts):
        context.request_shutdown()
        for node in tuple(context._nodes):
            node.destroy_node()
        context._close()


BURST_SECONDS = 0.1
"""Signals this close together count once: every thread of a dying parent passes its own on."""


class _Signals:
    """SIGINT and SIGTERM end spinning.

    Python runs signal handlers in the main thread only when that thread runs Python code, but it may wait inside DDS.
    The signal therefore also writes to a socket, whose reader thread shuts the contexts down and so wakes all waits.
    """

    def __init__(self, options: SignalHandlerOptions) -> None:
        self._numbers = [
            number
            for number, option in (
                (signal.SIGINT, SignalHandlerOptions.SIGINT),
                (signal.SIGTERM, SignalHandlerOptions.SIGTERM),
            )
            if options & option
        ]
        self._count = 0
        self._last = -BURST_SECONDS
        self._read, self._write = socket.socketpair()
        self._write.setblocking(False)
        self._previous: dict[int, Any] = {n: signal.signal(n, self._handle) for n in self._numbers}
        self._previous_fd = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, name="ropes_ros signals", daemon=True).start()

    def _watch(self) -> None:
        while True:
            try:
                data = self._read.recv(64)
            except OSError:
                return
            if not data:
                return
            for number in data:
                if number in self._numbers:
                    _shut_down_all(number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """First signal: spinning ends after the running callback. Second: the callback is interrupted too."""
        before, self._last = self._last, time.monotonic()
        if self._last - before < BURST_SECONDS:
            return
        self._count += 1
        spinning = any(context.spinning for context in _contexts)
        _shut_down_all(number)
        if self._count > 1 if spinning else (self._count == 1 and number == signal.SIGINT):
            raise KeyboardInterrupt

    def close(self) -> None:
        """Give the signals back to whom they belonged."""
        signal.set_wakeup_fd(self._previous_fd)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._write.close()


_signals: _Signals | None = None


def _shut_down_all(number: int) -> None:
    for context in tuple(_contexts):
        context.interrupted = context.interrupted or number == signal.SIGINT
        context.request_shutdown()


def install_signal_handlers(options: SignalHandlerOptions = SignalHandlerOptions.ALL) -> None:
    """Let SIGINT and SIGTERM end spinning; only the main thread can do so, elsewhere this does nothing."""
    global _signals
    if _signals is None and options and threading.current_thread() is threading.main_thread():
        _signals = _Signals(options)


def uninstall_signal_handlers() -> None:
    """Give SIGINT and SIGTERM back."""
    global _signals
    if _signals is not None and threading.current_thread() is threading.main_thread():
        _signals.close()
        _signals = None

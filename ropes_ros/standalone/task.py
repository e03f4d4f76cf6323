"""Coroutines as callbacks: each runs in the executor's thread, from one awaited future to the next."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ropes_ros.standalone.node import Node


def run_coroutine(node: Node, coroutine: Coroutine[Any, Any, Any], done: Callable[[Any], Any]) -> None:
    """Run a coroutine up to the first future that it awaits; the node's executor goes on with it as these complete.

    Args:
        node: Its executor runs it.
        coroutine: It may await futures of this package alone.
        done: Called with what it returns.
    """
    try:
        future = coroutine.send(None)
    except StopIteration as end:
        done(end.value)
        return
    future.add_done_callback(lambda _: node._ropes_resume(lambda: run_coroutine(node, coroutine, done)))

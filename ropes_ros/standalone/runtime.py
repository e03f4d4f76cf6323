"""The functions of the module rclpy itself: init, spin, shutdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ropes_ros.standalone import arguments
from ropes_ros.standalone.context import (
    Context,
    SignalHandlerOptions,
    get_default_context,
    install_signal_handlers,
    uninstall_signal_handlers,
)
from ropes_ros.standalone.executor import Executor, SingleThreadedExecutor
from ropes_ros.standalone.future import Future
from ropes_ros.standalone.node import Node

_executor: Executor | None = None


def init(
    *,
    args: Sequence[str] | None = None,
    context: Context | None = None,
    domain_id: int | None = None,
    signal_handler_options: SignalHandlerOptions | None = None,
) -> InitContextManager:
    """Read the command line, join the domain and, for the default context, take SIGINT and SIGTERM over."""
    target = context or get_default_context()
    target.init(args, domain_id=domain_id)
    if signal_handler_options is None:
        signal_handler_options = SignalHandlerOptions.ALL if context is None else SignalHandlerOptions.NO
    install_signal_handlers(signal_handler_options)
    return InitContextManager(target)


class InitContextManager:
    """`with rclpy.init():` shuts down at the end."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def __enter__(self) -> InitContextManager:
        return self

    def __exit__(self, *_: object) -> None:
        try_shutdown(context=self.context)


def ok(*, context: Context | None = None) -> bool:
    """Whether rclpy is initialised and not shut down."""
    return (context or get_default_context()).ok()


def shutdown(*, context: Context | None = None, uninstall_handlers: bool | None = None) -> None:
    """End all spinning and leave the domain; an error if that has been done."""
    (context or get_default_context()).shutdown()
    _finish(context, uninstall_handlers)


def try_shutdown(*, context: Context | None = None, uninstall_handlers: bool | None = None) -> None:
    """End all spinning and leave the domain if that has not been done."""
    (context or get_default_context()).try_shutdown()
    _finish(context, uninstall_handlers)


def _finish(context: Context | None, uninstall_handlers: bool | None) -> None:
    target = context or get_default_context()
    if uninstall_handlers or (uninstall_handlers is None and target is get_default_context()):
        uninstall_signal_handlers()


def get_global_executor() -> Executor:
    """The executor of rclpy.spin."""
    global _executor
    if _executor is None or _executor.is_shutdown:
        _executor = SingleThreadedExecutor()
    return _executor


def create_node(node_name: str, **options: Any) -> Node:
    """A node."""
    return Node(node_name, **options)


def _executor_for(node: Node, executor: Executor | None) -> Executor:
    if executor is not None:
        return executor
    if node.context is get_default_context():
        return get_global_executor()
    return SingleThreadedExecutor(context=node.context)


def spin(node: Node, executor: Executor | None = None) -> None:
    """Run a node's callbacks until shutdown."""
    chosen = _executor_for(node, executor)
    chosen.add_node(node)
    try:
        chosen.spin()
    finally:
        chosen.remove_node(node)


def spin_once(node: Node, *, executor: Executor | None = None, timeout_sec: float | None = None) -> None:
    """Run a node's callbacks that are ready, waiting up to the timeout for one."""
    chosen = _executor_for(node, executor)
    chosen.add_node(node)
    try:
        chosen.spin_once(timeout_sec)
    finally:
        chosen.remove_node(node)


def spin_until_future_complete(
    node: Node, future: Future, executor: Executor | None = None, timeout_sec: float | None = None
) -> None:
    """Run a node's callbacks until a future is done."""
    chosen = _executor_for(node, executor)
    chosen.add_node(node)
    try:
        chosen.spin_until_future_complete(future, timeout_sec)
    finally:
        chosen.remove_node(node)


def remove_ros_args(args: Sequence[str] | None = None) -> list[str]:
    """A command line without its ROS part."""
    return arguments.parse(args).rest


def get_rmw_implementation_identifier() -> str:
    """What carries the messages."""
    return "ropes_ros_standalone_cyclonedds"

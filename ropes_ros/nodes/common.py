"""What all nodes share: the way they start and stop, parameter descriptors, stamps and diagnostics."""

from __future__ import annotations

import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from functools import wraps
from types import FrameType
from typing import Any, NamedTuple

import rclpy
from builtin_interfaces.msg import Time as TimeMsg
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from diagnostic_updater import DiagnosticStatusWrapper, Updater
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from ropes_ros.command_messages import COMMAND_TYPES
from ropes_ros.errors import RopesError, RuntimeSetupError
from ropes_ros.units import NANOSECONDS

WAKE_S = 0.1
"""How often spinning looks for a signal: Python runs its handlers only between waits."""
DRAIN_S = 10.0
"""How long messages that have arrived are still worked off after the process was told to stop."""
DRAIN_TURNS = 32
"""Turns of an executor without a message after which none is waiting: a turn may run a timer, or one callback."""
BURST_S = 0.1
"""Signals this close together count once: terminal and parent may both send one."""

COMMAND_MESSAGES = dict(zip(COMMAND_TYPES, (JointTrajectory, Float64MultiArray, JointState), strict=True))
"""Message class of each command type."""
OVERRIDABLE = QoSOverridingOptions.with_default_policies()
"""Topics made with this have read-only parameters `qos_overrides.<topic>...` for history, depth and reliability."""

Transition = Callable[[Any, LifecycleState], TransitionCallbackReturn]


class _Signals:
    """SIGINT and SIGTERM: the first ends spinning after the running callback, a later one interrupts the callback.

    Unlike under rclpy's own handlers the context stays valid, so that a node can still publish while it is taken
    down. Nothing interrupts that: signals are ignored from then on, to the process's end, for which `ignore` has to be
    called: Python gives signals with handlers back to the system as it ends, and a late one would then kill it.
    """

    NUMBERS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.stop = False
        self.closing = False
        self._last = time.monotonic()
        for number in self.NUMBERS:
            signal.signal(number, self._handle)

    def ignore(self) -> None:
        """Let signals do nothing from now on."""
        for number in self.NUMBERS:
            signal.signal(number, signal.SIG_IGN)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        before, self._last = self._last, time.monotonic()
        if self.stop and not self.closing and self._last - before > BURST_S:
            raise KeyboardInterrupt
        self.stop = True


def run(make_node: Callable[[], Any], args: list[str] | None = None) -> int:
    """Be a node's process: create it, spin it until it is told to stop, and take it down in order.

    It ends with SIGINT, SIGTERM, or when a callback raises SystemExit; a lifecycle node's `on_shutdown` then runs while
    it can still publish. Signals stay taken over afterwards. Call it from the main thread.

    Args:
        make_node: The node's class.
        args: Command line, or None for sys.argv.

    Returns:
        The process's exit status: 0, or 1 after an error that the user can mend (printed in one line) or when
        `on_shutdown` did not succeed (it has logged why).
    """
    signals = _Signals()
    node = None
    status = 0
    try:
        _init(args)
        node = make_node()
        refuse_transitions(node)
        _spin(node, signals)
    except (KeyboardInterrupt, SystemExit, ExternalShutdownException):
        pass
    except (RopesError, ParameterException, NameValidationException) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        status = 1
    finally:
        signals.closing = True
        if node is not None and not _take_down(node):
            status = 1
        rclpy.try_shutdown()
        signals.ignore()
    return status


def _init(args: list[str] | None) -> None:
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # rclpy's errors about the command line have no public base but this
        raise RuntimeSetupError(str(error)) from error


def _spin(node: Any, signals: _Signals) -> None:
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while rclpy.ok() and not signals.stop:
            executor.spin_once(timeout_sec=WAKE_S)
        _drain(executor, node)
    finally:
        executor.remove_node(node)


def _drain(executor: SingleThreadedExecutor, node: Any) -> None:
    """Let a node that counts what it has `received` work off what waits in its subscriptions."""
    deadline = time.monotonic() + DRAIN_S
    idle = 0
    while hasattr(node, "received") and rclpy.ok() and idle < DRAIN_TURNS and time.monotonic() < deadline:
        before = node.received
        executor.spin_once(timeout_sec=0.0)
        idle = idle + 1 if node.received == before else 0


def _take_down(node: Any) -> bool:
    """Shut a node down, then destroy it; whether its on_shutdown agreed."""
    result = None
    try:
        if isinstance(node, LifecycleNode):
            result = node.trigger_shutdown()
    except (RuntimeError, RopesError) as error:  # interrupted within a transition, or finalized already
        node.get_logger().debug(f"not shut down: {error}")
    finally:
        node.destroy_node()
    return result in (None, TransitionCallbackReturn.SUCCESS)


def refuse_transitions(node: Any) -> None:
    """Let a lifecycle node answer with success false where it is asked for a transition that its state does not allow.

    A second launch of the same name, or a lifecycle manager that is late, asks for such. rclpy raises where it would
    have to answer, which ends the node, with an error that has no public base but RuntimeError.
    """

    def answering(callback: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        @wraps(callback)
        def answer(request: Any, response: Any) -> Any:
            try:
                return callback(request, response)
            except RuntimeError as error:
                node.get_logger().warning(f"transition {request.transition.label or request.transition.id}: {error}")
                response.success = False
                return response

        return answer

    for service in node.services:
        if service.srv_name.endswith("/change_state"):
            service.callback = answering(service.callback)


def told(transition: Transition) -> Transition:
    """Decorate a transition callback: what it raises is logged, where rclpy would only note that it failed."""

    @wraps(transition)
    def call(node: Any, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(node, state)
        except (RopesError, NameValidationException) as error:
            node.get_logger().error(" ".join(str(error).split()))
            return TransitionCallbackReturn.FAILURE
        except Exception:
            node.get_logger().error(f"{transition.__name__} failed:\n{traceback.format_exc().rstrip()}")
            return TransitionCallbackReturn.ERROR

    return call


def described(
    description: str,
    *,
    bounds: tuple[float, float] | None = None,
    integer_bounds: tuple[int, int] | None = None,
    read_only: bool = False,
) -> ParameterDescriptor:
    """A parameter descriptor with an optional closed range of floating point or integer values."""
    descriptor = ParameterDescriptor(description=description, read_only=read_only)
    if bounds is not None:
        descriptor.floating_point_range = [FloatingPointRange(from_value=bounds[0], to_value=bounds[1], step=0.0)]
    if integer_bounds is not None:
        descriptor.integer_range = [IntegerRange(from_value=integer_bounds[0], to_value=integer_bounds[1], step=0)]
    return descriptor


def to_nanoseconds(stamp: TimeMsg) -> int:
    """A builtin_interfaces/Time as integer nanoseconds."""
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def to_stamp(nanoseconds: int) -> TimeMsg:
    """Integer nanoseconds as a builtin_interfaces/Time."""
    return TimeMsg(sec=nanoseconds // NANOSECONDS, nanosec=nanoseconds % NANOSECONDS)


class Statement(NamedTuple):
    """What a node says of itself.

    Attributes:
        level: DiagnosticStatus.OK, WARN, ERROR or STALE.
        message: One line for a person.
        values: Key and value pairs; values are written with str().
    """

    level: bytes
    message: str
    values: Mapping[str, object]


INACTIVE = Statement(DiagnosticStatus.OK, "not active", {})
"""The statement of a node that is configured at most."""


def latched(depth: int = 1) -> QoSProfile:
    """A profile under which whoever comes late is given the newest messages."""
    return QoSProfile(
        depth=depth, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL, reliability=QoSReliabilityPolicy.RELIABLE
    )


class Reporter:
    """A node's diagnostics from its construction on: its statement on /diagnostics, and latched on `~/status`.

    Both are published once a period of the steady clock, since ROS time may stand still, and whenever `update` is
    called.

    Args:
        node: The node.
        subject: What the statement is about; the status is named `<node name>: <subject>`.
        state: Makes the statement.
    """

    def __init__(self, node: LifecycleNode, subject: str, state: Callable[[], Statement]) -> None:
        self._state = state
        self._name = f"{node.get_name()}: {subject}"
        self._status = node.create_publisher(DiagnosticStatus, "~/status", latched())
        self._updater = Updater(node)
        self._updater.setHardwareID("ropes_ros")
        self._updater.add(subject, self._fill)
        self._updater.timer.cancel()
        node.create_timer(self._updater.period, self.update, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def update(self) -> None:
        """Publish the statement now."""
        self._updater.force_update()

    def wait_for_all_acked(self, timeout: Any) -> None:
        """Wait until all that was published has arrived, at most for a Duration."""
        self._updater.publisher.wait_for_all_acked(timeout)
        self._status.wait_for_all_acked(timeout)

    def _fill(self, status: DiagnosticStatusWrapper) -> DiagnosticStatusWrapper:
        level, message, values = self._state()
        status.summary(level, message)
        status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        self._status.publish(
            DiagnosticStatus(
                level=level,
                name=self._name,
                message=message,
                hardware_id=status.hardware_id,
                values=status.values,
            )
        )
        return status


def offer(node: LifecycleNode, name: str, action: Callable[[], str], *, background: bool = False) -> None:
    """Offer a std_srvs/Trigger service.

    Args:
        node: The node that offers it.
        name: The service's name.
        action: Does what is asked for and says in one line what was done; what it raises is the answer's message, with
            success false, and the node goes on.
        background: Whether the action takes long: it runs in a thread of its own while the node's other callbacks
            go on, and who asks for it meanwhile is told that it runs already. rclpy looks for its end each time its
            executor wakes, under `run` every `WAKE_S` at the latest: that costs next to nothing, and the answer may
            come so much later.
    """
    turn = threading.Lock()

    def attempt() -> tuple[bool, str]:
        if not turn.acquire(blocking=False):
            return False, "it is being done already: call again when that has been answered"
        try:
            return True, action()
        except RopesError as error:
            node.get_logger().error(f"{name}: {error}")
            return False, str(error)
        except Exception as error:
            node.get_logger().error(f"{name} failed:\n{traceback.format_exc().rstrip()}")
            return False, f"{type(error).__name__}: {' '.join(str(error).split())}; see the node's log"
        finally:
            turn.release()

    def answer(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = attempt()
        return response

    async def answer_later(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        attempted = Future(executor=node.executor)
        threading.Thread(target=lambda: attempted.set_result(attempt()), name=name, daemon=True).start()
        response.success, response.message = await attempted
        return response

    if background:  # a group of its own, since the default one's other callbacks wait for a coroutine too
        node.create_service(Trigger, name, answer_later, callback_group=MutuallyExclusiveCallbackGroup())
    else:
        node.create_service(Trigger, name, answer)

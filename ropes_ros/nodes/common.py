"""What all nodes share: the way they start and stop, parameter descriptors, stamps and diagnostics."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import rclpy
from builtin_interfaces.msg import Time as TimeMsg
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.executors import ExternalShutdownException

from ropes_ros.errors import RopesError

NANOSECONDS = 1_000_000_000


def run(make_node: Callable[[], Any], args: list[str] | None = None) -> int:
    """Create a node, spin it until it is told to stop, and take it down in order.

    Args:
        make_node: The node's class.
        args: Command line, or None for sys.argv.

    Returns:
        The process's exit status: 0, or 1 after an error that the user can mend (printed in one line).
    """
    node = None
    try:
        rclpy.init(args=args)
        node = make_node()
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except RopesError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


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


def diagnostics(
    stamp_ns: int, name: str, level: bytes, message: str, values: Mapping[str, object]
) -> DiagnosticArray:
    """A DiagnosticArray with one status.

    Args:
        stamp_ns: Time of the statement in nanoseconds.
        name: Status name, by convention `<node name>: <subject>`.
        level: DiagnosticStatus.OK, WARN, ERROR or STALE.
        message: One line for a person.
        values: Key and value pairs; values are written with str().
    """
    status = DiagnosticStatus(
        level=level,
        name=name,
        message=message,
        hardware_id="ropes_ros",
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )
    array = DiagnosticArray()
    array.header.stamp = to_stamp(stamp_ns)
    array.status = [status]
    return array

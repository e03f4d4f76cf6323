"""Joint commands out of ROS messages: checked, in the robot's joint order. Works on any object with their fields."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ropes_ros.errors import RobotError
from ropes_ros.robot import Robot
from ropes_ros.trajectory import TrajectoryBuffer

Array = npt.NDArray[np.float64]

COMMAND_TYPES = ("JointTrajectory", "Float64MultiArray", "JointState")


def apply_command(message: Any, command_type: str, robot: Robot, buffer: TrajectoryBuffer, now_ns: int) -> bool:
    """Put a command message into the buffer.

    A JointTrajectory counts from its header's stamp, or from now when that is zero; the other types hold from now
    on. A Float64MultiArray is in the robot's joint order.

    Args:
        message: The message.
        command_type: One of COMMAND_TYPES.
        robot: The robot that is commanded.
        buffer: Where the command goes.
        now_ns: The present time in ns, in the clock of the message's stamps.

    Returns:
        Whether all of it lies within the robot's limits (what does not is clipped by the buffer).

    Raises:
        RobotError: The message makes no sense for this robot; the buffer is unchanged.
    """
    if command_type == "JointTrajectory":
        times_ns, positions, velocities = _trajectory(message, robot, now_ns)
        buffer.add(times_ns, positions, velocities, now_ns)
    elif command_type == "JointState":
        positions = _ordered([message.position], message.name, robot, "position")
        buffer.hold(positions[0], now_ns)
    else:
        positions = _ordered([message.data], robot.joint_names, robot, "data")
        buffer.hold(positions[0], now_ns)
    return bool(np.all((positions >= robot.lower) & (positions <= robot.upper)))


def _trajectory(message: Any, robot: Robot, now_ns: int) -> tuple[list[int], Array, Array | None]:
    """Times in ns, positions (N, J) and velocities (N, J) or None of a JointTrajectory."""
    if not message.points:
        raise RobotError("JointTrajectory without points")
    stamp = message.header.stamp
    start_ns = _nanoseconds(stamp.sec, stamp.nanosec) or now_ns
    offsets = [point.time_from_start for point in message.points]
    times_ns = [start_ns + _nanoseconds(offset.sec, offset.nanosec) for offset in offsets]
    if any(after <= before for before, after in pairwise(times_ns)):
        raise RobotError("JointTrajectory: time_from_start must increase from point to point")
    names = message.joint_names
    positions = _ordered([point.positions for point in message.points], names, robot, "positions")
    if any(len(point.velocities) == 0 for point in message.points):
        return times_ns, positions, None
    return times_ns, positions, _ordered([point.velocities for point in message.points], names, robot, "velocities")


def _ordered(rows: Sequence[Any], names: Sequence[str], robot: Robot, field: str) -> Array:
    """Rows of values per named joint as an array (N, J) in the robot's joint order."""
    for name in names:
        if name not in robot.joint_names:
            raise RobotError(
                f"joint '{name}' is not one of robot '{robot.name}' ({', '.join(robot.joint_names)})"
            )
    for name in robot.joint_names:
        if list(names).count(name) != 1:
            raise RobotError(f"joint '{name}' of robot '{robot.name}' must be named exactly once")
    if any(len(row) != len(names) for row in rows):
        raise RobotError(f"{field} must hold {len(names)} values, one per joint")
    values = np.array([list(row) for row in rows], dtype=np.float64)
    if not np.isfinite(values).all():
        raise RobotError(f"{field} holds a value that is not finite")
    return values[:, [list(names).index(name) for name in robot.joint_names]]


def _nanoseconds(seconds: int, nanoseconds: int) -> int:
    return int(seconds) * 1_000_000_000 + int(nanoseconds)

"""A preset's `sim` section: what simulators are told beyond the URDF, above all where the camera stands."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ropes_ros.errors import RobotError
from ropes_ros.robot import Robot

Array = npt.NDArray[np.float64]

CAMERA_KEYS = {"position": 3, "look_at": 3, "fovy": 1}
"""Keys of a preset's `sim.camera` and how many numbers each holds; m in the base link's frame, rad."""


def has_section(robot: Robot, name: str) -> bool:
    """Whether the preset has a part of that name in its `sim` section."""
    sim = robot.preset.get("sim")
    return isinstance(sim, Mapping) and name in sim


def section(robot: Robot, name: str, lengths: Mapping[str, int]) -> dict[str, Array]:
    """A part of the preset's `sim` section: each key a list of so many numbers (or one number).

    Raises:
        RobotError: The part is missing or malformed.
    """
    sim = robot.preset.get("sim")
    entries = sim.get(name) if isinstance(sim, Mapping) else None
    if not isinstance(entries, Mapping):
        raise RobotError(
            f"robot '{robot.name}': its preset has no section sim.{name}: it cannot be simulated until one is added"
            f" with the keys {', '.join(lengths)}"
        )
    if set(entries) != set(lengths):
        raise RobotError(f"robot '{robot.name}': sim.{name} must have the keys {', '.join(lengths)}")
    values = {}
    for key, length in lengths.items():
        try:
            values[key] = np.array(entries[key], dtype=np.float64, ndmin=1)
        except (TypeError, ValueError):
            values[key] = np.empty(0)
        if values[key].shape != (length,) or not np.isfinite(values[key]).all():
            raise RobotError(
                f"robot '{robot.name}': sim.{name}.{key} must be {length} finite number(s), got {entries[key]!r}"
            )
    return values


def optical_rotation(position: Array, look_at: Array) -> Array:
    """Rotation (3, 3) of an optical frame (x right, y down, z forward) that looks from one point at another."""
    forward = (look_at - position) / np.linalg.norm(look_at - position)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    return np.column_stack([right, np.cross(forward, right), forward])

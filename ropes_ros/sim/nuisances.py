"""Conditions of the surroundings, and what the generators of training and of evaluation share: places, not looks."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ropes_ros.errors import RopesError
from ropes_ros.robot import Robot
from ropes_ros.simulation import CAMERA_KEYS, optical_rotation, section

Array = npt.NDArray[np.float64]

CONDITIONS = ("clean", "drift", "jitter", "occlusion", "heavy_occlusion", "second_object")
"""What the surroundings do:

- `clean`: nothing;
- `drift`: the lamps' direction, strength and colour and the table's colour change;
- `jitter`: the camera is off its place by up to 2 cm and 1 degree about and along each of its axes;
- `occlusion`: in 20 % of the frames, things cover 10 to 30 % of the picture;
- `heavy_occlusion`: in every frame, things cover about 20 % of the picture;
- `second_object`: a thing moves beside the arm, and at times in front of it.
"""
SHIFT, TURN = 0.02, math.radians(1.0)
"""The most that the camera is off along (m) and about (rad) each of its axes."""


class Covering(NamedTuple):
    """How much is covered: the share of frames, and the range of the share of the picture in these."""

    frames: float
    least: float
    most: float


COVERING = {"occlusion": Covering(0.2, 0.1, 0.3), "heavy_occlusion": Covering(1.0, 0.15, 0.25)}


def check_condition(condition: str) -> None:
    """Refuse what is no condition.

    Raises:
        RopesError: It is none of CONDITIONS.
    """
    if condition not in CONDITIONS:
        raise RopesError(f"unknown condition '{condition}': known are {', '.join(CONDITIONS)}")


class View(NamedTuple):
    """Where the preset's camera stands: position (3,) in m, optical rotation (3, 3), focal length in heights."""

    position: Array
    rotation: Array
    focal: float

    def ray(self, across: float, down: float) -> Array:
        """Vector (3,) of unit depth in the base frame through a point of the picture.

        Args:
            across: From the picture's middle to the right, in heights of the picture.
            down: From its middle down, in heights of the picture.
        """
        ray: Array = self.rotation @ np.array([across / self.focal, down / self.focal, 1.0])
        return ray


def view(robot: Robot) -> View:
    """The preset's camera."""
    camera = section(robot, "camera", CAMERA_KEYS)
    rotation = optical_rotation(camera["position"], camera["look_at"])
    return View(camera["position"], rotation, 0.5 / math.tan(0.5 * camera["fovy"][0]))


def random_rotation(rng: np.random.Generator) -> Array:
    """A rotation (3, 3), uniform over all (from a uniform unit quaternion)."""
    w, x, y, z = rng.normal(size=4)
    n = 2.0 / (w * w + x * x + y * y + z * z)
    return np.array(
        [
            [1 - n * (y * y + z * z), n * (x * y - w * z), n * (x * z + w * y)],
            [n * (x * y + w * z), 1 - n * (x * x + z * z), n * (y * z - w * x)],
            [n * (x * z - w * y), n * (y * z + w * x), 1 - n * (x * x + y * y)],
        ]
    )

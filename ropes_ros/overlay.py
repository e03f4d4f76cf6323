"""Drawing the arm into the camera's picture: forward kinematics of all links, projected by a pinhole camera."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ropes_ros.robot import Robot


class PinholeCamera(NamedTuple):
    """A camera without distortion.

    Attributes:
        matrix: Intrinsics, float64 [3, 3], pixels.
        position: Of the optical frame (z forward, x right, y down) in the robot's base frame, float64 [3], m.
        rotation: Columns are the optical frame's axes in the base frame, float64 [3, 3].
    """

    matrix: NDArray[np.float64]
    position: NDArray[np.float64]
    rotation: NDArray[np.float64]

    @staticmethod
    def from_pose(
        matrix: NDArray[np.float64], position: NDArray[np.float64], quaternion: NDArray[np.float64]
    ) -> PinholeCamera:
        """A camera whose optical frame has this position, m, and orientation, quaternion xyzw, in the base frame."""
        x, y, z, w = quaternion / np.linalg.norm(quaternion)
        cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
        return PinholeCamera(matrix, position, np.eye(3) + 2.0 * (w * cross + cross @ cross))

    def project(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixels, float64 [N, 2], of points in the base frame, float64 [N, 3], m; NaN behind the camera."""
        local = (points - self.position) @ self.rotation
        depth = np.where(local[:, 2:] > 1e-6, local[:, 2:], np.nan)
        pixels: NDArray[np.float64] = (local @ self.matrix.T)[:, :2] / depth
        return pixels


def draw_arm(
    image: NDArray[np.uint8],
    robot: Robot,
    position: NDArray[np.floating],
    camera: PinholeCamera,
    colour: tuple[int, int, int],
) -> NDArray[np.uint8]:
    """A copy of an image with the arm's links drawn as a line from base to tip.

    Args:
        image: uint8 [H, W, 3] RGB.
        robot: The robot.
        position: Joint angles, float [J], rad.
        camera: The camera that took the image.
        colour: RGB of the line.
    """
    joints = np.stack([robot.fk(np.asarray(position), link)[0] for link in robot.links])
    pixels = camera.project(joints)
    canvas = image.copy()
    visible = [tuple(round(float(value)) for value in pixel) for pixel in pixels if np.isfinite(pixel).all()]
    for start, end in pairwise(visible):
        cv2.line(canvas, start, end, colour, 2, cv2.LINE_AA)
    for spot in visible:
        cv2.circle(canvas, spot, 3, colour, -1, cv2.LINE_AA)
    return canvas

"""Where a camera stands: the tree of static transforms, and cameras from their calibration messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pinocchio
from numpy.typing import NDArray

from ropes_ros.errors import RopesError
from ropes_ros.overlay import Camera, Distortion, check_distortion

Pose = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Position, float64 [3], m, and orientation, unit quaternion xyzw, float64 [4]."""


MOST_FRAMES = 10_000
"""Frames that are kept of `/tf_static`, where anyone may publish; a whole humanoid has some hundred."""


class StaticFrames:
    """The transforms of `/tf_static`, as far as they were heard."""

    def __init__(self) -> None:
        self._placed: dict[str, tuple[str, Any]] = {}

    def add(self, transforms: Iterable[Any]) -> None:
        """Take in transforms; as in tf2, one of a known child replaces the one before it.

        Args:
            transforms: Objects with the fields of geometry_msgs/TransformStamped.

        Raises:
            RopesError: Some are no transforms; the others have been taken in.
        """
        problems = []
        for transform in transforms:
            parent, child = transform.header.frame_id.lstrip("/"), transform.child_frame_id.lstrip("/")
            move, turn = transform.transform.translation, transform.transform.rotation
            position = np.array([move.x, move.y, move.z], dtype=np.float64)
            quaternion = np.array([turn.x, turn.y, turn.z, turn.w], dtype=np.float64)
            length = float(np.linalg.norm(quaternion))
            if not parent or not child or parent == child:
                problems.append(f"from {parent[:80]!r} to {child[:80]!r} joins no two frames")
            elif not np.isfinite(position).all() or not np.isfinite(length) or length < 1e-6:
                problems.append(f"from {parent[:80]!r} to {child[:80]!r} is not finite, or its quaternion is zero")
            elif len(self._placed) >= MOST_FRAMES and child not in self._placed:
                problems.append(f"of {child[:80]!r} is one more than the {MOST_FRAMES} frames that are kept")
            else:
                place = pinocchio.XYZQUATToSE3(np.concatenate([position, quaternion / length]))
                self._placed[child] = parent, place
        if problems:
            raise RopesError(f"static transform {problems[0]}; mend what publishes it")

    def pose(self, target: str, source: str) -> Pose | None:
        """Where one frame is in another.

        Args:
            target: The frame in which the pose is given.
            source: The frame whose pose it is.

        Returns:
            Position, float64 [3], m, and orientation, unit quaternion xyzw with w >= 0, float64 [4]; None while the
            transforms do not join the two.
        """
        below, above = self._ancestors(source.lstrip("/")), self._ancestors(target.lstrip("/"))
        common = next((frame for frame in below if frame in above), None)
        if common is None:
            return None
        values = pinocchio.SE3ToXYZQUAT(above[common].inverse() * below[common])
        quaternion = values[3:] / np.linalg.norm(values[3:])
        return values[:3], -quaternion if quaternion[3] < 0 else quaternion

    def _ancestors(self, frame: str) -> dict[str, Any]:
        """Where a frame is in itself and in each frame above it, nearest first; a loop ends where it closes."""
        found = {frame: pinocchio.SE3.Identity()}
        place = found[frame]
        while frame in self._placed:
            frame, step = self._placed[frame]
            if frame in found:
                break
            place = step * place
            found[frame] = place
        return found


def camera_of(info: Any, pose: Pose, *, size: tuple[int, int] | None = None) -> Camera:
    """The camera that a calibration message describes.

    Binning and region of interest are taken into account: `k` is of the full image. The image is taken to be the raw
    one, not rectified.

    Args:
        info: An object with the fields of sensor_msgs/CameraInfo.
        pose: Of the camera's optical frame in the robot's base frame.
        size: (width, height) in pixels to which its images were scaled, where they were.

    Raises:
        RopesError: The camera is not calibrated (a zero in `k`), or its distortion is not known.
    """
    matrix = np.array(info.k, dtype=np.float64).reshape(3, 3)
    if not np.isfinite(matrix).all() or matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
        raise RopesError(
            f"camera_info of frame {info.header.frame_id[:80]!r}: the camera is not calibrated (k is zero); calibrate "
            "it to see the arm drawn in its picture"
        )
    matrix[0, 2] -= info.roi.x_offset
    matrix[1, 2] -= info.roi.y_offset
    matrix[0] /= max(1, info.binning_x)
    matrix[1] /= max(1, info.binning_y)
    if size is not None:
        width, height = info.roi.width or info.width, info.roi.height or info.height
        stated = (width // max(1, info.binning_x), height // max(1, info.binning_y))
        for row, (wanted, given) in enumerate(zip(size, stated, strict=True)):
            if given and given != wanted:
                matrix[row] *= wanted / given
                matrix[row, 2] += 0.5 * (wanted / given - 1.0)  # a pixel's centre is a whole number
    distortion = Distortion(info.distortion_model, np.array(info.d, dtype=np.float64))
    if not distortion.coefficients.any():
        return Camera.from_pose(matrix, *pose)
    check_distortion(distortion)
    return Camera.from_pose(matrix, *pose, distortion)

"""Drawing into the camera's picture: the arm at an estimate, its uncertainty, and what the estimator says of itself."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import pinocchio
from numpy.typing import NDArray

from ropes_ros.errors import RopesError
from ropes_ros.robot import Robot

Colour = tuple[int, int, int]

DISTORTION_MODELS = ("plumb_bob", "rational_polynomial", "equidistant")
"""Names as in sensor_msgs/distortion_models.hpp."""
STATE_COLOURS: dict[str, Colour] = {
    "OK": (90, 220, 110),
    "DEGRADED": (255, 205, 70),
    "NOVEL": (255, 140, 60),
    "STALE": (190, 190, 190),
    "STOPPED": (255, 95, 85),
}
"""RGB of each state's name; that of an unknown one is white."""
ELLIPSE_SIGMAS = 2.0
"""Mahalanobis radius of the tip's ellipse: 86 % of tips lie within it, if the covariance is true."""
_WHITE, _SHADE, _TRACK = (255, 255, 255), (18, 20, 24), (95, 100, 108)
_SKELETON, _BAND, _MEASURED = (255, 255, 255), (90, 170, 255), (255, 190, 60)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_NEAREST = 1e-6
"""Depth in m below which a point counts as behind the camera."""


class Distortion(NamedTuple):
    """How a lens departs from a pinhole.

    Attributes:
        model: One of `DISTORTION_MODELS`.
        coefficients: float64 [D], in the order of sensor_msgs/CameraInfo: k1, k2, p1, p2, k3 (k4, k5, k6), or k1 to k4
            of an equidistant fisheye.
    """

    model: str
    coefficients: NDArray[np.float64]


class Camera(NamedTuple):
    """A camera at its place.

    Attributes:
        matrix: Intrinsics, float64 [3, 3], pixels.
        position: Of the optical frame (z forward, x right, y down) in the robot's base frame, float64 [3], m.
        rotation: Columns are the optical frame's axes in the base frame, float64 [3, 3].
        distortion: Of its lens; None for a pinhole.
    """

    matrix: NDArray[np.float64]
    position: NDArray[np.float64]
    rotation: NDArray[np.float64]
    distortion: Distortion | None = None

    @staticmethod
    def from_pose(
        matrix: NDArray[np.float64],
        position: NDArray[np.float64],
        quaternion: NDArray[np.float64],
        distortion: Distortion | None = None,
    ) -> Camera:
        """A camera whose optical frame has this position, m, and orientation, quaternion xyzw, in the base frame."""
        unit = quaternion / np.linalg.norm(quaternion)
        place = pinocchio.XYZQUATToSE3(np.concatenate([position, unit]))
        return Camera(matrix, np.asarray(position, dtype=np.float64), np.array(place.rotation), distortion)

    def project(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixels of points in the base frame.

        Args:
            points: float64 [N, 3], m.

        Returns:
            float64 [N, 2]; NaN where a point is behind the camera, or so far aside that the lens's polynomial, which
            holds within the picture, would fold it back.
        """
        local = (points - self.position) @ self.rotation
        seen = local[:, 2] > _NEAREST
        flat = np.full((len(local), 2), np.nan)
        flat[seen] = local[seen, :2] / local[seen, 2:]
        if self.distortion is not None and seen.any():
            flat[seen] = _distorted(flat[seen], self.distortion)
        pixels: NDArray[np.float64] = flat @ self.matrix[:2, :2].T + self.matrix[:2, 2]
        return pixels

    def moved(self, point: NDArray[np.float64]) -> NDArray[np.float64]:
        """How the pixel of a point moves with it: float64 [2, 3], pixels/m, by central differences over 0.1 mm."""
        steps = 1e-4 * np.vstack([np.eye(3), -np.eye(3)])
        ends = self.project(point + steps)
        derivative: NDArray[np.float64] = (ends[:3] - ends[3:]).T / 2e-4
        return derivative


def _distorted(flat: NDArray[np.float64], distortion: Distortion) -> NDArray[np.float64]:
    """Where a lens puts points of the plane at depth 1, float64 [N, 2]; NaN where its polynomial folds."""
    coefficients, radius = distortion.coefficients, np.linalg.norm(flat, axis=1)
    if distortion.model == "equidistant":
        bent = cv2.fisheye.distortPoints(flat[:, None], np.eye(3), coefficients[:4, None])
        angle = np.arctan(radius)
    else:
        solid = np.column_stack([flat, np.ones(len(flat))])
        bent = cv2.projectPoints(solid, np.zeros(3), np.zeros(3), np.eye(3), coefficients)[0]
        angle = radius
    found: NDArray[np.float64] = np.array(bent, dtype=np.float64).reshape(-1, 2)
    found[angle > _fold(distortion, float(angle.max()))] = np.nan
    return found


def _fold(distortion: Distortion, largest: float) -> float:
    """The radius (angle in rad of a fisheye) from which a lens's polynomial no longer grows, at most `largest`."""
    r = np.linspace(0.0, max(largest, 1e-9), 512)
    k = np.zeros(14)
    k[: len(distortion.coefficients)] = distortion.coefficients
    square = r**2
    if distortion.model == "equidistant":
        image = r * (1 + square * (k[0] + square * (k[1] + square * (k[2] + square * k[3]))))
    else:
        image = r * (1 + square * (k[0] + square * (k[1] + square * k[4])))
        image = image / (1 + square * (k[5] + square * (k[6] + square * k[7])))
    falling = np.flatnonzero(np.diff(image) <= 0)
    return float(r[falling[0]]) if len(falling) else largest


def draw_arm(
    image: NDArray[np.uint8],
    robot: Robot,
    position: NDArray[np.floating],
    camera: Camera,
    colour: Colour,
) -> NDArray[np.uint8]:
    """A copy of an image with the arm drawn as lines from each link to its parent.

    Args:
        image: uint8 [H, W, 3] RGB.
        robot: The robot.
        position: Joint angles, float [J], rad.
        camera: The camera that took the image.
        colour: RGB of the lines.
    """
    canvas = image.copy()
    _skeleton(canvas, robot, position, camera, colour, 2)
    return canvas


def draw_estimate(
    image: NDArray[np.uint8],
    robot: Robot,
    position: NDArray[np.floating] | None,
    std: NDArray[np.floating] | None,
    *,
    camera: Camera | None,
    state: str,
    reason: str,
    latency_ms: float | None,
    measured: NDArray[np.floating] | None = None,
) -> NDArray[np.uint8]:
    """A copy of an image with an estimate on it.

    With a camera the arm at the estimate is drawn where it would be seen, and around its tip the ellipse of
    `ELLIPSE_SIGMAS`. On the left each joint has a bar from its lower to its upper limit: a line at the angle, a band of
    one standard deviation to both sides, a triangle at the measured angle; above it name, angle and standard deviation
    in degrees, of a prismatic joint in mm. Joints for which there is no room are counted. At the bottom are state,
    reason and latency.

    Args:
        image: uint8 [H, W, 3] RGB.
        robot: The robot.
        position: Estimated angles, float [J], rad; None, or not finite, where there is no estimate.
        std: Their standard deviations, float [J], rad.
        camera: The camera that took the image, where it is known.
        state: A name of `STATE_COLOURS`.
        reason: Why, in words; as much as fits is shown.
        latency_ms: From the image's stamp to the estimate, milliseconds.
        measured: Measured angles beside which the estimate is to be seen, float [J], rad.

    Returns:
        uint8 [H, W, 3], a new array.
    """
    canvas = image.copy()
    size = _text_size(canvas)
    angles = None if position is None else np.asarray(position, dtype=np.float64)
    if angles is not None and np.isfinite(angles).all():
        spread = np.full(len(angles), np.nan) if std is None else np.asarray(std, dtype=np.float64)
        if camera is not None:
            thickness = max(1, round(size / 7))
            _skeleton(canvas, robot, angles, camera, _SKELETON, thickness)
            _tip_ellipse(canvas, robot, angles, spread, camera, thickness)
        _bars(canvas, robot, angles, spread, measured, size)
    _statement(canvas, state, reason, latency_ms, size)
    return canvas


def _skeleton(
    canvas: NDArray[np.uint8],
    robot: Robot,
    position: NDArray[np.floating],
    camera: Camera,
    colour: Colour,
    thickness: int,
) -> None:
    """Draw the links; those of which an end is not seen are left out."""
    pixels = camera.project(robot.link_positions(position))
    limit = 4 * max(canvas.shape)  # OpenCV's coordinates are 16.16 bits
    seen = (np.abs(pixels) < limit).all(axis=1)  # NaN is not
    spots = [(round(float(x)), round(float(y))) if there else None for (x, y), there in zip(pixels, seen, strict=True)]
    for spot, parent in zip(spots, robot.link_parents, strict=True):
        if spot is not None and parent >= 0 and (start := spots[parent]) is not None:
            cv2.line(canvas, start, spot, colour, thickness, cv2.LINE_AA)
    for spot in spots:
        if spot is not None:
            cv2.circle(canvas, spot, thickness + 1, colour, -1, cv2.LINE_AA)


def _tip_ellipse(
    canvas: NDArray[np.uint8],
    robot: Robot,
    position: NDArray[np.float64],
    std: NDArray[np.float64],
    camera: Camera,
    thickness: int,
) -> None:
    """Draw where the tip may be: the joints' variances, carried through kinematics and camera to first order."""
    tip = robot.fk(position)[0]
    (pixel,) = camera.project(tip[None])
    spread = camera.moved(tip) @ robot.jacobian(position)[:3] * std
    if not (np.isfinite(spread).all() and (np.abs(pixel) < 4 * max(canvas.shape)).all()):
        return
    variances, axes = np.linalg.eigh(spread @ spread.T)
    radii = ELLIPSE_SIGMAS * np.sqrt(np.maximum(variances, 0.0))
    if radii[1] > 4 * max(canvas.shape):
        return
    turn = float(np.degrees(np.arctan2(axes[1, 1], axes[0, 1])))
    centre = (round(float(pixel[0])), round(float(pixel[1])))
    sides = (max(1, round(float(radii[1]))), max(1, round(float(radii[0]))))
    cv2.ellipse(canvas, centre, sides, turn, 0, 360, _BAND, thickness, cv2.LINE_AA)


def _text_size(canvas: NDArray[np.uint8]) -> int:
    """Height of a line of text in pixels: readable in small pictures, modest in large ones."""
    height, width = canvas.shape[:2]
    return int(np.clip(min(height / 24, width / 32), 9, 40))


def _write(canvas: NDArray[np.uint8], text: str, left: int, bottom: int, size: int, colour: Colour) -> None:
    cv2.putText(canvas, text, (left, bottom), _FONT, size / 30, colour, max(1, size // 16), cv2.LINE_AA)


def _width(text: str, size: int) -> int:
    return int(cv2.getTextSize(text, _FONT, size / 30, max(1, size // 16))[0][0])


def _fitted(text: str, size: int, room: int) -> str:
    """As much of a text as has room, with dots where it is cut."""
    text = "".join(letter if " " <= letter <= "~" else "?" for letter in text)
    if _width(text, size) <= room:
        return text
    while text and _width(text + "..", size) > room:
        text = text[:-1]
    return text + ".." if text else ""


def _darken(canvas: NDArray[np.uint8], left: int, top: int, right: int, bottom: int) -> None:
    part = canvas[max(top, 0) : bottom, max(left, 0) : right]
    part[:] = (0.3 * part + 0.7 * np.array(_SHADE)).astype(np.uint8)


def _bars(
    canvas: NDArray[np.uint8],
    robot: Robot,
    position: NDArray[np.float64],
    std: NDArray[np.float64],
    measured: NDArray[np.floating] | None,
    size: int,
) -> None:
    height, width = canvas.shape[:2]
    gap, thick = max(2, size // 4), max(3, size // 3)
    entry = size + thick + 2 * gap
    right = min(width, gap + 11 * size)
    left, end = gap, right - gap
    room = (height - 2 * size - 2 * gap) // entry
    joints = len(robot.joints)
    shown = joints if room >= joints else max(0, room - 1)
    if end - left < 4 * size or room < 1:
        return
    _darken(canvas, 0, 0, right, gap + entry * shown + (size + gap if shown < joints else 0))
    scale = [joint.figures[1] for joint in robot.joints]
    for joint in range(shown):
        base = gap + entry * joint + size
        value = f"{scale[joint] * position[joint]:+.1f}"
        value += f" +-{scale[joint] * std[joint]:.1f}" if np.isfinite(std[joint]) else ""
        start = end - _width(value, size)
        _write(canvas, value, start, base - size // 6, size, _WHITE)
        name = _fitted(robot.joint_names[joint], size, start - left - gap)
        _write(canvas, name, left, base - size // 6, size, _WHITE)
        lower = float(robot.lower[joint])
        span = float(robot.upper[joint]) - lower

        def place(angle: float, lower: float = lower, span: float = span) -> int:
            return int(left + round((end - left) * min(max((angle - lower) / span, 0.0), 1.0)))

        top, bottom = base + gap // 2, base + gap // 2 + thick
        cv2.rectangle(canvas, (left, top), (end, bottom), _TRACK, -1)
        angle = float(position[joint])
        if np.isfinite(std[joint]):
            band = place(angle - float(std[joint])), place(angle + float(std[joint]))
            cv2.rectangle(canvas, (band[0], top), (band[1], bottom), _BAND, -1)
        stroke = max(1, size // 12)
        cv2.line(canvas, (place(angle), top - stroke), (place(angle), bottom + stroke), _WHITE, stroke)
        if measured is not None and np.isfinite(measured[joint]):
            where = place(float(measured[joint]))
            foot = bottom + gap
            corners = np.array([[where, bottom - thick // 2], [where - thick, foot], [where + thick, foot]], np.int32)
            cv2.fillPoly(canvas, [corners], _MEASURED, cv2.LINE_AA)
    if shown < joints:
        _write(canvas, f"{joints - shown} more joints", left, gap + entry * shown + size, size, _WHITE)


def _statement(canvas: NDArray[np.uint8], state: str, reason: str, latency_ms: float | None, size: int) -> None:
    height, width = canvas.shape[:2]
    gap = max(2, size // 4)
    base = height - gap - size // 6
    _darken(canvas, 0, height - size - 2 * gap, width, height)
    _write(canvas, state, gap, base, size, STATE_COLOURS.get(state, _WHITE))
    left, end = 2 * gap + size // 2 + _width(state, size), width - gap
    if latency_ms is not None:
        text = f"{latency_ms:.1f} ms"
        end -= _width(text, size)
        if end > left:
            _write(canvas, text, end, base, size, _WHITE)
        end -= size
    _write(canvas, _fitted(reason, size, end - left), left, base, size, _WHITE)


def check_distortion(distortion: Distortion) -> None:
    """Refuse what is no distortion that can be drawn.

    Raises:
        RopesError: An unknown model, a wrong number of coefficients, or numbers that are not finite.
    """
    counts = {"plumb_bob": (4, 5), "rational_polynomial": (8,), "equidistant": (4,)}.get(distortion.model)
    if counts is None:
        raise RopesError(
            f"distortion model {distortion.model[:40]!r} is not known; known are {', '.join(DISTORTION_MODELS)}"
        )
    if len(distortion.coefficients) not in counts:
        raise RopesError(
            f"distortion model {distortion.model} has {' or '.join(map(str, counts))} coefficients, not "
            f"{len(distortion.coefficients)}; calibrate the camera again"
        )
    if not np.isfinite(distortion.coefficients).all():
        raise RopesError(
            f"coefficients of distortion model {distortion.model} are not finite; calibrate the camera again"
        )

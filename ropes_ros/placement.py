"""Where a simulated camera might stand for a robot: all that the box sweeps in view, every joint seen to move."""

from __future__ import annotations

import numpy as np

from ropes_ros.robot import Array, Robot
from ropes_ros.simulation import optical_rotation

FOVY = 0.7
"""Vertical angle of view in rad."""
ASPECT = 4.0 / 3.0
"""Width over height of the picture."""
FILL = 0.9
"""Share of the picture, of its height and of its width, that the robot fills at most."""
THICKNESS = 0.12
"""What links are taken to extend beyond the line between their joints, as a share of the swept region's radius."""
_AZIMUTHS = (-1.2, -0.9, -0.6, 0.6, 0.9, 1.2)  # rad, from the direction in which the tip is
_ELEVATIONS = (0.5, 0.7, 0.9)  # rad above the horizon, which stays out of view
_POSES, _STEP = 256, 0.5


def place_camera(robot: Robot, seed: int = 0) -> dict[str, list[float]]:
    """A preset's `sim.camera` for a robot: position and look_at (m, in the base link's frame), fovy in rad.

    Of some directions, before the robot, from above and aside, that one is taken from which the joints are seen to
    move most (the mean over joints of the logarithm of the way that the link's origin goes which moves most); then the
    distance at which all that is swept just fills the picture.

    Args:
        robot: The robot; its links' origins are looked at, over random poses of its box.
        seed: Seed of the poses.
    """
    rng = np.random.default_rng(seed)
    units = rng.uniform(-1.0, 1.0, (_POSES, len(robot.joints)))
    points = np.stack([robot.link_positions(robot.denormalise(u)) for u in units])
    flat = points.reshape(-1, 3)
    low, high = flat.min(axis=0), flat.max(axis=0)
    centre = 0.5 * (low + high)
    margin = THICKNESS * max(0.5 * float(np.linalg.norm(high - low)), 0.1)
    tip = robot.fk(robot.home)[0]
    front = float(np.arctan2(tip[1], tip[0]))
    ways = _ways(robot, units[:32])
    best: tuple[float, Array, float] | None = None
    for elevation in _ELEVATIONS:
        for azimuth in front + np.array(_AZIMUTHS):
            towards = np.array(
                [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
            )
            distance = _distance(flat, centre, towards, margin)
            forward = -towards
            across = ways - (ways @ forward)[..., None] * forward
            seen = np.linalg.norm(across, axis=-1).max(axis=-1).mean(axis=-1) / distance
            score = float(np.log(np.maximum(seen, 1e-3)).mean())
            if best is None or score > best[0]:
                best = score, towards, distance
    assert best is not None
    _, towards, distance = best
    return {
        "position": [round(float(x), 3) for x in centre + distance * towards],
        "look_at": [round(float(x), 3) for x in centre],
        "fovy": [FOVY],
    }


def _ways(robot: Robot, units: Array) -> Array:
    """How far each joint moves each link's origin: (J, N, L, 3) in m, between u = -0.5 and 0.5 of that joint."""
    ways = []
    for joint in range(len(robot.joints)):
        ends = []
        for side in (-_STEP, _STEP):
            moved = units.copy()
            moved[:, joint] = side
            ends.append(np.stack([robot.link_positions(q) for q in robot.denormalise(moved)]))
        ways.append(ends[1] - ends[0])
    return np.stack(ways)


def _distance(points: Array, centre: Array, towards: Array, margin: float) -> float:
    """Smallest distance from the centre at which balls of radius `margin` about all points are in view, in m."""
    axes = optical_rotation(centre + towards, centre)
    seen = (points - centre) @ axes
    tangent = FILL * np.tan(FOVY / 2.0) * np.array([ASPECT, 1.0])
    # In view from distance d where |x| + margin <= tangent (z + d), to first order in margin over distance.
    needed = (np.abs(seen[:, :2]) + margin) / tangent - seen[:, 2:]
    return float(needed.max())

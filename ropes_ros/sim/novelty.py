"""Pictures that a model should call novel: a covered lens, a strange object over the arm, a camera out of its place."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from ropes_ros.errors import RopesError
from ropes_ros.robot import Robot
from ropes_ros.sim.canonical import CAMERA_SIZE, fresh_positions
from ropes_ros.sim.look import Look, Patch, Solid
from ropes_ros.sim.nuisances import View, random_rotation, view
from ropes_ros.sim.recordings import draw

KINDS = ("covered", "object", "moved")

SHIFT, TURN = 0.1, math.radians(5.0)
"""By how much a camera out of its place is moved (m) or turned (rad)."""


def novelty_frames(robot: Robot, kind: str, n: int, seed: int) -> NDArray[np.uint8]:
    """Pictures of uniformly random poses in which something is wrong.

    - covered: a lens under a hand or a cap: one colour from near black to skin, shaded from a corner, and grain;
    - object: a body of 14 to 32 cm in front of the arm, of one colour or of three, which hides a part of it;
    - moved: the camera moved by 10 cm in any direction, or turned by 5 degrees about any axis, in turns.

    Args:
        robot: A robot whose preset has a `sim` section.
        kind: What is wrong, one of KINDS.
        n: Number of pictures.
        seed: Seed of poses and of what is wrong.

    Returns:
        uint8 [N, H, W, 3] RGB, of the canonical camera's size.

    Raises:
        RopesError: The kind is unknown.
    """
    looks: dict[str, Callable[[int], Look]] = {
        "covered": lambda frame: _covered(_rng(seed, frame)),
        "object": lambda frame: _object(_rng(seed, frame), view(robot), robot, positions[frame]),
        "moved": lambda frame: _moved(_rng(seed, frame), turned=frame % 2 == 1),
    }
    if kind not in looks:
        raise RopesError(f"unknown kind of novelty '{kind}': known are {', '.join(KINDS)}")
    positions = fresh_positions(robot, n, seed=seed)
    images = np.empty((n, CAMERA_SIZE[1], CAMERA_SIZE[0], 3), dtype=np.uint8)
    for row, picture in zip(images, draw(robot, positions, looks[kind]), strict=True):
        row[...] = picture
    return images


def _rng(seed: int, frame: int) -> np.random.Generator:
    return np.random.default_rng([seed, 31, frame])


def _covered(rng: np.random.Generator) -> Look:
    width, height = CAMERA_SIZE
    colour = rng.uniform(0.03, 0.6) * np.array([220.0, 150.0, 115.0]) * rng.uniform(0.8, 1.2, 3)
    corner = rng.uniform(0.4, 1.0, (2, 2)).astype(np.float32)
    shade = cv2.resize(corner, (width, height), interpolation=cv2.INTER_LINEAR)
    grain = rng.normal(0.0, 2.0, (height, width, 1))
    pixels = np.clip(colour * shade[..., None] + grain, 0, 255).astype(np.uint8)
    return Look(patches=(Patch(0, 0, pixels, np.ones((height, width), dtype=np.bool_)),))


def _object(rng: np.random.Generator, camera: View, robot: Robot, position: NDArray[np.float64]) -> Look:
    """A body on the line of sight to a random link."""
    link = robot.links[int(rng.integers(1, len(robot.links)))]
    target = robot.fk(position, link)[0]
    half = rng.uniform(0.1, 0.16)
    toward = camera.position - target
    place = target + toward * ((half + 0.2) / np.linalg.norm(toward))
    axes = random_rotation(rng)
    size = half * rng.uniform(0.7, 1.0, 3)
    shape = ("box", "ellipsoid", "cylinder", "discs")[int(rng.integers(4))]
    if shape != "discs":
        return Look(solids=(Solid(shape, size, place, axes, rng.uniform(0.0, 1.0, 3)),))
    disc = np.array([size[0], 0.33 * size[1], 0.0])
    places = (place + along * size[1] * axes[:, 2] for along in (-0.66, 0.0, 0.66))
    return Look(solids=tuple(Solid("cylinder", disc, at, axes, rng.uniform(0.0, 1.0, 3)) for at in places))


def _moved(rng: np.random.Generator, *, turned: bool) -> Look:
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    return Look(camera_turn=TURN * direction) if turned else Look(camera_shift=SHIFT * direction)

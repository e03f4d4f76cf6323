"""Nuisances of fresh poses, for evaluation alone: other lamps, other occluders and other objects than in training."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from ropes_ros.robot import Robot
from ropes_ros.sim.look import PLAIN, Look, Patch, Solid
from ropes_ros.sim.nuisances import COVERING, SHIFT, TURN, Array, Covering, View, check_condition, random_rotation, view

_WARM, _COOL = np.array([1.0, 0.78, 0.55]), np.array([0.78, 0.88, 1.0])
"""Colours of light between which lamps lie."""


def evaluation_looks(condition: str, robot: Robot, *, seed: int, size: tuple[int, int]) -> Callable[[int], Look]:
    """The surroundings of each fresh pose, drawn anew for each.

    - drift: a lamp from a half circle of directions and a bulb beside the arm, both between warm and cool; a table of
      any hue, paler or darker;
    - jitter: uniform along and about each of the camera's axes;
    - occlusion: shaded bodies between camera and arm, or striped, chequered and speckled ellipses and triangles;
    - second_object: a cylinder with a rounded or a flat cap of another colour.

    Args:
        condition: One of CONDITIONS.
        robot: A robot whose preset has a `sim` section.
        seed: Seed of it all.
        size: (width, height) of the picture in pixels.

    Returns:
        The look by the frame's number, always the same for one number.

    Raises:
        RopesError: The condition is unknown.
    """
    check_condition(condition)
    camera = view(robot)

    def look(frame: int) -> Look:
        rng = np.random.default_rng([seed, 21, frame])
        if condition == "drift":
            return _lamps(rng)
        if condition == "jitter":
            return Look(camera_shift=SHIFT * rng.uniform(-1, 1, 3), camera_turn=TURN * rng.uniform(-1, 1, 3))
        if condition in COVERING:
            return _occlusion(rng, COVERING[condition], camera, size)
        if condition == "second_object":
            return Look(solids=_pillar(rng))
        return PLAIN

    return look


def _lamps(rng: np.random.Generator) -> Look:
    azimuth, elevation = 2.5 + rng.uniform(-0.5, 0.5) * math.pi, rng.uniform(0.6, 1.3)
    side = rng.uniform(0.0, 2.0 * math.pi)
    hue, saturation, value = rng.uniform(0, 360), rng.uniform(0.0, 0.35), rng.uniform(0.15, 0.45)
    table = cv2.cvtColor(np.array([[[hue, saturation, value]]], dtype=np.float32), cv2.COLOR_HSV2RGB)
    return Look(
        lamp_direction=np.array(
            [math.cos(azimuth) * math.cos(elevation), math.sin(azimuth) * math.cos(elevation), -math.sin(elevation)]
        ),
        lamp_rgb=rng.uniform(0.25, 0.65) * _light(rng),
        ambient_rgb=np.full(3, rng.uniform(0.32, 0.5)),
        bulb_position=np.array([1.8 * math.cos(side), 1.8 * math.sin(side), rng.uniform(0.6, 2.2)]),
        bulb_rgb=rng.uniform(0.0, 0.3) * _light(rng),
        table_rgb=table[0, 0].astype(np.float64),
    )


def _light(rng: np.random.Generator) -> Array:
    share = rng.random()
    colour: Array = share * _WARM + (1.0 - share) * _COOL
    return colour


def _occlusion(rng: np.random.Generator, covering: Covering, camera: View, size: tuple[int, int]) -> Look:
    if rng.random() >= covering.frames:
        return PLAIN
    area = rng.uniform(covering.least, covering.most)
    shares = area * rng.dirichlet(np.full(int(rng.integers(1, 3)), 3.0))
    if rng.random() < 0.5:
        return Look(solids=tuple(body_between(rng, share, camera, size) for share in shares))
    return Look(patches=tuple(_textured(rng, share, size) for share in shares))


def body_between(rng: np.random.Generator, area: float, camera: View, size: tuple[int, int]) -> Solid:
    """A shaded body between camera and arm that covers about a share of the picture."""
    width, height = size
    radius = math.sqrt(area * width / height / math.pi)  # of the disc of this area, in heights of the picture
    reach = 0.5 * width / height - 0.5 * radius
    depth = rng.uniform(0.3, 0.55) * float(np.linalg.norm(camera.position))
    across, down = rng.uniform(-reach, reach), rng.uniform(-0.5 + 0.5 * radius, 0.5 - 0.5 * radius)
    position = camera.position + depth * camera.ray(across, down)
    extent = radius / camera.focal * depth
    shape = ("box", "sphere", "cylinder", "ellipsoid")[int(rng.integers(4))]
    # Half edges whose silhouette is on average that of a ball of the radius `extent`.
    stretch = {"sphere": 1.0, "ellipsoid": 1.0, "box": 0.73, "cylinder": 0.82}[shape]
    form = extent * stretch * (np.exp(rng.uniform(-0.3, 0.3, 3)) if shape != "sphere" else np.ones(3))
    return Solid(shape, form, position, random_rotation(rng), rng.uniform(0.05, 1.0, 3))


def _textured(rng: np.random.Generator, area: float, size: tuple[int, int]) -> Patch:
    """An ellipse or a triangle with stripes, chequers or speckles."""
    width, height = size
    edge = 2.0 * math.sqrt(area * width * height)  # as long as the shapes below need for their area
    side = max(4, round(edge))
    mask = np.zeros((side, side), dtype=np.uint8)
    middle, angle = (side - 1) / 2, rng.uniform(0.0, 180.0)
    if rng.random() < 0.5:
        long = 0.5 * side * rng.uniform(0.6, 0.9)
        short = area * width * height / (math.pi * long)
        cv2.ellipse(mask, ((middle, middle), (2 * long, 2 * short), angle), 1, -1)
    else:
        corners = np.radians(angle + np.array([0.0, 120.0, 240.0]) + rng.uniform(-20, 20, 3))
        reach = 0.44 * side  # an equilateral triangle within has an area of 1.3 reach^2
        points = middle + reach * np.stack([np.cos(corners), np.sin(corners)], axis=-1)
        cv2.fillPoly(mask, [points.round().astype(np.int32)], 1)
    pixels = _texture(rng, side)
    inset = 0.3 * side  # so far at least its middle lies from the picture's edges
    left, top = (round(rng.uniform(inset, max(inset, extent - inset)) - middle) for extent in size)
    return Patch(left, top, pixels, mask.astype(np.bool_))


def _texture(rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """A square of two colours, uint8 [side, side, 3]."""
    rows, columns = np.mgrid[:side, :side]
    period, angle = rng.uniform(6.0, 24.0), rng.uniform(0.0, math.pi)
    along = (columns * math.cos(angle) + rows * math.sin(angle)) / period
    beside = (rows * math.cos(angle) - columns * math.sin(angle)) / period
    kind = int(rng.integers(3))
    if kind == 0:
        second = np.floor(along).astype(np.int64) % 2 == 1
    elif kind == 1:
        second = (np.floor(along) + np.floor(beside)).astype(np.int64) % 2 == 1
    else:
        second = cv2.GaussianBlur(rng.normal(size=(side, side)), (0, 0), period / 6.0) > 0.0
    colours = rng.integers(0, 256, (2, 3)).astype(np.uint8)
    return np.asarray(np.where(second[..., None], colours[1], colours[0]))


def _pillar(rng: np.random.Generator) -> tuple[Solid, Solid]:
    """A cylinder with a cap of another colour, anywhere beside the arm."""
    angle, radius = rng.uniform(0.0, 2.0 * math.pi), rng.uniform(0.3, 0.7)
    place = np.array([radius * math.cos(angle), radius * math.sin(angle), rng.uniform(0.15, 0.9)])
    width, half = rng.uniform(0.03, 0.08), rng.uniform(0.05, 0.12)
    axes = random_rotation(rng)
    body = Solid("cylinder", np.array([width, half, 0.0]), place, axes, rng.uniform(0.0, 1.0, 3))
    shape, size = (("ellipsoid", np.full(3, 1.2 * width)), ("cylinder", np.array([1.3 * width, 0.02, 0.0])))[
        int(rng.integers(2))
    ]
    return body, Solid(shape, size, place + half * axes[:, 2], axes, rng.uniform(0.0, 1.0, 3))

"""Nuisances of recordings that are learned from. Evaluation draws its own, from generators of another kind."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ropes_ros.robot import Robot
from ropes_ros.sim.look import PLAIN, Look, Patch, Solid
from ropes_ros.sim.nuisances import COVERING, SHIFT, TURN, Covering, check_condition, random_rotation

_KNOT_S, _MEMORY_S = 10.0, 120.0
_EPISODE_S = 1.5
_OBJECT_S = 60.0


def training_looks(
    condition: str, robot: Robot, *, seed: int, count: int, rate: int, video: bool, size: tuple[int, int]
) -> Callable[[int], Look]:
    """The surroundings of each frame of a recording.

    - drift: Gaussian random walks with a memory of two minutes, linear between knots 10 s apart; the same for videos
      and for independent poses, whose frames count as following each other at the camera's rate;
    - jitter: uniform and anew in each frame; in videos a quarter of it stays for the whole recording, the rest
      sways with periods of 2 to 20 s;
    - occlusion: rectangles of one colour in the picture; in videos episodes of 1.5 s in which they glide;
    - second_object: a box or a ball of one colour, another in each frame; in videos another each minute, which wanders.

    Args:
        condition: One of CONDITIONS.
        robot: The robot.
        seed: Seed of it all.
        count: Number N of frames.
        rate: Frames a second.
        video: Whether neighbouring frames follow each other in time.
        size: (width, height) of the picture in pixels.

    Returns:
        The look by the frame's number, always the same for one number.

    Raises:
        RopesError: The condition is unknown.
    """
    check_condition(condition)
    if condition == "drift":
        return _drift(seed, count, rate)
    if condition == "jitter":
        return _jitter(seed, count, rate, video)
    if condition in COVERING:
        return _occlusion(seed, rate if video else None, COVERING[condition], size)
    if condition == "second_object":
        return _second_object(robot, seed, rate if video else None)
    return lambda frame: PLAIN


def _drift(seed: int, count: int, rate: int) -> Callable[[int], Look]:
    rng = np.random.default_rng([seed, 11])
    knots = 2 + int(count / rate / _KNOT_S)
    keep = math.exp(-_KNOT_S / _MEMORY_S)
    walk = rng.normal(size=(knots, 11))
    for i in range(1, knots):
        walk[i] = keep * walk[i - 1] + math.sqrt(1.0 - keep**2) * walk[i]
    at = np.arange(count) / rate / _KNOT_S
    walk = np.stack([np.interp(at, np.arange(knots), column) for column in np.clip(walk, -2.5, 2.5).T], axis=1)

    def look(frame: int) -> Look:
        z = walk[frame]
        azimuth, elevation = 2.5 + 0.6 * z[0], 1.0 + 0.15 * z[1]
        return Look(
            lamp_direction=np.array(
                [
                    math.cos(azimuth) * math.cos(elevation),
                    math.sin(azimuth) * math.cos(elevation),
                    -math.sin(elevation),
                ]
            ),
            lamp_rgb=0.45 * np.exp(0.3 * z[2] + 0.12 * z[3:6]),
            ambient_rgb=np.full(3, 0.42 * math.exp(0.15 * z[6])),
            table_rgb=np.clip(0.26 * np.exp(0.2 * z[7:10] + 0.3 * z[10]), 0.02, 1.0),
        )

    return look


def _jitter(seed: int, count: int, rate: int, video: bool) -> Callable[[int], Look]:
    rng = np.random.default_rng([seed, 12])
    if video:
        waves = 4
        share = rng.dirichlet(np.ones(waves), 6)
        pulsation = 2.0 * math.pi / np.exp(rng.uniform(math.log(2.0), math.log(20.0), (6, waves)))
        phase = rng.uniform(0.0, 2.0 * math.pi, (6, waves))
        time = np.arange(count)[:, None, None] / rate
        sway = (share * np.sin(pulsation * time + phase)).sum(axis=-1)
        offsets = 0.25 * rng.uniform(-1.0, 1.0, 6) + 0.75 * sway
    else:
        offsets = rng.uniform(-1.0, 1.0, (count, 6))
    return lambda frame: Look(camera_shift=SHIFT * offsets[frame, :3], camera_turn=TURN * offsets[frame, 3:])


def _occlusion(seed: int, rate: int | None, covering: Covering, size: tuple[int, int]) -> Callable[[int], Look]:
    length = 1 if rate is None else round(_EPISODE_S * rate)

    def look(frame: int) -> Look:
        episode, since = divmod(frame, length)
        rng = np.random.default_rng([seed, 13, episode])
        if rng.random() >= covering.frames:
            return PLAIN
        area = rng.uniform(covering.least, covering.most)
        shares = rng.dirichlet(np.full(int(rng.integers(1, 4)), 3.0))
        return Look(patches=tuple(_rectangle(rng, share * area, size, since / length) for share in shares))

    return look


def _rectangle(rng: np.random.Generator, area: float, size: tuple[int, int], progress: float) -> Patch:
    """A rectangle of one colour that covers a share of the picture; it glides by up to a quarter of it."""
    width, height = size
    edge, aspect = math.sqrt(area * width * height), math.exp(rng.uniform(-0.8, 0.8))
    across, down = max(1, min(width, round(edge * aspect))), max(1, min(height, round(edge / aspect)))
    start = np.array([rng.uniform(0, width - across), rng.uniform(0, height - down)])
    way = rng.uniform(-0.25, 0.25, 2) * size
    left, top = (start + progress * way).round().astype(int).tolist()
    pixels = np.broadcast_to(rng.integers(0, 256, 3).astype(np.uint8), (down, across, 3))
    return Patch(left, top, pixels, np.ones((down, across), dtype=np.bool_))


def _second_object(robot: Robot, seed: int, rate: int | None) -> Callable[[int], Look]:
    length = 1 if rate is None else round(_OBJECT_S * rate)

    def look(frame: int) -> Look:
        turn, since = divmod(frame, length)
        rng = np.random.default_rng([seed, 14, turn])
        return Look(solids=(_wanderer(rng, 0.0 if rate is None else since / rate),))

    return look


def _wanderer(rng: np.random.Generator, time: float) -> Solid:
    """A box or a ball of one colour that sways about a place beside the arm."""
    shape = ("box", "sphere")[int(rng.integers(2))]
    size = rng.uniform(0.05, 0.1, 3)
    rotation = random_rotation(rng)
    place = _beside(rng)
    pulsation, phase = rng.uniform(0.3, 1.2, 3), rng.uniform(0.0, 2.0 * math.pi, 3)
    sway = np.array([0.15, 0.15, 0.1]) * np.sin(pulsation * time + phase)
    return Solid(shape, size, place + sway, rotation, rng.uniform(0.0, 1.0, 3))


def _beside(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """A place (3,) in m around the base, up to the arm's height."""
    angle, radius = rng.uniform(0.0, 2.0 * math.pi), rng.uniform(0.35, 0.65)
    return np.array([radius * math.cos(angle), radius * math.sin(angle), rng.uniform(0.15, 0.9)])

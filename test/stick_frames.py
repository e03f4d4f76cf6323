"""Labelled frames of a drawn arm without a bag: what tests of training need, made in a moment."""

from __future__ import annotations

import numpy as np
from synthetic import FRAME_PERIOD_NS, START_NS, draw

from ropes_ros.dataset import FrameSet
from ropes_ros.framing import Region

SIZE = (32, 24)
SEGMENT = 10
"""Frames of a segment."""


def stick_frames(count: int, *, joints: int = 2, levels: int = 8, seed: int = 0) -> FrameSet:
    """Frames at positions drawn anew for each from the level that the joint's segment has."""
    rng = np.random.default_rng(seed)
    grid = np.linspace(-1.0, 1.0, 257)
    centres = np.linspace(-0.9, 0.9, levels)
    bumps = np.exp(-0.5 * ((grid - centres[:, None]) / 0.25) ** 2)
    density = 0.95 * bumps / (bumps.mean(axis=1, keepdims=True) * 2.0) + 0.05 / 2.0
    segments = np.arange(count)[:, None] // SEGMENT + np.zeros((1, joints), dtype=np.int32)
    rounds = -(-count // (SEGMENT * levels))
    of_segment = np.stack(
        [np.concatenate([rng.permutation(levels) for _ in range(rounds)]) for _ in range(joints)], axis=1
    )
    labels = of_segment[segments[:, 0]].astype(np.int16)
    chances = density / density.sum(axis=1, keepdims=True)
    u = np.array([[rng.choice(grid, p=chances[label]) for label in row] for row in labels])
    return FrameSet(
        images=np.stack([draw(1.2 * row, SIZE) for row in u]),
        stamps_ns=START_NS + FRAME_PERIOD_NS * np.arange(count, dtype=np.int64),
        labels=labels,
        segments=segments.astype(np.int32),
        joint_names=tuple(f"joint{number + 1}" for number in range(joints)),
        level_ids=tuple(f"level{number + 1}" for number in range(levels)),
        grid=grid,
        log_density=np.repeat(np.log(density)[None], joints, axis=0),
        level_label_noise=0.25,
        robot="stick",
        schedule_hash="1" * 64,
        camera_size=SIZE,
        region=Region(0, 0, *SIZE),
        bag_hash="0" * 64,
        duplicates=0,
    )

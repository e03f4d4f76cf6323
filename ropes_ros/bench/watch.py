"""How soon a network is good: MCC on fresh poses after every epoch of its training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ropes_ros.bench.recordings import shrunk
from ropes_ros.disentanglement import mcc
from ropes_ros.learning.baselines.common import run
from ropes_ros.learning.checkpoint import load_checkpoint
from ropes_ros.learning.networks import build
from ropes_ros.learning.train import Epoch
from ropes_ros.sim.canonical import fresh_pictures, fresh_positions
from ropes_ros.sim.recordings import Recording

REACHED = 0.95
SEED = 2000
"""Seed of the poses; training and tests have others."""


class Watch:
    """Looks, when called after an epoch, at the checkpoint that was just written; its time is none of training's.

    Args:
        recording: What is trained on.
        checkpoint: Where `train` writes.
        poses: Number of fresh poses.
    """

    def __init__(self, recording: Recording, checkpoint: Path, poses: int) -> None:
        self._checkpoint = checkpoint
        frames, robot = recording.frames, recording.robot
        size = frames.images.shape[2], frames.images.shape[1]
        positions = fresh_positions(robot, poses, seed=SEED)
        pictures = fresh_pictures(robot, positions, seed=SEED)
        self._images = np.stack([shrunk(frames.region.cut(picture), size) for picture in pictures])
        self._truth = robot.normalise(positions)
        self._seconds: list[float] = []
        self._mcc: list[float] = []

    def __call__(self, epoch: Epoch, floor: float) -> None:
        """See `train`'s `on_epoch`."""
        content = load_checkpoint(self._checkpoint)
        net = build(content["architecture"])
        net.load_state_dict(content["average"])
        angle, _ = run(net, self._images)
        self._seconds.append(sum(entry["seconds"] for entry in content["history"]))
        self._mcc.append(mcc(angle, self._truth) if np.isfinite(angle).all() else 0.0)

    @property
    def facts(self) -> dict[str, Any]:
        """Seconds and MCC after every epoch, and the seconds to `REACHED`: None where that was never reached."""
        return {
            "watched_seconds": self._seconds,
            "watched_mcc": self._mcc,
            "seconds_to_mcc_95": seconds_to(self._seconds, self._mcc),
        }


def seconds_to(seconds: list[float], values: list[float], threshold: float = REACHED) -> float | None:
    """The first time at which a value reaches a threshold, None if none does."""
    reached = [when for when, value in zip(seconds, values, strict=True) if value >= threshold and math.isfinite(value)]
    return reached[0] if reached else None

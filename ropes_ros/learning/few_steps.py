"""A few steps of training, which tell whether a bag can be learned from at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ropes_ros.dataset import load_frames
from ropes_ros.errors import TrainingError
from ropes_ros.learning.augmentation import to_input
from ropes_ros.learning.mechanism import MechanismLikelihood
from ropes_ros.learning.networks import AngleNet
from ropes_ros.schedule import Schedule

STEPS, BATCH, NET_SIZE = 10, 32, (44, 40)


class FewSteps:
    """Makes `STEPS` steps of training on all labelled frames of a bag, which is too short to be split for more.

    Args:
        schedule: The schedule that was commanded.
        cache: Folder for resized images.
    """

    def __init__(self, schedule: Schedule, cache: Path) -> None:
        torch.set_num_threads(1)  # so small a network gains nothing by more, and loses much where the machine is busy
        density = schedule.log_commanded
        self._objective = MechanismLikelihood(density, np.full(density.shape[:2], 1.0 / density.shape[1]))
        self._cache = cache

    def train(self, bag: Path) -> None:
        """Make the steps.

        Raises:
            RopesError: They cannot be made.
        """
        frames = load_frames(bag, size=NET_SIZE, cache_dir=self._cache)
        net = AngleNet(NET_SIZE, len(frames.joint_names))
        optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3)
        labelled, rng = np.flatnonzero((frames.labels >= 0).any(axis=1)), np.random.default_rng(0)
        for step in range(STEPS):
            chosen = np.sort(rng.choice(labelled, BATCH))
            prediction = net(to_input(frames.images[chosen]))
            labels = torch.from_numpy(frames.labels[chosen].astype(np.int64))
            loss = self._objective(prediction.angle, prediction.log_std, labels)
            if not torch.isfinite(loss):
                raise TrainingError(f"{bag}: the loss is {float(loss)} in step {step + 1}")
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

"""How long the published recipe takes on this machine, from the speed of its parts.

Its whole run (autoencoder 100 epochs, classifiers 10, latents 150; 13 regimes of 10,000 images) takes many hours of a
CPU. Its time is a number of steps times the time of a step, so one pass over fewer images tells it.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from ropes_ros.dataset import FrameSet
from ropes_ros.errors import TrainingError
from ropes_ros.learning.ropes import RopesConfig, train_ropes

PUBLISHED = RopesConfig()


def measure_published(frames: FrameSet, folder: Path, images: int) -> dict[str, Any]:
    """Time one pass of every stage, and tell from that the whole run's time.

    Args:
        frames: A single-joint recording with at least so many training images in every regime.
        folder: For the checkpoint.
        images: Images a regime.

    Returns:
        `published_seconds` of the whole run, and those of its stages; `measured_seconds` of what was run for that.
    """
    moments: list[float] = []
    batch = min(PUBLISHED.batch_size, images // 2)
    config = RopesConfig(
        frames_per_regime=images,
        batch_size=batch,
        precision="auto",
        autoencoder_epochs=1,
        classifier_epochs=1,
        latent_epochs=1,
    )
    result = train_ropes(frames, folder, config=config, on_step=lambda *_: moments.append(time.monotonic()))
    return {**whole_run(moments, images, batch, len(frames.joint_names)), "measured_seconds": result.seconds}


def whole_run(moments: list[float], images: int, batch: int, joints: int) -> dict[str, Any]:
    """The published run's seconds from the moments at which the steps of one pass of every stage ended.

    Steps are timed by the median of what lies between two moments of one stage. What the second stage does besides
    (score differences) lies between the last step of one pair of regimes and the first of the next.

    Args:
        moments: Seconds, float [steps], of `autoencoder + pairs x classifier + latents` steps.
        images: Images a regime, at least two batches.
        batch: Images a step; the time of an image hardly depends on it.
        joints: Number of joints, which is that of pairs.

    Raises:
        TrainingError: There were not so many steps, because regimes had fewer images.
    """
    one, two = math.ceil(images / batch), math.ceil(2 * images / batch)
    if len(moments) != 2 * one + joints * two:
        raise TrainingError(f"a regime has fewer than {images} images to time the published recipe on: record more")
    took = np.diff(moments)
    classifiers = [took[one + pair * two : one + (pair + 1) * two - 1] for pair in range(joints)]
    between = [took[one + pair * two - 1] for pair in range(1, joints + 1)]
    classifier = float(np.median(np.concatenate(classifiers)))
    scale = PUBLISHED.frames_per_regime / images
    stages = {
        "autoencoder_seconds": scale * PUBLISHED.autoencoder_epochs * one * float(np.median(took[: one - 1])),
        "classifier_seconds": scale * PUBLISHED.classifier_epochs * joints * two * classifier,
        "score_seconds": scale * sum(max(0.0, float(gap) - classifier) for gap in between),
        "latent_seconds": scale * PUBLISHED.latent_epochs * one * float(np.median(took[one + joints * two :])),
    }
    return {**stages, "published_seconds": sum(stages.values())}

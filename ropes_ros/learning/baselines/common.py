"""What all baselines share: recordings with labels, what a fitted method answers, and nets that answer it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ropes_ros.commands import CommandTrack, load_commands
from ropes_ros.dataset import FrameSet
from ropes_ros.errors import TrainingError
from ropes_ros.learning.augmentation import to_input
from ropes_ros.learning.loader import batches
from ropes_ros.learning.train import TrainConfig
from ropes_ros.robot import Robot
from ropes_ros.truth import load_truth


class LabelledFrames(Protocol):
    """Frames with what only baselines and evaluation may see; the simulator's recordings are such."""

    @property
    def frames(self) -> FrameSet:
        """The frames."""

    @property
    def positions(self) -> NDArray[np.float64]:
        """True positions, float64 [N, J] rad; not a number where nobody measured."""

    @property
    def commanded(self) -> NDArray[np.float64]:
        """Commanded positions at the frames' stamps, float64 [N, J] rad; not a number before the first command."""

    @property
    def robot(self) -> Robot:
        """The robot."""


class Labelled(NamedTuple):
    """A bag's frames with labels; see `LabelledFrames`."""

    frames: FrameSet
    positions: NDArray[np.float64]
    commanded: NDArray[np.float64]
    robot: Robot


class Estimate(NamedTuple):
    """What a method says of N images.

    Attributes:
        u: Normalised joint angles, float64 [N, J], half ranges about home.
        std: Their standard deviation, float64 [N, J], half ranges; None where the method has none.
        latents: What the method makes of an image before any label is used to read it, float64 [N, D].
    """

    u: NDArray[np.float64]
    std: NDArray[np.float64] | None
    latents: NDArray[np.float64]


class Fitted(Protocol):
    """A method after training."""

    def predict(self, images: NDArray[np.uint8]) -> Estimate:
        """Estimates for images, uint8 [N, h, w, 3] RGB, cut and resized as those that it was trained on."""


class Fit(Protocol):
    """Trains a method."""

    def __call__(self, recording: LabelledFrames, *, seed: int, config: TrainConfig, out_dir: Path) -> Fitted:
        """Train.

        Args:
            recording: The frames with their labels, of which a method uses what its `supervision` says.
            seed: Of the split, the weights, and the choice of labels.
            config: As for our method; epochs, batches, backbone and sizes are taken over.
            out_dir: Folder for checkpoints.
        """


@dataclass(frozen=True)
class Baseline:
    """A method to compare with.

    Attributes:
        name: Key in `BASELINES`.
        description: What it is, in one line.
        supervision: What it is told of the frames, in plain words.
        fit: Trains it.
    """

    name: str
    description: str
    supervision: str
    fit: Fit


def labelled_bag(
    frames: FrameSet, bag_path: Path, robot: Robot, *, topics: Mapping[str, str] | None = None
) -> Labelled:
    """The joint states and commands of a bag beside its frames.

    Args:
        frames: The bag's frames.
        bag_path: The bag.
        robot: Its robot.
        topics: Topics of the roles "joint_states" and "joint_command", for bags from elsewhere.

    Raises:
        BagError: Joint states or commands are missing.
    """
    positions = load_truth(bag_path, frames.stamps_ns, joint_names=robot.joint_names, topics=topics)
    commanded = load_commands(bag_path, robot, topics=topics).at(frames.stamps_ns)
    return Labelled(frames, positions, robot.denormalise(commanded), robot)


def command_track(recording: LabelledFrames) -> CommandTrack:
    """The commands at the frames' stamps as a track.

    Raises:
        TrainingError: No frame has a command.
    """
    known = np.flatnonzero(np.isfinite(recording.commanded).all(axis=1))
    if not len(known):
        raise TrainingError("no frame of the recording has a command: were camera and commander on one clock?")
    return CommandTrack(recording.frames.stamps_ns[known], recording.robot.normalise(recording.commanded[known]))


def is_continuous(frames: FrameSet) -> bool:
    """Whether frames follow each other in time within segments, rather than being poses one by one."""
    return bool((frames.segments[1:] == frames.segments[:-1]).mean() > 0.5)


def seeded(config: TrainConfig, seed: int) -> TrainConfig:
    """The settings with a seed, and without a constraint, which is a part of our methods."""
    return replace(config, seed=seed, constraint="none")


@dataclass(frozen=True)
class NetFitted:
    """A network that answers in half ranges.

    Attributes:
        net: Maps images to a Prediction.
        spread: Makes the standard deviation, float64 [N, J], of the network's own; None where that was not trained.
    """

    net: nn.Module
    spread: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None

    def predict(self, images: NDArray[np.uint8]) -> Estimate:
        """See `Fitted`."""
        angle, std = run(self.net, images)
        return Estimate(angle, None if self.spread is None else self.spread(std), angle)


@torch.no_grad()
def run(net: nn.Module, images: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Angle and standard deviation, float64 [N, J] each, half ranges, of a network in evaluation mode."""
    net.eval()
    parts = []
    for chosen in batches(np.arange(len(images))):
        prediction = net(to_input(images[chosen]))
        parts.append((prediction.angle.double().numpy(), prediction.log_std.double().exp().numpy()))
    angle, std = (np.concatenate(column) for column in zip(*parts, strict=True))
    return angle, std

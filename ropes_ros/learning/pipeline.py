"""All of training in one call: the first network, the second look, and the check for leaks.

    result = learn(frames, out_dir, robot=load_robot("arm6"))
    export(result.checkpoint, model_dir)
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ropes_ros.dataset import FrameSet
from ropes_ros.errors import TrainingError
from ropes_ros.learning.checkpoint import CHECKPOINT_FILE, load_checkpoint, load_net
from ropes_ros.learning.mechanism import MechanismLikelihood, level_shares
from ropes_ros.learning.refine import RefineConfig, refine
from ropes_ros.learning.train import (
    Epoch,
    Progress,
    TaskFactory,
    TrainConfig,
    TrainResult,
    train,
)
from ropes_ros.learning.validation import leakage, prepare
from ropes_ros.robot import Robot

FIRST = "first"
"""Folder, within that of a run, of the first network's checkpoint."""


def _check_robot(frames: FrameSet, robot: Robot) -> None:
    """Refuse a robot whose joints or commanded box are not those that were recorded."""
    if tuple(robot.joint_names) != frames.joint_names:
        raise TrainingError(
            f"the recording is of joints {', '.join(frames.joint_names)}, the preset of {robot.name!r} has "
            f"{', '.join(robot.joint_names)}: name the preset of the robot that was recorded (--robot FILE)"
        )
    boxes = {"home": (frames.home, robot.home), "half_range": (frames.half_range, robot.half_range)}
    for what, (ours, theirs) in boxes.items():
        if not len(ours):  # not known of these frames
            continue
        apart = np.flatnonzero(~np.isclose(ours, theirs, rtol=1e-9, atol=1e-9))
        if len(apart):
            joint = int(apart[0])
            raise TrainingError(
                f"joint {frames.joint_names[joint]}: {what} is {theirs[joint]} in the preset of {robot.name!r}, "
                f"{ours[joint]} was commanded: name the preset that the schedule was made for (--robot FILE)"
            )


@dataclass(frozen=True)
class Learned:
    """What `learn` gives.

    Attributes:
        result: Of the stage that was kept.
        refined: Whether that is the second one.
        findings: Sentences for the user: joints left out, weak spots, signs of leaks; empty where all is well.
    """

    result: TrainResult
    refined: bool
    findings: tuple[str, ...]


def learn(
    frames: FrameSet,
    out_dir: Path,
    *,
    robot: Robot | None = None,
    config: TrainConfig | None = None,
    refinement: RefineConfig | None = None,
    task: TaskFactory | None = None,
    init: Path | None = None,
    resume: bool = False,
    log_dir: Path | None = None,
    on_step: Progress | None = None,
    on_epoch: Callable[[Epoch, float], None] | None = None,
    on_phase: Callable[[str], None] | None = None,
) -> Learned:
    """Train on a recording.

    Of processes that `torchrun` started, all train the first network and the first one goes on alone.

    Args:
        frames: Images with the level of each joint; holds no angles.
        out_dir: Folder for `checkpoint.pt`, and for the first network's in `first/`.
        robot: The robot that was recorded, which the second look needs.
        config: Settings of the first network; the default ones when None.
        refinement: Settings of the second look; None leaves it out.
        task: Makes the task of both, in place of the one that the settings name.
        init: Checkpoint, or folder of a model with its checkpoint, whose weights are adapted.
        resume: Continue an interrupted first stage.
        log_dir: Folder for TensorBoard's event files of the first stage; none are written when None.
        on_step: Progress callback of each stage.
        on_epoch: Called after each epoch with the log entry and the Bayes floor.
        on_phase: Called with what is done next, where that takes long and no step is told.

    Raises:
        TrainingError: Nothing can be learned from the recording, it is of another robot, a setting is unknown, a
            checkpoint does not fit.
    """
    config = config or TrainConfig()
    if robot is not None:
        _check_robot(frames, robot)
    started = time.monotonic()
    first = train(
        frames,
        out_dir / FIRST,
        config=config,
        task=task,
        init=init,
        resume=resume,
        log_dir=log_dir,
        on_step=on_step,
        on_epoch=on_epoch,
    )
    result = first
    if int(os.environ.get("RANK", "0")) > 0:  # what follows is not shared among processes
        return Learned(first, False, ())
    if refinement is None or robot is None:
        shutil.copyfile(first.checkpoint, out_dir / CHECKPOINT_FILE)
    else:
        if on_phase is not None:
            on_phase("finding the camera, and cutting pictures of the arm out of every frame of the recording")
        result = refine(
            frames,
            first.checkpoint,
            out_dir,
            robot=robot,
            config=refinement,
            task=task,
            init=init,
            on_step=on_step,
            on_epoch=on_epoch,
            on_phase=on_phase,
        )
    if on_phase is not None:
        on_phase("checking on held-out spans what was learned, and whether anything but the pose tells levels")
    prepared = prepare(frames, span_s=config.span_s, seed=config.seed)
    content = load_checkpoint(out_dir / CHECKPOINT_FILE)
    shares = level_shares(prepared.split.labels[prepared.split.train], frames.joint_names, frames.level_ids)
    objective = MechanismLikelihood(frames.log_density, shares)
    report = leakage(load_net(content), frames, prepared.split, objective, control=prepared.control)
    result = replace(result, seconds=time.monotonic() - started)
    return Learned(result, bool(content.get("refined")), (*prepared.findings, *report.sentences))

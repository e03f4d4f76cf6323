"""What is in a bag, and whether it is fit to train: topics, clocks, images, regimes, occupancy, visibility, drift.

A bag is passed through once. Measured joint states are looked at to compare them with the commands, which is
evaluation; nothing here is learned from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropes_ros.bag_pass import Pictures, Progress, pass_through
from ropes_ros.bags import open_bag
from ropes_ros.commands import load_commands
from ropes_ros.dataset import load_timeline
from ropes_ros.errors import RopesError
from ropes_ros.inspection_verdict import judge
from ropes_ros.joint_findings import JointFindings, joint_findings
from ropes_ros.regimes import Schedule
from ropes_ros.robot import Robot, bundled_robot
from ropes_ros.stream_watch import Stream
from ropes_ros.tracking_report import tracking_report
from ropes_ros.truth import load_truth
from ropes_ros.units import NANOSECONDS

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Inspection:
    """All that is said of a bag.

    Attributes:
        path: The bag.
        seconds: From its first message to its last.
        streams: Its topics.
        pictures: Its images; None without.
        schedule: What was designed; None where it is not known.
        joints: What is known of each joint; empty without a schedule.
        occupancy: u of commands at the images with a label, float64 [N, J], and these labels, int16 [N, J]; of at most
            some ten thousand images.
        faults: What makes the bag unfit to train, one sentence each.
        warnings: What is weak.
        remarks: What could not be looked at, and why.
    """

    path: Path
    seconds: float
    streams: tuple[Stream, ...]
    pictures: Pictures | None
    schedule: Schedule | None
    joints: tuple[JointFindings, ...]
    occupancy: tuple[Array, NDArray[np.int16]] | None
    faults: tuple[str, ...]
    warnings: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def fit(self) -> bool:
        """Whether nothing speaks against training with it."""
        return not self.faults

    @property
    def sequential(self) -> bool:
        """Whether levels are held in blocks of time, or follow the light."""
        return any(joint.time.flagged or joint.light.flagged for joint in self.joints)

    @property
    def verdict(self) -> str:
        """In words."""
        if self.faults:
            return "not fit to train: record again, or more, as said below"
        if self.warnings:
            return "fit to train, with weak spots"
        return "fit to train"


def inspect_bag(
    path: str | Path,
    *,
    robot: Robot | None = None,
    topics: Mapping[str, str] | None = None,
    schedule: Schedule | None = None,
    progress: Progress | None = None,
) -> Inspection:
    """Look at a bag.

    Args:
        path: The bag.
        robot: The robot that was commanded, where it is none of the bundled presets.
        topics: Role to topic name, for bags from elsewhere.
        schedule: The schedule, for bags that do not hold it.
        progress: Called now and then.

    Raises:
        BagError: It is no bag, or damaged.
    """
    path = Path(path)
    remarks: list[str] = []
    with open_bag(path, topics=topics, schedule=schedule) as bag:
        image_topic = _or_remark(lambda: bag.topic("image"), remarks)
        passed = pass_through(bag, image_topic, progress)
        drops = {} if bag.header is None else bag.header.drops
        streams = tuple(watch.stream(drops.get(name)) for name, watch in passed.watches.items())
        plan = _or_remark(lambda: bag.schedule, remarks)
        timeline = None if plan is None else _or_remark(lambda: load_timeline(bag), remarks)
        seconds = (bag.end_ns - bag.start_ns) / NANOSECONDS
    pictures = passed.pictures()
    if pictures is None and passed.damaged:
        remarks.append(f"{passed.damaged} images cannot be read: {passed.damage}")
    if plan is None or timeline is None or pictures is None:
        faults, warnings = judge(streams, image_topic, pictures, plan, (), 0, 0.0)
        return Inspection(path, seconds, streams, pictures, plan, (), None, faults, warnings, tuple(remarks))
    stamps = np.unique(np.asarray(passed.stamps, dtype=np.int64))
    labels, segments = timeline.labels_at(stamps), timeline.segment_ids_at(stamps)
    track = _or_remark(lambda: load_commands(path, robot or bundled_robot(plan.robot), topics=topics), remarks)
    truth = _or_remark(lambda: load_truth(path, stamps, joint_names=plan.joint_names, topics=topics), remarks)
    joints = joint_findings(plan, stamps, labels, segments, track, truth, passed, timeline)
    labelled = int((labels >= 0).any(axis=1).sum())
    faults, warnings = judge(streams, image_topic, pictures, plan, joints, labelled, seconds)
    if truth is not None:
        warnings = (*warnings, *tracking_report(plan, labels, truth).sentences)
    chosen = np.unique(np.linspace(0, len(stamps) - 1, min(len(stamps), 20_000)).astype(np.int64))
    occupancy = None if track is None else (track.at(stamps[chosen]), labels[chosen])
    return Inspection(
        path, seconds, streams, pictures, plan, joints, occupancy, faults, tuple(warnings), tuple(remarks)
    )


def _or_remark(read: Callable[[], Any], remarks: list[str]) -> Any:
    """What can be read, or None and why it cannot."""
    try:
        return read()
    except RopesError as error:
        remarks.append(str(error))
        return None

"""A bag's images in order, each with what is known of it: for files that other programs read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ropes_ros.bag_images import decode_image
from ropes_ros.bags import open_bag
from ropes_ros.cdr import header_stamp
from ropes_ros.commands import load_commands
from ropes_ros.dataset import load_timeline
from ropes_ros.errors import BagError, RopesError
from ropes_ros.regimes import NONE, Schedule
from ropes_ros.robot import Robot
from ropes_ros.truth import load_truth


class FrameTable(NamedTuple):
    """What is known of a bag's images, without their pixels.

    Attributes:
        path: The bag.
        topic: The images' topic.
        topics: Topics by role, as given.
        compressed: Whether they are compressed.
        stamps_ns: Header stamps in ns, strictly increasing, int64 [N].
        out_of_order: Images left out because their stamps do not increase.
        schedule: What was designed.
        levels: Level of each joint, as a name or `none`, [N, J].
        commanded: Commanded positions, float64 [N, J], rad, not a number before the first command; None without.
        measured: Measured positions, as `commanded`; None unless asked for. For evaluation only.
        remarks: What is not there, and why.
    """

    path: Path
    topic: str
    topics: Mapping[str, str]
    compressed: bool
    stamps_ns: NDArray[np.int64]
    out_of_order: int
    schedule: Schedule
    levels: NDArray[np.str_]
    commanded: NDArray[np.float64] | None
    measured: NDArray[np.float64] | None
    remarks: tuple[str, ...]

    def images(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Number and RGB pixels, uint8 [H, W, 3], of each image, one by one.

        Raises:
            BagError: A damaged image.
        """
        number = 0
        with open_bag(self.path, topics=self.topics) as bag:
            for message in bag.messages([self.topic]):
                if number == len(self.stamps_ns) or header_stamp(message.data) != self.stamps_ns[number]:
                    continue
                try:
                    _, image = decode_image(message.data, self.compressed, self.topic)
                except BagError:
                    raise
                except RopesError as error:
                    raise BagError(f"{self.path}: {error}") from error
                yield number, image
                number += 1


def frame_table(
    path: str | Path,
    *,
    robot: Robot | None = None,
    topics: Mapping[str, str] | None = None,
    with_joint_states: bool = False,
) -> FrameTable:
    """Read what is known of a bag's images.

    Args:
        path: The bag.
        robot: The robot, where it is none of the bundled presets.
        topics: Topics by role.
        with_joint_states: Whether to read measured positions, which are for evaluation alone.

    Raises:
        BagError: The bag lacks images or a schedule, or joint states that were asked for.
    """
    path = Path(path)
    remarks: list[str] = []
    with open_bag(path, topics=topics) as bag:
        topic = bag.topic("image")
        compressed = bag.topics[topic].type_name.endswith("CompressedImage")
        schedule = bag.schedule
        found: list[int] = []
        last, out_of_order = -1, 0
        for message in bag.messages([topic]):
            stamp = header_stamp(message.data)
            if stamp > last:
                found.append(stamp)
                last = stamp
            else:
                out_of_order += 1
        stamps = np.asarray(found, dtype=np.int64)
        names = np.array([*schedule.levels.ids, NONE])
        try:
            levels = names[load_timeline(bag).labels_at(stamps)]  # -1 is the last one
        except BagError as error:
            remarks.append(str(error))
            levels = np.full((len(stamps), len(schedule.joints)), NONE)
    commanded = None
    try:
        track = load_commands(path, robot, topics=topics)
        home = np.array([joint.home for joint in schedule.joints])
        commanded = home + track.at(stamps) * np.array([joint.half_range for joint in schedule.joints])
    except RopesError as error:
        remarks.append(str(error))
    measured = load_truth(path, stamps, joint_names=schedule.joint_names, topics=topics) if with_joint_states else None
    return FrameTable(
        path,
        topic,
        dict(topics or {}),
        compressed,
        stamps,
        out_of_order,
        schedule,
        levels,
        commanded,
        measured,
        tuple(remarks),
    )

"""Bags as others record them: ROS 1, sqlite3 and MCAP without a header, of a stick arm commanded by draws."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore
from synthetic import draw

from ropes_ros.densities import Bump
from ropes_ros.robot import Robot

START_NS = 1_700_000_000_000_000_000
PERIOD_NS = 400_000_000
"""Between two commands."""
SIZE = (64, 48)
CENTRES = {"low": -0.6, "mid": 0.0, "high": 0.6}
SIGMA = 0.18


class Recorded(NamedTuple):
    """What is in a bag: `labels` [N, J] of the levels at the commands, their `times_ns`, and u [N, J]."""

    times_ns: NDArray[np.int64]
    labels: NDArray[np.int64]
    u: NDArray[np.float64]


def commands(minutes: float, joints: int, seed: int, segments_s: tuple[float, float] = (8.0, 16.0)) -> Recorded:
    """Commands held for 0.4 s each, drawn from one level after the other."""
    rng = np.random.default_rng(seed)
    count = int(minutes * 60e9 / PERIOD_NS)
    labels = np.empty((count, joints), dtype=np.int64)
    for joint in range(joints):
        at, last = 0, -1
        while at < count:
            last = int(rng.choice([level for level in range(len(CENTRES)) if level != last]))
            length = int(rng.uniform(*segments_s) * 1e9 / PERIOD_NS)
            labels[at : at + length, joint] = last
            at += length
    densities = [Bump(centre, SIGMA) for centre in CENTRES.values()]
    u = np.stack([density.sample(rng, labels.shape) for density in densities])
    return Recorded(
        START_NS + PERIOD_NS * np.arange(count, dtype=np.int64), labels, np.take_along_axis(u, labels[None], 0)[0]
    )


def write(path: Path, robot: Robot, recorded: Recorded, *, kind: str, rate: int = 5, extra: bool = False) -> None:
    """Write a bag of commands (JointState without velocities), images and, as measured, joint_states.

    Args:
        path: The bag.
        robot: The arm.
        recorded: What was commanded.
        kind: "ros1", "sqlite3" or "mcap".
        rate: Images a second.
        extra: Whether a topic of a type of its own is recorded too.
    """
    store = get_typestore(Stores.ROS1_NOETIC if kind == "ros1" else Stores.ROS2_HUMBLE)
    if extra:
        from rosbags.typesys import get_types_from_msg

        store.register(get_types_from_msg("float64 force\n", "gripper_msgs/msg/Grip"))
    types = store.types
    positions = robot.denormalise(recorded.u)
    bag = Writer1(path) if kind == "ros1" else Writer2(
        path, version=8, storage_plugin=StoragePlugin.MCAP if kind == "mcap" else StoragePlugin.SQLITE3
    )
    put = store.serialize_ros1 if kind == "ros1" else store.serialize_cdr

    def header(stamp_ns: int) -> object:
        stamp = types["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
        seq = {"seq": 0} if kind == "ros1" else {}
        return types["std_msgs/msg/Header"](stamp=stamp, frame_id="cam", **seq)

    with bag:
        topics = {
            "/arm/cmd": "sensor_msgs/msg/JointState",
            "/cam/rgb": "sensor_msgs/msg/Image",
            "/joint_states": "sensor_msgs/msg/JointState",
            **({"/grip": "gripper_msgs/msg/Grip"} if extra else {}),
        }
        connections = {name: bag.add_connection(name, type_name, typestore=store) for name, type_name in topics.items()}
        messages: list[tuple[int, str, object]] = []
        for time_ns, position in zip(recorded.times_ns.tolist(), positions, strict=True):
            none = np.zeros(0)
            state = types["sensor_msgs/msg/JointState"](header(time_ns), list(robot.joint_names), position, none, none)
            messages.append((time_ns, "/arm/cmd", state))
        for time_ns in range(int(recorded.times_ns[0]), int(recorded.times_ns[-1]), 10**9 // rate):
            now = positions[np.searchsorted(recorded.times_ns, time_ns, side="right") - 1]
            pixels = draw(now, SIZE)
            image = types["sensor_msgs/msg/Image"](
                header(time_ns), SIZE[1], SIZE[0], "rgb8", 0, 3 * SIZE[0], pixels.reshape(-1)
            )
            none = np.zeros(0)
            state = types["sensor_msgs/msg/JointState"](header(time_ns), list(robot.joint_names), now, none, none)
            messages += [(time_ns + 2 * 10**6, "/cam/rgb", image), (time_ns + 10**6, "/joint_states", state)]
        if extra:
            messages.append((int(recorded.times_ns[0]), "/grip", types["gripper_msgs/msg/Grip"](1.0)))
        for time_ns, name, message in sorted(messages, key=lambda entry: entry[0]):
            bag.write(connections[name], time_ns, put(message, topics[name]))


def regime_yaml(recorded: Recorded, joint_names: tuple[str, ...], *, levels: str = "") -> str:
    """The file of regimes that tells of what was commanded."""
    lines = [levels, "joints:"]
    names = list(CENTRES)
    for joint, name in enumerate(joint_names):
        lines.append(f"  {name}:")
        edges = [0, *(np.flatnonzero(np.diff(recorded.labels[:, joint])) + 1).tolist(), len(recorded.labels)]
        for a, b in pairwise(edges):
            begin, end = a * PERIOD_NS / 1e9, b * PERIOD_NS / 1e9
            lines.append(f"  - {{level: {names[recorded.labels[a, joint]]}, from: {begin}, to: {end}}}")
    return "\n".join(lines) + "\n"

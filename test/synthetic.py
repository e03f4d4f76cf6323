"""Small intervention bags without a simulator: a planar arm of coloured sticks, drawn with OpenCV."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.typesys import Stores, get_typestore

from ropes_ros.bags import TOPICS, BagWriter, OfferedQos
from ropes_ros.motion import Trajectory
from ropes_ros.regimes import NONE, RegimeState, Schedule, make_schedule, regime_to_msg
from ropes_ros.robot import Robot, load_robot

FRAME_PERIOD_NS = 33_333_333
START_NS = 1_700_000_000_000_000_000
"""When the schedule begins in the bags written here."""
LEAD_NS = 300_000_000
"""Frames are there this long before the schedule begins."""

typestore = get_typestore(Stores.LATEST)
_COLOURS = [(230, 60, 50), (60, 200, 70), (70, 90, 240), (240, 200, 40), (200, 60, 220), (40, 220, 220)]


def stick_robot(folder: Path, joints: int = 2) -> Robot:
    """A planar arm with revolute joints about z and links of equal length; its preset is written to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"joint{number + 1}" for number in range(joints)]
    links = "".join(f'<link name="link{number}"/>' for number in range(joints + 1))
    axes = "".join(
        f'<joint name="{name}" type="revolute"><parent link="link{number}"/><child link="link{number + 1}"/>'
        f'<origin xyz="{0.3 if number else 0.0} 0 0"/><axis xyz="0 0 1"/>'
        '<limit lower="-1.6" upper="1.6" velocity="3.0" effort="1"/></joint>'
        for number, name in enumerate(names)
    )
    (folder / "stick.urdf").write_text(f'<robot name="stick">{links}{axes}</robot>')
    entries = "".join(f"  {name}: {{home: 0.1, half_range: 1.2, max_acceleration: 20.0}}\n" for name in names)
    preset = folder / "robot.yaml"
    preset.write_text(
        f"name: stick\nurdf: stick.urdf\nbase_link: link0\ntip_link: link{joints}\njoints:\n{entries}"
    )
    return load_robot(preset)


def draw(positions: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The arm at joint positions [J] in rad: uint8 [h, w, 3] RGB for `size` = (w, h), anti-aliased."""
    width, height = size
    image = np.full((height, width, 3), 40, dtype=np.uint8)
    length = 0.42 * min(width, height) * 2 / max(2, len(positions))
    point, heading = np.array([width * 0.25, height * 0.5]), 0.0
    for number, angle in enumerate(positions):
        heading += float(angle)
        end = point + length * np.array([np.cos(heading), np.sin(heading)])
        a, b = (tuple(int(value) for value in np.round(p * 16)) for p in (point, end))
        cv2.line(image, a, b, _COLOURS[number % 6], max(2, height // 12), cv2.LINE_AA, shift=4)
        point = end
    return image


def message(type_name: str, **fields: Any) -> Any:
    """A rosbags message object."""
    return typestore.types[type_name](**fields)


def header(stamp_ns: int, frame_id: str = "") -> Any:
    """A std_msgs/Header."""
    stamp = message("builtin_interfaces/msg/Time", sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return message("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)


def serialize(value: Any) -> bytes:
    """A rosbags message as CDR."""
    return bytes(typestore.serialize_cdr(value, value.__msgtype__))


def image_cdr(stamp_ns: int, pixels: NDArray[np.uint8], encoding: str = "rgb8", *, padding: int = 0) -> bytes:
    """A sensor_msgs/Image of the bytes in `pixels` [h, w, channels], each row followed by padding bytes."""
    height, width, channels = pixels.shape
    rows = np.pad(pixels.reshape(height, width * channels), ((0, 0), (0, padding)), constant_values=7)
    return serialize(
        message(
            "sensor_msgs/msg/Image",
            header=header(stamp_ns, "camera_optical"),
            height=height,
            width=width,
            encoding=encoding,
            is_bigendian=0,
            step=rows.shape[1],
            data=rows.reshape(-1),
        )
    )


def joint_states_cdr(stamp_ns: int, names: tuple[str, ...], positions: NDArray[np.float64]) -> bytes:
    """A sensor_msgs/JointState."""
    none = np.zeros(0)
    return serialize(
        message(
            "sensor_msgs/msg/JointState",
            header=header(stamp_ns),
            name=list(names),
            position=np.asarray(positions, dtype=np.float64),
            velocity=none,
            effort=none,
        )
    )


def camera_info_cdr(stamp_ns: int, size: tuple[int, int]) -> bytes:
    """A sensor_msgs/CameraInfo of an ideal camera."""
    focal = float(size[0])
    k = np.array([focal, 0, size[0] / 2, 0, focal, size[1] / 2, 0, 0, 1])
    region = message(
        "sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
    )
    return serialize(
        message(
            "sensor_msgs/msg/CameraInfo",
            header=header(stamp_ns, "camera_optical"),
            height=size[1],
            width=size[0],
            distortion_model="plumb_bob",
            d=np.zeros(5),
            k=k,
            r=np.eye(3).reshape(-1),
            p=np.hstack([k.reshape(3, 3), np.zeros((3, 1))]).reshape(-1),
            binning_x=0,
            binning_y=0,
            roi=region,
        )
    )


def regime_cdr(state: RegimeState, joint_names: tuple[str, ...]) -> bytes:
    """The regime message that the commander would publish for a state."""
    array = SimpleNamespace(header=SimpleNamespace(stamp=SimpleNamespace(sec=0, nanosec=0)), status=[])
    stand_in: Any = ModuleType("diagnostic_msgs.msg")
    stand_in.DiagnosticArray = lambda: array
    stand_in.DiagnosticStatus = stand_in.KeyValue = SimpleNamespace
    with mock.patch.dict(sys.modules, {"diagnostic_msgs": stand_in, "diagnostic_msgs.msg": stand_in}):
        regime_to_msg(state, joint_names)
    statuses = [
        message(
            "diagnostic_msgs/msg/DiagnosticStatus",
            level=0,
            name=status.name,
            message="",
            hardware_id=status.hardware_id,
            values=[
                message("diagnostic_msgs/msg/KeyValue", key=pair.key, value=pair.value)
                for pair in status.values
            ],
        )
        for status in array.status
    ]
    stamp_ns = array.header.stamp.sec * 10**9 + array.header.stamp.nanosec
    return serialize(message("diagnostic_msgs/msg/DiagnosticArray", header=header(stamp_ns), status=statuses))


def regime_states(schedule: Schedule, start_ns: int) -> list[RegimeState]:
    """One state per change of any joint's label over the schedule."""
    edges = sorted({edge for s in schedule.segments for edge in (s.start_ns, s.end_ns)} | {0})
    times = np.array(edges, dtype=np.int64)
    labels, segments = schedule.labels_at(times), schedule.segment_ids_at(times)
    states = []
    for seq, time_ns in enumerate(edges):
        ends = [
            next(
                (
                    s.end_ns
                    for s in schedule.segments
                    if s.joint == joint and s.start_ns <= time_ns < s.end_ns
                ),
                time_ns,
            )
            for joint in range(len(schedule.joint_names))
        ]
        states.append(
            RegimeState(
                schedule.hash,
                start_ns + time_ns,
                seq,
                tuple(schedule.levels.ids[level] if level >= 0 else NONE for level in labels[seq]),
                tuple(int(segment) for segment in segments[seq]),
                tuple(start_ns + end for end in ends),
            )
        )
    return states


def write_synthetic_bag(
    path: Path,
    *,
    frames: int = 600,
    size: tuple[int, int] = (64, 48),
    joints: int = 2,
    seed: int = 0,
    with_joint_states: bool = True,
    sag: float = 0.0,
    schedule: Schedule | None = None,
    **schedule_options: Any,
) -> Schedule:
    """Write a bag of an arm that follows a schedule, seen at 30 frames a second.

    The robot's preset lies beside the bag, in `path.with_suffix(".robot")/robot.yaml`.

    Args:
        path: The bag to create.
        frames: Number of images; the schedule lasts as long as they do, but at least 10 s.
        size: (width, height) of the images.
        joints: Number of joints.
        seed: Seed of the schedule.
        with_joint_states: Whether joint_states are recorded.
        sag: What joint_states lie above the commanded positions, rad.
        schedule: A schedule to follow instead of a new one.
        schedule_options: Passed to make_schedule.

    Returns:
        The schedule.
    """
    robot = stick_robot(path.with_suffix(".robot"), joints)
    stamps = START_NS - LEAD_NS + FRAME_PERIOD_NS * np.arange(frames, dtype=np.int64)
    if schedule is None:
        duration_s = max(10.0, (int(stamps[-1]) - START_NS) / 1e9)
        schedule = make_schedule(robot, duration_s=duration_s, seed=seed, **schedule_options)
    positions = positions_of(robot, schedule, stamps)
    messages = [
        (START_NS - LEAD_NS, TOPICS["camera_info"], camera_info_cdr(START_NS - LEAD_NS, size)),
        *(
            (int(stamp) + 2_000_000, TOPICS["image"], image_cdr(int(stamp), draw(position, size)))
            for stamp, position in zip(stamps, positions, strict=True)
        ),
        *(
            (state.stamp_ns, TOPICS["regime"], regime_cdr(state, schedule.joint_names))
            for state in regime_states(schedule, START_NS)
        ),
    ]
    if with_joint_states:
        messages += [
            (int(stamp), TOPICS["joint_states"], joint_states_cdr(int(stamp), schedule.joint_names, position + sag))
            for stamp, position in zip(stamps, positions, strict=True)
        ]
    messages.sort(key=lambda entry: entry[0])
    with BagWriter(
        path, robot=robot.name, schedule_yaml=schedule.to_yaml(), schedule_hash=schedule.hash
    ) as writer:
        writer.add_topic(TOPICS["image"], "sensor_msgs/msg/Image")
        writer.add_topic(TOPICS["camera_info"], "sensor_msgs/msg/CameraInfo")
        writer.add_topic(
            TOPICS["regime"], "diagnostic_msgs/msg/DiagnosticArray", OfferedQos(transient_local=True, depth=1)
        )
        writer.add_topic(TOPICS["joint_states"], "sensor_msgs/msg/JointState")
        for log_time_ns, topic, cdr in messages:
            writer.write(topic, cdr, log_time_ns)
    return schedule


def positions_of(robot: Robot, schedule: Schedule, stamps_ns: NDArray[np.int64]) -> NDArray[np.float64]:
    """Joint positions [N, J] in rad of a robot that follows its commands exactly; at home outside the schedule."""
    trajectory = Trajectory(robot, schedule)
    elapsed = np.clip(stamps_ns - START_NS, 0, trajectory.duration_ns)
    positions: NDArray[np.float64] = trajectory.positions_at(elapsed)
    return positions


def familiar(number: int, size: tuple[int, int] = (64, 48)) -> NDArray[np.uint8]:
    """A picture of sticks, uint8 [h, w, 3] RGB."""
    return draw(np.array([0.1 * number - 0.4, 0.2]), size)


def unfamiliar(number: int, size: tuple[int, int] = (64, 48)) -> NDArray[np.uint8]:
    """A picture of noise, uint8 [h, w, 3] RGB."""
    return np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)

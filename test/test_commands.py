"""Commands out of bags: what the messages say to a controller, whatever their type and however they overlap."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import START_NS, header, message, serialize, stick_robot

from ropes_ros.bags import TOPICS, BagWriter
from ropes_ros.commands import CommandTrack, load_commands
from ropes_ros.errors import BagError, TrainingError
from ropes_ros.motion import Trajectory
from ropes_ros.regimes import Schedule, make_schedule
from ropes_ros.robot import Robot
from ropes_ros.streaming import CommandStream, Points

MS = 1_000_000
SECOND = 1000 * MS


@pytest.fixture
def robot(tmp_path: Path) -> Robot:
    return stick_robot(tmp_path / "robot")


def write(path: Path, type_name: str, entries: Sequence[tuple[int, Any]], schedule: Schedule | None = None) -> Path:
    """A bag with commands alone: (log time in ns, message)."""
    text, digest = (None, None) if schedule is None else (schedule.to_yaml(), schedule.hash)
    with BagWriter(path, robot="stick", schedule_yaml=text, schedule_hash=digest) as writer:
        writer.add_topic(TOPICS["joint_command"], type_name)
        for log_time_ns, entry in entries:
            writer.write(TOPICS["joint_command"], serialize(entry), log_time_ns)
    return path


def trajectory(points: Points, names: Sequence[str]) -> Any:
    """A JointTrajectory stamped with its first point's time."""
    first = int(points.times_ns[0])

    def point(time_ns: int, position: Any, velocity: Any) -> Any:
        after = message(
            "builtin_interfaces/msg/Duration", sec=(time_ns - first) // SECOND, nanosec=(time_ns - first) % SECOND
        )
        return message(
            "trajectory_msgs/msg/JointTrajectoryPoint",
            positions=np.asarray(position, dtype=np.float64),
            velocities=np.asarray(velocity, dtype=np.float64),
            accelerations=np.zeros(0),
            effort=np.zeros(0),
            time_from_start=after,
        )

    rows = zip(points.times_ns.tolist(), points.positions, points.velocities, strict=True)
    return message(
        "trajectory_msgs/msg/JointTrajectory",
        header=header(first),
        joint_names=list(names),
        points=[point(*row) for row in rows],
    )


def targets(values: Sequence[Sequence[float]]) -> list[Any]:
    layout = message("std_msgs/msg/MultiArrayLayout", dim=[], data_offset=0)
    return [
        message("std_msgs/msg/Float64MultiArray", layout=layout, data=np.array(row, dtype=np.float64))
        for row in values
    ]


def test_overlapping_trajectories_give_the_schedules_motion(robot: Robot, tmp_path: Path) -> None:
    schedule = make_schedule(robot, duration_s=12.0, seed=2)
    motion = Trajectory(robot, schedule)
    stream = CommandStream(robot, motion, schedule, horizon_ns=3 * SECOND, point_ns=20 * MS)
    stream.start(START_NS)
    now, entries = START_NS, []
    while not stream.done(now):
        update = stream.update(now)
        if update is not None:
            entries.append((now + 5 * MS, trajectory(update.points, robot.joint_names)))
        now += SECOND // 2
    track = load_commands(write(tmp_path / "bag", "trajectory_msgs/msg/JointTrajectory", entries, schedule), robot)
    times = stream.start_ns + np.arange(0, motion.duration_ns, 7 * MS)
    expected = robot.normalise(motion.positions_at(times - stream.start_ns))
    np.testing.assert_allclose(track.at(times), expected, atol=1e-3)
    assert np.ptp(expected, axis=0).min() > 0.5
    after = track.at(np.array([stream.end_ns + 9 * SECOND]))
    np.testing.assert_allclose(after, robot.normalise(motion.positions_at(np.array([motion.duration_ns]))), atol=1e-3)


def test_targets_without_header_count_from_their_receipt(robot: Robot, tmp_path: Path) -> None:
    values = [[0.1, 0.1], [0.7, 0.1], [0.1, -0.5]]
    times = START_NS + np.array([0, 100, 200]) * MS
    entries = list(zip(times.tolist(), targets(values), strict=True))
    track = load_commands(write(tmp_path / "bag", "std_msgs/msg/Float64MultiArray", entries), robot)
    asked = START_NS + np.array([-1, 50, 150, 250, 5000]) * MS
    # home is 0.1 rad and the half range 1.2 rad: 0.7 rad is 0.5, -0.5 rad is -0.5
    expected = [[np.nan, np.nan], [0.0, 0.0], [0.5, 0.0], [0.0, -0.5], [0.0, -0.5]]
    np.testing.assert_allclose(track.at(asked), expected, atol=1e-9)


def test_stamps_beat_receipt_and_joints_may_come_in_any_order(robot: Robot, tmp_path: Path) -> None:
    def state(stamp_ns: int, positions: list[float]) -> Any:
        return message(
            "sensor_msgs/msg/JointState",
            header=header(stamp_ns),
            name=list(reversed(robot.joint_names)),
            position=np.array(positions),
            velocity=np.zeros(0),
            effort=np.zeros(0),
        )

    entries = [
        (START_NS + 900 * MS, state(START_NS, [0.7, 0.1])),
        (START_NS + 950 * MS, state(START_NS + 100 * MS, [0.1, 0.7])),
    ]
    track = load_commands(write(tmp_path / "bag", "sensor_msgs/msg/JointState", entries), robot)
    np.testing.assert_allclose(track.at(START_NS + np.array([50, 150]) * MS), [[0.0, 0.5], [0.5, 0.0]], atol=1e-9)


def test_a_trajectory_that_starts_later_than_its_stamp_says_nothing_before(robot: Robot, tmp_path: Path) -> None:
    times = START_NS + np.array([500, 700]) * MS
    points = Points(times, np.array([[0.1, 0.1], [0.7, 0.1]]), np.zeros((2, 2)))
    late = trajectory(points, robot.joint_names)
    late.header = header(START_NS)
    for point, offset in zip(late.points, (500, 700), strict=True):
        point.time_from_start = message("builtin_interfaces/msg/Duration", sec=0, nanosec=offset * MS)
    path = write(tmp_path / "bag", "trajectory_msgs/msg/JointTrajectory", [(START_NS, late)])
    track = load_commands(path, robot)
    assert np.isnan(track.at(np.array([START_NS + 400 * MS]))).all()
    np.testing.assert_allclose(track.at(np.array([START_NS + 800 * MS])), [[0.5, 0.0]], atol=1e-9)


def test_what_is_no_command_is_refused(robot: Robot, tmp_path: Path) -> None:
    path = write(tmp_path / "text", "std_msgs/msg/String", [(START_NS, message("std_msgs/msg/String", data="go"))])
    with pytest.raises(BagError, match=r"/joint_command is of type std_msgs/msg/String"):
        load_commands(path, robot)
    path = write(tmp_path / "three", "std_msgs/msg/Float64MultiArray", [(START_NS, targets([[0.0, 0.0, 0.0]])[0])])
    with pytest.raises(BagError, match=r"/joint_command: data must hold 2 values"):
        load_commands(path, robot)
    entries = list(zip((START_NS, START_NS + 7200 * SECOND), targets([[0.0, 0.0]] * 2), strict=True))
    path = write(tmp_path / "clocks", "std_msgs/msg/Float64MultiArray", entries)
    with pytest.raises(BagError, match="two clocks"):
        load_commands(path, robot)
    points = Points(START_NS + np.array([0, 700]) * MS, np.array([[0.1, 0.1], [0.7, 0.1]]), np.zeros((2, 2)))
    centuries = trajectory(points, robot.joint_names)
    centuries.points[1].time_from_start = message("builtin_interfaces/msg/Duration", sec=2**31 - 1, nanosec=0)
    path = write(tmp_path / "ahead", "trajectory_msgs/msg/JointTrajectory", [(START_NS, centuries)])
    with pytest.raises(BagError, match="hours ahead"):
        load_commands(path, robot)


@pytest.mark.parametrize(
    ("times", "u"),
    [([], np.zeros((0, 2))), ([1, 2], np.zeros((3, 2))), ([2, 1], np.zeros((2, 2))), ([1, 2], [[0.0], [np.nan]])],
)
def test_a_track_that_makes_no_sense_is_refused(times: list[int], u: Any) -> None:
    with pytest.raises(TrainingError, match="command track needs"):
        CommandTrack(np.array(times, dtype=np.int64), np.array(u))

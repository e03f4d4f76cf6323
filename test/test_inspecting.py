"""What `ropes inspect` says of bags whose faults are known, and that it is silent about those without."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from synthetic import (
    FRAME_PERIOD_NS,
    START_NS,
    draw,
    image_cdr,
    joint_states_cdr,
    positions_of,
    regime_cdr,
    regime_states,
    stick_robot,
)

from ropes_ros import cli
from ropes_ros.bags import TOPICS, BagWriter
from ropes_ros.bench.bags import in_order, source_times
from ropes_ros.inspecting import Inspection, inspect_bag
from ropes_ros.inspection_report import as_values, write_inspection
from ropes_ros.order_check import told_by
from ropes_ros.regimes import Levels, Schedule, make_schedule
from ropes_ros.robot import Robot

SECONDS = 150.0
SIZE = (64, 48)


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Robot:
    return stick_robot(tmp_path_factory.mktemp("robot"))


@pytest.fixture(scope="module")
def schedule(robot: Robot) -> Schedule:
    return make_schedule(robot, duration_s=SECONDS, seed=5, levels=Levels.bumps(3, 0.4))


def write(
    path: Path,
    robot: Robot,
    schedule: Schedule,
    *,
    moved: NDArray[np.int64] | None = None,
    drift: float = 0.0,
    hidden: bool = False,
    lost: slice = slice(0, 0),
    late_ns: int = 0,
    white: bool = False,
) -> Path:
    """A bag at ten images a second, with commands as often.

    Args:
        path: The bag.
        robot: The arm.
        schedule: What is commanded.
        moved: As `in_order` gives it.
        drift: By how many grey levels the light changes from start to end.
        hidden: Whether the second joint's link is out of the picture.
        lost: Images that are not recorded.
        late_ns: Offset of the joint_states' stamps.
        white: Whether images are over-exposed.
    """
    stamps = START_NS + 3 * FRAME_PERIOD_NS * np.arange(int(SECONDS * 10), dtype=np.int64)
    elapsed = stamps - START_NS
    source = elapsed if moved is None else source_times(elapsed, moved)
    plan = make_schedule(robot, duration_s=SECONDS, seed=5, levels=Levels.bumps(3, 0.4))
    positions = positions_of(robot, plan, START_NS + source)
    messages: list[tuple[int, str, bytes]] = [
        (state.stamp_ns, TOPICS["regime"], regime_cdr(state, schedule.joint_names))
        for state in regime_states(schedule, START_NS)
    ]
    missing = set(range(len(stamps))[lost])
    for number, (stamp, position) in enumerate(zip(stamps.tolist(), positions, strict=True)):
        picture = draw(position * np.array([1.0, 0.0]) if hidden else position, SIZE).astype(np.float64)
        picture = np.clip(picture + drift * number / len(stamps) + (215.0 if white else 0.0), 0, 255).astype(np.uint8)
        if number not in missing:
            messages.append((stamp + 2_000_000, TOPICS["image"], image_cdr(stamp, picture)))
        command = joint_states_cdr(stamp, schedule.joint_names, position)
        messages.append((stamp, TOPICS["joint_command"], command))
        state = joint_states_cdr(stamp - late_ns, schedule.joint_names, position)
        messages.append((stamp + 1_000_000, TOPICS["joint_states"], state))
    with BagWriter(path, robot=robot.name, schedule_yaml=schedule.to_yaml(), schedule_hash=schedule.hash) as writer:
        writer.add_topic(TOPICS["image"], "sensor_msgs/msg/Image")
        writer.add_topic(TOPICS["regime"], "diagnostic_msgs/msg/DiagnosticArray")
        writer.add_topic(TOPICS["joint_command"], "sensor_msgs/msg/JointState")
        writer.add_topic(TOPICS["joint_states"], "sensor_msgs/msg/JointState")
        for time_ns, topic, data in sorted(messages, key=lambda entry: entry[0]):
            writer.write(topic, data, time_ns)
    return path


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, robot: Robot, schedule: Schedule) -> Inspection:
    path = write(tmp_path_factory.mktemp("sound") / "bag", robot, schedule, drift=30.0)
    return inspect_bag(path, robot=robot)


def test_a_randomised_recording_in_drifting_light_is_fit(sound: Inspection) -> None:
    assert sound.fit, sound.faults
    assert not sound.sequential
    assert max(joint.time.share for joint in sound.joints) < 0.2
    assert any("background changes by +" in warning for warning in sound.warnings)
    assert sound.remarks == ()


def test_frames_occupancy_and_visibility_are_those_of_the_recording(sound: Inspection, schedule: Schedule) -> None:
    assert sound.pictures is not None and sound.pictures.count == int(SECONDS * 10)
    share = sum(joint.frames.sum() for joint in sound.joints) / sound.pictures.count
    assert share == pytest.approx(schedule.labelled_fractions.sum(), abs=0.05)
    for number, joint in enumerate(sound.joints):
        assert joint.segments.sum() == sum(segment.joint == number for segment in schedule.segments)
        assert joint.commanded_tv < 0.2
        assert joint.commanded_w1 < 0.1
        assert joint.reached_tv == pytest.approx(joint.commanded_tv, abs=0.03)
        assert 0.001 < joint.visible < 0.1
    assert sound.joints[0].visible > sound.joints[1].visible  # the first one carries the second


def test_the_same_frames_in_sequential_order_are_flagged(tmp_path: Path, robot: Robot, schedule: Schedule) -> None:
    ordered, moved = in_order(schedule)
    found = inspect_bag(write(tmp_path / "bag", robot, ordered, moved=moved, drift=30.0), robot=robot)
    assert found.sequential
    assert found.joints[0].time.flagged and found.joints[0].light.flagged
    assert not found.joints[1].time.flagged
    assert not found.fit
    assert any("joint1" in fault and "randomised schedule" in fault for fault in found.faults)


def test_a_joint_that_is_not_in_view_is_named(tmp_path: Path, robot: Robot, schedule: Schedule) -> None:
    found = inspect_bag(write(tmp_path / "bag", robot, schedule, hidden=True), robot=robot)
    assert [joint.name in fault for fault in found.faults for joint in found.joints] == [False, True]
    assert found.joints[1].visible < 0.1 * found.joints[0].visible


def test_lost_images_clocks_and_exposure_are_told(tmp_path: Path, robot: Robot, schedule: Schedule) -> None:
    path = write(tmp_path / "bag", robot, schedule, lost=slice(300, 400), late_ns=3 * 10**9, white=True)
    found = inspect_bag(path, robot=robot)
    images = next(stream for stream in found.streams if stream.name == TOPICS["image"])
    assert images.missing == 100
    assert images.longest_gap_s == pytest.approx(10.1, abs=0.2)
    said = " ".join(found.warnings)
    assert "100 images are missing" in said
    assert "3.0 s apart" in said
    assert "white" in said


def test_too_few_segments_ask_for_more(tmp_path: Path, robot: Robot) -> None:
    schedule = make_schedule(robot, duration_s=SECONDS, seed=5, levels=Levels.bumps(3, 0.4), window_s=(12.0, 20.0))
    path = write(tmp_path / "bag", robot, schedule)
    found = inspect_bag(path, robot=robot)
    assert any("min more" in sentence for sentence in (*found.faults, *found.warnings))


def test_a_bag_without_a_schedule_is_looked_at_as_far_as_it_goes(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag", robot="stick") as writer:
        writer.add_topic(TOPICS["image"], "sensor_msgs/msg/Image")
        for number in range(50):
            stamp = START_NS + number * 10**8
            writer.write(TOPICS["image"], image_cdr(stamp, draw(np.array([0.1 * number, 0.0]), SIZE)), stamp)
    found = inspect_bag(tmp_path / "bag")
    assert found.pictures is not None and found.pictures.count == 50
    assert any("ropes import" in fault for fault in found.faults)
    assert json.dumps(as_values(found))


def test_the_order_of_few_segments_says_nothing() -> None:
    labels = np.repeat(np.arange(4, dtype=np.int16), 10)
    assert not told_by(np.arange(40.0), labels, np.repeat(np.arange(4, dtype=np.int32), 10)).flagged


def test_random_orders_are_not_flagged() -> None:
    """Forty recordings of 60 segments each."""
    rng = np.random.default_rng(7)
    segments = np.repeat(np.arange(60, dtype=np.int32), 5)
    flagged = 0
    for _ in range(40):
        labels = np.repeat(rng.integers(0, 4, 60), 5).astype(np.int16)
        flagged += told_by(np.arange(300.0), labels, segments).flagged
    assert flagged == 0


def test_the_page_holds_its_pictures_and_the_command_its_json(
    sound: Inspection, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, robot: Robot
) -> None:
    write_inspection(sound, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 5
    assert sound.verdict in page
    preset = robot.urdf_path.with_name("robot.yaml")
    monkeypatch.setattr(sys, "argv", ["ropes", "inspect", str(sound.path), "--robot", str(preset), "--json"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    assert json.loads(capfd.readouterr().out)["fit"] is True

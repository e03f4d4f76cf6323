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
from ropes_ros.bag_pass import BagPass
from ropes_ros.bags import TOPICS, BagWriter, open_bag
from ropes_ros.bench.bags import in_order, source_times
from ropes_ros.commands import CommandTrack
from ropes_ros.inspecting import Inspection, inspect_bag
from ropes_ros.inspection_report import as_values, write_inspection
from ropes_ros.joint_findings import visibility
from ropes_ros.order_check import told_by
from ropes_ros.regimes import Levels, Schedule, make_schedule
from ropes_ros.robot import Robot
from ropes_ros.stream_watch import StreamWatch

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


def test_a_joint_of_which_little_is_known_is_not_called_hidden() -> None:
    """A last joint that turns a small thing: seen, but with fewer images than it takes to be sure."""
    rng = np.random.default_rng(3)
    count, period = 60, 10**8
    moved = np.cumsum(rng.normal(0.0, 0.3, (count, 2)), axis=0)
    track = CommandTrack(START_NS + period * np.arange(count, dtype=np.int64), moved)
    seen = BagPass()
    for first in range(0, count - 1, 2):
        step = np.abs(moved[first + 1] - moved[first])
        changed = np.zeros((2, 48, 64), dtype=np.uint8)
        changed[1, :20] = np.clip(200.0 * step[0], 0, 255)
        changed[1, 30:36] = np.clip(60.0 * step[1] + rng.uniform(0, 250), 0, 255)
        seen.times.append((START_NS + period * first, START_NS + period * (first + 1)))
        seen.small += list(changed)
    visible, _ = visibility(seen, track)
    assert visible[0] > 0.01 and np.isnan(visible[1])


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


def test_damaged_and_unstamped_images_are_counted_and_the_rest_looked_at(
    tmp_path: Path, robot: Robot, schedule: Schedule
) -> None:
    """One image that is cut off must not hide what else is to be said of an hour's recording."""
    path = write(tmp_path / "bag", robot, schedule)
    with open_bag(path) as bag, BagWriter(tmp_path / "spoilt", robot=robot.name) as writer:
        for name, topic in bag.topics.items():
            writer.add_topic(name, topic.type_name)
        number = 0
        for message in bag.messages():
            data = message.data
            if message.topic == TOPICS["image"]:
                number += 1
                if number % 100 == 0:
                    data = data[:90] if number % 200 else b""
                elif number % 100 == 1:
                    data = data[:4] + bytes(8) + data[12:]
            writer.write(message.topic, data, message.log_time_ns)
    found = inspect_bag(tmp_path / "spoilt", robot=robot, schedule=schedule)
    said = " ".join(found.faults)
    assert "15 of 1500 images cannot be read" in said and "15 of 1500 images are not stamped" in said
    assert found.remarks == ()  # the schedule that was given says whose the commands are, too
    assert found.joints[0].visible > 0.001
    write_inspection(found, tmp_path / "page.html")


def test_clocks_that_were_set_are_told_from_messages_that_were_held_up() -> None:
    period, watch = 10**8, {name: StreamWatch("/camera", "sensor_msgs/msg/Image") for name in ("held", "set")}
    for number in range(600):
        stamp = START_NS + number * period
        held = max(0, START_NS + 31 * 10 * period - stamp) if number >= 300 else 0  # a second's worth at once
        watch["held"].take(stamp + held, joint_states_cdr(stamp, ("a",), np.zeros(1)))
        watch["set"].take(stamp + (7 * 10**8 if number >= 300 else 0), joint_states_cdr(stamp, ("a",), np.zeros(1)))
    assert {name: each.stream(None).jumps for name, each in watch.items()} == {"held": 0, "set": 1}
    late = StreamWatch("/camera", "sensor_msgs/msg/Image")  # for ten seconds, as in a queue before a busy recorder
    for number in range(600):
        stamp = START_NS + number * period
        late.take(stamp + 9 * 10**8 * (300 <= number < 400), joint_states_cdr(stamp, ("a",), np.zeros(1)))
    assert late.stream(None).jumps == 0
    simulated = StreamWatch("/camera", "sensor_msgs/msg/Image")  # many times as fast as its recorder
    for number in range(1200):
        held = 9 * 10**9 * (300 <= number < 900)
        simulated.take(number * period + held, joint_states_cdr(number * period + 1, ("a",), np.zeros(1)))
    assert simulated.stream(None).jumps == 0 and np.isnan(simulated.stream(None).drift_ppm)


def test_a_drifting_clock_is_told_from_one_whose_messages_scatter() -> None:
    rng = np.random.default_rng(0)
    watches = {name: StreamWatch("/camera", "sensor_msgs/msg/Image") for name in ("drifts", "scatters")}
    for number in range(1200):
        stamp = START_NS + number * 10**8
        cdr = joint_states_cdr(stamp, ("a",), np.zeros(1))
        watches["drifts"].take(stamp + number * 10**5 + int(rng.integers(0, 10**7)), cdr)  # 1 ms in a second
        watches["scatters"].take(stamp + int(rng.integers(0, 10**8)) * (number < 300), cdr)
    assert watches["drifts"].stream(None).drift_ppm == pytest.approx(1000.0, rel=0.05)
    assert watches["scatters"].stream(None).drift_ppm == 0.0


def test_commands_stamped_ahead_and_irregular_have_no_clock_faults() -> None:
    """A regime is stamped with the time from which it holds, a command comes when there is something to say."""
    rng = np.random.default_rng(0)
    for kind in ("trajectory_msgs/msg/JointTrajectory", "diagnostic_msgs/msg/DiagnosticArray"):
        watch, time_ns = StreamWatch("/commands", kind), START_NS
        for _ in range(300):
            time_ns += int(rng.integers(10**8, 3 * 10**9))
            ahead = time_ns + int(rng.integers(0, 4 * 10**9))
            watch.take(time_ns, joint_states_cdr(ahead, ("a",), np.zeros(1)))
        stream = watch.stream(None)
        assert stream.jumps == 0 and stream.missing is None and np.isnan(stream.drift_ppm)


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

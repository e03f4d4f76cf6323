"""The recorder node: bytes and stamps untouched, drops counted, bags closed whichever way it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from staging import Stage
from staging import rclpy as rclpy  # fixture
from synthetic import START_NS, draw, image_cdr, regime_cdr, regime_states, stick_robot

from ropes_ros.bags import TOPICS, Losses, open_bag
from ropes_ros.errors import BagError
from ropes_ros.gaps import GapCounter
from ropes_ros.regimes import Schedule, make_schedule

PERIOD_NS = 33_000_000


def stamps_with(*, missing: set[int], count: int = 100, jitter_ns: int = 2_000_000) -> list[int]:
    rng = np.random.default_rng(0)
    return [
        number * PERIOD_NS + int(rng.integers(-jitter_ns, jitter_ns))
        for number in range(count)
        if number not in missing
    ]


@pytest.mark.parametrize("missing", [set(), {40}, {30, 31, 32, 70}])
def test_missing_frames_are_counted_through_jitter(missing: set[int]) -> None:
    counter = GapCounter()
    for stamp_ns in stamps_with(missing=missing):
        counter.add(stamp_ns)
    assert counter.missing == len(missing)


@pytest.mark.parametrize("jump_ns", [-50 * PERIOD_NS, 10**18])
def test_a_clock_that_jumps_is_no_loss(jump_ns: int) -> None:
    counter = GapCounter()
    before = stamps_with(missing=set())
    for stamp_ns in [*before, *(before[-1] + jump_ns + stamp for stamp in stamps_with(missing={50}))]:
        counter.add(stamp_ns)
    assert counter.missing == 1


@pytest.mark.parametrize("held_up", [1.6, 3.2, 8.0])
def test_frames_that_are_late_and_caught_up_are_not_lost(held_up: float) -> None:
    """A driver is held up for so many periods, and sends what waited at once; a true loss is counted all the same."""
    counter = GapCounter()
    for number, stamp_ns in enumerate(stamps_with(missing={70})):
        free_ns = int((40 + held_up) * PERIOD_NS)
        counter.add(max(stamp_ns, free_ns + number * 100_000) if number > 40 else stamp_ns)
    assert counter.missing == 1


def test_a_camera_that_changes_its_rate_loses_next_to_nothing() -> None:
    counter = GapCounter()
    stamp_ns = 0
    for period in (PERIOD_NS, PERIOD_NS // 2, PERIOD_NS, PERIOD_NS * 11 // 10):
        for _ in range(200):
            stamp_ns += period
            counter.add(stamp_ns)
    assert counter.missing <= 31  # half a window, where it becomes slower by half


def recording(*parameters: str) -> Stage:
    """A recorder and a camera."""
    from ropes_ros.nodes.recorder import Recorder

    return Stage(Recorder, *parameters)


@pytest.fixture
def prepared(tmp_path: Path) -> tuple[Path, Schedule]:
    """A robot preset and a schedule in a file."""
    robot = stick_robot(tmp_path / "robot")
    schedule = make_schedule(robot, duration_s=12.0, seed=0)
    schedule.save(tmp_path / "schedule.yaml")
    return tmp_path, schedule


def parameters_of(folder: Path, *more: str) -> list[str]:
    return [
        f"robot:={folder / 'robot' / 'robot.yaml'}",
        f"path:={folder / 'bag'}",
        f"schedule:={folder / 'schedule.yaml'}",
        *more,
    ]


def latched(rclpy: Any) -> Any:
    from rclpy.qos import QoSDurabilityPolicy, QoSProfile

    return QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)


@pytest.mark.parametrize("best_effort", [False, True])
def test_recording_keeps_bytes_and_counts_drops(
    rclpy: Any, prepared: tuple[Path, Schedule], best_effort: bool
) -> None:
    from diagnostic_msgs.msg import DiagnosticArray
    from rclpy.qos import QoSProfile, qos_profile_sensor_data
    from sensor_msgs.msg import Image

    folder, schedule = prepared
    stage = recording(*parameters_of(folder))
    try:
        profile = qos_profile_sensor_data if best_effort else QoSProfile(depth=50)
        images = stage.other.create_publisher(Image, TOPICS["image"], profile)
        regimes = stage.other.create_publisher(DiagnosticArray, TOPICS["regime"], latched(rclpy))
        statuses: list[Any] = []
        stage.other.create_subscription(
            DiagnosticArray, "/diagnostics", lambda message: statuses.extend(message.status), 10
        )
        regime = regime_cdr(regime_states(schedule, START_NS)[3], schedule.joint_names)
        regimes.publish(regime)  # before anybody listens: the recorder must get it all the same
        assert stage.start()
        stage.spin_until(lambda: images.get_subscription_count() > 0, "the recorder listens to the camera")
        sent = [
            image_cdr(START_NS + number * PERIOD_NS, draw(np.array([0.1 * number, 0.0]), (64, 48)))
            for number in range(40)
            if number not in (25, 26)
        ]
        before = time.time_ns()
        for cdr in sent:
            images.publish(cdr)
            stage.executor.spin_once(timeout_sec=0.01)

        def reported() -> bool:
            newest = {pair.key: pair.value for pair in statuses[-1].values} if statuses else {}
            return newest.get("frames") == "38" and newest.get(f"messages {TOPICS['regime']}") == "1"

        stage.spin_until(reported, "diagnostics tell of 38 frames")
        newest = {pair.key: pair.value for pair in statuses[-1].values}
        assert newest["drops"] == "2"
        assert "2 frames lost" in statuses[-1].message
    finally:
        stage.close()  # as after Ctrl-C, without a lifecycle transition
    with open_bag(folder / "bag") as bag:
        assert bag.header is not None
        assert (bag.header.state, bag.header.robot) == ("complete", "stick")
        assert bag.header.drops == {TOPICS["image"]: 2}
        assert bag.schedule.hash == schedule.hash
        recorded = list(bag.messages([bag.topic("image")]))
        assert [entry.data for entry in recorded] == sent
        assert all(before <= entry.log_time_ns <= time.time_ns() for entry in recorded)
        assert [entry.data for entry in bag.messages([bag.topic("regime")])] == [regime]


def test_commands_of_any_type_and_extra_topics_under_remapped_names(
    rclpy: Any, prepared: tuple[Path, Schedule]
) -> None:
    from sensor_msgs.msg import JointState
    from std_msgs.msg import Float64MultiArray

    folder, _ = prepared
    stage = recording(
        *parameters_of(
            folder, "joint_command_topic:=/arm/command", "extra_topics:=['/seen:sensor_msgs/msg/JointState']"
        ),
    )
    try:
        commands = stage.other.create_publisher(Float64MultiArray, "/arm/command", 10)
        seen = stage.other.create_publisher(JointState, "/seen", 10)
        assert stage.start()
        stage.spin_until(
            lambda: commands.get_subscription_count() > 0 and seen.get_subscription_count() > 0, "it listens"
        )
        commands.publish(Float64MultiArray(data=[1.0, -2.0]))
        seen.publish(JointState(name=["a"], position=[0.5]))
        counts = stage.node._sources
        stage.spin_until(lambda: counts["/arm/command"].count and counts["/seen"].count, "both arrive")
        stage.node.trigger_deactivate()
        with open_bag(folder / "bag") as bag:
            assert bag.topic("joint_command") == "/arm/command"
            (command,) = bag.messages(["/arm/command"])
            kind = bag.topics["/arm/command"].type_name
            assert bag.deserialize(command.data, kind).data.tolist() == [1.0, -2.0]
            assert bag.topics["/seen"].count == 1
    finally:
        stage.close()


def test_bags_are_split_stopped_and_started_by_service_and_each_is_whole(
    rclpy: Any, prepared: tuple[Path, Schedule]
) -> None:
    """Nothing is lost at a split, and each bag holds the regimes that were announced before it began."""
    from diagnostic_msgs.msg import DiagnosticArray
    from sensor_msgs.msg import Image

    folder, schedule = prepared
    stage = recording(*parameters_of(folder))
    (folder / "bag_2").mkdir()  # of an earlier recording
    try:
        images = stage.other.create_publisher(Image, TOPICS["image"], 50)
        regimes = stage.other.create_publisher(DiagnosticArray, TOPICS["regime"], latched(rclpy))
        regime = regime_cdr(regime_states(schedule, START_NS)[3], schedule.joint_names)
        regimes.publish(regime)
        assert stage.start()
        stage.spin_until(lambda: images.get_subscription_count() > 0, "the recorder listens to the camera")
        stage.spin_until(lambda: stage.node._sources[TOPICS["regime"]].count, "the regime arrives")
        frames = [
            image_cdr(START_NS + number * PERIOD_NS, draw(np.zeros(2), (64, 48))) for number in range(9)
        ]
        for number, frame in enumerate(frames):
            images.publish(frame)
            if number == 3:
                answer = stage.trigger("/recorder/split")
                assert answer.success and str(folder / "bag_3") in answer.message
        stage.spin_until(lambda: stage.node._sources[TOPICS["image"]].count >= 5, "the frames arrive")
        stage.spin_for(0.2)
        assert "is being recorded" in stage.trigger("/recorder/start").message
        answer = stage.trigger("/recorder/stop")
        assert answer.success and "bag_3" in answer.message
        assert not stage.trigger("/recorder/split").success
        images.publish(image_cdr(START_NS + 10 * PERIOD_NS, draw(np.zeros(2), (64, 48))))
        stage.spin_for(0.3)  # between two bags: not recorded
        assert stage.trigger("/recorder/start").success
        last = image_cdr(START_NS + 11 * PERIOD_NS, draw(np.zeros(2), (64, 48)))
        images.publish(last)
        stage.spin_until(lambda: stage.node._sources[TOPICS["image"]].count == 1, "the last frame arrives")
    finally:
        stage.close()
    held = []
    for name in ("bag", "bag_3", "bag_4"):
        with open_bag(folder / name) as bag:
            assert bag.header is not None and bag.header.state == "complete"
            assert bag.schedule.hash == schedule.hash
            assert [entry.data for entry in bag.messages([bag.topic("regime")])] == [regime]
            held.append([entry.data for entry in bag.messages([bag.topic("image")])])
    assert held[0] + held[1] == frames and held[0] and held[1]
    assert held[2] == [last]


def test_what_has_arrived_when_the_recorder_is_stopped_is_recorded(
    rclpy: Any, prepared: tuple[Path, Schedule]
) -> None:
    from rclpy.duration import Duration
    from sensor_msgs.msg import Image

    from ropes_ros.nodes.common import _drain

    folder, _ = prepared
    stage = recording(*parameters_of(folder))
    try:
        images = stage.other.create_publisher(Image, TOPICS["image"], 100)
        assert stage.start()
        stage.spin_until(lambda: images.get_subscription_count() > 0, "the recorder listens to the camera")
        for number in range(60):
            images.publish(image_cdr(START_NS + number * PERIOD_NS, draw(np.zeros(2), (64, 48))))
        assert images.wait_for_all_acked(Duration(seconds=20.0))
        _drain(stage.executor, stage.node)
    finally:
        stage.close()
    with open_bag(folder / "bag") as bag:
        assert bag.topics[TOPICS["image"]].count == 60


def test_an_existing_path_is_refused_and_untouched(rclpy: Any, prepared: tuple[Path, Schedule]) -> None:
    folder, _ = prepared
    (folder / "bag").mkdir()
    (folder / "bag" / "precious").write_text("data")
    stage = recording(*parameters_of(folder))
    try:
        assert not stage.start()
    finally:
        stage.close()
    assert [entry.name for entry in (folder / "bag").iterdir()] == ["precious"]


def test_a_full_disk_ends_the_node_with_one_clear_error(
    rclpy: Any, prepared: tuple[Path, Schedule], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sensor_msgs.msg import Image

    folder, _ = prepared
    stage = recording(*parameters_of(folder))
    try:
        images = stage.other.create_publisher(Image, TOPICS["image"], 50)
        assert stage.start()
        stage.spin_until(lambda: images.get_subscription_count() > 0, "the recorder listens to the camera")

        def full(pieces: Sequence[bytes]) -> int:
            raise OSError(28, "No space left on device")

        writer = stage.node._writer
        assert writer is not None
        monkeypatch.setattr(writer._writer._output, "write", full)
        images.publish(image_cdr(START_NS, draw(np.zeros(2), (64, 48))))
        with pytest.raises(BagError, match=r"No space left on device.*ropes recover"):
            stage.spin_until(lambda: False, "the error comes")
    finally:
        stage.close()


def test_a_malformed_image_is_counted_and_the_recording_goes_on(rclpy: Any, prepared: tuple[Path, Schedule]) -> None:
    from sensor_msgs.msg import Image

    folder, _ = prepared
    stage = recording(*parameters_of(folder))
    try:
        images = stage.other.create_publisher(Image, TOPICS["image"], 50)
        assert stage.start()
        stage.spin_until(lambda: images.get_subscription_count() > 0, "the recorder listens to the camera")
        source = stage.node._sources[TOPICS["image"]]
        stage.node._on_message(source, bytes([0, 1, 0, 0, 1, 0, 0, 0]))  # some middlewares refuse to send this
        assert (source.malformed, source.count) == (1, 0)
        images.publish(image_cdr(START_NS, draw(np.zeros(2), (64, 48))))
        stage.spin_until(lambda: source.count == 1, "the next image is recorded")
    finally:
        stage.close()
    with open_bag(folder / "bag") as bag:
        assert bag.topics[TOPICS["image"]].count == 1


def test_an_image_topic_of_another_type_is_told(
    rclpy: Any, prepared: tuple[Path, Schedule], capfd: pytest.CaptureFixture[str]
) -> None:
    from sensor_msgs.msg import JointState

    folder, _ = prepared
    stage = recording(*parameters_of(folder))
    try:
        stage.other.create_publisher(JointState, TOPICS["image"], 10)
        assert stage.start()
        source = stage.node._sources[TOPICS["image"]]
        stage.spin_until(lambda: source.mistyped, "the type is seen")
        assert source.subscription is None
    finally:
        stage.close()
    errors = [line for line in capfd.readouterr().err.splitlines() if "is published as" in line]
    assert len(errors) == 1
    assert all(part in errors[0] for part in (TOPICS["image"], "sensor_msgs/msg/JointState", "sensor_msgs/msg/Image"))


def test_a_bag_that_cannot_be_closed_leaves_no_active_recorder(
    rclpy: Any, prepared: tuple[Path, Schedule], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rclpy.lifecycle import TransitionCallbackReturn

    folder, _ = prepared
    stage = recording(*parameters_of(folder))
    try:
        assert stage.start()

        def fail() -> None:
            raise BagError("no space")

        monkeypatch.setattr(stage.node._writer._writer, "close", fail)
        assert stage.node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
        assert stage.node.trigger_shutdown() == TransitionCallbackReturn.FAILURE
    finally:
        stage.close()


def test_a_recorder_that_is_activated_again_records_again(rclpy: Any, prepared: tuple[Path, Schedule]) -> None:
    """Where the first bag was moved away in between: the next one is not left empty."""
    from sensor_msgs.msg import Image

    folder, _ = prepared
    stage = recording(*parameters_of(folder))
    try:
        images = stage.other.create_publisher(Image, TOPICS["image"], 50)
        assert stage.start()
        for name in ("first", "second"):
            stage.spin_until(lambda: images.get_subscription_count() > 0, f"it listens for the {name} bag")
            images.publish(image_cdr(START_NS, draw(np.zeros(2), (64, 48))))
            stage.spin_until(lambda: stage.node._sources[TOPICS["image"]].count == 1, "the frame arrives")
            stage.node.trigger_deactivate()
            (folder / "bag").rename(folder / name)
            if name == "first":
                stage.node.trigger_activate()
    finally:
        stage.close()
    for name in ("first", "second"):
        with open_bag(folder / name) as bag:
            assert sum(topic.count for topic in bag.topics.values()) == 1


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        ("image_topic:='bad topic'", "parameter image_topic: 'bad topic' is no topic's name"),
        ("regime_topic:=''", "parameter regime_topic: '' is no topic's name"),
        ("extra_topics:=['/good', 'a b']", "parameter extra_topics: 'a b' is no topic's name"),
        (f"path:={'x' * 300}", "cannot be created (File name too long)"),
    ],
)
def test_names_that_are_none_are_told_in_one_line(
    rclpy: Any, prepared: tuple[Path, Schedule], capfd: pytest.CaptureFixture[str], parameter: str, said: str
) -> None:
    folder, _ = prepared
    stage = recording(*parameters_of(folder, parameter))
    try:
        assert not stage.start()
    finally:
        stage.close()
    lines = [line for line in capfd.readouterr().err.splitlines() if "ERROR" in line or "Traceback" in line]
    assert len(lines) == 1 and said in lines[0]


def picture(number: int, size: tuple[int, int] = (64, 48)) -> bytes:
    return image_cdr(START_NS + number * PERIOD_NS, draw(np.zeros(2), size))


def test_several_cameras_each_have_their_roles(rclpy: Any, prepared: tuple[Path, Schedule]) -> None:
    from sensor_msgs.msg import CameraInfo, CompressedImage, Image

    folder, _ = prepared
    cameras = "['/left/image_raw/compressed', '/right/rgb:/right/info']"
    stage = recording(*parameters_of(folder, f"extra_cameras:={cameras}"))
    try:
        publishers = [
            stage.other.create_publisher(kind, topic, 50)
            for kind, topic in (
                (Image, TOPICS["image"]),
                (CompressedImage, "/left/image_raw/compressed"),
                (CameraInfo, "/left/camera_info"),
                (Image, "/right/rgb"),
                (CameraInfo, "/right/info"),
            )
        ]
        assert stage.start()
        stage.spin_until(lambda: all(each.get_subscription_count() for each in publishers), "it listens to all")
        for number in range(20):
            for publisher in publishers:
                if publisher.topic_name == "/right/rgb" and number == 15:
                    continue
                if publisher.msg_type is Image:
                    publisher.publish(picture(number))
                else:
                    message = publisher.msg_type()
                    message.header.stamp.sec = number + 1
                    publisher.publish(message)
            stage.spin_for(0.01)
        stage.spin_until(lambda: stage.node.received == 99, "all arrive")
    finally:
        stage.close()
    with open_bag(folder / "bag") as bag:
        assert bag.header is not None
        assert bag.topic("image") == TOPICS["image"]
        assert bag.topic("image_2") == "/left/image_raw/compressed"
        assert bag.topic("camera_info_2") == "/left/camera_info"
        assert (bag.topic("image_3"), bag.topic("camera_info_3")) == ("/right/rgb", "/right/info")
        assert [bag.topics[bag.topic(role)].count for role in ("image", "image_2", "image_3")] == [20, 20, 19]
        assert bag.header.losses == {"/right/rgb": Losses(gaps=1)}
        assert bag.header.rates["/left/image_raw/compressed"] > 1.0


def test_cameras_that_are_named_twice_are_refused(
    rclpy: Any, prepared: tuple[Path, Schedule], capfd: pytest.CaptureFixture[str]
) -> None:
    stage = recording(*parameters_of(prepared[0], f"extra_cameras:=['{TOPICS['image']}']"))
    try:
        assert not stage.start()
    finally:
        stage.close()
    assert "parameter extra_cameras: /camera/image_raw is recorded already" in capfd.readouterr().err


def test_a_slow_disk_holds_up_no_subscription_and_what_is_dropped_is_counted(
    rclpy: Any, prepared: tuple[Path, Schedule], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a write hangs, all messages go on to be received; pictures beyond the queue are dropped, no regime is."""
    from diagnostic_msgs.msg import DiagnosticArray
    from sensor_msgs.msg import Image

    folder, schedule = prepared
    stage = recording(*parameters_of(folder, f"queue_size:={1 << 20}", "compression:=none"))
    go_on = threading.Event()
    try:
        images = stage.other.create_publisher(Image, TOPICS["image"], 50)
        regimes = stage.other.create_publisher(DiagnosticArray, TOPICS["regime"], latched(rclpy))
        assert stage.start()
        stage.spin_until(
            lambda: images.get_subscription_count() and regimes.get_subscription_count(), "the recorder listens"
        )
        output = stage.node._writer._writer._output
        write = output.write

        def slow(pieces: Sequence[bytes]) -> int:
            assert go_on.wait(60.0)
            return write(pieces)  # type: ignore[no-any-return]

        monkeypatch.setattr(output, "write", slow)
        sent = [picture(number, (320, 240)) for number in range(30)]
        for number, frame in enumerate(sent):
            images.publish(frame)
            stage.spin_until(lambda number=number: stage.node.received >= number + 1, "it is received all the same")
        regimes.publish(regime_cdr(regime_states(schedule, START_NS)[3], schedule.joint_names))
        stage.spin_until(lambda: stage.node.received == 31, "and so is the regime")
        go_on.set()
        statement = stage.node._statement()
        assert "since the disk does not keep up" in statement.message
    finally:
        go_on.set()
        stage.close()
    with open_bag(folder / "bag") as bag:
        assert bag.header is not None
        recorded = bag.topics[TOPICS["image"]].count
        losses = bag.header.losses[TOPICS["image"]]
        assert losses == Losses(queue=30 - recorded)
        assert 3 <= recorded < 30
        assert [entry.data for entry in bag.messages([TOPICS["image"]])][:3] == sent[:3]
        assert bag.topics[TOPICS["regime"]].count == 1


def test_a_simulation_that_is_faster_than_the_recorder_for_a_while_loses_no_image(
    rclpy: Any, prepared: tuple[Path, Schedule]
) -> None:
    """It sends hundreds of images a second, and goes on when they have arrived, not when they are recorded."""
    from rclpy.qos import QoSProfile
    from rosgraph_msgs.msg import Clock
    from sensor_msgs.msg import Image

    folder, _ = prepared
    stage = recording(*parameters_of(folder, "use_sim_time:=true"))
    try:
        clock = stage.other.create_publisher(Clock, "/clock", 10)
        images = stage.other.create_publisher(Image, TOPICS["image"], QoSProfile(depth=500))
        assert stage.start()
        time_message = Clock()
        time_message.clock.sec = 5

        def listens() -> bool:
            clock.publish(time_message)
            return bool(images.get_subscription_count() > 0)

        stage.spin_until(listens, "the recorder listens to the camera")
        for number in range(300):  # while it is held up: nobody spins it
            images.publish(picture(number))
        stage.spin_until(lambda: stage.node.received >= 300, "all images have come")
    finally:
        stage.close()
    with open_bag(folder / "bag") as bag:
        assert bag.topics[TOPICS["image"]].count == 300 and bag.header is not None
        assert not any(bag.header.drops.values())


@pytest.mark.parametrize("limit", ["max_bag_size:=300000", "max_bag_duration:=0.5"])
def test_a_bag_that_is_large_or_long_enough_is_followed_by_another(
    rclpy: Any, prepared: tuple[Path, Schedule], limit: str
) -> None:
    from sensor_msgs.msg import Image

    folder, _ = prepared
    stage = recording(*parameters_of(folder, limit, "compression:=none", "flush_period:=0.05"))
    sent = []
    try:
        images = stage.other.create_publisher(Image, TOPICS["image"], 50)
        assert stage.start()
        stage.spin_until(lambda: images.get_subscription_count() > 0, "the recorder listens to the camera")

        def send() -> bool:
            sent.append(picture(len(sent)))
            images.publish(sent[-1])
            return stage.node._writer.path == folder / "bag_3" and stage.node._writer.accepted[TOPICS["image"]] > 0

        stage.spin_until(send, "a third bag is begun")
        stage.spin_until(lambda: stage.node.received == len(sent), "all arrive")
    finally:
        stage.close()
    held = []
    for name in ("bag", "bag_2", "bag_3"):
        with open_bag(folder / name) as bag:
            assert bag.header is not None and bag.header.state == "complete"
            held += [entry.data for entry in bag.messages([TOPICS["image"]])]
    assert held == sent


def test_where_there_can_be_no_other_bag_the_recording_goes_on_in_this_one(
    rclpy: Any, prepared: tuple[Path, Schedule], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from sensor_msgs.msg import Image

    folder, _ = prepared
    stage = recording(*parameters_of(folder, "max_bag_duration:=0.2"))
    try:
        images = stage.other.create_publisher(Image, TOPICS["image"], 50)
        assert stage.start()

        def refuse(path: Path) -> None:
            raise BagError(f"{path} cannot be created")

        monkeypatch.setattr(stage.node, "_create", refuse)
        stage.spin_until(images.get_subscription_count, "the recorder listens to the camera")
        stage.spin_for(0.5)
        images.publish(picture(0))
        stage.spin_until(lambda: stage.node.received == 1, "it arrives")
    finally:
        stage.close()
    assert "goes on in the same bag: " in capfd.readouterr().err
    with open_bag(folder / "bag") as bag:
        assert bag.topics[TOPICS["image"]].count == 1


def test_a_nearly_full_disk_ends_the_recording_with_a_whole_bag(
    rclpy: Any, prepared: tuple[Path, Schedule], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sensor_msgs.msg import Image

    from ropes_ros.nodes import recorder

    folder, _ = prepared
    stage = recording(*parameters_of(folder, "min_free:=5000000"))
    try:
        images = stage.other.create_publisher(Image, TOPICS["image"], 50)
        assert stage.start()
        stage.spin_until(lambda: images.get_subscription_count() > 0, "the recorder listens to the camera")
        images.publish(picture(0))
        stage.spin_until(lambda: stage.node.received == 1, "it arrives")
        monkeypatch.setattr(recorder.shutil, "disk_usage", lambda path: SimpleNamespace(free=4_000_000))
        with pytest.raises(BagError, match=r"bag was closed, and is whole: 4 MB are free.*min_free"):
            stage.spin_until(lambda: False, "the error comes")
        assert "4 MB are free" in stage.node._statement().message
    finally:
        stage.close()
    with open_bag(folder / "bag") as bag:
        assert bag.header is not None and bag.header.state == "complete"
        assert "4 MB are free" in bag.header.ended
        assert bag.topics[TOPICS["image"]].count == 1


def test_no_bag_is_begun_on_a_nearly_full_disk(
    rclpy: Any, prepared: tuple[Path, Schedule], capfd: pytest.CaptureFixture[str]
) -> None:
    folder, _ = prepared
    stage = recording(*parameters_of(folder, f"min_free:={1 << 50}"))
    try:
        assert not stage.start()
    finally:
        stage.close()
    assert "bag is not begun:" in capfd.readouterr().err
    assert not (folder / "bag").exists()


def test_a_camera_that_is_unplugged_is_told_and_the_recording_goes_on(
    rclpy: Any, prepared: tuple[Path, Schedule], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sensor_msgs.msg import Image

    from ropes_ros.nodes import recorder_statement

    monkeypatch.setattr(recorder_statement, "SILENT_AFTER_S", 0.3)
    folder, _ = prepared
    stage = recording(*parameters_of(folder))
    try:
        for number in range(2):
            images = stage.other.create_publisher(Image, TOPICS["image"], 50)
            if number == 0:
                assert stage.start()
            stage.spin_until(images.get_subscription_count, "the recorder listens to the camera")
            images.publish(picture(number))
            stage.spin_until(lambda number=number: stage.node.received == number + 1, "it arrives")
            stage.other.destroy_publisher(images)
            stage.spin_until(
                lambda: f"nothing on {TOPICS['image']} for" in stage.node._statement().message, "the silence is told"
            )
    finally:
        stage.close()
    with open_bag(folder / "bag") as bag:
        assert bag.topics[TOPICS["image"]].count == 2


def test_what_the_middleware_lost_is_in_the_bag(rclpy: Any, prepared: tuple[Path, Schedule]) -> None:
    from sensor_msgs.msg import Image

    folder, _ = prepared
    stage = recording(*parameters_of(folder))
    try:
        images = stage.other.create_publisher(Image, TOPICS["image"], 50)
        assert stage.start()
        stage.spin_until(lambda: images.get_subscription_count() > 0, "the recorder listens to the camera")
        source = stage.node._sources[TOPICS["image"]]
        for change in (2, 1):
            stage.node._on_lost(source, SimpleNamespace(total_count_change=change))
        images.publish(picture(0))
        stage.spin_until(lambda: source.count == 1, "the frame arrives")
        assert "3 frames lost" in stage.node._statement().message
    finally:
        stage.close()
    with open_bag(folder / "bag") as bag:
        assert bag.header is not None
        assert bag.header.losses == {TOPICS["image"]: Losses(transport=3)}
        assert bag.header.drops == {TOPICS["image"]: 3}

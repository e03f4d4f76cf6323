"""Bags from elsewhere: every message is carried over or told, regimes and densities are those that were commanded."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import foreign
import numpy as np
import pytest
from rosbags.convert.converter import is_same_wireformat
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from synthetic import joint_states_cdr, stick_robot, write_synthetic_bag

from ropes_ros import cli
from ropes_ros.bags import TOPICS, open_bag
from ropes_ros.cdr import header_stamp
from ropes_ros.commands import load_commands
from ropes_ros.dataset import load_frames, load_labels
from ropes_ros.densities import Bump
from ropes_ros.errors import BagError, RopesError, ScheduleError
from ropes_ros.foreign_bags import STANDARD
from ropes_ros.importing import Imported, RegimeSource, import_bag
from ropes_ros.motion import Trajectory
from ropes_ros.regime_files import load_regime_file
from ropes_ros.regime_plot import plot_regimes
from ropes_ros.regimes import make_schedule
from ropes_ros.robot import Robot, load_robot
from ropes_ros.schedule import IMPORTED, Schedule

DENSITIES = "levels:\n" + "".join(
    f"  {level}: {{type: bump, center: {centre}, sigma: {foreign.SIGMA}}}\n"
    for level, centre in foreign.CENTRES.items()
)


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Robot:
    return stick_robot(tmp_path_factory.mktemp("robot"))


@pytest.fixture(scope="module")
def recorded() -> foreign.Recorded:
    return foreign.commands(4.0, 2, seed=1)


@pytest.fixture(scope="module")
def bags(tmp_path_factory: pytest.TempPathFactory, robot: Robot, recorded: foreign.Recorded) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bags")
    made = {"ros1": folder / "one.bag", "sqlite3": folder / "two", "mcap": folder / "three"}
    for kind, path in made.items():
        foreign.write(path, robot, recorded, kind=kind, extra=True)
    return made


def regimes(folder: Path, robot: Robot, text: str) -> RegimeSource:
    path = folder / "regimes.yaml"
    path.write_text(text, encoding="utf-8")
    return RegimeSource(file=load_regime_file(path, robot.joint_names))


def imported(bags: dict[str, Path], kind: str, out: Path, robot: Robot, source: RegimeSource) -> Imported:
    return import_bag(bags[kind], out, robot, topics={}, regimes=source)


def total_variation(schedule: Schedule, joint: int, level: str, centre: float) -> float:
    found = schedule.commanded[joint, schedule.levels.ids.index(level)]
    return float(0.5 * np.abs(found - Bump(centre, foreign.SIGMA).pdf(schedule.grid)).mean() * 2.0)


@pytest.mark.parametrize("kind", ["ros1", "sqlite3", "mcap"])
def test_every_message_is_carried_over_or_told(
    tmp_path: Path, bags: dict[str, Path], robot: Robot, recorded: foreign.Recorded, kind: str
) -> None:
    done = imported(
        bags, kind, tmp_path / "bag", robot,
        regimes(tmp_path, robot, foreign.regime_yaml(recorded, robot.joint_names, levels=DENSITIES)),
    )
    counts = {carried.name: (carried.found, carried.written) for carried in done.topics}
    assert counts["/arm/cmd"] == (len(recorded.u), len(recorded.u))
    assert counts["/cam/rgb"] == counts["/joint_states"] == (done.images, done.images)
    assert done.images == 5 * 240 - 2
    assert counts["/grip"] == (1, 0)
    assert next(carried.reason for carried in done.topics if carried.name == "/grip")
    with open_bag(tmp_path / "bag") as bag:
        assert bag.header is not None and bag.header.topics["joint_command"] == "/arm/cmd"
        stamps = recorded.times_ns + foreign.PERIOD_NS // 2
        found = load_labels(bag, stamps)
        names = list(foreign.CENTRES)
        number = [bag.schedule.levels.ids.index(name) for name in names]
        assert np.array(number)[recorded.labels].tolist() == found.tolist()
    track = load_commands(tmp_path / "bag", robot)
    assert track.at(stamps[:-1]) == pytest.approx(recorded.u[:-1], abs=1e-9)
    frames = load_frames(tmp_path / "bag", size=(32, 24), cache_dir=tmp_path / "cache")
    assert len(frames) == done.images
    assert (frames.labels >= 0).sum(axis=0).tolist() == done.frames.tolist()


def test_stated_densities_are_taken_as_they_are(
    tmp_path: Path, bags: dict[str, Path], robot: Robot, recorded: foreign.Recorded
) -> None:
    done = imported(
        bags, "sqlite3", tmp_path / "bag", robot,
        regimes(tmp_path, robot, foreign.regime_yaml(recorded, robot.joint_names, levels=DENSITIES)),
    )
    for level, centre in foreign.CENTRES.items():
        assert total_variation(done.schedule, 1, level, centre) < 1e-6
    assert Schedule.from_yaml(done.schedule.to_yaml()) == done.schedule


def test_densities_left_out_are_estimated_from_the_commands(
    tmp_path: Path, bags: dict[str, Path], robot: Robot, recorded: foreign.Recorded
) -> None:
    done = imported(
        bags, "ros1", tmp_path / "bag", robot,
        regimes(tmp_path, robot, foreign.regime_yaml(recorded, robot.joint_names)),
    )
    for joint in range(2):
        for level, centre in foreign.CENTRES.items():
            assert total_variation(done.schedule, joint, level, centre) < 0.15
    assert any("estimated" in sentence for sentence in done.sentences)
    assert Schedule.from_yaml(done.schedule.to_yaml()).hash == done.schedule.hash


def test_regimes_are_found_in_the_commands(
    tmp_path: Path, bags: dict[str, Path], robot: Robot, recorded: foreign.Recorded
) -> None:
    pytest.importorskip("ruptures")
    done = imported(bags, "mcap", tmp_path / "bag", robot, RegimeSource(infer=True))
    assert done.schedule.levels.ids == ("l0", "l1", "l2")
    with open_bag(tmp_path / "bag") as bag:
        found = load_labels(bag, recorded.times_ns + foreign.PERIOD_NS // 2)
    told = found >= 0
    assert told.mean() > 0.9
    assert (found == recorded.labels)[told].mean() > 0.95
    for joint in range(2):
        for level, centre in zip(done.schedule.levels.ids, foreign.CENTRES.values(), strict=True):
            assert total_variation(done.schedule, joint, level, centre) < 0.2
    assert any("assumed" in sentence for sentence in done.sentences)
    plot_regimes(done, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_commands_of_one_distribution_have_no_regimes(tmp_path: Path, robot: Robot) -> None:
    pytest.importorskip("ruptures")
    recorded = foreign.commands(3.0, 2, seed=2, segments_s=(1000.0, 1001.0))
    foreign.write(tmp_path / "source", robot, recorded, kind="mcap")
    with pytest.raises(ScheduleError, match="--regimes"):
        import_bag(tmp_path / "source", tmp_path / "bag", robot, topics={}, regimes=RegimeSource(infer=True))
    assert not (tmp_path / "bag").exists()


def test_one_bag_a_regime(tmp_path: Path, robot: Robot, recorded: foreign.Recorded) -> None:
    """Three bags, in each of which both joints hold one level; the file names the levels."""
    folder = tmp_path / "sources"
    folder.mkdir()
    for level in range(3):
        whole = foreign.commands(1.0, 2, seed=10 + level)
        shift = 70 * 10**9 * level
        only = np.full_like(whole.labels, level)
        u = Bump(list(foreign.CENTRES.values())[level], foreign.SIGMA).sample(np.random.default_rng(level), only.shape)
        foreign.write(folder / f"run{level}", robot, foreign.Recorded(whole.times_ns + shift, only, u), kind="mcap")
    text = "bags:\n" + "".join(
        f"  run{number}: {{joint1: {level}, joint2: {level}}}\n" for number, level in enumerate(foreign.CENTRES)
    )
    source = regimes(tmp_path, robot, text)
    done = import_bag(
        folder, tmp_path / "bag", robot, topics={}, regimes=RegimeSource(file=source.file, per_bag=True)
    )
    assert set(done.schedule.levels.ids) == set(foreign.CENTRES)
    assert done.images == 3 * 298  # 59.6 s at 5 a second
    assert (done.frames >= done.images - 3).all()
    for level, centre in foreign.CENTRES.items():
        assert total_variation(done.schedule, 0, level, centre) < 0.2
    with pytest.raises(ScheduleError, match="says nothing of the bag run0"):
        import_bag(
            folder, tmp_path / "other", robot, topics={},
            regimes=RegimeSource(file=regimes(tmp_path, robot, "bags: {run1: {joint1: low}}").file, per_bag=True),
        )


def test_a_topic_of_texts_tells_regimes(tmp_path: Path, robot: Robot, recorded: foreign.Recorded) -> None:
    from rosbags.rosbag2 import StoragePlugin, Writer

    foreign.write(tmp_path / "source", robot, recorded, kind="mcap")
    store = get_typestore(Stores.ROS2_HUMBLE)
    names = list(foreign.CENTRES)
    with open_bag(tmp_path / "source") as old, Writer(
        tmp_path / "told", version=8, storage_plugin=StoragePlugin.SQLITE3
    ) as bag:
        connections = {
            name: bag.add_connection(name, topic.type_name, typestore=store) for name, topic in old.topics.items()
        }
        told = bag.add_connection("/regime_name", "std_msgs/msg/String", typestore=store)
        for message in old.messages():
            bag.write(connections[message.topic], message.log_time_ns, message.data)
        for time_ns, row in zip(recorded.times_ns.tolist(), recorded.labels, strict=True):
            text = f"{{joint1: {names[row[0]]}, joint2: {names[row[1]]}}}"
            data = store.serialize_cdr(store.types["std_msgs/msg/String"](text), "std_msgs/msg/String")
            bag.write(told, time_ns, data)
    done = import_bag(
        tmp_path / "told", tmp_path / "bag", robot, topics={"regime": "/regime_name"}, regimes=RegimeSource()
    )
    with open_bag(tmp_path / "bag") as bag:
        found = load_labels(bag, recorded.times_ns[:-1] + foreign.PERIOD_NS // 2)
        ids = bag.schedule.levels.ids
    assert (np.array(ids)[found] == np.array(names)[recorded.labels[:-1]]).all()
    assert len(done.spans) == int((np.diff(recorded.labels, axis=0) != 0).sum()) + 2


def test_regimes_that_a_bag_tells_itself_are_carried_over_and_counted(tmp_path: Path) -> None:
    write_synthetic_bag(tmp_path / "own", frames=60, seed=3)
    done = import_bag(tmp_path / "own", tmp_path / "bag", stick_robot(tmp_path), topics={}, regimes=RegimeSource())
    with open_bag(tmp_path / "bag") as bag:
        stamps = [header_stamp(message.data) for message in bag.messages([bag.topic("image")])]
        labels = load_labels(bag, np.array(stamps))
    assert done.images == 60
    assert done.frames.tolist() == (labels >= 0).sum(axis=0).tolist()
    assert min(done.frames) > 0


def test_an_imported_schedule_commands_no_robot(
    tmp_path: Path, bags: dict[str, Path], robot: Robot, recorded: foreign.Recorded
) -> None:
    """It does not say how to move: running it would sweep the whole range."""
    done = imported(
        bags, "mcap", tmp_path / "bag", robot,
        regimes(tmp_path, robot, foreign.regime_yaml(recorded, robot.joint_names, levels=DENSITIES)),
    )
    assert done.schedule.design == IMPORTED
    with pytest.raises(ScheduleError, match="not how to move"):
        Trajectory(robot, done.schedule)


def test_without_regimes_the_ways_to_give_them_are_named(tmp_path: Path, bags: dict[str, Path], robot: Robot) -> None:
    with pytest.raises(BagError, match="--regimes FILE, --infer-regimes, --per-regime-bags"):
        imported(bags, "sqlite3", tmp_path / "bag", robot, RegimeSource())


def test_measured_joint_states_are_not_taken_for_commands(tmp_path: Path, bags: dict[str, Path], robot: Robot) -> None:
    with pytest.raises(BagError, match="measured"):
        import_bag(
            bags["ros1"], tmp_path / "bag", robot, topics={"joint_command": "/joint_states"},
            regimes=RegimeSource(infer=True),
        )


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("joints: {elbow: []}", "elbow"),
        ("joints: {joint1: [{level: a, from: 2, to: 1}]}", "ascending"),
        ("joints: {joint1: [{level: a, from: 2, to: .inf}]}", "ascending"),
        ("levels: {set: bumps, n: 100000000}\njoints: {joint1: []}", "n must be"),
        ("levels: {set: bumps, n: 2.5}\njoints: {joint1: []}", "n must be"),
        ("joints: {joint1: [{level: a, from: 0, to: 2}, {level: b, from: 1, to: 3}]}", "overlaps"),
        ("levels: {a: {type: hat}}\njoints: {joint1: []}", "hat"),
        ("levels: {set: hats}\njoints: {joint1: []}", "hats"),
        ("levels: {set: bumps}\njoints: {joint1: [{level: low, from: 0, to: 2}]}", "no density"),
        ("joints: {joint1: []}\nbags: {}", "either"),
        ("[1, 2]", "mapping"),
    ],
)
def test_a_wrong_file_of_regimes_is_told(tmp_path: Path, robot: Robot, text: str, part: str) -> None:
    with pytest.raises(RopesError, match=part):
        regimes(tmp_path, robot, text)


def test_messages_of_roles_are_the_same_on_the_wire_in_every_distribution() -> None:
    """So that a bag which does not say its distribution is read as today's."""
    types = (
        "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/CameraInfo",
        "sensor_msgs/msg/JointState", "trajectory_msgs/msg/JointTrajectory", "std_msgs/msg/Float64MultiArray",
        "diagnostic_msgs/msg/DiagnosticArray", "tf2_msgs/msg/TFMessage",
    )
    for store in (store for store in Stores if store.name.startswith("ROS2")):
        assert all(is_same_wireformat(get_typestore(store), STANDARD, name, name) for name in types), store


def test_a_damaged_message_is_counted(tmp_path: Path, robot: Robot, recorded: foreign.Recorded) -> None:
    from rosbags.rosbag1 import Writer

    foreign.write(tmp_path / "whole.bag", robot, recorded, kind="ros1")
    store = get_typestore(Stores.ROS1_NOETIC)
    store.register(get_types_from_msg("string text\n", "std_msgs/msg/Note"))
    from rosbags.highlevel import AnyReader

    with AnyReader([tmp_path / "whole.bag"]) as reader, Writer(tmp_path / "cut.bag") as bag:
        made = {c.id: bag.add_connection(c.topic, c.msgtype, typestore=reader.typestore) for c in reader.connections}
        for number, (connection, time_ns, data) in enumerate(reader.messages()):
            cut = connection.topic == "/joint_states" and number < 30
            bag.write(made[connection.id], time_ns, data[:20] if cut else data)
    done = import_bag(
        tmp_path / "cut.bag", tmp_path / "bag", robot, topics={},
        regimes=regimes(tmp_path, robot, foreign.regime_yaml(recorded, robot.joint_names, levels=DENSITIES)),
    )
    states = next(carried for carried in done.topics if carried.name == "/joint_states")
    assert states.written < states.found == done.images
    assert f"{states.found - states.written} cannot be read" == states.reason


def test_the_command_tells_what_it_did(
    tmp_path: Path, bags: dict[str, Path], robot: Robot, recorded: foreign.Recorded,
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "regimes.yaml").write_text(foreign.regime_yaml(recorded, robot.joint_names, levels=DENSITIES))
    arguments = [
        "import", str(bags["ros1"]), str(tmp_path / "bag"), "--robot", str(robot.urdf_path.with_name("robot.yaml")),
        "--regimes", str(tmp_path / "regimes.yaml"), "--json",
    ]
    monkeypatch.setattr(sys, "argv", ["ropes", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    said = json.loads(capfd.readouterr().out)
    assert said["levels"] == list(foreign.CENTRES)
    assert said["images_in_a_regime"]["joint1"] > 0
    assert Path(said["plot"]).is_file()


def test_a_bag_with_our_regimes_is_carried_over_with_them(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `ros2 bag record` makes it beside our commander: the schedule is a file; a cut-off message is left out."""
    schedule = write_synthetic_bag(tmp_path / "ours", frames=300)
    schedule.save(tmp_path / "schedule.yaml")
    preset = tmp_path / "ours.robot" / "robot.yaml"
    with open_bag(tmp_path / "ours") as bag, Writer2(
        tmp_path / "recorded", version=8, storage_plugin=StoragePlugin.SQLITE3
    ) as other:
        made = {
            name: other.add_connection(name, topic.type_name, typestore=STANDARD) for name, topic in bag.topics.items()
        }
        made["/joint_command"] = other.add_connection(
            "/joint_command", "sensor_msgs/msg/JointState", typestore=STANDARD
        )
        seen: dict[str, int] = {}
        for message in bag.messages():
            number = seen[message.topic] = seen.get(message.topic, -1) + 1
            cut = message.topic in (TOPICS["image"], TOPICS["regime"]) and number == 5
            other.write(made[message.topic], message.log_time_ns, message.data[:30] if cut else message.data)
        nan = joint_states_cdr(bag.start_ns, schedule.joint_names, np.full(2, np.nan))
        other.write(made["/joint_command"], bag.start_ns, nan)
        stamps = np.array([header_stamp(message.data) for message in bag.messages([TOPICS["image"]])], dtype=np.int64)
        truth = load_labels(bag, stamps)
    arguments = ["import", tmp_path / "recorded", tmp_path / "bag", "--robot", preset]
    monkeypatch.setattr(sys, "argv", ["ropes", *map(str, arguments), "--schedule", str(tmp_path / "schedule.yaml")])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    assert "1 cannot be read" in capfd.readouterr().out
    with open_bag(tmp_path / "bag") as bag:
        assert bag.topics[TOPICS["image"]].count == 299
        assert bag.topics[TOPICS["regime"]].count == seen[TOPICS["regime"]]
        found = load_labels(bag, stamps)
    agree = found == truth
    assert agree.mean() > 0.5 and (found[~agree] == -1).all()  # across the regime that is missing nothing is known


def test_an_import_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a bag would be taken for a whole one, and be in the way of the next try."""
    schedule = write_synthetic_bag(tmp_path / "ours", frames=300)
    robot = load_robot(tmp_path / "ours.robot" / "robot.yaml")
    other = make_schedule(robot, duration_s=10.0, seed=9)
    assert other.hash != schedule.hash
    with pytest.raises(BagError, match="name the schedule that the commander ran"):
        import_bag(tmp_path / "ours", tmp_path / "bag", robot, topics={}, regimes=RegimeSource(schedule=other))
    assert not (tmp_path / "bag").exists()
    (tmp_path / "bag").mkdir()
    with pytest.raises(RopesError, match="exists already"):
        import_bag(tmp_path / "ours", tmp_path / "bag", robot, topics={}, regimes=RegimeSource())
    assert (tmp_path / "bag").is_dir()

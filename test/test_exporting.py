"""Bags for other programs: LeRobotDataset v3.0 and plain files, read back by the readers that those have."""

from __future__ import annotations

import csv
import errno
import json
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import foreign
import numpy as np
import pytest
from synthetic import draw, stick_robot

from ropes_ros import cli
from ropes_ros.bags import BagWriter, open_bag
from ropes_ros.errors import BagError, RopesError
from ropes_ros.frame_files import CSV_FILE, MEASURED_SUFFIX, export_frames
from ropes_ros.frame_table import FrameTable, frame_table
from ropes_ros.importing import RegimeSource, import_bag
from ropes_ros.lerobot import CAMERA, DATA_PATH, EPISODES_PATH, VIDEO_PATH, export_lerobot
from ropes_ros.regime_files import load_regime_file
from ropes_ros.robot import Robot

LEVELS = "levels: {low: {type: bump, center: -0.6, sigma: 0.18}, mid: {type: bump, center: 0.0, sigma: 0.18}, " \
    "high: {type: bump, center: 0.6, sigma: 0.18}}"  # fmt: skip


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Robot:
    return stick_robot(tmp_path_factory.mktemp("robot"))


@pytest.fixture(scope="module")
def recorded() -> foreign.Recorded:
    """A minute and a half, with a pause of ten seconds in its midst."""
    whole = foreign.commands(1.5, 2, seed=3)
    late = np.where(np.arange(len(whole.times_ns)) < 100, 0, 10 * 10**9)
    return whole._replace(times_ns=whole.times_ns + late)


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory, robot: Robot, recorded: foreign.Recorded) -> Path:
    folder = tmp_path_factory.mktemp("bag")
    foreign.write(folder / "source", robot, recorded, kind="mcap", rate=10)
    text = foreign.regime_yaml(recorded._replace(times_ns=recorded.times_ns), robot.joint_names, levels=LEVELS)
    (folder / "regimes.yaml").write_text(text)
    file = load_regime_file(folder / "regimes.yaml", robot.joint_names)
    import_bag(folder / "source", folder / "bag", robot, topics={}, regimes=RegimeSource(file=file))
    return folder / "bag"


@pytest.fixture(scope="module")
def frames(bag: Path, robot: Robot) -> FrameTable:
    return frame_table(bag, robot=robot)


def pixels_of(frames: FrameTable) -> dict[int, np.ndarray]:
    return {number: image.copy() for number, image in frames.images()}


@pytest.mark.parametrize("fps", [None, 7, 24])
def test_every_frame_of_a_dataset_is_the_image_of_its_time(
    tmp_path: Path, frames: FrameTable, recorded: foreign.Recorded, robot: Robot, fps: int | None
) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    done = export_lerobot(frames, tmp_path / "set", fps=fps, task="test")
    info = json.loads((tmp_path / "set" / "meta" / "info.json").read_text())
    rate = info["fps"]
    assert rate == (fps or 10)
    assert info["codebase_version"] == "v3.0"
    assert (info["total_frames"], info["total_episodes"]) == (done.frames, done.episodes)
    episodes = pq.read_table(tmp_path / "set" / EPISODES_PATH).to_pylist()
    assert [row["length"] for row in episodes] == np.diff([0, *(row["dataset_to_index"] for row in episodes)]).tolist()
    assert episodes[0]["tasks"] == ["test"]
    tasks = pq.read_table(tmp_path / "set" / "meta" / "tasks.parquet")
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    images = list(pixels_of(frames).values())
    for row in episodes:
        place = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
        table = pq.read_table(tmp_path / "set" / info["data_path"].format(**place))
        times = np.array(table["timestamp"].to_pylist())
        assert times == pytest.approx(np.arange(row["length"]) / rate, abs=1e-4)
        film = cv2.VideoCapture(str(tmp_path / "set" / info["video_path"].format(video_key=CAMERA, **place)))
        assert film.get(cv2.CAP_PROP_FPS) == pytest.approx(rate)
        action = np.array(table["action"].to_pylist())
        levels = np.array(table["regime"].to_pylist())
        for number in range(row["length"]):
            there, picture = film.read()
            assert there, f"frame {number} of {row['length']} is missing"
            if number % 10 == 0:
                rgb = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB).astype(np.float64)
                apart = [np.abs(rgb - image).mean() for image in images]
                shown = draw(action[number], foreign.SIZE)
                assert np.abs(rgb - shown).mean() < 6.0, "the action is not that of the picture"
                assert min(apart) < 6.0
        assert not film.read()[0]
        film.release()
        assert set(levels.ravel()) <= {-1, 0, 1, 2}


def test_a_pause_ends_an_episode(tmp_path: Path, frames: FrameTable, recorded: foreign.Recorded, robot: Robot) -> None:
    """Images go on during the pause of the commands here; a gap of the images is cut out."""
    pytest.importorskip("pyarrow")
    stamps = frames.stamps_ns
    kept = (stamps < recorded.times_ns[99]) | (stamps >= recorded.times_ns[100])
    assert not kept.all()
    assert frames.commanded is not None
    gap = frames._replace(stamps_ns=stamps[kept], commanded=frames.commanded[kept], levels=frames.levels[kept])
    done = export_lerobot(gap, tmp_path / "set", task="test")
    assert done.episodes == 2
    assert done.shown_twice + done.left_out <= 2


def test_statistics_are_those_of_all_frames(tmp_path: Path, frames: FrameTable) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    done = export_lerobot(frames, tmp_path / "set", task="test")
    stats = json.loads((tmp_path / "set" / "meta" / "stats.json").read_text())
    paths = [
        tmp_path / "set" / DATA_PATH.format(chunk_index=0, file_index=number) for number in range(done.episodes)
    ]
    action = np.concatenate([np.array(pq.read_table(path)["action"].to_pylist()) for path in paths])
    assert stats["action"]["mean"] == pytest.approx(action.mean(axis=0))
    assert stats["action"]["std"] == pytest.approx(action.std(axis=0))
    assert stats["action"]["count"] == [done.frames]
    assert np.shape(stats[CAMERA]["mean"]) == (3, 1, 1)
    assert 0.0 < stats[CAMERA]["mean"][0][0][0] < 1.0


def test_joint_states_are_written_only_when_asked_for(
    tmp_path: Path, bag: Path, robot: Robot, frames: FrameTable
) -> None:
    export_frames(frames, tmp_path / "plain")
    asked = frame_table(bag, robot=robot, with_joint_states=True)
    export_frames(asked, tmp_path / "asked")
    heads = [next(csv.reader((tmp_path / name / CSV_FILE).open())) for name in ("plain", "asked")]
    assert not any("measured" in column for column in heads[0])
    assert [column for column in heads[1] if column.endswith(MEASURED_SUFFIX)] == [
        f"{name}{MEASURED_SUFFIX}" for name in robot.joint_names
    ]


def test_plain_files_hold_every_pixel_and_what_is_known(tmp_path: Path, frames: FrameTable) -> None:
    assert export_frames(frames, tmp_path / "out") == len(frames.stamps_ns)
    rows = list(csv.DictReader((tmp_path / "out" / CSV_FILE).open()))
    assert [int(row["stamp_ns"]) for row in rows] == frames.stamps_ns.tolist()
    assert [row["joint1.level"] for row in rows] == frames.levels[:, 0].tolist()
    assert {"low", "mid", "high"} <= set(frames.levels[:, 0])
    assert frames.commanded is not None
    for number, image in pixels_of(frames).items():
        if number % 50 == 0:
            read = cv2.cvtColor(cv2.imread(str(tmp_path / "out" / rows[number]["file"])), cv2.COLOR_BGR2RGB)
            assert (read == image).all()
            assert float(rows[number]["joint2.commanded_rad"]) == pytest.approx(frames.commanded[number, 1])
    with pytest.raises(RopesError, match="exists already"):
        export_frames(frames, tmp_path / "out")


def test_a_bag_without_a_schedule_is_refused(tmp_path: Path, robot: Robot, recorded: foreign.Recorded) -> None:
    foreign.write(tmp_path / "source", robot, recorded, kind="mcap")
    with pytest.raises(BagError, match="schedule"):
        frame_table(tmp_path / "source", topics={"image": "/cam/rgb"})


def test_the_commands_write_what_they_say(
    tmp_path: Path, bag: Path, robot: Robot, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow")
    preset = str(robot.urdf_path.with_name("robot.yaml"))
    for command, file in (("export-frames", CSV_FILE), ("export-lerobot", "meta/info.json")):
        monkeypatch.setattr(sys, "argv", ["ropes", command, str(bag), str(tmp_path / command), "--robot", preset])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == 0, capfd.readouterr().err
        assert (tmp_path / command / file).is_file()
    assert (tmp_path / "export-lerobot" / VIDEO_PATH.format(video_key=CAMERA, chunk_index=0, file_index=0)).is_file()


@pytest.mark.parametrize("command", ["export-frames", "export-lerobot", "import", "inspect"])
def test_a_full_disk_is_told_in_one_line_and_leaves_nothing(
    bag: Path, robot: Robot, tmp_path: Path, command: str, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    preset = str(robot.urdf_path.with_name("robot.yaml"))
    arguments = ["--html", str(out)] if command == "inspect" else [str(out)]
    full = OSError(errno.ENOSPC, "No space left on device")

    def refuse(*_: object, **__: object) -> None:
        raise full

    if command == "export-lerobot":
        pq = pytest.importorskip("pyarrow.parquet")
        monkeypatch.setattr(pq, "write_table", refuse)
    elif command == "import":
        monkeypatch.setattr("ropes_ros.mcap_writer.McapWriter.flush", refuse)
    else:
        monkeypatch.setattr("cv2.imwrite" if command == "export-frames" else "os.replace", refuse)
    monkeypatch.setattr(sys, "argv", ["ropes", command, str(bag), *arguments, "--robot", preset])
    assert cli.main() == 1
    said = capfd.readouterr().err
    assert "Traceback" not in said and ("the disk is full" in said or "No space left" in said)
    assert "recover" not in said and not list(tmp_path.iterdir())


@pytest.mark.parametrize("export", [export_frames, lambda frames, out: export_lerobot(frames, out, task="test")])
def test_an_export_that_fails_leaves_nothing(
    bag: Path, robot: Robot, tmp_path: Path, export: Callable[..., object]
) -> None:
    """Half a data set would be taken for a whole one, and be in the way of the next try."""
    with open_bag(bag) as whole, BagWriter(
        tmp_path / "spoilt",
        robot="stick",
        schedule_yaml=whole.schedule.to_yaml(),
        schedule_hash=whole.schedule.hash,
        topics={"image": "/cam/rgb", "joint_command": "/arm/cmd"},
    ) as writer:
        for name, topic in whole.topics.items():
            writer.add_topic(name, topic.type_name)
        images = 0
        for message in whole.messages():
            images += message.topic == "/cam/rgb"
            cut = message.topic == "/cam/rgb" and images == 100
            writer.write(message.topic, message.data[:90] if cut else message.data, message.log_time_ns)
    frames = frame_table(tmp_path / "spoilt", robot=robot)
    with pytest.raises(BagError, match="cut short"):
        export(frames, tmp_path / "out")
    assert not (tmp_path / "out").exists()

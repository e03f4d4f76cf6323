"""What a user gets wrong, with the real command: one line that says what and what to do, and nothing left running."""

from __future__ import annotations

import os
import shutil
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from command import ROPES, Command, ropes
from staging import has_rclpy, isolate
from staging import rclpy as rclpy  # fixture
from synthetic import familiar, image_cdr, joint_states_cdr, stick_robot, unfamiliar, write_synthetic_bag

from ropes_ros.bags import TOPICS, BagWriter, open_bag
from ropes_ros.processes import has_ros
from ropes_ros.regimes import make_schedule
from ropes_ros.robot import load_robot

APT = "libegl1 libgl1 libgl1-mesa-dri"
NO_EGL = """
import ctypes, ctypes.util
find, load = ctypes.util.find_library, ctypes.CDLL.__init__
ctypes.util.find_library = lambda name: None if name in ("EGL", "GL", "OpenGL", "OSMesa") else find(name)
def refuse(self, name, *args, **kwargs):
    if any(part in str(name) for part in ("libEGL", "libOpenGL", "libGL.", "libOSMesa")):
        raise OSError(f"{name}: cannot open shared object file: No such file or directory")
    load(self, name, *args, **kwargs)
ctypes.CDLL.__init__ = refuse
"""


@dataclass(frozen=True)
class Case:
    """Arguments of `ropes`, what its error line must hold, and the environment."""

    arguments: str
    names: tuple[str, ...]
    environment: dict[str, str | None] = field(default_factory=dict)
    needs: str = ""


CASES = [
    Case("demo --robot r2d2", ("unknown robot 'r2d2'", "known are arm6")),
    Case("sim --robot r2d2", ("unknown robot 'r2d2'", "known are arm6"), needs="node"),
    Case("schedule make --robot joint.yaml", ("joint.yaml: joint 'elbow'", "movable are joint1, joint2")),
    Case("schedule show outside.yaml", ("outside.yaml: segment 0 of joint", "hi <= 1", "hi=1.4")),
    Case("schedule show malformed.yaml", ("malformed.yaml", "YAML")),
    Case("schedule show key.yaml", ("key.yaml", "unknown key 'tempo'", "known are schema")),
    Case("record new --schedule outside.yaml --armed", ("outside.yaml: segment 0 of joint", "hi=1.4")),
    Case("record new --schedule stick.yaml --armed", ("stick.yaml", "not for 'arm6'", "make a schedule for this")),
    Case("record new --schedule good.yaml --armed --command-type Twist", ("Twist", "JointTrajectory")),
    Case("record new --schedule good.yaml", ("moves the robot", "--armed", "--no-command")),
    Case("train no_images --out t", ("no_images", "/camera/image_raw", "it has: /joint_states"), needs="torch"),
    Case("evaluate model no_states", ("no_states", "joint_states")),
    Case("info version", ("version", "schema version 7 is unknown", "reads 1")),
    Case("evaluate model truncated", ("truncated", "cut off", "`ropes recover truncated`")),
    Case("evaluate model stick_bag", ("stick_bag", "joint3", "was another robot recorded?")),
    Case("estimate stick_bag --model model --robot stick/robot.yaml", ("model.onnx", "'arm6'")),
    Case("estimate camera/image_raw --model model --robot stick/robot.yaml", ("'arm6'", "'stick'"), needs="node"),
    Case("info changed", ("changed/model.onnx", "SHA-256", "export it again")),
    Case("estimate camera/image_raw --model changed", ("changed/model.onnx", "SHA-256", "export it"), needs="node"),
    Case("schedule make --minutes 1 --save file/s.yaml", ("file/s.yaml", "another")),
    Case("train stick_bag --out file/t", ("file/t", "another"), needs="torch"),
    Case("demo --out file/d", ("file/d", "another")),
    Case("demo --out file", ("file", "another")),
    Case("record file/bag --schedule good.yaml --no-command", ("file/bag", "another"), needs="node"),
    Case("estimate stick_bag --model model --csv file/e.csv", ("file/e.csv", "another")),
    Case("estimate stick_typo --model model --csv e.csv --json", ("stick_typo", "--csv and --json", "a bag")),
    Case("estimate stick_typo --model model --topic image=/cam0", ("stick_typo", "--topic", "leave it out")),
    Case("evaluate model one_image", ("one_image", "the truth of 1 of its frames", "longer bag")),
    Case(
        "evaluate model one_image --topic joint_states=/camera/image_raw",
        ("one_image: /camera/image_raw is of type sensor_msgs/msg/Image", "--topic joint_states=NAME"),
    ),
    Case("sim", ("ROS_DOMAIN_ID is 'abc'", "0 to 232"), {"ROS_DOMAIN_ID": "abc"}, needs="standalone"),
    Case("demo --out d", ("ROS_DOMAIN_ID is '999'", "0 to 232"), {"ROS_DOMAIN_ID": "999"}, needs="standalone"),
    Case("sim", (APT,), {"MUJOCO_GL": "disabled"}, needs="node mujoco"),
    Case("demo --out d", (APT,), {"MUJOCO_GL": "disabled"}, needs="node mujoco"),
    Case("sim", (APT,), {"PYTHONPATH": "no_egl", "MUJOCO_GL": None, "DISPLAY": None}, needs="node mujoco"),
    Case("sim", (APT,), {"PYTHONPATH": "no_egl", "MUJOCO_GL": "egl"}, needs="node mujoco"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with everything that is wrong, and what is right beside it."""
    root = tmp_path_factory.mktemp("bad")
    shutil.copytree(tiny_model, root / "model")
    shutil.copytree(tiny_model, root / "changed")
    with (root / "changed" / "model.onnx").open("ab") as model:
        model.write(b" ")
    stick = stick_robot(root / "stick")
    preset = yaml.safe_load((root / "stick" / "robot.yaml").read_text())
    preset["joints"]["elbow"] = preset["joints"].pop("joint2")
    preset["urdf"] = "stick/stick.urdf"
    (root / "joint.yaml").write_text(yaml.safe_dump(preset, sort_keys=False))
    schedule_of_stick = make_schedule(stick, duration_s=12.0, seed=0)
    schedule_of_stick.save(root / "stick.yaml")
    make_schedule(load_robot("arm6"), duration_s=12.0, seed=0).save(root / "good.yaml")
    schedule = yaml.safe_load((root / "good.yaml").read_text())
    (root / "key.yaml").write_text(yaml.safe_dump({**schedule, "tempo": 3}))
    schedule["segments"][0][5] = 1.4
    (root / "outside.yaml").write_text(yaml.safe_dump(schedule))
    (root / "malformed.yaml").write_text("schema: 1\nsegments: [\n")
    (root / "file").write_text("")
    for name in ("no_images", "no_states"):
        writer = BagWriter(
            root / name, robot="stick", schedule_yaml=schedule_of_stick.to_yaml(), schedule_hash=schedule_of_stick.hash
        )
        with writer:
            topic, kind = ("joint_states", "JointState") if name == "no_images" else ("image", "Image")
            writer.add_topic(TOPICS[topic], f"sensor_msgs/msg/{kind}")
            writer.write(TOPICS[topic], image_cdr(1, np.zeros((48, 64, 3), dtype=np.uint8)), 1)
    arm = load_robot("arm6")
    schedule_of_arm = make_schedule(arm, duration_s=12.0, seed=0)
    with BagWriter(
        root / "one_image", robot="arm6", schedule_yaml=schedule_of_arm.to_yaml(), schedule_hash=schedule_of_arm.hash
    ) as writer:
        writer.add_topic(TOPICS["image"], "sensor_msgs/msg/Image")
        writer.add_topic(TOPICS["joint_states"], "sensor_msgs/msg/JointState")
        writer.write(TOPICS["image"], image_cdr(1, familiar(0)), 1)
        writer.write(TOPICS["joint_states"], joint_states_cdr(1, arm.joint_names, arm.home), 1)
    write_synthetic_bag(root / "stick_bag", frames=60)
    for name in ("version", "truncated"):
        shutil.copytree(root / "stick_bag", root / name)
    metadata = root / "version" / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("schema_version: '1'", "schema_version: '7'"))
    (storage,) = (root / "truncated").glob("*.mcap")
    os.truncate(storage, storage.stat().st_size * 2 // 3)
    (root / "no_egl").mkdir()
    (root / "no_egl" / "sitecustomize.py").write_text(NO_EGL)
    return root


def skip_without(needs: str) -> None:
    for need in needs.split():
        if need in ("node", "standalone"):
            if not has_rclpy():
                pytest.skip("neither rclpy nor cyclonedds is installed")
            if need == "standalone" and has_ros():
                pytest.skip("rclpy speaks for itself")
        else:
            pytest.importorskip(need)


def assert_one_line(command: Command, *names: str) -> None:
    assert command.process.returncode not in (0, None, -signal.SIGKILL), command.out + command.err
    lines = [line for line in command.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, command.err
    assert "Traceback" not in command.err + command.out, command.err
    for name in names:
        assert name in lines[0]
    assert command.gone(), command.running()


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join([case.arguments, *case.environment]))
def test_a_mistake_is_told_in_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch, case: Case) -> None:
    skip_without(case.needs)
    isolate(monkeypatch)
    before = sorted(path.name for path in folder.iterdir())
    environment = dict(case.environment)
    if environment.get("PYTHONPATH"):
        environment["PYTHONPATH"] = str(folder / str(environment["PYTHONPATH"]))
    with ropes(folder, *case.arguments.split(), environment=environment) as command:
        command.end()
        assert_one_line(command, *case.names)
    after = {path.name for path in folder.iterdir() if path.suffix not in (".out", ".err")} - set(before)
    assert after <= {"t", "d"}  # no bag, no model, no schedule


@pytest.mark.parametrize(
    "arguments", ["estimate camera/image_raw --model {0}/model", "record bag --schedule {0}/good.yaml --no-command"]
)
def test_another_type_on_the_cameras_topic_is_said_once(
    rclpy: Any, folder: Path, tmp_path: Path, arguments: str
) -> None:
    from std_msgs.msg import String

    rclpy.init(args=[])
    other = rclpy.create_node("other")
    publisher = other.create_publisher(String, "/camera/image_raw", 10)
    other.create_timer(0.05, lambda: publisher.publish(String(data="not an image")))
    try:
        with ropes(tmp_path, *arguments.format(folder).split()) as command:

            def lines() -> list[str]:
                rclpy.spin_once(other, timeout_sec=0.02)
                return [line for line in command.err.splitlines() if "std_msgs/msg/String" in line]

            command.wait_until(lines, "the conflict is said")
            end = time.monotonic() + 0.5
            while time.monotonic() < end:
                assert len(lines()) == 1
            assert "/camera/image_raw" in lines()[0] and "sensor_msgs/msg/Image" in lines()[0]
            command.process.send_signal(signal.SIGINT)
            assert command.end() == 0, command.err
            assert "Traceback" not in command.err
            assert command.gone(), command.running()
    finally:
        other.destroy_node()
    if (tmp_path / "bag").exists():
        with open_bag(tmp_path / "bag") as bag:
            assert "/camera/image_raw" not in bag.topics


def test_a_full_disk_ends_the_recording_and_leaves_what_was_written(rclpy: Any, folder: Path, tmp_path: Path) -> None:
    from sensor_msgs.msg import Image

    rclpy.init(args=[])
    other = rclpy.create_node("camera")
    publisher = other.create_publisher(Image, "/camera/image_raw", 10)
    limited = ["bash", "-c", 'ulimit -f 300 && exec "$@"', "bash", *ROPES]  # 300 KiB a file
    sent: list[bytes] = []

    def send() -> None:
        sent.append(image_cdr(len(sent) + 1, unfamiliar(len(sent))))
        publisher.publish(sent[-1])

    other.create_timer(0.02, send)
    try:
        arguments = ("record", "bag", "--schedule", folder / "good.yaml", "--no-command")
        with Command(tmp_path, [*limited, *arguments]) as record:
            deadline = time.monotonic() + 60.0
            while record.process.poll() is None:
                assert time.monotonic() < deadline, record.err
                rclpy.spin_once(other, timeout_sec=0.05)
            assert_one_line(record, "bag", "cannot be written (File too large)", "make room", "`ropes recover ")
    finally:
        other.destroy_node()
    with ropes(tmp_path, "recover", "bag") as mend:
        assert mend.end() == 0, mend.err
    with open_bag(tmp_path / "bag") as bag:
        kept = [entry.data for entry in bag.messages(["/camera/image_raw"])]
    first = sent.index(kept[0])
    assert kept == sent[first : first + len(kept)]
    assert len(kept) > 10

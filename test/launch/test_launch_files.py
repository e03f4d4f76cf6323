"""The launch files under ROS 2: nodes come up, publish and go down with status 0; what cannot start gives status 1."""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "test"))

from command import ROPES, Command
from staging import isolate

from ropes_ros.bags import open_bag
from ropes_ros.errors import RopesError
from ropes_ros.processes import has_ros

START_S = 90.0
"""How long nodes may take to come up on a busy machine."""
FILES = sorted(path.name for path in (ROOT / "launch").glob("*.launch.py"))
ACTIVE = 3
"""lifecycle_msgs/State.PRIMARY_STATE_ACTIVE."""


def lacking() -> str:
    """What these tests lack on this machine; empty when nothing."""
    if not has_ros():
        return "rclpy is not installed: source ROS 2"
    if importlib.util.find_spec("launch_ros") is None or shutil.which("ros2") is None:
        return "launch is not installed: source ROS 2"
    from ament_index_python.packages import PackageNotFoundError, get_package_prefix

    try:
        get_package_prefix("ropes_ros")
    except PackageNotFoundError:
        return "ropes_ros is in no sourced workspace: colcon build, source install/setup.bash"
    return ""


LACKING = lacking()
pytestmark = pytest.mark.skipif(bool(LACKING), reason=LACKING or "-")


def needs_simulator() -> None:
    """Skip where the built-in arm cannot be drawn."""
    pytest.importorskip("mujoco")
    try:
        import ropes_ros.sim.scene  # noqa: F401
    except RopesError as error:
        pytest.skip(str(error))


class Observer:
    """A node of this process that hears topics and asks for lifecycle states."""

    def __init__(self) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        rclpy.init()
        self.node = rclpy.create_node("observer")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)

    def hear(self, kind: Any, topic: str, *, latched: bool = False) -> list[Any]:
        """A list that fills with the topic's messages."""
        from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy

        heard: list[Any] = []
        durability = QoSDurabilityPolicy.TRANSIENT_LOCAL if latched else QoSDurabilityPolicy.VOLATILE
        reliability = QoSReliabilityPolicy.RELIABLE if latched else QoSReliabilityPolicy.BEST_EFFORT
        profile = QoSProfile(depth=10, durability=durability, reliability=reliability)
        self.node.create_subscription(kind, topic, heard.append, profile)
        return heard

    def spun(self, condition: Callable[[], object]) -> Callable[[], object]:
        """The condition, looked at after a moment of spinning."""

        def look() -> object:
            self._executor.spin_once(timeout_sec=0.05)
            return condition()

        return look

    def is_active(self, name: str) -> Callable[[], bool]:
        """Whether a lifecycle node says that it is active; asks again and again."""
        from lifecycle_msgs.srv import GetState

        client = self.node.create_client(GetState, f"/{name}/get_state")
        pending: list[Any] = []

        def active() -> bool:
            if pending and pending[0].done():
                state = pending.pop().result().current_state.id
                if state == ACTIVE:
                    return True
            if not pending and client.service_is_ready():
                pending.append(client.call_async(GetState.Request()))
            return False

        return active

    def close(self) -> None:
        import rclpy

        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown()


@pytest.fixture
def observer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Observer]:
    isolate(monkeypatch)
    made = Observer()
    yield made
    made.close()


def launched(folder: Path, file: str, **arguments: object) -> Command:
    return Command(folder, ["ros2", "launch", "ropes_ros", file, *(f"{k}:={v}" for k, v in arguments.items())])


def ended(command: Command, interrupt: bool = True) -> int:
    """The launch's exit status, after an interrupt as from the keyboard."""
    if interrupt:
        command.process.send_signal(signal.SIGINT)
    return command.process.wait(timeout=START_S)


@pytest.mark.parametrize("file", FILES)
def test_arguments_are_shown_with_their_descriptions(file: str) -> None:
    done = subprocess.run(["ros2", "launch", "ropes_ros", file, "--show-args"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "'robot':" in done.stdout
    assert "no description given" not in done.stdout


def test_ros2_finds_every_executable() -> None:
    done = subprocess.run(["ros2", "pkg", "executables", "ropes_ros"], capture_output=True, text=True, check=True)
    assert {f"ropes_ros {name}" for name in ("commander", "estimator", "recorder", "ropes", "sim_arm")} <= set(
        done.stdout.splitlines()
    )


def test_the_simulated_arm_comes_up_publishes_and_goes_down(observer: Observer, tmp_path: Path) -> None:
    needs_simulator()
    from sensor_msgs.msg import Image, JointState

    images, states = observer.hear(Image, "/camera/image_raw"), observer.hear(JointState, "/joint_states")
    with launched(tmp_path, "sim.launch.py", camera_rate=10.0) as command:
        command.wait_until(observer.spun(observer.is_active("sim_arm")), "sim_arm is active", START_S)
        command.wait_until(observer.spun(lambda: images and states), "images and joint states", START_S)
        assert ended(command) == 0, command.out + command.err
    assert (images[0].encoding, len(states[0].position)) == ("rgb8", 6)


def test_the_estimator_comes_up_says_what_it_runs_and_goes_down(observer: Observer, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from diagnostic_msgs.msg import DiagnosticArray
    from std_msgs.msg import String

    info = observer.hear(String, "/estimator/model_info", latched=True)
    diagnostics = observer.hear(DiagnosticArray, "/diagnostics")
    with launched(tmp_path, "estimate.launch.py") as command:
        command.wait_until(observer.spun(observer.is_active("estimator")), "estimator is active", START_S)
        command.wait_until(observer.spun(lambda: info and diagnostics), "model_info and diagnostics", START_S)
        assert ended(command) == 0, command.out + command.err
    assert json.loads(info[0].data)["robot"] == "arm6"


def test_the_estimator_estimates_what_the_simulator_shows(observer: Observer, tmp_path: Path) -> None:
    needs_simulator()
    pytest.importorskip("onnxruntime")
    from sensor_msgs.msg import JointState

    estimates = observer.hear(JointState, "/estimator/joint_states")
    with (
        launched(tmp_path, "sim.launch.py", camera_rate=5.0) as simulator,
        launched(tmp_path, "estimate.launch.py") as command,
    ):
        command.wait_until(observer.spun(lambda: estimates), "an estimate", START_S)
        assert [ended(command), ended(simulator)] == [0, 0], command.out + command.err + simulator.out
    assert list(estimates[0].name) == [f"joint{number}" for number in range(1, 7)]


def test_a_schedule_is_commanded_and_recorded_and_ends_the_launch(observer: Observer, tmp_path: Path) -> None:
    needs_simulator()
    schedule = tmp_path / "schedule.yaml"
    make = [*ROPES, "schedule", "make", "--minutes", "0.5", "--save", schedule]
    subprocess.run(make, check=True, capture_output=True)
    with launched(tmp_path, "sim.launch.py", camera_rate=5.0) as simulator:
        simulator.wait_until(observer.spun(observer.is_active("sim_arm")), "sim_arm is active", START_S)
        with launched(tmp_path, "record.launch.py", schedule=schedule, path=tmp_path / "bag", armed="true") as command:
            assert ended(command, interrupt=False) == 0, command.out + command.err
        assert ended(simulator) == 0
    with open_bag(tmp_path / "bag") as bag:
        assert bag.schedule.robot == "arm6"
        assert all(bag.has(role) for role in ("image", "camera_info", "joint_command", "joint_states", "regime"))


@pytest.mark.parametrize(
    "file, arguments, said",
    [
        ("record.launch.py", {"schedule": "nowhere.yaml", "path": "bag"}, "nowhere.yaml cannot be read"),
        ("estimate.launch.py", {"model": "nowhere"}, "nowhere: no such model"),
        ("estimate.launch.py", {"robot": "nope"}, "unknown robot 'nope'"),
        ("sim.launch.py", {"robot": "nope"}, "unknown robot 'nope'"),
        ("sim.launch.py", {"rviz": "maybe"}, "rviz:=maybe must be true or false"),
        ("estimate.launch.py", {"foxglove": "maybe"}, "foxglove:=maybe must be true or false"),
        ("record.launch.py", {"schedule": "s", "path": "bag", "assume_home": "maybe"}, "assume_home:=maybe must be"),
        ("demo.launch.py", {"rviz": "maybe"}, "rviz:=maybe must be true or false"),
    ],
)
def test_what_cannot_start_ends_the_launch_with_status_1_and_says_why(
    file: str, arguments: dict[str, str], said: str, observer: Observer, tmp_path: Path
) -> None:
    if file == "sim.launch.py":
        needs_simulator()
    with launched(tmp_path, file, **arguments) as command:
        assert ended(command, interrupt=False) == 1, command.out + command.err
        assert said in command.out + command.err
        assert command.gone(), command.running()

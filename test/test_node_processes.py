"""The nodes as processes, under real rclpy or the standalone runtime: how they end, and what they say of it."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from command import Command
from staging import has_rclpy, isolate
from synthetic import stick_robot

from ropes_ros.bags import open_bag
from ropes_ros.processes import node_command
from ropes_ros.regimes import NONE, make_schedule, regime_from_msg


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A robot and a schedule for it."""
    path = tmp_path_factory.mktemp("prepared")
    make_schedule(stick_robot(path / "robot"), duration_s=20.0, seed=0).save(path / "schedule.yaml")
    return path


class Watcher:
    """A robot, and a node that follows the regimes."""

    def __init__(self, kind: type) -> None:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.qos import QoSDurabilityPolicy, QoSProfile

        rclpy.init(args=[])
        self.robot, self.watcher = rclpy.create_node("robot"), rclpy.create_node("watcher")
        self.commands: list[Any] = []
        self.regimes: list[Any] = []
        latched = QoSProfile(depth=100, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
        self.robot.create_subscription(kind, "joint_command", self.commands.append, 100)
        self.watcher.create_subscription(DiagnosticArray, "ropes/regime", self.regimes.append, latched)
        self._executor = SingleThreadedExecutor()
        for node in (self.robot, self.watcher):
            self._executor.add_node(node)

    def spin(self, condition: Any = lambda: False, seconds: float = 30.0) -> bool:
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            self._executor.spin_once(timeout_sec=0.02)
        return bool(condition())

    def close(self) -> None:
        for node in (self.robot, self.watcher):
            self._executor.remove_node(node)
            node.destroy_node()


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if not has_rclpy():
        pytest.skip("neither rclpy nor cyclonedds is installed")
    isolate(monkeypatch)
    yield
    import rclpy

    rclpy.try_shutdown()


@contextmanager
def moving_commander(folder: Path, tmp_path: Path, command_type: str) -> Iterator[tuple[Command, Watcher]]:
    """A commander of which a label has been heard, and who hears it."""
    from std_msgs.msg import Float64MultiArray
    from trajectory_msgs.msg import JointTrajectory

    parameters = {
        "robot": str(folder / "robot" / "robot.yaml"),
        "schedule": str(folder / "schedule.yaml"),
        "command_type": command_type,
        "assume_home": True,
        "armed": True,
    }
    watcher = Watcher(JointTrajectory if command_type == "JointTrajectory" else Float64MultiArray)
    try:
        with Command(tmp_path, node_command("commander", parameters)) as commander:

            def labelled() -> bool:
                states = [regime_from_msg(message) for message in watcher.regimes]
                return any(level != NONE for state in states for level in state.levels)

            assert watcher.spin(labelled), commander.err
            yield commander, watcher
    finally:
        watcher.close()


@pytest.mark.parametrize(
    ("number", "command_type"), [(signal.SIGINT, "JointTrajectory"), (signal.SIGTERM, "Float64MultiArray")]
)
def test_a_signal_to_a_moving_commander_brakes_the_robot(
    domain: None, folder: Path, tmp_path: Path, number: int, command_type: str
) -> None:
    with moving_commander(folder, tmp_path, command_type) as (commander, watcher):
        watcher.spin(seconds=1.0)
        commander.process.send_signal(number)
        assert watcher.spin(lambda: commander.process.poll() is not None), "it does not end"
        watcher.spin(seconds=0.3)
        assert commander.process.returncode == 0, commander.err
        assert regime_from_msg(watcher.regimes[-1]).levels == (NONE, NONE)
        if command_type == "JointTrajectory":
            last = watcher.commands[-1].points[-1]
            assert last.time_from_start.sec == 0 and not np.any(last.velocities)
        else:
            last_steps = np.abs(np.diff([list(message.data) for message in watcher.commands[-3:]], axis=0))
            assert last_steps[-1].max() < 0.005


@pytest.mark.parametrize("command_type", ["JointTrajectory", "Float64MultiArray"])
def test_a_killed_commander_says_nothing_more_and_leaves_a_stop(
    domain: None, folder: Path, tmp_path: Path, command_type: str
) -> None:
    with moving_commander(folder, tmp_path, command_type) as (commander, watcher):
        commander.process.kill()
        assert watcher.spin(lambda: commander.process.poll() is not None), "it does not end"
        watcher.spin(seconds=0.5)  # what was under way arrives
        sent, said = len(watcher.commands), len(watcher.regimes)
        watcher.spin(seconds=1.5)
        assert (len(watcher.commands), len(watcher.regimes)) == (sent, said)
        if command_type == "JointTrajectory":
            assert not np.any(watcher.commands[-1].points[-1].velocities)
        held = [regime_from_msg(message) for message in watcher.regimes]
        assert max(max(state.until_ns) for state in held) < time.time_ns() + 2_000_000_000


def recorder(folder: Path, bag: Path, **more: object) -> list[str]:
    return node_command("recorder", {"robot": str(folder / "robot" / "robot.yaml"), "path": str(bag), **more})


def test_a_recording_without_an_image_fails_with_one_line_and_a_whole_bag(
    domain: None, folder: Path, tmp_path: Path
) -> None:
    with Command(tmp_path, recorder(folder, tmp_path / "bag", image_topic="/front/image")) as recording:
        recording.wait_until(lambda: "recording to" in recording.err + recording.out, "it records")
        recording.process.send_signal(signal.SIGINT)
        assert recording.end() == 1
        (line,) = [line for line in recording.err.splitlines() if "ERROR" in line]
    assert "bag holds no image" in line and "/front/image" in line
    with open_bag(tmp_path / "bag") as bag:
        assert bag.header is not None and bag.header.state == "complete"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_node_is_still_importing_ends_it_without_a_word(
    domain: None, tmp_path: Path, number: int
) -> None:
    script = (
        "import os, sys, time\n"
        "from importlib.abc import MetaPathFinder\n"
        "class Interrupt(MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'ropes_ros.nodes.common':\n"
        f"            os.kill(os.getpid(), {int(number)})\n"
        "            time.sleep(10.0)\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from ropes_ros.run import estimator\n"
        "sys.exit(estimator())\n"
    )
    with Command(tmp_path, [sys.executable, "-c", script]) as process:
        assert process.end() == 0, process.err
        assert process.out + process.err == ""


def test_signals_do_nothing_once_a_node_is_taken_down(domain: None, tmp_path: Path) -> None:
    """A second interrupt, as a terminal and a launch send one each, comes while Python itself is ending."""
    script = (
        "import atexit, os, signal, sys\n"
        "from ropes_ros.processes import has_ros\n"
        "if not has_ros():\n"
        "    from ropes_ros import standalone\n"
        "    standalone.install()\n"
        "import rclpy\n"
        "from ropes_ros.nodes.common import run\n"
        "class Late:\n"
        "    def __del__(self):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "late = Late()\n"
        "sys.modules['late'] = late\n"
        "def make():\n"
        "    node = rclpy.create_node('brief')\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    return node\n"
        "sys.exit(run(make, []))\n"
    )
    with Command(tmp_path, [sys.executable, "-c", script]) as process:
        assert process.end() == 0, process.err


def test_a_transition_that_the_state_does_not_allow_is_refused_and_the_node_goes_on(
    domain: None, folder: Path, tmp_path: Path
) -> None:
    """As a second launch of the same name asks for it: a node that is active is told to configure itself."""
    import rclpy
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState

    rclpy.init(args=[])
    node = rclpy.create_node("manager")
    client = node.create_client(ChangeState, "/recorder/change_state")
    request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
    try:
        with Command(tmp_path, recorder(folder, tmp_path / "bag")) as recording:
            recording.wait_until(lambda: "recording to" in recording.err + recording.out, "it records")
            recording.wait_until(client.service_is_ready, "its service is there")
            for _ in range(2):
                answer = client.call_async(request)
                recording.wait_until(
                    lambda asked=answer: rclpy.spin_once(node, timeout_sec=0.05) or asked.done(), "it answers"
                )
                assert not answer.result().success
            recording.process.send_signal(signal.SIGINT)
            assert recording.end() == 1  # there was no image
            assert "Traceback" not in recording.err
    finally:
        node.destroy_node()


def test_a_transition_service_that_raises_answers_all_the_same(domain: None) -> None:
    """What rclpy does on a transition that is not allowed, where the standalone runtime answers by itself."""
    from ropes_ros.nodes.common import refuse_transitions

    def refuse(request: Any, response: Any) -> Any:
        raise RuntimeError("Transition is not registered")

    warnings: list[str] = []
    services = [SimpleNamespace(srv_name=f"/arm/{name}", callback=refuse) for name in ("change_state", "get_state")]
    refuse_transitions(
        SimpleNamespace(services=services, get_logger=lambda: SimpleNamespace(warning=warnings.append))
    )
    request = SimpleNamespace(transition=SimpleNamespace(id=1, label=""))
    assert services[0].callback(request, SimpleNamespace(success=True)).success is False
    assert warnings == ["transition 1: Transition is not registered"]
    assert services[1].callback is refuse


def test_a_refused_parameter_is_told_in_one_line(domain: None, folder: Path, tmp_path: Path) -> None:
    with Command(tmp_path, recorder(folder, tmp_path / "bag", fsync="maybe")) as recording:
        assert recording.end() == 1
        assert "Traceback" not in recording.err
        assert recording.err.splitlines()[-1].startswith("error: ") and "fsync" in recording.err.splitlines()[-1]

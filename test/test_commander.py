"""The commander node against a stand-in for rclpy that keeps what is published and moves time by hand."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ropes_ros.command_messages import apply_command
from ropes_ros.errors import RopesError
from ropes_ros.motion import Trajectory
from ropes_ros.regimes import NONE, RegimeTimeline, Schedule, make_schedule, regime_from_msg, regime_to_msg
from ropes_ros.robot import load_robot
from ropes_ros.standalone.diagnostics import Updater, status_wrapper
from ropes_ros.standalone.messages import deserialize_message, interface_modules, message_class, serialize_message
from ropes_ros.trajectory import TrajectoryBuffer

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND
ROBOT = load_robot("arm6")
Time: Any = message_class("builtin_interfaces/msg/Time")


class Publisher:
    def __init__(self, topic: str, qos: Any) -> None:
        self.topic, self.qos, self.active, self.always = topic, qos, False, False
        self.listeners = ["robot"] if topic == "joint_command" else ["recorder"]
        self.sent: list[Any] = []

    def publish(self, message: Any) -> None:
        if self.active:
            self.sent.append(deserialize_message(serialize_message(message), type(message)))

    def get_subscription_count(self) -> int:
        return len(self.listeners)

    def wait_for_all_acked(self, timeout: Any) -> bool:
        return True


class World:
    """Time, parameters and publishers of the one node under test."""

    def __init__(self) -> None:
        self.now_ns = NOW
        self.steady_ns = 77 * SECOND
        self.ok = True
        self.parameters: dict[str, Any] = {"use_sim_time": False}
        self.robot: Callable[[], None] | None = None
        self.publishers: dict[str, Publisher] = {}
        self.subscriptions: dict[str, Callable[[Any], None]] = {}
        self.services: dict[str, Callable[[], Any]] = {}
        self.timers: list[SimpleNamespace] = []
        self.log: list[tuple[str, str]] = []
        self.init_error: Exception | None = None

    def run(self, seconds: float, *, ticking: bool = True) -> None:
        end = self.steady_ns + round(seconds * SECOND)
        while self.ok and self.steady_ns < end:
            due = min((timer.due for timer in self.timers), default=end)
            passed = max(0, min(due, end) - self.steady_ns)
            self.steady_ns += passed
            self.now_ns += passed
            if self.robot is not None and ticking:
                self.robot()
            for timer in [timer for timer in self.timers if timer.due <= self.steady_ns and self.steady_ns < end]:
                timer.due += timer.period
                if ticking and timer in self.timers:
                    try:
                        timer.callback()
                    except SystemExit:
                        self.ok = False


def _lifecycle_node(world: World) -> type:
    class Node:
        def __init__(self, name: str) -> None:
            self.name = name

        def declare_parameter(self, name: str, default: Any, descriptor: Any = None) -> Any:
            world.parameters.setdefault(name, default)
            return self.get_parameter(name)

        def get_parameter(self, name: str) -> Any:
            return SimpleNamespace(value=world.parameters[name])

        def get_logger(self) -> Any:
            def level(kind: str) -> Callable[[str], None]:
                return lambda text, **_: world.log.append((kind, text))

            return SimpleNamespace(**{kind: level(kind) for kind in ("debug", "info", "warning", "error")})

        def get_clock(self) -> Any:
            seconds, nanoseconds = divmod(world.now_ns, SECOND)
            stamp = Time(sec=seconds, nanosec=nanoseconds)
            return SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=world.now_ns, to_msg=lambda: stamp))

        def get_name(self) -> str:
            return self.name

        def create_lifecycle_publisher(self, kind: Any, topic: str, qos: Any, **_: Any) -> Publisher:
            return world.publishers.setdefault(topic, Publisher(topic, qos))

        def create_publisher(self, kind: Any, topic: str, qos: Any) -> Publisher:
            publisher = self.create_lifecycle_publisher(kind, topic, qos)
            publisher.active = publisher.always = True
            return publisher

        def create_service(self, kind: Any, name: str, callback: Any) -> None:
            world.services[name] = lambda: callback(kind.Request(), kind.Response())

        def get_subscriptions_info_by_topic(self, topic: str) -> list[Any]:
            return [SimpleNamespace(node_name=name, node_namespace="/") for name in world.publishers[topic].listeners]

        def create_subscription(self, kind: Any, topic: str, callback: Any, qos: Any, **_: Any) -> str:
            world.subscriptions[topic] = callback
            return topic

        def destroy_subscription(self, topic: str) -> None:
            del world.subscriptions[topic]

        def create_timer(self, period: float, callback: Any, clock: Any = None) -> Any:
            step = round(period * SECOND)
            timer = SimpleNamespace(period=step, due=world.steady_ns + step, callback=callback)
            timer.cancel = lambda: world.timers.remove(timer)
            world.timers.append(timer)
            return timer

        def destroy_timer(self, timer: Any) -> None:
            world.timers.remove(timer)

        def destroy_lifecycle_publisher(self, publisher: Publisher) -> None:
            del world.publishers[publisher.topic]

        def on_activate(self, state: Any) -> None:
            for publisher in world.publishers.values():
                publisher.active = True

        def on_deactivate(self, state: Any) -> None:
            for publisher in world.publishers.values():
                publisher.active = publisher.always

    return Node


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World()

    def init(*, args: Any, signal_handler_options: Any) -> None:
        if world.init_error is not None:
            raise world.init_error

    result = Enum("TransitionCallbackReturn", ["SUCCESS", "FAILURE", "ERROR"])
    modules = {
        "diagnostic_updater": {"DiagnosticStatusWrapper": status_wrapper(), "Updater": Updater},
        "rclpy": {"init": init, "ok": lambda: world.ok, "try_shutdown": lambda: None},
        "rclpy.callback_groups": {"MutuallyExclusiveCallbackGroup": SimpleNamespace},
        "rclpy.clock": {
            "Clock": lambda clock_type: SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=world.steady_ns)),
            "ClockType": SimpleNamespace(STEADY_TIME=2),
        },
        "rclpy.duration": {"Duration": SimpleNamespace},
        "rclpy.exceptions": {
            name: type(name, (Exception,), {}) for name in ("NameValidationException", "ParameterException")
        },
        "rclpy.executors": {
            "ExternalShutdownException": type("ExternalShutdownException", (Exception,), {}),
            "SingleThreadedExecutor": object,
        },
        "rclpy.qos_overriding_options": {"QoSOverridingOptions": SimpleNamespace(with_default_policies=lambda: None)},
        "rclpy.signals": {"SignalHandlerOptions": SimpleNamespace(NO=0)},
        "rclpy.lifecycle": {
            "LifecycleNode": _lifecycle_node(world),
            "LifecycleState": object,
            "TransitionCallbackReturn": result,
        },
        "rclpy.task": {"Future": SimpleNamespace},
        "rclpy.qos": {
            "QoSProfile": SimpleNamespace,
            "QoSReliabilityPolicy": SimpleNamespace(RELIABLE="reliable"),
            "QoSDurabilityPolicy": SimpleNamespace(TRANSIENT_LOCAL="transient local"),
            "qos_profile_sensor_data": None,
        },
    }
    for name, content in modules.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    for name, module in interface_modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("ropes_ros.nodes.common", "ropes_ros.nodes.commander"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield world
    for number, handler in handlers.items():
        signal.signal(number, handler)
    for name in ("ropes_ros.nodes.common", "ropes_ros.nodes.commander"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def schedule_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("schedule") / "schedule.yaml"
    make_schedule(ROBOT, duration_s=20.0, seed=2).save(path)
    return path


def _configured(world: World, **parameters: Any) -> tuple[Any, bool]:
    from ropes_ros.nodes.commander import Commander

    world.parameters.update(parameters)
    node = Commander()
    return node, node.on_configure(None).name == "SUCCESS"


def _active(world: World, **parameters: Any) -> Any:
    """An active commander, of a robot without joint states that is at home unless it is said otherwise."""
    node, configured = _configured(world, **{"assume_home": True, "armed": True, **parameters})
    assert configured, world.log
    node.on_activate(None)
    return node


def _joint_states(positions: np.ndarray, names: tuple[str, ...] = ROBOT.joint_names, stamp_ns: int = 0) -> Any:
    seconds, nanoseconds = divmod(stamp_ns, SECOND)
    header = SimpleNamespace(stamp=Time(sec=seconds, nanosec=nanoseconds))
    return SimpleNamespace(header=header, name=list(names), position=positions.tolist())


class Arm:
    """A robot that follows what it is sent, 0.1 s late, and says 50 times a second where it is; it can be broken."""

    def __init__(self, world: World, command_type: str = "JointTrajectory") -> None:
        self.world, self.type = world, command_type
        self.buffer = TrajectoryBuffer(ROBOT.home, ROBOT.lower, ROBOT.upper, kept_ns=SECOND)
        self.taken = 0
        self.refuses = False
        self.stuck: int | None = None
        self.silent = self.frozen = False
        self.offset = np.zeros(6)
        self.at = ROBOT.home.copy()
        self.said_ns = self.skew_ns = 0
        self.stamp_ns = 0
        self.positions: list[np.ndarray] = []
        world.robot = self.live

    def live(self) -> None:
        now_ns = self.world.now_ns - self.skew_ns
        sent = self.world.publishers["joint_command"].sent if "joint_command" in self.world.publishers else []
        for message in sent[self.taken :]:
            if not self.refuses:
                apply_command(message, self.type, ROBOT, self.buffer, now_ns)
        self.taken = len(sent)
        if abs(now_ns - self.said_ns) < 20_000_000:
            return
        self.said_ns = now_ns
        goal = self.buffer.sample(now_ns - SECOND // 10)
        if self.stuck is not None:
            goal[self.stuck] = self.at[self.stuck]
        self.at = goal
        self.positions.append(goal)
        if not self.frozen:
            self.stamp_ns = self.world.now_ns
        if not self.silent and "joint_states" in self.world.subscriptions:
            self.world.subscriptions["joint_states"](_joint_states(goal + self.offset, stamp_ns=self.stamp_ns))

    def rests(self) -> bool:
        """Whether the robot comes to rest at once, and stays so."""
        self.silent = True
        for _ in range(100):
            self.world.now_ns += 20_000_000
            self.live()
        recent = np.array(self.positions[-80:])
        return bool(np.ptp(recent, axis=0).max() < 1e-6)


def _diagnostics(world: World) -> dict[str, str]:
    status = world.publishers["/diagnostics"].sent[-1].status[0]
    return {"message": status.message, **{pair.key: pair.value for pair in status.values}}


def _reporting(world: World) -> SimpleNamespace:
    """The timer of the diagnostics."""
    (timer,) = (timer for timer in world.timers if timer.period == SECOND)
    return timer


def _sent_labels(world: World, schedule: Schedule, times: np.ndarray) -> np.ndarray:
    states = [regime_from_msg(message, ROBOT.joint_names) for message in world.publishers["ropes/regime"].sent]
    return RegimeTimeline(states, schedule.joint_names, schedule.levels.ids).labels_at(times)


def test_a_whole_schedule_is_commanded_announced_and_ended(world: World, schedule_path: Path) -> None:
    _active(world, schedule=str(schedule_path), exit_when_done=True)
    schedule = Schedule.load(schedule_path)
    buffer = TrajectoryBuffer(ROBOT.home, ROBOT.lower, ROBOT.upper)
    sent = world.publishers["joint_command"].sent
    times, positions = [], []
    while world.ok and world.now_ns < NOW + 60 * SECOND:
        before = len(sent)
        world.run(0.02)
        for message in sent[before:]:
            assert apply_command(message, "JointTrajectory", ROBOT, buffer, world.now_ns)
        times.append(world.now_ns)
        positions.append(buffer.sample(world.now_ns))
    assert not world.ok, "the node has not ended the process"
    assert _diagnostics(world)["state"] == "done"
    assert _diagnostics(world)["schedule_hash"] == schedule.hash
    start_ns = int(_diagnostics(world)["start_ns"])
    elapsed = np.array(times) - start_ns
    assert 20.0 <= (times[-1] - start_ns) / SECOND < 21.0
    assert np.abs(np.array(positions) - Trajectory(ROBOT, schedule).positions_at(elapsed)).max() < 2e-3
    assert np.array_equal(_sent_labels(world, schedule, np.array(times)), schedule.labels_at(elapsed))
    last = regime_from_msg(world.publishers["ropes/regime"].sent[-1])
    assert last.levels == (NONE,) * 6
    assert world.publishers["ropes/regime"].qos.durability == "transient local"


def test_nothing_moves_until_everybody_listens(world: World, schedule_path: Path) -> None:
    node, _ = _configured(world, schedule=str(schedule_path), wait_for_recorder=True, assume_home=True, armed=True)
    commands, regimes = world.publishers["joint_command"], world.publishers["ropes/regime"]
    commands.listeners, regimes.listeners = [], []
    node.on_activate(None)
    clock, world.now_ns = world.now_ns, 0
    _reporting(world).callback()
    assert _diagnostics(world)["message"] == "waiting for the first /clock"
    world.now_ns = clock
    world.run(5.0)
    assert "listens to joint_command" in _diagnostics(world)["message"]
    assert ("info", "waiting for a robot that listens to joint_command") in world.log
    commands.listeners = regimes.listeners = ["recorder"]
    world.run(5.0)
    assert "listens to joint_command" in _diagnostics(world)["message"]
    commands.listeners, regimes.listeners = ["recorder", "arm"], []
    world.run(5.0)
    assert "recorder" in _diagnostics(world)["message"]
    assert _diagnostics(world)["state"] == "waiting"
    assert commands.sent == [] and regimes.sent == []
    regimes.listeners = ["recorder"]
    world.run(1.5)
    assert "joint_states" in _diagnostics(world)["message"]
    world.run(3.0)
    assert _diagnostics(world)["state"] == "running"
    assert commands.sent and regimes.sent


def test_the_robot_starts_from_where_joint_states_say(world: World, schedule_path: Path) -> None:
    _active(world, schedule=str(schedule_path))
    there = ROBOT.denormalise(np.array([0.5, 0.5, -0.5, 0.2, -0.2, 0.9]))
    order = [3, 1, 0, 5, 4, 2]
    world.subscriptions["joint_states"](_joint_states(there[:2], ROBOT.joint_names[:2]))
    names = tuple(ROBOT.joint_names[i] for i in order)
    world.subscriptions["joint_states"](_joint_states(there[order], names))
    world.run(0.7)
    message = world.publishers["joint_command"].sent[0]
    assert list(message.joint_names) == list(ROBOT.joint_names)
    assert np.allclose(message.points[0].positions, there)


def test_joint_states_may_come_in_parts_and_no_part_is_guessed(world: World, schedule_path: Path) -> None:
    """Whatever is assumed of a robot without joint states: half a position is not at home."""
    _active(world, schedule=str(schedule_path), assume_home=True)
    there = ROBOT.denormalise(np.array([0.5, 0.5, -0.5, 0.2, -0.2, 0.9]))
    sent = world.publishers["joint_command"].sent
    states = world.subscriptions["joint_states"]
    states(_joint_states(there[:4], ROBOT.joint_names[:4]))
    world.run(1.5)
    missing = ", ".join(ROBOT.joint_names[4:])
    assert _diagnostics(world)["message"] == f"waiting for the position of joint {missing} on joint_states"
    world.run(60.0)
    assert sent == [] and _diagnostics(world)["state"] == "waiting"
    states(_joint_states(there[4:], ROBOT.joint_names[4:]))
    world.run(1.0)
    assert sent == []  # the first half is a minute old
    states(_joint_states(there[:4], ROBOT.joint_names[:4]))
    world.run(0.6)
    assert np.allclose(sent[0].points[0].positions, there)


def test_a_position_that_is_not_a_number_is_never_commanded(world: World, schedule_path: Path) -> None:
    _active(world, schedule=str(schedule_path), assume_home=True)
    there = ROBOT.denormalise(np.array([0.5, 0.5, -0.5, 0.2, -0.2, 0.9]))
    sent = world.publishers["joint_command"].sent
    states, name = world.subscriptions["joint_states"], ROBOT.joint_names[1]
    for wrong in (np.nan, np.inf):
        broken = there.copy()
        broken[1] = wrong
        for _ in range(5):
            states(_joint_states(broken))
            world.run(1.0)
        assert sent == []
        assert _diagnostics(world)["message"] == f"waiting for the position of joint {name} on joint_states"
        assert ("warning", f"joint_states: the position of joint {name} is {wrong}, which is not used") in world.log
    states(_joint_states(there))
    world.run(0.6)
    assert np.allclose(sent[0].points[0].positions, there)


def test_a_robot_without_joint_states_is_at_home_only_where_that_is_said(world: World, schedule_path: Path) -> None:
    node = _active(world, schedule=str(schedule_path), assume_home=False)
    world.run(30.0)
    assert world.publishers["joint_command"].sent == []
    assert "assume_home" in _diagnostics(world)["message"]
    node.on_deactivate(None)
    world.parameters["assume_home"] = True
    node.on_activate(None)
    world.run(3.0)
    assert np.allclose(world.publishers["joint_command"].sent[0].points[0].positions, ROBOT.home)
    assert any(kind == "warning" and "assume_home" in text for kind, text in world.log)


@pytest.mark.parametrize("command_type", ["Float64MultiArray", "JointState"])
def test_single_targets_are_sent_as_they_are_due(world: World, schedule_path: Path, command_type: str) -> None:
    _active(world, schedule=str(schedule_path), command_type=command_type, exit_when_done=True)
    schedule = Schedule.load(schedule_path)
    trajectory = Trajectory(ROBOT, schedule)
    sent, times = world.publishers["joint_command"].sent, []
    while world.ok and world.now_ns < NOW + 60 * SECOND:
        before = len(sent)
        world.run(0.02)
        times += [world.now_ns] * (len(sent) - before)
    assert not world.ok
    start_ns = int(_diagnostics(world)["start_ns"])
    positions = np.array([m.data if command_type == "Float64MultiArray" else m.position for m in sent])
    slack = 0.03 * ROBOT.max_velocity
    assert (np.abs(positions - trajectory.positions_at(np.array(times) - start_ns)) <= slack).all()
    grid = np.arange(NOW, times[-1], 10_000_000)
    assert np.array_equal(_sent_labels(world, schedule, grid), schedule.labels_at(grid - start_ns))


def test_the_motion_is_stopped_and_started_anew_by_service(world: World, schedule_path: Path) -> None:
    _active(world, schedule=str(schedule_path))
    start, stop = world.services["~/start"], world.services["~/stop"]
    world.run(8.0)
    answer = start()
    assert not answer.success and "stop it first" in answer.message
    assert stop().success
    assert _diagnostics(world)["state"] == "stopped"
    commands = world.publishers["joint_command"].sent
    assert not any(commands[-1].points[-1].velocities)
    stopped_ns, sent = world.now_ns, len(commands)
    assert regime_from_msg(world.publishers["ropes/regime"].sent[-1]).levels == (NONE,) * 6
    assert not stop().success
    world.run(10.0)
    assert len(commands) == sent
    status = world.publishers["~/status"]
    assert (status.sent[-1].name, status.sent[-1].message) == ("commander: motion", "stopped")
    assert status.qos.durability == "transient local"
    assert start().success
    world.run(12.0)
    assert _diagnostics(world)["state"] == "running" and len(commands) > sent
    schedule = Schedule.load(schedule_path)
    start_ns = int(_diagnostics(world)["start_ns"])
    assert start_ns > stopped_ns + 10 * SECOND
    times = np.arange(start_ns, world.now_ns, SECOND // 10)
    assert np.array_equal(_sent_labels(world, schedule, times), schedule.labels_at(times - start_ns))


def test_services_of_an_inactive_commander_say_what_to_do(world: World, schedule_path: Path) -> None:
    _configured(world, schedule=str(schedule_path))
    for name in ("~/start", "~/stop"):
        answer = world.services[name]()
        assert not answer.success and "not active" in answer.message


def test_a_stalled_process_is_counted_and_said(world: World, schedule_path: Path) -> None:
    _active(world, schedule=str(schedule_path))
    world.run(10.0)
    world.run(8.0, ticking=False)
    world.run(3.0)
    assert _diagnostics(world)["late_chunks"] == "1"
    assert any(kind == "warning" and "too late" in text for kind, text in world.log)
    schedule = Schedule.load(schedule_path)
    times = np.arange(NOW + 14 * SECOND, NOW + 18 * SECOND, 10_000_000)
    assert (_sent_labels(world, schedule, times) == -1).all()


def test_deactivation_stops_the_robot_and_activation_begins_anew(world: World, schedule_path: Path) -> None:
    node = _active(world, schedule=str(schedule_path))
    world.run(8.0)
    node.on_deactivate(None)
    assert world.timers == [_reporting(world)]
    message = world.publishers["joint_command"].sent[-1]
    last = message.points[-1]
    assert not any(last.velocities)
    assert last.time_from_start.sec == 0
    regime = regime_from_msg(world.publishers["ropes/regime"].sent[-1])
    assert regime.levels == (NONE,) * 6 and regime.stamp_ns == world.now_ns
    node.on_activate(None)
    world.run(6.0)
    assert _diagnostics(world)["state"] == "running"
    node.on_deactivate(None)
    assert _diagnostics(world)["message"] == "not active"
    node.on_cleanup(None)
    assert set(world.publishers) == {"/diagnostics", "~/status"}


@pytest.mark.parametrize("command_type", ["Float64MultiArray", "JointState"])
def test_a_stop_leads_single_targets_to_rest(world: World, schedule_path: Path, command_type: str) -> None:
    node = _active(world, schedule=str(schedule_path), command_type=command_type)
    sent = world.publishers["joint_command"].sent
    limit = 1.01 * ROBOT.max_acceleration
    positions = np.zeros(())
    while world.now_ns < NOW + 20 * SECOND:
        world.run(0.02)
        positions = np.array([m.data if command_type == "Float64MultiArray" else m.position for m in sent[-3:]])
        if len(positions) == 3 and np.abs(np.diff(positions, axis=0)).max() > 0.5 * ROBOT.max_velocity.max() / 50:
            break
    before = len(sent)
    node.on_shutdown(None)
    ramp = np.array([m.data if command_type == "Float64MultiArray" else m.position for m in sent[before - 1 :]])
    assert len(ramp) > 3
    steps = np.diff(np.concatenate([positions[-2:-1], ramp]), axis=0) * 50
    assert (np.abs(np.diff(steps, axis=0)[1:]) * 50 <= 2 * limit).all(), "it brakes within the limits"
    assert np.abs(steps[-1]).max() < 0.1 * np.abs(steps[0]).max(), "it ends at rest"
    regime = regime_from_msg(world.publishers["ropes/regime"].sent[-1])
    assert regime.levels == (NONE,) * 6 and regime.stamp_ns == world.now_ns


def test_waypoints_end_by_themselves_without_labels(world: World) -> None:
    _active(world, motion="waypoints", duration=10.0, seed=4, exit_when_done=True)
    world.run(40.0)
    assert not world.ok
    regimes = [regime_from_msg(message) for message in world.publishers["ropes/regime"].sent]
    assert [regime.levels for regime in regimes] == [(NONE,) * 6]
    assert len(world.publishers["joint_command"].sent) > 15


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "parameter schedule is empty"),
        ({"schedule": "/no/such.yaml"}, "/no/such.yaml cannot be read"),
        ({"motion": "dance"}, "parameter motion is 'dance'"),
        ({"motion": "waypoints", "command_type": "Twist"}, "parameter command_type is 'Twist'"),
        ({"motion": "waypoints", "robot": "r2d2"}, "unknown robot 'r2d2'"),
        ({"motion": "waypoints", "horizon": 0.6}, "horizon must be at least twice"),
    ],
)
def test_bad_parameters_are_refused_with_one_line(world: World, parameters: dict[str, Any], message: str) -> None:
    _, configured = _configured(world, **parameters)
    assert not configured
    ((kind, text),) = world.log
    assert kind == "error" and message in text and "\n" not in text


def test_regime_message_round_trip_in_this_runtime(world: World, schedule_path: Path) -> None:
    _active(world, schedule=str(schedule_path))
    world.run(8.0)
    for message in world.publishers["ropes/regime"].sent:
        state = regime_from_msg(message, ROBOT.joint_names)
        again = regime_to_msg(state, ROBOT.joint_names)
        assert serialize_message(again) == serialize_message(message)


def test_errors_of_the_real_rclpy_are_told_in_one_line(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    from rclpy.exceptions import NameValidationException, ParameterException

    from ropes_ros.nodes.common import run

    def fail(error: Exception) -> Any:
        raise error

    for error in (
        ParameterException("Trying to set parameter 'fsync' to 'maybe' of type\n'STRING'"),
        NameValidationException("Invalid node name:\n  '3x'\n   ^"),
    ):
        assert run(lambda error=error: fail(error), []) == 1
        assert capsys.readouterr().err == f"error: {' '.join(str(error).split())}\n"
    world.init_error = RuntimeError("Found unknown ROS arguments: [--speed]")
    assert run(lambda: fail(AssertionError()), []) == 1
    assert capsys.readouterr().err == "error: Found unknown ROS arguments: [--speed]\n"


@pytest.mark.parametrize(("error", "result"), [(RopesError("no camera"), "FAILURE"), (ValueError("bug"), "ERROR")])
def test_what_a_transition_raises_is_logged(world: World, error: Exception, result: str) -> None:
    from rclpy.lifecycle import LifecycleNode

    from ropes_ros.nodes.common import told

    class Fails(LifecycleNode):  # type: ignore[misc]
        @told
        def on_configure(self, state: Any) -> Any:
            raise error

    assert Fails("fails").on_configure(None).name == result
    ((kind, text),) = world.log
    assert kind == "error" and str(error) in text
    assert ("Traceback" in text) == (result == "ERROR")


# --- armed, guards and pauses ------------------------------------------------------------------------------------


def _reason(world: World) -> str:
    """Why the robot was stopped, which log, diagnostics and regimes must agree on."""
    reason = _diagnostics(world)["stop_reason"]
    assert _diagnostics(world)["state"] == "stopped"
    assert _diagnostics(world)["message"] == f"stopped: {reason}"
    assert any(kind == "error" and text.startswith(f"stopped: {reason}") for kind, text in world.log)
    last = regime_from_msg(world.publishers["ropes/regime"].sent[-1], ROBOT.joint_names)
    assert last.stop_reason == reason and last.levels == (NONE,) * 6
    return reason


def _in_motion(world: World, schedule_path: Path, **parameters: Any) -> Arm:
    """A robot that follows a schedule, and a joint of it that has moved."""
    arm = Arm(world, parameters.get("command_type", "JointTrajectory"))
    _active(world, schedule=str(schedule_path), assume_home=False, **parameters)
    world.run(8.0)
    assert _diagnostics(world)["state"] == "running", world.log
    return arm


@pytest.mark.parametrize("command_type", ["JointTrajectory", "Float64MultiArray"])
def test_a_robot_that_follows_late_is_never_stopped(world: World, schedule_path: Path, command_type: str) -> None:
    _in_motion(world, schedule_path, command_type=command_type, exit_when_done=True)
    world.run(30.0)
    assert not world.ok and _diagnostics(world)["state"] == "done"
    assert _diagnostics(world)["stop_reason"] == ""
    assert not [text for kind, text in world.log if kind != "info"]


@pytest.mark.parametrize("motion", ["schedule", "waypoints"])
def test_unarmed_nothing_is_sent_and_no_regime_announced(world: World, schedule_path: Path, motion: str) -> None:
    _active(world, schedule=str(schedule_path), motion=motion, duration=10.0, armed=False, exit_when_done=True)
    assert any(kind == "warning" and "armed:=true" in text for kind, text in world.log)
    world.run(5.0)
    assert "dry run" in _diagnostics(world)["message"] and _diagnostics(world)["armed"] == "false"
    for name in ("~/pause", "~/resume"):
        assert world.services[name]().success
    world.run(40.0)
    assert not world.ok, "the rehearsal ends as the motion would"
    assert world.publishers["joint_command"].sent == [] and world.publishers["ropes/regime"].sent == []


def test_the_commander_is_not_armed_by_default(world: World, schedule_path: Path) -> None:
    node, configured = _configured(world, schedule=str(schedule_path), assume_home=True)
    assert configured and world.parameters["armed"] is False
    node.on_activate(None)
    world.run(10.0)
    node.on_deactivate(None)
    node.on_shutdown(None)
    assert world.publishers["joint_command"].sent == [] and world.publishers["ropes/regime"].sent == []


def test_it_says_beforehand_how_long_and_how_far_from_the_design(world: World, schedule_path: Path) -> None:
    _active(world, schedule=str(schedule_path))
    (said,) = (text for kind, text in world.log if "the schedule takes" in text)
    assert "20 s" in said and "total variation" in said
    assert world.publishers["joint_command"].sent == []


@pytest.mark.parametrize("command_type", ["JointTrajectory", "JointState"])
def test_a_joint_that_is_stuck_stops_the_robot(world: World, schedule_path: Path, command_type: str) -> None:
    arm = _in_motion(world, schedule_path, command_type=command_type)
    arm.stuck = 2
    world.run(6.0)
    assert "joint joint3 does not follow" in _reason(world)
    sent = len(world.publishers["joint_command"].sent)
    assert arm.rests()
    world.run(5.0)
    assert len(world.publishers["joint_command"].sent) == sent


def test_a_controller_that_refuses_stops_the_schedule(world: World, schedule_path: Path) -> None:
    arm = Arm(world)
    arm.refuses = True
    _active(world, schedule=str(schedule_path), assume_home=False)
    world.run(6.0)
    assert "does not follow" in _reason(world)
    assert np.allclose(arm.at, ROBOT.home)


@pytest.mark.parametrize("fault", ["silent", "frozen"])
def test_joint_states_that_stay_away_or_freeze_stop_the_robot(world: World, schedule_path: Path, fault: str) -> None:
    arm = _in_motion(world, schedule_path)
    setattr(arm, fault, True)
    stopped = world.now_ns
    world.run(3.0)
    assert "joint_states say nothing new of joint joint1" in _reason(world)
    states = [regime_from_msg(message, ROBOT.joint_names) for message in world.publishers["ropes/regime"].sent]
    assert SECOND <= states[-1].stamp_ns - stopped < 1.2 * SECOND
    assert arm.rests()


def test_a_measured_position_that_jumps_stops_the_robot(world: World, schedule_path: Path) -> None:
    arm = _in_motion(world, schedule_path)
    arm.offset = np.array([0.0, 0.0, 0.0, 0.4, 0.0, 0.0])
    world.run(0.1)
    assert "measured position of joint joint4 jumped by 0." in _reason(world)
    arm.offset = np.zeros(6)
    assert arm.rests()


@pytest.mark.parametrize(("simulated", "step_s"), [(False, -3600.0), (False, 3600.0), (False, 0.5), (True, -100.0)])
def test_a_clock_that_is_set_stops_the_robot_where_it_is(
    world: World, schedule_path: Path, simulated: bool, step_s: float
) -> None:
    arm = _in_motion(world, schedule_path, use_sim_time=simulated)
    jump = round(step_s * SECOND)
    world.run(0.33)
    commanded = arm.buffer.sample(world.now_ns)
    world.now_ns += jump
    world.run(0.1)
    assert "the clock was set" in _reason(world)
    message = world.publishers["joint_command"].sent[-1]
    stamp_ns = message.header.stamp.sec * SECOND + message.header.stamp.nanosec
    assert abs(stamp_ns - world.now_ns) < SECOND // 5
    assert np.abs(np.array(message.points[0].positions) - commanded).max() < 0.1, "it brakes where the robot is"
    assert not np.any(message.points[-1].velocities)


def test_a_simulation_may_run_at_any_speed(world: World, schedule_path: Path) -> None:
    arm = _in_motion(world, schedule_path, use_sim_time=True)
    before = arm.live

    def hurry() -> None:
        world.now_ns += 60_000_000
        before()

    world.robot = hurry
    world.run(3.0)
    assert _diagnostics(world)["stop_reason"] == ""


def test_a_stall_of_the_commander_is_no_fault_of_the_robot(world: World, schedule_path: Path) -> None:
    arm = _in_motion(world, schedule_path)
    world.run(8.0, ticking=False)
    arm.said_ns = 0
    world.run(2.0)
    assert _diagnostics(world)["state"] == "running" and _diagnostics(world)["late_chunks"] == "1"


def test_a_deadman_that_is_released_or_silent_stops_the_robot(world: World, schedule_path: Path) -> None:
    arm = Arm(world)
    _active(world, schedule=str(schedule_path), assume_home=False, deadman_topic="deadman")
    world.run(3.0)
    assert world.publishers["joint_command"].sent == []
    assert "deadman switch is not held" in _diagnostics(world)["message"]
    holds = arm.live

    def hold() -> None:
        holds()
        if "deadman" in world.subscriptions:
            world.subscriptions["deadman"](SimpleNamespace(data=True))

    world.robot = hold
    world.run(4.0)
    assert _diagnostics(world)["state"] == "running"
    world.robot = holds
    world.run(1.0)
    assert "deadman switch is silent" in _reason(world)
    world.robot = hold
    assert world.services["~/resume"]().success
    world.run(4.0)
    assert _diagnostics(world)["state"] == "running"
    world.robot = holds
    world.subscriptions["deadman"](SimpleNamespace(data=False))
    world.run(0.1)
    assert _reason(world) == "the deadman switch is not held"
    assert arm.rests()


def test_a_guard_ends_the_process_with_status_1_where_nobody_could_resume(world: World, schedule_path: Path) -> None:
    arm = Arm(world)
    node = _active(world, schedule=str(schedule_path), assume_home=False, exit_when_done=True)
    world.run(8.0)
    arm.silent = True
    world.run(3.0)
    assert not world.ok
    assert "joint_states" in _reason(world)
    assert node.on_shutdown(None).name == "FAILURE"


def test_a_robot_beyond_its_limits_is_not_moved(world: World, schedule_path: Path) -> None:
    _active(world, schedule=str(schedule_path), assume_home=False)
    there = ROBOT.home.copy()
    there[1] = ROBOT.upper[1] + 0.01
    for _ in range(5):
        world.subscriptions["joint_states"](_joint_states(there))
        world.run(1.0)
    assert world.publishers["joint_command"].sent == []
    assert "joint joint2 to be moved back by hand" in _diagnostics(world)["message"]


def test_a_robot_far_from_home_is_not_led_there(world: World, schedule_path: Path) -> None:
    _active(world, schedule=str(schedule_path), assume_home=False)
    there = ROBOT.home.copy()
    there[2] = ROBOT.home[2] + 1.2 * ROBOT.half_range[2]
    for _ in range(5):
        world.subscriptions["joint_states"](_joint_states(there))
        world.run(1.0)
    assert world.publishers["joint_command"].sent == []
    assert "joint joint3 to be brought nearer to home" in _diagnostics(world)["message"]
    there[2] = ROBOT.home[2] + ROBOT.half_range[2]
    for _ in range(5):
        world.subscriptions["joint_states"](_joint_states(there))
        world.run(0.2)
    first = world.publishers["joint_command"].sent[0]
    np.testing.assert_allclose(first.points[0].positions, there, atol=1e-6)


def test_a_schedule_that_hits_the_floor_is_not_commanded(world: World, schedule_path: Path, tmp_path: Path) -> None:
    """Here the floor is raised into the arm's way."""
    folder = shutil.copytree(ROBOT.urdf_path.parent, tmp_path / "arm6")
    preset = folder / "robot.yaml"
    preset.write_text(preset.read_text() + "collision: {floor: 0.5}\n")
    _, configured = _configured(world, robot=str(preset), schedule=str(schedule_path), armed=True)
    ((kind, text),) = world.log
    assert not configured and kind == "error"
    assert str(schedule_path) in text and "below the floor" in text
    world.log.clear()
    assert _configured(world, armed=False)[1]  # a rehearsal hits nothing


def test_soft_limits_keep_the_box_from_the_ends(world: World, schedule_path: Path) -> None:
    _, configured = _configured(world, schedule=str(schedule_path), soft_limit_margin=0.3)
    assert not configured
    ((kind, text),) = world.log
    assert kind == "error" and "outside the soft limits" in text


@pytest.mark.parametrize("field", ["positions", "velocities"])
def test_a_command_beyond_the_limits_is_never_sent(
    world: World, schedule_path: Path, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever should make one: here the stream is made to."""
    from dataclasses import replace

    from ropes_ros.streaming import CommandStream

    _in_motion(world, schedule_path)
    points = CommandStream._points

    def wrong(self: Any, *times: int) -> Any:
        made = points(self, *times)
        return replace(made, **{field: getattr(made, field) + 10.0})

    monkeypatch.setattr(CommandStream, "_points", wrong)
    world.run(1.0)
    assert "a command exceeds the limit" in _reason(world)
    for message in world.publishers["joint_command"].sent:
        for point in message.points:
            assert (np.abs(np.array(point.positions)) < 4.0).all() and (np.abs(np.array(point.velocities)) < 4.0).all()


def _true_labels(world: World, arm_positions: Callable[[np.ndarray], np.ndarray], schedule: Schedule) -> np.ndarray:
    """Labels from the eighth second on, each checked: the joint is where its segment says that it may be."""
    states = [regime_from_msg(message, ROBOT.joint_names) for message in world.publishers["ropes/regime"].sent]
    timeline = RegimeTimeline(states, schedule.joint_names, schedule.levels.ids)
    times = np.arange(NOW + 8 * SECOND, world.now_ns, 10_000_000)
    labels, ids, u = timeline.labels_at(times), timeline.segment_ids_at(times), ROBOT.normalise(arm_positions(times))
    for joint in range(6):
        for number in np.unique(ids[ids[:, joint] >= 0, joint]):
            segment = schedule.segments[number]
            held = ids[:, joint] == number
            assert (labels[held, joint] == schedule.levels.ids.index(segment.level)).all()
            assert segment.lo - 0.01 <= u[held, joint].min() and u[held, joint].max() <= segment.hi + 0.01
    return labels


def test_pause_resume_and_skip_keep_labels_true(world: World, schedule_path: Path) -> None:
    arm = _in_motion(world, schedule_path, exit_when_done=True)
    schedule = Schedule.load(schedule_path)
    commanded: dict[int, np.ndarray] = {}
    live = arm.live

    def watched() -> None:
        live()
        commanded[world.now_ns] = arm.buffer.sample(world.now_ns)

    world.robot = watched
    pause, resume, skip = (world.services[f"~/{name}"] for name in ("pause", "resume", "skip"))
    assert not resume().success
    assert pause().success and not pause().success
    paused_ns = world.now_ns
    world.run(5.0)
    assert _diagnostics(world)["state"] == "paused" and _diagnostics(world)["stop_reason"] == ""
    still = np.array([q for t, q in commanded.items() if t > paused_ns + SECOND])
    assert np.ptp(still, axis=0).max() < 1e-6
    assert resume().success
    resumed_ns = world.now_ns
    world.run(4.0)
    assert skip().success
    world.run(30.0)
    assert not world.ok and _diagnostics(world)["state"] == "done"
    times = np.array(sorted(commanded))
    path = np.array([commanded[t] for t in times.tolist()])
    labels = _true_labels(
        world, lambda at: np.stack([np.interp(at, times, path[:, j]) for j in range(6)], axis=1), schedule
    )
    grid = np.arange(NOW + 8 * SECOND, world.now_ns, 10_000_000)
    assert (labels[(grid >= paused_ns) & (grid < resumed_ns)] == -1).all()
    assert (labels[grid > resumed_ns] >= 0).any()


def test_a_stopped_motion_goes_on_where_it_stopped(world: World, schedule_path: Path) -> None:
    _in_motion(world, schedule_path)
    assert world.services["~/stop"]().success
    reached = float(_diagnostics(world)["resume_from"])
    assert reached > 5.0
    last = regime_from_msg(world.publishers["ropes/regime"].sent[-1])
    assert last.stop_reason == ""
    world.run(5.0)
    assert world.services["~/resume"]().success
    world.run(8.0)
    assert _diagnostics(world)["state"] == "running"
    assert reached < float(_diagnostics(world)["resume_from"]) < reached + 8.0
    states = [regime_from_msg(message) for message in world.publishers["ropes/regime"].sent]
    assert [state.seq for state in states] == list(range(len(states))), "a gap would cost the labels before it"


def test_an_interrupted_commander_leaves_a_note_and_another_goes_on(
    world: World, schedule_path: Path, tmp_path: Path
) -> None:
    from ropes_ros.progress import Progress

    schedule = Schedule.load(schedule_path)
    note = tmp_path / "schedule.yaml.progress"
    _in_motion(world, schedule_path, progress_file=str(note))
    world.run(4.0)
    reached = Progress(note, schedule.hash).read()
    assert 8.0 < reached < 12.0
    world.timers.clear()  # killed: nothing of it runs any more
    world.publishers.clear()
    Arm(world)
    _active(world, schedule=str(schedule_path), resume_from=reached, progress_file=str(note), exit_when_done=True)
    world.run(5.0)
    assert float(_diagnostics(world)["resume_from"]) >= reached
    states = [regime_from_msg(message) for message in world.publishers["ropes/regime"].sent]
    shown = {i for state in states for i in state.segments if i >= 0}
    assert shown and all(schedule.segments[i].end_ns > reached * SECOND for i in shown)
    world.run(20.0)
    assert not world.ok and not note.exists()


def test_resuming_after_the_end_is_refused(world: World, schedule_path: Path) -> None:
    _, configured = _configured(world, schedule=str(schedule_path), resume_from=20.0)
    assert not configured and "after the motion's end" in world.log[-1][1]


def test_a_schedule_that_does_not_limit_jerk_is_refused(world: World, schedule_path: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    old = replace(Schedule.load(schedule_path), smooth_ns=0)
    old.save(tmp_path / "old.yaml")
    assert "smooth_ns" not in old.to_yaml(), "schedules in bags keep their hash"
    _, configured = _configured(world, schedule=str(tmp_path / "old.yaml"))
    assert not configured and "make the schedule anew" in world.log[-1][1]

"""The commander node against a stand-in for rclpy that keeps what is published and moves time by hand."""

from __future__ import annotations

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
        self.ok = True
        self.parameters: dict[str, Any] = {}
        self.publishers: dict[str, Publisher] = {}
        self.subscriptions: dict[str, Callable[[Any], None]] = {}
        self.services: dict[str, Callable[[], Any]] = {}
        self.timers: list[SimpleNamespace] = []
        self.log: list[tuple[str, str]] = []
        self.init_error: Exception | None = None

    def run(self, seconds: float, *, ticking: bool = True) -> None:
        end = self.now_ns + round(seconds * SECOND)
        while self.ok and self.now_ns < end:
            due = min((timer.due for timer in self.timers), default=end)
            self.now_ns = max(self.now_ns, min(due, end))
            for timer in [timer for timer in self.timers if timer.due <= self.now_ns and self.now_ns < end]:
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
            timer = SimpleNamespace(period=step, due=world.now_ns + step, callback=callback)
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
        "rclpy.clock": {"Clock": SimpleNamespace, "ClockType": SimpleNamespace(STEADY_TIME=2)},
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
    node, configured = _configured(world, **{"assume_home": True, **parameters})
    assert configured, world.log
    node.on_activate(None)
    return node


def _joint_states(positions: np.ndarray, names: tuple[str, ...] = ROBOT.joint_names) -> Any:
    return SimpleNamespace(name=list(names), position=positions.tolist())


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
    node, _ = _configured(world, schedule=str(schedule_path), wait_for_recorder=True, assume_home=True)
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
    assert "joint_states" not in world.subscriptions


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

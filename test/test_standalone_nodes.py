"""Nodes of the standalone runtime as processes: lifecycle, signals, the command line, parameters, simulated time."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cyclonedds")

from standalone_process import HERE, Child, node, spin_until, until, without_ros
from standalone_process import domain as domain  # fixtures
from standalone_process import start as start

pytestmark = without_ros
Start = Callable[..., Child]


# -- lifecycle and signals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_spinning_brings_a_lifecycle_node_up_and_a_signal_takes_it_down(start: Start, number: int) -> None:
    life = start("Life")
    life.wait_for("running")
    assert life.stop(number) == 0
    said = [line.partition(":")[0] for line in life.lines if not line.startswith("running")]
    assert said == ["configure", "activate", "shutdown", "closed"]
    assert not [line for line in life.errors if "rror" in line or "Traceback" in line]


def test_a_lifecycle_publisher_is_silent_while_inactive(start: Start) -> None:
    from rclpy.qos import QoSDurabilityPolicy, QoSProfile
    from std_msgs.msg import String

    got: list[str] = []
    with node() as me:
        everything = QoSProfile(depth=10, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
        me.create_subscription(String, "out", lambda m: got.append(m.data), everything)
        life = start("Life")
        spin_until(me, lambda: got, "a message")
        life.wait_for("running")
    assert got == ["activate"]


@pytest.mark.parametrize(
    ("fail", "reason"),
    [
        ("configure:refuse", "could not be configured: no camera"),
        ("configure:raise", "could not be configured: camera /dev/video9 is missing; plug it in"),
        ("activate:raise", "could not be activated: camera /dev/video9 is missing; plug it in"),
        ("activate:bug", "could not be activated: on_activate raised ValueError: surprise"),
    ],
)
def test_a_node_that_fails_to_come_up_ends_with_status_1(start: Start, fail: str, reason: str) -> None:
    life = start("Life", FAIL=fail)
    assert life.end() == 1
    assert life.errors[-1] == f"error: node /life {reason}"
    assert any("[ERROR]" in line for line in life.errors[:-1])
    assert not life.said("running") or fail.startswith("activate")
    assert life.said("shutdown") or fail != "configure:refuse"


def test_autostart_can_be_turned_off_and_services_bring_the_node_up(start: Start) -> None:
    import rclpy
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState, GetState

    life = start("Life", "--ros-args", "-p", "autostart:=false")
    with node() as me:
        change, state = me.create_client(ChangeState, "life/change_state"), me.create_client(GetState, "life/get_state")
        assert change.wait_for_service(20.0) and state.wait_for_service(20.0)

        def call(client: Any, request: Any) -> Any:
            future = client.call_async(request)
            rclpy.spin_until_future_complete(me, future, timeout_sec=20.0)
            return future.result()

        assert call(state, GetState.Request()).current_state.label == "unconfigured"
        assert not life.said("configure")
        for number, label in (
            (Transition.TRANSITION_CONFIGURE, "inactive"),
            (Transition.TRANSITION_ACTIVATE, "active"),
            (Transition.TRANSITION_DEACTIVATE, "inactive"),
            (Transition.TRANSITION_CLEANUP, "unconfigured"),
        ):
            assert call(change, ChangeState.Request(transition=Transition(id=number))).success
            assert call(state, GetState.Request()).current_state.label == label
        refused = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_ACTIVATE))
        assert not call(change, refused).success
    assert life.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_running_callback_finish(start: Start, number: int) -> None:
    busy = start("Busy", BUSY="0.5")
    busy.wait_for("working")
    assert busy.stop(number) == 0
    assert len(busy.said("worked")) == len(busy.said("working")) == 1


def test_a_second_signal_interrupts_the_running_callback(start: Start) -> None:
    busy = start("Busy", BUSY="60")
    busy.wait_for("working")
    busy.process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert busy.stop(signal.SIGINT) == 0
    assert not busy.said("worked")


def test_signals_do_not_interrupt_a_shutdown_in_progress(start: Start) -> None:
    life = start("Life", SHUTDOWN="0.6")
    life.wait_for("running")
    life.process.send_signal(signal.SIGINT)
    life.wait_for("shutdown")
    for number in (signal.SIGINT, signal.SIGTERM):
        time.sleep(0.15)
        life.process.send_signal(number)
    assert life.end() == 0
    assert life.said("closed") and not [line for line in life.errors if "Traceback" in line]


def test_shutdown_within_a_callback_ends_spin(domain: int) -> None:
    import rclpy

    rclpy.init(args=[])
    me = rclpy.create_node("me")
    me.create_timer(0.01, rclpy.shutdown)
    rclpy.spin(me)
    assert not rclpy.ok()
    me.destroy_node()
    rclpy.init(args=[])  # and it can begin anew
    rclpy.shutdown()


def test_an_exception_in_a_callback_leaves_spin(domain: int) -> None:
    import rclpy

    def fail() -> None:
        raise ZeroDivisionError

    with node() as me:
        me.create_timer(0.01, fail)
        with pytest.raises(ZeroDivisionError):
            rclpy.spin(me)


# -- command line and parameters ---------------------------------------------------------------------------------------


def settings(start: Start, *arguments: str) -> Child:
    return start("Settings", "--ros-args", *arguments)


DEFAULTS = {"gain": 0.5, "count": 3, "names": ["x"], "group.label": "none"}


def test_parameters_names_and_levels_from_the_command_line(start: Start) -> None:
    child = settings(
        start,
        *("-p", "gain:=1e-1", "-p", "names:=[a, b]", "-p", "settings:count:=7", "-p", "other:count:=8"),
        *("-r", "__node:=renamed", "-r", "__ns:=/lab", "-r", "out/put:=/else/where", "--log-level", "debug"),
    )
    assert child.wait_for("values")[0] == {**DEFAULTS, "gain": 0.1, "names": ["a", "b"]}
    assert child.wait_for("name") == ["/lab/renamed"]
    assert child.wait_for("topic") == ["/else/where"]
    assert child.wait_for("log") == [True]


def test_parameters_from_files_with_wildcards(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "parameters.yaml"
    path.write_text(
        """
/**:
  ros__parameters: {gain: 0.1, use_sim_time: false, unknown_to_this_node: 1}
/lab/*:
  ros__parameters: {count: 4, group: {label: starred}}
lab:
  settings:
    ros__parameters: {names: [from, file]}
/other:
  ros__parameters: {count: 9}
"""
    )
    child = settings(start, "-r", "__ns:=/lab", "--params-file", str(path), "-p", "gain:=0.75")
    expected = {"gain": 0.75, "count": 4, "names": ["from", "file"], "group.label": "starred"}
    assert child.wait_for("values")[0] == expected
    assert child.wait_for("log") == [False]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-p", "gain:=1"), "parameter 'gain' of node /settings must be DOUBLE, not 1 (-p gain:=1); write 1.0"),
        (("-p", "gain:=1.5"), "parameter 'gain' of node /settings must be in [0.0, 1.0], not 1.5 (-p gain:=1.5)"),
        (("-p", "count:=many"), "parameter 'count' of node /settings must be INTEGER, not 'many' (-p count:=many)"),
        (("-p", "cuont:=1"), "-p cuont:=1: node /settings has no parameter 'cuont'; did you mean 'count'?"),
        (("-p", "count"), "parameter 'count' is malformed; write name:=value"),
        (("--params-file", "/nowhere.yaml"), "parameter file /nowhere.yaml cannot be read: No such file or directory"),
        (("-r", "__ns:=/3x"), "namespace '/3x' is not valid: names separated by slashes"),
        (("--log-level", "loud"), "log level 'loud' is unknown; take one of unset, debug, info, warn, error, fatal"),
        (("--speed", "3"), "unknown ROS argument '--speed'; after --ros-args these are known:"),
    ],
)
def test_mistakes_on_the_command_line_are_told_in_one_line(
    start: Start, arguments: tuple[str, ...], message: str
) -> None:
    child = settings(start, *arguments)
    assert child.end() == 1
    assert child.errors[-1].startswith(f"error: {message}")
    assert not any("Traceback" in line for line in child.errors)


@pytest.mark.parametrize("period", ["0.0", "-1.0", ".nan"])
def test_diagnostics_of_no_period_are_refused(domain: int, period: str) -> None:
    from rclpy.exceptions import InvalidParameterValueException

    from ropes_ros.standalone.diagnostics import Updater

    with node("tester", "--ros-args", "-p", f"diagnostic_updater.period:={period}") as me, pytest.raises(
        InvalidParameterValueException, match=r"diagnostic_updater\.period"
    ):
        Updater(me)


def test_setting_parameters_asks_ranges_types_and_callbacks(domain: int) -> None:
    from rcl_interfaces.msg import IntegerRange, ParameterDescriptor, SetParametersResult
    from rclpy.exceptions import (
        InvalidParameterValueException,
        ParameterAlreadyDeclaredException,
        ParameterNotDeclaredException,
        ParameterUninitializedException,
    )
    from rclpy.parameter import Parameter

    with node("tester", "--ros-args", "-p", "label:=given", "-p", "empty:=[]") as me:
        even = ParameterDescriptor(integer_range=[IntegerRange(from_value=0, to_value=10, step=2)])
        me.declare_parameter("even", 4, even)
        me.declare_parameter("fixed", 1, ParameterDescriptor(read_only=True))
        me.declare_parameter("label", Parameter.Type.STRING)
        me.declare_parameter("later", Parameter.Type.STRING)
        me.declare_parameter("empty", ["x"])
        assert me.get_parameter("label").value == "given" and me.get_parameter("empty").value == []
        asked: list[str] = []

        def ask(parameters: list[Parameter]) -> SetParametersResult:
            asked.extend(parameter.name for parameter in parameters)
            return SetParametersResult(successful=parameters[0].value != 8, reason="not eight")

        me.add_on_set_parameters_callback(ask)

        def set_to(name: str, value: Any) -> str:
            (result,) = me.set_parameters([Parameter(name, value=value)])
            return "" if result.successful else result.reason

        assert set_to("even", 6) == "" and me.get_parameter("even").value == 6
        assert "in [0, 10] in steps of 2" in set_to("even", 5)
        assert "in [0, 10]" in set_to("even", 12)
        assert "must be INTEGER" in set_to("even", 2.0)
        assert set_to("even", 8) == "not eight"
        assert "read only" in set_to("fixed", 2)
        assert me.get_parameter("even").value == 6 and me.get_parameter("fixed").value == 1
        assert asked == ["even", "even"]
        both = [Parameter("even", value=2), Parameter("fixed", value=2)]
        assert not me.set_parameters_atomically(both).successful and me.get_parameter("even").value == 6
        with pytest.raises(ParameterNotDeclaredException):
            me.get_parameter("absent")
        with pytest.raises(ParameterUninitializedException, match="later"):
            me.get_parameter("later")
        with pytest.raises(ParameterAlreadyDeclaredException):
            me.declare_parameter("even", 4)
        with pytest.raises(InvalidParameterValueException, match="not eight"):
            me.declare_parameter("other", 8)


# -- time --------------------------------------------------------------------------------------------------------------


def test_timers_follow_simulated_time_also_when_it_jumps_back(start: Start) -> None:
    from builtin_interfaces.msg import Time
    from rosgraph_msgs.msg import Clock

    follower = start("Follower", "--ros-args", "-p", "use_sim_time:=true")
    with node() as me:
        publisher = me.create_publisher(Clock, "/clock", 10)
        spin_until(me, lambda: publisher.get_subscription_count() == 1, "the follower")

        def advance_to(seconds: float) -> None:
            nanoseconds = round(seconds * 1e9)
            publisher.publish(Clock(clock=Time(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)))
            until(lambda: follower.said("now")[-1:] == [nanoseconds], f"time {seconds}")

        follower.wait_for("now", 3)
        assert set(follower.said("now")) == {0} and not follower.said("tick")
        for seconds in (100.0, 100.2, 100.4, 100.5, 101.0, 105.0, 105.1):
            advance_to(seconds)
        follower.wait_for("tick", 4)
        assert [tick / 1e9 for tick in follower.said("tick")] == [100.0, 100.5, 101.0, 105.0]
        for seconds in (50.0, 50.4, 50.5):
            advance_to(seconds)
        assert [tick / 1e9 for tick in follower.wait_for("tick", 5)[4:]] == [50.5]


def test_clocks_and_durations(domain: int) -> None:
    from rclpy.clock import Clock, ClockType
    from rclpy.duration import Duration
    from rclpy.time import Time

    with node() as me:
        now = me.get_clock().now()
        assert abs(now.nanoseconds - time.time_ns()) < 1_000_000_000 and now.clock_type == ClockType.ROS_TIME
        assert Time.from_msg(now.to_msg()) == now
        assert (now + Duration(seconds=1.5) - now).nanoseconds == 1_500_000_000
        with pytest.raises(TypeError):
            _ = now - Time(nanoseconds=0, clock_type=ClockType.STEADY_TIME)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        before = steady.now()
        assert steady.sleep_for(Duration(nanoseconds=2_000_000))
        assert (steady.now() - before).nanoseconds >= 2_000_000


def test_timers_can_be_stopped_and_started_again(domain: int) -> None:
    import rclpy

    with node() as me:
        ticks: list[int] = []
        timer = me.create_timer(0.01, lambda: ticks.append(1))
        spin_until(me, lambda: len(ticks) >= 3, "three ticks")
        timer.cancel()
        count = len(ticks)
        rclpy.spin_once(me, timeout_sec=0.1)
        assert len(ticks) == count and timer.is_canceled()
        timer.reset()
        spin_until(me, lambda: len(ticks) > count, "another tick")


def test_log_messages_reach_rosout_and_are_throttled_per_place(domain: int, capfd: pytest.CaptureFixture[str]) -> None:
    from rcl_interfaces.msg import Log

    got: list[Log] = []
    with node() as me:
        me.create_subscription(Log, "/rosout", got.append, 10)
        for number in range(3):
            me.get_logger().warning(f"number {number}", throttle_duration_sec=60.0)
            me.get_logger().info(f"only {number}", once=True)
            me.get_logger().info(f"not first {number}", skip_first=True)
        me.get_logger().debug("hidden")
        me.get_logger().get_child("part").error("from a child")
        spin_until(me, lambda: len(got) >= 5, "the log")
    expected = ["number 0", "only 0", "not first 1", "not first 2", "from a child"]
    assert [message.msg for message in got] == expected
    assert (got[0].level, got[0].name, got[0].function) == (30, "tester", got[4].function)
    assert got[4].name == "tester.part" and got[4].file.endswith("test_standalone_nodes.py")
    lines = capfd.readouterr().err.splitlines()
    assert [line.split("]: ")[1] for line in lines] == expected and lines[0].startswith("[WARN] [")


# -- what is not there -------------------------------------------------------------------------------------------------


def test_what_is_not_supported_says_so(domain: int) -> None:
    import rclpy
    from rclpy.executors import MultiThreadedExecutor
    from rclpy.qos import QoSProfile, QoSReliabilityPolicy
    from std_msgs.msg import String

    from ropes_ros.standalone.errors import UnsupportedError

    with node() as me:
        with pytest.raises(UnsupportedError, match="MultiThreadedExecutor"):
            MultiThreadedExecutor()
        with pytest.raises(UnsupportedError, match="create_rate"):
            me.create_rate(1.0)
        with pytest.raises(UnsupportedError, match=r"rclpy\.qos\.Foo"):
            _ = rclpy.qos.Foo
        with pytest.raises(Exception, match="BEST_AVAILABLE is not supported"):
            me.create_publisher(String, "x", QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_AVAILABLE))
        with pytest.raises(Exception, match="topic name 'a b' is not valid"):
            me.create_publisher(String, "a b", 1)
        with pytest.raises(AttributeError):
            _ = me.no_such_thing


def test_running_a_module_that_is_not_there(domain: int) -> None:
    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        path = os.pathsep.join((str(HERE), str(HERE.parent)))
        command = [sys.executable, "-m", "ropes_ros.standalone", *words]
        return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)

    assert run().returncode == 2
    missing = run("ropes_ros.nodes.no_such_node")
    assert (missing.returncode, missing.stderr) == (1, "error: module ropes_ros.nodes.no_such_node does not exist\n")

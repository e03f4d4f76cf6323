"""Clocks, durations, timers, simulated time."""

from __future__ import annotations

import time
from typing import Any

import pytest
from builtin_interfaces.msg import Time as TimeMsg
from conformance_support import Ros
from rclpy.clock import Clock, ClockChange, ClockType, JumpThreshold, ROSClock
from rclpy.duration import Duration
from rclpy.handle import InvalidHandle
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.time import Time
from rosgraph_msgs.msg import Clock as ClockMsg

STEADY = Clock(clock_type=ClockType.STEADY_TIME)
SECOND = 1_000_000_000


# -- points in time and spans ------------------------------------------------------------------------------------------


def test_durations() -> None:
    assert Duration(seconds=1.5).nanoseconds == 1_500_000_000
    assert Duration(seconds=1, nanoseconds=5).nanoseconds == 1_000_000_005
    assert Duration(seconds=-0.5).nanoseconds == -500_000_000
    assert Duration(seconds=1) == Duration(nanoseconds=SECOND) != Duration()
    assert Duration(seconds=1) > Duration(seconds=0.5) >= Duration(seconds=0.5)
    message = Duration(seconds=-0.5).to_msg()
    assert message.sec * SECOND + message.nanosec == -500_000_000
    assert Duration.from_msg(Duration(seconds=2.25).to_msg()) == Duration(seconds=2.25)
    with pytest.raises(OverflowError):
        Duration(nanoseconds=1 << 63)


def test_points_in_time() -> None:
    point = Time(seconds=3, nanoseconds=7)
    assert point.nanoseconds == 3_000_000_007 and point.seconds_nanoseconds() == (3, 7)
    assert point.clock_type == ClockType.SYSTEM_TIME
    assert (point.to_msg().sec, point.to_msg().nanosec) == (3, 7)
    assert Time.from_msg(TimeMsg(sec=3, nanosec=7)).clock_type == ClockType.ROS_TIME
    assert Time.from_msg(point.to_msg(), ClockType.SYSTEM_TIME) == point
    assert (point + Duration(seconds=1)).nanoseconds == 4_000_000_007
    assert point - Duration(seconds=1) == Time(seconds=2, nanoseconds=7)
    assert point - Time(seconds=1) == Duration(seconds=2, nanoseconds=7)
    assert point > Time(seconds=3) and point != Time(seconds=3)
    with pytest.raises(ValueError):
        Time(seconds=-1)
    steady = Time(seconds=1, clock_type=ClockType.STEADY_TIME)
    for operation in (lambda: point - steady, lambda: point < steady, lambda: point == steady):
        with pytest.raises(TypeError):
            operation()


def test_clocks_tell_their_time() -> None:
    for kind, reference in ((ClockType.SYSTEM_TIME, time.time_ns), (ClockType.ROS_TIME, time.time_ns)):
        now = Clock(clock_type=kind).now()
        assert abs(now.nanoseconds - reference()) < SECOND and now.clock_type == kind
    first = STEADY.now()
    assert STEADY.now() >= first and first.clock_type == ClockType.STEADY_TIME
    assert isinstance(Clock(clock_type=ClockType.ROS_TIME), ROSClock)
    assert Clock().clock_type == ClockType.SYSTEM_TIME


def test_sleeping_on_a_clock(ros: Ros) -> None:
    ros.init()
    for clock in (STEADY, Clock(), ROSClock()):
        before = clock.now()
        assert clock.sleep_for(Duration(seconds=0.01)) and clock.now() - before >= Duration(seconds=0.01)
        assert clock.sleep_until(before)  # the past
    with pytest.raises(ValueError):
        STEADY.sleep_until(Clock().now())


# -- timers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clock", [None, STEADY, Clock()], ids=["node", "steady", "system"])
def test_timers_keep_their_period(ros: Ros, clock: Any) -> None:
    node = ros.node()
    ticks: list[float] = []
    timer = node.create_timer(0.02, lambda: ticks.append(time.monotonic()), clock=clock)
    begin = time.monotonic()
    ros.spin(lambda: len(ticks) >= 10, "ten ticks")
    assert ticks[0] - begin >= 0.015 and ticks[9] - begin >= 0.19
    assert timer.timer_period_ns == 20_000_000 and timer.clock is (clock or node.get_clock())
    assert timer in list(node.timers)


def test_a_late_timer_does_not_make_up_for_what_it_missed(ros: Ros) -> None:
    node = ros.node()
    ticks: list[int] = []
    node.create_timer(0.05, lambda: ticks.append(1))
    time.sleep(0.3)
    ros.spin_for(0.02)
    assert len(ticks) == 1


def test_cancel_and_reset(ros: Ros) -> None:
    node = ros.node()
    ticks: list[int] = []
    timer = node.create_timer(0.01, lambda: ticks.append(1))
    ros.spin(lambda: ticks, "a tick")
    timer.cancel()
    count = len(ticks)
    ros.spin_for(0.05)
    assert len(ticks) == count and timer.is_canceled() and not timer.is_ready()
    timer.reset()
    assert not timer.is_canceled()
    ros.spin(lambda: len(ticks) > count, "another tick")


def test_a_timer_tells_how_long_it_takes(ros: Ros) -> None:
    timer = ros.node().create_timer(100.0, lambda: None)
    assert 90 * SECOND < timer.time_until_next_call() <= 100 * SECOND
    assert 0 <= timer.time_since_last_call() < 10 * SECOND and not timer.is_ready()
    timer.cancel()
    timer.reset()
    assert timer.time_until_next_call() > 90 * SECOND


def test_a_timer_may_cancel_and_destroy_itself(ros: Ros) -> None:
    node = ros.node()
    ticks: list[str] = []

    def once() -> None:
        ticks.append("once")
        timers[0].cancel()

    def last() -> None:
        ticks.append("last")
        node.destroy_timer(timers[1])

    timers = [node.create_timer(0.01, once), node.create_timer(0.01, last)]
    ros.spin(lambda: len(ticks) >= 2, "both")
    ros.spin_for(0.05)
    assert sorted(ticks) == ["last", "once"]
    assert list(node.timers) == [timers[0]] and not node.destroy_timer(timers[1])
    with pytest.raises(InvalidHandle):
        timers[1].reset()


def test_a_callback_may_create_a_timer(ros: Ros) -> None:
    node = ros.node()
    ticks: list[int] = []

    def begin() -> None:
        first.cancel()
        node.create_timer(0.005, lambda: ticks.append(1))

    first = node.create_timer(0.005, begin)
    ros.spin(lambda: len(ticks) >= 3, "ticks of the new timer")


def test_a_timer_may_wait_to_be_started(ros: Ros) -> None:
    node = ros.node()
    ticks: list[int] = []
    try:
        timer = node.create_timer(0.01, lambda: ticks.append(1), autostart=False)
    except TypeError:
        pytest.skip("this distribution starts timers at once")
    ros.spin_for(0.05)
    assert not ticks and timer.is_canceled()
    timer.reset()
    ros.spin(lambda: ticks, "a tick")


# -- simulated time ----------------------------------------------------------------------------------------------------


class Simulation:
    """A publisher of /clock, and a node that follows it."""

    def __init__(self, ros: Ros) -> None:
        self.ros = ros
        self.source = ros.node("source")
        self.publisher = self.source.create_publisher(ClockMsg, "/clock", QoSProfile(depth=10))
        self.node = ros.node("follower", parameter_overrides=[Parameter("use_sim_time", value=True)])
        ros.spin(lambda: self.publisher.get_subscription_count() == 1, "the follower")

    @property
    def now(self) -> float:
        return self.node.get_clock().now().nanoseconds / SECOND

    def advance_to(self, seconds: float) -> None:
        nanoseconds = round(seconds * SECOND)
        message = ClockMsg(clock=TimeMsg(sec=nanoseconds // SECOND, nanosec=nanoseconds % SECOND))
        self.publisher.publish(message)
        self.ros.spin(lambda: self.node.get_clock().now().nanoseconds == nanoseconds, f"time {seconds}")
        self.ros.spin_for(0.03)


def test_simulated_time(ros: Ros) -> None:
    simulation = Simulation(ros)
    clock = simulation.node.get_clock()
    assert simulation.now == 0.0 and clock.ros_time_is_active and clock.now().clock_type == ClockType.ROS_TIME
    simulation.advance_to(12.5)
    assert simulation.now == 12.5
    (result,) = simulation.node.set_parameters([Parameter("use_sim_time", value=False)])
    assert result.successful and not clock.ros_time_is_active and abs(simulation.now - time.time()) < 1.0
    simulation.node.set_parameters([Parameter("use_sim_time", value=True)])
    assert clock.ros_time_is_active
    ros.spin(lambda: simulation.publisher.get_subscription_count() == 1, "the follower")
    simulation.advance_to(13.0)
    (result,) = simulation.node.set_parameters([Parameter("use_sim_time", value="yes")])
    assert not result.successful and clock.ros_time_is_active


def test_timers_follow_simulated_time(ros: Ros) -> None:
    simulation = Simulation(ros)
    ticks: list[float] = []
    simulation.advance_to(100.0)
    simulation.node.create_timer(0.5, lambda: ticks.append(simulation.now))
    wall: list[int] = []
    simulation.node.create_timer(0.01, lambda: wall.append(1), clock=STEADY)
    simulation.advance_to(100.4)
    assert not ticks
    for seconds in (100.5, 100.7, 101.0, 101.2):
        simulation.advance_to(seconds)
    assert ticks == [100.5, 101.0]
    assert len(wall) >= 3
    ros.spin_for(0.6)
    assert ticks == [100.5, 101.0]  # wall time alone moves nothing


def test_timers_live_on_after_a_jump_back(ros: Ros) -> None:
    simulation = Simulation(ros)
    simulation.advance_to(100.0)
    ticks: list[float] = []
    simulation.node.create_timer(0.5, lambda: ticks.append(simulation.now))
    simulation.advance_to(100.5)
    simulation.advance_to(50.0)
    for seconds in (50.6, 51.2):
        simulation.advance_to(seconds)
    assert ticks[0] == 100.5 and 51.2 in ticks


def test_jumps_call_back(ros: Ros) -> None:
    simulation = Simulation(ros)
    clock = simulation.node.get_clock()
    told: dict[str, list[Any]] = {"before": [], "forward": [], "backward": [], "change": []}
    nothing = dict(min_forward=None, min_backward=None, on_clock_change=False)
    simulation.advance_to(10.0)

    def register(name: str, **threshold: Any) -> Any:
        return clock.create_jump_callback(
            JumpThreshold(**{**nothing, **threshold}),
            pre_callback=lambda: told["before"].append((name, simulation.now)),
            post_callback=lambda jump: told[name].append((jump.clock_change, jump.delta.nanoseconds / SECOND)),
        )

    handles = [
        register("forward", min_forward=Duration(seconds=2)),
        register("backward", min_backward=Duration(seconds=-1)),
        register("change", on_clock_change=True),
    ]
    for seconds in (11.0, 14.0, 13.5, 11.0):
        simulation.advance_to(seconds)
    same = ClockChange.ROS_TIME_NO_CHANGE
    assert told["forward"] == [(same, 3.0)] and told["backward"] == [(same, -2.5)] and not told["change"]
    assert told["before"] == [("forward", 11.0), ("backward", 13.5)]
    simulation.node.set_parameters([Parameter("use_sim_time", value=False)])
    assert [change for change, _ in told["change"]] == [ClockChange.ROS_TIME_DEACTIVATED]
    for handle in handles:
        handle.unregister()
    simulation.node.set_parameters([Parameter("use_sim_time", value=True)])
    assert len(told["change"]) == 1


def test_jump_thresholds_are_checked() -> None:
    with pytest.raises(ValueError):
        JumpThreshold(min_forward=Duration(seconds=-1), min_backward=None)
    with pytest.raises(ValueError):
        JumpThreshold(min_forward=None, min_backward=Duration(seconds=1))
    with pytest.raises(ValueError):
        JumpThreshold(min_forward=None, min_backward=None, on_clock_change=False)
    with pytest.raises(ValueError):
        ROSClock().create_jump_callback(JumpThreshold(min_forward=None, min_backward=None))

"""Executors: what spinning runs, how long it waits, and whose callbacks."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Any

import pytest
import rclpy
from conformance_support import STANDALONE, Ros, either, until
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.executors import MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.task import Future
from std_msgs.msg import Int32


@pytest.mark.parametrize("timeout", [0.0, 0.1])
def test_spin_once_waits_as_long_as_it_is_told(ros: Ros, timeout: float) -> None:
    node = ros.node(enable_rosout=False)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    executor.spin_once(timeout_sec=0.0)  # the first time may find what creating the node left
    until(lambda: _quiet(executor), "nothing left to do")
    begin = time.monotonic()
    executor.spin_once(timeout_sec=timeout)
    waited = time.monotonic() - begin
    assert timeout * 0.9 <= waited < timeout + 5.0
    executor.shutdown()


def _quiet(executor: Any) -> bool:
    begin = time.monotonic()
    executor.spin_once(timeout_sec=0.05)
    return time.monotonic() - begin >= 0.045


def test_spin_once_returns_when_something_came(ros: Ros) -> None:
    node = ros.node()
    ticks: list[int] = []
    node.create_timer(0.02, lambda: ticks.append(1))
    begin = time.monotonic()
    while not ticks:
        rclpy.spin_once(node, timeout_sec=60.0)
    assert time.monotonic() - begin < 30.0


def test_how_much_spin_once_runs(ros: Ros) -> None:
    node = ros.node()
    ran: list[int] = []
    for number in range(3):
        node.create_timer(0.01, lambda number=number: ran.append(number))
    time.sleep(0.05)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while not ran:
        executor.spin_once(timeout_sec=1.0)
    assert len(ran) == either("spin-once", standalone=3, ros=1)
    executor.shutdown()


def test_one_executor_spins_several_nodes(ros: Ros) -> None:
    ros.init()
    nodes = [rclpy.create_node(f"node_{number}") for number in range(3)]
    ran: set[str] = set()
    with SingleThreadedExecutor() as executor:
        for node in nodes:
            assert executor.add_node(node) and not executor.add_node(node) and node.executor is executor
            node.create_timer(0.01, lambda node=node: ran.add(node.get_name()))
        assert set(executor.get_nodes()) == set(nodes)

        def spin() -> bool:
            executor.spin_once(timeout_sec=0.05)
            return len(ran) == 3

        until(spin, "all nodes")
        executor.remove_node(nodes[0])
        ran.clear()
        until(lambda: spin() or len(ran) == 2, "the others")
        end = time.monotonic() + 0.05
        while time.monotonic() < end:
            executor.spin_once(timeout_sec=0.01)
        assert ran == {"node_1", "node_2"}
    for node in nodes:
        node.destroy_node()


def test_messages_go_round_between_nodes(ros: Ros) -> None:
    ping, pong = ros.node("ping"), ros.node("pong")
    out = ping.create_publisher(Int32, "there", 10)
    back = pong.create_publisher(Int32, "back", 10)
    got: list[int] = []

    def answer(message: Int32) -> None:
        got.append(message.data)
        if message.data < 20:
            out.publish(Int32(data=message.data + 1))

    pong.create_subscription(Int32, "there", lambda message: back.publish(message), 10)
    ping.create_subscription(Int32, "back", answer, 10)
    ros.spin(lambda: out.get_subscription_count() == 1 and back.get_subscription_count() == 1, "the matches")
    out.publish(Int32(data=0))
    ros.spin(lambda: len(got) == 21, "twenty rounds")
    assert got == list(range(21))


def test_callbacks_may_take_a_message_and_its_info(ros: Ros) -> None:
    node = ros.node()
    plain: list[Any] = []
    informed: list[Any] = []
    default: list[Any] = []
    node.create_subscription(Int32, "topic", lambda message: plain.append(message.data), 10)
    node.create_subscription(Int32, "topic", lambda message, info: informed.append((message.data, info)), 10)
    node.create_subscription(Int32, "topic", lambda message, extra="default": default.append(extra), 10)
    publisher = node.create_publisher(Int32, "topic", 10)
    ros.spin(lambda: publisher.get_subscription_count() == 3, "the matches")
    before = time.time_ns()
    publisher.publish(Int32(data=5))
    ros.spin(lambda: plain and informed and default, "the message")
    assert plain == [5] and default == ["default"] and informed[0][0] == 5
    info = informed[0][1]
    assert before - 10**9 <= info["source_timestamp"] <= info["received_timestamp"] + 10**9
    for wrong in (lambda: None, lambda a, b, c: None):
        with pytest.raises(RuntimeError):
            node.create_subscription(Int32, "topic", wrong, 10)


def test_an_exception_in_a_callback_leaves_spin(ros: Ros) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    node = ros.node()
    node.create_timer(0.01, fail)
    with pytest.raises(ZeroDivisionError):
        ros.spin_for(20.0)


def test_shutdown_from_another_thread_ends_spin(ros: Ros) -> None:
    from rclpy.executors import ExternalShutdownException

    node = ros.node()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    ended: list[str] = []

    def spin() -> None:
        with suppress(ExternalShutdownException):
            executor.spin()
        ended.append("spin")

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    time.sleep(0.05)
    rclpy.shutdown()
    until(lambda: ended, "the end of spin")
    thread.join(20.0)


def test_shutting_an_executor_down_ends_its_spin(ros: Ros) -> None:
    node = ros.node()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    time.sleep(0.05)
    assert executor.shutdown(timeout_sec=20.0)
    thread.join(20.0)
    assert not thread.is_alive() and rclpy.ok()


def test_a_future_from_another_thread_ends_the_wait(ros: Ros) -> None:
    node = ros.node()
    future: Any = Future()
    timer = threading.Timer(0.05, lambda: future.set_result("done"))
    timer.start()
    begin = time.monotonic()
    with SingleThreadedExecutor() as executor:
        executor.add_node(node)
        executor.spin_until_future_complete(future, timeout_sec=30.0)
    assert future.result() == "done" and time.monotonic() - begin < 20.0
    timer.join()


def test_futures() -> None:
    future: Any = Future()
    told: list[Any] = []
    future.add_done_callback(told.append)
    assert not future.done() and future.result() is None and not told
    future.set_result(3)
    assert future.done() and future.result() == 3 and told == [future]
    failed: Any = Future()
    failed.set_exception(ValueError("no"))
    assert isinstance(failed.exception(), ValueError)
    with pytest.raises(ValueError):
        failed.result()
    given_up: Any = Future()
    given_up.cancel()
    assert given_up.cancelled() and not given_up.done()


@pytest.mark.parametrize("kind", [MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup])
def test_callback_groups_are_taken_everywhere(ros: Ros, kind: Any) -> None:
    from std_srvs.srv import Trigger

    node = ros.node()
    group = kind()
    got: list[int] = []
    ticks: list[int] = []
    timer = node.create_timer(0.01, lambda: ticks.append(1), callback_group=group)
    subscription = node.create_subscription(Int32, "topic", lambda m: got.append(m.data), 10, callback_group=group)
    service = node.create_service(Trigger, "ask", lambda _, response: response, callback_group=group)
    client = node.create_client(Trigger, "ask", callback_group=group)
    publisher = node.create_publisher(Int32, "topic", 10, callback_group=group)
    assert all(entity.callback_group is group for entity in (timer, subscription, service, client))
    assert isinstance(node.default_callback_group, MutuallyExclusiveCallbackGroup)
    ros.spin(lambda: publisher.get_subscription_count() == 1 and client.service_is_ready(), "the matches")
    publisher.publish(Int32(data=1))
    future = client.call_async(Trigger.Request())
    ros.spin(lambda: got and ticks and future.done(), "all of them")


@pytest.mark.skipif(STANDALONE, reason="refused, see test_unsupported.py")
def test_the_multi_threaded_executor_works(ros: Ros) -> None:
    node = ros.node()
    ticks: list[int] = []
    node.create_timer(0.01, lambda: ticks.append(1))
    executor = MultiThreadedExecutor(2)
    executor.add_node(node)
    until(lambda: executor.spin_once(timeout_sec=0.05) or ticks, "a tick")
    executor.shutdown()

"""Service servers and clients."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import rclpy
from conformance_support import REFUSALS, RUNTIMES, Child, Ros, until
from rclpy.exceptions import InvalidHandle
from rclpy.executors import SingleThreadedExecutor
from std_srvs.srv import SetBool, Trigger


def flip(request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
    response.success = not request.data
    response.message = f"was {request.data}"
    return response


def test_a_call_is_answered(ros: Ros) -> None:
    server, caller = ros.node("server"), ros.node("caller")
    service = server.create_service(SetBool, "flip", flip)
    answer = ros.call(caller, SetBool, "flip", SetBool.Request(data=True))
    assert (answer.success, answer.message) == (False, "was True")
    assert service in list(server.services) and service.srv_type is SetBool
    assert ("/flip", ["std_srvs/srv/SetBool"]) in caller.get_service_names_and_types()


def test_a_node_may_call_itself(ros: Ros) -> None:
    node = ros.node()
    node.create_service(SetBool, "~/flip", flip)
    assert ros.call(node, SetBool, "me/flip", SetBool.Request()).success


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_service_of_another_process(ros: Ros, children: list[Child], runtime: str) -> None:
    children.append(Child("settings", runtime))
    node = ros.node()
    assert [ros.call(node, SetBool, "settings/switch", SetBool.Request(data=on)).message for on in (True, False)] == [
        "on",
        "off",
    ]


def test_a_coroutine_answers_when_what_it_awaits_is_there(ros: Ros) -> None:
    """While it waits, the node's other callback groups go on."""
    from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
    from rclpy.task import Future

    server, caller = ros.node("server"), ros.node("caller")
    awaited: list[Any] = []
    ticks: list[bool] = []

    async def later(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        awaited.append(Future(executor=server.executor))
        response.message = await awaited[0]
        response.success = threading.current_thread() is threading.main_thread()
        return response

    server.create_service(Trigger, "later", later, callback_group=MutuallyExclusiveCallbackGroup())
    client = caller.create_client(Trigger, "later")
    ros.spin(client.service_is_ready, "the service")
    future = client.call_async(Trigger.Request())
    ros.spin(lambda: awaited, "the request")
    server.create_timer(0.01, lambda: ticks.append(future.done()))
    ros.spin(lambda: len(ticks) > 3, "ticks")
    assert not any(ticks)
    threading.Thread(target=awaited[0].set_result, args=("done",)).start()
    ros.spin(future.done, "the response")
    assert future.result().success and future.result().message == "done"


def test_waiting_for_a_service(ros: Ros) -> None:
    node = ros.node()
    client = node.create_client(Trigger, "absent")
    begin = time.monotonic()
    assert not client.service_is_ready() and not client.wait_for_service(timeout_sec=0.3)
    assert 0.25 <= time.monotonic() - begin < 5.0
    node.create_service(Trigger, "absent", lambda _, response: response)
    assert client.wait_for_service(timeout_sec=20.0) and client.service_is_ready()


def test_waiting_for_a_response_times_out(ros: Ros) -> None:
    node = ros.node()
    client = node.create_client(Trigger, "absent")
    future = client.call_async(Trigger.Request())
    begin = time.monotonic()
    executor = SingleThreadedExecutor()
    rclpy.spin_until_future_complete(node, future, executor, timeout_sec=0.2)
    assert 0.15 <= time.monotonic() - begin < 5.0 and not future.done() and future.result() is None
    client.remove_pending_request(future)
    executor.shutdown()


def test_spinning_until_the_response(ros: Ros) -> None:
    server = ros.node("server")
    server.create_service(SetBool, "flip", flip)
    executor = SingleThreadedExecutor()
    client = server.create_client(SetBool, "flip")
    assert client.wait_for_service(20.0)
    executor.add_node(server)
    future = client.call_async(SetBool.Request(data=False))
    executor.spin_until_future_complete(future, timeout_sec=20.0)
    assert future.done() and future.result().success and future.exception() is None
    late: list[Any] = []
    future.add_done_callback(late.append)
    until(lambda: executor.spin_once(timeout_sec=0.02) or late == [future], "the callback of a future that is done")
    executor.shutdown()


def test_many_calls_in_flight_find_their_own_answers(ros: Ros) -> None:
    """As many as the default profile's depth holds, of two clients at once, round after round."""
    server, caller = ros.node("server"), ros.node("caller")
    seen: list[bool] = []

    def answer(request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        seen.append(request.data)
        response.success, response.message = request.data, str(len(seen))
        return response

    server.create_service(SetBool, "count", answer)
    clients = [caller.create_client(SetBool, "count") for _ in range(2)]
    ros.spin(lambda: all(client.service_is_ready() for client in clients), "the service")

    def rounds() -> None:
        wanted = [number % 3 == 0 for number in range(10)]
        futures = [clients[number % 2].call_async(SetBool.Request(data=on)) for number, on in enumerate(wanted)]
        done: list[Any] = []
        for future in futures:
            future.add_done_callback(done.append)
        ros.spin(lambda: len(done) == len(futures), "all answers")
        assert [future.result().success for future in futures] == wanted

    for _ in range(5):
        rounds()
    assert len(seen) == 50


def test_a_blocking_call_from_another_thread(ros: Ros) -> None:
    server = ros.node("server")
    server.create_service(SetBool, "flip", flip)
    client = server.create_client(SetBool, "flip")
    ros.spin(client.service_is_ready, "the service")
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(client.call(SetBool.Request(data=False))), daemon=True)
    thread.start()
    ros.spin(lambda: answers, "the answer")
    thread.join(20.0)
    assert answers[0].success


def test_what_is_wrong_is_refused(ros: Ros) -> None:
    node = ros.node()
    client = node.create_client(SetBool, "flip")
    with pytest.raises(TypeError):
        client.call_async(Trigger.Request())
    with pytest.raises(TypeError):
        client.call_async(SetBool.Response())
    for wrong in (SetBool.Request, "SetBool", None):
        with pytest.raises(REFUSALS):
            node.create_service(wrong, "x", flip)
        with pytest.raises(REFUSALS):
            node.create_client(wrong, "x")


def test_an_exception_in_a_service_leaves_spin(ros: Ros) -> None:
    def fail(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        raise ZeroDivisionError

    node = ros.node()
    node.create_service(Trigger, "fail", fail)
    with pytest.raises(ZeroDivisionError):
        ros.call(node, Trigger, "fail", Trigger.Request())


def test_what_is_destroyed_answers_no_more(ros: Ros) -> None:
    server, caller = ros.node("server"), ros.node("caller")
    service = server.create_service(Trigger, "ask", lambda _, response: response)
    client = caller.create_client(Trigger, "ask")
    ros.spin(client.service_is_ready, "the service")
    assert server.destroy_service(service) and not server.destroy_service(service)
    ros.spin(lambda: not client.service_is_ready(), "its end")
    assert caller.destroy_client(client) and not caller.destroy_client(client)
    with pytest.raises(InvalidHandle):
        client.service_is_ready()
    assert not list(caller.clients)

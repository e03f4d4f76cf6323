"""Names of nodes, topics and services: expansion, remapping, refusal."""

from __future__ import annotations

from typing import Any

import pytest
from conformance_support import Ros
from rclpy.exceptions import (
    InvalidNamespaceException,
    InvalidNodeNameException,
    InvalidServiceNameException,
    InvalidTopicNameException,
)
from std_msgs.msg import String
from std_srvs.srv import Trigger


@pytest.mark.parametrize(
    ("namespace", "expected"),
    [(None, "/"), ("", "/"), ("/", "/"), ("lab", "/lab"), ("/lab", "/lab"), ("/lab/arm_2", "/lab/arm_2")],
)
def test_namespaces(ros: Ros, namespace: str | None, expected: str) -> None:
    node = ros.node("me", namespace=namespace)
    assert (node.get_name(), node.get_namespace()) == ("me", expected)
    assert node.get_fully_qualified_name() == ("/me" if expected == "/" else f"{expected}/me")


@pytest.mark.parametrize("name", ["3d", "a-b", "a b", "a/b", "~me", "", "é", "n" * 256])
def test_invalid_node_names_are_refused(ros: Ros, name: str) -> None:
    with pytest.raises(InvalidNodeNameException):
        ros.node(name)


@pytest.mark.parametrize("namespace", ["/3d", "a b", "/a//b", "/lab/", "/~a", "/a-b"])
def test_invalid_namespaces_are_refused(ros: Ros, namespace: str) -> None:
    with pytest.raises(InvalidNamespaceException):
        ros.node("me", namespace=namespace)


TOPICS = [
    ("out", "/lab/out"),
    ("a/b", "/lab/a/b"),
    ("/out", "/out"),
    ("~/out", "/lab/me/out"),
    ("~", "/lab/me"),
    ("{node}/out", "/lab/me/out"),
    ("{ns}/out", "/lab/out"),
    ("a1/_b2", "/lab/a1/_b2"),
]


@pytest.mark.parametrize(("name", "expected"), TOPICS)
def test_names_are_expanded(ros: Ros, name: str, expected: str) -> None:
    node = ros.node("me", namespace="/lab")
    assert node.resolve_topic_name(name) == node.resolve_service_name(name) == expected
    assert node.create_publisher(String, name, 1).topic_name == expected
    assert node.create_subscription(String, name, print, 1).topic_name == expected
    assert node.create_service(Trigger, name, lambda _, response: response).service_name == expected
    assert node.create_client(Trigger, name).service_name == expected


WRONG = ["", "3d", "a b", "a-b", "/", "out/", "a//b", "a/3d", "~out", "a~", "a{b", "{7}"]


@pytest.mark.parametrize("name", WRONG)
def test_invalid_names_are_refused(ros: Ros, name: str) -> None:
    node = ros.node()
    with pytest.raises(InvalidTopicNameException):
        node.create_publisher(String, name, 1)
    with pytest.raises(InvalidTopicNameException):
        node.create_subscription(String, name, print, 1)
    with pytest.raises(InvalidServiceNameException):
        node.create_service(Trigger, name, lambda _, response: response)
    with pytest.raises(InvalidServiceNameException):
        node.create_client(Trigger, name)


@pytest.mark.parametrize(
    ("rules", "topic", "expected"),
    [
        (["in:=other"], "in", "/lab/other"),
        (["in:=/other"], "in", "/other"),
        (["/lab/in:=other"], "in", "/lab/other"),
        (["in:=~/other"], "in", "/lab/me/other"),
        (["~/in:=other"], "~/in", "/lab/other"),
        (["in:=first", "in:=second"], "in", "/lab/first"),
        (["in:=b", "b:=c"], "in", "/lab/b"),
        (["me:in:=other"], "in", "/lab/other"),
        (["you:in:=other"], "in", "/lab/in"),
        (["rostopic://in:=other"], "in", "/lab/other"),
        (["rosservice://in:=other"], "in", "/lab/in"),
        (["/in:=other"], "in", "/lab/in"),
    ],
)
def test_topics_are_remapped(ros: Ros, rules: list[str], topic: str, expected: str) -> None:
    ros.init(*(word for rule in rules for word in ("-r", rule)))
    node = ros.node("me", namespace="/lab")
    assert node.resolve_topic_name(topic) == expected
    assert node.create_publisher(String, topic, 1).topic_name == expected
    assert node.resolve_topic_name(topic, only_expand=True) == ("/lab/me/in" if topic == "~/in" else "/lab/in")


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("ask:=other", "/other"), ("rosservice://ask:=other", "/other"), ("rostopic://ask:=other", "/ask")],
)
def test_services_are_remapped(ros: Ros, rule: str, expected: str) -> None:
    ros.init("-r", rule)
    node = ros.node()
    assert node.create_client(Trigger, "ask").service_name == expected
    assert node.create_service(Trigger, "ask", lambda _, response: response).service_name == expected


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (["__node:=new"], "/old/new"),
        (["__name:=new"], "/old/new"),
        (["__ns:=/lab"], "/lab/me"),
        (["__node:=new", "__ns:=/lab"], "/lab/new"),
        (["__node:=first", "__node:=second"], "/old/first"),
        (["__ns:=/first", "__ns:=/second"], "/first/me"),
        (["me:__node:=new"], "/old/new"),
        (["you:__node:=new"], "/old/me"),
    ],
)
def test_nodes_are_renamed(ros: Ros, rules: list[str], expected: str) -> None:
    ros.init(*(word for rule in rules for word in ("-r", rule)))
    assert ros.node("me", namespace="/old").get_fully_qualified_name() == expected


def test_private_names_follow_a_renamed_node(ros: Ros) -> None:
    ros.init("-r", "__node:=new", "-r", "__ns:=/lab", "-r", "~/in:=out")
    node = ros.node("me")
    assert node.resolve_topic_name("~/state") == "/lab/new/state"
    assert node.resolve_topic_name("~/in") == "/lab/out"
    assert node.get_logger().name == "lab.new"


def test_a_node_may_have_arguments_of_its_own_and_ignore_those_of_the_process(ros: Ros) -> None:
    ros.init("-r", "in:=global", "-p", "label:=global")
    own = ros.node("own", cli_args=["-r", "in:=local", "-p", "label:=local"])
    deaf = ros.node("deaf", use_global_arguments=False)
    plain = ros.node("plain")
    assert [node.resolve_topic_name("in") for node in (own, deaf, plain)] == ["/local", "/in", "/global"]
    values = [node.declare_parameter("label", "default").value for node in (own, deaf, plain)]
    assert values == ["local", "default", "global"]


def test_a_second_node_of_the_same_name_is_warned_of_and_works(ros: Ros, capfd: pytest.CaptureFixture[str]) -> None:
    first, second = ros.node("twin"), ros.node("twin")
    written = "".join(capfd.readouterr())
    assert "[WARN]" in written and "twin" in written
    got: list[String] = []
    second.create_subscription(String, "topic", got.append, 10)
    publisher = first.create_publisher(String, "topic", 10)
    ros.spin(lambda: publisher.get_subscription_count() == 1, "the twin")
    publisher.publish(String(data="hello"))
    ros.spin(lambda: got, "the message")
    watcher = ros.node("watcher")
    ros.spin(lambda: watcher.get_node_names().count("twin") == 2, "both in the graph")


def test_graph_queries_take_relative_names(ros: Ros) -> None:
    node = ros.node("me", namespace="/lab")
    node.create_publisher(String, "out", 1)
    ros.spin(lambda: node.count_publishers("out") == 1, "the publisher")
    (info,) = node.get_publishers_info_by_topic("out")
    ros.spin(lambda: node.get_publishers_info_by_topic("/lab/out")[0].node_name == "me", "its node")
    assert info.topic_type == "std_msgs/msg/String"
    assert node.count_subscribers("/lab/out") == 0
    assert ("/lab/out", ["std_msgs/msg/String"]) in node.get_topic_names_and_types()
    assert ("me", "/lab") in node.get_node_names_and_namespaces()
    assert "/lab/me" in node.get_fully_qualified_node_names()


def test_a_subclass_may_use_names_that_rclpy_leaves_free(ros: Ros) -> None:
    """What a runtime keeps in its classes must not be in the way of a user's attributes."""
    from rclpy.lifecycle import LifecycleNode

    class Mine(LifecycleNode):
        def __init__(self, name: str, **options: Any) -> None:
            for attribute in ("started", "version", "parameters", "sources", "state", "_state", "_name", "_failure"):
                setattr(self, attribute, "mine")
            super().__init__(name, **options)
            for attribute in ("started", "version", "parameters", "sources", "state", "_state", "_name", "_failure"):
                setattr(self, attribute, "mine")

        def start(self) -> None:
            raise AssertionError("not the runtime's")

        trigger = eventful = _call = _go = _tell = start

    node = ros.lifecycle("mine", Mine)
    node.create_timer(0.01, lambda: ticks.append(1))
    ticks: list[int] = []
    node.trigger_configure()
    node.trigger_activate()
    ros.spin(lambda: ticks, "a tick")
    assert node.get_name() == "mine" and node.state == node._state == "mine"

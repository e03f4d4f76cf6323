"""Nodes of another process: topics both ways, the graph, the log. Beside ROS 2 also nodes of the standalone runtime."""

from __future__ import annotations

from typing import Any

import pytest
from conformance_support import RUNTIMES, Child, Ros
from lifecycle_msgs.msg import TransitionEvent
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import Log
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

pytestmark = pytest.mark.parametrize("runtime", RUNTIMES)
LATCHED = QoSProfile(depth=10, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)


def picture(number: int) -> Image:
    message = Image(height=48, width=64, encoding="rgb8", step=192, data=bytes([number]) * (48 * 192))
    message.header.frame_id = "camera"
    message.header.stamp.sec = number
    return message


@pytest.mark.parametrize("reliability", [QoSReliabilityPolicy.RELIABLE, QoSReliabilityPolicy.BEST_EFFORT])
def test_messages_come_back_as_they_were(
    ros: Ros, children: list[Child], runtime: str, reliability: QoSReliabilityPolicy
) -> None:
    children.append(Child("echo", runtime))
    node = ros.node()
    qos = QoSProfile(depth=10, reliability=reliability)
    images: list[Image] = []
    states: list[JointState] = []
    node.create_subscription(Image, "image_back", images.append, qos)
    node.create_subscription(JointState, "state_back", states.append, qos)
    pairs = [(node.create_publisher(Image, "image", qos), "image_back")]
    pairs.append((node.create_publisher(JointState, "state", qos), "state_back"))
    ros.spin(lambda: all(p.get_subscription_count() == node.count_publishers(n) == 1 for p, n in pairs), "the child")
    state = JointState(name=["a", "ä"], position=[0.5, -1e300], velocity=[], effort=[float("inf")])
    sent: list[int] = []

    def exchange() -> Any:
        number = len(sent) % 200
        sent.append(number)
        pairs[0][0].publish(picture(number))
        pairs[1][0].publish(state)
        return len(images) >= 20 and len(states) >= 20

    ros.spin(exchange, "twenty of each")
    assert all(image == picture(image.header.stamp.sec) for image in images)
    assert all(echoed == state for echoed in states)


def test_late_joiners_get_what_was_latched(ros: Ros, children: list[Child], runtime: str) -> None:
    children.append(Child("echo", runtime))
    children[0].wait_for("ready")
    node = ros.node()
    got: list[str] = []
    node.create_subscription(String, "latched", lambda message: got.append(message.data), LATCHED)
    ros.spin(lambda: len(got) >= 3, "what was latched")
    assert got == ["one", "two", "three"]


def test_the_graph_names_the_node_and_its_endpoints(ros: Ros, children: list[Child], runtime: str) -> None:
    children.append(Child("settings", runtime))
    node = ros.node()
    ros.spin(lambda: "/settings" in node.get_fully_qualified_node_names(), "the node")
    ros.spin(lambda: [i.node_name for i in node.get_publishers_info_by_topic("/chatter")] == ["settings"], "its topic")
    (info,) = node.get_publishers_info_by_topic("/chatter")
    assert (info.node_namespace, info.topic_type) == ("/", "std_msgs/msg/String")
    if hasattr(info, "topic_type_hash"):
        assert str(info.topic_type_hash).endswith("df668c740482bbd48fb39d76a70dfd4bd59db1288021743503259e948f6b1a18")
    ros.spin(lambda: "/settings/switch" in dict(node.get_service_names_and_types()), "its service")
    assert dict(node.get_service_names_and_types())["/settings/switch"] == ["std_srvs/srv/SetBool"]
    children[0].close()
    ros.spin(lambda: "/settings" not in node.get_fully_qualified_node_names(), "its end")


def test_the_log_and_the_transitions_arrive(ros: Ros, children: list[Child], runtime: str) -> None:
    children.append(Child("life", runtime))
    node = ros.node()
    records: list[str] = []
    events: list[tuple[str, str]] = []
    node.create_subscription(Log, "/rosout", lambda record: records.append(f"{record.name}: {record.msg}"), LATCHED)
    node.create_subscription(
        TransitionEvent,
        "/life/transition_event",
        lambda event: events.append((event.start_state.label, event.goal_state.label)),
        10,
    )
    ros.spin(lambda: node.count_publishers("/life/transition_event") == 1, "the topic")
    ros.spin_for(0.3)
    request = ChangeState.Request()
    request.transition.label = "configure"
    assert ros.call(node, ChangeState, "/life/change_state", request).success
    ros.spin(lambda: len(events) >= 2 and "life: configured" in records, "log and transitions")
    assert events == [("unconfigured", "configuring"), ("configuring", "inactive")]

"""Two processes of the standalone runtime exchanging messages, and what others on the domain see of a node."""

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("cyclonedds")

from standalone_process import Child, node, spin_until, until, without_ros
from standalone_process import domain as domain  # fixtures
from standalone_process import start as start

from ropes_ros.standalone import definitions, discovery, wire
from ropes_ros.standalone.errors import DiscoveryError
from ropes_ros.standalone.messages import deserialize_message, message_class, serialize_message

pytestmark = without_ros
Start = Callable[..., Child]


def test_messages_arrive_whole_and_in_order_in_another_process(start: Start) -> None:
    from rclpy.qos import QoSDurabilityPolicy, QoSProfile, qos_profile_sensor_data
    from sensor_msgs.msg import Image, JointState
    from std_msgs.msg import String

    start("Talker")
    got = SimpleNamespace(reliable=[], best_effort=[], raw=[], joints=[], latched=[])
    with node() as me:
        me.create_subscription(Image, "reliable", got.reliable.append, 1000)
        me.create_subscription(Image, "best_effort", got.best_effort.append, qos_profile_sensor_data)
        me.create_subscription(Image, "reliable", got.raw.append, 1000, raw=True)
        me.create_subscription(JointState, "joint_states", got.joints.append, qos_profile_sensor_data)
        spin_until(me, lambda: len(got.joints) > 20 and len(got.reliable) > 20, "20 joint states")
        # A late joiner still receives what was said before; one without transient local durability does not.
        latched = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
        volatile: list[Any] = []
        me.create_subscription(String, "latched", volatile.append, 1)
        me.create_subscription(String, "latched", got.latched.append, latched)
        spin_until(me, lambda: got.latched, "the latched message")
    assert [m.data for m in got.latched] == ["said before you came"] and not volatile
    numbers = [m.header.stamp.sec for m in got.reliable]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    for message in (*got.reliable, *got.best_effort):
        assert (message.height, message.width, message.encoding, message.header.frame_id) == (24, 32, "rgb8", "camera")
        assert bytes(message.data) == bytes([message.header.stamp.sec % 256]) * 2304
    assert [deserialize_message(data, Image) for data in got.raw] == got.reliable[-len(got.raw) :]
    assert got.joints[0].name == ["a", "b"] and got.joints[0].position[0] == 0.5


def test_raw_bytes_go_through_unchanged(domain: int) -> None:
    from sensor_msgs.msg import Image
    from std_msgs.msg import String

    data = serialize_message(Image(height=1, width=2, step=6, encoding="rgb8", data=bytes(range(6))))
    got: list[Any] = []
    with node() as me:
        publisher = me.create_publisher(Image, "images", 10)
        me.create_subscription(Image, "images", got.append, 10, raw=True)
        me.create_subscription(Image, "images", lambda message, info: got.append((message, info)), 10)
        spin_until(me, lambda: publisher.get_subscription_count() == 2, "both subscriptions")
        publisher.publish(data)
        spin_until(me, lambda: len(got) == 2, "both messages")
        with pytest.raises(TypeError, match="topic /images: expected sensor_msgs/msg/Image or bytes, not"):
            publisher.publish(String())
    raw = next(item for item in got if isinstance(item, bytes))
    message, info = next(item for item in got if isinstance(item, tuple))
    assert raw == data and bytes(message.data) == bytes(range(6))
    assert 0 < info["source_timestamp"] <= info["received_timestamp"]


def test_wait_for_all_acked_tells_a_slow_reader_from_a_quick_one(domain: int) -> None:
    from rclpy.duration import Duration
    from std_msgs.msg import String

    with node() as me:
        publisher = me.create_publisher(String, "words", 10)
        assert publisher.wait_for_all_acked(Duration(seconds=1))
        me.create_subscription(String, "words", lambda _: None, 10)
        spin_until(me, lambda: publisher.get_subscription_count() == 1, "the subscription")
        publisher.publish(String(data="x"))
        assert publisher.wait_for_all_acked(Duration(seconds=10))


def test_keep_last_keeps_the_newest_and_keep_all_everything(domain: int) -> None:
    from rclpy.qos import QoSHistoryPolicy, QoSProfile
    from std_msgs.msg import String

    newest: list[str] = []
    everything: list[str] = []
    with node() as me:
        me.create_subscription(String, "words", lambda m: newest.append(m.data), 2)
        keep_all = QoSProfile(history=QoSHistoryPolicy.KEEP_ALL)
        me.create_subscription(String, "words", lambda m: everything.append(m.data), keep_all)
        publisher = me.create_publisher(String, "words", 100)
        spin_until(me, lambda: publisher.get_subscription_count() == 2, "both subscriptions")
        for number in range(50):
            publisher.publish(String(data=str(number)))
        spin_until(me, lambda: len(everything) == 50, "50 messages")
    assert everything == [str(number) for number in range(50)]
    assert newest == ["48", "49"]


def test_services_answer_and_parameters_are_reachable(start: Start) -> None:
    import rclpy
    from rcl_interfaces.srv import GetParameters, ListParameters, SetParameters
    from rclpy.parameter import Parameter
    from std_srvs.srv import Trigger

    start("Talker")
    with node() as me:

        def call(kind: Any, name: str, request: Any) -> Any:
            client = me.create_client(kind, name)
            assert client.wait_for_service(20.0)
            future = client.call_async(request)
            rclpy.spin_until_future_complete(me, future, timeout_sec=20.0)
            return future.result()

        assert call(Trigger, "talker/ask", Trigger.Request()).message == "/talker"
        assert call(ListParameters, "talker/list_parameters", ListParameters.Request()).result.names == ["use_sim_time"]
        wrong = Parameter("use_sim_time", value=3).to_parameter_msg()
        (result,) = call(SetParameters, "talker/set_parameters", SetParameters.Request(parameters=[wrong])).results
        assert not result.successful and "must be BOOL" in result.reason
        values = call(GetParameters, "talker/get_parameters", GetParameters.Request(names=["use_sim_time"])).values
        assert [(value.type, value.bool_value) for value in values] == [(1, False)]


def test_incompatible_qos_is_warned_of_on_both_sides(start: Start) -> None:
    talker, mismatched = start("Talker"), start("Mismatched")
    line = mismatched.wait_for_error("offering incompatible QoS")
    assert "/best_effort" in line and line.endswith("RELIABILITY") and "[WARN]" in line
    line = talker.wait_for_error("requesting incompatible QoS")
    assert "/best_effort" in line and line.endswith("RELIABILITY")
    mismatched.wait_for("alive", 3)
    assert not mismatched.said("got")


def test_a_topic_with_two_types_is_reported(start: Start) -> None:
    start("Talker")
    conflicting = start("Mismatched", CONFLICT="1")
    line = conflicting.wait_for_error("topic /joint_states")
    assert "[ERROR]" in line and "sensor_msgs/msg/JointState" in line and "std_msgs/msg/String" in line
    conflicting.wait_for("alive", 3)
    assert sum("topic /joint_states" in line for line in conflicting.errors) == 1
    assert not conflicting.said("got")


def test_two_types_on_one_topic_within_a_process(domain: int, capfd: pytest.CaptureFixture[str]) -> None:
    from sensor_msgs.msg import Image
    from std_msgs.msg import String

    with node() as me:
        me.create_publisher(String, "thing", 1)
        me.create_subscription(Image, "thing", print, 1)
        printed: list[str] = []

        def reported() -> bool:
            printed.append(capfd.readouterr().err)
            return "topic /thing" in "".join(printed)

        spin_until(me, reported, "the conflict")
    assert "[ERROR]" in "".join(printed) and "".join(printed).count("topic /thing") == 1


def test_a_node_shows_in_the_graph(start: Start) -> None:
    from rclpy.qos import QoSDurabilityPolicy, QoSReliabilityPolicy
    from rclpy.topic_endpoint_info import TopicEndpointTypeEnum

    talker = start("Talker", "--ros-args", "-r", "__ns:=/lab")
    with node() as me:
        ask = ("/lab/talker/ask", ["std_srvs/srv/Trigger"])
        spin_until(me, lambda: ask in me.get_service_names_and_types(), "the node's service")
        spin_until(me, lambda: "/lab/talker" in me.get_fully_qualified_node_names(), "the node")
        spin_until(me, lambda: me.get_publishers_info_by_topic("/lab/latched")[0].node_name == "talker", "its names")
        (info,) = me.get_publishers_info_by_topic("/lab/best_effort")
        assert (info.node_name, info.node_namespace) == ("talker", "/lab")
        assert (info.topic_type, info.endpoint_type) == ("sensor_msgs/msg/Image", TopicEndpointTypeEnum.PUBLISHER)
        assert info.qos_profile.reliability == QoSReliabilityPolicy.BEST_EFFORT
        (latched,) = me.get_publishers_info_by_topic("/lab/latched")
        assert latched.qos_profile.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL
        assert ("/lab/reliable", ["sensor_msgs/msg/Image"]) in me.get_topic_names_and_types()
        assert me.count_publishers("/lab/reliable") == 1 and me.count_subscribers("/lab/reliable") == 0
        assert talker.stop() == 0
        spin_until(me, lambda: "talker" not in me.get_node_names(), "the node's end")
        assert me.count_publishers("/lab/reliable") == 0


def test_a_bare_dds_reader_sees_the_node_and_its_type_hashes(start: Start, domain: int) -> None:
    """What ROS 2 processes read: ros_discovery_info, and the user data of participants and endpoints."""
    from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsParticipant, BuiltinTopicDcpsPublication
    from cyclonedds.core import Policy, Qos
    from cyclonedds.domain import Domain, DomainParticipant
    from cyclonedds.idl import IdlStruct
    from cyclonedds.idl.annotations import final
    from cyclonedds.idl.types import array, bounded_str, sequence, uint8
    from cyclonedds.internal import InvalidSample
    from cyclonedds.sub import DataReader
    from cyclonedds.topic import Topic

    def declare(name: str, fields: dict[str, Any]) -> Any:
        from cyclonedds.idl import make_idl_struct

        made: type[IdlStruct] = make_idl_struct(name, f"rmw_dds_common::msg::dds_::{name}_", fields)
        return final(made)

    gid = declare("Gid", {"data": array[uint8, 16]})
    entities = declare(
        "NodeEntitiesInfo",
        {
            "node_namespace": bounded_str[256],
            "node_name": bounded_str[256],
            "reader_gid_seq": sequence[gid],
            "writer_gid_seq": sequence[gid],
        },
    )
    announcement = declare("ParticipantEntitiesInfo", {"gid": gid, "node_entities_info_seq": sequence[entities]})
    talker = start("Talker")
    configured = Domain(domain, discovery.configuration())
    participant = DomainParticipant(domain)
    qos = Qos(
        Policy.Reliability.Reliable(0),
        Policy.Durability.TransientLocal,
        Policy.History.KeepLast(1),
        Policy.DataRepresentation(use_cdrv0_representation=True),
    )
    reader = DataReader(participant, Topic(participant, "ros_discovery_info", announcement), qos)
    found: dict[str, Any] = {}

    def read() -> Any:
        for sample in reader.take(10):
            if not isinstance(sample, InvalidSample):
                for one in sample.node_entities_info_seq:
                    found[one.node_name] = (sample, one)
        return "talker" in found and len(found["talker"][1].writer_gid_seq) >= 13

    until(read, "the node's announcement")
    sample, one = found["talker"]
    participants = {s.key.bytes: s for s in BuiltinDataReader(participant, BuiltinTopicDcpsParticipant).take(100)}
    assert participants[bytes(sample.gid.data)].qos[Policy.Userdata].data == b"enclave=/;"
    writers = {bytes(gid.data) for gid in one.writer_gid_seq}
    published = {
        s.topic_name: s
        for s in BuiltinDataReader(participant, BuiltinTopicDcpsPublication).take(100)
        if s.key.bytes in writers
    }
    image = published["rt/reliable"]
    assert image.type_name == "sensor_msgs::msg::dds_::Image_"
    assert image.qos[Policy.Userdata].data == f"typehash={definitions.type_hash('sensor_msgs/msg/Image')};".encode()
    assert "rr/talker/askReply" in published
    assert talker.stop() == 0
    assert configured.domain_id == domain


def test_names_on_the_wire() -> None:
    assert wire.dds_type_name("sensor_msgs/msg/Image") == "sensor_msgs::msg::dds_::Image_"
    assert wire.ros_type_name("std_srvs::srv::dds_::Trigger_Request_") == "std_srvs/srv/Trigger_Request"
    assert wire.ros_type_name("Foo") == "Foo"


def test_discovery_follows_the_environment() -> None:
    assert discovery.domain_id({}) == 0 and discovery.domain_id({"ROS_DOMAIN_ID": "42"}) == 42
    for text in ("-1", "233", "seven"):
        with pytest.raises(DiscoveryError, match=f"ROS_DOMAIN_ID is '{text}'"):
            discovery.domain_id({"ROS_DOMAIN_ID": text})
    assert discovery.configuration({"CYCLONEDDS_URI": "file:///x"}) is None
    assert discovery.configuration({"ROS_AUTOMATIC_DISCOVERY_RANGE": "SYSTEM_DEFAULT"}) is None
    subnet = discovery.configuration({}) or ""
    assert "AllowMulticast" not in subnet and '<Peer address="127.0.0.1"/>' in subnet
    for local in ({"ROS_LOCALHOST_ONLY": "1"}, {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}):
        assert "<AllowMulticast>false</AllowMulticast>" in (discovery.configuration(local) or "")
    static = discovery.configuration({"ROS_STATIC_PEERS": "10.0.0.7;robot"}) or ""
    assert '<Peer address="10.0.0.7"/><Peer address="robot"/>' in static
    with pytest.raises(DiscoveryError, match="ROS_AUTOMATIC_DISCOVERY_RANGE is 'EVERYWHERE'"):
        discovery.configuration({"ROS_AUTOMATIC_DISCOVERY_RANGE": "everywhere"})


@pytest.mark.parametrize("reach", ["SUBNET", "OFF"])
def test_other_discovery_ranges(start: Start, reach: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """SUBNET meets other processes of this machine even without multicast; OFF meets nobody."""
    import rclpy

    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", reach)
    other = start("Life")
    other.wait_for("running")
    with node() as me:
        if reach == "SUBNET":
            spin_until(me, lambda: "life" in me.get_node_names(), "the other node")
        else:
            for _ in range(20):
                rclpy.spin_once(me, timeout_sec=0.05)
            assert me.get_node_names() == ["tester"]


def test_message_class_of_unknown_type() -> None:
    with pytest.raises(Exception, match="message type foo_msgs/msg/Bar is unknown"):
        message_class("foo_msgs/msg/Bar")


def test_standalone_stays_away_from_the_real_rclpy(monkeypatch: pytest.MonkeyPatch) -> None:
    from ropes_ros import standalone

    real = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "rclpy", real)  # type: ignore[arg-type]
    assert standalone.install() is False
    assert sys.modules["rclpy"] is real


def test_nothing_is_kept_of_processes_that_have_left(start: Start) -> None:
    """A node that runs for weeks sees many come and go."""
    with node() as me:
        graph = me.context.graph
        child = start("Talker")
        spin_until(me, lambda: len(graph._infos) == 2 and len(graph.nodes()) == 2, "it is known")
        child.stop()
        spin_until(me, lambda: len(graph.nodes()) == 1, "it has left")
        assert len(graph._infos) == 1

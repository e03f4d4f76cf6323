"""Message classes of the standalone runtime: rosidl's behaviour, and CDR against rosbags as an independent oracle."""

import copy
import random
from array import array
from typing import Any

import numpy as np
import pytest
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_typestore

from ropes_ros.errors import RopesError
from ropes_ros.standalone import definitions
from ropes_ros.standalone.errors import MessageError
from ropes_ros.standalone.messages import (
    deserialize_message,
    interface_modules,
    message_class,
    serialize_message,
)

ORACLE = get_typestore(Stores.ROS2_JAZZY)
NAMES = sorted(ORACLE.fielddefs)


def value_of(desc: Any, rng: random.Random) -> Any:
    """A random value for a field, in the form that a user would assign."""
    if desc[0] == Nodetype.NAME:
        return filled(desc[1], rng)
    if desc[0] == Nodetype.BASE:
        kind = desc[1][0]
        if kind == "string":
            return "".join(rng.choice("abcäß") for _ in range(rng.randint(0, 5)))
        if kind == "bool":
            return rng.random() < 0.5
        if kind == "byte":
            return bytes([rng.randint(0, 127)])
        if kind.startswith("float"):
            return float(np.float32(rng.uniform(-10, 10)))
        bits = {"char": "8"}.get(kind, kind.lstrip("uint"))
        high = (1 << int(bits)) - 1 if kind in ("char",) or kind.startswith("u") else (1 << int(bits) - 1) - 1
        return rng.randint(0, high)
    inner, limit = desc[1]
    count = limit if desc[0] == Nodetype.ARRAY else rng.randint(0, min(limit or 3, 3))
    return [value_of(inner, rng) for _ in range(count)]


def filled(type_name: str, rng: random.Random) -> Any:
    """A message with random content."""
    fields = definitions.STORE.fielddefs[type_name][1]
    return message_class(type_name)(**{name: value_of(desc, rng) for name, desc in fields})


@pytest.mark.parametrize("package", sorted({name.split("/")[0] for name in NAMES}))
def test_cdr_agrees_with_rosbags(package: str) -> None:
    rng = random.Random(package)
    for name in (name for name in NAMES if name.startswith(f"{package}/")):
        for _ in range(5):
            message = filled(name, rng)
            data = serialize_message(message)
            theirs = ORACLE.deserialize_cdr(data, name)
            little = bytes(ORACLE.serialize_cdr(theirs, name, little_endian=True))
            assert data[: len(little)] == little, name
            assert len(data) % 4 == 0 and len(data) - len(little) < 4
            assert deserialize_message(data, message_class(name)) == message, name
            big = bytes(ORACLE.serialize_cdr(theirs, name, little_endian=False))
            assert deserialize_message(big, message_class(name)) == message, name


def test_new_messages_have_nested_defaults_of_their_own() -> None:
    pose = message_class("geometry_msgs/msg/PoseWithCovarianceStamped")
    first, second = pose(), pose()
    assert first.pose.pose.orientation.w == 1.0 and first.header.frame_id == ""
    assert isinstance(first.pose.covariance, np.ndarray) and first.pose.covariance.shape == (36,)
    first.pose.pose.position.x = 2.0
    assert second.pose.pose.position.x == 0.0 and first != second
    copied = copy.deepcopy(first)
    first.pose.pose.position.x = 3.0
    assert copied.pose.pose.position.x == 2.0


def test_image_data_accepts_buffers_and_reads_as_array() -> None:
    image = message_class("sensor_msgs/msg/Image")
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    for data in (pixels, pixels[:, ::-1][:, ::-1], pixels.tobytes(), bytearray(pixels), array("B", pixels.tobytes())):
        message = image(data=data)
        assert isinstance(message.data, array) and message.data.typecode == "B"
        assert bytes(message.data) == pixels.tobytes()
    state = message_class("sensor_msgs/msg/JointState")(position=np.array([0.5, 1.5]), velocity=(1.0, 2.0))
    assert state.position == array("d", [0.5, 1.5]) and state.velocity == array("d", [1.0, 2.0])


def test_constants_and_field_types_are_rosidls() -> None:
    status = message_class("diagnostic_msgs/msg/DiagnosticStatus")
    assert (status.OK, status.STALE, status().level) == (b"\x00", b"\x03", b"\x00")
    assert message_class("lifecycle_msgs/msg/State").PRIMARY_STATE_ACTIVE == 3
    assert message_class("sensor_msgs/msg/CameraInfo").get_fields_and_field_types()["k"] == "double[9]"
    assert status.get_fields_and_field_types()["values"] == "sequence<diagnostic_msgs/KeyValue>"


@pytest.mark.parametrize(
    ("type_name", "field", "value"),
    [
        ("sensor_msgs/msg/JointState", "position", [1]),
        ("sensor_msgs/msg/JointState", "name", "abc"),
        ("sensor_msgs/msg/Image", "height", 1.0),
        ("sensor_msgs/msg/Image", "height", -1),
        ("sensor_msgs/msg/Image", "data", [256]),
        ("sensor_msgs/msg/Image", "data", np.zeros(3, np.float32)),
        ("sensor_msgs/msg/CameraInfo", "k", [0.0] * 8),
        ("diagnostic_msgs/msg/DiagnosticStatus", "level", 0),
        ("geometry_msgs/msg/Point", "x", 1),
        ("std_msgs/msg/Header", "stamp", 3),
        ("rcl_interfaces/msg/ParameterDescriptor", "integer_range", [None, None]),
    ],
)
def test_wrong_values_are_refused_where_they_are_assigned(type_name: str, field: str, value: Any) -> None:
    message = message_class(type_name)()
    with pytest.raises((TypeError, ValueError), match=f"{type_name}, field {field}: "):
        setattr(message, field, value)


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(AttributeError, match=r"'hight'.*height"):
        message_class("sensor_msgs/msg/Image")(hight=3)
    with pytest.raises(AttributeError):
        message_class("sensor_msgs/msg/Image")().hight = 3


def test_a_wrong_item_in_a_list_is_named_when_sent() -> None:
    message = message_class("diagnostic_msgs/msg/DiagnosticArray")()
    message.status.append("not a status")
    with pytest.raises(TypeError, match=r"DiagnosticArray, field status: .*DiagnosticStatus"):
        serialize_message(message)


def test_damaged_bytes_are_refused_in_one_line() -> None:
    image = message_class("sensor_msgs/msg/Image")
    data = serialize_message(image(data=bytes(100)))
    for damaged in (b"", data[:3], data[:20], data[:-20], b"\x00\x09" + data[2:], b"\xff" * 64):
        with pytest.raises(MessageError, match=r"bytes are not a sensor_msgs/msg/Image") as caught:
            deserialize_message(damaged, image)
        assert isinstance(caught.value, RopesError) and "\n" not in str(caught.value)


def test_type_hashes_are_those_of_ros() -> None:
    # From `ros2 topic info -v` of ROS 2 Jazzy. A char is a uint8 there.
    for name, digest in (
        ("sensor_msgs/msg/Image", "d31d41a9a4c4bc8eae9be757b0beed306564f7526c88ea6a4588fb9582527d47"),
        ("std_msgs/msg/Char", "3ad2d04dd29ba19d04b16659afa3ccaedd691914b02a64e82e252f2fa6a586a9"),
        (
            "rmw_dds_common/msg/ParticipantEntitiesInfo",
            "91a0593bacdcc50ea9bdcf849a938b128412cc1ea821245c663bcd26f83c295e",
        ),
        ("std_srvs/srv/SetBool_Request", "c62fbb99d94e1b25e8ef9e109f9581956bb1b3361a45a4e5810c36a90d29932e"),
    ):
        assert definitions.type_hash(name) == f"RIHS01_{digest}"


def test_interface_modules_hold_messages_and_services() -> None:
    modules = interface_modules()
    assert modules["sensor_msgs.msg"].Image is message_class("sensor_msgs/msg/Image")
    trigger = modules["std_srvs.srv"].Trigger
    assert trigger.Response(success=True).success and trigger.Request() == trigger.Request()
    with pytest.raises(AttributeError):
        _ = modules["sensor_msgs.msg"].Picture
    needed = {"builtin_interfaces", "std_msgs", "sensor_msgs", "geometry_msgs", "diagnostic_msgs", "trajectory_msgs"}
    needed |= {"tf2_msgs", "rosgraph_msgs", "rcl_interfaces", "lifecycle_msgs", "std_srvs"}
    assert needed <= set(modules)

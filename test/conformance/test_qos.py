"""Quality of service: profiles, what matches, late joiners, depth."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from conformance_support import REFUSALS, Ros
from rclpy.duration import Duration
from rclpy.qos import (
    InvalidQoSProfileException,
    QoSDurabilityPolicy,
    QoSHistoryPolicy,
    QoSLivelinessPolicy,
    QoSPresetProfiles,
    QoSProfile,
    QoSReliabilityPolicy,
    qos_profile_action_status_default,
    qos_profile_default,
    qos_profile_parameter_events,
    qos_profile_parameters,
    qos_profile_sensor_data,
    qos_profile_services_default,
    qos_profile_system_default,
)
from std_msgs.msg import Int32

RELIABLE, BEST_EFFORT = QoSReliabilityPolicy.RELIABLE, QoSReliabilityPolicy.BEST_EFFORT
VOLATILE, TRANSIENT_LOCAL = QoSDurabilityPolicy.VOLATILE, QoSDurabilityPolicy.TRANSIENT_LOCAL
KEEP_LAST, KEEP_ALL = QoSHistoryPolicy.KEEP_LAST, QoSHistoryPolicy.KEEP_ALL


@pytest.mark.parametrize(
    ("profile", "key", "history", "depth", "reliability", "durability"),
    [
        (qos_profile_default, "default", KEEP_LAST, 10, RELIABLE, VOLATILE),
        (qos_profile_sensor_data, "sensor_data", KEEP_LAST, 5, BEST_EFFORT, VOLATILE),
        (qos_profile_services_default, "services_default", KEEP_LAST, 10, RELIABLE, VOLATILE),
        (qos_profile_parameters, "parameters", KEEP_LAST, 1000, RELIABLE, VOLATILE),
        (qos_profile_parameter_events, "parameter_events", KEEP_LAST, 1000, RELIABLE, VOLATILE),
        (qos_profile_action_status_default, "action_status_default", KEEP_LAST, 1, RELIABLE, TRANSIENT_LOCAL),
        (
            qos_profile_system_default,
            "system_default",
            QoSHistoryPolicy.SYSTEM_DEFAULT,
            0,
            QoSReliabilityPolicy.SYSTEM_DEFAULT,
            QoSDurabilityPolicy.SYSTEM_DEFAULT,
        ),
    ],
)
def test_presets(profile: QoSProfile, key: str, history: Any, depth: int, reliability: Any, durability: Any) -> None:
    assert (profile.history, profile.depth) == (history, depth)
    assert (profile.reliability, profile.durability) == (reliability, durability)
    assert profile.lifespan == profile.deadline == profile.liveliness_lease_duration == Duration()
    assert QoSPresetProfiles.get_from_short_key(key) == profile and key in QoSPresetProfiles.short_keys()


def test_policies_have_numbers_and_short_names() -> None:
    for first, second in ((RELIABLE, BEST_EFFORT), (TRANSIENT_LOCAL, VOLATILE), (KEEP_LAST, KEEP_ALL)):
        assert (first.value, second.value) == (1, 2)
    assert QoSReliabilityPolicy.get_from_short_key("best_effort") == BEST_EFFORT
    assert BEST_EFFORT.short_key == "best_effort"
    assert {"keep_last", "keep_all"} <= set(QoSHistoryPolicy.short_keys())


def test_profiles_are_checked() -> None:
    with pytest.raises(InvalidQoSProfileException):
        QoSProfile()
    with pytest.raises(InvalidQoSProfileException):
        QoSProfile(history=KEEP_LAST)
    assert QoSProfile(depth=3).history == KEEP_LAST and QoSProfile(history=KEEP_ALL).depth == 10
    profile = QoSProfile(depth=1)
    for name, value in (("depth", "1"), ("deadline", 1.0), ("reliability", "reliable")):
        with pytest.raises(REFUSALS):  # rclpy asserts
            setattr(profile, name, value)
    with pytest.raises(REFUSALS):
        QoSProfile(depth=1, speed=3)
    with pytest.warns(UserWarning):
        QoSProfile(depth=0)
    assert QoSProfile(depth=1) == QoSProfile(depth=1) != QoSProfile(depth=2)
    profile.reliability = 2  # type: ignore[assignment]
    assert profile.reliability is BEST_EFFORT


@pytest.mark.parametrize("qos", [None, "10", -1, 1.5])
def test_what_is_no_profile_is_refused(ros: Ros, qos: Any) -> None:
    node = ros.node()
    with pytest.raises(REFUSALS):
        node.create_publisher(Int32, "out", qos)
    with pytest.raises(REFUSALS):
        node.create_subscription(Int32, "out", print, qos)


def lease(seconds: float) -> dict[str, Any]:
    return {"liveliness": QoSLivelinessPolicy.AUTOMATIC, "liveliness_lease_duration": Duration(seconds=seconds)}


@pytest.mark.parametrize(
    ("offered", "requested", "match"),
    [
        ({}, {}, True),
        ({"reliability": RELIABLE}, {"reliability": BEST_EFFORT}, True),
        ({"reliability": BEST_EFFORT}, {"reliability": BEST_EFFORT}, True),
        ({"reliability": BEST_EFFORT}, {"reliability": RELIABLE}, False),
        ({"durability": TRANSIENT_LOCAL}, {"durability": VOLATILE}, True),
        ({"durability": TRANSIENT_LOCAL}, {"durability": TRANSIENT_LOCAL}, True),
        ({"durability": VOLATILE}, {"durability": TRANSIENT_LOCAL}, False),
        ({"deadline": Duration(seconds=1)}, {}, True),
        ({"deadline": Duration(seconds=1)}, {"deadline": Duration(seconds=2)}, True),
        ({"deadline": Duration(seconds=2)}, {"deadline": Duration(seconds=1)}, False),
        ({}, {"deadline": Duration(seconds=1)}, False),
        (lease(1), lease(2), True),
        (lease(2), lease(1), False),
        ({"history": KEEP_ALL}, {}, True),
        ({"lifespan": Duration(seconds=1)}, {}, True),
    ],
)
def test_what_matches(ros: Ros, offered: dict[str, Any], requested: dict[str, Any], match: bool) -> None:
    node = ros.node(enable_rosout=False)
    got: list[int] = []
    node.create_subscription(Int32, "topic", lambda message: got.append(message.data), QoSProfile(depth=1, **requested))
    publisher = node.create_publisher(Int32, "topic", QoSProfile(depth=1, **offered))
    if match:
        ros.spin(lambda: publisher.get_subscription_count() == 1, "the match")
        publisher.publish(Int32(data=7))
        ros.spin(lambda: got, "the message")
        return
    # A second pair that does match shows that discovery has had its time.
    ros.spin(lambda: node.count_subscribers("topic") == node.count_publishers("topic") == 1, "discovery")
    ros.spin_for(0.1)
    publisher.publish(Int32(data=7))
    ros.spin_for(0.05)
    assert publisher.get_subscription_count() == 0 and not got


def test_late_joiners_get_what_was_latched(ros: Ros) -> None:
    node = ros.node()
    latched = QoSProfile(depth=3, durability=TRANSIENT_LOCAL)
    publisher = node.create_publisher(Int32, "topic", latched)
    for number in range(5):
        publisher.publish(Int32(data=number))
    everything: list[int] = []
    newest: list[int] = []
    volatile: list[int] = []
    node.create_subscription(Int32, "topic", lambda m: volatile.append(m.data), 10)
    node.create_subscription(Int32, "topic", lambda m: everything.append(m.data), latched)
    one = QoSProfile(depth=1, durability=TRANSIENT_LOCAL)
    node.create_subscription(Int32, "topic", lambda m: newest.append(m.data), one)
    ros.spin(lambda: len(everything) >= 3 and newest and newest[-1] == 4, "what was latched")
    assert everything == [2, 3, 4] and not volatile


def test_a_subscription_keeps_the_newest_up_to_its_depth(ros: Ros) -> None:
    node = ros.node()
    got: list[int] = []
    node.create_subscription(Int32, "topic", lambda m: got.append(m.data), QoSProfile(depth=3))
    publisher = node.create_publisher(Int32, "topic", QoSProfile(depth=100))
    ros.spin(lambda: publisher.get_subscription_count() == 1, "the match")
    for number in range(10):
        publisher.publish(Int32(data=number))
    assert publisher.wait_for_all_acked(Duration(seconds=20))
    ros.spin(lambda: got and got[-1] == 9, "the last")
    assert got == [7, 8, 9]


def test_lifespan_lets_old_messages_expire(ros: Ros) -> None:
    node = ros.node()
    qos = QoSProfile(depth=10, durability=TRANSIENT_LOCAL, lifespan=Duration(seconds=0.05))
    publisher = node.create_publisher(Int32, "topic", qos)
    publisher.publish(Int32(data=1))
    ros.spin_for(0.2)
    got: list[int] = []
    late = QoSProfile(depth=10, durability=TRANSIENT_LOCAL)
    node.create_subscription(Int32, "topic", lambda m: got.append(m.data), late)
    ros.spin(lambda: publisher.get_subscription_count() == 1, "the match")
    ros.spin_for(0.1)
    publisher.publish(Int32(data=2))
    ros.spin(lambda: got, "the second message")
    assert got == [2]


def test_endpoints_tell_their_policies(ros: Ros) -> None:
    node = ros.node()
    qos = QoSProfile(
        depth=7,
        reliability=BEST_EFFORT,
        durability=TRANSIENT_LOCAL,
        deadline=Duration(seconds=2),
        lifespan=Duration(seconds=3),
    )
    node.create_publisher(Int32, "topic", qos)
    ros.spin(lambda: node.count_publishers("topic") == 1, "the publisher")
    (info,) = node.get_publishers_info_by_topic("topic")
    told = info.qos_profile
    assert (told.reliability, told.durability) == (BEST_EFFORT, TRANSIENT_LOCAL)
    assert (told.deadline, told.lifespan) == (Duration(seconds=2), Duration(seconds=3))
    assert told.liveliness == QoSLivelinessPolicy.AUTOMATIC


def test_a_profile_given_twice_stays_as_it_is(ros: Ros) -> None:
    node = ros.node()
    profile = QoSProfile(depth=4, reliability=BEST_EFFORT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        publisher = node.create_publisher(Int32, "topic", profile)
        subscription = node.create_subscription(Int32, "topic", print, profile)
    assert publisher.qos_profile == subscription.qos_profile == QoSProfile(depth=4, reliability=BEST_EFFORT)

"""What publishers and subscriptions are told: incompatible QoS, matches, deadlines, liveliness."""

from __future__ import annotations

from typing import Any

import pytest
from conformance_support import Ros
from rclpy.duration import Duration
from rclpy.qos import QoSDurabilityPolicy, QoSLivelinessPolicy, QoSPolicyKind, QoSProfile, QoSReliabilityPolicy
from std_msgs.msg import Int32

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

WEAK = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
WEAKER = [
    ({"reliability": QoSReliabilityPolicy.BEST_EFFORT}, {}, QoSPolicyKind.RELIABILITY),
    ({}, {"durability": QoSDurabilityPolicy.TRANSIENT_LOCAL}, QoSPolicyKind.DURABILITY),
    ({"deadline": Duration(seconds=2)}, {"deadline": Duration(seconds=1)}, QoSPolicyKind.DEADLINE),
]


@pytest.mark.parametrize(("offered", "requested", "policy"), WEAKER)
def test_both_sides_are_told_of_incompatible_qos(
    ros: Ros, offered: dict[str, Any], requested: dict[str, Any], policy: QoSPolicyKind
) -> None:
    node = ros.node()
    at_publisher: list[Any] = []
    at_subscription: list[Any] = []
    node.create_publisher(
        Int32,
        "topic",
        QoSProfile(depth=1, **offered),
        event_callbacks=PublisherEventCallbacks(incompatible_qos=at_publisher.append),
    )
    node.create_subscription(
        Int32,
        "topic",
        print,
        QoSProfile(depth=1, **requested),
        event_callbacks=SubscriptionEventCallbacks(incompatible_qos=at_subscription.append),
    )
    ros.spin(lambda: at_publisher and at_subscription, "both events")
    for (event,) in (at_publisher, at_subscription):
        assert (event.total_count, event.total_count_change) == (1, 1)
        assert event.last_policy_kind == policy


def test_without_callbacks_incompatible_qos_is_logged(ros: Ros, capfd: pytest.CaptureFixture[str]) -> None:
    node = ros.node("talker")
    node.create_publisher(Int32, "topic", WEAK)
    node.create_subscription(Int32, "topic", print, 1)
    written: list[str] = []

    def lines() -> list[str]:
        written.append("".join(capfd.readouterr()))
        return [line for line in "".join(written).splitlines() if "RELIABILITY" in line]

    ros.spin(lambda: len(lines()) >= 2, "two warnings")
    assert all("[WARN]" in line and "[talker]" in line and "incompatible QoS" in line for line in lines())
    assert {"offering", "requesting"} == {word for line in lines() for word in line.replace(",", "").split()} & {
        "offering",
        "requesting",
    }


def test_default_callbacks_can_be_turned_off(ros: Ros, capfd: pytest.CaptureFixture[str]) -> None:
    node = ros.node()
    told: list[Any] = []
    node.create_publisher(Int32, "topic", WEAK, event_callbacks=PublisherEventCallbacks(use_default_callbacks=False))
    node.create_subscription(
        Int32, "topic", print, 1, event_callbacks=SubscriptionEventCallbacks(incompatible_qos=told.append)
    )
    ros.spin(lambda: told, "the event")
    ros.spin_for(0.1)
    assert "incompatible" not in "".join(capfd.readouterr())


def test_matches_are_told(ros: Ros) -> None:
    node = ros.node()
    at_publisher: list[Any] = []
    at_subscription: list[Any] = []
    try:
        for_publisher = PublisherEventCallbacks(matched=at_publisher.append)
        for_subscription = SubscriptionEventCallbacks(matched=at_subscription.append)
    except TypeError:
        pytest.skip("this distribution has no matched events")
    node.create_publisher(Int32, "topic", 1, event_callbacks=for_publisher)
    subscription = node.create_subscription(Int32, "topic", print, 1, event_callbacks=for_subscription)
    ros.spin(lambda: at_publisher and at_subscription, "both events")
    for (event,) in (at_publisher, at_subscription):
        assert event.total_count == event.total_count_change == event.current_count == event.current_count_change == 1
    node.destroy_subscription(subscription)
    ros.spin(lambda: len(at_publisher) >= 2, "the end")
    assert (at_publisher[1].current_count, at_publisher[1].current_count_change) == (0, -1)


def test_missed_deadlines_are_told_to_both(ros: Ros) -> None:
    node = ros.node()
    qos = QoSProfile(depth=1, deadline=Duration(seconds=0.05))
    offered: list[Any] = []
    requested: list[Any] = []
    publisher = node.create_publisher(
        Int32, "topic", qos, event_callbacks=PublisherEventCallbacks(deadline=offered.append)
    )
    node.create_subscription(
        Int32, "topic", print, qos, event_callbacks=SubscriptionEventCallbacks(deadline=requested.append)
    )
    ros.spin(lambda: publisher.get_subscription_count() == 1, "the match")
    publisher.publish(Int32(data=1))  # a deadline begins with the first message
    ros.spin(lambda: offered and requested, "both events")
    for events in (offered, requested):
        assert events[0].total_count >= 1 and events[0].total_count_change >= 1
        assert events[-1].total_count == sum(event.total_count_change for event in events)


def test_a_subscription_is_told_who_lives(ros: Ros) -> None:
    node = ros.node()
    told: list[Any] = []
    qos = QoSProfile(depth=1, liveliness=QoSLivelinessPolicy.AUTOMATIC, liveliness_lease_duration=Duration(seconds=5))
    callbacks = SubscriptionEventCallbacks(liveliness=told.append)
    node.create_subscription(Int32, "topic", print, qos, event_callbacks=callbacks)
    publisher = node.create_publisher(Int32, "topic", qos)
    ros.spin(lambda: told, "the publisher's birth")
    assert (told[0].alive_count, told[0].alive_count_change, told[0].not_alive_count) == (1, 1, 0)
    node.destroy_publisher(publisher)
    ros.spin(lambda: told[-1].alive_count == 0, "its end")

"""Callbacks for what happens to publishers and subscriptions: rclpy.event_handler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ropes_ros.standalone.errors import UnsupportedError
from ropes_ros.standalone.qos import QoSPolicyKind


@dataclass(frozen=True)
class QoSRequestedIncompatibleQoSInfo:
    """A publisher offers less than the subscription requests."""

    total_count: int
    total_count_change: int
    last_policy_kind: QoSPolicyKind


@dataclass(frozen=True)
class QoSOfferedIncompatibleQoSInfo:
    """A subscription requests more than the publisher offers."""

    total_count: int
    total_count_change: int
    last_policy_kind: QoSPolicyKind


@dataclass(frozen=True)
class QoSMessageLostInfo:
    """Messages did not arrive."""

    total_count: int
    total_count_change: int


@dataclass(frozen=True)
class QoSSubscriptionMatchedInfo:
    """A publisher came or went."""

    total_count: int
    total_count_change: int
    current_count: int
    current_count_change: int


@dataclass(frozen=True)
class QoSPublisherMatchedInfo:
    """A subscription came or went."""

    total_count: int
    total_count_change: int
    current_count: int
    current_count_change: int


def _refuse(**callbacks: Any) -> None:
    given = [name for name, callback in callbacks.items() if callback is not None]
    if given:
        raise UnsupportedError(f"event callbacks {', '.join(given)} are not supported by the standalone runtime")


class SubscriptionEventCallbacks:
    """What a subscription calls on events; without own callback incompatible QoS is logged."""

    def __init__(
        self,
        *,
        deadline: Any = None,
        incompatible_qos: Callable[[QoSRequestedIncompatibleQoSInfo], Any] | None = None,
        liveliness: Any = None,
        message_lost: Callable[[QoSMessageLostInfo], Any] | None = None,
        incompatible_type: Any = None,
        matched: Callable[[QoSSubscriptionMatchedInfo], Any] | None = None,
        use_default_callbacks: bool = True,
    ) -> None:
        _refuse(deadline=deadline, liveliness=liveliness, incompatible_type=incompatible_type)
        self.incompatible_qos = incompatible_qos
        self.message_lost = message_lost
        self.matched = matched
        self.use_default_callbacks = use_default_callbacks


class PublisherEventCallbacks:
    """What a publisher calls on events; without own callback incompatible QoS is logged."""

    def __init__(
        self,
        *,
        deadline: Any = None,
        incompatible_qos: Callable[[QoSOfferedIncompatibleQoSInfo], Any] | None = None,
        liveliness: Any = None,
        incompatible_type: Any = None,
        matched: Callable[[QoSPublisherMatchedInfo], Any] | None = None,
        use_default_callbacks: bool = True,
    ) -> None:
        _refuse(deadline=deadline, liveliness=liveliness, incompatible_type=incompatible_type)
        self.incompatible_qos = incompatible_qos
        self.matched = matched
        self.use_default_callbacks = use_default_callbacks

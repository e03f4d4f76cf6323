"""Callbacks for what happens to publishers and subscriptions: rclpy.event_handler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
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


@dataclass(frozen=True)
class QoSRequestedDeadlineMissedInfo:
    """No message came within the subscription's deadline."""

    total_count: int
    total_count_change: int


@dataclass(frozen=True)
class QoSOfferedDeadlineMissedInfo:
    """The publisher published nothing within its deadline."""

    total_count: int
    total_count_change: int


@dataclass(frozen=True)
class QoSLivelinessChangedInfo:
    """A publisher came to life or died."""

    alive_count: int
    not_alive_count: int
    alive_count_change: int
    not_alive_count_change: int


@dataclass(frozen=True)
class QoSLivelinessLostInfo:
    """The publisher did not show within its lease duration that it lives."""

    total_count: int
    total_count_change: int


def info(kind: Any, status: Any) -> Any:
    """What a DDS status says, as the class of an event."""
    return kind(**{field.name: getattr(status, field.name) for field in fields(kind)})


def _refuse(**callbacks: Any) -> None:
    given = [name for name, callback in callbacks.items() if callback is not None]
    if given:
        raise UnsupportedError(f"event callbacks {', '.join(given)} are not supported by the standalone runtime")


class SubscriptionEventCallbacks:
    """What a subscription calls on events; without own callback incompatible QoS is logged."""

    def __init__(
        self,
        *,
        deadline: Callable[[QoSRequestedDeadlineMissedInfo], Any] | None = None,
        incompatible_qos: Callable[[QoSRequestedIncompatibleQoSInfo], Any] | None = None,
        liveliness: Callable[[QoSLivelinessChangedInfo], Any] | None = None,
        message_lost: Callable[[QoSMessageLostInfo], Any] | None = None,
        incompatible_type: Any = None,
        matched: Callable[[QoSSubscriptionMatchedInfo], Any] | None = None,
        use_default_callbacks: bool = True,
    ) -> None:
        _refuse(incompatible_type=incompatible_type)
        self.deadline = deadline
        self.liveliness = liveliness
        self.incompatible_qos = incompatible_qos
        self.message_lost = message_lost
        self.matched = matched
        self.use_default_callbacks = use_default_callbacks


class PublisherEventCallbacks:
    """What a publisher calls on events; without own callback incompatible QoS is logged."""

    def __init__(
        self,
        *,
        deadline: Callable[[QoSOfferedDeadlineMissedInfo], Any] | None = None,
        incompatible_qos: Callable[[QoSOfferedIncompatibleQoSInfo], Any] | None = None,
        liveliness: Callable[[QoSLivelinessLostInfo], Any] | None = None,
        incompatible_type: Any = None,
        matched: Callable[[QoSPublisherMatchedInfo], Any] | None = None,
        use_default_callbacks: bool = True,
    ) -> None:
        _refuse(incompatible_type=incompatible_type)
        self.deadline = deadline
        self.liveliness = liveliness
        self.incompatible_qos = incompatible_qos
        self.matched = matched
        self.use_default_callbacks = use_default_callbacks

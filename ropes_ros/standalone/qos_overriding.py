"""QoS that parameters override: rclpy.qos_overriding_options."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from ropes_ros.standalone.duration import Duration
from ropes_ros.standalone.errors import StandaloneError
from ropes_ros.standalone.messages import message_class
from ropes_ros.standalone.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    LivelinessPolicy,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
)

if TYPE_CHECKING:
    from ropes_ros.standalone.node import Node

_ENUMS: dict[QoSPolicyKind, type[IntEnum]] = {
    QoSPolicyKind.DURABILITY: DurabilityPolicy,
    QoSPolicyKind.HISTORY: HistoryPolicy,
    QoSPolicyKind.LIVELINESS: LivelinessPolicy,
    QoSPolicyKind.RELIABILITY: ReliabilityPolicy,
}
_DURATIONS = (QoSPolicyKind.DEADLINE, QoSPolicyKind.LIFESPAN, QoSPolicyKind.LIVELINESS_LEASE_DURATION)


class InvalidQosOverridesError(StandaloneError, RuntimeError):
    """A parameter names no value of its policy, or the callback refused the profile."""


class QoSOverridingOptions:
    """Which policies of a publisher or subscription parameters may override.

    Args:
        policy_kinds: The policies.
        callback: Says of the resulting QoSProfile, by a SetParametersResult, whether it is good.
        entity_id: Tells several publishers or subscriptions of one topic apart.
    """

    def __init__(
        self,
        policy_kinds: Iterable[QoSPolicyKind],
        *,
        callback: Callable[[QoSProfile], Any] | None = None,
        entity_id: str | None = None,
    ) -> None:
        self.policy_kinds = policy_kinds
        self.callback = callback
        self.entity_id = entity_id

    @classmethod
    def with_default_policies(
        cls, *, callback: Callable[[QoSProfile], Any] | None = None, entity_id: str | None = None
    ) -> QoSOverridingOptions:
        """Options for history, depth and reliability."""
        kinds = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY)
        return cls(kinds, callback=callback, entity_id=entity_id)


def declare_overrides(
    node: Node, entity: str, topic: str, profile: QoSProfile, options: QoSOverridingOptions | None
) -> QoSProfile:
    """Declare the read-only parameters of an entity, and give the profile that they say.

    Args:
        node: The node that declares them.
        entity: `publisher` or `subscription`.
        topic: The topic's full name.
        profile: The defaults; it stays as it is.
        options: What may be overridden; None for nothing.

    Raises:
        InvalidQosOverridesError: a value is no policy, or the callback refused the profile.
        ParameterException: a value has the wrong type.
    """
    if options is None:
        return profile
    result = copy.copy(profile)
    suffix = "" if options.entity_id is None else f"_{options.entity_id}"
    for kind in options.policy_kinds:
        if entity == "subscription" and kind == QoSPolicyKind.LIFESPAN:
            continue
        policy = kind.name.lower()
        name = f"qos_overrides.{topic}.{entity}{suffix}.{policy}"
        if not node.has_parameter(name):
            descriptor = message_class("rcl_interfaces/msg/ParameterDescriptor")(
                description=f"{policy} for {entity} `{topic}` with id `{options.entity_id}`", read_only=True
            )
            node.declare_parameter(name, _to_parameter(kind, getattr(profile, policy)), descriptor)
        setattr(result, policy, _from_parameter(kind, name, node.get_parameter(name).value))
    if options.callback is not None:
        answer = options.callback(result)
        if not answer.successful:
            raise InvalidQosOverridesError(
                f"QoS overrides of {entity} {topic} of node {node.get_fully_qualified_name()} are not valid: "
                f"{answer.reason}"
            )
    return result


def _to_parameter(kind: QoSPolicyKind, value: Any) -> str | int | bool:
    if kind in _ENUMS:
        return str(value.name.lower())
    if kind in _DURATIONS:
        return int(value.nanoseconds)
    plain: int | bool = value
    return plain


def _from_parameter(kind: QoSPolicyKind, name: str, value: Any) -> Any:
    if kind in _ENUMS:
        known = [member.name.lower() for member in _ENUMS[kind] if member.name != "UNKNOWN"]
        if value.lower() not in known:
            raise InvalidQosOverridesError(f"parameter {name!r} is {value!r}; take one of {', '.join(known)}")
        return _ENUMS[kind][value.upper()]
    if kind in _DURATIONS:
        return Duration(nanoseconds=value)
    return value

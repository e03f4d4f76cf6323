"""Publishers and subscriptions: rclpy.publisher and rclpy.subscription."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ropes_ros.standalone import wire
from ropes_ros.standalone.duration import Duration
from ropes_ros.standalone.errors import CallbackError, InvalidHandle, MessageError, UnsupportedError
from ropes_ros.standalone.events import (
    PublisherEventCallbacks,
    QoSLivelinessChangedInfo,
    QoSLivelinessLostInfo,
    QoSMessageLostInfo,
    QoSOfferedDeadlineMissedInfo,
    QoSOfferedIncompatibleQoSInfo,
    QoSPublisherMatchedInfo,
    QoSRequestedDeadlineMissedInfo,
    QoSRequestedIncompatibleQoSInfo,
    QoSSubscriptionMatchedInfo,
    SubscriptionEventCallbacks,
    info,
)
from ropes_ros.standalone.messages import Message, deserialize_message, serialize_message
from ropes_ros.standalone.qos import QoSPolicyKind, QoSProfile

if TYPE_CHECKING:
    from ropes_ros.standalone.node import Node

_ACK_SLICE_NS = 100_000_000


def check_message_type(msg_type: Any, where: str) -> None:
    """Refuse what is not a generated message class."""
    if not (isinstance(msg_type, type) and issubclass(msg_type, Message)):
        raise TypeError(f"{where}: expected a message class such as sensor_msgs.msg.Image, not {msg_type!r}")


def check_callback(callback: Any, where: str, *, coroutine: bool = False) -> None:
    """Refuse what cannot be called, and coroutines unless they are allowed."""
    if not callable(callback):
        raise TypeError(f"{where}: the callback {callback!r} cannot be called")
    if inspect.iscoroutinefunction(callback) and not coroutine:
        raise UnsupportedError(f"{where}: the standalone runtime supports coroutine callbacks of services alone")


class Publisher:
    """Publishes messages of one type on one topic."""

    def __init__(
        self,
        node: Node,
        msg_type: type[Message],
        topic: str,
        qos: QoSProfile,
        event_callbacks: PublisherEventCallbacks,
    ) -> None:
        check_message_type(msg_type, f"topic {topic}")
        self.msg_type = msg_type
        self.topic = self.topic_name = topic
        self.qos_profile = qos
        self._node = node
        self._events = event_callbacks
        self._context = node.context
        self._writer: Any = wire.Writer(
            node.context.participant,
            f"rt{topic}",
            wire.struct_type(msg_type.TYPE_NAME),
            wire.to_dds_qos(qos, f"topic {topic}", wire.type_hash_user_data(msg_type.TYPE_NAME)),
        )

    @property
    def gid(self) -> bytes:
        """The DDS writer's identifier."""
        return bytes(self._live().gid)

    def _live(self) -> Any:
        if self._writer is None:
            raise InvalidHandle(f"the publisher of topic {self.topic} is destroyed")
        return self._writer

    def publish(self, msg: Message | bytes) -> None:
        """Send a message, or CDR bytes as they are."""
        writer = self._live()
        if isinstance(msg, self.msg_type):
            data = serialize_message(msg)
        elif isinstance(msg, (bytes, bytearray, memoryview)):
            data = bytes(msg)
        else:
            raise TypeError(
                f"topic {self.topic}: expected {self.msg_type.TYPE_NAME} or bytes, not {type(msg).__name__}"
            )
        while not writer.write(data) and self._context.ok():
            time.sleep(0)

    def get_subscription_count(self) -> int:
        """Number of matched subscriptions."""
        return int(self._live().matched())

    def wait_for_all_acked(self, timeout: Duration | None = None) -> bool:
        """Wait until all reliable subscriptions have received everything.

        Returns:
            False on timeout (none, or a negative one, never comes) or shutdown.
        """
        writer = self._live()
        end = None if timeout is None or timeout.nanoseconds < 0 else time.monotonic_ns() + timeout.nanoseconds
        while self._context.ok():
            left = _ACK_SLICE_NS if end is None else end - time.monotonic_ns()
            if writer.wait_for_acks(min(_ACK_SLICE_NS, max(0, left))):
                return True
            if left <= 0:
                return False
        return False

    def assert_liveliness(self) -> None:
        """Only for manual liveliness, which is not supported."""
        raise UnsupportedError("assert_liveliness: manual liveliness is not supported by the standalone runtime")

    def check_events(self) -> None:
        """Report what happened to the publisher since the last call."""
        writer = self._writer  # another thread may destroy the publisher meanwhile
        if writer is None:
            return
        total, change, kind = writer.incompatible_qos()
        if change > 0:
            if self._events.incompatible_qos is not None:
                self._events.incompatible_qos(QoSOfferedIncompatibleQoSInfo(total, change, kind))
            elif self._events.use_default_callbacks and kind != QoSPolicyKind.INVALID:  # the graph reports types
                self._node.get_logger().warning(
                    f"New subscription discovered on topic '{self.topic}', requesting incompatible QoS. No messages "
                    f"will be sent to it. Last incompatible policy: {kind.name}"
                )
        status = writer.matched_status()
        if self._events.matched is not None and (status.total_count_change or status.current_count_change):
            self._events.matched(info(QoSPublisherMatchedInfo, status))
        status = writer.deadline_status()
        if self._events.deadline is not None and status.total_count_change:
            self._events.deadline(info(QoSOfferedDeadlineMissedInfo, status))
        status = writer.liveliness_status()
        if self._events.liveliness is not None and status.total_count_change:
            self._events.liveliness(info(QoSLivelinessLostInfo, status))

    @property
    def event_entity(self) -> Any:
        """What a wait set watches for events."""
        return self._live().entity

    def destroy(self) -> None:
        """Leave the topic."""
        self._node.destroy_publisher(self)

    def close(self) -> None:
        """Drop the DDS writer."""
        self._writer = None


class Subscription:
    """Calls back with each message of a topic; with `raw` it hands over CDR bytes."""

    def __init__(
        self,
        node: Node,
        msg_type: type[Message],
        topic: str,
        callback: Callable[..., Any],
        qos: QoSProfile,
        raw: bool,
        event_callbacks: SubscriptionEventCallbacks,
        callback_group: Any,
        ignore_local_publications: bool = False,
    ) -> None:
        check_message_type(msg_type, f"topic {topic}")
        check_callback(callback, f"topic {topic}")
        self.msg_type = msg_type
        self.topic = self.topic_name = topic
        self.callback = callback
        self.qos_profile = qos
        self.raw = raw
        self.callback_group = callback_group
        self._node = node
        self._events = event_callbacks
        self._with_info = _takes_info(callback, f"topic {topic}")
        self._reader: Any = wire.Reader(
            node.context.participant,
            f"rt{topic}",
            wire.struct_type(msg_type.TYPE_NAME),
            wire.to_dds_qos(
                qos,
                f"topic {topic}",
                wire.type_hash_user_data(msg_type.TYPE_NAME),
                ignore_local=ignore_local_publications,
            ),
        )

    @property
    def gid(self) -> bytes:
        """The DDS reader's identifier."""
        return bytes(self._live().gid)

    def _live(self) -> Any:
        if self._reader is None:
            raise InvalidHandle(f"the subscription to topic {self.topic} is destroyed")
        return self._reader

    @property
    def condition(self) -> Any:
        """What a wait set watches for messages."""
        return self._live().condition

    @property
    def event_entity(self) -> Any:
        """What a wait set watches for events."""
        return self._live().entity

    def poll(self) -> bool:
        """Take one message and call back with it.

        Returns:
            Whether there was one.
        """
        if self._reader is None:
            return False
        taken = self._reader.take(1)
        if not taken:
            return False
        data, stamp = taken[0]
        message: Any = data
        if not self.raw:
            try:
                message = deserialize_message(data, self.msg_type)
            except MessageError as error:
                self._node.get_logger().error(f"topic {self.topic}: {error}", throttle_duration_sec=5.0)
                return True
        if self._with_info:
            details = {
                "source_timestamp": stamp,
                "received_timestamp": time.time_ns(),
                "publication_sequence_number": None,
                "reception_sequence_number": None,
            }
            self.callback(message, details)
        else:
            self.callback(message)
        return True

    def get_publisher_count(self) -> int:
        """Number of matched publishers."""
        return int(self._live().matched())

    def check_events(self) -> None:
        """Report what happened to the subscription since the last call."""
        reader = self._reader  # another thread may destroy the subscription meanwhile
        if reader is None:
            return
        total, change, kind = reader.incompatible_qos()
        if change > 0:
            if self._events.incompatible_qos is not None:
                self._events.incompatible_qos(QoSRequestedIncompatibleQoSInfo(total, change, kind))
            elif self._events.use_default_callbacks and kind != QoSPolicyKind.INVALID:  # the graph reports types
                self._node.get_logger().warning(
                    f"New publisher discovered on topic '{self.topic}', offering incompatible QoS. No messages will "
                    f"be received from it. Last incompatible policy: {kind.name}"
                )
        lost, change = reader.lost()
        if change > 0 and self._events.message_lost is not None:
            self._events.message_lost(QoSMessageLostInfo(lost, change))
        status = reader.matched_status()
        if self._events.matched is not None and (status.total_count_change or status.current_count_change):
            self._events.matched(info(QoSSubscriptionMatchedInfo, status))
        status = reader.deadline_status()
        if self._events.deadline is not None and status.total_count_change:
            self._events.deadline(info(QoSRequestedDeadlineMissedInfo, status))
        status = reader.liveliness_status()
        if self._events.liveliness is not None and (status.alive_count_change or status.not_alive_count_change):
            self._events.liveliness(info(QoSLivelinessChangedInfo, status))

    def destroy(self) -> None:
        """Leave the topic."""
        self._node.destroy_subscription(self)

    def close(self) -> None:
        """Drop the DDS reader."""
        self._reader = None


def _takes_info(callback: Callable[..., Any], where: str) -> bool:
    """Whether a callback wants a message's info beside the message."""
    try:
        signature = inspect.signature(callback)
    except (TypeError, ValueError):  # written in C
        return False
    for arguments in ((None,), (None, None)):
        with suppress(TypeError):
            signature.bind(*arguments)
            return len(arguments) == 2
    raise CallbackError(f"{where}: the callback {callback!r} must take a message, or a message and its info")

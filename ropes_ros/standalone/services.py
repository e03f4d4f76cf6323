"""Service servers and clients: rclpy.service and rclpy.client, with rmw_cyclonedds's request header."""

from __future__ import annotations

import inspect
import os
import struct
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ropes_ros.standalone import wire
from ropes_ros.standalone.endpoints import check_callback
from ropes_ros.standalone.errors import InvalidHandle, MessageError
from ropes_ros.standalone.future import Future
from ropes_ros.standalone.messages import Message, deserialize_message, serialize_message
from ropes_ros.standalone.qos import QoSProfile
from ropes_ros.standalone.task import run_coroutine

if TYPE_CHECKING:
    from ropes_ros.standalone.node import Node

_HEADER = struct.Struct("<Qq")
_POLL_S = 0.01
_REPLY_POLL_S = 0.001
_REPLY_S = 1.0
"""How long the reader of a client is waited for before it is answered."""


def _split(data: bytes) -> tuple[int, int, bytes]:
    """Client, sequence number and the message proper, whose alignment the 16 byte header leaves as it is."""
    if len(data) < 20 or data[:2] != b"\x00\x01":
        raise MessageError("a service message is too short or not little endian CDR")
    client, sequence = _HEADER.unpack_from(data, 4)
    return client, sequence, data[:4] + data[20:]


def _prepend(client: int, sequence: int, message: Message) -> bytes:
    data = serialize_message(message)
    return data[:4] + _HEADER.pack(client, sequence) + data[4:]


def _user_data(kind: str, identity: bytes, type_name: str) -> bytes:
    dotted = ".".join(f"{byte:x}" for byte in identity)
    return f"{kind}={dotted};".encode() + wire.type_hash_user_data(type_name)


def _check_service_type(srv_type: Any, where: str) -> None:
    if not all(hasattr(srv_type, name) for name in ("Request", "Response", "TYPE_NAME")):
        raise TypeError(f"{where}: expected a service class such as std_srvs.srv.Trigger, not {srv_type!r}")


class Service:
    """Answers requests with what its callback(request, response) returns, which may be a coroutine function."""

    def __init__(
        self,
        node: Node,
        srv_type: Any,
        name: str,
        callback: Callable[[Any, Any], Any],
        qos: QoSProfile,
        callback_group: Any,
    ) -> None:
        where = f"service {name}"
        _check_service_type(srv_type, where)
        check_callback(callback, where, coroutine=True)
        self.srv_type = srv_type
        self.srv_name = self.service_name = name
        self.callback = callback
        self.callback_group = callback_group
        self.qos_profile = qos
        self._node = node
        participant = node.context.participant
        identity = os.urandom(16)
        request, response = srv_type.Request.TYPE_NAME, srv_type.Response.TYPE_NAME
        self._writer: Any = wire.Writer(
            participant,
            f"rr{name}Reply",
            wire.struct_type(response, service_header=True),
            wire.to_dds_qos(qos, where, _user_data("serviceid", identity, response)),
        )
        self._reader: Any = wire.Reader(
            participant,
            f"rq{name}Request",
            wire.struct_type(request, service_header=True),
            wire.to_dds_qos(qos, where, _user_data("serviceid", identity, request)),
        )

    @property
    def gids(self) -> tuple[bytes, bytes]:
        """Identifiers of the DDS reader and writer."""
        return bytes(self._reader.gid), bytes(self._writer.gid)

    @property
    def condition(self) -> Any:
        """What a wait set watches for requests."""
        return self._reader.condition

    def poll(self) -> bool:
        """Take one request and answer it; whether there was one."""
        if self._reader is None:
            return False
        taken = self._reader.take_request()
        if taken is None:
            return False
        request_data, endpoints = taken
        try:
            client, sequence, data = _split(request_data)
            request = deserialize_message(data, self.srv_type.Request)
        except MessageError as error:
            self._node.get_logger().error(f"service {self.srv_name}: {error}")
            return True
        response = self.callback(request, self.srv_type.Response())
        if inspect.iscoroutine(response):
            run_coroutine(self._node, response, lambda found: self._reply(found, client, sequence, endpoints))
        else:
            self._reply(response, client, sequence, endpoints)
        return True

    def _reply(self, response: Any, client: int, sequence: int, endpoints: bytes) -> None:
        if self._reader is None:
            return
        if not isinstance(response, self.srv_type.Response):
            raise TypeError(
                f"service {self.srv_name}: the callback must return its response, not {type(response).__name__}"
            )
        self._wait_for(endpoints)
        self._writer.write(_prepend(client, sequence, response))

    def _wait_for(self, client: bytes) -> None:
        """Wait until a client's reader is matched, which may be later than its writer: else it would miss the reply."""
        end = time.monotonic() + _REPLY_S
        while not self._writer.reaches(client):
            if time.monotonic() > end:
                self._node.get_logger().warning(
                    f"service {self.srv_name}: nobody reads the reply; the client has gone, or does not hear this node"
                )
                return
            time.sleep(_REPLY_POLL_S)

    def destroy(self) -> None:
        """Stop answering."""
        self._node.destroy_service(self)

    def close(self) -> None:
        """Drop the DDS entities."""
        self._reader = self._writer = None


class Client:
    """Calls a service."""

    def __init__(self, node: Node, srv_type: Any, name: str, qos: QoSProfile, callback_group: Any) -> None:
        where = f"service {name}"
        _check_service_type(srv_type, where)
        self.srv_type = srv_type
        self.srv_name = self.service_name = name
        self.callback_group = callback_group
        self.qos_profile = qos
        self._node = node
        self._identity = int.from_bytes(os.urandom(8), "little")
        self._sequence = 0
        self._pending: dict[int, Future] = {}
        participant = node.context.participant
        identity = os.urandom(16)
        request, response = srv_type.Request.TYPE_NAME, srv_type.Response.TYPE_NAME
        self._reader: Any = wire.Reader(
            participant,
            f"rr{name}Reply",
            wire.struct_type(response, service_header=True),
            wire.to_dds_qos(qos, where, _user_data("clientid", identity, response)),
        )
        self._writer: Any = wire.Writer(
            participant,
            f"rq{name}Request",
            wire.struct_type(request, service_header=True),
            wire.to_dds_qos(qos, where, _user_data("clientid", identity, request)),
        )

    @property
    def gids(self) -> tuple[bytes, bytes]:
        """Identifiers of the DDS reader and writer."""
        return bytes(self._reader.gid), bytes(self._writer.gid)

    @property
    def condition(self) -> Any:
        """What a wait set watches for replies."""
        return self._reader.condition

    def service_is_ready(self) -> bool:
        """Whether a server is matched in both directions."""
        if self._reader is None:
            raise InvalidHandle(f"the client of service {self.srv_name} is destroyed")
        return bool(self._reader.matched() and self._writer.matched())

    def wait_for_service(self, timeout_sec: float | None = None) -> bool:
        """Wait for a server; False on timeout or shutdown."""
        end = None if timeout_sec is None else time.monotonic() + timeout_sec
        while self._node.context.ok():
            if self.service_is_ready():
                return True
            if end is not None and time.monotonic() >= end:
                return False
            time.sleep(_POLL_S)
        return False

    def call(self, request: Any, timeout_sec: float | None = None) -> Any:
        """Send a request and wait for the response, which an executor must take in another thread.

        Returns:
            The response, or None where the timeout comes first.
        """
        done = threading.Event()
        future = self.call_async(request)
        future.add_done_callback(lambda _: done.set())
        if not done.wait(timeout_sec):
            self.remove_pending_request(future)
        return future.result()

    def call_async(self, request: Any) -> Future:
        """Send a request; the future completes when the reply is taken by a spinning executor."""
        if not isinstance(request, self.srv_type.Request):
            raise TypeError(
                f"service {self.srv_name}: expected {self.srv_type.Request.TYPE_NAME}, not {type(request).__name__}"
            )
        self._sequence += 1
        future = Future()
        self._pending[self._sequence] = future
        self._writer.write(_prepend(self._identity, self._sequence, request))
        return future

    def remove_pending_request(self, future: Future) -> None:
        """Forget a request."""
        self._pending = {sequence: f for sequence, f in self._pending.items() if f is not future}

    def poll(self) -> bool:
        """Take one reply; whether there was one."""
        if self._reader is None:
            return False
        taken = self._reader.take(1)
        if not taken:
            return False
        try:
            client, sequence, data = _split(taken[0][0])
            if client == self._identity and sequence in self._pending:
                self._pending.pop(sequence).set_result(deserialize_message(data, self.srv_type.Response))
        except MessageError as error:
            self._node.get_logger().error(f"service {self.srv_name}: {error}")
        return True

    def destroy(self) -> None:
        """Drop the client."""
        self._node.destroy_client(self)

    def close(self) -> None:
        """Drop the DDS entities."""
        self._reader = self._writer = None

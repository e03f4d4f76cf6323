"""The ROS graph: telling others of our nodes (ros_discovery_info), and knowing theirs from DDS discovery."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsPublication, BuiltinTopicDcpsSubscription
from cyclonedds.core import InstanceState, ReadCondition, SampleState, ViewState

from ropes_ros.standalone import log, wire
from ropes_ros.standalone.errors import MessageError
from ropes_ros.standalone.messages import deserialize_message, message_class, serialize_message
from ropes_ros.standalone.qos import DurabilityPolicy, HistoryPolicy, QoSProfile

_INFO_TYPE = "rmw_dds_common/msg/ParticipantEntitiesInfo"
_BATCH = 256
BARE_NODE = ("_CREATED_BY_BARE_DDS_APP_", "_CREATED_BY_BARE_DDS_APP_")


class TopicEndpointTypeEnum(IntEnum):
    """Which end of a topic an endpoint is."""

    INVALID = 0
    PUBLISHER = 1
    SUBSCRIPTION = 2


@dataclass
class TopicEndpointInfo:
    """One publisher or subscription of a topic."""

    node_name: str
    node_namespace: str
    topic_type: str
    endpoint_type: TopicEndpointTypeEnum
    endpoint_gid: list[int]
    qos_profile: QoSProfile


@dataclass
class _Endpoint:
    topic: str
    type_name: str
    kind: TopicEndpointTypeEnum
    participant: bytes
    qos: Any


@dataclass
class LocalNode:
    """What others are told of one node of this process."""

    name: str
    namespace: str
    readers: list[bytes] = field(default_factory=list)
    writers: list[bytes] = field(default_factory=list)


class Graph:
    """Nodes and endpoints on the domain, as far as discovery has told."""

    def __init__(self, participant: Any) -> None:
        self._gid = bytes(participant.guid.bytes)
        self._lock = threading.RLock()
        self._local: list[LocalNode] = []
        self._endpoints: dict[bytes, _Endpoint] = {}
        self._infos: dict[bytes, Any] = {}
        self._reported: set[tuple[str, frozenset[str]]] = set()
        struct = wire.struct_type(_INFO_TYPE)
        user_data = wire.type_hash_user_data(_INFO_TYPE)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        keep_all = QoSProfile(history=HistoryPolicy.KEEP_ALL, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        topic = "ros_discovery_info"
        self._writer: Any = wire.Writer(participant, topic, struct, wire.to_dds_qos(latched, topic, user_data))
        self._reader: Any = wire.Reader(participant, topic, struct, wire.to_dds_qos(keep_all, topic, user_data))
        self._builtin: list[tuple[TopicEndpointTypeEnum, Any]] = [
            (kind, BuiltinDataReader(participant, builtin_topic))
            for kind, builtin_topic in (
                (TopicEndpointTypeEnum.PUBLISHER, BuiltinTopicDcpsPublication),
                (TopicEndpointTypeEnum.SUBSCRIPTION, BuiltinTopicDcpsSubscription),
            )
        ]
        mask = SampleState.Any | ViewState.Any | InstanceState.Any
        self.conditions: list[Any] = [ReadCondition(reader, mask) for _, reader in self._builtin]
        self.conditions.append(self._reader.condition)

    def close(self) -> None:
        """Drop all DDS entities."""
        with self._lock:
            self.conditions = []
            self._builtin = []
            self._writer = self._reader = None

    # -- telling others ------------------------------------------------------------------------------------------

    def add_node(self, node: LocalNode) -> None:
        """Announce a node."""
        with self._lock:
            self._local.append(node)
            self.publish()

    def remove_node(self, node: LocalNode) -> None:
        """Take a node's announcement back."""
        with self._lock:
            if node in self._local:
                self._local.remove(node)
                self.publish()

    def publish(self) -> None:
        """Tell others of this process's nodes and their endpoints."""
        if self._writer is None:
            return
        gid = message_class("rmw_dds_common/msg/Gid")
        entities = message_class("rmw_dds_common/msg/NodeEntitiesInfo")
        info = message_class(_INFO_TYPE)(
            gid=gid(data=list(self._gid)),
            node_entities_info_seq=[
                entities(
                    node_namespace=node.namespace,
                    node_name=node.name,
                    reader_gid_seq=[gid(data=list(data)) for data in node.readers],
                    writer_gid_seq=[gid(data=list(data)) for data in node.writers],
                )
                for node in self._local
            ],
        )
        self._writer.write(serialize_message(info))

    # -- knowing others ------------------------------------------------------------------------------------------

    def refresh(self) -> bool:
        """Take in what discovery has told since the last call.

        Returns:
            Whether there was anything new.
        """
        with self._lock:
            if self._reader is None:
                return False
            fresh: list[bytes] = []
            gone: set[bytes] = set()
            changed = False
            while True:
                samples = self._reader.take(_BATCH)
                if not samples:
                    break
                changed = True
                for data, _ in samples:
                    self._take_info(data)
            for kind, reader in self._builtin:
                while True:
                    batch = reader.take(_BATCH)
                    if not batch:
                        break
                    changed = True
                    fresh.extend(self._take_endpoint(kind, sample, gone) for sample in batch)
            if gone:
                gone -= {endpoint.participant for endpoint in self._endpoints.values()}
                self._infos = {key: info for key, info in self._infos.items() if key not in gone}
            for key in fresh:
                if key in self._endpoints:
                    self._check_types(self._endpoints[key])
            return changed

    def _take_info(self, data: bytes) -> None:
        try:
            info: Any = deserialize_message(data, message_class(_INFO_TYPE))
        except MessageError:
            return  # older distributions announce with 24 byte identifiers; their nodes stay unnamed
        self._infos[bytes(info.gid.data)] = info

    def _take_endpoint(self, kind: TopicEndpointTypeEnum, sample: Any, gone: set[bytes]) -> bytes:
        """Take in an endpoint that has come, or one that has gone: then its participant may have, too."""
        key = bytes(sample.key.bytes)
        if sample.sample_info.instance_state != InstanceState.Alive:
            endpoint = self._endpoints.pop(key, None)
            if endpoint is not None:
                gone.add(endpoint.participant)
        else:
            self._endpoints[key] = _Endpoint(
                sample.topic_name,
                wire.ros_type_name(sample.type_name),
                kind,
                bytes(sample.participant_key.bytes),
                sample.qos,
            )
        return key

    def _check_types(self, new: _Endpoint) -> None:
        for key, other in self._endpoints.items():
            if other.topic != new.topic or other.type_name == new.type_name:
                continue
            ours, theirs = (new, other) if new.participant == self._gid else (other, new)
            conflict = (new.topic, frozenset((new.type_name, other.type_name)))
            if ours.participant != self._gid or conflict in self._reported:
                continue
            self._reported.add(conflict)
            own_key = next(k for k, e in self._endpoints.items() if e is ours)
            their_key = key if theirs is other else next(k for k, e in self._endpoints.items() if e is new)
            own_node = next((n for n in self._local if own_key in (*n.readers, *n.writers)), None)
            name, namespace = self._node_of(their_key, theirs)
            who = "a process without node name" if (name, namespace) == BARE_NODE else f"node {_full(namespace, name)}"
            what = "publishes" if theirs.kind == TopicEndpointTypeEnum.PUBLISHER else "subscribes to"
            log.get_logger(own_node.name if own_node else "ropes_ros").error(
                f"topic {ours.topic.removeprefix('rt')}: {who} {what} it as {theirs.type_name}, this node uses "
                f"{ours.type_name}; nothing passes between them, so rename one (-r old:=new)"
            )

    def _node_of(self, key: bytes, endpoint: _Endpoint) -> tuple[str, str]:
        info = self._infos.get(endpoint.participant)
        for node in info.node_entities_info_seq if info is not None else ():
            for gid in (*node.reader_gid_seq, *node.writer_gid_seq):
                if bytes(gid.data) == key:
                    return node.node_name, node.node_namespace
        return BARE_NODE

    def _alive(self) -> Iterable[Any]:
        participants = {endpoint.participant for endpoint in self._endpoints.values()}
        return [info for gid, info in self._infos.items() if gid in participants]

    def endpoints(self, topic: str, kind: TopicEndpointTypeEnum) -> list[TopicEndpointInfo]:
        """All publishers or subscriptions of a topic, by full ROS name."""
        with self._lock:
            self.refresh()
            result = []
            for key, endpoint in self._endpoints.items():
                if endpoint.topic == f"rt{topic}" and endpoint.kind == kind:
                    name, namespace = self._node_of(key, endpoint)
                    result.append(
                        TopicEndpointInfo(
                            name,
                            namespace,
                            endpoint.type_name,
                            kind,
                            list(key),
                            wire.from_dds_qos(endpoint.qos),
                        )
                    )
            return result

    def topics(self) -> list[tuple[str, list[str]]]:
        """Full names and types of all ROS topics."""
        with self._lock:
            self.refresh()
            found: dict[str, set[str]] = {}
            for endpoint in self._endpoints.values():
                if endpoint.topic.startswith("rt/"):
                    found.setdefault(endpoint.topic[2:], set()).add(endpoint.type_name)
            return [(name, sorted(types)) for name, types in sorted(found.items())]

    def services(self) -> list[tuple[str, list[str]]]:
        """Full names and types of all services that have a server."""
        with self._lock:
            self.refresh()
            found: dict[str, set[str]] = {}
            for endpoint in self._endpoints.values():
                if endpoint.kind == TopicEndpointTypeEnum.SUBSCRIPTION and endpoint.topic.startswith("rq/"):
                    name = endpoint.topic[2:].removesuffix("Request")
                    found.setdefault(name, set()).add(endpoint.type_name.removesuffix("_Request"))
            return [(name, sorted(types)) for name, types in sorted(found.items())]

    def nodes(self) -> list[tuple[str, str]]:
        """Name and namespace of all nodes."""
        with self._lock:
            self.refresh()
            return [
                (node.node_name, node.node_namespace) for info in self._alive() for node in info.node_entities_info_seq
            ]


def _full(namespace: str, name: str) -> str:
    return f"/{name}" if namespace == "/" else f"{namespace}/{name}"

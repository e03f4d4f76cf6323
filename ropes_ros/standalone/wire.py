"""Cyclone DDS: raw CDR types, ROS names, QoS, and the few entities that the rest of the package uses.

Every type is a `@final` IdlStruct with the true fields, so that it matches by name and structure, whose serialize and
deserialize hand CDR bytes over untouched. ROS 2 endpoints speak XCDR1.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from cyclonedds.core import DDSException, DDSStatus, ReadCondition
from cyclonedds.core import InstanceState as _Instance
from cyclonedds.core import SampleState as _Sample
from cyclonedds.core import ViewState as _View
from cyclonedds.idl import make_idl_struct
from cyclonedds.idl import types as _idl_types
from cyclonedds.idl.annotations import final
from cyclonedds.internal import InvalidSample
from cyclonedds.pub import DataWriter
from cyclonedds.qos import Policy, Qos
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from rosbags.interfaces import Nodetype

from ropes_ros.standalone import definitions
from ropes_ros.standalone.duration import Duration
from ropes_ros.standalone.errors import InvalidQoSProfileException
from ropes_ros.standalone.qos import (
    INFINITE,
    DurabilityPolicy,
    HistoryPolicy,
    LivelinessPolicy,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
)

idl: Any = _idl_types
DDS_INFINITY = (1 << 63) - 1
# A write holds Python's lock while it waits for a slow reader, so it waits in short slices.
_WRITE_SLICE_NS = 20_000_000
_UNSUPPORTED_DEPTH = 1 << 31
_CLIENT_ID = re.compile(rb"clientid=[^;]*;")

_POLICY_KINDS = {
    2: QoSPolicyKind.DURABILITY,
    4: QoSPolicyKind.DEADLINE,
    8: QoSPolicyKind.LIVELINESS,
    11: QoSPolicyKind.RELIABILITY,
    13: QoSPolicyKind.HISTORY,
}
_SCALARS: dict[str, Any] = {
    "bool": bool,
    "byte": idl.byte,
    "string": str,
    **{f"{kind}{bits}": getattr(idl, f"{kind}{bits}") for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
    "float32": idl.float32,
    "float64": idl.float64,
}


def _serialize(sample: Any, buffer: Any = None, endianness: Any = None, use_version_2: Any = None) -> bytes:
    """A sample's CDR bytes as they are."""
    return sample.cdr  # type: ignore[no-any-return]


def _deserialize(cls: Any, data: bytes, has_header: bool = True, use_version_2: Any = None) -> Any:
    """A sample that keeps its CDR bytes."""
    sample = object.__new__(cls)
    sample.cdr = data
    return sample


def _deserialize_key(cls: Any, data: bytes, has_header: bool = True, use_version_2: Any = None) -> None:
    """Nothing: ROS topics have no keys, and notices that a writer has left carry no data."""


def _idl_type(desc: Any) -> Any:
    if desc[0] == Nodetype.NAME:
        return struct_type(desc[1])
    if desc[0] == Nodetype.BASE:
        kind, limit = desc[1]
        return idl.bounded_str[limit] if kind == "string" and limit else _SCALARS[kind]
    inner, limit = desc[1]
    item = _idl_type(inner)
    if desc[0] == Nodetype.ARRAY:
        return idl.array[item, limit]
    return idl.sequence[item, limit] if limit else idl.sequence[item]


def dds_type_name(type_name: str) -> str:
    """`sensor_msgs::msg::dds_::Image_` for `sensor_msgs/msg/Image`."""
    package, folder, name = type_name.split("/")
    return f"{package}::{folder}::dds_::{name}_"


def ros_type_name(dds_name: str) -> str:
    """`sensor_msgs/msg/Image` for `sensor_msgs::msg::dds_::Image_`; other names as they are."""
    parts = dds_name.split("::")
    if len(parts) == 4 and parts[2] == "dds_" and parts[3].endswith("_"):
        return f"{parts[0]}/{parts[1]}/{parts[3][:-1]}"
    return dds_name


@cache
def struct_type(type_name: str, service_header: bool = False) -> Any:
    """The DDS type of a ROS type; with the header that rmw_cyclonedds puts before requests and responses."""
    fields: dict[str, Any] = {}
    if service_header:
        fields = {"client_guid": idl.uint64, "sequence_number": idl.int64}
    fields.update({name: _idl_type(desc) for name, desc in definitions.STORE.fielddefs[type_name][1]})
    name = dds_type_name(type_name)
    struct: Any = make_idl_struct(type_name.replace("/", "_"), name, fields, dataclassify=False)
    struct.serialize = _serialize
    struct.deserialize = classmethod(_deserialize)
    struct.deserialize_key = classmethod(_deserialize_key)
    return final(struct)


def _nanoseconds(duration: Duration) -> int:
    return DDS_INFINITY if duration == INFINITE else duration.nanoseconds


def to_dds_qos(profile: QoSProfile, where: str, user_data: bytes, ignore_local: bool = False) -> Any:
    """The DDS policies of a profile.

    Raises:
        InvalidQoSProfileException: the profile asks for a policy that is not supported.
    """
    if (
        profile.reliability == ReliabilityPolicy.BEST_AVAILABLE
        or profile.durability == DurabilityPolicy.BEST_AVAILABLE
        or profile.liveliness == LivelinessPolicy.BEST_AVAILABLE
    ):
        raise InvalidQoSProfileException(f"{where}: BEST_AVAILABLE is not supported; name the policy")
    if profile.liveliness == LivelinessPolicy.MANUAL_BY_TOPIC:
        raise InvalidQoSProfileException(f"{where}: liveliness MANUAL_BY_TOPIC is not supported; use AUTOMATIC")
    if profile.depth >= _UNSUPPORTED_DEPTH:
        raise InvalidQoSProfileException(f"{where}: a depth of {profile.depth} is too large")
    history = Policy.History.KeepLast(max(1, profile.depth))
    if profile.history == HistoryPolicy.KEEP_ALL:
        history = Policy.History.KeepAll
    reliable = profile.reliability != ReliabilityPolicy.BEST_EFFORT
    policies: list[Any] = [
        history,
        Policy.Reliability.Reliable(_WRITE_SLICE_NS) if reliable else Policy.Reliability.BestEffort,
        Policy.DataRepresentation(use_cdrv0_representation=True),
        Policy.WriterDataLifecycle(autodispose=False),
        Policy.Userdata(user_data),
    ]
    if profile.durability == DurabilityPolicy.TRANSIENT_LOCAL:
        policies.append(Policy.Durability.TransientLocal)
        policies.append(Policy.DurabilityService(0, history, -1, -1, -1))
    if profile.deadline.nanoseconds:
        policies.append(Policy.Deadline(_nanoseconds(profile.deadline)))
    if profile.lifespan.nanoseconds:
        policies.append(Policy.Lifespan(_nanoseconds(profile.lifespan)))
    if profile.liveliness_lease_duration.nanoseconds:
        policies.append(Policy.Liveliness.Automatic(_nanoseconds(profile.liveliness_lease_duration)))
    if ignore_local:
        policies.append(Policy.IgnoreLocal.Participant)
    return Qos(*policies)


def from_dds_qos(qos: Any) -> QoSProfile:
    """The profile of a discovered endpoint; history is not on the wire and stays UNKNOWN."""
    profile = QoSProfile(history=HistoryPolicy.UNKNOWN, depth=0, liveliness=LivelinessPolicy.AUTOMATIC)
    if Policy.Reliability.BestEffort in qos:
        profile.reliability = ReliabilityPolicy.BEST_EFFORT
    if Policy.Durability.Volatile not in qos and Policy.Durability in qos:
        profile.durability = DurabilityPolicy.TRANSIENT_LOCAL
    profile.deadline = profile.lifespan = profile.liveliness_lease_duration = INFINITE
    if Policy.Deadline in qos and qos[Policy.Deadline].deadline < DDS_INFINITY:
        profile.deadline = Duration(nanoseconds=qos[Policy.Deadline].deadline)
    if Policy.Lifespan in qos and qos[Policy.Lifespan].lifespan < DDS_INFINITY:
        profile.lifespan = Duration(nanoseconds=qos[Policy.Lifespan].lifespan)
    return profile


def type_hash_user_data(type_name: str) -> bytes:
    """USER_DATA by which ROS 2 learns an endpoint's type hash."""
    return f"typehash={definitions.type_hash(type_name)};".encode()


def _client(endpoint: Any) -> bytes:
    """What the two endpoints of a service's client have in common.

    Its identifier in their user data, where rmw gives it one, or else their participant; nothing of one that has gone.
    """
    if endpoint is None:
        return b""
    data = bytes(endpoint.qos[Policy.Userdata].data) if Policy.Userdata in endpoint.qos else b""
    found = _CLIENT_ID.search(data)
    return found[0] if found else bytes(endpoint.participant_key.bytes)


class Writer:
    """A DDS writer of CDR bytes."""

    def __init__(self, participant: Any, name: str, struct: Any, qos: Any) -> None:
        self._struct = struct
        self.entity: Any = DataWriter(participant, Topic(participant, name, struct), qos)
        self.entity.set_status_mask(
            DDSStatus.OfferedIncompatibleQos
            | DDSStatus.PublicationMatched
            | DDSStatus.OfferedDeadlineMissed
            | DDSStatus.LivelinessLost
        )

    @property
    def gid(self) -> bytes:
        """The writer's 16 byte identifier."""
        return bytes(self.entity.guid.bytes)

    def write(self, data: bytes) -> bool:
        """Send one message.

        Returns:
            False where a slow reader with KEEP_ALL history left no room within a short time: call again.
        """
        sample = object.__new__(self._struct)
        sample.cdr = data
        try:
            self.entity.write(sample)
        except DDSException as error:
            if error.code == DDSException.DDS_RETCODE_TIMEOUT:
                return False
            raise
        return True

    def wait_for_acks(self, timeout_ns: int) -> bool:
        """Wait until all matched reliable readers have received everything; False on timeout."""
        try:
            return bool(self.entity.wait_for_acks(timeout_ns))
        except AttributeError:  # cyclonedds 11 looks its timeout code up in the wrong class
            return False

    def matched(self) -> int:
        """Number of matched readers."""
        return len(self.entity.get_matched_subscriptions())

    def reaches(self, client: bytes) -> bool:
        """Whether a reader of a service's client is matched; see `Reader.take_request`."""
        handles = self.entity.get_matched_subscriptions()
        return any(_client(self.entity.get_matched_subscription_data(handle)) == client for handle in handles)

    def incompatible_qos(self) -> tuple[int, int, QoSPolicyKind]:
        """Total count, change since the last call, and last policy of readers with incompatible QoS."""
        status = self.entity.get_offered_incompatible_qos_status()
        return _incompatible(status)

    def matched_status(self) -> Any:
        """Counts of matched readers and their change since the last call."""
        return self.entity.get_publication_matched_status()

    def deadline_status(self) -> Any:
        """How often the offered deadline was missed, and its change since the last call."""
        return self.entity.get_offered_deadline_missed_status()

    def liveliness_status(self) -> Any:
        """How often the writer was found dead, and its change since the last call."""
        return self.entity.get_liveliness_lost_status()


class Reader:
    """A DDS reader of CDR bytes."""

    def __init__(self, participant: Any, name: str, struct: Any, qos: Any) -> None:
        self.entity: Any = DataReader(participant, Topic(participant, name, struct), qos)
        self.entity.set_status_mask(
            DDSStatus.RequestedIncompatibleQos
            | DDSStatus.SubscriptionMatched
            | DDSStatus.SampleLost
            | DDSStatus.RequestedDeadlineMissed
            | DDSStatus.LivelinessChanged
        )
        self.condition = ReadCondition(self.entity, _Sample.Any | _View.Any | _Instance.Any)

    @property
    def gid(self) -> bytes:
        """The reader's 16 byte identifier."""
        return bytes(self.entity.guid.bytes)

    def take(self, count: int) -> list[tuple[bytes, int]]:
        """Up to `count` messages with their source timestamps in nanoseconds; notices without data are skipped."""
        return [
            (sample.cdr, sample.sample_info.source_timestamp)
            for sample in self.entity.take(count)
            if not isinstance(sample, InvalidSample)
        ]

    def take_request(self) -> tuple[bytes, bytes] | None:
        """One message of a service's client, and what its endpoints are known by; None where there is none."""
        for sample in self.entity.take(1):
            if not isinstance(sample, InvalidSample):
                writer = self.entity.get_matched_publication_data(sample.sample_info.publication_handle)
                return sample.cdr, _client(writer)
        return None

    def matched(self) -> int:
        """Number of matched writers."""
        return len(self.entity.get_matched_publications())

    def incompatible_qos(self) -> tuple[int, int, QoSPolicyKind]:
        """Total count, change since the last call, and last policy of writers with incompatible QoS."""
        return _incompatible(self.entity.get_requested_incompatible_qos_status())

    def matched_status(self) -> Any:
        """Counts of matched writers and their change since the last call."""
        return self.entity.get_subscription_matched_status()

    def deadline_status(self) -> Any:
        """How often the requested deadline was missed, and its change since the last call."""
        return self.entity.get_requested_deadline_missed_status()

    def liveliness_status(self) -> Any:
        """Counts of live and dead writers, and their changes since the last call."""
        return self.entity.get_liveliness_changed_status()

    def lost(self) -> tuple[int, int]:
        """Total count of lost messages and its change since the last call."""
        status = self.entity.get_sample_lost_status()
        return status.total_count, status.total_count_change


def _incompatible(status: Any) -> tuple[int, int, QoSPolicyKind]:
    kind = _POLICY_KINDS.get(status.last_policy_id, QoSPolicyKind.INVALID)
    return status.total_count, status.total_count_change, kind

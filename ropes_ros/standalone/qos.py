"""Quality of service: rclpy.qos."""

from __future__ import annotations

import warnings
from enum import Enum, IntEnum
from typing import Any

from ropes_ros.standalone.duration import Duration
from ropes_ros.standalone.errors import InvalidQoSProfileException

INFINITE = Duration(seconds=9223372036, nanoseconds=854775807)


class PolicyEnum(IntEnum):
    """Base of the policies, with the short names that command line tools use."""

    @classmethod
    def short_keys(cls) -> list[str]:
        """The short names of all values, such as `best_effort`."""
        return [member.name.lower() for member in cls]

    @classmethod
    def get_from_short_key(cls, name: str) -> int:
        """The number of a short name."""
        return cls[name.upper()].value

    @property
    def short_key(self) -> str:
        """The short name."""
        return self.name.lower()


class HistoryPolicy(PolicyEnum):
    """How many samples are kept."""

    SYSTEM_DEFAULT = 0
    KEEP_LAST = 1
    KEEP_ALL = 2
    UNKNOWN = 3


class ReliabilityPolicy(PolicyEnum):
    """Whether lost samples are sent again."""

    SYSTEM_DEFAULT = 0
    RELIABLE = 1
    BEST_EFFORT = 2
    UNKNOWN = 3
    BEST_AVAILABLE = 4


class DurabilityPolicy(PolicyEnum):
    """Whether a late joiner receives the last samples."""

    SYSTEM_DEFAULT = 0
    TRANSIENT_LOCAL = 1
    VOLATILE = 2
    UNKNOWN = 3
    BEST_AVAILABLE = 4


class LivelinessPolicy(PolicyEnum):
    """How a publisher shows that it is alive."""

    SYSTEM_DEFAULT = 0
    AUTOMATIC = 1
    MANUAL_BY_TOPIC = 3
    UNKNOWN = 4
    BEST_AVAILABLE = 5


class QoSPolicyKind(IntEnum):
    """The policy that an incompatible QoS event names."""

    INVALID = 1 << 0
    DURABILITY = 1 << 1
    DEADLINE = 1 << 2
    LIVELINESS = 1 << 3
    RELIABILITY = 1 << 4
    HISTORY = 1 << 5
    LIFESPAN = 1 << 6
    DEPTH = 1 << 7
    LIVELINESS_LEASE_DURATION = 1 << 8
    AVOID_ROS_NAMESPACE_CONVENTIONS = 1 << 9


def qos_policy_name_from_kind(policy_kind: QoSPolicyKind | int) -> str:
    """The name of a policy that an event gives by number."""
    return QoSPolicyKind(policy_kind).name


_TYPES: dict[str, type] = {
    "history": HistoryPolicy,
    "depth": int,
    "reliability": ReliabilityPolicy,
    "durability": DurabilityPolicy,
    "lifespan": Duration,
    "deadline": Duration,
    "liveliness": LivelinessPolicy,
    "liveliness_lease_duration": Duration,
    "avoid_ros_namespace_conventions": bool,
}
_DEFAULT_DEPTH = 10


class QoSProfile:
    """A set of policies for one publisher, subscription or service.

    Raises:
        InvalidQoSProfileException: neither history nor depth is given, or a policy has a value that it cannot have.
    """

    __slots__ = tuple(_TYPES)

    history: HistoryPolicy
    depth: int
    reliability: ReliabilityPolicy
    durability: DurabilityPolicy
    lifespan: Duration
    deadline: Duration
    liveliness: LivelinessPolicy
    liveliness_lease_duration: Duration
    avoid_ros_namespace_conventions: bool

    def __init__(
        self,
        *,
        history: HistoryPolicy | None = None,
        depth: int | None = None,
        reliability: ReliabilityPolicy = ReliabilityPolicy.RELIABLE,
        durability: DurabilityPolicy = DurabilityPolicy.VOLATILE,
        lifespan: Duration | None = None,
        deadline: Duration | None = None,
        liveliness: LivelinessPolicy = LivelinessPolicy.SYSTEM_DEFAULT,
        liveliness_lease_duration: Duration | None = None,
        avoid_ros_namespace_conventions: bool = False,
    ) -> None:
        if history is None:
            if depth is None:
                raise InvalidQoSProfileException("a QoS profile needs a history or a depth")
            history = HistoryPolicy.KEEP_LAST
        if history == HistoryPolicy.KEEP_LAST and depth is None:
            raise InvalidQoSProfileException("a QoS profile with KEEP_LAST history needs a depth")
        self.history = history
        self.depth = _DEFAULT_DEPTH if depth is None else depth
        self.reliability = reliability
        self.durability = durability
        self.lifespan = lifespan or Duration()
        self.deadline = deadline or Duration()
        self.liveliness = liveliness
        self.liveliness_lease_duration = liveliness_lease_duration or Duration()
        self.avoid_ros_namespace_conventions = avoid_ros_namespace_conventions

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _TYPES:
            raise AttributeError(f"a QoS profile has no policy {name!r}; it has {', '.join(_TYPES)}")
        kind = _TYPES[name]
        try:
            value = kind(value) if issubclass(kind, IntEnum) else value
        except ValueError:
            raise InvalidQoSProfileException(f"{value!r} is no {name} of a QoS profile") from None
        wrong_depth = name == "depth" and isinstance(value, int) and (isinstance(value, bool) or value < 0)
        if not isinstance(value, kind) or wrong_depth:
            raise InvalidQoSProfileException(f"the {name} of a QoS profile must be a {kind.__name__}, not {value!r}")
        if name == "depth" and value == 0 and self.history == HistoryPolicy.KEEP_LAST:
            warnings.warn("KEEP_LAST with a depth of 0 could keep nothing; a depth of 1 is used", stacklevel=3)
        object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, QoSProfile):
            return False
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"QoSProfile({', '.join(f'{name}={getattr(self, name)}' for name in self.__slots__)})"


def as_profile(qos: QoSProfile | int) -> QoSProfile:
    """A profile from a profile or, as rclpy allows, from a depth."""
    if isinstance(qos, QoSProfile):
        return qos
    if isinstance(qos, int) and not isinstance(qos, bool):
        return QoSProfile(depth=qos)
    raise TypeError(f"expected a QoSProfile or a depth, not {qos!r}")


qos_profile_default = QoSProfile(depth=10)
qos_profile_system_default = QoSProfile(
    history=HistoryPolicy.SYSTEM_DEFAULT,
    depth=0,
    reliability=ReliabilityPolicy.SYSTEM_DEFAULT,
    durability=DurabilityPolicy.SYSTEM_DEFAULT,
)
qos_profile_sensor_data = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
qos_profile_services_default = QoSProfile(depth=10)
qos_profile_parameters = QoSProfile(depth=1000)
qos_profile_parameter_events = QoSProfile(depth=1000)
qos_profile_action_status_default = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
qos_profile_rosout_default = QoSProfile(
    depth=1000, durability=DurabilityPolicy.TRANSIENT_LOCAL, lifespan=Duration(seconds=10)
)
qos_profile_unknown = QoSProfile(
    history=HistoryPolicy.UNKNOWN,
    depth=0,
    reliability=ReliabilityPolicy.UNKNOWN,
    durability=DurabilityPolicy.UNKNOWN,
    liveliness=LivelinessPolicy.UNKNOWN,
)


class QoSPresetProfiles(Enum):
    """The profiles that rclpy names."""

    UNKNOWN = qos_profile_unknown
    DEFAULT = qos_profile_default
    SYSTEM_DEFAULT = qos_profile_system_default
    SENSOR_DATA = qos_profile_sensor_data
    SERVICES_DEFAULT = qos_profile_services_default
    PARAMETERS = qos_profile_parameters
    PARAMETER_EVENTS = qos_profile_parameter_events
    ACTION_STATUS_DEFAULT = qos_profile_action_status_default

    @classmethod
    def short_keys(cls) -> list[str]:
        """The short keys of all profiles."""
        return [member.lower() for member in cls.__members__]

    @classmethod
    def get_from_short_key(cls, name: str) -> Any:
        """The profile of a short key such as `sensor_data`."""
        return cls[name.upper()].value

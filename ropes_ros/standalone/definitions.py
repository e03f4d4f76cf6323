"""Message definitions: the fields, constants, defaults and type hashes of ROS 2 Jazzy's interface packages."""

from __future__ import annotations

from functools import cache
from typing import Any

from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

STORE = get_typestore(Stores.ROS2_JAZZY)

# Values that rosidl gives to fields of a new message; the typestore keeps no default values.
DEFAULTS: dict[str, dict[str, Any]] = {
    "geometry_msgs/msg/Quaternion": {"w": 1.0},
    "sensor_msgs/msg/NavSatStatus": {"status": -2},
}

_RESULTS = "rcl_interfaces/SetParametersResult"
_SERVICES: dict[str, tuple[str, str]] = {
    "std_srvs/srv/Empty": ("", ""),
    "std_srvs/srv/SetBool": ("bool data", "bool success\nstring message"),
    "std_srvs/srv/Trigger": ("", "bool success\nstring message"),
    "rcl_interfaces/srv/DescribeParameters": (
        "string[] names",
        "rcl_interfaces/ParameterDescriptor[] descriptors",
    ),
    "rcl_interfaces/srv/GetParameterTypes": ("string[] names", "uint8[] types"),
    "rcl_interfaces/srv/GetParameters": ("string[] names", "rcl_interfaces/ParameterValue[] values"),
    "rcl_interfaces/srv/ListParameters": (
        "uint64 DEPTH_RECURSIVE=0\nstring[] prefixes\nuint64 depth",
        "rcl_interfaces/ListParametersResult result",
    ),
    "rcl_interfaces/srv/SetParameters": ("rcl_interfaces/Parameter[] parameters", f"{_RESULTS}[] results"),
    "rcl_interfaces/srv/SetParametersAtomically": (
        "rcl_interfaces/Parameter[] parameters",
        f"{_RESULTS} result",
    ),
    "rcl_interfaces/srv/GetLoggerLevels": ("string[] names", "rcl_interfaces/LoggerLevel[] levels"),
    "rcl_interfaces/srv/SetLoggerLevels": (
        "rcl_interfaces/LoggerLevel[] levels",
        "rcl_interfaces/SetLoggerLevelsResult[] results",
    ),
    "lifecycle_msgs/srv/ChangeState": ("lifecycle_msgs/Transition transition", "bool success"),
    "lifecycle_msgs/srv/GetState": ("", "lifecycle_msgs/State current_state"),
    "lifecycle_msgs/srv/GetAvailableStates": ("", "lifecycle_msgs/State[] available_states"),
    "lifecycle_msgs/srv/GetAvailableTransitions": (
        "",
        "lifecycle_msgs/TransitionDescription[] available_transitions",
    ),
}
_EMPTY_MEMBER: Any = ("structure_needs_at_least_one_member", (Nodetype.BASE, ("uint8", 0)))


def _plain(desc: Any) -> Any:
    """A field's type with uint8 for char, which is what it is in ROS 2: also where types are hashed."""
    if desc[0] == Nodetype.NAME:
        return desc
    if desc[0] == Nodetype.BASE:
        return (desc[0], ("uint8", desc[1][1])) if desc[1][0] == "char" else desc
    inner, limit = desc[1]
    return desc[0], (_plain(inner), limit)


def _replace_char() -> None:
    for name, (constants, fields) in tuple(STORE.fielddefs.items()):
        STORE.fielddefs[name] = (constants, [(field, _plain(desc)) for field, desc in fields])


def _register_services() -> None:
    for name, halves in _SERVICES.items():
        for half, text in zip(("Request", "Response"), halves, strict=True):
            full_name = f"{name}_{half}"
            ((constants, fields),) = get_types_from_msg(text, full_name).values()
            STORE.register({full_name: (constants, fields or [_EMPTY_MEMBER])})


_replace_char()
_register_services()


def service_names(package: str) -> list[str]:
    """Names of a package's service types, such as `Trigger` for `std_srvs`."""
    return [name.rsplit("/", 1)[1] for name in _SERVICES if name.startswith(f"{package}/")]


def message_names(package: str) -> list[str]:
    """Names of a package's message types, such as `Image` for `sensor_msgs`."""
    prefix = f"{package}/msg/"
    return [name[len(prefix) :] for name in STORE.fielddefs if name.startswith(prefix)]


def packages() -> list[str]:
    """Names of all interface packages."""
    return sorted({name.split("/", 1)[0] for name in [*STORE.fielddefs, *_SERVICES]})


@cache
def type_hash(type_name: str) -> str:
    """The type's hash as ROS 2 writes it, `RIHS01_<hex>`."""
    text = STORE.hash_rihs01(type_name)
    return text if text.startswith("RIHS01_") else f"RIHS01_{text}"

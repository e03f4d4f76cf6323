"""The layout of an intervention bag: schema version, topic roles, custom data and metadata.yaml.

A bag is a rosbag2 directory with MCAP storage. What makes it an intervention bag is a small set of strings,
the header: schema version, robot preset, schedule (YAML) and its hash, and which topic plays which role. The
header is written twice, as `custom_data` in metadata.yaml (keys prefixed with `ropes_ros.`) and as an MCAP
metadata record named `ropes_ros` at the very beginning of the file, so that it outlives the loss of either.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from mcap.writer import MCAP0_MAGIC

from ropes_ros.errors import BagError, RopesError
from ropes_ros.yaml_text import parse_yaml

SCHEMA_VERSION = 1
READABLE_VERSIONS = (1,)
METADATA_FILE = "metadata.yaml"
METADATA_VERSION = 9
HEADER_RECORD = "ropes_ros"
END_RECORD = "ropes_ros_end"
END_KEYS = ("state", "drops", "losses", "rates", "ended")
"""What of the header is known at the end only."""
KEY_PREFIX = "ropes_ros."

TOPICS: Mapping[str, str] = {
    "image": "/camera/image_raw",
    "camera_info": "/camera/camera_info",
    "joint_command": "/joint_command",
    "joint_states": "/joint_states",
    "regime": "/ropes/regime",
}
"""Default topic of each role.

Where several cameras were recorded, "image" and "camera_info" are those of the first, which is the one that is trained
from; the others have the roles "image_2", "camera_info_2", "image_3" and so on, and no default.
"""

ROLE_TYPES: Mapping[str, tuple[str, ...]] = {
    "image": ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"),
    "camera_info": ("sensor_msgs/msg/CameraInfo",),
    "joint_states": ("sensor_msgs/msg/JointState",),
    "regime": ("diagnostic_msgs/msg/DiagnosticArray",),
}
"""Message types that a role may have; commands may be of any type."""


def numbered(role: str, camera: int) -> str:
    """A role of one of several cameras, which are counted from 1: "image", "image_2", "image_3"."""
    return role if camera == 1 else f"{role}_{camera}"


def role_types(role: str) -> tuple[str, ...] | None:
    """Message types that a role, of whichever camera, may have; None for any."""
    base, _, number = role.rpartition("_")
    return ROLE_TYPES.get(base if number.isdecimal() else role)


class Losses(NamedTuple):
    """Messages of a topic that are missing in a bag, as far as the recorder knows.

    Attributes:
        gaps: Messages missing between the stamps of those that arrived (images only).
        transport: Messages that the middleware says it lost.
        queue: Messages that arrived, and were dropped since the disk did not keep up.
        malformed: Images too short for a header, which are not recorded; gaps count them too.
    """

    gaps: int = 0
    transport: int = 0
    queue: int = 0
    malformed: int = 0

    @property
    def total(self) -> int:
        """Lost on the way, as the one or the other way of counting says, or in the queue."""
        return max(self.gaps, self.transport) + self.queue

RECORDING, COMPLETE, RECOVERED = "recording", "complete", "recovered"

_FOREVER = {"sec": 9223372036, "nsec": 854775807}


@dataclass(frozen=True)
class OfferedQos:
    """What a topic's publisher offered; `ros2 bag play` publishes with it."""

    reliable: bool = True
    transient_local: bool = False
    depth: int = 10

    def to_dict(self) -> dict[str, Any]:
        """The profile as metadata.yaml version 9 spells it."""
        return {
            "history": "keep_last",
            "depth": self.depth,
            "reliability": "reliable" if self.reliable else "best_effort",
            "durability": "transient_local" if self.transient_local else "volatile",
            "deadline": dict(_FOREVER),
            "lifespan": dict(_FOREVER),
            "liveliness": "automatic",
            "liveliness_lease_duration": dict(_FOREVER),
            "avoid_ros_namespace_conventions": False,
        }


@dataclass(frozen=True)
class BagHeader:
    """What an intervention bag says about itself.

    Attributes:
        robot: Name of the robot preset.
        schedule_yaml: The schedule's whole text, or None when the bag was recorded without one.
        schedule_hash: The schedule's hash, or None.
        topics: Role ("image", "regime", ...) to topic name.
        state: "recording" until the bag is closed, then "complete", or "recovered".
        drops: Topic to number of messages known to be lost while recording.
        losses: Topic to where they were lost.
        rates: Topic to its messages a second.
        ended: Why the recording ended where nobody asked for it, for example since the disk was nearly full.
        schema_version: Version of this layout.
    """

    robot: str
    schedule_yaml: str | None = None
    schedule_hash: str | None = None
    topics: Mapping[str, str] = field(default_factory=lambda: dict(TOPICS))
    state: str = RECORDING
    drops: Mapping[str, int] = field(default_factory=dict)
    losses: Mapping[str, Losses] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    ended: str = ""
    schema_version: int = SCHEMA_VERSION

    def to_strings(self) -> dict[str, str]:
        """The header as string pairs, for an MCAP metadata record."""
        pairs = {
            "schema_version": str(self.schema_version),
            "robot": self.robot,
            "topics": json.dumps(dict(self.topics), sort_keys=True),
            "state": self.state,
            "drops": json.dumps(dict(self.drops), sort_keys=True),
        }
        if self.losses:
            losses = {topic: losses._asdict() for topic, losses in self.losses.items()}
            pairs["losses"] = json.dumps(losses, sort_keys=True)
        if self.rates:
            pairs["rates"] = json.dumps(dict(self.rates), sort_keys=True)
        if self.ended:
            pairs["ended"] = self.ended
        if self.schedule_yaml is not None:
            pairs["schedule"] = self.schedule_yaml
        if self.schedule_hash is not None:
            pairs["schedule_hash"] = self.schedule_hash
        return pairs

    def to_custom_data(self) -> dict[str, str]:
        """The header as metadata.yaml's `custom_data`."""
        return {KEY_PREFIX + key: value for key, value in self.to_strings().items()}

    @classmethod
    def from_strings(cls, pairs: Mapping[str, str], source: str | Path) -> BagHeader:
        """Parse what `to_strings` wrote.

        Args:
            pairs: Keys without prefix.
            source: The bag, for error messages.

        Raises:
            BagError: The schema version is unknown or the header is malformed.
        """
        version = pairs.get("schema_version", "")
        if version not in {str(known) for known in READABLE_VERSIONS}:
            known = ", ".join(str(known) for known in READABLE_VERSIONS)
            raise BagError(
                f"{source}: bag schema version {version or 'missing'} is unknown, this ropes_ros reads "
                f"{known}: "
                "upgrade ropes_ros, or record the bag again"
            )
        try:
            return cls(
                robot=pairs["robot"],
                schedule_yaml=pairs.get("schedule"),
                schedule_hash=pairs.get("schedule_hash"),
                topics={str(role): str(topic) for role, topic in json.loads(pairs["topics"]).items()},
                state=pairs.get("state", COMPLETE),
                drops={
                    str(topic): int(count) for topic, count in json.loads(pairs.get("drops", "{}")).items()
                },
                losses={
                    str(topic): Losses(**{str(name): int(count) for name, count in parts.items()})
                    for topic, parts in json.loads(pairs.get("losses", "{}")).items()
                },
                rates={
                    str(topic): float(rate) for topic, rate in json.loads(pairs.get("rates", "{}")).items()
                },
                ended=pairs.get("ended", ""),
                schema_version=int(version),
            )
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise BagError(
                f"{source}: the bag's header is malformed ({error!r}): record the bag again"
            ) from error

    @classmethod
    def from_custom_data(cls, custom: Mapping[str, str] | None, source: str | Path) -> BagHeader | None:
        """The header in metadata.yaml's `custom_data`, or None if there is none.

        Raises:
            BagError: See `from_strings`.
        """
        pairs = {
            key[len(KEY_PREFIX) :]: str(value)
            for key, value in (custom or {}).items()
            if str(key).startswith(KEY_PREFIX)
        }
        return cls.from_strings(pairs, source) if pairs else None


@dataclass(frozen=True)
class TopicRecord:
    """One topic of a bag as metadata.yaml lists it; `qos` holds profiles in version 9's spelling."""

    name: str
    type_name: str
    count: int
    qos: Sequence[Mapping[str, Any]] = ()
    type_hash: str = ""


@dataclass(frozen=True)
class FileRecord:
    """One storage file of a bag; times are log times in nanoseconds, `end_ns` that of the last message."""

    name: str
    start_ns: int
    end_ns: int
    count: int


def metadata_document(
    topics: Sequence[TopicRecord], files: Sequence[FileRecord], custom_data: Mapping[str, str] | None
) -> dict[str, Any]:
    """The contents of metadata.yaml, version 9 (ROS 2 Jazzy and later)."""
    filled = [file for file in files if file.count]
    start = min((file.start_ns for file in filled), default=0)
    end = max((file.end_ns for file in filled), default=0)
    return {
        "rosbag2_bagfile_information": {
            "version": METADATA_VERSION,
            "storage_identifier": "mcap",
            "duration": {"nanoseconds": end - start},
            "starting_time": {"nanoseconds_since_epoch": start},
            "message_count": sum(file.count for file in files),
            "topics_with_message_count": [
                {
                    "topic_metadata": {
                        "name": topic.name,
                        "type": topic.type_name,
                        "serialization_format": "cdr",
                        "offered_qos_profiles": [dict(profile) for profile in topic.qos],
                        "type_description_hash": topic.type_hash,
                    },
                    "message_count": topic.count,
                }
                for topic in topics
            ],
            "compression_format": "",
            "compression_mode": "",
            "relative_file_paths": [file.name for file in files],
            "files": [
                {
                    "path": file.name,
                    "starting_time": {"nanoseconds_since_epoch": file.start_ns},
                    "duration": {"nanoseconds": file.end_ns - file.start_ns},
                    "message_count": file.count,
                }
                for file in files
            ],
            "custom_data": dict(custom_data) if custom_data else None,
            "ros_distro": os.environ.get("ROS_DISTRO", "unknown"),
        }
    }


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, so that a person can read the schedule in metadata.yaml."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def dump_yaml(value: Any) -> str:
    """YAML text in the spelling that rosbag2 and rosbags read."""
    return yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=1000
    )


def write_metadata(bag: Path, document: Mapping[str, Any], *, fsync: bool = False) -> None:
    """Write metadata.yaml so that at any moment either the old or the new one is there, whole.

    Raises:
        OSError: The file cannot be written.
    """
    target = bag / METADATA_FILE
    temporary = bag / (METADATA_FILE + ".tmp")
    temporary.unlink(missing_ok=True)  # and never through a link that a bag from elsewhere brought
    with temporary.open("x", encoding="utf-8") as file:
        file.write(dump_yaml(document))
        if fsync:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(target)


def load_metadata(bag: Path) -> dict[str, Any]:
    """What metadata.yaml says under its one top key.

    Raises:
        BagError: The file is missing or malformed.
    """
    path = bag / METADATA_FILE
    try:
        information = parse_yaml(path.read_text(encoding="utf-8"))["rosbag2_bagfile_information"]
    except FileNotFoundError:
        raise BagError(f"{bag} is not a bag: it has no {METADATA_FILE}") from None
    except (OSError, RopesError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise BagError(
            f"{path} is not a rosbag2 metadata file ({first_line(error)}): run `ropes recover {bag}`"
        ) from error
    kinds = {"relative_file_paths": list, "custom_data": dict}
    if not isinstance(information, dict) or not all(
        isinstance(information.get(key), kind | None) for key, kind in kinds.items()
    ):
        raise BagError(f"{path} is not a rosbag2 metadata file: run `ropes recover {bag}`")
    for name in information.get("relative_file_paths") or []:
        if Path(str(name)).is_absolute() or ".." in Path(str(name)).parts:
            raise BagError(
                f"{path} names the file {name}, outside the bag: do not trust this bag; where its files are whole, "
                f"`ropes recover {bag}` lists them anew"
            )
    return information


def is_finished(path: Path) -> bool:
    """Whether an MCAP file ends as one does whose recording was closed.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - len(MCAP0_MAGIC)))
        return size > 2 * len(MCAP0_MAGIC) and file.read() == MCAP0_MAGIC


def first_line(error: Exception) -> str:
    """The first line of an error's text, for a message of one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]

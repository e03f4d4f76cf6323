"""Bags from elsewhere: rosbag2 of any storage and ROS 1, handed out as ROS 2 messages of the standard definitions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rosbags.convert.converter import is_same_wireformat, migrate_bytes
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from ropes_ros.bag_format import ROLE_TYPES, TOPICS, BagHeader, first_line
from ropes_ros.bags import BagMessage, BagTopic, open_bag
from ropes_ros.command_messages import COMMAND_TYPES
from ropes_ros.errors import BagError
from ropes_ros.regimes import Schedule

STANDARD = get_typestore(Stores.LATEST)
_RENAMED = {"tf/msg/tfMessage": "tf2_msgs/msg/TFMessage"}
"""ROS 1 types that go by another name today."""
STATE_TOPICS = ("joint_states", "joint_state")
"""Last names of topics that hold measured joint states."""


class ForeignBag:
    """A bag from elsewhere, open for reading; a context manager.

    Args:
        path: A rosbag2 directory, a single .mcap or .db3 file, or a ROS 1 .bag file.

    Attributes:
        path: The bag.
        header: What an intervention bag says of itself, None for others.
        topics: Topic name to BagTopic, the type being the one of today's definitions.
        left_out: Topic name to why it cannot be carried over.
        start_ns: Log time of the first message in ns.
        end_ns: Log time of the last message in ns.
        distro: What wrote it, as far as the bag tells.

    Raises:
        BagError: It is no bag, or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header: BagHeader | None = None
        self._bag = None
        if path.suffix == ".bag" and not path.is_dir():
            try:
                self._reader = AnyReader([path], default_typestore=get_typestore(Stores.ROS1_NOETIC))
                self._reader.open()
            except Exception as error:  # damaged bytes lead the reader to raise almost anything
                raise BagError(
                    f"{path} cannot be read as a ROS 1 bag ({first_line(error)}): run `rosbag reindex` on it"
                ) from error
            self._close = self._reader.close
        else:
            self._bag = open_bag(path)
            self._reader, self._close, self.header = self._bag.reader, self._bag.close, self._bag.header
        self.distro = "ROS 2" if self._reader.is2 else "ROS 1"
        self._cache: dict[str, object] = {}
        self._kinds: dict[str, tuple[str, str, bool]] = {}
        self.topics: dict[str, BagTopic] = {}
        self.left_out: dict[str, str] = {}
        for name, info in self._reader.topics.items():
            theirs = info.msgtype or ""
            ours = _RENAMED.get(theirs, theirs)
            self.topics[name] = BagTopic(name, ours, info.msgcount)
            if not theirs:
                self.left_out[name] = "messages of several types"
            elif ours not in STANDARD.fielddefs:
                self.left_out[name] = "its type is none of the standard message packages"
            elif theirs not in self._reader.typestore.fielddefs:
                self.left_out[name] = "the bag does not define its type"
            else:
                raw = self._reader.is2 and is_same_wireformat(self._reader.typestore, STANDARD, theirs, ours)
                self._kinds[name] = theirs, ours, raw
        filled = self._reader.message_count > 0
        self.start_ns = self._reader.start_time if filled else 0
        self.end_ns = self._reader.end_time - 1 if filled else 0

    def __enter__(self) -> ForeignBag:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def messages(self, topics: Mapping[str, Any] | set[str]) -> Iterator[BagMessage | BagError]:
        """Messages of topics that can be carried over, in order of their log time, as CDR of today's definitions.

        A message that does not fit its own definition comes as the error that says so.

        Raises:
            BagError: The file is damaged.
        """
        connections = [c for c in self._reader.connections if c.topic in topics and c.topic in self._kinds]
        if not connections:
            return
        if self._bag is not None:
            stream: Iterator[tuple[str, int, bytes]] = iter(self._bag.messages([c.topic for c in connections]))
        else:
            stream = self._ros1(connections)
        for topic, log_time_ns, data in stream:
            theirs, ours, raw = self._kinds[topic]
            if raw:
                yield BagMessage(topic, log_time_ns, data)
                continue
            try:
                moved = migrate_bytes(
                    self._reader.typestore,
                    STANDARD,
                    theirs,
                    ours,
                    self._cache,
                    data,
                    src_is2=self._reader.is2,
                    dst_is2=True,
                )
            except Exception as error:  # struct errors, index errors and bad text all mean the same here
                yield BagError(f"{self.path}: {topic}: a {theirs} cannot be read ({first_line(error)})")
                continue
            yield BagMessage(topic, log_time_ns, bytes(moved))

    def deserialize(self, data: bytes, type_name: str) -> Any:
        """A message that `messages` gave, as an object with the type's fields.

        Raises:
            BagError: The bytes are not a message of that type.
        """
        try:
            return STANDARD.deserialize_cdr(data, type_name)
        except Exception as error:  # as above
            raise BagError(f"{self.path}: a {type_name} cannot be read ({first_line(error)})") from error

    def schedule(self) -> Schedule | None:
        """The schedule that the bag holds, None where it holds none."""
        if self._bag is None or self.header is None or self.header.schedule_yaml is None:
            return None
        return self._bag.schedule

    def role(self, role: str, given: Mapping[str, str]) -> str | None:
        """Name of the topic that plays a role: the one given, the usual one, or the only one that could be it.

        Raises:
            BagError: The topic given is not there, holds nothing, or is of a type that the role cannot have; or several
                topics could play a role that learning needs.
        """
        types = ROLE_TYPES.get(role, ())
        measured = role == "joint_states"
        if role == "regime":
            types = (*types, "std_msgs/msg/String")
        if role in given:
            topic = self.topics.get(given[role])
            if topic is None or not topic.count:
                raise BagError(
                    f"{self.path} has no message on {given[role]} ({role}); it has "
                    f"{', '.join(sorted(name for name, entry in self.topics.items() if entry.count)) or 'none'}"
                )
            self._check_type(topic, role, types)
            return topic.name
        usual = self.header.topics.get(role) if self.header else TOPICS[role]
        if usual in self.topics and self.topics[usual].count and self._fits(self.topics[usual], role, types):
            return usual
        if role == "regime":
            return None
        found = [
            name
            for name, topic in self.topics.items()
            if topic.count and self._fits(topic, role, types) and (not measured or _is_state(name))
        ]
        if len(found) > 1 and role in ("image", "joint_command"):
            raise BagError(
                f"{self.path}: {', '.join(sorted(found))} could each be the {role} topic: choose one "
                f"(--topic {role}=NAME)"
            )
        return found[0] if len(found) == 1 else None

    def _fits(self, topic: BagTopic, role: str, types: tuple[str, ...]) -> bool:
        if topic.name in self.left_out:
            return False
        if role == "joint_command":
            return topic.type_name.rpartition("/")[2] in COMMAND_TYPES and not _is_state(topic.name)
        return topic.type_name in types

    def _check_type(self, topic: BagTopic, role: str, types: tuple[str, ...]) -> None:
        if topic.name in self.left_out:
            raise BagError(f"{self.path}: {topic.name} ({role}) cannot be read: {self.left_out[topic.name]}")
        if role == "joint_command" and _is_state(topic.name):
            raise BagError(
                f"{self.path}: {topic.name} holds measured joint states, which nothing may learn from: name the topic "
                "of the commands (--topic joint_command=NAME)"
            )
        if not self._fits(topic, role, types):
            wanted = COMMAND_TYPES if role == "joint_command" else types
            raise BagError(
                f"{self.path}: {topic.name} is of type {topic.type_name}, the {role} topic is of {' or '.join(wanted)}"
            )

    def _ros1(self, connections: list[Any]) -> Iterator[tuple[str, int, bytes]]:
        stream = self._reader.messages(connections)
        while True:
            try:
                connection, log_time_ns, data = next(stream)
            except StopIteration:
                return
            except Exception as error:  # the readers raise what their decompressors raise
                raise BagError(
                    f"{self.path} is damaged ({first_line(error)}): run `rosbag reindex` or `rosbag fix` on it"
                ) from error
            yield connection.topic, log_time_ns, data


def _is_state(name: str) -> bool:
    return name.rpartition("/")[2] in STATE_TOPICS

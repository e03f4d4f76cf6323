"""Intervention bags: open and read one, and the names that everything else uses to speak of bags.

The layout is defined in `bag_format`, writing lives in `bag_writer`, repair in `bag_recovery`. Bags recorded
by `ros2 bag record` are read as well: they lack the header, so the caller says which topic plays which role
and gives the schedule.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from ropes_ros.bag_format import (
    COMPLETE,
    END_RECORD,
    HEADER_RECORD,
    METADATA_FILE,
    RECORDING,
    RECOVERED,
    ROLE_TYPES,
    SCHEMA_VERSION,
    TOPICS,
    BagHeader,
    Losses,
    OfferedQos,
    first_line,
    is_finished,
    load_metadata,
    role_types,
)
from ropes_ros.bag_recovery import Recovery, recover
from ropes_ros.bag_writer import BagWriter
from ropes_ros.errors import BagError
from ropes_ros.mcap_limits import (
    FileSummary,
    check_chunks,
    check_packed_file,
    guard_rosbags,
    leave_messages_packed,
    read_summary,
    unpack_message,
)
from ropes_ros.regimes import Schedule

__all__ = [
    "COMPLETE",
    "RECORDING",
    "RECOVERED",
    "ROLE_TYPES",
    "SCHEMA_VERSION",
    "TOPICS",
    "Bag",
    "BagHeader",
    "BagMessage",
    "BagTopic",
    "BagWriter",
    "Losses",
    "OfferedQos",
    "Recovery",
    "open_bag",
    "recover",
]


class BagTopic(NamedTuple):
    """A topic in a bag."""

    name: str
    type_name: str
    count: int  # type: ignore[assignment]  # hides tuple.count


class BagMessage(NamedTuple):
    """A message as recorded: `log_time_ns` is the receive time, `data` the serialised message (CDR)."""

    topic: str
    log_time_ns: int
    data: bytes


class Bag:
    """A bag open for reading; use it as a context manager. Made by `open_bag`.

    Attributes:
        path: The bag.
        header: What the bag says about itself, or None for a bag from elsewhere.
        topics: Topic name to BagTopic.
        start_ns: Log time of the first message in nanoseconds, 0 in an empty bag.
        end_ns: Log time of the last message in nanoseconds, 0 in an empty bag.
        reader: What reads it, for its types.
        summaries: Storage file to what it says of itself, None where that is nothing; all of them, in order.
    """

    def __init__(
        self,
        path: Path,
        reader: AnyReader,
        header: BagHeader | None,
        roles: Mapping[str, str] | None,
        schedule: Schedule | None,
        summaries: Mapping[Path, FileSummary | None],
        packed: bool = False,
    ) -> None:
        self.path = path
        self.header = header
        self.reader = reader
        self.summaries = summaries
        self._roles = {**TOPICS, **(header.topics if header else {}), **(roles or {})}
        self._schedule = schedule
        self._packed = packed
        self.topics = {
            name: BagTopic(name, info.msgtype or "", info.msgcount) for name, info in reader.topics.items()
        }
        count = reader.message_count
        self.start_ns = reader.start_time if count else 0
        self.end_ns = reader.end_time - 1 if count else 0

    def __enter__(self) -> Bag:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self.reader.close()

    @property
    def each_packed(self) -> bool:
        """Whether each message is compressed by itself, which `messages` undoes."""
        return self._packed

    @property
    def schedule(self) -> Schedule:
        """The schedule that was commanded: the one given to `open_bag`, else the one in the bag.

        Raises:
            BagError: There is none, or its text does not have the hash that the bag states.
        """
        if self._schedule is None:
            if self.header is None or self.header.schedule_yaml is None:
                raise BagError(
                    f"{self.path} holds no schedule: name the schedule file that was commanded (--schedule FILE)"
                )
            schedule = Schedule.from_yaml(self.header.schedule_yaml, str(self.path))
            if self.header.schedule_hash != schedule.hash:
                raise BagError(
                    f"{self.path}: its schedule has hash {schedule.hash[:12]}, the bag states "
                    f"{(self.header.schedule_hash or 'none')[:12]}: it was altered, name the schedule file "
                    "instead (--schedule FILE)"
                )
            self._schedule = schedule
        return self._schedule

    def topic(self, role: str) -> str:
        """Name of the topic that plays a role ("image", "regime", ...).

        Raises:
            BagError: The bag has no such topic (those that it has are listed), no message on it, or messages of a type
                that the role cannot have.
        """
        name = self._roles.get(role, role)
        if name not in self.topics:
            raise BagError(
                f"{self.path} has no topic {name} ({role}); it has: "
                f"{', '.join(sorted(self.topics)) or 'none'}: "
                f"name the {role} topic (--topic {role}=NAME)"
            )
        if not self.topics[name].count:
            raise BagError(
                f"{self.path}: no message was recorded on {name} ({role}): check its publisher, record again"
            )
        if role == "joint_command" and self._is_measured(name):
            raise BagError(
                f"{self.path}: {name} holds measured joint states, which nothing may learn from: name the topic of the "
                "commands (--topic joint_command=NAME)"
            )
        types = role_types(role) or (self.topics[name].type_name,)
        if self.topics[name].type_name not in types:
            raise BagError(
                f"{self.path}: {name} is of type {self.topics[name].type_name}, the {role} topic is of "
                f"{' or '.join(types)}: name the {role} topic (--topic {role}=NAME)"
            )
        return name

    def _is_measured(self, name: str) -> bool:
        """Whether a topic, by its role or by its name, is of measured joint states."""
        return name == self._roles.get("joint_states") or name.rpartition("/")[2] in ("joint_states", "joint_state")

    def has(self, role: str) -> bool:
        """Whether the bag holds messages for a role."""
        entry = self.topics.get(self._roles.get(role, role))
        return entry is not None and entry.count > 0

    def messages(
        self, topics: Sequence[str] = (), start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[BagMessage]:
        """Messages in order of their log time.

        Args:
            topics: Topic names to read; nothing else is handed out. Empty for all.
            start_ns: Log time of the first one, in ns; what lies before is not read where the storage has an index.
            stop_ns: Log time in ns from which on nothing is wanted.

        Raises:
            BagError: A chunk is damaged or the file ends early.
        """
        wanted = set(topics)
        connections = [c for c in self.reader.connections if not wanted or c.topic in wanted]
        if not connections:
            return
        stream = self.reader.messages(connections, start_ns, stop_ns)
        while True:
            try:
                connection, log_time_ns, data = next(stream)
                if self._packed:
                    data = unpack_message(data)
            except StopIteration:
                return
            except Exception as error:  # the readers raise what their decompressors raise
                raise BagError(
                    f"{self.path} is damaged ({first_line(error)}): {_mending(self.path, list(self.summaries))}"
                ) from error
            yield BagMessage(connection.topic, log_time_ns, data)

    def deserialize(self, data: bytes, type_name: str) -> Any:
        """A message as an object with the type's fields.

        Raises:
            BagError: The bytes are not a message of that type.
        """
        try:
            return self.reader.deserialize(data, type_name)
        except Exception as error:  # struct errors, index errors and bad text all mean the same here
            raise BagError(
                f"{self.path}: a {type_name} cannot be read ({first_line(error)}): record again"
            ) from error

    def storage_bytes(self) -> int:
        """Size of the storage files together."""
        return sum(path.stat().st_size for path in self.summaries)

    def content_hash(self) -> str:
        """SHA-256 of the storage files in order; for the usual single file what `sha256sum` prints."""
        digest = hashlib.sha256()
        for path in self.summaries:
            with path.open("rb") as file:
                while block := file.read(1 << 22):
                    digest.update(block)
        return digest.hexdigest()


def open_bag(
    path: str | Path, *, topics: Mapping[str, str] | None = None, schedule: Schedule | None = None
) -> Bag:
    """Open a bag for reading.

    Args:
        path: A rosbag2 directory, or a single .mcap or .db3 file.
        topics: Role to topic name, for bags from elsewhere or to choose among several cameras.
        schedule: The schedule that was commanded, for bags that do not hold it.

    Raises:
        BagError: The path is no bag, was cut off, has an unknown schema version, or cannot be read.
    """
    path = Path(path)
    information, files = _inspect(path)
    compression = str(information.get("compression_mode") or "").lower()
    if compression == "file":
        _check_packed(files)
    for file in files:
        if file.suffix == ".mcap" and not is_finished(file):
            raise BagError(f"{file} was cut off, its index is missing: run `ropes recover {path}`")
    summaries = {file: _summary(file, path) if file.suffix == ".mcap" else None for file in files}
    header = BagHeader.from_custom_data(information.get("custom_data"), path)
    if header is None and files:
        header = _header_from_record(summaries[files[0]], path)
    if header is not None and header.state == RECORDING and path.is_dir():
        raise BagError(f"{path} was not closed (still recording, or cut off): run `ropes recover {path}`")
    guard_rosbags()
    try:
        reader = AnyReader([path], default_typestore=get_typestore(Stores.LATEST))
        reader.open()
        if compression == "message":
            leave_messages_packed(reader)
    except Exception as error:  # damaged bytes lead the readers to raise almost anything
        raise BagError(f"{path} cannot be read ({first_line(error)}): {_mending(path, files)}") from error
    return Bag(path, reader, header, topics, schedule, summaries, compression == "message")


def _mending(path: Path, files: Sequence[Path]) -> str:
    """What can be done for a damaged bag."""
    if all(file.suffix == ".mcap" for file in files):
        return f"run `ropes recover {path}`"
    return "only bags with MCAP storage can be recovered: mend it with the tools of its storage, or record it again"


def _inspect(path: Path) -> tuple[Mapping[str, Any], list[Path]]:
    """What metadata.yaml says (nothing for a single file) and storage files of what should be a bag."""
    if not path.exists():
        raise BagError(f"{path} does not exist: name a bag directory")
    if path.is_file():
        if path.suffix == ".bag":
            raise BagError(f"{path} is a ROS 1 bag: make an intervention bag of it by `ropes import`")
        if path.suffix not in {".mcap", ".db3"}:
            raise BagError(f"{path} is not a bag: name a rosbag2 directory, a .mcap or a .db3 file")
        return {}, [path]
    if not (path / METADATA_FILE).exists():
        if any(path.glob("*.mcap")):
            raise BagError(
                f"{path} has no {METADATA_FILE}, its recording was cut off: run `ropes recover {path}`"
            )
        raise BagError(f"{path} is not a bag: it has no {METADATA_FILE}")
    information = load_metadata(path)
    files = [path / Path(str(name)).name for name in information.get("relative_file_paths") or []]
    for file in files:
        if not file.is_file():
            raise BagError(
                f"{path}: its file {file.name} is missing: restore it, or run `ropes recover {path}`"
            )
    return information, files


def _check_packed(files: Sequence[Path]) -> None:
    """Refuse storage files, compressed as a whole, for which the folder for temporary files has no room."""
    room = shutil.disk_usage(tempfile.gettempdir()).free
    for file in files:
        try:
            with file.open("rb") as stream:
                check_packed_file(stream, room)
        except BagError as error:
            raise BagError(f"{file}: {error}: make room, or set TMPDIR, if you trust this bag") from None


def _summary(file: Path, source: Path) -> FileSummary | None:
    """The summary of a finished MCAP file, None where it has none.

    Raises:
        BagError: It cannot be read, or announces more than is read.
    """
    try:
        with file.open("rb") as stream:
            summary = read_summary(stream)
        check_chunks(summary.chunks if summary else ())
    except BagError as error:
        raise BagError(f"{file}: {error}: do not trust this bag, record it again") from None
    except Exception as error:  # damaged bytes lead the reader to raise almost anything
        raise BagError(f"{file} cannot be read ({first_line(error)}): run `ropes recover {source}`") from error
    return summary


def _header_from_record(summary: FileSummary | None, source: Path) -> BagHeader | None:
    """The header in the MCAP metadata record, for a file without metadata.yaml or one without custom data.

    It was written at the start of the recording, and a second record at its end, which was checked to be there.
    """
    pairs = summary.metadata.get(HEADER_RECORD) if summary else None
    if not summary or not pairs:
        return None
    return BagHeader.from_strings({**pairs, "state": COMPLETE, **summary.metadata.get(END_RECORD, {})}, source)

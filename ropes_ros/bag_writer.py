"""Writing an intervention bag: MCAP chunks flushed twice a second, a readable directory at every moment.

Whatever happens to the process, all that was flushed can be read again after `ropes recover PATH`; with
`fsync` the same holds for a power cut.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from rosbags.typesys import Stores, TypesysError, get_typestore

from ropes_ros import __version__
from ropes_ros.bag_format import (
    COMPLETE,
    END_KEYS,
    END_RECORD,
    HEADER_RECORD,
    TOPICS,
    BagHeader,
    FileRecord,
    Losses,
    OfferedQos,
    TopicRecord,
    dump_yaml,
    metadata_document,
    write_metadata,
)
from ropes_ros.errors import BagError
from ropes_ros.mcap_writer import COMPRESSIONS, McapWriter, Piece
from ropes_ros.units import NANOSECONDS

FLUSH_PERIOD_S = 0.5
_WRITEBACK_BYTES = 8 << 20
_PIECES = 1024
"""IOV_MAX of Linux and macOS: that many pieces are written at once."""


class StorageFile:
    """An unbuffered file: what `write` returned from is with the operating system.

    It is locked while it is open, so that `recover` can tell a running recording from a dead one.
    """

    def __init__(self, path: Path) -> None:
        self._raw = path.open("xb", buffering=0)
        self._size = self._begun = 0
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(self._raw, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def write(self, pieces: Sequence[Piece]) -> int:
        """Write all pieces, one behind the other, or raise OSError; the number of their bytes."""
        views = [memoryview(piece) for piece in pieces if piece]
        total = sum(map(len, views))
        while views:
            written = os.writev(self._raw.fileno(), views[:_PIECES])
            while views and written >= len(views[0]):
                written -= len(views.pop(0))
            if written:
                views[0] = views[0][written:]
        self._size += total
        self._begin_writeback()
        return total

    def _begin_writeback(self) -> None:
        """Have the system begin to write now: left alone it waits for gigabytes, then holds up whoever writes."""
        length = self._size - self._begun
        if length >= _WRITEBACK_BYTES and hasattr(os, "posix_fadvise"):
            with contextlib.suppress(OSError):  # advice that a file system does not take
                os.posix_fadvise(self._raw.fileno(), self._begun, length, os.POSIX_FADV_DONTNEED)
            self._begun = self._size

    def fsync(self) -> None:
        """Wait until the device has everything."""
        os.fsync(self._raw.fileno())

    def close(self) -> None:
        """Close the file."""
        self._raw.close()


@dataclasses.dataclass
class _Topic:
    channel_id: int
    type_name: str
    type_hash: str
    qos: OfferedQos
    count: int = 0
    start_ns: int = 0
    end_ns: int = 0

    def rate(self) -> float:
        """Messages a second between the first and the last, 0 of fewer than two."""
        return (self.count - 1) * NANOSECONDS / (self.end_ns - self.start_ns) if self.end_ns > self.start_ns else 0.0


class BagWriter:
    """Writes one bag; as a context manager it closes the bag, or aborts it when an exception passes.

    An aborted bag keeps everything flushed and asks for `ropes recover`. Not thread safe.

    Args:
        path: Directory to create; it must not exist.
        robot: Name of the robot preset.
        schedule_yaml: The schedule's text, None for a recording without a schedule.
        schedule_hash: The schedule's hash, None without a schedule.
        topics: Role to topic name where they differ from `TOPICS`.
        fsync: Whether a flush waits for the device (survives a power cut; costs milliseconds).
        flush_period_s: Longest time in seconds between flushes while messages arrive.
        compression: "zstd" (small), "lz4" (cheaper on noisy camera images), "none", or "auto": zstd as long as no more
            than 32 MB/s come, none above.

    Raises:
        BagError: The path exists, cannot be created or ends in .bag, or the compression is unknown.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        robot: str,
        schedule_yaml: str | None = None,
        schedule_hash: str | None = None,
        topics: Mapping[str, str] | None = None,
        fsync: bool = False,
        flush_period_s: float = FLUSH_PERIOD_S,
        compression: str = "zstd",
    ) -> None:
        self.path = Path(path)
        if compression not in COMPRESSIONS:
            raise BagError(f"compression {compression!r} is unknown, choose one of {', '.join(COMPRESSIONS)}")
        if self.path.suffix == ".bag":  # readers take the name alone for that of a ROS 1 bag
            raise BagError(f"{self.path}: a bag is a folder here, whose name must not end in .bag: choose another path")
        self._header = BagHeader(robot, schedule_yaml, schedule_hash, {**TOPICS, **(topics or {})})
        self._fsync = fsync
        self._flush_period_s = flush_period_s
        self._topics: dict[str, _Topic] = {}
        self._schemas: dict[str, int] = {}
        self._losses: dict[str, Losses] = {}
        self._start_ns, self._end_ns = 0, 0
        self._count = 0
        self._ended = ""
        self._last_flush = time.monotonic()
        self._open = False
        self._file_name = f"{self.path.name}_0.mcap"
        try:
            self.path.mkdir(parents=True)
        except FileExistsError:
            raise BagError(
                f"{self.path} exists already and is not overwritten: choose another path"
            ) from None
        except OSError as error:
            raise BagError(
                f"{self.path} cannot be created ({error.strerror}): choose another path"
            ) from error
        try:
            self._output = StorageFile(self.path / self._file_name)
            self._open = True
            self._mcap = McapWriter(self._output, compression=compression)
            self._mcap.start(library=f"ropes_ros {__version__}")
            self._mcap.add_metadata(HEADER_RECORD, self._header.to_strings())
            self._write_metadata()
            self._sync()
        except OSError as error:
            raise self._failed(error) from error

    @property
    def counts(self) -> dict[str, int]:
        """Topic to number of messages written."""
        return {name: topic.count for name, topic in self._topics.items()}

    @property
    def bytes_written(self) -> int:
        """Size of the storage file so far."""
        return self._mcap.size

    def add_topic(self, name: str, type_name: str, qos: OfferedQos | None = None) -> None:
        """Announce a topic; once per topic, before its first message.

        Args:
            name: Absolute topic name.
            type_name: For example "sensor_msgs/msg/Image".
            qos: What its publisher offers.

        Raises:
            BagError: The topic is there already or the type is unknown.
        """
        self._check_open()
        if name in self._topics:
            raise BagError(f"{self.path}: topic {name} was added already, as {self._topics[name].type_name}")
        qos = qos or OfferedQos()
        try:
            definition, type_hash = message_definition(type_name)
        except BagError as error:
            raise BagError(f"{self.path}: topic {name}: {error}") from error
        try:
            if type_name not in self._schemas:
                self._schemas[type_name] = self._mcap.register_schema(
                    type_name, "ros2msg", definition.encode()
                )
            channel_id = self._mcap.register_channel(
                name,
                "cdr",
                self._schemas[type_name],
                {"offered_qos_profiles": dump_yaml([qos.to_dict()]), "topic_type_hash": type_hash},
            )
        except OSError as error:
            raise self._failed(error) from error
        self._topics[name] = _Topic(channel_id, type_name, type_hash, qos)

    def write(self, topic: str, cdr: bytes, log_time_ns: int, publish_time_ns: int | None = None) -> None:
        """Append one message.

        Args:
            topic: A topic announced with `add_topic`.
            cdr: The serialised message with its encapsulation header, stored as it is.
            log_time_ns: Receive time in nanoseconds.
            publish_time_ns: Publication time in nanoseconds, by default the receive time.

        Raises:
            BagError: The topic is unknown, a time is negative, the bag is closed, or the disk is full.
        """
        self._check_open()
        entry = self._topics.get(topic)
        if entry is None:
            raise BagError(f"{self.path}: topic {topic} was not announced with add_topic")
        publish_time_ns = log_time_ns if publish_time_ns is None else publish_time_ns
        if log_time_ns < 0 or publish_time_ns < 0:
            raise BagError(
                f"{self.path}: a message on {topic} has a negative time ({log_time_ns} ns): check the clock"
            )
        try:
            self._mcap.add_message(
                entry.channel_id, log_time_ns, cdr, publish_time_ns, entry.count & 0xFFFFFFFF
            )
        except OSError as error:
            raise self._failed(error) from error
        entry.start_ns = min(entry.start_ns, log_time_ns) if entry.count else log_time_ns
        entry.end_ns = max(entry.end_ns, log_time_ns)
        entry.count += 1
        self._start_ns = min(self._start_ns, log_time_ns) if self._count else log_time_ns
        self._end_ns = max(self._end_ns, log_time_ns)
        self._count += 1
        if self.flush_due_in() <= 0:
            self.flush()

    def note_losses(self, topic: str, losses: Losses) -> None:
        """State how many messages of a topic are known to be lost so far; written when the bag is closed."""
        self._losses[topic] = losses

    def note_end(self, reason: str) -> None:
        """State why the recording ends where nobody asked for it; written when the bag is closed."""
        self._ended = reason

    def flush_due_in(self) -> float:
        """Seconds until the next flush is due; negative where it is overdue."""
        return self._last_flush + self._flush_period_s - time.monotonic()

    def flush(self) -> None:
        """Close the chunk in progress and hand everything to the operating system (and device, with fsync).

        Raises:
            BagError: The disk is full or the bag is closed.
        """
        self._check_open()
        try:
            self._mcap.flush()
            self._sync()
        except OSError as error:
            raise self._failed(error) from error
        self._last_flush = time.monotonic()

    def close(self) -> None:
        """Write index, counts, drops and the final metadata.yaml. Closing twice does nothing.

        Raises:
            BagError: The disk is full; what was flushed before can be recovered.
        """
        if not self._open:
            return
        self._header = dataclasses.replace(
            self._header,
            state=COMPLETE,
            drops={topic: losses.total for topic, losses in self._losses.items()},
            losses=dict(self._losses),
            rates={name: round(topic.rate(), 3) for name, topic in self._topics.items()},
            ended=self._ended,
        )
        try:
            self._mcap.flush()
            self._mcap.add_metadata(END_RECORD, end_record(self._header, self.counts))
            self._mcap.add_metadata(
                "rosbag2", {"serialized_metadata": dump_yaml(self._document()["rosbag2_bagfile_information"])}
            )
            self._mcap.finish()
            self._sync()
            self._output.close()
            self._open = False
            self._write_metadata()
        except OSError as error:
            raise self._failed(error) from error

    def abort(self) -> None:
        """Let go of the file without index; what was flushed can be recovered. Harmless on a closed bag."""
        if self._open:
            self._open = False
            self._output.close()

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _document(self) -> dict[str, Any]:
        topics = [
            TopicRecord(name, topic.type_name, topic.count, [topic.qos.to_dict()], topic.type_hash)
            for name, topic in self._topics.items()
        ]
        file = FileRecord(self._file_name, self._start_ns, self._end_ns, self._count)
        return metadata_document(topics, [file], self._header.to_custom_data())

    def _write_metadata(self) -> None:
        write_metadata(self.path, self._document(), fsync=self._fsync)

    def _sync(self) -> None:
        if self._fsync:
            self._output.fsync()

    def _check_open(self) -> None:
        if not self._open:
            raise BagError(f"{self.path} is closed: open another bag to write more")

    def _failed(self, error: OSError) -> BagError:
        """Let go of the file and say in one line what is left and what to do."""
        self.abort()
        return BagError(
            f"{self.path} cannot be written ({error.strerror}) after {self._count} messages: make room (as "
            "much again "
            f"as the bag holds), then run `ropes recover {self.path}`, which keeps all but the last second"
        )


@cache
def message_definition(type_name: str) -> tuple[str, str]:
    """The definition of a message type with all that it is made of, and its hash (REP 2016).

    Args:
        type_name: For example "sensor_msgs/msg/Image".

    Raises:
        BagError: The type is unknown.
    """
    store = get_typestore(Stores.LATEST)
    try:
        definition, _ = store.generate_msgdef(type_name, ros_version=2)
        return definition, store.hash_rihs01(type_name)
    except (TypesysError, KeyError) as error:
        raise BagError(
            f"the definition of type {type_name} is not known here: record only topics of the standard message packages"
        ) from error


def end_record(header: BagHeader, counts: Mapping[str, int]) -> dict[str, str]:
    """The MCAP metadata record at the end of a bag: state, messages, rates and known losses per topic."""
    pairs = header.to_strings()
    kept = {name: pairs[name] for name in END_KEYS if name in pairs}
    return {**kept, "counts": json.dumps(dict(counts), sort_keys=True)}

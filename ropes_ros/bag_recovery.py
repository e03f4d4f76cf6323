"""Repair of a bag that was cut off (a crash, kill -9, a full disk, a power cut) or damaged.

Every complete record of the storage file is copied to a temporary file, also those behind damaged parts, which gets the
index that is missing and replaces the original only when it is whole. An original that is damaged in its midst, and not
merely cut off, is kept beside it. metadata.yaml is rebuilt from what the files hold.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, Footer, McapRecord, Message, Metadata, Schema
from mcap.stream_reader import breakup_chunk
from mcap.writer import MCAP0_MAGIC
from rosbags.rosbag2 import ReaderError
from rosbags.rosbag2.metadata import dump_qos_v9, parse_qos

from ropes_ros import __version__
from ropes_ros.bag_format import (
    END_RECORD,
    HEADER_RECORD,
    METADATA_FILE,
    RECORDING,
    RECOVERED,
    BagHeader,
    FileRecord,
    TopicRecord,
    is_finished,
    load_metadata,
    metadata_document,
    write_metadata,
)
from ropes_ros.bag_writer import StorageFile, end_record
from ropes_ros.errors import BagError
from ropes_ros.mcap_limits import read_summary, unpacked_chunk
from ropes_ros.mcap_writer import McapWriter

_SUFFIX = ".recovering"
KEPT_SUFFIX = ".damaged"
"""What is appended to the name of an original that is kept."""
_RECORD_HEAD = struct.Struct("<BQ")
_CHUNK_TIMES = struct.Struct("<QQQ")
"""What a chunk begins with: times of its first and last message, ns, and its size when it is unpacked."""
_SEARCHED = 1 << 20
"""Bytes that are looked through at a time for the next chunk."""
_DAMAGE = (McapError, BagError, ValueError, RuntimeError, EOFError, MemoryError, OverflowError, struct.error)
"""What the MCAP records and their decompressors raise on damaged bytes."""


@dataclasses.dataclass(frozen=True)
class Recovery:
    """What `recover` found and did.

    Attributes:
        path: The bag.
        rebuilt: Names of the files that were damaged and have been rebuilt; empty when all were whole.
        messages: Number of messages in the bag now.
        duration_ns: Time between the first and the last message in nanoseconds.
        lost_bytes: Size of the damaged parts that could not be read.
        kept: Originals that were damaged in their midst.
    """

    path: Path
    rebuilt: tuple[str, ...]
    messages: int
    duration_ns: int
    lost_bytes: int
    kept: tuple[Path, ...]


@dataclasses.dataclass
class _Contents:
    """What one MCAP file holds, by topic."""

    file: FileRecord
    topics: dict[str, TopicRecord]
    header: Mapping[str, str] | None
    end: Mapping[str, str] | None


def recover(path: str | Path) -> Recovery:
    """Make a cut-off or damaged bag readable again; a whole one is left as it is, byte for byte.

    Needs about as much free space as the largest damaged file.

    Args:
        path: The bag directory, or one .mcap file. Of a file in no bag directory nothing else is touched: what lies
            beside it may be other recordings.

    Raises:
        BagError: No MCAP file there, it is being recorded now, nothing readable in it, or no space for the
            copy; the original is kept.
    """
    path = Path(path)
    alone = path.is_file() and path.suffix == ".mcap"
    files = [path] if alone else sorted(path.glob("*.mcap"), key=_file_order) if path.is_dir() else []
    if alone and (path.parent / METADATA_FILE).exists():
        return recover(path.parent)
    if not files:
        raise BagError(f"{path} holds no .mcap file: only bags with MCAP storage can be recovered")
    try:
        contents: list[_Contents] = []
        rebuilt: list[str] = []
        kept: list[Path] = []
        lost = 0
        for file in files:
            summary = _summarise(file)
            if summary is None or _is_damaged(file):
                gone, original = _rebuild(file)
                lost += gone
                kept += [original] if original else []
                rebuilt.append(file.name)
                summary = _summarise(file)
                if summary is None:
                    raise BagError(f"{file} could not be rebuilt: the device may be failing, check it")
            contents.append(summary)
        if not alone and (rebuilt or not _is_current(path, contents)):
            _rebuild_metadata(path, contents)
    except OSError as error:
        raise BagError(
            f"{path} cannot be recovered ({error.strerror}): make room or mend permissions, try again"
        ) from error
    filled = [c.file for c in contents if c.file.count]
    return Recovery(
        path=path,
        rebuilt=tuple(rebuilt),
        messages=sum(file.count for file in filled),
        duration_ns=max((f.end_ns for f in filled), default=0) - min((f.start_ns for f in filled), default=0),
        lost_bytes=lost,
        kept=tuple(kept),
    )


def _file_order(path: Path) -> tuple[int, str]:
    """rosbag2 splits a recording into NAME_0, NAME_1, ..., NAME_10."""
    number = path.stem.rpartition("_")[2]
    return (int(number) if number.isdigit() else -1, path.name)


def _summarise(file: Path) -> _Contents | None:
    """What a whole MCAP file holds, or None when it is cut off."""
    if not is_finished(file):
        return None
    try:
        with file.open("rb") as stream:
            summary = read_summary(stream)
    except _DAMAGE:
        return None
    if summary is None or summary.statistics is None:
        return None
    statistics = summary.statistics
    topics: dict[str, TopicRecord] = {}
    for channel in summary.channels.values():
        schema = summary.schemas.get(channel.schema_id)
        before = topics[channel.topic].count if channel.topic in topics else 0
        topics[channel.topic] = TopicRecord(
            channel.topic,
            schema.name if schema else "",
            before + statistics.channel_message_counts.get(channel.id, 0),
            _offered(channel.metadata.get("offered_qos_profiles", "")),
            channel.metadata.get("topic_type_hash", ""),
        )
    record = FileRecord(
        file.name, statistics.message_start_time, statistics.message_end_time, statistics.message_count
    )
    return _Contents(record, topics, summary.metadata.get(HEADER_RECORD), summary.metadata.get(END_RECORD))


def _is_damaged(file: Path) -> bool:
    """Whether any record of a finished MCAP file cannot be read, checksums included."""
    with file.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(len(MCAP0_MAGIC))
        try:
            for opcode, payload in _records(stream, size):
                if opcode == Opcode.FOOTER:
                    return not _summary_is_sound(stream, Footer.read(ReadDataStream(BytesIO(payload))))
                _parse(opcode, payload)
        except _DAMAGE:
            pass
    return True


def _summary_is_sound(stream: BinaryIO, footer: Footer) -> bool:
    """Whether the index has the checksum that the footer states; the stream stands behind the footer."""
    end = stream.tell() - 4  # the checksum itself is not covered
    stream.seek(footer.summary_start)
    return footer.summary_crc in (0, zlib.crc32(stream.read(end - footer.summary_start)))


def _offered(text: str) -> list[Mapping[str, object]]:
    try:
        return [dict(profile) for profile in dump_qos_v9(parse_qos(text))]
    except (ReaderError, KeyError, TypeError, AttributeError):
        return []


def _rebuild(file: Path) -> tuple[int, Path | None]:
    """Replace a damaged MCAP file by one with all its complete records and an index.

    Returns:
        Bytes lost, and where the original is kept, None where it is not.
    """
    kept = file.with_name(file.name + KEPT_SUFFIX)
    temporary = file.with_name(file.name + _SUFFIX)
    try:
        temporary.unlink(missing_ok=True)  # and never through a link that a bag from elsewhere brought
        with file.open("rb") as source:
            try:
                fcntl.flock(source, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BagError(f"{file} is being recorded right now: stop the recorder first") from None
            target = StorageFile(temporary)
            try:
                copier = _Copier(target)
                lost = copier.copy(source, file.stat().st_size)
                if not copier.messages:
                    raise BagError(
                        f"{file} holds no complete message: nothing can be recovered, the file is left as it is"
                    )
                copier.finish()
                target.fsync()
            finally:
                target.close()
        if copier.holes:
            if os.path.lexists(kept):
                raise BagError(f"{kept} is in the way of the damaged original, which is kept: move it elsewhere")
            file.rename(kept)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    return lost, kept if copier.holes else None


class _Copier:
    """Copies records into a new MCAP file, registering schemas and channels as they first appear.

    Each chunk becomes one chunk, compressed as it was, so that no more than one is in memory.
    """

    def __init__(self, target: StorageFile) -> None:
        self.messages = 0
        self.holes = False
        """Whether a message was found behind something that could not be read."""
        self._lost = 0
        self._counts: dict[str, int] = {}
        self._header: Mapping[str, str] | None = None
        self._schemas: dict[int, int] = {}
        self._channels: dict[int, tuple[int, str]] = {}
        self._writer = McapWriter(target, compression="none")
        self._writer.start(library=f"ropes_ros {__version__} recover")

    def copy(self, source: BinaryIO, size: int) -> int:
        """Copy all complete records; returns the number of bytes that could not be used."""
        if source.read(len(MCAP0_MAGIC)) != MCAP0_MAGIC:
            return size
        while True:
            for opcode, payload in _records(source, size):
                if opcode == Opcode.DATA_END:
                    return self._lost
                try:
                    records = _parse(opcode, payload)
                    if opcode == Opcode.CHUNK and not any(isinstance(record, Message) for record in records):
                        self._lost += len(payload)
                    for record in records:
                        self._add(record)
                    if opcode == Opcode.CHUNK:
                        self._writer.compression = _compression(payload)
                        self._writer.flush()
                except _DAMAGE:
                    self._lost += len(payload)
            broken = source.tell()
            found = _next_chunk(source, broken + 1, size)
            self._lost += (size if found is None else found) - broken
            if found is None:
                return self._lost
            source.seek(found)

    def finish(self) -> None:
        """Write state, counts and index."""
        if self._header is not None:
            header = dataclasses.replace(BagHeader.from_strings(self._header, "bag"), state=RECOVERED)
            self._writer.add_metadata(END_RECORD, end_record(header, self._counts))
        self._writer.finish()

    def _add(self, record: McapRecord) -> None:
        if isinstance(record, Schema):
            if record.id not in self._schemas:
                self._schemas[record.id] = self._writer.register_schema(
                    record.name, record.encoding, record.data
                )
        elif isinstance(record, Channel):
            if record.id not in self._channels:
                channel = self._writer.register_channel(
                    record.topic,
                    record.message_encoding,
                    self._schemas.get(record.schema_id, 0),
                    record.metadata,
                )
                self._channels[record.id] = (channel, record.topic)
        elif isinstance(record, Message):
            if record.channel_id in self._channels:
                channel, topic = self._channels[record.channel_id]
                self._writer.add_message(
                    channel, record.log_time, record.data, record.publish_time, record.sequence
                )
                self._counts[topic] = self._counts.get(topic, 0) + 1
                self.messages += 1
                self.holes |= self._lost > 0
        elif isinstance(record, Metadata) and record.name not in {END_RECORD, "rosbag2"}:
            if record.name == HEADER_RECORD:
                self._header = record.metadata
            self._writer.add_metadata(record.name, record.metadata)


def _records(source: BinaryIO, size: int) -> Iterator[tuple[int, bytes]]:
    """Top-level records (opcode, payload) up to the first one that is not all there."""
    position = source.tell()
    while position + _RECORD_HEAD.size <= size:
        opcode, length = _RECORD_HEAD.unpack(source.read(_RECORD_HEAD.size))
        end = position + _RECORD_HEAD.size + length
        if opcode == 0 or end > size:
            source.seek(position)
            return
        yield opcode, source.read(length)
        position = end


def _next_chunk(source: BinaryIO, start: int, size: int) -> int | None:
    """Where the next chunk begins that is all there and sound; None where there is none."""
    while start + _RECORD_HEAD.size < size:
        source.seek(start)
        block = source.read(_SEARCHED + _RECORD_HEAD.size)
        at = block.find(Opcode.CHUNK, 0, _SEARCHED)
        while at >= 0:
            position = start + at
            if at + _RECORD_HEAD.size <= len(block):
                end = position + _RECORD_HEAD.size + _RECORD_HEAD.unpack_from(block, at)[1]
                if end <= size and _is_chunk(source, position, end):
                    return position
            at = block.find(Opcode.CHUNK, at + 1, _SEARCHED)
        start += _SEARCHED
    return None


def _is_chunk(source: BinaryIO, position: int, end: int) -> bool:
    """Whether a sound chunk is between two positions: first by its times, which is cheap, then by its checksum."""
    source.seek(position + _RECORD_HEAD.size)
    times = source.read(_CHUNK_TIMES.size)
    if len(times) < _CHUNK_TIMES.size:
        return False
    first, last, _ = _CHUNK_TIMES.unpack(times)
    if first > last:
        return False
    try:
        return bool(_parse(Opcode.CHUNK, times + source.read(end - source.tell())))
    except _DAMAGE:
        return False


def _parse(opcode: int, payload: bytes) -> list[McapRecord]:
    """The records of interest in a top-level record: those of a chunk, or the record itself."""
    stream = ReadDataStream(BytesIO(payload))
    if opcode == Opcode.CHUNK:
        return breakup_chunk(unpacked_chunk(Chunk.read(stream)), validate_crc=True)
    if opcode == Opcode.SCHEMA:
        return [Schema.read(stream)]
    if opcode == Opcode.CHANNEL:
        return [Channel.read(stream)]
    if opcode == Opcode.MESSAGE:
        return [Message.read(stream, len(payload))]
    if opcode == Opcode.METADATA:
        return [Metadata.read(stream)]
    return []


def _compression(payload: bytes) -> str:
    """How a chunk that was read is compressed, as the writer calls it."""
    return Chunk.read(ReadDataStream(BytesIO(payload))).compression or "none"


def _is_current(path: Path, contents: list[_Contents]) -> bool:
    """Whether metadata.yaml speaks of just these files and what they hold, as of a recording that has ended."""
    counts: dict[str, int] = {}
    for content in contents:
        for name, topic in content.topics.items():
            counts[name] = counts.get(name, 0) + topic.count
    try:
        information = load_metadata(path)
        header = BagHeader.from_custom_data(information.get("custom_data"), path)
        listed = {
            entry["topic_metadata"]["name"]: entry["message_count"]
            for entry in information["topics_with_message_count"]
        }
        return (
            (header is None or header.state != RECORDING)
            and information["relative_file_paths"] == [content.file.name for content in contents]
            and information["message_count"] == sum(counts.values())
            and listed == counts
        )
    except (BagError, KeyError, TypeError, AttributeError):
        return False


def _rebuild_metadata(path: Path, contents: list[_Contents]) -> None:
    """Write metadata.yaml from what the files hold; custom data of others is kept."""
    topics: dict[str, TopicRecord] = {}
    for content in contents:
        for name, topic in content.topics.items():
            before = topics[name].count if name in topics else 0
            topics[name] = dataclasses.replace(topic, count=before + topic.count)
    try:
        custom = dict(load_metadata(path).get("custom_data") or {}) if (path / METADATA_FILE).exists() else {}
    except BagError:
        custom = {}
    if contents[0].header is not None:
        pairs = {**contents[0].header, **(contents[-1].end or {})}
        custom.update(BagHeader.from_strings(pairs, path).to_custom_data())
    write_metadata(
        path, metadata_document(list(topics.values()), [c.file for c in contents], custom), fsync=True
    )

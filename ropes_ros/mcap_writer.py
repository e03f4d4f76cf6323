"""An MCAP writer that copies no large message: a chunk goes to the file as the pieces that it is made of.

The mcap package's own writer copies each message four times on its way; at 111 MB/s of raw images that and nothing else
costs a fifth of a core (`ropes bench recorder`). Records other than chunks are that package's. Format:
https://mcap.dev/spec.
"""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Mapping, Sequence
from typing import Protocol

import lz4.frame
import zstandard
from mcap.data_stream import RecordBuilder
from mcap.opcode import Opcode
from mcap.records import (
    Channel,
    ChunkIndex,
    DataEnd,
    Footer,
    Header,
    McapRecord,
    Metadata,
    MetadataIndex,
    Schema,
    Statistics,
    SummaryOffset,
)
from mcap.writer import MCAP0_MAGIC

COMPRESSIONS = ("auto", "zstd", "lz4", "none")
CHUNK_BYTES = 4 << 20
"""A chunk is closed when it is so large."""
PACKED_BYTES_PER_S = 32e6
"""With "auto", chunks that fill faster than this are not compressed: one raw 640x480 camera at 30 Hz still is."""
_LARGE = 1 << 14
"""Messages from this size on are written from where they are."""
_MESSAGE = struct.Struct("<BQHIQQ")
_CHUNK = struct.Struct("<BQQQQII")
_LENGTH = struct.Struct("<Q")
_INDEX = struct.Struct("<BQHI")
_ENTRY = struct.Struct("<QQ")
_FOOTER = struct.Struct("<BQQQ")

Piece = bytes | bytearray


class Output(Protocol):
    """Where the file goes."""

    def write(self, pieces: Sequence[Piece]) -> int:
        """Write all pieces, one behind the other, or raise OSError; the number of their bytes."""
        ...


class _Chunk:
    """Records that are not written yet."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.size = 0
        self.start_ns, self.end_ns = 0, 0
        self.index: dict[int, list[tuple[int, int]]] = {}
        """Channel to the log times of its messages and where they begin."""

    def append(self, small: bytes, large: bytes | None = None) -> None:
        """Take bytes in; `large` ones are kept as they are, small ones joined."""
        if not self.pieces or not isinstance(self.pieces[-1], bytearray):
            self.pieces.append(bytearray())
        self.pieces[-1] += small
        self.size += len(small)
        if large is not None:
            self.pieces.append(large)
            self.size += len(large)

    def note(self, channel_id: int, log_time_ns: int) -> None:
        """Index the message that is appended next."""
        first = not self.index
        self.start_ns = log_time_ns if first else min(self.start_ns, log_time_ns)
        self.end_ns = log_time_ns if first else max(self.end_ns, log_time_ns)
        self.index.setdefault(channel_id, []).append((log_time_ns, self.size))


class McapWriter:
    """Writes an MCAP file with chunks, their indexes and a summary. Not thread safe.

    Args:
        output: Where it goes.
        compression: "zstd", "lz4" or "none"; "auto" is zstd for chunks that fill slowly and none for others.
        chunk_bytes: Size at which a chunk is closed.
    """

    def __init__(self, output: Output, *, compression: str, chunk_bytes: int = CHUNK_BYTES) -> None:
        self._output = output
        self.compression = compression
        self._chunk_bytes = chunk_bytes
        self._zstd = zstandard.ZstdCompressor()
        self._chunk = _Chunk()
        self._closed_at = time.monotonic()
        self._schemas: list[Schema] = []
        self._channels: list[Channel] = []
        self._counts: dict[int, int] = {}
        self._chunks: list[ChunkIndex] = []
        self._metadata: list[MetadataIndex] = []
        self._start_ns, self._end_ns = 0, 0
        self.size = 0
        """Bytes written so far."""

    def start(self, *, library: str) -> None:
        """Write what a file begins with."""
        self._write([MCAP0_MAGIC, _encoded(Header(profile="ros2", library=library))])

    def add_metadata(self, name: str, values: Mapping[str, str]) -> None:
        """Write a metadata record now."""
        record = _encoded(Metadata(name=name, metadata=dict(values)))
        self._metadata.append(MetadataIndex(offset=self.size, length=len(record), name=name))
        self._write([record])

    def register_schema(self, name: str, encoding: str, data: bytes) -> int:
        """Announce a schema; its id."""
        schema = Schema(id=len(self._schemas) + 1, name=name, encoding=encoding, data=data)
        self._schemas.append(schema)
        self._announce(schema)
        return schema.id

    def register_channel(self, topic: str, message_encoding: str, schema_id: int, metadata: Mapping[str, str]) -> int:
        """Announce a channel; its id."""
        channel = Channel(
            id=len(self._channels) + 1,
            topic=topic,
            message_encoding=message_encoding,
            schema_id=schema_id,
            metadata=dict(metadata),
        )
        self._channels.append(channel)
        self._announce(channel)
        return channel.id

    def _announce(self, record: McapRecord) -> None:
        """In the chunk, which then explains itself, and before it, so that damage to the chunk costs no other one."""
        encoded = _encoded(record)
        self._write([encoded])
        self._chunk.append(encoded)

    def add_message(
        self, channel_id: int, log_time_ns: int, data: bytes, publish_time_ns: int, sequence: int
    ) -> None:
        """Append a message; times in ns. Do not change `data` afterwards: it may be written later."""
        first = not self._counts
        self._start_ns = log_time_ns if first else min(self._start_ns, log_time_ns)
        self._end_ns = log_time_ns if first else max(self._end_ns, log_time_ns)
        self._counts[channel_id] = self._counts.get(channel_id, 0) + 1
        chunk = self._chunk
        chunk.note(channel_id, log_time_ns)
        length = _MESSAGE.size - 9 + len(data)
        head = _MESSAGE.pack(Opcode.MESSAGE, length, channel_id, sequence, log_time_ns, publish_time_ns)
        if len(data) < _LARGE:
            chunk.append(head + data)
        else:
            chunk.append(head, data)
        if chunk.size >= self._chunk_bytes:
            self.flush()

    def flush(self) -> None:
        """Close the chunk in progress, if there is one, and hand it to the output.

        Raises:
            OSError: The output did not take it.
        """
        chunk = self._chunk
        now = time.monotonic()
        elapsed, self._closed_at = now - self._closed_at, now
        if not chunk.index:
            return  # what it announces was written beforehand, and waits for the first message
        self._chunk = _Chunk()
        crc = 0
        for piece in chunk.pieces:
            crc = zlib.crc32(piece, crc)
        compression = self.compression
        if compression == "auto":
            compression = "zstd" if chunk.size <= PACKED_BYTES_PER_S * elapsed else "none"
        packed = self._packed(chunk, compression)
        size = sum(map(len, packed))
        name = b"" if compression == "none" else compression.encode()
        head = _CHUNK.pack(
            Opcode.CHUNK,
            _CHUNK.size - 9 + len(name) + _LENGTH.size + size,
            chunk.start_ns,
            chunk.end_ns,
            chunk.size,
            crc,
            len(name),
        )
        head += name + _LENGTH.pack(size)
        begin, length = self.size, len(head) + size
        index, offsets = bytearray(), {}
        for channel_id, entries in chunk.index.items():
            offsets[channel_id] = begin + length + len(index)
            body = b"".join(_ENTRY.pack(*entry) for entry in entries)
            index += _INDEX.pack(Opcode.MESSAGE_INDEX, 6 + len(body), channel_id, len(body)) + body
        self._write([head, *packed, index])
        self._chunks.append(
            ChunkIndex(
                chunk_length=length,
                chunk_start_offset=begin,
                compression=name.decode(),
                compressed_size=size,
                message_end_time=chunk.end_ns,
                message_index_length=len(index),
                message_index_offsets=offsets,
                message_start_time=chunk.start_ns,
                uncompressed_size=chunk.size,
            )
        )

    def _packed(self, chunk: _Chunk, compression: str) -> list[Piece]:
        if compression == "none":
            return chunk.pieces
        joined = b"".join(chunk.pieces)
        return [self._zstd.compress(joined) if compression == "zstd" else lz4.frame.compress(joined)]

    def finish(self) -> None:
        """Write the last chunk, and the summary with all indexes; the file is whole then.

        Raises:
            OSError: The output did not take it.
        """
        self.flush()
        self._write([_encoded(DataEnd(data_section_crc=0))])
        start, summary, offsets = self.size, bytearray(), bytearray()
        statistics = Statistics(
            attachment_count=0,
            channel_count=len(self._channels),
            channel_message_counts=dict(self._counts),
            chunk_count=len(self._chunks),
            message_count=sum(self._counts.values()),
            message_end_time=self._end_ns,
            message_start_time=self._start_ns,
            metadata_count=len(self._metadata),
            schema_count=len(self._schemas),
        )
        groups: tuple[tuple[Opcode, Sequence[McapRecord]], ...] = (
            (Opcode.SCHEMA, self._schemas),
            (Opcode.CHANNEL, self._channels),
            (Opcode.STATISTICS, [statistics]),
            (Opcode.CHUNK_INDEX, self._chunks),
            (Opcode.METADATA_INDEX, self._metadata),
        )
        for opcode, records in groups:
            begin = len(summary)
            for record in records:
                summary += _encoded(record)
            if records:
                offset = SummaryOffset(
                    group_opcode=opcode, group_start=start + begin, group_length=len(summary) - begin
                )
                offsets += _encoded(offset)
        offset_start = start + len(summary)
        summary += offsets
        crc = zlib.crc32(_FOOTER.pack(Opcode.FOOTER, 20, start, offset_start), zlib.crc32(summary))
        footer = Footer(summary_start=start, summary_offset_start=offset_start, summary_crc=crc)
        self._write([summary, _encoded(footer), MCAP0_MAGIC])

    def _write(self, pieces: Sequence[Piece]) -> None:
        self.size += self._output.write(pieces)


def _encoded(record: McapRecord) -> bytes:
    builder = RecordBuilder()
    record.write(builder)
    encoded: bytes = builder.end()  # type: ignore[no-untyped-call]
    return encoded

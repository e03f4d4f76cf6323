"""Bounds on what an MCAP file may make its reader do: no chunk may unpack to more than it states, or to too much.

Neither the mcap package nor rosbags bounds this: eight kilobytes of zstd unpack to a quarter of a gigabyte. So chunks
are unpacked here, up to the size that they state, which is limited itself.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterable
from typing import Any, BinaryIO, NamedTuple

import lz4.frame
import rosbags.rosbag2.storage_mcap as rosbags_mcap
import zstandard
from mcap.exceptions import McapError
from mcap.records import Channel, Chunk, ChunkIndex, Footer, McapRecord, Metadata, MetadataIndex, Schema, Statistics
from mcap.stream_reader import StreamReader
from rosbags.highlevel import AnyReader

from ropes_ros.errors import BagError

MAX_CHUNK_BYTES = 1 << 29
"""512 MiB; rosbag2 and this package close a chunk at a few MiB, or after one larger message."""
MAX_MESSAGE_BYTES = MAX_CHUNK_BYTES
MAX_TOGETHER_BYTES = 1 << 31
"""2 GiB: unpacked size of chunks that overlap in time, which a reader holds all at once to sort their messages."""
_END_BYTES = 37
"""Footer and magic at the end of a file."""
_PIECE = 1 << 20


class FileSummary(NamedTuple):
    """What an MCAP file says of itself behind its messages; metadata is name to values."""

    statistics: Statistics | None
    schemas: dict[int, Schema]
    channels: dict[int, Channel]
    chunks: list[ChunkIndex]
    metadata: dict[str, dict[str, str]]


def read_summary(stream: BinaryIO) -> FileSummary | None:
    """The summary of a finished file and the metadata records that it lists, without unpacking a chunk.

    Returns:
        None where the file has none.

    Raises:
        McapError, ValueError, struct.error, ...: What the mcap package raises on damaged bytes.
    """
    stream.seek(-_END_BYTES, io.SEEK_END)
    footer = _record_here(stream)
    if not isinstance(footer, Footer):
        raise McapError("no footer at the end")
    if footer.summary_start == 0:
        return None
    stream.seek(footer.summary_start)
    summary = FileSummary(None, {}, {}, [], {})
    offsets = []
    for record in StreamReader(stream, skip_magic=True, emit_chunks=True).records:
        if isinstance(record, Statistics):
            summary = summary._replace(statistics=record)
        elif isinstance(record, Schema):
            summary.schemas[record.id] = record
        elif isinstance(record, Channel):
            summary.channels[record.id] = record
        elif isinstance(record, ChunkIndex):
            summary.chunks.append(record)
        elif isinstance(record, MetadataIndex):
            offsets.append(record.offset)
    for offset in offsets:
        stream.seek(offset)
        found = _record_here(stream)
        if not isinstance(found, Metadata):
            raise McapError("the index of metadata leads elsewhere")
        summary.metadata[found.name] = found.metadata
    return summary


def _record_here(stream: BinaryIO) -> McapRecord:
    return next(iter(StreamReader(stream, skip_magic=True, emit_chunks=True).records))


def _too_large(size: int) -> BagError:
    return BagError(f"a chunk of {size} bytes is announced, more than the {MAX_CHUNK_BYTES} that are read")


def check_chunks(chunks: Iterable[ChunkIndex]) -> None:
    """Refuse a file of which too much would have to be in memory at once.

    Raises:
        BagError: A chunk, or those that overlap in time, are stated to be too large.
    """
    changes = []
    for chunk in chunks:
        if chunk.uncompressed_size > MAX_CHUNK_BYTES:
            raise _too_large(chunk.uncompressed_size)
        changes.append((chunk.message_start_time, 0, chunk.uncompressed_size))
        changes.append((chunk.message_end_time, 1, -chunk.uncompressed_size))
    together = 0
    for _, _, change in sorted(changes):
        together += change
        if together > MAX_TOGETHER_BYTES:
            raise BagError(f"chunks of more than {MAX_TOGETHER_BYTES} bytes overlap in time")


def unpack(data: bytes, compression: str, size: int) -> bytes:
    """What a chunk holds.

    Args:
        data: As it stands in the file.
        compression: "zstd", "lz4" or "" for none.
        size: Its unpacked size in bytes, as the file states it.

    Raises:
        BagError: It states more than `MAX_CHUNK_BYTES`, does not have the size that it states, or cannot be unpacked.
    """
    if size > MAX_CHUNK_BYTES:
        raise _too_large(size)
    if compression == "zstd":
        unpacked = _bounded_zstd(data, size)
    elif compression == "lz4":
        try:
            unpacked = lz4.frame.LZ4FrameDecompressor().decompress(data, max_length=size + 1)
        except (RuntimeError, EOFError) as error:
            raise BagError(f"compressed data cannot be unpacked ({error})") from None
    elif compression == "":
        unpacked = data
    else:
        raise BagError(f"chunks are compressed with {compression!r}; zstd and lz4 are known")
    if len(unpacked) != size:
        raise BagError(f"a chunk does not unpack to the {size} bytes that it states")
    return unpacked


def unpack_message(data: bytes) -> bytes:
    """A message of a bag in which each one is compressed with zstd.

    Raises:
        BagError: It unpacks to more than `MAX_MESSAGE_BYTES`, or cannot be unpacked.
    """
    unpacked = _bounded_zstd(data, MAX_MESSAGE_BYTES)
    if len(unpacked) > MAX_MESSAGE_BYTES:
        raise BagError(f"a message unpacks to more than the {MAX_MESSAGE_BYTES} bytes that are read")
    return unpacked


def unpacked_chunk(chunk: Chunk) -> Chunk:
    """The same chunk without compression, for the mcap package's functions.

    Raises:
        BagError: As `unpack`.
    """
    data = unpack(chunk.data, chunk.compression, chunk.uncompressed_size)
    return dataclasses.replace(chunk, compression="", data=data)


def check_packed_file(file: BinaryIO, limit: int) -> None:
    """Refuse a file compressed with zstd as a whole that unpacks to more than there is room for.

    Args:
        file: The compressed file.
        limit: Largest unpacked size in bytes.

    Raises:
        BagError: It unpacks to more, or cannot be unpacked.
    """
    try:
        with zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as reader:
            while piece := reader.read(_PIECE):
                limit -= len(piece)
                if limit < 0:
                    raise BagError("it unpacks to more than the folder for temporary files has room for")
    except zstandard.ZstdError as error:
        raise BagError(f"compressed data cannot be unpacked ({error})") from None


def guard_rosbags() -> None:
    """Have rosbags unpack the chunks that it reads with `unpack`; it has no public way to say so."""
    rosbags_mcap.DECOMPRESSORS.update(
        zstd=lambda data, size: unpack(data, "zstd", size), lz4=lambda data, size: unpack(data, "lz4", size)
    )


def leave_messages_packed(reader: AnyReader) -> None:
    """Have an open reader hand out messages that are compressed one by one as they are, for `unpack_message`."""
    for each in reader.readers:
        storage: Any = each.storage  # type: ignore[union-attr]
        storage.metadata = storage.metadata._replace(compression_mode=None)


def _bounded_zstd(data: bytes, limit: int) -> bytes:
    """The content of all frames in `data`, cut off one byte behind the limit."""
    pieces = []
    left = limit + 1
    try:
        with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
            while left and (piece := reader.read(min(left, _PIECE))):
                pieces.append(piece)
                left -= len(piece)
    except zstandard.ZstdError as error:
        raise BagError(f"compressed data cannot be unpacked ({error})") from None
    return b"".join(pieces)

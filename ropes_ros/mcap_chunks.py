"""One MCAP chunk's messages, unpacked into memory that serves for the next chunk too.

Memory that is taken anew for each chunk costs more than reading and unpacking what goes there: the kernel clears it.
Layout of records: MCAP format specification, https://mcap.dev/spec.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import lz4.frame
import zstandard
from mcap.opcode import Opcode
from mcap.records import ChunkIndex

from ropes_ros.errors import BagError
from ropes_ros.mcap_limits import MAX_CHUNK_BYTES

_RECORD = struct.Struct("<BQ")
_CHUNK = struct.Struct("<BQQQQII")
"""A chunk's record up to the name of its compression: opcode, length, times, unpacked size, CRC, length of the name."""
_LENGTH = struct.Struct("<Q")
_MESSAGE = struct.Struct("<HIQQ")
_INDEX_HEAD, _INDEX_ENTRY = 15, 16
_PIECE = 1 << 16
"""Bytes unpacked at a time: few enough that the allocator gives the same memory each time."""


class ChunkMessage(NamedTuple):
    """A message in a chunk; `data` holds until its reader reads the next chunk."""

    channel_id: int
    log_time_ns: int
    data: memoryview


def messages_indexed(chunk: ChunkIndex) -> dict[int, int]:
    """How many messages of each channel a chunk holds, by the size of their index; empty where it has none."""
    end = chunk.chunk_start_offset + chunk.chunk_length + chunk.message_index_length
    places = sorted((offset, channel_id) for channel_id, offset in chunk.message_index_offsets.items())
    return {
        channel_id: (following - offset - _INDEX_HEAD) // _INDEX_ENTRY
        for (offset, channel_id), (following, _) in pairwise([*places, (end, 0)])
    }


class ChunkReader:
    """Reads chunks, one at a time; each thread needs a reader of its own."""

    def __init__(self) -> None:
        self._packed, self._unpacked = bytearray(), bytearray()

    def messages(self, file: Path, chunk: ChunkIndex, channels: Collection[int]) -> Iterator[ChunkMessage]:
        """Messages of some channels as they stand in a chunk, of which no more is unpacked than they take.

        Args:
            file: The MCAP file.
            chunk: Where the chunk is.
            channels: Ids of the channels whose messages are handed out.

        Raises:
            BagError: The chunk is damaged; a checksum that does not fit is found behind the last message.
            OSError: The file cannot be read.
        """
        unpacked, pieces, size, crc = self._open(file, chunk)
        filled = at = 0

        def fill(upto: int) -> None:
            nonlocal filled
            while filled < upto:
                piece = next(pieces, 0)
                if not piece or upto > size:
                    raise BagError("a chunk's messages are cut short")
                filled += piece

        while at < size:
            fill(at + _RECORD.size)
            opcode, length = _RECORD.unpack_from(unpacked, at)
            body = at + _RECORD.size
            at = body + length
            fill(at)
            if opcode == Opcode.MESSAGE:
                if length < _MESSAGE.size:
                    raise BagError("a message is cut short")
                channel_id, _, log_time_ns, _ = _MESSAGE.unpack_from(unpacked, body)
                if channel_id in channels:
                    yield ChunkMessage(channel_id, log_time_ns, unpacked[body + _MESSAGE.size : at])
        if next(pieces, 0):
            raise BagError("a chunk does not unpack to the size that it states")
        if crc and zlib.crc32(unpacked[:size]) != crc:
            raise BagError("a chunk's checksum does not fit its content")

    def _open(self, file: Path, chunk: ChunkIndex) -> tuple[memoryview, Iterator[int], int, int]:
        """Memory for the unpacked chunk, sizes of the pieces as they come into it, its size, and its checksum."""
        size = chunk.uncompressed_size
        name = chunk.compression.encode()
        head_size = _CHUNK.size + len(name) + _LENGTH.size
        with file.open("rb", buffering=0) as stream:
            stream.seek(chunk.chunk_start_offset)
            head = stream.read(head_size)
            if len(head) < head_size:
                raise BagError("a chunk is missing")
            opcode, _, _, _, stated, crc, name_size = _CHUNK.unpack_from(head)
            (packed_size,) = _LENGTH.unpack_from(head, head_size - _LENGTH.size)
            there = head[_CHUNK.size : -_LENGTH.size] == name and name_size == len(name)
            if opcode != Opcode.CHUNK or not there or (stated, packed_size) != (size, chunk.compressed_size):
                raise BagError("a chunk is not where the index says")
            if max(size, packed_size) > MAX_CHUNK_BYTES:
                raise BagError(f"a chunk of {size} bytes is announced, more than the {MAX_CHUNK_BYTES} that are read")
            self._packed, packed = _room(self._packed, packed_size)
            at = 0
            while at < packed_size and (count := stream.readinto(packed[at:])):
                at += count
        if at < packed_size:
            raise BagError("a chunk is cut short")
        if not name:
            return packed, iter([packed_size] if packed_size else []), size, crc
        self._unpacked, unpacked = _room(self._unpacked, size)
        if chunk.compression == "zstd":
            return unpacked, _unpack_zstd(packed, unpacked), size, crc
        if chunk.compression == "lz4":
            return unpacked, _unpack_lz4(packed, unpacked), size, crc
        raise BagError(f"chunks are compressed with {chunk.compression!r}; zstd and lz4 are known")


def _room(buffer: bytearray, size: int) -> tuple[bytearray, memoryview]:
    """The buffer, or a larger one, and its first bytes."""
    if len(buffer) < size:
        buffer = bytearray(size)
    return buffer, memoryview(buffer)[:size]


def _unpack_zstd(packed: memoryview, unpacked: memoryview) -> Iterator[int]:
    """Sizes of pieces as they come into `unpacked`; what does not fit counts one byte."""
    at = 0
    try:
        with zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True) as reader:
            while at < len(unpacked) and (count := reader.readinto(unpacked[at : at + _PIECE])):
                at += count
                yield count
            if reader.read(1):
                yield 1
    except zstandard.ZstdError as error:
        raise BagError(f"compressed data cannot be unpacked ({error})") from None


def _unpack_lz4(packed: memoryview, unpacked: memoryview) -> Iterator[int]:
    """As `_unpack_zstd`."""
    at = 0
    decompressor = lz4.frame.LZ4FrameDecompressor()
    try:
        for start in range(0, len(packed), _PIECE):
            piece = decompressor.decompress(packed[start : start + _PIECE])
            count = min(len(piece), len(unpacked) - at)
            unpacked[at : at + count] = piece[:count]
            at += count
            if count:
                yield count
            if count < len(piece):
                yield 1
    except (RuntimeError, EOFError) as error:
        raise BagError(f"compressed data cannot be unpacked ({error})") from None

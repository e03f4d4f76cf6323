"""CDR (XCDR1, as ROS 2 uses it) of one field: functions that write a value to byte chunks and read it back.

Arrays of numbers go through as whole buffers, never element by element, and reach the message in one copy.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Callable
from typing import Any

import numpy as np

# write(value, chunks, position) -> position;  read(buffer, position) -> (value, position)
Write = Callable[[Any, list[Any], int], int]
Read = Callable[[memoryview, int], tuple[Any, int]]

HEADER = b"\x00\x01\x00\x00" if sys.byteorder == "little" else b"\x00\x00\x00\x00"
_NATIVE_ORDER = "<" if sys.byteorder == "little" else ">"
_PADDING = tuple(bytes(n) for n in range(8))

# name: (struct code, array typecode or None where rosidl uses a list)
NUMBERS: dict[str, tuple[str, str | None]] = {
    "bool": ("?", None),
    "byte": ("c", None),
    "int8": ("b", "b"),
    "uint8": ("B", "B"),
    "int16": ("h", "h"),
    "uint16": ("H", "H"),
    "int32": ("i", "i"),
    "uint32": ("I", "I"),
    "int64": ("q", "q"),
    "uint64": ("Q", "Q"),
    "float32": ("f", "f"),
    "float64": ("d", "d"),
}


def order_of(data: memoryview) -> str:
    """The byte order mark of a CDR message, `<` or `>`.

    Raises:
        ValueError: the four byte header is absent or not that of plain CDR.
    """
    if len(data) < 4 or data[0] != 0 or data[1] > 1:
        raise ValueError("it does not start with the header of plain CDR")
    return "<" if data[1] else ">"


def join(chunks: list[Any], size: int) -> bytes:
    """One message from header and chunks, padded to a multiple of four bytes."""
    return b"".join([HEADER, *chunks, _PADDING[-size % 4]])


def number(name: str, order: str) -> tuple[Write, Read]:
    """Codec of one number, bool or byte."""
    packer = struct.Struct(order + NUMBERS[name][0])
    size, pack, unpack = packer.size, packer.pack, packer.unpack_from

    def write(value: Any, chunks: list[Any], position: int) -> int:
        pad = -position % size
        chunks.append(_PADDING[pad] + pack(value))
        return position + pad + size

    def read(buffer: memoryview, position: int) -> tuple[Any, int]:
        position += -position % size
        return unpack(buffer, position)[0], position + size

    return write, read


def string(order: str) -> tuple[Write, Read]:
    """Codec of a string: length with terminator, UTF-8, NUL."""
    length = struct.Struct(order + "I")

    def write(value: Any, chunks: list[Any], position: int) -> int:
        data = value.encode()
        pad = -position % 4
        chunks.append(_PADDING[pad] + length.pack(len(data) + 1) + data + b"\x00")
        return position + pad + 5 + len(data)

    def read(buffer: memoryview, position: int) -> tuple[Any, int]:
        position += -position % 4
        (count,) = length.unpack_from(buffer, position)
        end = position + 4 + count
        if end > len(buffer):
            raise ValueError("a string runs past the end")
        return str(buffer[position + 4 : max(end - 1, position + 4)], "utf-8"), end

    return write, read


def numbers(name: str, order: str, count: int | None) -> tuple[Write, Read]:
    """Codec of an array of numbers: array.array for a sequence (count None), numpy array for a fixed size."""
    code, typecode = NUMBERS[name]
    size = struct.calcsize("=" + code)
    length = struct.Struct(order + "I")
    swap = order != _NATIVE_ORDER
    dtype = np.dtype(order + code)

    def write(value: Any, chunks: list[Any], position: int) -> int:
        n = len(value)
        if count is None:
            pad = -position % 4
            chunks.append(_PADDING[pad] + length.pack(n))
            position += pad + 4
        if n == 0:
            return position
        pad = -position % size
        chunks.append(_PADDING[pad])
        chunks.append(np.asarray(value).astype(dtype) if swap else value)
        return position + pad + n * size

    def read(buffer: memoryview, position: int) -> tuple[Any, int]:
        n = count
        if n is None:
            position += -position % 4
            (n,) = length.unpack_from(buffer, position)
            position += 4
        if n:
            position += -position % size
        end = position + n * size
        if end > len(buffer):
            raise ValueError("an array runs past the end")
        part = buffer[position:end]
        if count is not None:
            return np.frombuffer(part, dtype).astype(dtype.newbyteorder("=")), end
        values = array(typecode or "B")
        values.frombytes(part)
        if swap:
            values.byteswap()
        return values, end

    return write, read


def items(item: tuple[Write, Read], order: str, count: int | None) -> tuple[Write, Read]:
    """Codec of a list of strings, bools, bytes or messages; count None for a sequence."""
    write_item, read_item = item
    length = struct.Struct(order + "I")

    def write(value: Any, chunks: list[Any], position: int) -> int:
        if count is None:
            pad = -position % 4
            chunks.append(_PADDING[pad] + length.pack(len(value)))
            position += pad + 4
        elif len(value) != count:
            raise ValueError(f"it must hold {count} items, not {len(value)}")
        for element in value:
            position = write_item(element, chunks, position)
        return position

    def read(buffer: memoryview, position: int) -> tuple[Any, int]:
        n = count
        if n is None:
            position += -position % 4
            (n,) = length.unpack_from(buffer, position)
            position += 4
            if n > len(buffer) - position:
                raise ValueError("a list runs past the end")
        values = []
        for _ in range(n):
            value, position = read_item(buffer, position)
            values.append(value)
        return values, position

    return write, read

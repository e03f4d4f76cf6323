"""Just enough of CDR to take images and stamps out of serialised messages without copying a pixel.

Covers plain CDR (XCDR1) in both byte orders, which is what every ROS 2 middleware writes for final types.
Source: OMG, Data Distribution Service Interoperability Wire Protocol 2.5, sections 9.4 and 10.2.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from ropes_ros.errors import RopesError
from ropes_ros.units import NANOSECONDS

_BODY = 4
"""Length of the encapsulation header; alignment counts from its end."""


class RawImage(NamedTuple):
    """A sensor_msgs/Image; `data` is a view of the message's bytes."""

    stamp_ns: int
    frame_id: str
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: memoryview


class RawCompressedImage(NamedTuple):
    """A sensor_msgs/CompressedImage; `data` is a view of the message's bytes."""

    stamp_ns: int
    frame_id: str
    format: str
    data: memoryview


class _Reader:
    """Reads primitive values one after the other."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)
        kind = bytes(self._data[:2])
        if kind not in (b"\x00\x00", b"\x00\x01"):
            raise RopesError(
                f"encapsulation {kind.hex()} is not plain CDR: the publisher uses another wire format"
            )
        self._order = "<" if kind[1] else ">"
        self._position = _BODY

    def number(self, code: str) -> int:
        size = struct.calcsize(code)
        self._position += -(self._position - _BODY) % size
        value: int = struct.unpack_from(self._order + code, self._data, self._position)[0]
        self._position += size
        return value

    def octets(self) -> memoryview:
        length = self.number("I")
        view = self._data[self._position : self._position + length]
        if len(view) != length:
            raise RopesError(f"{length} bytes are announced, {len(view)} are there: the message is cut short")
        self._position += length
        return view

    def text(self) -> str:
        return bytes(self.octets()).rstrip(b"\x00").decode("utf-8", errors="replace")

    def stamp(self) -> int:
        seconds = self.number("i")
        return seconds * NANOSECONDS + self.number("I")


def header_stamp(cdr: bytes | memoryview) -> int:
    """The header stamp in nanoseconds of any message whose first field is a std_msgs/Header.

    Raises:
        RopesError: The bytes are too few or not plain CDR.
    """
    try:
        return _Reader(cdr).stamp()
    except struct.error:
        raise RopesError(f"a message of {len(cdr)} bytes is too short for a header") from None


def parse_image(cdr: bytes | memoryview) -> RawImage:
    """Take a sensor_msgs/Image apart.

    Raises:
        RopesError: The bytes are no such message.
    """
    reader = _Reader(cdr)
    try:
        stamp_ns, frame_id = reader.stamp(), reader.text()
        height, width, encoding = reader.number("I"), reader.number("I"), reader.text()
        big_endian, step = reader.number("B"), reader.number("I")
        return RawImage(stamp_ns, frame_id, height, width, encoding, big_endian, step, reader.octets())
    except struct.error:
        raise RopesError(f"an image message of {len(cdr)} bytes is cut short") from None


def parse_compressed_image(cdr: bytes | memoryview) -> RawCompressedImage:
    """Take a sensor_msgs/CompressedImage apart.

    Raises:
        RopesError: The bytes are no such message.
    """
    reader = _Reader(cdr)
    try:
        return RawCompressedImage(reader.stamp(), reader.text(), reader.text(), reader.octets())
    except struct.error:
        raise RopesError(f"a compressed image message of {len(cdr)} bytes is cut short") from None

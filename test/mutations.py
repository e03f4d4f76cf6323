"""Damaged image messages as CDR: byte flips, lengths, truncations, splices and header fields, from a seed."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from random import Random

import cv2
import numpy as np
from synthetic import header, image_cdr, message, serialize

CHANNELS = {"rgb8": 3, "bgra8": 4, "mono8": 1, "uyvy": 2, "bayer_rggb8": 1, "rgb16": 6, "32FC1": 4}
EXTREMES = (0, 1, 2, 3, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
_STAMP_NS = 1_700_000_000_000_000_000


def whole_messages() -> list[tuple[bytes, bool]]:
    """CDR of sound messages of several encodings, and whether each is a CompressedImage."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 6)).astype(np.uint8)
    raw = [
        image_cdr(_STAMP_NS, pixels[:, :, :channels], encoding, padding=padding)
        for encoding, channels in CHANNELS.items()
        for padding in (0, 4)
    ]
    packed = []
    for suffix in ("jpeg", "png"):
        data = cv2.imencode(f".{suffix}", cv2.GaussianBlur(pixels[:, :, :3].copy(), (0, 0), 3))[1].reshape(-1)
        picture = message(
            "sensor_msgs/msg/CompressedImage", header=header(_STAMP_NS, "camera"), format=suffix, data=data
        )
        packed.append(serialize(picture))
    return [*((cdr, False) for cdr in raw), *((cdr, True) for cdr in packed)]


def mutations(seed: int, count: int) -> Iterator[tuple[bytes, bool]]:
    """Damaged messages.

    Args:
        seed: Of what is done to them.
        count: How many.

    Yields:
        Bytes that began as CDR of a sensor_msgs/Image or CompressedImage, and whether the latter.
    """
    random = Random(seed)
    sound = whole_messages()
    kinds: tuple[Callable[[Random, bytearray, bytes], bytes], ...] = (_flip, _number, _cut, _splice, _head)
    for _ in range(count):
        cdr, compressed = random.choice(sound)
        damaged = bytes(cdr)
        for _ in range(random.choice((1, 1, 1, 2, 4))):
            damaged = random.choice(kinds)(random, bytearray(damaged), random.choice(sound)[0])
        yield damaged, compressed


def _position(random: Random, data: bytearray) -> int:
    """Anywhere, but half of the time where header, sizes and lengths are."""
    return random.randrange(min(len(data), 96) if random.random() < 0.5 else len(data)) if data else 0


def _flip(random: Random, data: bytearray, _: bytes) -> bytes:
    for _number_of_bytes in range(random.choice((1, 1, 2, 8, 64))):
        if data:
            data[_position(random, data)] ^= 1 << random.randrange(8)
    return bytes(data)


def _number(random: Random, data: bytearray, _: bytes) -> bytes:
    """A whole number, such as a length or a size, is another one."""
    if len(data) < 8:
        return bytes(data)
    place = min(_position(random, data) & ~3, len(data) - 4)
    (before,) = struct.unpack_from("<I", data, place)
    near = (before + random.choice((-2, -1, 1, 2, 256))) & 0xFFFFFFFF
    struct.pack_into("<I", data, place, random.choice((*EXTREMES, near, near, random.getrandbits(32))))
    return bytes(data)


def _cut(random: Random, data: bytearray, _: bytes) -> bytes:
    if random.random() < 0.3:
        return bytes(data) + random.randbytes(random.randrange(1, 64))
    return bytes(data[: _position(random, data)])


def _splice(random: Random, data: bytearray, other: bytes) -> bytes:
    return bytes(data[: _position(random, data)]) + other[_position(random, bytearray(other)) :]


def _head(random: Random, data: bytearray, _: bytes) -> bytes:
    """The encapsulation, or what lies between it and the pixels, is random."""
    end = min(len(data), random.choice((2, 4, 12, 24, 64)))
    data[:end] = random.randbytes(end)
    if random.random() < 0.5 and len(data) >= 4:
        data[:4] = bytes([0, random.randrange(2), 0, 0])
    return bytes(data)

"""Weights of 8 bits that hold their versions of 4 and 2 bits in their most significant ones, and how they are stored.

A weight is a code q in 0..255, worth (q - 128) times the scale of its output channel. Its version of r bits is

    S(q, r) = clamp(round(q / 2^(8 - r)), 0, 2^r - 1) * 2^(8 - r),

halves rounded up (Nair et al., Matryoshka Quantization, arXiv 2502.06786, sec. 3.2). With the extra value there is no
upper clamp, so that a slice has 2^r + 1 values (the same, "Extra-Precision MatQuant"). What is stored of a slice is
the digit S(q, r) / 2^(8 - r), several to a byte.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WIDTHS = (8, 4, 2)
"""Bits of a weight that models are served with."""
ZERO = 128
"""Code of a weight of 0."""


def slice_codes(codes: NDArray[np.uint8], bits: int, *, extra: bool = False) -> NDArray[np.uint8]:
    """Digits of the most significant bits.

    Args:
        codes: uint8, any shape.
        bits: 2 to 8.
        extra: Without the upper clamp.

    Returns:
        uint8 of the same shape, in 0..2^bits - 1, or 0..2^bits with the extra value; of 8 bits always the codes.
    """
    step = 1 << (8 - bits)
    digits = (codes.astype(np.uint16) + step // 2) // step
    return np.minimum(digits, values_of(bits, extra=extra) - 1).astype(np.uint8)


def slice_digits(digits: NDArray[np.uint8], bits: int, fewer: int, *, extra: bool = False) -> NDArray[np.uint8]:
    """Digits of `fewer` bits from those of `bits` bits; of 8 bits it is `slice_codes`."""
    codes = np.minimum(digits.astype(np.uint16) << (8 - bits), 255).astype(np.uint8)
    return slice_codes(codes, fewer, extra=extra)


def values_of(bits: int, *, extra: bool = False) -> int:
    """How many values a digit has."""
    return (1 << bits) + int(extra and bits < 8)


def digit_values(bits: int, *, extra: bool = False) -> NDArray[np.float32]:
    """What each digit is worth, in scales of the code of 8 bits: float32 [values_of(bits)]."""
    step = 1 << (8 - bits)
    return np.arange(values_of(bits, extra=extra), dtype=np.float32) * step - ZERO


def digits_a_byte(values: int) -> int:
    """How many digits of so many values, 2 to 256, go into a byte."""
    count = 1
    while values ** (count + 1) <= 256:
        count += 1
    return count


def pack(digits: NDArray[np.uint8], values: int) -> NDArray[np.uint8]:
    """Several digits to a byte, the first one the least significant.

    Args:
        digits: uint8, any shape, each below `values`; they are taken in C order.
        values: 2 to 256.

    Returns:
        uint8 [ceil(size / digits_a_byte(values))].
    """
    count = digits_a_byte(values)
    flat = np.zeros(-(-digits.size // count) * count, dtype=np.uint8)
    flat[: digits.size] = digits.reshape(-1)
    weights = np.array([values**place for place in range(count)], dtype=np.uint16)
    return (flat.reshape(-1, count) @ weights).astype(np.uint8)


def unpack(packed: NDArray[np.uint8], values: int, size: int) -> NDArray[np.uint8]:
    """The inverse of `pack`: the first `size` digits, uint8 [size]."""
    return byte_digits(values)[packed].reshape(-1)[:size]


def byte_digits(values: int) -> NDArray[np.uint8]:
    """The digits of each byte, uint8 [256, digits_a_byte(values)]; of bytes that `pack` never makes, any."""
    places = values ** np.arange(digits_a_byte(values))
    return (np.arange(256)[:, None] // places % values).astype(np.uint8)

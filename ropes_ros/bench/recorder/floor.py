"""The disk's floor: plain writes of as many bytes as the cameras send, handed over as often as the recorder does."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from ropes_ros.mcap_writer import CHUNK_BYTES


def write_plainly(path: Path, size: int, block: bytes) -> dict[str, Any]:
    """Write so many bytes as fast as they go, chunk by chunk, then wait for the device; the file is deleted.

    Args:
        path: File to write.
        size: Bytes.
        block: What is written again and again, of a message's size.

    Returns:
        "mb_per_s" up to the operating system, "mb_per_s_on_disk" with the wait at the end, and "longest_write_ms".
    """
    pieces = max(1, round(CHUNK_BYTES / len(block)))
    longest, written = 0.0, 0
    start = time.monotonic()
    with path.open("xb", buffering=0) as file:
        try:
            while written < size:
                before = time.monotonic()
                written += os.writev(file.fileno(), [block] * pieces)
                longest = max(longest, time.monotonic() - before)
            handed_over = time.monotonic() - start
            os.fsync(file.fileno())
            on_disk = time.monotonic() - start
        finally:
            path.unlink()
    return {
        "mb_per_s": written / handed_over / 1e6,
        "mb_per_s_on_disk": written / on_disk / 1e6,
        "longest_write_ms": 1e3 * longest,
    }

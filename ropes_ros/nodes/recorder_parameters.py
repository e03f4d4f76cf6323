"""The recorder's parameters: names, defaults, descriptions, bounds."""

from __future__ import annotations

from typing import Any

from ropes_ros.bag_queue import QUEUE_BYTES
from ropes_ros.bags import TOPICS
from ropes_ros.nodes.common import described
from ropes_ros.nodes.recorder_sources import ROLES

MIN_FREE_BYTES = 256 << 20


def parameters() -> tuple[tuple[str, Any, Any], ...]:
    """Name, default and descriptor of each."""
    return (
        ("robot", "arm6", described("Robot preset that is recorded", read_only=True)),
        ("path", "", described("Bag to create; it must not exist", read_only=True)),
        ("schedule", "", described("Schedule that the commander runs; empty for none", read_only=True)),
        *(
            (f"{role}_topic", TOPICS[role].removeprefix("/"), described(text, read_only=True))
            for role, text in ROLES.items()
        ),
        (
            "extra_cameras",
            [""],
            described(
                "More cameras, each IMAGE or IMAGE:CAMERA_INFO (by default camera_info beside the image topic)",
                read_only=True,
            ),
        ),
        (
            "extra_topics",
            [""],
            described(
                "More topics, each NAME or NAME:TYPE (/tf_static is always recorded)", read_only=True
            ),
        ),
        (
            "flush_period",
            0.5,
            described("Seconds that a crash may cost at most", bounds=(0.05, 0.5), read_only=True),
        ),
        (
            "fsync",
            False,
            described("Survive power cuts too: wait for the disk at every flush", read_only=True),
        ),
        (
            "compression",
            "auto",
            described(
                "zstd, lz4 (cheaper on noisy images), none, or auto: zstd up to 32 MB/s, none above", read_only=True
            ),
        ),
        (
            "queue_size",
            QUEUE_BYTES,
            described(
                "Bytes that may wait for the disk; what comes beyond is dropped and counted",
                integer_bounds=(1 << 20, 1 << 40),
                read_only=True,
            ),
        ),
        (
            "min_free",
            MIN_FREE_BYTES,
            described(
                "Bytes of disk to leave free: the bag is closed, and the node ends, before they are used",
                integer_bounds=(0, 1 << 50),
                read_only=True,
            ),
        ),
        (
            "max_bag_size",
            0,
            described(
                "Bytes after which the recording goes on in another bag, as by ~/split; 0 for never",
                integer_bounds=(0, 1 << 50),
                read_only=True,
            ),
        ),
        (
            "max_bag_duration",
            0.0,
            described("The same in seconds", bounds=(0.0, 1e7), read_only=True),
        ),
    )

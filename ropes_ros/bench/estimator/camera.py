"""A camera: publishes stored pictures at a rate, stamped by the clock as each goes out, and notes the stamps.

    python -m ropes_ros.standalone ropes_ros.bench.estimator.camera --ros-args -p pictures:=FILE ...
"""

from __future__ import annotations

import struct
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.qos import QoSProfile
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image

from ropes_ros.units import NANOSECONDS

TOPIC = "camera/image_raw"
MATCH_S = 30.0
"""How long it waits for its listeners."""
SETTLE_S = 1.0
"""Pause between the last listener's appearance and the first picture."""
LINGER_S = 0.5
"""How long it stays after the last picture, so that a reliable listener can ask for what it lacks."""
_STAMP = struct.Struct("<iI" if sys.byteorder == "little" else ">iI")
_STAMP_AT = 4
"""Where the stamp stands in a message: first, after the encapsulation header."""


def main() -> int:
    """Publish for so many seconds; exit status 1 where too few listeners came."""
    rclpy.init()
    node = rclpy.create_node("bench_camera")
    defaults = {"pictures": "", "log": "", "rate": 30.0, "seconds": 10.0, "listeners": 1, "depth": 10}
    given = {name: node.declare_parameter(name, default).value for name, default in defaults.items()}
    pictures = np.load(given["pictures"], mmap_mode="r")
    publisher = node.create_publisher(Image, TOPIC, QoSProfile(depth=int(given["depth"])))
    try:
        if not _wait(publisher, int(given["listeners"])):
            node.get_logger().error(f"fewer than {given['listeners']} listeners on {TOPIC} within {MATCH_S:.0f} s")
            return 1
        stamps = _publish(publisher, pictures, float(given["rate"]), float(given["seconds"]))
        time.sleep(LINGER_S)
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    temporary = Path(given["log"]).with_suffix(".partial.npy")
    np.save(temporary, np.array(stamps, dtype=np.int64))
    temporary.replace(given["log"])
    return 0


def _wait(publisher: Any, listeners: int) -> bool:
    deadline = time.monotonic() + MATCH_S
    while publisher.get_subscription_count() < listeners:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    time.sleep(SETTLE_S)
    return True


def _publish(publisher: Any, pictures: Any, rate: float, seconds: float) -> list[int]:
    """Stamps of what was published, ns. The message is serialised once; stamp and pixels are put in their places."""
    height, width = pictures.shape[1:3]
    count = height * width * 3
    image = Image(height=height, width=width, encoding="rgb8", step=3 * width, data=bytes(count))
    image.header.frame_id = "camera"
    message = bytearray(serialize_message(image))
    pixels = np.frombuffer(message, dtype=np.uint8)[len(message) - count :].reshape(height, width, 3)
    assert count % 4 == 0, "padding would follow the pixels"
    stamps = []
    start = time.monotonic()
    for number in range(round(rate * seconds)):
        pixels[:] = pictures[number % len(pictures)]
        time.sleep(max(0.0, start + number / rate - time.monotonic()))
        stamp_ns = time.time_ns()
        _STAMP.pack_into(message, _STAMP_AT, *divmod(stamp_ns, NANOSECONDS))
        publisher.publish(bytes(message))
        stamps.append(stamp_ns)
    return stamps


if __name__ == "__main__":
    raise SystemExit(main())

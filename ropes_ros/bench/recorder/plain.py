"""The peer: a recorder as one would write it first, with rosbags' writer in the callback of each subscription.

Fair means: the same transport, serialised messages as they come, the usual queue of 10, no compression. It neither
counts what is lost nor survives a kill.

    python -m ropes_ros.standalone ropes_ros.bench.recorder.plain --ros-args -p path:=BAG -p topics:="['/a', '/b']"
"""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import Image


def main() -> int:
    """Record until the process is interrupted."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the one it was started with ends the process at once
    rclpy.init()
    node = rclpy.create_node("plain_recorder")
    path = Path(node.declare_parameter("path", "").value)
    topics = node.declare_parameter("topics", [""]).value
    try:
        with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
            store = get_typestore(Stores.LATEST)

            def write(connection: Any, data: bytes) -> None:
                writer.write(connection, time.time_ns(), data)

            for topic in topics:
                connection = writer.add_connection(topic, "sensor_msgs/msg/Image", typestore=store)
                node.create_subscription(Image, topic, partial(write, connection), 10, raw=True)
            with suppress(KeyboardInterrupt, ExternalShutdownException):
                rclpy.spin(node)
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

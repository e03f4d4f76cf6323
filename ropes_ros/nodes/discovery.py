"""Two of these processes on one domain should hear each other: the self test that `ropes doctor` runs."""

from __future__ import annotations

import os
import sys
import time

import rclpy
from std_msgs.msg import String

DEADLINE = 10.0
"""Seconds after which nobody is there."""
LINGER = 1.0
"""Seconds to go on speaking after the other one was heard, so that it hears this one too."""


def main(args: list[str] | None = None) -> int:
    """Speak and listen until another process was heard; 0 when it was, 1 at the deadline."""
    rclpy.init(args=args)
    own = f"discovery_{os.getpid()}"
    node = rclpy.create_node(own)
    heard: list[float] = []

    def listen(message: String) -> None:
        if message.data != own:
            heard.append(time.monotonic())

    try:
        node.create_subscription(String, "ropes/discovery", listen, 10)
        publisher = node.create_publisher(String, "ropes/discovery", 10)
        node.create_timer(0.1, lambda: publisher.publish(String(data=own)))
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < (heard[0] + LINGER if heard else deadline):
            rclpy.spin_once(node, timeout_sec=0.1)
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0 if heard else 1


if __name__ == "__main__":
    sys.exit(main())

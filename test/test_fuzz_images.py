"""Damaged image messages: refused or read, and never more than that."""

from __future__ import annotations

import resource
import sys
import time
import tracemalloc
from collections import Counter
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from mutations import mutations, whole_messages
from staging import DEADLINE_S
from staging import rclpy as rclpy  # fixture

from ropes_ros.bag_images import decode_image
from ropes_ros.errors import RopesError
from ropes_ros.images import compressed_to_rgb, message_to_rgb
from ropes_ros.processes import has_ros
from ropes_ros.standalone.errors import MessageError
from ropes_ros.standalone.messages import deserialize_message, message_class

MESSAGES = 10_000
IMAGES = {False: message_class("sensor_msgs/msg/Image"), True: message_class("sensor_msgs/msg/CompressedImage")}


def read(cdr: bytes, compressed: bool) -> str:
    """What becomes of a message that arrives: refused by the middleware, by the conversion, or seen."""
    try:
        message: Any = deserialize_message(cdr, IMAGES[compressed])
    except MessageError:
        return "undecodable"
    try:
        image = compressed_to_rgb(message.data, "/c") if compressed else message_to_rgb(message, "/c")
    except RopesError as error:
        assert len(str(error)) < 2000
        return "refused"
    assert image.dtype == np.uint8
    assert image.shape[2:] == (3,) and image.size > 0
    return "seen"


def test_sound_messages_are_seen() -> None:
    """All but the one whose encoding needs cv_bridge."""
    outcomes = Counter(read(cdr, compressed) for cdr, compressed in whole_messages())
    assert outcomes["seen"] >= len(whole_messages()) - 2
    assert not outcomes["undecodable"]


def test_damaged_messages_are_refused_or_seen_and_take_no_memory() -> None:
    outcomes: Counter[str] = Counter()
    for cdr, compressed in mutations(1, 200):  # what OpenCV and Python load once
        read(cdr, compressed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    for cdr, compressed in mutations(11, MESSAGES):
        outcomes[read(cdr, compressed)] += 1
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert min(outcomes[kind] for kind in ("undecodable", "refused", "seen")) > MESSAGES // 20, "all paths are tried"
    assert held < 2_000_000
    assert peak < 250_000_000, "at most what a compressed image of the largest size takes"
    if sys.platform == "linux":
        assert grown < 600_000, "kB: two of the largest compressed images"


def test_damaged_recorded_images_are_refused_or_seen() -> None:
    for cdr, compressed in mutations(3, MESSAGES // 4):
        with suppress(RopesError):
            decode_image(cdr, compressed, "/camera")


def test_a_subscription_outlives_damaged_bytes(rclpy: Any) -> None:
    """Bytes that are no message are logged or passed over; the executor and later messages do not notice."""
    if has_ros():
        pytest.skip("under ROS 2 the middleware deals with such bytes")
    from cyclonedds.core import DDSException
    from rclpy.executors import SingleThreadedExecutor
    from sensor_msgs.msg import Image

    rclpy.init()
    node = rclpy.create_node("fuzzed")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    outcomes: Counter[str] = Counter()
    farewell = "the last one"

    def on_image(message: Any) -> None:
        outcomes["last" if message.header.frame_id == farewell else "heard"] += 1
        try:
            message_to_rgb(message, "/camera")
        except RopesError:
            outcomes["refused"] += 1

    node.create_subscription(Image, "/camera", on_image, 10)
    publisher = node.create_publisher(Image, "/camera", 10)
    deadline = time.monotonic() + DEADLINE_S
    while publisher.get_subscription_count() == 0 and time.monotonic() < deadline:
        executor.spin_once(timeout_sec=0.05)
    for cdr, _ in mutations(4, 300):
        try:
            publisher.publish(cdr)
        except DDSException:  # Cyclone DDS itself holds bytes against the type, and sends nothing that cannot be of it
            outcomes["unsent"] += 1
            continue
        executor.spin_once(timeout_sec=0.01)
    sound = deserialize_message(whole_messages()[0][0], Image)
    sound.header.frame_id = farewell
    publisher.publish(sound)
    while not outcomes["last"] and time.monotonic() < deadline:
        executor.spin_once(timeout_sec=0.05)
    node.destroy_node()
    assert outcomes["last"] == 1
    assert outcomes["heard"] > 50
    assert outcomes["refused"] > 10

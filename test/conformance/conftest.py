"""The conformance suite runs against the rclpy that is there: ROS 2's own, else the standalone runtime's."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]

from ropes_ros import standalone
from ropes_ros.processes import free_domain

# One domain for all tests, on this machine alone; both runtimes read it when they are initialised.
os.environ["ROS_DOMAIN_ID"] = str(free_domain())
os.environ["RCUTILS_COLORIZED_OUTPUT"] = "0"

if not standalone.real_rclpy():
    pytest.importorskip("cyclonedds")
    for name in ("CYCLONEDDS_URI", "ROS_LOCALHOST_ONLY", "ROS_STATIC_PEERS"):
        os.environ.pop(name, None)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    standalone.install()

from conformance_support import Child, Ros


@pytest.fixture
def ros() -> Iterator[Ros]:
    """An initialised rclpy, and nodes that end with the test."""
    made = Ros()
    yield made
    made.close()


@pytest.fixture
def children() -> Iterator[list[Child]]:
    """Processes that end with the test."""
    started: list[Child] = []
    yield started
    for child in started:
        child.close()

"""A node under test and a node beside it in one process, under real rclpy or the standalone runtime."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ropes_ros.processes import free_domain

DEADLINE_S = 20.0


def isolate(monkeypatch: pytest.MonkeyPatch) -> None:
    """A domain of its own, on this machine alone, for this process and those that it starts."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(free_domain()))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    for name in ("CYCLONEDDS_URI", "ROS_LOCALHOST_ONLY", "ROS_STATIC_PEERS"):
        monkeypatch.delenv(name, raising=False)


def has_rclpy() -> bool:
    """Whether rclpy can be imported here, real or standalone; puts the standalone one in place."""
    if "rclpy" not in sys.modules and importlib.util.find_spec("rclpy") is None:
        if importlib.util.find_spec("cyclonedds") is None:
            return False
        from ropes_ros import standalone

        standalone.install()
    return True


@pytest.fixture
def rclpy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """rclpy, real or standalone, on a domain of its own."""
    if not has_rclpy():
        pytest.skip("neither rclpy nor cyclonedds is installed")
    import rclpy

    isolate(monkeypatch)
    yield rclpy
    rclpy.try_shutdown()


class Stage:
    """A lifecycle node and a node beside it, spun together; initialises rclpy.

    Args:
        make_node: Called without arguments once rclpy is initialised.
        parameters: Each NAME:=VALUE.
        name: Name of the node beside it.
    """

    def __init__(self, make_node: Callable[[], Any], *parameters: str, name: str = "camera") -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        # autostart: the standalone runtime else starts a node by itself; rclpy knows no such parameter
        arguments = [part for parameter in ("autostart:=false", *parameters) for part in ("-p", parameter)]
        rclpy.init(args=["--ros-args", *arguments])
        self.node = make_node()
        self.other = rclpy.create_node(name)
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.other)

    def start(self) -> bool:
        """Configure, activate and spin the node; False when it refuses."""
        from rclpy.lifecycle import TransitionCallbackReturn

        if any(
            trigger() != TransitionCallbackReturn.SUCCESS
            for trigger in (self.node.trigger_configure, self.node.trigger_activate)
        ):
            return False
        self.executor.add_node(self.node)
        return True

    def spin_until(self, condition: Callable[[], object], what: str) -> None:
        """Spin until a condition holds."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, what
            self.executor.spin_once(timeout_sec=0.05)

    def spin_for(self, seconds: float) -> None:
        """Spin for a while, for what must not happen."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.02)

    def trigger(self, service: str) -> Any:
        """The answer of a std_srvs/Trigger service."""
        from std_srvs.srv import Trigger

        client = self.other.create_client(Trigger, service)
        self.spin_until(client.service_is_ready, f"{service} is offered")
        future = client.call_async(Trigger.Request())
        self.spin_until(future.done, f"{service} answers")
        self.other.destroy_client(client)
        return future.result()

    def close(self) -> None:
        """As after Ctrl-C: without a lifecycle transition."""
        self.executor.remove_node(self.node)
        self.node.destroy_node()
        self.other.destroy_node()

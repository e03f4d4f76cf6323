"""What the conformance tests share: nodes that spin until something holds, processes, and the known differences."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import rclpy
from differences import DIFFERENCES
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter
from rclpy.qos import InvalidQoSProfileException
from rclpy.signals import SignalHandlerOptions

HERE = Path(__file__).parent
STANDALONE = bool(getattr(rclpy, "ROPES_STANDALONE", False))
DEADLINE = 20.0
# What the two runtimes raise where a program errs differs in kind, and is not part of rclpy's interface.
REFUSALS = (AssertionError, AttributeError, InvalidQoSProfileException, RuntimeError, TypeError, ValueError)
T = TypeVar("T")


def either(difference: str, *, standalone: T, ros: T) -> T:
    """What this runtime does where the two differ; the table of differences must have it."""
    assert difference in DIFFERENCES
    return standalone if STANDALONE else ros


def until(condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
    """Poll until a condition holds; its value."""
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.005)
    raise AssertionError(f"not within {deadline} s: {what}")


class Ros:
    """rclpy and the nodes of one test, which one executor spins."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self._executor: Any = None

    def init(self, *arguments: str) -> None:
        """Initialise with what follows --ros-args."""
        rclpy.init(args=["test", "--ros-args", *arguments], signal_handler_options=SignalHandlerOptions.NO)
        self._executor = SingleThreadedExecutor()

    def node(self, name: str = "me", kind: Any = None, **options: Any) -> Any:
        """A node, which spins with the others."""
        if not rclpy.ok():
            self.init()
        return self.add((kind or rclpy.create_node)(name, **options))

    def lifecycle(self, name: str = "me", kind: Any = LifecycleNode, **options: Any) -> Any:
        """A lifecycle node that stays unconfigured under either runtime."""
        overrides = [Parameter("autostart", value=False), *options.pop("parameter_overrides", ())]
        return self.node(name, kind, parameter_overrides=overrides, **options)

    def add(self, node: Any) -> Any:
        """Let a node spin with the others."""
        self.nodes.append(node)
        self._executor.add_node(node)
        return node

    def destroy(self, node: Any) -> None:
        """End a node."""
        self.nodes.remove(node)
        self._executor.remove_node(node)
        node.destroy_node()

    def spin(self, condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
        """Spin all nodes until a condition holds; its value."""

        def step() -> Any:
            self._executor.spin_once(timeout_sec=0.02)
            return condition()

        return until(step, what, deadline)

    def spin_for(self, seconds: float) -> None:
        """Spin all nodes for a while, to see that something does not happen."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._executor.spin_once(timeout_sec=0.01)

    def call(self, node: Any, kind: Any, name: str, request: Any) -> Any:
        """Call a service; its response."""
        client = node.create_client(kind, name)
        self.spin(client.service_is_ready, f"service {name}")
        future = client.call_async(request)
        self.spin(future.done, f"the response of {name}")
        node.destroy_client(client)
        return future.result()

    def close(self) -> None:
        """End the nodes and rclpy."""
        for node in reversed(self.nodes):
            node.destroy_node()
        if self._executor is not None:
            self._executor.shutdown()
        rclpy.try_shutdown()


class Child:
    """A process that runs a function of conformance_child.py; its output is read in the background."""

    def __init__(self, function: str, *arguments: str, **environment: str) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "conformance_child.py"), function, *arguments],
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def wait_for(self, text: str) -> str:
        """Wait for a line that holds a text; the line."""
        try:
            return str(until(lambda: next((line for line in list(self.lines) if text in line), ""), text))
        except AssertionError as error:
            raise AssertionError(f"{error}; its output: {self.lines[-20:]}") from None

    def end(self) -> int:
        """Wait for the end; the exit status."""
        status = self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        return status

    def close(self) -> None:
        """End the process, however it is."""
        self.process.terminate()
        try:
            self.process.wait(5.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(DEADLINE)
        if self.process.stdout is not None:
            self.process.stdout.close()

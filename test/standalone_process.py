"""Starts the processes of test_standalone_*: each test on a domain of its own, each process ended with its test."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from staging import isolate

from ropes_ros import standalone

HERE = Path(__file__).parent
DEADLINE = 20.0

# Where the real rclpy is installed these modules stay away and so must their tests.
HAS_ROS = not standalone.install()
without_ros = pytest.mark.skipif(HAS_ROS, reason="the real rclpy is installed")


def until(condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
    """Poll until a condition holds; its value."""
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"not within {deadline} s: {what}")


class Child:
    """A running child; its output is read in the background."""

    def __init__(self, name: str, *arguments: str, **environment: str) -> None:
        path = os.pathsep.join(filter(None, (str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH"))))
        self.lines: list[str] = []
        self.errors: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ropes_ros.standalone", "standalone_child", *arguments],
            env={**os.environ, "PYTHONPATH": path, "CHILD": name, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._threads = [
            threading.Thread(target=self._read, args=(pipe, lines), daemon=True)
            for pipe, lines in ((self.process.stdout, self.lines), (self.process.stderr, self.errors))
        ]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _read(pipe: Any, lines: list[str]) -> None:
        for line in pipe:
            lines.append(line.rstrip("\n"))

    def said(self, name: str) -> list[Any]:
        """The values that the child has reported under a name."""
        return [json.loads(line.partition(": ")[2]) for line in list(self.lines) if line.startswith(f"{name}: ")]

    def wait_for(self, name: str, count: int = 1) -> list[Any]:
        """Wait until the child has reported something."""
        try:
            return until(lambda: len(self.said(name)) >= count and self.said(name), f"{count} x {name}")
        except AssertionError as error:
            raise AssertionError(f"{error}; its output: {self.lines[-20:]} {self.errors[-20:]}") from None

    def wait_for_error(self, text: str) -> str:
        """Wait until a line of stderr holds a text; the line."""
        return until(lambda: next((line for line in list(self.errors) if text in line), ""), f"{text!r} on stderr")

    def end(self) -> int:
        """Wait for the process; its exit status."""
        status = self.process.wait(DEADLINE)
        for thread in self._threads:
            thread.join(DEADLINE)
        return status

    def stop(self, number: int = signal.SIGINT) -> int:
        """Send a signal and wait; the exit status."""
        self.process.send_signal(number)
        return self.end()


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch) -> int:
    """A domain of its own, on this machine alone."""
    isolate(monkeypatch)
    return int(os.environ["ROS_DOMAIN_ID"])


@pytest.fixture
def start(domain: int) -> Iterator[Callable[..., Child]]:
    """Start children; they end with the test."""
    children: list[Child] = []

    def begin(name: str, *arguments: str, **environment: str) -> Child:
        children.append(Child(name, *arguments, **environment))
        return children[-1]

    yield begin
    for child in children:
        if child.process.poll() is None:
            child.process.kill()
        child.process.wait()


@contextmanager
def node(name: str = "tester", *arguments: str) -> Iterator[Any]:
    """A node in this process."""
    import rclpy

    rclpy.init(args=list(arguments))
    made = rclpy.create_node(name)
    try:
        yield made
    finally:
        made.destroy_node()
        rclpy.try_shutdown()


def spin_until(made: Any, condition: Callable[[], Any], what: str) -> Any:
    """Spin a node until a condition holds; its value."""
    import rclpy

    def step() -> Any:
        rclpy.spin_once(made, timeout_sec=0.05)
        return condition()

    return until(step, what)

"""Starting the nodes as processes from plain Python: under ROS 2 where it is sourced, standalone where it is not."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from ropes_ros.standalone import real_rclpy

TETHER = str(Path(__file__).with_name("tether.py"))
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FIRST_PORT, PORTS_EACH = 7400, 250
"""RTPS's UDP ports: where those of domain 0 begin, and how many a domain has."""
STOP_SECONDS = 15.0
"""How long a process may take to end after an interrupt, before it is killed."""


def has_ros() -> bool:
    """Whether this interpreter can import the real rclpy, that is, whether a ROS 2 installation is sourced."""
    return real_rclpy()


def free_domain() -> int:
    """A random ROS domain that nobody on this machine is on, as far as its UDP ports tell (on Linux; else any)."""
    table = Path("/proc/net/udp")
    rows = table.read_text(encoding="utf-8").splitlines()[1:] if table.exists() else []
    ports = [int(row.split()[1].rpartition(":")[2], 16) for row in rows]
    taken = {(port - FIRST_PORT) // PORTS_EACH for port in ports}
    return random.SystemRandom().choice([domain for domain in range(1, 102) if domain not in taken])


def node_command(
    node: str,
    parameters: Mapping[str, object] | None = None,
    remappings: Mapping[str, str] | None = None,
) -> list[str]:
    """The command line that runs a lifecycle node of this package until it is active and on, under either runtime.

    Args:
        node: Module below `ropes_ros.nodes`, for example `estimator`, or the whole dotted name of another one.
        parameters: ROS parameters by name; numbers, strings, booleans or lists of them.
        remappings: Topic names by the names that the node uses.
    """
    runner = "ropes_ros.nodes.autostart" if has_ros() else "ropes_ros.standalone"
    module = node if "." in node else f"ropes_ros.nodes.{node}"
    return [sys.executable, "-m", runner, module, *_ros_arguments(parameters or {}, remappings or {})]


def program_command(
    module: str, parameters: Mapping[str, object], remappings: Mapping[str, str] | None = None
) -> list[str]:
    """The command line that runs a module's main(), which uses rclpy, under either runtime."""
    return [sys.executable, "-m", "ropes_ros.standalone", module, *_ros_arguments(parameters, remappings or {})]


def _ros_arguments(parameters: Mapping[str, object], remappings: Mapping[str, str]) -> list[str]:
    arguments: list[str] = []
    for name, value in parameters.items():
        arguments += ["-p", f"{name}:={json.dumps(value)}"]
    for name, target in remappings.items():
        arguments += ["-r", f"{name}:={target}"]
    return ["--ros-args", *arguments] if arguments else []


def end_on_signals() -> None:
    """Let SIGINT and SIGTERM end this process at once with status 0, until something else takes them over.

    For a node's process up to rclpy.init: there is nothing to take down yet, and an exception raised within an import
    can get lost. Call it from the main thread.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))


class Processes:
    """A group of processes that ends together: leaving the context interrupts those still running.

    Started processes are in sessions of their own, so that an interrupt from the keyboard reaches this process first
    and the group is taken down in order, last started first stopped; nothing interrupts that. Within the context
    termination and a closed terminal act as an interrupt. Should this process be killed, they are told to end (SIGTERM;
    on Linux). Use it from the main thread.

    Args:
        environment: Variables to set on top of this process's own.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = {**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})}
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, command: list[str], *, output: int | None = None) -> subprocess.Popen[bytes]:
        """Start a process.

        Args:
            command: Program and arguments.
            output: Where stdout and stderr go, as for subprocess.Popen; this process's own when None.
        """
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", TETHER, str(os.getpid()), *command],
            env=self._environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        self._running.append(process)
        return process

    def wait(self, process: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        """Wait until one process has ended or another one has failed.

        Args:
            process: The one whose end is awaited.
            timeout: Seconds to wait at most, None for ever.

        Returns:
            Exit status of that process, or of the first other one that failed.

        Raises:
            TimeoutError: Neither happened in time.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            for candidate in [process, *self._running]:
                status = candidate.poll()
                if status is not None and (candidate is process or status != 0):
                    return status
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError
            time.sleep(0.05)

    def stop(self, process: subprocess.Popen[bytes]) -> int:
        """Interrupt one process, wait for its end, kill it after `STOP_SECONDS`; its exit status."""
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
        return process.wait()

    def __enter__(self) -> Processes:
        self._before = {number: signal.getsignal(number) for number in SIGNALS}
        for number in SIGNALS:
            signal.signal(number, signal.default_int_handler)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        try:
            for process in reversed(self._running):
                self.stop(process)
        finally:
            for number, handler in self._before.items():
                signal.signal(number, handler)

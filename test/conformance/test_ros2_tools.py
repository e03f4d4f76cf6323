"""ROS 2's own command line tools and rclpy against a node of the standalone runtime, in a process of its own.

They need a ROS 2 installation with rmw_cyclonedds_cpp, and beside it a Python that has the standalone runtime's
packages: the environment variable ROPES_STANDALONE_PYTHON, or this one where it has them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conformance_support import DEADLINE, HERE, STANDALONE, until

PYTHON = os.environ.get("ROPES_STANDALONE_PYTHON", sys.executable)


def _has_standalone() -> bool:
    command = [PYTHON, "-c", "import cyclonedds, rosbags"]
    return shutil.which(PYTHON) is not None and not subprocess.run(command, env=_bare(), capture_output=True).returncode


def _bare() -> dict[str, str]:
    """The environment without ROS's Python packages."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "AMENT_PREFIX_PATH")}


pytestmark = pytest.mark.skipif(
    STANDALONE or shutil.which("ros2") is None or not _has_standalone(),
    reason="needs the `ros2` command and, beside it, a Python with the standalone runtime",
)
Tool = Callable[..., str]


@pytest.fixture(scope="module", autouse=True)
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A plain node and a lifecycle node of the standalone runtime."""
    folder = tmp_path_factory.mktemp("nodes")
    started = []
    for name in ("settings", "life"):
        log = (folder / name).open("w+")
        command = [PYTHON, str(HERE / "conformance_child.py"), name]
        started.append((subprocess.Popen(command, env=_bare(), stdout=log, stderr=subprocess.STDOUT), log))
    for process, log in started:
        until(lambda log=log: "ready" in Path(log.name).read_text(), "a standalone node")
        assert process.poll() is None
    yield
    for process, log in started:
        process.terminate()
        process.wait(DEADLINE)
        log.close()


def ros2(*words: str, timeout: float = 60.0, check: bool = True) -> str:
    """Run a ros2 command without its daemon; what it writes, in which no warning may be."""
    done = subprocess.run(["ros2", *words], capture_output=True, text=True, timeout=timeout)
    written = done.stdout + done.stderr
    assert "type hash" not in written and "[WARN]" not in written, written
    if check:
        assert done.returncode == 0, written
    return written


def eventually(text: str, *words: str) -> str:
    """Run a command until a text is in what it writes."""
    return str(until(lambda: (lambda out: out if text in out else "")(ros2(*words, check=False)), f"{text!r}", 60.0))


DIRECT = ("--no-daemon", "--spin-time", "2")


def test_node_list_and_info() -> None:
    assert {"/settings", "/life"} <= set(eventually("/settings", "node", "list", *DIRECT).split())
    told = eventually("/chatter", "node", "info", *DIRECT, "/settings")
    for line in (
        "/chatter: std_msgs/msg/String",
        "/parameter_events: rcl_interfaces/msg/ParameterEvent",
        "/rosout: rcl_interfaces/msg/Log",
        "/settings/switch: std_srvs/srv/SetBool",
        "/settings/set_parameters: rcl_interfaces/srv/SetParameters",
    ):
        assert line in told


def test_topic_list_and_info() -> None:
    assert "/chatter [std_msgs/msg/String]" in eventually("/chatter", "topic", "list", "-t", *DIRECT)
    told = eventually("Node name: settings", "topic", "info", "-v", *DIRECT, "/chatter")
    assert "Topic type hash: RIHS01_df668c740482bbd48fb39d76a70dfd4bd59db1288021743503259e948f6b1a18" in told
    assert "Reliability: RELIABLE" in told and "Durability: VOLATILE" in told


def test_topic_echo_and_hz() -> None:
    assert "data: hello" in ros2("topic", "echo", "--once", "--no-daemon", "/chatter", "std_msgs/msg/String")
    with subprocess.Popen(
        ["ros2", "topic", "hz", "/chatter"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        end, line = time.monotonic() + 60.0, ""
        while "average rate" not in line and time.monotonic() < end:
            line = process.stdout.readline()
        process.terminate()
    assert 15.0 < float(line.partition("average rate: ")[2]) < 25.0


def test_parameters() -> None:
    names = eventually("count", "param", "list", *DIRECT, "/settings").split()
    assert {"count", "fixed", "flags", "group.gain", "group.names", "later", "use_sim_time"} <= set(names)
    get = ("param", "get", *DIRECT, "/settings")
    assert "Integer value is: 4" in ros2(*get, "count")
    assert "Double value is: 0.5" in ros2(*get, "group.gain")
    assert "Boolean values are: [True, False]" in ros2(*get, "flags")
    told = ros2("param", "describe", *DIRECT, "/settings", "count")
    assert all(text in told for text in ("Type: integer", "how many", "Min value: 0", "Max value: 10", "Step: 2"))
    change = ("param", "set", *DIRECT, "/settings")
    assert "successful" in ros2(*change, "count", "6") and "Integer value is: 6" in ros2(*get, "count")
    assert "in steps of 2" in ros2(*change, "count", "7", check=False)
    assert "read only" in ros2(*change, "fixed", "clay", check=False)
    ros2(*change, "count", "4")
    dumped = ros2("param", "dump", *DIRECT, "/settings")
    assert dumped.startswith("/settings:\n  ros__parameters:\n") and "    count: 4\n" in dumped


def test_lifecycle() -> None:
    assert "/life" in eventually("/life", "lifecycle", "nodes", *DIRECT).split()
    get = ("lifecycle", "get", *DIRECT, "/life")
    assert "unconfigured [1]" in ros2(*get)
    listed = ros2("lifecycle", "list", *DIRECT, "/life")
    assert "configure [1]" in listed and "shutdown [5]" in listed
    for step, state in (("configure", "inactive [2]"), ("activate", "active [3]"), ("deactivate", "inactive [2]")):
        assert "Transitioning successful" in ros2("lifecycle", "set", *DIRECT, "/life", step)
        assert state in ros2(*get)
    assert "Transitioning successful" in ros2("lifecycle", "set", *DIRECT, "/life", "cleanup")


def test_services() -> None:
    assert "/settings/switch [std_srvs/srv/SetBool]" in eventually("switch", "service", "list", "-t", *DIRECT)
    assert ros2("service", "type", "/settings/switch").strip().endswith("std_srvs/srv/SetBool")
    told = ros2("service", "call", "/settings/switch", "std_srvs/srv/SetBool", "{data: true}")
    assert "success=True" in told and "message='on'" in told


def test_bag_record(tmp_path: Path) -> None:
    folder = tmp_path / "bag"
    command = ["ros2", "bag", "record", "-o", str(folder), "/chatter"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    until(lambda: list(folder.glob("*.mcap")) + list(folder.glob("*.db3")), "the bag", 60.0)
    time.sleep(1.0)
    process.send_signal(2)
    written = process.communicate(timeout=60.0)[0]
    assert "Subscribed to topic '/chatter'" in written and "type hash" not in written
    told = ros2("bag", "info", str(folder))
    count = next(int(word) for word in told.partition("Count: ")[2].split("|")[:1] if word.strip().isdigit())
    assert "std_msgs/msg/String" in told and count > 5


def test_standalone_nodes_meet_rclpy(tmp_path: Path) -> None:
    """Images and parameters through rclpy in this process."""
    import rclpy
    from conformance_support import Ros
    from std_msgs.msg import String
    from std_srvs.srv import SetBool
    from test_parameter_services import Remote

    ros = Ros()
    try:
        node = ros.node("tester")
        got: list[str] = []
        node.create_subscription(String, "/chatter", lambda message: got.append(message.data), 10)
        ros.spin(lambda: len(got) >= 5, "messages")
        assert set(got) == {"hello"}
        assert ros.call(node, SetBool, "/settings/switch", SetBool.Request(data=True)).message == "on"
        remote = Remote(ros, node, "/settings")
        assert remote.get("count") == [4] and remote.set(count=7) == [(False, True)]
        assert rclpy.ok()
    finally:
        ros.close()

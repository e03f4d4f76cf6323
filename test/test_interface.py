"""docs/interface.md, the parameter files and the launch files say what the code says."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from staging import Stage
from staging import rclpy as rclpy  # fixture

ROOT = Path(__file__).resolve().parents[1]
INTERFACE = ROOT / "docs" / "interface.md"
NODES = ("sim_arm", "commander", "recorder", "estimator")


@pytest.fixture(scope="module")
def document() -> str:
    return INTERFACE.read_text(encoding="utf-8")


def missing(record_property: Any, table: str, document: str) -> None:
    """Note, for verify_ros.py, the rows of a table that the document lacks."""
    lines = set(document.splitlines())
    record_property("undocumented", [row.split("`")[1] for row in table.splitlines()[2:] if row not in lines])


def make(node: str) -> Any:
    """A node's class; skips where it cannot be made."""
    if node == "sim_arm" and find_spec("mujoco") is None:
        pytest.skip("mujoco is not installed")
    from ropes_ros.nodes.autostart import node_class

    return node_class(importlib.import_module(f"ropes_ros.nodes.{node}"))


@pytest.mark.parametrize("node", NODES)
def test_every_parameter_is_documented_as_it_is(
    rclpy: Any, tables: Any, document: str, node: str, record_property: Any
) -> None:
    stage = Stage(make(node))
    try:
        declared = tables.parameters(stage.node)
        assert len(declared) > 8
        table = tables.parameter_table(declared)
        missing(record_property, table, document)
        assert tables.replaced(document, "Parameters", node, table) == document, "run `python docs/tables.py`"
        path = ROOT / "config" / f"{node}.yaml"
        values = tables.read_values(path)
        assert set(values) == {parameter.name for parameter in declared}
        content = tables.parameter_file(node, declared, values)
        assert path.read_text(encoding="utf-8") == content, "run `python docs/tables.py`"
    finally:
        stage.close()


@pytest.mark.parametrize("node", NODES)
def test_a_node_starts_with_its_parameter_file(rclpy: Any, tables: Any, node: str) -> None:
    """Names, types and ranges of the file fit the node's declarations, and it has the file's values."""
    import rclpy as runtime

    path = ROOT / "config" / f"{node}.yaml"
    kind = make(node)
    runtime.init(args=["--ros-args", "-p", "autostart:=false", "--params-file", str(path)])
    instance = kind()
    try:
        for name, value in tables.read_values(path).items():
            assert instance.get_parameter(name).value == value, name
    finally:
        instance.destroy_node()


def launch_names() -> list[str]:
    return [path.name for path in sorted((ROOT / "launch").glob("*.launch.py"))]


@pytest.mark.parametrize("name", launch_names())
def test_every_launch_argument_is_documented_as_it_is(
    tables: Any, document: str, name: str, record_property: Any
) -> None:
    arguments = tables.launch_arguments(ROOT / "launch" / name)
    assert len(arguments) > 4
    table = tables.launch_table(arguments)
    missing(record_property, table, document)
    assert tables.replaced(document, "Launch files", name, table) == document, "run `python docs/tables.py`"


def topics_of(document: str, node: str) -> set[str]:
    """Names in the table of a node's topics."""
    part = document.partition("## Topics")[2].partition(f"\n### {node}\n")[2]
    table = re.split(r"^##", part, maxsplit=1, flags=re.MULTILINE)[0]
    return set(re.findall(r"^\| `([^`]+)`", table, flags=re.MULTILINE))


def services_of(document: str, node: str) -> set[str]:
    part = document.partition("## Services")[2].partition("\n## ")[0]
    return set(re.findall(rf"^\| `/{node}/(\w+)`", part, flags=re.MULTILINE))


BASIC_TOPICS = {"/rosout", "/parameter_events"}


def endpoints(stage: Stage, node: str) -> tuple[set[str], set[str]]:
    """Topics that a node publishes or subscribes to, and its services of type Trigger."""
    graph = stage.other
    topics = {
        name
        for name, _ in graph.get_topic_names_and_types()
        for info in (*graph.get_publishers_info_by_topic(name), *graph.get_subscriptions_info_by_topic(name))
        if info.node_name == node
    }
    services = {
        name.rpartition("/")[2]
        for name, types in graph.get_service_names_and_types()
        if name.startswith(f"/{node}/") and "std_srvs/srv/Trigger" in types
    }
    private = {f"~{topic.removeprefix(f'/{node}')}" if topic.startswith(f"/{node}/") else topic for topic in topics}
    return private - BASIC_TOPICS - {"~/transition_event"}, services


def prepared(node: str, tmp_path: Path, tiny_model: Path) -> list[str]:
    """Parameters with which a node becomes active."""
    from ropes_ros.regimes import make_schedule
    from ropes_ros.robot import load_robot

    if node == "estimator":
        return [f"model:={tiny_model}", "publish_tf:=true", "command_topic:=joint_command"]
    if node == "sim_arm":
        return ["publish_clock:=true", "camera_width:=32", "camera_height:=32"]
    schedule = tmp_path / "schedule.yaml"
    make_schedule(load_robot("arm6"), duration_s=12.0, seed=0).save(schedule)
    return [f"schedule:={schedule}", *([f"path:={tmp_path / 'bag'}"] if node == "recorder" else [])]


@pytest.mark.parametrize("node", ("sim_arm", "commander", "estimator"))
def test_every_topic_and_service_is_documented(
    rclpy: Any, document: str, node: str, tmp_path: Path, tiny_model: Path, record_property: Any
) -> None:
    """Both ways: what the document names is there, and what is there the document names."""
    stage = Stage(make(node), *prepared(node, tmp_path, tiny_model))
    try:
        if not stage.start():
            assert node == "sim_arm"
            pytest.skip("nothing can be drawn here")
        wanted = {topic if topic[0] in "/~" else f"/{topic}" for topic in topics_of(document, node)}
        stage.spin_until(lambda: endpoints(stage, node)[0] >= wanted, f"{wanted} are there")
        topics, services = endpoints(stage, node)
        record_property("undocumented", [*(topics - wanted), *(services - services_of(document, node))])
        assert topics == wanted
        assert services == services_of(document, node)
    finally:
        stage.close()


def test_the_recorders_services_are_documented(rclpy: Any, document: str) -> None:
    """What it subscribes to follows the publishers, and its parameters name it."""
    stage = Stage(make("recorder"))
    try:
        wanted = services_of(document, "recorder")
        stage.spin_until(lambda: endpoints(stage, "recorder")[1] >= wanted, f"{wanted} are there")
        assert endpoints(stage, "recorder")[1] == wanted
        assert endpoints(stage, "recorder")[0] == {"/diagnostics", "~/status"} <= topics_of(document, "recorder")
    finally:
        stage.close()


def test_the_aggregator_sorts_every_status_that_nodes_publish(rclpy: Any) -> None:
    content = yaml.safe_load((ROOT / "config" / "diagnostics.yaml").read_text(encoding="utf-8"))
    analyzers = content["/**"]["ros__parameters"]
    known = {text for entry in analyzers.values() if isinstance(entry, dict) for text in entry["contains"]}
    from diagnostic_msgs.msg import DiagnosticArray

    found = set()
    for node in ("commander", "recorder", "estimator"):
        stage = Stage(make(node))
        heard: list[Any] = []
        stage.other.create_subscription(DiagnosticArray, "/diagnostics", heard.append, 10)
        try:
            stage.executor.add_node(stage.node)
            stage.spin_until(lambda heard=heard: heard, "diagnostics come")
            found |= {status.name for message in heard for status in message.status}
        finally:
            stage.close()
            rclpy.try_shutdown()
    assert found == known


def test_exit_statuses_are_documented_and_kept(document: str, tmp_path: Path) -> None:
    part = document.partition("## Exit status")[2].partition("\n## ")[0]
    assert {"0", "1", "2", "130"} <= set(re.findall(r"\| (\d+) \|", part))
    environment = {**os.environ, "ROS_DOMAIN_ID": "77"}

    def status(*arguments: str) -> int:
        command = [sys.executable, "-c", "from ropes_ros.cli import main; raise SystemExit(main())", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, env=environment, timeout=120).returncode

    assert status("--version") == 0
    assert status("info", "nowhere") == 1
    assert status("info", "--no-such-option") == 2


def test_a_clock_is_announced_only_where_it_is_published(rclpy: Any) -> None:
    if find_spec("mujoco") is None:
        pytest.skip("mujoco is not installed")
    from rclpy.lifecycle import TransitionCallbackReturn

    from ropes_ros.nodes.sim_arm import SimArmNode

    for publish in ("false", "true"):
        stage = Stage(SimArmNode, f"publish_clock:={publish}", "camera_width:=32", "camera_height:=32")
        try:
            if stage.node.trigger_configure() != TransitionCallbackReturn.SUCCESS:
                pytest.skip("nothing can be drawn here")
            stage.spin_for(0.2)
            assert bool(stage.other.get_publishers_info_by_topic("/clock")) == (publish == "true")
        finally:
            stage.close()
            rclpy.try_shutdown()

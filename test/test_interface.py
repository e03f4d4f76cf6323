"""docs/interface.md and the nodes say the same of parameters."""

from __future__ import annotations

import importlib
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from staging import Stage
from staging import rclpy as rclpy  # fixture

NODES = ("sim_arm", "commander", "recorder", "estimator")
INTERFACE = Path(__file__).parent.parent / "docs" / "interface.md"


def documented(node: str) -> dict[str, tuple[str, str, str]]:
    """Parameter -> default, range and meaning, as the table has them."""
    text = INTERFACE.read_text(encoding="utf-8").partition("## Parameters")[2]
    table = re.split(r"^##", text.partition(f"\n### {node}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:3] == "| `"]
    return {name.strip("`"): (default, bounds, meaning) for name, default, bounds, meaning in rows}


def written(value: object) -> str:
    """A default as the table writes it."""
    if value in ("", [""]):
        return "empty"
    return f"`{value}`" if isinstance(value, str) else str(value).lower()


def described(node: Any, name: str) -> tuple[str, str, str]:
    descriptor = node.describe_parameter(name)
    bounds = [
        f"{part.from_value:{form}} to {part.to_value:{form}}"
        for parts, form in ((descriptor.floating_point_range, "g"), (descriptor.integer_range, "d"))
        for part in parts
    ]
    meaning = descriptor.description + ("" if descriptor.read_only else " (may change while running)")
    return written(node.get_parameter(name).value), "".join(bounds), meaning


@pytest.mark.parametrize("node", NODES)
def test_the_interface_document_has_every_parameter_as_it_is(rclpy: Any, node: str) -> None:
    if node == "sim_arm" and find_spec("mujoco") is None:
        pytest.skip("mujoco is not installed")
    from ropes_ros.nodes.autostart import node_class

    stage = Stage(node_class(importlib.import_module(f"ropes_ros.nodes.{node}")))
    try:
        inherited = {"autostart", *stage.other.get_parameters_by_prefix("")}
        names = [name for name in stage.node.get_parameters_by_prefix("") if name not in inherited]
        assert documented(node) == {name: described(stage.node, name) for name in names}
    finally:
        stage.close()


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

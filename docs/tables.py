"""What is written from the code: tables of docs/interface.md, and the comments of the parameter files in config/.

    python docs/tables.py            # write them anew; the values in config/*.yaml stay

Needs what `pip install '.[sim,standalone,cpu]'` brings, or a ROS 2 installation.
"""

from __future__ import annotations

import importlib
import json
import re
import runpy
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import MagicMock, patch

import yaml

from ropes_ros.paths import share_dir

ROOT = Path(__file__).resolve().parents[1]
INTERFACE = ROOT / "docs" / "interface.md"
NODES = ("sim_arm", "commander", "recorder", "estimator")
EVERY_NODE = {
    "use_sim_time",
    "autostart",
    "diagnostic_updater.period",
    "diagnostic_updater.use_fqn",
    "start_type_description_service",
}
"""Parameters that nodes have by what they are made with."""
LAUNCH_MODULES = (
    "launch",
    *(f"launch.{name}" for name in ("action", "actions", "conditions", "event_handlers", "events", "substitutions")),
    "launch.launch_description_sources",
    "launch_ros",
    *(f"launch_ros.{name}" for name in ("actions", "event_handlers", "events", "parameter_descriptions")),
    "launch_ros.events.lifecycle",
    "launch_ros.substitutions",
    "lifecycle_msgs",
    "lifecycle_msgs.msg",
)


class Parameter(NamedTuple):
    """A parameter as a node declares it."""

    name: str
    default: Any
    bounds: str
    meaning: str
    read_only: bool


def parameters(node: Any) -> list[Parameter]:
    """What a node declares of its own, in its order."""
    found = []
    for name, parameter in node.get_parameters_by_prefix("").items():
        if name in EVERY_NODE or name.startswith("qos_overrides."):
            continue
        descriptor = node.describe_parameter(name)
        bounds = [
            f"{part.from_value:{form}} to {part.to_value:{form}}"
            for parts, form in ((descriptor.floating_point_range, "g"), (descriptor.integer_range, "d"))
            for part in parts
        ]
        found.append(Parameter(name, parameter.value, "".join(bounds), descriptor.description, descriptor.read_only))
    return found


def parameter_table(declared: Iterable[Parameter]) -> str:
    """The table of a node's parameters."""
    rows = []
    for name, default, bounds, meaning, read_only in declared:
        shown = f"`{default}`" if isinstance(default, str) else str(default).lower()
        note = "" if read_only else " (may change while running)"
        rows.append(f"| `{name}` | {'empty' if default in ('', ['']) else shown} | {bounds} | {meaning}{note} |")
    return "\n".join(["| parameter | default | range | meaning |", "|---|---|---|---|", *rows])


def parameter_file(node: str, declared: Iterable[Parameter], values: Mapping[str, Any]) -> str:
    """A node's parameter file: every parameter with its comment, and the value that it has or else its default."""
    lines = [f"# Parameters of the {node} node. The comments are written by `python docs/tables.py`.", "/**:"]
    lines.append("  ros__parameters:")
    for name, default, bounds, meaning, read_only in declared:
        notes = [meaning, *([f"{bounds}"] if bounds else []), *([] if read_only else ["may change while running"])]
        lines.append(f"    # {'; '.join(notes)}")
        lines.append(f"    {name}: {json.dumps(values.get(name, default))}")
    return "\n".join(lines) + "\n"


def read_values(path: Path) -> dict[str, Any]:
    """What a parameter file says."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return dict(content["/**"]["ros__parameters"])


def launch_files() -> list[Path]:
    """The launch files, in order of their names."""
    return sorted((ROOT / "launch").glob("*.launch.py"))


def launch_arguments(path: Path) -> list[tuple[str, str | None, str]]:
    """Name, default (None where it must be given) and description of a launch file's arguments.

    Stand-ins take launch's place, so that no ROS 2 is needed; paths of this checkout are shown as those of a share
    folder.
    """
    with _without_launch() as declared:
        runpy.run_path(str(path))["generate_launch_description"]()
    return [
        (call.args[0], _portable(call.kwargs.get("default_value")), call.kwargs["description"])
        for call in declared.call_args_list
    ]


def launch_table(arguments: Iterable[tuple[str, str | None, str]]) -> str:
    """The table of a launch file's arguments."""
    rows = [
        f"| `{name}` | {'required' if default is None else f'`{default}`' if default else 'empty'} | {meaning} |"
        for name, default, meaning in arguments
    ]
    return "\n".join(["| argument | default | meaning |", "|---|---|---|", *rows])


def replaced(text: str, part: str, heading: str, table: str) -> str:
    """A document with a table in the place of the one below a heading.

    Args:
        text: The document.
        part: Its part, a heading of the second level, in which the heading is.
        heading: A heading of the third level.
        table: The table.
    """
    before, found, rest = text.partition(f"\n## {part}\n")
    body, found_too, after = rest.partition(f"\n### {heading}\n")
    if not (found and found_too):
        raise SystemExit(f"{INTERFACE}: '## {part}' has no '### {heading}'")
    changed = re.sub(r"(\A|\n)\|[^\n]*(\n\|[^\n]*)*", lambda match: f"{match[1]}{table}", after, count=1)
    return f"{before}{found}{body}{found_too}{changed}"


def _portable(value: Any) -> str | None:
    return None if value is None else str(value).replace(str(share_dir()), "share/ropes_ros")


@contextmanager
def _without_launch() -> Iterator[MagicMock]:
    """Stand-ins for launch and for what is imported with it; the one of DeclareLaunchArgument."""
    mine = ("ropes_ros.launching", "ropes_ros.viewers", "ropes_ros.gazebo_launching")
    stand_ins = {name: MagicMock(name=name) for name in LAUNCH_MODULES}
    with patch.dict(sys.modules, stand_ins):
        for name in mine:
            sys.modules.pop(name, None)
        yield stand_ins["launch.actions"].DeclareLaunchArgument
        for name in mine:
            sys.modules.pop(name, None)


@contextmanager
def made(node: str) -> Iterator[Any]:
    """A node of this package, unconfigured; rclpy is initialised meanwhile."""
    from ropes_ros.processes import has_ros

    if not has_ros():
        from ropes_ros import standalone

        standalone.install()
    import rclpy

    from ropes_ros.nodes.autostart import node_class

    rclpy.init(args=["--ros-args", "-p", "autostart:=false"])
    instance = node_class(importlib.import_module(f"ropes_ros.nodes.{node}"))()
    try:
        yield instance
    finally:
        instance.destroy_node()
        rclpy.try_shutdown()


def _write(path: Path, change: Callable[[str], str]) -> None:
    before = path.read_text(encoding="utf-8")
    after = change(before)
    if after != before:
        path.write_text(after, encoding="utf-8")
        print(f"{path.relative_to(ROOT)} is written anew")


def main() -> None:
    """Write all tables and parameter files."""
    for name in NODES:
        with made(name) as node:
            declared = parameters(node)
        table = parameter_table(declared)
        _write(INTERFACE, lambda text, name=name, table=table: replaced(text, "Parameters", name, table))
        path = ROOT / "config" / f"{name}.yaml"
        content = parameter_file(name, declared, read_values(path))
        _write(path, lambda _, content=content: content)
    for path in launch_files():
        table = launch_table(launch_arguments(path))
        _write(INTERFACE, lambda text, path=path, table=table: replaced(text, "Launch files", path.name, table))


if __name__ == "__main__":
    main()

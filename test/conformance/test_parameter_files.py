"""Parameters from the command line and from YAML files: wildcards, precedence, types, mistakes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import rclpy
from conformance_support import Ros, either

FILE = """
/**:
  ros__parameters: {everywhere: 1, a: from all}
/*/settings:
  ros__parameters: {one_deep: 1, a: from one deep}
/lab/*:
  ros__parameters: {in_lab: 1, a: from lab}
/lab/**:
  ros__parameters: {below_lab: 1}
/lab/settings:
  ros__parameters: {itself: 1, a: from itself}
lab:
  settings:
    ros__parameters: {nested: 1}
settings:
  ros__parameters: {at_root: 1}
/other:
  ros__parameters: {others: 1}
"""
NAMES = ("everywhere", "one_deep", "in_lab", "below_lab", "itself", "nested", "at_root", "others")


def write(folder: Path, text: str, name: str = "file.yaml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("namespace", "expected", "value"),
    [
        ("/", {"everywhere", "at_root"}, "from all"),
        ("/lab", {"everywhere", "one_deep", "in_lab", "below_lab", "itself", "nested"}, "from itself"),
        ("/lab/left", {"everywhere", "below_lab"}, "from all"),
        ("/hall", {"everywhere", "one_deep"}, "from one deep"),
    ],
)
def test_keys_of_a_file_choose_nodes(ros: Ros, tmp_path: Path, namespace: str, expected: set[str], value: str) -> None:
    ros.init("--params-file", write(tmp_path, FILE))
    node = ros.node("settings", namespace=namespace)
    given = {name for name in NAMES if node.declare_parameter(name, 0).value == 1}
    assert given == expected
    assert node.declare_parameter("a", "default").value == value


@pytest.mark.parametrize(
    ("yaml", "value"),
    [
        ("true", True),
        ("off", False),
        ("'true'", "true"),
        ("7", 7),
        ("-7", -7),
        ("0x10", 16),
        ("1.5", 1.5),
        ("1e-3", 1e-3),
        ("1.", 1.0),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("'7'", "7"),
        ('"7"', "7"),
        ("!!str 7", "7"),
        ("word", "word"),
        ("two words", "two words"),
        ("2020-01-31", "2020-01-31"),
        ("12:30:45", "12:30:45"),
        ("'12:30'", "12:30"),
        ("null", "null"),
        ("''", ""),
        ("1_000", "1_000"),
        ("9223372036854775807", (1 << 63) - 1),
        ("[true, false]", [True, False]),
        ("[1, 2]", [1, 2]),
        ("[1.0, 2.5]", [1.0, 2.5]),
        ("[a, 'b', \"c\"]", ["a", "b", "c"]),
    ],
)
def test_values_have_the_types_that_ros_gives_them(ros: Ros, tmp_path: Path, yaml: str, value: Any) -> None:
    path = write(tmp_path, f"/**:\n  ros__parameters:\n    filed: {yaml}\n")
    ros.init("-p", f"given:={yaml}", "--params-file", path)
    node = ros.node(automatically_declare_parameters_from_overrides=True)
    for name in ("given", "filed"):
        found = node.get_parameter(name).value
        assert (found, type(found)) == (value, type(value)), name


def test_nested_names_join_with_dots(ros: Ros, tmp_path: Path) -> None:
    ros.init("--params-file", write(tmp_path, "/**:\n  ros__parameters:\n    a: {b: {c: 1}, d: 2}\n    e.f: 3\n"))
    node = ros.node()
    assert [node.declare_parameter(name, 0).value for name in ("a.b.c", "a.d", "e.f")] == [1, 2, 3]


def test_later_arguments_override_earlier_ones(ros: Ros, tmp_path: Path) -> None:
    first = write(tmp_path, "/**: {ros__parameters: {a: 1, b: 1, c: 1}}", "first.yaml")
    second = write(tmp_path, "/**: {ros__parameters: {b: 2, c: 2}}", "second.yaml")
    ros.init("-p", "d:=1", "--params-file", first, "--params-file", second, "-p", "c:=3", "-p", "d:=3", "-p", "d:=4")
    node = ros.node()
    assert [node.declare_parameter(name, 0).value for name in "abcd"] == [1, 2, 3, 4]


def test_the_command_line_against_a_file_that_names_the_node(ros: Ros, tmp_path: Path) -> None:
    path = write(tmp_path, "/**: {ros__parameters: {a: 1}}\n/me: {ros__parameters: {a: 2}}\n")
    ros.init("--params-file", path, "-p", "a:=3")
    expected = either("command-line-wins", standalone=3, ros=2)
    assert ros.node().declare_parameter("a", 0).value == expected


def test_parameters_for_one_node_of_the_process(ros: Ros) -> None:
    ros.init("-p", "me:a:=1", "-p", "you:a:=2")
    assert ros.node("me").declare_parameter("a", 0).value == 1
    assert ros.node("you").declare_parameter("a", 0).value == 2
    assert ros.node("they").declare_parameter("a", 0).value == 0
    elsewhere = ros.node("me", namespace="/lab").declare_parameter("a", 0).value
    assert elsewhere == either("node-prefix-in-any-namespace", standalone=1, ros=0)


@pytest.mark.parametrize(
    "text",
    [
        "/**:\n  ros__parameters:\n    a: [1, word]\n",
        "/**:\n  ros__parameters:\n    a: [1, 2.5]\n",
        "/**:\n  ros__parameters:\n    a: [[1], [2]]\n",
        "/**:\n  ros__parameters:\n    a:\n",
        "/**:\n  a: 1\n",
        "/**:\n  ros__parameters: [1]\n",
        "/**: {ros__parameters: {a: 1}\n",
        "[" * 20000,
    ],
)
def test_malformed_files_are_refused_at_once(ros: Ros, tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(RuntimeError) as caught:
        ros.init("--params-file", path)
    assert "file.yaml" in str(caught.value) and not rclpy.ok()


@pytest.mark.parametrize(
    "words",
    [
        ("-p", "count"),
        ("-p", ":=1"),
        ("-p", "a:=[1, word]"),
        ("-p",),
        ("-r", "a"),
        ("-r", "a:="),
        ("-r",),
        ("--params-file",),
        ("--params-file", "/nowhere.yaml"),
        ("--log-level", "loud"),
        ("--no-such-option",),
    ],
)
def test_malformed_arguments_are_refused_at_once(ros: Ros, words: tuple[str, ...]) -> None:
    with pytest.raises(RuntimeError) as caught:
        ros.init(*words)
    assert any(word.strip(":=1") in str(caught.value) for word in words) and not rclpy.ok()


def test_arguments_before_ros_args_and_after_a_double_dash_are_the_programs(ros: Ros) -> None:
    from rclpy.utilities import remove_ros_args

    words = ["prog", "--mine", "--ros-args", "-p", "a:=1", "-r", "x:=y", "--", "last"]
    assert remove_ros_args(args=words) == ["prog", "--mine", "last"]

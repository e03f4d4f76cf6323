"""The ROS command line: --ros-args with parameters, remappings, parameter files and log levels."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ropes_ros.standalone import yaml_values
from ropes_ros.standalone.errors import ArgumentsError
from ropes_ros.standalone.names import Remap
from ropes_ros.standalone.severity import LoggingSeverity

_FLAGS = tuple(
    f"--{choice}-{what}"
    for choice in ("enable", "disable")
    for what in ("rosout-logs", "stdout-logs", "external-lib-logs")
)


@dataclass(frozen=True)
class Override:
    """One parameter value from the command line or a file, for the nodes that `node` matches."""

    node: str
    name: str
    value: Any
    source: str
    required: bool


@dataclass
class Arguments:
    """What a command line says to ROS."""

    remaps: list[Remap] = field(default_factory=list)
    overrides: list[Override] = field(default_factory=list)
    log_levels: dict[str, LoggingSeverity] = field(default_factory=dict)
    rest: list[str] = field(default_factory=list)


def parse(args: Sequence[str] | None = None) -> Arguments:
    """Read a command line; None reads sys.argv.

    Raises:
        ArgumentsError: an argument is unknown or malformed, or a parameter file cannot be read.
    """
    result = Arguments()
    words = list(sys.argv if args is None else args)
    inside = False
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if word == "--ros-args":
            inside = True
        elif not inside:
            result.rest.append(word)
        elif word == "--":
            inside = False
        elif word in _FLAGS:
            continue
        else:
            value: str | None = None
            if word.startswith("--") and "=" in word and not word.startswith("--="):
                word, value = word.split("=", 1)
            elif position < len(words):
                value = words[position]
                position += 1
            _take(result, word, value)
    return result


def _take(result: Arguments, option: str, value: str | None) -> None:
    known = ("-p", "--param", "-r", "--remap", "--params-file", "--log-level")
    if option not in known:
        raise ArgumentsError(f"unknown ROS argument {option!r}; after --ros-args these are known: {', '.join(known)}")
    if value is None or value in ("--ros-args", "--"):
        raise ArgumentsError(f"ROS argument {option} needs a value")
    if option in ("-p", "--param"):
        result.overrides.append(_parameter(value))
    elif option in ("-r", "--remap"):
        result.remaps.append(_remap(value))
    elif option == "--params-file":
        result.overrides.extend(read_parameters(Path(value)))
    else:
        name, level = value.rsplit(":=", 1) if ":=" in value else ("", value)
        result.log_levels[name] = LoggingSeverity.from_name(level)


def _split(text: str, what: str) -> tuple[str, str]:
    name, separator, value = text.partition(":=")
    if not separator or not name:
        raise ArgumentsError(f"{what} {text!r} is malformed; write name:=value")
    return name, value


def _parameter(text: str) -> Override:
    name, value = _split(text, "parameter")
    node, separator, bare = name.partition(":")
    if separator:
        name = bare
    try:
        parsed = yaml_values.load(value)
    except yaml.YAMLError:
        raise ArgumentsError(
            f"parameter {name}: {value!r} is not valid YAML; quote a string that holds : or #"
        ) from None
    problem = yaml_values.list_error(parsed)
    if problem:
        raise ArgumentsError(f"-p {text}: {problem}")
    if parsed is None:
        parsed = ""
    return Override(f"/**/{node}" if separator else "/**", name, parsed, f"-p {text}", required=not separator)


def _remap(text: str) -> Remap:
    source, target = _split(text, "remapping")
    if not target:
        raise ArgumentsError(f"remapping {text!r} is malformed; write from:=to")
    if source.startswith(("rostopic://", "rosservice://")):
        return Remap(source, target)
    node, separator, bare = source.partition(":")
    return Remap(bare, target, node) if separator else Remap(source, target)


def read_parameters(path: Path) -> list[Override]:
    """The overrides of a parameter file.

    Raises:
        ArgumentsError: the file is missing or is not a ROS 2 parameter file.
    """
    try:
        content = yaml_values.load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArgumentsError(f"parameter file {path} cannot be read: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ArgumentsError(f"parameter file {path} is not valid YAML: {reason}") from None
    if not isinstance(content, dict) or not content:
        raise ArgumentsError(f"parameter file {path} names no node; it must look like node_name: ros__parameters: ...")
    overrides: list[Override] = []
    for key, section in content.items():
        _read_section(path, "" if str(key).startswith("/") else "/", str(key), section, overrides)
    return overrides


def _read_section(path: Path, prefix: str, key: str, section: Any, overrides: list[Override]) -> None:
    node = f"{prefix}{key}"
    if not isinstance(section, dict):
        raise ArgumentsError(f"parameter file {path}: {node} holds no ros__parameters")
    for name, value in section.items():
        if name != "ros__parameters":
            _read_section(path, f"{node}/", str(name).lstrip("/"), value, overrides)
        elif value is not None and not isinstance(value, dict):
            raise ArgumentsError(f"parameter file {path}: ros__parameters of {node} is not a mapping")
        else:
            for parameter, setting in _flatten("", value or {}):
                problem = "it has no value" if setting is None else yaml_values.list_error(setting)
                if problem:
                    raise ArgumentsError(f"parameter file {path}: parameter {parameter} of {node}: {problem}")
                overrides.append(Override(node, parameter, setting, str(path), required=False))


def _flatten(prefix: str, values: dict[Any, Any]) -> list[tuple[str, Any]]:
    result: list[tuple[str, Any]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        result.extend(_flatten(f"{name}.", value) if isinstance(value, dict) else [(name, value)])
    return result


def matches(pattern: str, full_name: str) -> bool:
    """Whether a node's full name fits a parameter file's key; `*` is one part of it, `**` any number."""

    def fits(parts: list[str], names: list[str]) -> bool:
        if not parts:
            return not names
        if parts[0] == "**":
            return any(fits(parts[1:], names[i:]) for i in range(len(names) + 1))
        return bool(names) and parts[0] in ("*", names[0]) and fits(parts[1:], names[1:])

    return fits(pattern.strip("/").split("/"), full_name.strip("/").split("/"))

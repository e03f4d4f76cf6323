"""Names of nodes, topics and services: validation, expansion and remapping."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ropes_ros.standalone.errors import (
    InvalidNamespaceException,
    InvalidNodeNameException,
    InvalidServiceNameException,
    InvalidTopicNameException,
)

_MAX_LENGTH = 255
_NODE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TOKEN = r"[A-Za-z_][A-Za-z0-9_]*"
_NAME = re.compile(rf"(?:~|~/{_TOKEN}(?:/{_TOKEN})*|/?{_TOKEN}(?:/{_TOKEN})*)")


@dataclass(frozen=True)
class Remap:
    """One `-r from:=to` rule; `node` limits it to nodes of that name."""

    source: str
    target: str
    node: str | None = None


def check_node_name(name: str) -> str:
    """The name, or InvalidNodeNameException."""
    if not _NODE.fullmatch(name) or len(name) > _MAX_LENGTH:
        raise InvalidNodeNameException(
            f"node name {name!r} is not valid: letters, digits and underscores, not starting with a digit, at most "
            f"{_MAX_LENGTH}"
        )
    return name


def check_namespace(namespace: str) -> str:
    """The absolute namespace, or InvalidNamespaceException."""
    full = namespace if namespace.startswith("/") else f"/{namespace}"
    if full != "/" and not _NAME.fullmatch(full):
        raise InvalidNamespaceException(f"namespace {namespace!r} is not valid: names separated by slashes")
    return full


def join(namespace: str, name: str) -> str:
    """A name below a namespace."""
    return f"/{name}" if namespace == "/" else f"{namespace}/{name}"


def expand(name: str, node: str, namespace: str, service: bool = False) -> str:
    """The absolute form of a topic or service name.

    Raises:
        InvalidTopicNameException, InvalidServiceNameException: the name is not valid.
    """
    text = name.replace("{node}", node).replace("{ns}", namespace).replace("{namespace}", namespace)
    if not _NAME.fullmatch(text):
        error = InvalidServiceNameException if service else InvalidTopicNameException
        what = "service" if service else "topic"
        raise error(f"{what} name {name!r} is not valid: names separated by slashes, with / or ~/ in front if wanted")
    if text.startswith("/"):
        return text
    if text == "~":
        return join(namespace, node)
    if text.startswith("~/"):
        return join(join(namespace, node), text[2:])
    return join(namespace, text)


def remap(full_name: str, node: str, namespace: str, rules: Sequence[Remap], service: bool = False) -> str:
    """The name that the first matching rule gives, else the name itself."""
    scheme, other = ("rosservice://", "rostopic://") if service else ("rostopic://", "rosservice://")
    for rule in rules:
        if rule.node not in (None, node) or rule.source.startswith(other):
            continue
        source = rule.source.removeprefix(scheme)
        if source in ("__node", "__name", "__ns"):
            continue
        if expand(source, node, namespace, service) == full_name:
            return expand(rule.target, node, namespace, service)
    return full_name


def remap_node(node: str, namespace: str, rules: Sequence[Remap]) -> tuple[str, str]:
    """A node's name and namespace after `__node`, `__name` and `__ns` rules, of which the first that fits counts."""

    def first(sources: tuple[str, ...], name: str) -> str | None:
        fitting = (rule for rule in rules if rule.source in sources and rule.node in (None, name))
        return next((rule.target for rule in fitting), None)

    new_name = first(("__node", "__name"), node) or node
    return new_name, first(("__ns",), new_name) or namespace

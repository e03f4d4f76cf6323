"""YAML as ROS 2's parameter parser reads it: numbers as C does, YAML 1.1's booleans, everything else text.

PyYAML's own rules differ: it reads dates and `12:30:45` as values of their own, and `1e-3` as text.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

_PLAIN = "!plain"
_TEXT = "tag:yaml.org,2002:str"
_BOOLS = {
    word: value
    for value, words in ((True, ("y", "yes", "true", "on")), (False, ("n", "no", "false", "off")))
    for text in words
    for word in (text, text.capitalize(), text.upper())
}
_INTEGER = re.compile(r"[-+]?(?:0[xX](?P<hex>[0-9a-fA-F]+)|0(?P<octal>[0-7]+)|(?P<decimal>0|[1-9]\d*))")
_FLOAT = re.compile(r"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|\.?(?:inf|nan)|infinity)", re.IGNORECASE)
_INT64 = range(-(1 << 63), 1 << 63)


class _Loader(yaml.SafeLoader):
    """Builds mappings with text as keys, sequences, and scalars by `scalar`; text that is quoted stays text."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        """The tag of a node that has none."""
        if kind is yaml.ScalarNode:
            return _PLAIN if implicit[0] else _TEXT
        return super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """A mapping whose keys are text, as they are written."""
        result: dict[Any, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a name", key.start_mark)
            result[key.value] = self.construct_object(value, deep=deep)
        return result


_Loader.add_constructor(_PLAIN, lambda _, node: scalar(node.value))


def scalar(text: str) -> Any:
    """The value of a word that is not quoted; None for no word at all."""
    if not text:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    match = _INTEGER.fullmatch(text)
    if match:
        base = 16 if match["hex"] else 8 if match["octal"] else 10
        number = int(match["hex"] or match["octal"] or match["decimal"], base)
        number = -number if text.startswith("-") else number
        if number in _INT64:
            return number
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def load(text: str) -> Any:
    """The value of a YAML document.

    Raises:
        yaml.YAMLError: the text is not YAML.
    """
    return yaml.load(text, _Loader)


def list_error(value: Any) -> str:
    """Why a value is not a list that a parameter can hold; empty where it is one, or no list."""
    if not isinstance(value, list):
        return ""
    kinds = {type(item).__name__ for item in value}
    for kind, what in (("list", "lists"), ("dict", "mappings"), ("NoneType", "empty items")):
        if kind in kinds:
            return f"a list cannot hold {what}"
    return f"a list must hold items of one type, not {' and '.join(sorted(kinds))}" if len(kinds) > 1 else ""

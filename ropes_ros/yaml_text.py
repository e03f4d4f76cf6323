"""YAML from others: plain values only, and no document that makes a small file large or deep.

A few lines of YAML can nest so deep that the C parser overflows its stack, which ends the process, or can name the same
part so often within itself that its expansion fills the memory. What ropes_ros reads needs neither.
"""

from __future__ import annotations

from typing import Any

import yaml
from yaml.composer import Composer

from ropes_ros.errors import RopesError

MAX_CHARACTERS = 1 << 27
"""128 Mi characters, some 150 h of schedule."""
MAX_DEPTH = 64
MAX_ALIASES = 1000


class _Bounded:
    """Composes a document with a bound on its depth and on its aliases, which may not stand within what has a name."""

    _depth = 0
    _aliases = 0
    _named = 0

    def compose_node(self: Any, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            self._aliases += 1
            if self._named or self._aliases > MAX_ALIASES:
                raise yaml.YAMLError("too many aliases, or aliases within aliases: write the values out")
            return super().compose_node(parent, index)  # type: ignore[misc]
        if self._depth >= MAX_DEPTH:
            raise yaml.YAMLError(f"it nests deeper than {MAX_DEPTH}")
        named = event.anchor is not None
        self._depth, self._named = self._depth + 1, self._named + named
        node = super().compose_node(parent, index)  # type: ignore[misc]
        self._depth, self._named = self._depth - 1, self._named - named
        return node


if yaml.__with_libyaml__:

    class _Loader(_Bounded, Composer, yaml.CSafeLoader):
        """Scans in C and composes in Python, where the bounds are."""

        def __init__(self, stream: str) -> None:
            yaml.CSafeLoader.__init__(self, stream)
            Composer.__init__(self)

else:

    class _Loader(_Bounded, yaml.SafeLoader):  # type: ignore[no-redef]
        """The same without libyaml."""


def parse_yaml(text: str) -> Any:
    """Plain values (mappings, lists, texts, numbers, dates) from YAML.

    Args:
        text: One document.

    Raises:
        RopesError: Not YAML, too long, too deep, or with aliases that expand. The message names no file: the caller
            knows it.
    """
    if len(text) > MAX_CHARACTERS:
        raise RopesError(f"{len(text)} characters are more than the {MAX_CHARACTERS} that are read")
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # impossible dates, numbers of thousands of digits
        raise RopesError(" ".join(str(error).split())[:300]) from None

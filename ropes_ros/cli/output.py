"""What the subcommands share for their output: one console, tables, JSON, sizes and times in words."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ropes_ros.errors import BagError

console = Console(highlight=False, markup=False)  # brackets are parts of names

LONGEST_WORD = 60
"""Letters of a word in a table from which on it may be cut."""
SHORTEST_NAME = 8
"""Letters to which a name in a table is cut at most."""
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables, for scripts.")]
TopicsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--topic",
        metavar="ROLE=NAME",
        help="For bags from elsewhere: topic of the role image, regime, joint_command or joint_states; repeatable.",
    ),
]
ModelRobotOption = Annotated[
    str | None,
    typer.Option("--robot", help="Path of the robot preset's YAML, where the model's robot is none of the bundled."),
]
RobotOption = Annotated[str, typer.Option("--robot", help="Robot preset, or path of a preset's YAML.")]


def topics_by_role(given: Sequence[str] | None) -> dict[str, str]:
    """Topics by role from ROLE=NAME.

    Raises:
        BagError: Not of that form, or no such role.
    """
    from ropes_ros.bag_format import TOPICS

    topics = {}
    for text in given or ():
        role, _, name = text.partition("=")
        if role not in TOPICS or not name:
            raise BagError(f"--topic {text}: write ROLE=NAME; roles are {', '.join(TOPICS)}")
        topics[role] = name
    return topics


def print_json(content: Mapping[str, Any]) -> None:
    """Write a document to stdout."""
    json.dump(content, sys.stdout, indent=2, default=str)
    sys.stdout.write("\n")


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None, *, whole: Sequence[str] = ()
) -> None:
    """Write a table to the terminal: the first column aligned left, the others right; `whole` ones are never wrapped.

    No figure is cut: where the terminal is too narrow for them, the table is wider than it. Names in the first column
    are, unless it is one of `whole`.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    table = Table(title=title, title_justify="left", header_style="bold")
    least = [0] * len(columns)
    for number, column in enumerate(columns):
        words = [word for text in (column, *(row[number] for row in cells)) for word in text.split()]
        most = LONGEST_WORD if number or column in whole else SHORTEST_NAME
        least[number] = min(most, max(map(cell_len, words), default=0))
        table.add_column(
            column, justify="right" if number else "left", no_wrap=column in whole, min_width=least[number]
        )
    for row in cells:
        table.add_row(*row)
    needed = sum(least) + 3 * len(columns) + 1
    console.print(table, width=max(needed, console.width), crop=False)


def printable(value: object) -> str:
    """A value as text that cannot steer a terminal, wherever it came from: names in bags and models are anyone's."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in str(value))


def as_command(*words: object) -> str:
    """A command line for a person to copy."""
    return shlex.join(str(word) for word in words)


def print_facts(facts: Mapping[str, object]) -> None:
    """Write names and values, one a line."""
    grid = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        grid.add_row(Text(printable(name), style="bold"), printable(value))
    console.print(grid)


def in_words(seconds: float) -> str:
    """A duration for a person: 42.0 s, 3 min 20 s, 1 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"

"""What the subcommands share for their output: one console, tables, JSON, sizes and times in words."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

console = Console(highlight=False)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables, for scripts.")]
RobotOption = Annotated[str, typer.Option("--robot", help="Robot preset, or path of a preset's YAML.")]


def print_json(content: Mapping[str, Any]) -> None:
    """Write a document to stdout."""
    json.dump(content, sys.stdout, indent=2, default=str)
    sys.stdout.write("\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """Write a table to the terminal; the first column is aligned left, the others right."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console.print(table)


def print_facts(facts: Mapping[str, object]) -> None:
    """Write names and values, one a line."""
    grid = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        grid.add_row(f"[bold]{name}[/bold]", str(value))
    console.print(grid)


def in_words(seconds: float) -> str:
    """A duration for a person: 42.0 s, 3 min 20 s, 1 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"

"""The tables as Markdown, for documents: what was run, with the same figures as the page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ropes_ros.bench.groups import Group
from ropes_ros.bench.summary import METRICS, TITLE, Line, about, beaten, best, lines, remarks, shown

MARKDOWN_FILE = "accuracy.md"


def write_markdown(out: Path, tables: Sequence[Group], budget: str) -> Path:
    """Write OUT/accuracy.md.

    Args:
        out: The bench's folder.
        tables: All groups.
        budget: Name of the budget.
    """
    path = out / MARKDOWN_FILE
    temporary = path.with_suffix(".partial")
    temporary.write_text(markdown(out, tables, budget), encoding="utf-8")
    os.replace(temporary, path)
    return path


def markdown(out: Path, tables: Sequence[Group], budget: str) -> str:
    """All groups of which something was run; the rows that were not are named below their table."""
    parts = [f"# {TITLE}", "Written by `ropes bench table`; what each column and row means is told in "
             "`benchmarks/README.md`.", about(budget)]
    for group in tables:
        table = lines(out, group)
        if any(line.values for line in table):
            parts += _section(group, table)
        else:
            parts += [f"## {group.title}", "Not run yet."]
    return "\n\n".join(parts) + "\n"


def _section(group: Group, table: Sequence[Line]) -> list[str]:
    parts = [f"## {group.title}", group.note, _table(group, table), *remarks(group, table)]
    wins = beaten(table, group.metrics) if group.compared else []
    if wins:
        items = "\n".join(f"- {sentence}" for sentence in wins)
        parts.append(f"Where a label-free baseline beats ours:\n\n{items}")
    missing = dict.fromkeys(line.row.label for line in table if line.state == "not run" and not line.values)
    if missing:
        parts.append(f"Not run yet: {'; '.join(missing)}.")
    failed = {line.row.label: line.message for line in table if line.state == "failed"}
    parts += [f"Failed: {label} ({message})." for label, message in failed.items()]
    return parts


def _table(group: Group, table: Sequence[Line]) -> str:
    metrics = [metric for metric in group.metrics if any(metric in line.values for line in table)]
    tests = list(dict.fromkeys(line.test for line in table))
    top = {(metric, test): best(table, metric, test) for metric in metrics for test in tests}
    rows = [["", "told", *(METRICS[metric].title for metric in metrics)], ["---"] * (len(metrics) + 2)]
    for line in sorted(table, key=lambda entry: tests.index(entry.test)) if group.compared else table:
        if not line.values:
            continue
        label = f"{line.row.label}, on {line.test}" if len(tests) > 1 else line.row.label
        seeds, done = len(line.row.cells), max(value["n"] for value in line.values.values())
        label += f" ({done} of {seeds} seeds)" if seeds > 1 else ""
        texts = [shown(metric, line.values.get(metric), done) for metric in metrics]
        bold = [line.row.key in top[metric, line.test] for metric in metrics]
        figures = [f"**{text}**" if strong else text for text, strong in zip(texts, bold, strict=True)]
        rows.append([label, line.supervision, *figures])
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in escaped)

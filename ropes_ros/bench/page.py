"""The page: all tables, curves and traversals in one HTML file that holds its pictures."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ropes_ros.bench.cells import FRAMES_A_MINUTE, read_cell
from ropes_ros.bench.groups import Group
from ropes_ros.bench.summary import METRICS, TITLE, Line, about, beaten, best, lines, remarks, shown
from ropes_ros.bench.worker import picture_file
from ropes_ros.html_page import prepare_drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HTML_FILE = "accuracy.html"
TRAVERSED = ("headline", "baselines")
"""Groups whose latents are shown in pictures."""

_STYLE = """body{font:14px/1.5 system-ui,sans-serif;max-width:1500px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:.6em 0}td,th{padding:.2em .7em;border-bottom:1px solid #ddd;text-align:right;
vertical-align:top}td:first-child,th:first-child{text-align:left;position:sticky;left:0;background:#fff;min-width:20em}
th{font-weight:600;vertical-align:bottom}td{font-variant-numeric:tabular-nums;white-space:nowrap}
td:first-child{white-space:normal}div.wide{overflow-x:auto}small{color:#666}tr.ours td{background:#eef5ff}
h2{margin-top:2.2em}p.note{color:#555;max-width:60em}figure{display:inline-block;margin:0 1.5em 1.5em 0}
figcaption{color:#555}img{max-width:100%}td.missing{color:#999;text-align:left}"""


def write_page(out: Path, tables: Sequence[Group], budget: str) -> Path:
    """Write OUT/accuracy.html.

    Args:
        out: The bench's folder.
        tables: All groups.
        budget: Name of the budget.

    Raises:
        RuntimeSetupError: matplotlib is not installed.
    """
    prepare_drawing("train")
    sections = [_section(out, group) for group in tables]
    page = (
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>ropes bench accuracy</title>"
        f"<style>{_STYLE}</style><h1>{TITLE}</h1>"
        f"<p class='note'>{_marked(about(budget))}</p>{''.join(sections)}</html>"
    )
    path = out / HTML_FILE
    temporary = path.with_suffix(".partial")
    temporary.write_text(page, encoding="utf-8")
    os.replace(temporary, path)
    return path


def _marked(text: str) -> str:
    """Escaped text whose `words` are set as code."""
    pieces = html.escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if number % 2 else piece for number, piece in enumerate(pieces))


def _section(out: Path, group: Group) -> str:
    table = lines(out, group)
    parts = [f"<h2 id='{group.key}'>{html.escape(group.title)}</h2><p class='note'>{html.escape(group.note)}</p>"]
    parts.append(_table(group, table))
    parts += [f"<p>{html.escape(sentence)}</p>" for sentence in remarks(group, table)]
    if group.compared and (wins := beaten(table, group.metrics)):
        items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in wins)
        parts.append(f"<p>Where a label-free baseline beats ours:</p><ul>{items}</ul>")
    if group.key == "curve":
        parts.append(_curve(table))
    if group.key == "adaptation":
        parts.append(_adaptation(table))
    if group.key == "time":
        parts.append(_time(out, group))
    if group.key in TRAVERSED:
        parts.append(_traversals(out, group))
    return "".join(parts)


def _table(group: Group, table: Sequence[Line]) -> str:
    metrics = [metric for metric in group.metrics if any(metric in line.values for line in table)]
    tests = list(dict.fromkeys(line.test for line in table))
    head = "".join(f"<th>{html.escape(METRICS[metric].title)}</th>" for metric in metrics)
    top = {(metric, test): best(table, metric, test) for metric in metrics for test in tests}
    rows = []
    for line in sorted(table, key=lambda entry: tests.index(entry.test)) if group.compared else table:
        label = html.escape(line.row.label) + (f" <small>on {html.escape(line.test)}</small>" if len(tests) > 1 else "")
        label += f"<br><small>told: {html.escape(line.supervision)}</small>"
        shade = " class='ours'" if line.role == "ours" else ""
        if not line.values:
            why = "not run" if line.state == "not run" else f"failed: {line.message}"
            missing = f"<td class='missing' colspan='{max(1, len(metrics))}'>{html.escape(why)}</td>"
            rows.append(f"<tr{shade}><td>{label}</td>{missing}</tr>")
            continue
        if line.state != "done":
            label += f"<br><small>some seeds {line.state}</small>"
        cells = []
        for metric in metrics:
            text = shown(metric, line.values.get(metric))
            cells.append(f"<td><b>{text}</b></td>" if line.row.key in top[metric, line.test] else f"<td>{text}</td>")
        rows.append(f"<tr{shade}><td>{label}</td>{''.join(cells)}</tr>")
    return f"<div class='wide'><table><tr><th></th>{head}</tr>{''.join(rows)}</table></div>"


def _curve(table: Sequence[Line]) -> str:
    """Error and MCC against frames, a line a method."""
    series: dict[str, list[Line]] = {}
    for line in table:
        if "mcc" in line.values:
            series.setdefault(line.row.cells[0].method, []).append(line)
    if not any(len(points) > 1 for points in series.values()):
        return ""
    figure, axes = _figure(2)
    for axis, metric in zip(axes, ("mean_joint_mae_deg", "mcc"), strict=True):
        for method, points in series.items():
            frames = [line.row.cells[0].frames for line in points]
            axis.plot(frames, [line.values[metric]["mean"] for line in points], marker="o", label=method)
        axis.set_xscale("log")
        axis.set_xlabel("frames")
        axis.set_ylabel(METRICS[metric].title)
        axis.legend()
    axes[0].set_yscale("log")
    return _embed(figure, "learning curves")


def _adaptation(table: Sequence[Line]) -> str:
    """Error against minutes recorded with the moved camera."""
    metric = "mean_joint_mae_deg"
    figure, axes = _figure(1)
    drawn = 0
    for label, adapted in (("adapted", True), ("from scratch", False)):
        points = [
            (line.row.cells[0].frames / FRAMES_A_MINUTE, line.values[metric]["mean"])
            for line in table
            if metric in line.values and bool(line.row.cells[0].start) == adapted and line.row.key != "before"
        ]
        drawn += len(points)
        axes[0].plot(*zip(*points, strict=True), marker="o", label=label) if points else None
    before = [line for line in table if line.row.key == "before" and metric in line.values]
    if before:
        axes[0].axhline(before[0].values[metric]["mean"], color="0.5", linestyle="--", label="not adapted")
    axes[0].set_xlabel("minutes recorded")
    axes[0].set_ylabel(METRICS[metric].title)
    if not drawn:
        return _closed(figure)
    axes[0].legend()
    return _embed(figure, "adaptation to a moved camera")


def _time(out: Path, group: Group) -> str:
    """MCC against seconds."""
    figure, axes = _figure(1)
    drawn = 0
    for cell in group.rows[0].cells:
        training = (read_cell(out, cell) or {}).get("training", {})
        if training.get("watched_mcc"):
            drawn += 1
            axes[0].plot(training["watched_seconds"], training["watched_mcc"], marker="o", label=f"seed {cell.seed}")
    axes[0].axhline(0.95, color="0.5", linestyle="--")
    axes[0].set_xlabel("seconds of training the first network")
    axes[0].set_ylabel("MCC on fresh poses")
    axes[0].legend() if drawn else None
    return _embed(figure, "MCC against training time") if drawn else _closed(figure)


def _traversals(out: Path, group: Group) -> str:
    """What latents do, of every row's first seed."""
    figures = []
    for row in group.rows:
        path = picture_file(out, row.cells[0])
        if read_cell(out, row.cells[0]) is not None and path.is_file():
            data = base64.b64encode(path.read_bytes()).decode("ascii")
            label = html.escape(row.label)
            figures.append(
                f"<figure><img width='480' alt='{label}' src='data:image/png;base64,{data}'>"
                f"<figcaption>{label}</figcaption></figure>"
            )
    if not figures:
        return ""
    return (
        "<details><summary>Traversals</summary><p class='note'>A row a joint: fresh pictures nearest to evenly spaced "
        "values of the latent that is its own, the other latents near their medians. Only that joint should turn, and "
        f"evenly.</p>{''.join(figures)}</details>"
    )


def _figure(count: int) -> tuple[Figure, Any]:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, count, figsize=(5.5 * count, 3.4), squeeze=False, layout="constrained")
    return figure, axes[0]


def _closed(figure: Figure) -> str:
    """Nothing, in place of a figure without a line in it."""
    from matplotlib import pyplot

    pyplot.close(figure)
    return ""


def _embed(figure: Figure, note: str) -> str:
    from matplotlib import pyplot

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, bbox_inches="tight")
    pyplot.close(figure)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"<p><img alt='{html.escape(note)}' src='data:image/png;base64,{data}'></p>"

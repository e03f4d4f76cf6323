"""Pages that hold their pictures, so that they can be sent to a colleague as one file."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ropes_ros.optional import need

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse}td,th{padding:.25em .9em;border-bottom:1px solid #ddd;text-align:left}
td+td{font-variant-numeric:tabular-nums}h2{margin-top:2em}p.note{color:#555}.bad{color:#b00}.good{color:#070}"""


def prepare_drawing(extra: str) -> None:
    """Have matplotlib draw without a screen.

    Args:
        extra: The extra of this package that brings it where it is wanted.

    Raises:
        RuntimeSetupError: matplotlib is not installed.
    """
    need("matplotlib", extra=extra)
    import matplotlib

    matplotlib.use("Agg")


def write_page(path: Path, subject: str, title: str, introduction: str, sections: Iterable[tuple[str, str]]) -> None:
    """Write a page beside its place and move it there.

    Args:
        path: Of the HTML file.
        subject: What it is about, for the window's title.
        title: Its first heading.
        introduction: HTML below it.
        sections: Headings, as text, with their HTML.
    """
    body = "\n".join(f"<h2>{html.escape(heading)}</h2>\n{content}" for heading, content in sections)
    page = (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>ropes_ros: {html.escape(subject)}</title>"
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>{introduction}{body}</html>"
    )
    temporary = path.with_name(path.name + ".partial")
    try:
        temporary.write_text(page, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def embed(figure: Figure, note: str) -> str:
    """A figure of matplotlib as HTML, with a note below; the figure is closed."""
    from matplotlib import pyplot

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    pyplot.close(figure)
    return f"{picture(buffer.getvalue(), note)}<p class='note'>{html.escape(note)}</p>"


def picture(png: bytes, name: str, width: str = "100%") -> str:
    """A PNG file's content as HTML, at most so wide."""
    data = base64.b64encode(png).decode("ascii")
    said = html.escape(name)
    return f"<img alt='{said}' title='{said}' style='max-width:{width}' src='data:image/png;base64,{data}'>"


def rows(columns: Sequence[str], cells: Iterable[Sequence[object]]) -> str:
    """A table as HTML; its cells are text."""
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in cells
    )
    return f"<table><tr>{head}</tr>{body}</table>"

"""docs/ as a site: pages, links, anchors, commands and names of tests that it tells of are there. Needs no mkdocs."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from ropes_ros.cli import app

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
PAGES = sorted(DOCS.rglob("*.md"))
EXTRA_ARGUMENTS = {"demo": "ropes_ros.cli.demo"}
"""Commands that hand their arguments on to another module's app."""

FENCE = re.compile(r"^(`{3,})(\w*)[^\n]*\n(.*?)^\1\s*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
TEST = re.compile(r"`(test_\w+)::(test_\w+)`")


def of(pages: list[Path]) -> Any:
    return pytest.mark.parametrize("page", pages, ids=lambda page: page.relative_to(DOCS).as_posix())


def listed(nav: Any) -> Iterator[str]:
    """The pages of a navigation tree."""
    if isinstance(nav, str):
        yield nav
    else:
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from listed(entry)


def text_of(page: Path) -> str:
    """A page without code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text(encoding="utf-8")))


def anchors(page: Path) -> set[str]:
    """Anchors that headings have both on the site and on GitHub, which differ in signs and in repeated headings."""
    plain = FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = [title.strip() for title in re.findall(r"^#{1,6} (.+)$", plain, re.MULTILINE)]
    bare = [re.sub(r"[^\w\s-]", "", title.lower().replace("`", "")).strip() for title in titles]
    site = {re.sub(r"[-\s]+", "-", title.encode("ascii", "ignore").decode()) for title in bare}
    return site & {title.replace(" ", "-") for title in bare}


def commands(page: Path) -> list[list[str]]:
    """The simple commands of a page's `sh` blocks, as words."""
    found = []
    for _, language, block in FENCE.findall(page.read_text(encoding="utf-8")):
        if language != "sh":
            continue
        for line in block.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;")
            lexer.whitespace_split = True
            words: list[str] = []
            for word in [*lexer, ";"]:
                if set(word) <= set("&|;"):
                    found.append(words)
                    words = []
                else:
                    words.append(word)
    return [words for words in found if words]


def test_the_navigation_names_pages_that_are_there() -> None:
    pages = list(listed(SITE["nav"]))
    assert len(pages) == len(set(pages))
    assert [page for page in pages if not (DOCS / page).is_file()] == []


def test_every_page_is_in_the_navigation_or_left_out_by_name() -> None:
    excluded, pages = SITE["exclude_docs"].split(), set(listed(SITE["nav"]))
    lost = [page.relative_to(DOCS).as_posix() for page in PAGES]
    assert [page for page in lost if page not in pages and not any(fnmatch(page, name) for name in excluded)] == []


def test_what_is_no_document_is_not_published() -> None:
    published = {".md", ".png"}
    others = [path for path in DOCS.rglob("*") if path.is_file() and path.suffix not in published]
    others = [path for path in others if "__pycache__" not in path.parts]
    excluded = SITE["exclude_docs"].split()
    assert [path for path in others if not any(fnmatch(path.name, name) for name in excluded)] == []


def test_the_site_fetches_nothing_from_elsewhere() -> None:
    assert SITE["theme"]["font"] is False
    assert not {"extra_css", "extra_javascript"} & set(SITE)
    assert [page for page in PAGES if re.search(r"!\[[^\]]*\]\(http|<(script|img|link)\b", text_of(page))] == []


@of([*PAGES])
def test_links_lead_to_what_is_there(page: Path) -> None:
    for link in LINK.findall(text_of(page)):
        if re.match(r"https?://|mailto:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), f"{link}: no such file"
        assert target.is_relative_to(ROOT), f"{link}: outside the repository"
        if anchor:
            assert anchor in anchors(target), f"{link}: no such heading, or not the same anchor everywhere"


def test_every_picture_is_shown() -> None:
    shown = {
        (page.parent / link).resolve()
        for page in (*PAGES, ROOT / "README.md")
        for link in LINK.findall(page.read_text(encoding="utf-8"))
        if link.endswith(".png")
    }
    assert set((DOCS / "images").glob("*.png")) == shown


@of([*PAGES])
def test_commands_have_their_subcommands_and_options(page: Path) -> None:
    for words in commands(page):
        if Path(words[0]).name != "ropes":
            continue
        command, context, rest = typer.main.get_command(app), None, words[1:]
        while hasattr(command, "commands"):
            assert rest and rest[0] in command.commands, " ".join(words)
            name, *rest = rest
            command = command.commands[name]
            if name in EXTRA_ARGUMENTS:
                command = typer.main.get_command(importlib.import_module(EXTRA_ARGUMENTS[name]).app)
        if "--help" in rest:
            continue
        context = command.make_context("ropes", list(rest))  # raises on what the command would not take
        context.close()


@of([*PAGES])
def test_launch_commands_have_their_files_and_arguments(tables: Any, page: Path) -> None:
    for words in commands(page):
        if words[:3] != ["ros2", "launch", "ropes_ros"]:
            continue
        name, *rest = words[3:]
        assert (ROOT / "launch" / name).is_file(), " ".join(words)
        given = {word.partition(":=")[0] for word in rest if ":=" in word}
        known = {argument for argument, _, _ in tables.launch_arguments(ROOT / "launch" / name)}
        assert given <= known, " ".join(words)


def test_tests_that_are_named_are_there() -> None:
    named = {name for page in PAGES for name in TEST.findall(page.read_text(encoding="utf-8"))}
    assert named
    for file, function in sorted(named):
        source = ROOT / "test" / f"{file}.py"
        assert source.is_file(), file
        assert f"def {function}(" in source.read_text(encoding="utf-8"), f"{file}::{function}"

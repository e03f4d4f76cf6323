"""The table of differences, the tests and the documentation say the same."""

from __future__ import annotations

import re
from pathlib import Path

from differences import DIFFERENCES

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs" / "standalone.md"


def test_the_documentation_lists_the_differences() -> None:
    section = DOCS.read_text(encoding="utf-8").partition("## What differs from rclpy")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z-]+)` \| (.+) \|$", section, re.MULTILINE)
    assert dict(rows) == DIFFERENCES and len(rows) == len(DIFFERENCES)


def test_every_difference_has_a_test() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in HERE.glob("test_*.py"))
    used = set(re.findall(r"either\(\s*\"([a-z-]+)\"", tests))
    assert used == set(DIFFERENCES)

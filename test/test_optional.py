"""What is not installed is named, with what brings it."""

from __future__ import annotations

import sys

import pytest

from ropes_ros.errors import RuntimeSetupError
from ropes_ros.html_page import prepare_drawing
from ropes_ros.optional import need


def test_missing_packages_are_named_with_the_extra_that_brings_them(monkeypatch: pytest.MonkeyPatch) -> None:
    need("numpy", extra="none")
    with pytest.raises(RuntimeSetupError, match=r"none_such is not installed; run `pip install 'ropes_ros\[some\]'`"):
        need("numpy", "none_such", extra="some")
    with pytest.raises(RuntimeSetupError, match="none_such and none_either are not installed"):
        need("none_such", "none_either", extra="some")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(RuntimeSetupError, match=r"matplotlib is not installed.*\[train\]"):
        prepare_drawing("train")

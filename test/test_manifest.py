"""package.xml is what catkin_pkg, rosdep and the build farm take, and setup.py says the same."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
SPELLINGS = {
    "opencv-python": "python3-opencv",
    "PyYAML": "python3-yaml",
    "pin": "pinocchio",
}
"""Requirements of pip whose rosdep key is not python3-<name>."""
NOT_IN_ROSDEP = {"mcap", "rosbags"}
"""Requirements of pip that no system package of rosdep provides; docs/releasing.md says so too."""


@pytest.fixture(scope="module")
def parsed() -> tuple[Any, list[str]]:
    """package.xml as catkin_pkg reads it, and its warnings."""
    package = pytest.importorskip("catkin_pkg.package", reason="catkin_pkg is not installed")
    warnings: list[str] = []
    manifest = package.parse_package(str(ROOT / "package.xml"), warnings=warnings)
    manifest.validate(warnings=warnings)
    return manifest, warnings


def test_catkin_pkg_finds_nothing_to_warn_of(parsed: tuple[Any, list[str]]) -> None:
    manifest, warnings = parsed
    assert not warnings
    assert manifest.get_build_type() == "ament_python"
    assert [(ROOT / license.file).is_file() for license in manifest.licenses] == [True]


def test_setup_and_manifest_say_the_same(parsed: tuple[Any, list[str]]) -> None:
    manifest, _ = parsed
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    for value in (manifest.licenses[0], manifest.maintainers[0].name, manifest.maintainers[0].email):
        assert f'="{value}"' in text, value


def test_every_dependency_is_a_known_key_of_rosdep(parsed: tuple[Any, list[str]]) -> None:
    manifest, _ = parsed
    kinds = yaml.safe_load((ROOT / "test" / "rosdep_keys.yaml").read_text(encoding="utf-8"))
    known = {*kinds["ros"], *kinds["system"]}
    asked = {depend.name for group in (manifest.exec_depends, manifest.test_depends) for depend in group}
    assert asked == known
    assert not {name for name in asked if name.endswith("-pip")}, "a released package may not depend on these"


def test_what_pip_installs_for_everyone_rosdep_installs_too(parsed: tuple[Any, list[str]]) -> None:
    manifest, _ = parsed
    asked = {depend.name for depend in manifest.exec_depends}
    (call,) = (
        node
        for node in ast.walk(ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "setup"
    )
    required = next(ast.literal_eval(k.value) for k in call.keywords if k.arg == "install_requires")
    names = {re.split(r"[<>=~!\[; ]", requirement)[0] for requirement in required}
    lacking = {name for name in names if SPELLINGS.get(name, f"python3-{name}") not in asked}
    assert lacking == NOT_IN_ROSDEP
    notes = (ROOT / "docs" / "releasing.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in notes for name in lacking)

"""The workflows of continuous integration parse, and check what they are there for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

WORKFLOWS = Path(__file__).resolve().parent.parent / ".github" / "workflows"
DISTROS = ["humble", "jazzy", "kilted", "lyrical", "rolling"]
OFFICIAL = re.compile(r"actions/[\w-]+@v\d+(\.\d+\.\d+)?")
PINNED = re.compile(r"[\w-]+/[\w./-]+@[0-9a-f]{40}")


def workflow(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((WORKFLOWS / f"{name}.yml").read_text(encoding="utf-8"))
    return content


def commands(job: dict[str, Any]) -> str:
    return "\n".join(step.get("run", "") for step in job["steps"])


@pytest.mark.parametrize("path", sorted(WORKFLOWS.iterdir()), ids=lambda path: path.name)
def test_every_workflow_runs_on_pushes_with_pinned_actions(path: Path) -> None:
    content = workflow(path.stem)
    assert set(content[True]) == {"push", "pull_request"}, "YAML reads the key `on` as true"
    for job in content["jobs"].values():
        assert re.fullmatch(r"ubuntu-\d\d\.04", job["runs-on"])
        for step in job["steps"]:
            used = step.get("uses")
            assert ("run" in step) != (used is not None)
            assert used is None or OFFICIAL.fullmatch(used) or PINNED.fullmatch(used), used


def test_every_distribution_is_built_and_only_rolling_may_fail() -> None:
    jobs = workflow("colcon")["jobs"]
    job = jobs["industrial_ci"]
    assert job["strategy"]["matrix"]["distro"] == DISTROS
    assert job["continue-on-error"] == "${{ matrix.distro == 'rolling' }}"
    assert "continue-on-error" not in jobs["readme"]
    assert set(jobs["readme"]["strategy"]["matrix"]["distro"]) <= set(DISTROS)


def test_what_pip_installs_beside_ros_is_what_the_readme_says() -> None:
    jobs = workflow("colcon")["jobs"]
    readme = (WORKFLOWS.parent.parent / "README.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^pip install (.* mcap .*)$", readme, re.MULTILINE)
    assert line in commands(jobs["readme"])
    nodes = jobs["industrial_ci"]["steps"][1]["env"]["AFTER_INSTALL_TARGET_DEPENDENCIES"]
    packages = nodes.partition("install --user ")[2].split()
    assert packages and set(packages) <= set(line.split())


def test_plain_python_and_the_documents_are_checked_too() -> None:
    (job,) = workflow("test")["jobs"].values()
    assert "3.10" in job["strategy"]["matrix"]["python"] and "make test" in commands(job)
    (job,) = workflow("docs")["jobs"].values()
    assert "mkdocs build --strict" in commands(job) and "docs/requirements.txt" in commands(job)

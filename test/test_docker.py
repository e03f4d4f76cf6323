"""The Dockerfile copies what is there, installs what is pinned, and does not run as root."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = ROOT / "docker" / "Dockerfile"
ENTRYPOINT = ROOT / "docker" / "entrypoint.sh"


class Stage(NamedTuple):
    """One target: what it starts from and its instructions."""

    name: str
    base: str
    lines: list[tuple[str, str]]


def stages() -> dict[str, Stage]:
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found: dict[str, Stage] = {}
    for line in re.sub(r"\\\n", " ", text).splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            current = found[name] = Stage(name, base, [])
        elif word and found:
            current.lines.append((word, rest.strip()))
    return found


def chain(name: str) -> list[Stage]:
    """A target and all that it is built on, the bottom first."""
    known = stages()
    stage = known[name]
    return [*(chain(stage.base) if stage.base in known else []), stage]


def ignored(path: Path) -> bool:
    """Whether .dockerignore keeps a file from the builder: the last pattern that matches it or a folder above wins."""
    names = [path.as_posix(), *(parent.as_posix() for parent in path.parents)]
    verdict = False
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        pattern = line.lstrip("!").replace("**/", "*")
        if any(fnmatch.fnmatch(name, pattern) for name in names):
            verdict = not line.startswith("!")
    return verdict


def test_targets_are_what_the_documents_name_and_the_last_is_the_robots() -> None:
    assert list(stages()) == ["system", "python", "build", "dev", "robot"]
    assert [stage.name for stage in chain("robot")] == ["system", "python", "robot"]
    assert stages()["system"].base == "ros:${ROS_DISTRO}-ros-base"
    text = (ROOT / "docs" / "docker.md").read_text(encoding="utf-8")
    arguments = re.findall(r"^ARG (\w+)=(\S+)$", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"^\| `(\w+)` \| `(\S+)` \|", text, re.MULTILINE)) == set(arguments)


def test_what_is_copied_is_there_and_reaches_the_builder() -> None:
    for stage in stages().values():
        for word, rest in stage.lines:
            assert word != "ADD"
            if word != "COPY" or rest.startswith("--from=build "):
                continue
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert not ignored(Path(source)), source
    assert ignored(Path("test/test_docker.py")) and ignored(Path(".git/config"))
    assert ignored(Path("ropes_ros/cli/__pycache__")) and ignored(Path("models/arm6/checkpoint.pt"))


def test_the_build_has_all_that_setup_installs() -> None:
    copied = {source for word, rest in stages()["build"].lines if word == "COPY" for source in rest.split()[:-1]}
    assert {"setup.py", "setup.cfg", "package.xml", "resource", "ropes_ros"} <= copied
    assert set(re.search(r"\*tree\((.+)\)", (ROOT / "setup.py").read_text())[1].replace('"', "").split(", ")) <= copied  # type: ignore[index]


def test_whatever_pip_installs_is_pinned() -> None:
    pinned = set(re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE))
    installed = []
    for stage in stages().values():
        for word, rest in stage.lines:
            for command in rest.split("&&") if word == "RUN" else ():
                if "/pip install" in command:
                    words = shlex.split(command)
                    assert words[1:5] == ["install", "--no-cache-dir", "-c", "/opt/ropes/constraints.txt"]
                    installed += words[5:]
    assert "${ONNXRUNTIME}" in installed
    assert {"onnxruntime", "onnxruntime-gpu"} <= pinned
    assert set(installed) - {"${ONNXRUNTIME}"} <= pinned


@pytest.mark.parametrize("name", ["robot", "dev"])
def test_containers_run_as_a_user_through_the_entry_point(name: str) -> None:
    lines = [line for stage in chain(name) for line in stage.lines]
    assert [rest for word, rest in lines if word == "USER"][-1] == "ropes"
    assert any(word == "RUN" and "useradd" in rest for word, rest in lines)
    (command,) = (json.loads(rest) for word, rest in lines if word == "ENTRYPOINT")
    assert ("COPY", f"docker/entrypoint.sh /usr/local/bin/{command[0]}") in lines
    apt = [rest for word, rest in lines if word == "RUN" and "apt-get install" in rest]
    assert all("--no-install-recommends" in rest and "rm -rf /var/lib/apt/lists/*" in rest for rest in apt)


def test_the_entry_point_sets_up_and_hands_over(tmp_path: Path) -> None:
    script = ENTRYPOINT.read_text(encoding="utf-8")
    assert os.access(ENTRYPOINT, os.X_OK)
    for file in ("opt/ros/jazzy/setup.bash", "opt/ropes/install/setup.bash", "opt/ropes/venv/bin/activate"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text(f'export SEEN="$SEEN {Path(file).parts[1:3]}"')
    library = tmp_path / "opt/ropes/venv/lib/python3.12/site-packages/nvidia/cudnn/lib"
    library.mkdir(parents=True)
    moved = tmp_path / "entrypoint.sh"
    moved.write_text(script.replace("/opt/", f"{tmp_path}/opt/"))
    done = subprocess.run(
        ["bash", moved, "bash", "-c", 'echo "$LD_LIBRARY_PATH|$SEEN|$0"; exit 7', "a b"],
        env={"PATH": os.environ["PATH"], "ROS_DISTRO": "jazzy", "LD_LIBRARY_PATH": "/before"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 7, done.stderr
    libraries, seen, argument = done.stdout.strip().split("|")
    assert libraries == f"{library}:/before" and argument == "a b"
    assert [part in seen for part in ("jazzy", "install", "venv")] == [True] * 3


def test_the_dev_container_names_a_target_of_the_dockerfile() -> None:
    folder = ROOT / ".devcontainer"
    content = json.loads((folder / "devcontainer.json").read_text(encoding="utf-8"))
    build = content["build"]
    assert (folder / build["dockerfile"]).resolve() == DOCKERFILE
    assert (folder / build["context"]).resolve() == ROOT
    assert build["target"] in stages()
    assert ("USER", content["remoteUser"]) in stages()[build["target"]].lines

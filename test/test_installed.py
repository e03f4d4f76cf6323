"""An installed package finds its own data files, in every layout that it can be installed in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ASK = "import ropes_ros.paths; print(ropes_ros.paths.__file__); print(ropes_ros.paths.share_dir())"
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
SITE_PACKAGES = Path("lib") / PYTHON / "site-packages"


def lay_out(packages: Path, share: Path) -> None:
    """The files that share_dir needs, as an installer would put them."""
    (packages / "ropes_ros").mkdir(parents=True)
    for name in ("__init__.py", "errors.py", "paths.py"):
        shutil.copy(ROOT / "ropes_ros" / name, packages / "ropes_ros")
    (share / "ropes_ros" / "config" / "robots").mkdir(parents=True)


def asked(packages: Path, folder: Path, **variables: str) -> tuple[Path, Path]:
    """The running module's file and the data folder that it finds, with `packages` first on the path."""
    environment = {name: value for name, value in os.environ.items() if name != "AMENT_PREFIX_PATH"}
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        env=environment | {"PYTHONPATH": str(packages)} | variables,
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    file, share = done.stdout.splitlines()
    return Path(file), Path(share)


@pytest.mark.parametrize(
    "packages, share",
    [
        pytest.param(SITE_PACKAGES, "share", id="prefix: a wheel, pip --user, a colcon install"),
        pytest.param(Path("local") / "lib" / PYTHON / "dist-packages", "local/share", id="Debian's /usr/local"),
        pytest.param(Path(), "share", id="pip --target"),
    ],
)
def test_an_installation_finds_its_own_share_folder(packages: Path, share: str, tmp_path: Path) -> None:
    lay_out(tmp_path / "own" / packages, tmp_path / "own" / share)
    lay_out(tmp_path / "other" / SITE_PACKAGES, tmp_path / "other" / "share")
    file, found = asked(tmp_path / "own" / packages, tmp_path, AMENT_PREFIX_PATH=str(tmp_path / "other"))
    assert file.is_relative_to(tmp_path / "own")
    assert found == tmp_path / "own" / share / "ropes_ros"


def test_a_package_apart_from_its_share_folder_looks_in_the_workspaces_that_are_sourced(tmp_path: Path) -> None:
    lay_out(tmp_path / "apart", tmp_path / "prefix" / "share")
    workspaces = os.pathsep.join([str(tmp_path / "empty"), "", str(tmp_path / "prefix")])
    assert asked(tmp_path / "apart", tmp_path, AMENT_PREFIX_PATH=workspaces)[1] == tmp_path / "prefix/share/ropes_ros"


def test_a_symlinked_package_finds_its_checkout(tmp_path: Path) -> None:
    """As `colcon build --symlink-install` leaves it: the build folder's package is a link into the source."""
    lay_out(tmp_path / "source", tmp_path / "source" / "unused")
    (tmp_path / "source" / "config" / "robots").mkdir(parents=True)
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "ropes_ros").symlink_to(tmp_path / "source" / "ropes_ros")
    assert asked(tmp_path / "build", tmp_path)[1] == tmp_path / "source"


def test_without_data_files_it_says_where_it_looked(tmp_path: Path) -> None:
    lay_out(tmp_path / "apart", tmp_path / "elsewhere")
    with pytest.raises(AssertionError, match=rf"{tmp_path}/apart/share/ropes_ros, .*source its workspace"):
        asked(tmp_path / "apart", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--editable",)], ids=["wheel", "editable"])
def test_pip_installs_the_data_files_and_the_executables(options: tuple[str, ...], tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".git", ".venv", "out", "build", "*.egg-info"))
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", "--no-deps", *options, "."]
    done = subprocess.run(install, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    clean = {name: value for name, value in os.environ.items() if name not in ("AMENT_PREFIX_PATH", "PYTHONPATH")}
    answer = subprocess.run([python, "-c", ASK], cwd=tmp_path, env=clean, capture_output=True, text=True, check=True)
    wanted = source if options else environment / "share" / "ropes_ros"
    assert Path(answer.stdout.splitlines()[1]) == wanted
    assert (wanted / "models" / "arm6" / "model.onnx").is_file() and (wanted / "config" / "sros2").is_dir()
    assert {"ropes", "estimator", "commander", "recorder", "sim_arm"} <= {
        path.name for path in (environment / "bin").iterdir()
    }


@pytest.mark.slow
@pytest.mark.skipif(find_spec("colcon_core") is None, reason="colcon is missing: pip install colcon-common-extensions")
@pytest.mark.parametrize("options", [(), ("--symlink-install",), ("--merge-install",)], ids=["plain", "links", "merge"])
def test_colcon_builds_it_and_the_workspace_finds_its_files(options: tuple[str, ...], tmp_path: Path) -> None:
    if "--symlink-install" in options and int(version("setuptools").split(".")[0]) >= 80:
        pytest.skip("colcon cannot link Python packages with setuptools 80 or later")
    source = tmp_path / "src" / "ropes_ros"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".git", ".venv", "out", "build", "*.egg-info"))
    colcon = [sys.executable, "-c", "import sys; from colcon_core.command import main; sys.exit(main())"]
    build = [*colcon, "--log-base", "log", "build", *options]
    done = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    prefix = tmp_path / "install" / ("" if "--merge-install" in options else "ropes_ros")
    script = prefix / "lib" / "ropes_ros" / "estimator"
    python = sys.executable if "--symlink-install" in options else "/usr/bin/env python3"
    assert script.read_text(encoding="utf-8").startswith(f"#!{python}\n") and os.access(script, os.X_OK)
    assert (prefix / "share/ament_index/resource_index/packages/ropes_ros").is_file()
    ask = ["bash", "-c", f'source install/setup.bash && exec "{sys.executable}" -c "{ASK}"']
    clean = {name: value for name, value in os.environ.items() if name not in ("AMENT_PREFIX_PATH", "PYTHONPATH")}
    answer = subprocess.run(ask, cwd=tmp_path, env=clean, capture_output=True, text=True, check=True)
    wanted = source if "--symlink-install" in options else prefix / "share" / "ropes_ros"
    assert Path(answer.stdout.splitlines()[1]) == wanted

"""Where robot descriptions and their meshes are: files, ROS packages, Python packages; xacro expanded."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ropes_ros.ament import package_share
from ropes_ros.errors import RobotError

DOWNLOADED = "robot_descriptions"
"""The Python package whose modules download a description at first use and then tell its path."""
ROBOTS_HELP = "pip install 'ropes_ros[robots]'"


def locate(entry: object, source: Path) -> Path:
    """The file that a preset's key `urdf` names.

    Args:
        entry: A path, relative to the preset's folder; or `{package: NAME, path: PATH}`: PATH below the share folder
            of a ROS package, or below the place where a Python package (its name as pip knows it) is installed. Of
            the package `robot_descriptions`, PATH is the name of one of its modules, which downloads what it is
            asked for the first time.
        source: The preset's file.

    Raises:
        RobotError: There is no such package or file.
    """
    if isinstance(entry, str):
        path = (source.parent / entry).resolve()
        if not path.is_file():
            raise RobotError(f"{source}: URDF {path} does not exist")
        return path
    if not isinstance(entry, Mapping) or set(entry) != {"package", "path"}:
        raise RobotError(f"{source}: urdf must be a path, or a mapping with the keys package and path, got {entry!r}")
    return in_package(str(entry["package"]), str(entry["path"]), str(source))


def in_package(package: str, path: str, where: str) -> Path:
    """A file of an installed ROS or Python package; see `locate`.

    Raises:
        RobotError: There is no such package or file; the message begins with `where`.
    """
    if package == DOWNLOADED:
        return _downloaded(path, where)
    share = package_share(package)
    if share is not None:
        file = share / path
    else:
        try:
            file = Path(str(importlib.metadata.distribution(package).locate_file(path)))
        except importlib.metadata.PackageNotFoundError:
            raise RobotError(
                f"{where}: package '{package}', which holds the robot's files, is not installed:"
                f" pip install {package}, or source the ROS workspace that has it"
            ) from None
    if not file.is_file():
        raise RobotError(f"{where}: package '{package}' is installed, but has no file {path}: try another version")
    return file.resolve()


def _downloaded(module: str, where: str) -> Path:
    if not module.replace("_", "").isalnum():
        raise RobotError(f"{where}: '{module}' is not the name of a module of {DOWNLOADED}")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # it tells of its download
            found = importlib.import_module(f"{DOWNLOADED}.{module}")
    except ModuleNotFoundError as error:
        raise RobotError(f"{where}: needs {error.name}: pip install {DOWNLOADED}") from None
    except Exception as error:  # whatever git or the network raise
        reason = " ".join(str(error).split())
        raise RobotError(f"{where}: {DOWNLOADED}.{module} cannot be downloaded, see to the network: {reason}") from None
    path = getattr(found, "URDF_PATH", None) or getattr(found, "MJCF_PATH", None)
    if not path or not Path(path).is_file():
        raise RobotError(f"{where}: {DOWNLOADED}.{module} has no URDF and no MJCF file")
    return Path(path).resolve()


def parse_description(path: Path) -> ElementTree.Element:
    """A URDF or MJCF file as an XML tree.

    Prefixes of tags and attributes need not be declared (`drake:acceleration`, `gazebo:...`): ROS's own reader does
    not ask for it, and files in use do without.

    Raises:
        RobotError: It cannot be read, or is no XML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RobotError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RobotError(f"{path} is not a readable URDF: it is no UTF-8 text") from None
    used = dict.fromkeys(re.findall(r"[<\s]([A-Za-z_][\w.-]*):[A-Za-z_][\w.-]*", re.sub(r"\"[^\"]*\"", '""', text)))
    new = "".join(
        f' xmlns:{name}="{name}"' for name in used if name not in ("xml", "xmlns") and f"xmlns:{name}" not in text
    )
    try:
        return ElementTree.fromstring(re.sub(r"<(robot|mujoco)\b", rf"<\1{new}", text, count=1))
    except (ElementTree.ParseError, ValueError) as error:  # ValueError: an encoding that it declares and is not
        raise RobotError(f"{path} is not a readable URDF: it is no XML: {error}") from None


def packages_of(preset: Mapping[str, Any], source: Path) -> dict[str, Path]:
    """The folders of the preset's key `packages`, in which `package://NAME/` is looked for first.

    Raises:
        RobotError: The key is no mapping of names to folders.
    """
    entries = preset.get("packages", {})
    if not isinstance(entries, Mapping):
        raise RobotError(f"{source}: packages must map names of packages to folders, got {entries!r}")
    folders = {str(name): (source.parent / str(folder)).resolve() for name, folder in entries.items()}
    for name, folder in folders.items():
        if not folder.is_dir():
            raise RobotError(f"{source}: packages: {name}: {folder} is no folder")
    return folders


def resolve_mesh(name: str, urdf: Path, packages: Mapping[str, Path], mesh_folder: str = "") -> Path:
    """The file that a URDF names as a mesh or texture.

    `package://NAME/...` is looked for in the folder given for NAME, the share folder that AMENT_PREFIX_PATH leads to,
    a folder NAME in ROS_PACKAGE_PATH, and a folder NAME above the URDF. Other names are relative to the URDF. Last of
    all, the file's bare name is looked for in `mesh_folder`, as MuJoCo does.

    Raises:
        RobotError: It is in none of these places.
    """
    places = list(_places(name, urdf, packages))
    places.append(urdf.parent / mesh_folder / Path(name).name)
    for place in places:
        if place.is_file():
            return place.resolve()
    raise RobotError(
        f"{urdf}: file '{name}' is not there (looked for {', '.join(str(place) for place in dict.fromkeys(places))}):"
        " give its path relative to the URDF, source the workspace of its package, or name the package's folder"
        " in the preset (packages: {NAME: FOLDER}) or with --package-dir NAME=FOLDER"
    )


def _places(name: str, urdf: Path, packages: Mapping[str, Path]) -> Iterator[Path]:
    scheme, separator, rest = name.partition("://")
    if not separator or scheme == "file":
        yield urdf.parent / (rest if separator else name)
        return
    package, _, inside = rest.partition("/")
    if package in packages:
        yield packages[package] / inside
    share = package_share(package)
    if share is not None:
        yield share / inside
    for entry in filter(None, os.environ.get("ROS_PACKAGE_PATH", "").split(os.pathsep)):
        for found in (Path(entry), Path(entry) / package):
            if found.name == package:
                yield found / inside
    for folder in urdf.parents:
        if folder.name == package:
            yield folder / inside


def expand_xacro(path: Path, arguments: Mapping[str, str]) -> str:
    """The URDF that a xacro file makes.

    Args:
        path: The file.
        arguments: Values of its arguments (`xacro:arg`).

    Raises:
        RobotError: There is no xacro, or it refuses the file.
    """
    help_text = (
        "pip install xacro, or apt-get install ros-DISTRO-xacro and source it; or expand it elsewhere"
        f" (xacro {path.name} > robot.urdf) and give robot.urdf"
    )
    program = shutil.which("xacro")
    if program is not None:
        words = [program, str(path), *(f"{name}:={value}" for name, value in arguments.items())]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout
        reason = done.stderr.strip().splitlines()
        raise RobotError(f"xacro refuses {path}: {reason[-1] if reason else f'status {done.returncode}'}")
    try:
        xacro: Any = importlib.import_module("xacro")
    except ImportError:
        raise RobotError(f"{path} is a xacro file, and xacro is not installed: {help_text}") from None
    try:
        return str(xacro.process_file(str(path), mappings=dict(arguments)).toxml())
    except Exception as error:  # xacro raises types of its own, and those of what it evaluates
        raise RobotError(f"xacro refuses {path}: {' '.join(str(error).split()) or type(error).__name__}") from None

"""A preset's description as MuJoCo can read it: absolute file names, COLLADA meshes converted, a colour by material."""

from __future__ import annotations

import copy
import hashlib
import os
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import numpy as np

from ropes_ros.description import robot_element
from ropes_ros.errors import RobotError
from ropes_ros.model_files import ROBOTS_HELP
from ropes_ros.robot import Robot

Element = ElementTree.Element

_VERSION = b"1"  # of what is made from a mesh: part of the cache's key


def mujoco_urdf(robot: Robot) -> str:
    """The preset's URDF (XML) for MuJoCo's reader.

    Joints that the preset does not name are fixed. Visual and static links are kept. A mesh that MuJoCo does not read,
    such as COLLADA (`.dae`), or reads without its colours, becomes one OBJ file for each of its materials, in a cache
    folder of the user.

    Raises:
        RobotError: A mesh is not there or cannot be converted.
    """
    root = robot_element(robot)
    for link in root.iterfind("link"):
        for shape in [child for child in link if child.tag in ("visual", "collision")]:
            mesh = shape.find("geometry/mesh")
            if mesh is None:
                continue
            file = Path(unquote(urlsplit(mesh.get("filename", "")).path))
            mesh.set("filename", str(file))
            if not _readable(file) or (shape.tag == "visual" and _has_materials(file, shape)):
                _replace(link, shape, _converted(file))
    options = ElementTree.SubElement(root, "mujoco")
    ElementTree.SubElement(options, "compiler", discardvisual="false", fusestatic="false", strippath="false")
    return ElementTree.tostring(root, encoding="unicode")


def _readable(file: Path) -> bool:
    """Whether MuJoCo reads a mesh itself: OBJ, and STL unless it is text."""
    if file.suffix.lower() == ".stl":
        with file.open("rb") as stream:
            head = stream.read(84)
        return file.stat().st_size == 84 + 50 * int.from_bytes(head[80:84], "little")
    return file.suffix.lower() == ".obj"


def _has_materials(file: Path, shape: Element) -> bool:
    """Whether an OBJ has colours of its own, which MuJoCo would leave out, and can be taken apart here."""
    if file.suffix.lower() != ".obj" or shape.find("material") is not None or not find_spec("trimesh"):
        return False
    with file.open("rb") as stream:
        return b"mtllib" in stream.read(4096)


def _replace(link: Element, shape: Element, parts: list[tuple[Path, str]]) -> None:
    """Put copies of a link's shape in its place, one for each file, in the file's colour where it has none itself."""
    place = list(link).index(shape)
    link.remove(shape)
    for number, (file, rgba) in enumerate(parts):
        part = copy.deepcopy(shape)
        mesh = part.find("geometry/mesh")
        assert mesh is not None
        mesh.set("filename", str(file))
        if part.tag == "visual" and part.find("material") is None and rgba:
            material = ElementTree.SubElement(part, "material", name=f"{file.stem}")
            ElementTree.SubElement(material, "color", rgba=rgba)
        link.insert(place + number, part)


def _cache() -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ropes_ros" / "meshes"
    try:
        base.mkdir(parents=True, exist_ok=True)
    except OSError:  # a home that cannot be written to
        base = Path(tempfile.gettempdir()) / f"ropes_ros-meshes-{os.getuid()}"
        base.mkdir(exist_ok=True)
    return base


def _converted(file: Path) -> list[tuple[Path, str]]:
    """OBJ files of a mesh, one for each material, and their colours as URDF writes them ("" for none).

    Made once for each content of the file. The unit that it declares is heeded, its upward axis is not: ROS's own
    tools do the same.
    """
    key = hashlib.sha256(_VERSION + file.read_bytes()).hexdigest()[:24]
    index = _cache() / f"{key}.txt"
    if not index.is_file():
        parts = []
        for number, (text, rgba) in enumerate(_load(file)):
            part = index.with_name(f"{key}-{number}.obj")
            _write(part, text)
            parts.append(f"{part.name} {rgba}".rstrip())
        _write(index, "\n".join(parts))
    lines = [line.partition(" ") for line in index.read_text(encoding="utf-8").splitlines()]
    return [(index.with_name(name), rgba) for name, _, rgba in lines]


def _write(path: Path, text: str) -> None:
    """Write beside the place and move there, so that no other process reads half a file."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        file.write(text)
    os.replace(file.name, path)


def _load(file: Path) -> list[tuple[str, str]]:
    """Each material's triangles as OBJ, and its colour."""
    try:
        import trimesh

        if file.suffix.lower() == ".dae":
            import collada  # noqa: F401  (without it, trimesh says that it knows no such files)
    except ImportError as error:
        raise RobotError(
            f"{file}: MuJoCo reads binary STL and OBJ; to convert others, {error.name} is missing: {ROBOTS_HELP}"
        ) from None
    try:
        scene: Any = trimesh.load_scene(str(file))
        if scene.units not in (None, "meters"):
            scene = scene.convert_units("meters")
        pieces: list[Any] = list(scene.dump(concatenate=False))
    except Exception as error:  # readers of damaged files raise whatever they stumble over
        raise RobotError(f"{file}: this mesh cannot be converted: {' '.join(str(error).split())}") from None
    grouped: dict[str, list[Any]] = {}
    for piece in pieces:
        if isinstance(piece, trimesh.Trimesh) and len(piece.faces):
            grouped.setdefault(_colour(piece), []).append(piece)
    if not grouped:
        raise RobotError(f"{file}: this mesh holds no triangles")
    return [(_obj(group), rgba) for rgba, group in grouped.items()]


def _colour(piece: Any) -> str:
    material = getattr(piece.visual, "material", None)
    colour = getattr(material, "main_color", None)
    if colour is None:
        return ""
    return " ".join(f"{channel / 255:.4g}" for channel in np.asarray(colour, dtype=float)[:3]) + " 1"


def _obj(pieces: list[Any]) -> str:
    lines, before = [], 1
    for piece in pieces:
        lines += ["v {:.8g} {:.8g} {:.8g}".format(*vertex) for vertex in piece.vertices]
        lines += ["f {} {} {}".format(*(face + before)) for face in piece.faces]
        before += len(piece.vertices)
    return "\n".join(lines) + "\n"

"""A preset's URDF as other ROS programs can take it from a topic: complete, and the preset's joints alone move."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from ropes_ros.ament import package_share
from ropes_ros.errors import RobotError
from ropes_ros.robot import Robot

Element = ElementTree.Element

OF_MOVABLE_JOINTS = ("axis", "limit", "dynamics", "mimic", "calibration", "safety_controller")
"""Children of a joint that a fixed one does not have."""


def robot_description(robot: Robot) -> str:
    """The URDF for a `robot_description` parameter: what `robot_element` gives, as text."""
    return ElementTree.tostring(robot_element(robot), encoding="unicode")


def robot_element(robot: Robot) -> Element:
    """The preset's URDF as an XML tree of its own.

    Joints that the preset does not name are fixed where `Robot` keeps them, at their neutral position; files of meshes
    and textures are absolute `file://` URIs; MuJoCo's options are left out.

    Raises:
        RobotError: A file of a mesh or texture is not there.
    """
    root = ElementTree.parse(robot.urdf_path).getroot()
    options = root.find("mujoco/compiler")
    mesh_folder = "" if options is None else options.get("meshdir", "")
    for element in root.findall("mujoco"):
        root.remove(element)
    for joint in root.findall("joint"):
        if joint.get("name") not in robot.joint_names:
            joint.set("type", "fixed")
            for child in [child for child in joint if child.tag in OF_MOVABLE_JOINTS]:
                joint.remove(child)
    for element in root.iter():
        if element.tag in ("mesh", "texture") and (name := element.get("filename")):
            element.set("filename", _resolved(name, robot.urdf_path, mesh_folder).as_uri())
    return root


def root_link(root: Element) -> str:
    """The link of a URDF that is no joint's child."""
    children = {child.get("link") for child in root.iterfind("joint/child")}
    return next(name for link in root.iterfind("link") if (name := str(link.get("name"))) not in children)


def _resolved(name: str, urdf: Path, mesh_folder: str) -> Path:
    """The file of a mesh: of a package, beside the URDF, or, as MuJoCo reads it, in the compiler's meshdir."""
    places = [urdf.parent / mesh_folder / Path(name).name]
    if name.startswith("package://"):
        package, _, inside = name.removeprefix("package://").partition("/")
        share = package_share(package)
        places = ([] if share is None else [share / inside]) + places
    else:
        places.insert(0, urdf.parent / name.removeprefix("file://"))
    for place in places:
        if place.is_file():
            return place.resolve()
    raise RobotError(
        f"{urdf}: file '{name}' is not there (looked for {', '.join(str(place) for place in places)}):"
        " give its path relative to the URDF, or source the workspace of its package"
    )

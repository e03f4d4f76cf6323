"""A preset's URDF as other ROS programs can take it from a topic: complete, and the preset's joints alone move."""

from __future__ import annotations

from xml.etree import ElementTree

from ropes_ros.errors import RobotError
from ropes_ros.model_files import parse_description, resolve_mesh
from ropes_ros.robot import Robot, is_mjcf

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
        RobotError: A file of a mesh or texture is not there, or the robot's description is no URDF.
    """
    if is_mjcf(robot.urdf_path):
        raise RobotError(f"{robot.urdf_path} is MJCF, which other ROS programs cannot read: give a preset of the URDF")
    root = parse_description(robot.urdf_path)
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
            file = resolve_mesh(name, robot.urdf_path, robot.packages, mesh_folder)
            element.set("filename", file.as_uri())
    return root


def root_link(root: Element) -> str:
    """The link of a URDF that is no joint's child."""
    children = {child.get("link") for child in root.iterfind("joint/child")}
    return next(name for link in root.iterfind("link") if (name := str(link.get("name"))) not in children)

"""A preset for Gazebo: its URDF with controllers and a camera, and the controllers' parameters.

The camera stands where the preset's `sim.camera` puts it and sees what the built-in simulator's camera sees. Gazebo's
own camera_info gives the principal point as half the image's size, half a pixel beyond that of the built-in simulator,
which counts from pixel centres; the pictures agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pinocchio
import yaml

from ropes_ros.description import robot_element, root_link
from ropes_ros.errors import RobotError
from ropes_ros.robot import Robot
from ropes_ros.simulation import CAMERA_KEYS, optical_rotation, section

Array = npt.NDArray[np.float64]
Element = ElementTree.Element

CAMERA_LINK = "camera_link"
"""Gazebo's camera: it looks along x, with y to the left and z up."""
OPTICAL_FRAME = "camera_optical_frame"
"""The frame of the images: x right, y down, z forward (REP 103)."""
IMAGE_TOPIC, CAMERA_INFO_TOPIC = "camera/image_raw", "camera/camera_info"
STATES, TRAJECTORIES = "joint_state_broadcaster", "joint_trajectory_controller"
"""The controllers; the second takes `joint_trajectory_controller/joint_trajectory`."""
CONTROL_RATE = 500
"""Updates of the controllers per simulated second; the world's physics step is as long."""
POSITION_GAIN = 0.5
"""Share of a joint's position error that is made good within one update: it lags by 1 / (gain * rate) = 4 ms."""
CLIP = (0.02, 20.0)
"""Distances in m between which the camera sees."""
NOISE = 0.005
"""Standard deviation of the pixels' noise, of 1: about one of 255 levels. A camera without any, before an arm at rest,
gives the same picture again and again, as one does that is stuck."""


@dataclass(frozen=True)
class Camera:
    """The camera's images: width and height in pixels, rate in Hz of simulated time.

    Raises:
        RobotError: One of them is out of range.
    """

    width: int = 320
    height: int = 240
    rate: float = 30.0

    def __post_init__(self) -> None:
        for name, lowest, highest in (("width", 16, 4096), ("height", 16, 4096), ("rate", 0.1, 1000)):
            if not lowest <= getattr(self, name) <= highest:
                raise RobotError(f"camera_{name} is {getattr(self, name)}: choose {lowest} to {highest}")


def gazebo_urdf(robot: Robot, parameters: Path, camera: Camera | None = None, namespace: str = "") -> str:
    """The robot as Gazebo takes it: fixed to the world, position controlled, seen by its camera.

    Args:
        robot: A robot whose preset has `sim.camera`.
        parameters: The controllers' parameter file, see `controller_parameters`.
        camera: The camera's images.
        namespace: Namespace of the controllers.

    Returns:
        URDF (XML). Links, joints, limits and inertias are those of the preset's URDF; its own `ros2_control` and
        model-wide `gazebo` elements are left out.

    Raises:
        RobotError: The preset has no or a malformed `sim.camera`, its URDF has no mass where Gazebo needs one, has
            links of the camera's names, or a mesh is not there.
    """
    placement = section(robot, "camera", CAMERA_KEYS)
    root = robot_element(robot)
    for element in [*root.findall("ros2_control"), *root.findall("gazebo")]:
        if element.tag == "ros2_control" or element.get("reference") is None:
            root.remove(element)
    base = root_link(root)
    _check(root, base, robot)
    if base != "world":
        ElementTree.SubElement(root, "link", name="world")
        _add_fixed_joint(root, "world", base, np.zeros(3), np.eye(3))
    optical = optical_rotation(placement["position"], placement["look_at"])
    forward = np.column_stack([optical[:, 2], -optical[:, 0], -optical[:, 1]])
    for link in (CAMERA_LINK, OPTICAL_FRAME):
        ElementTree.SubElement(root, "link", name=link)
    _add_fixed_joint(root, robot.base_link, CAMERA_LINK, placement["position"], forward)
    _add_fixed_joint(root, CAMERA_LINK, OPTICAL_FRAME, np.zeros(3), forward.T @ optical)
    _add_camera(root, placement["fovy"][0], camera or Camera())
    _add_control(root, robot, parameters, namespace)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode")


def controller_parameters(robot: Robot, namespace: str = "") -> str:
    """The parameter file (YAML) of the controller manager and the controllers of all joints of the preset.

    Trajectories may end in motion and go on from the last one's: the commander sends them in overlapping pieces.

    Args:
        robot: The robot.
        namespace: Namespace of the controllers.
    """
    prefix = f"/{namespace.strip('/')}/" if namespace.strip("/") else ""
    joints, interfaces = list(robot.joint_names), ["position", "velocity"]
    nodes = {
        "controller_manager": {
            "update_rate": CONTROL_RATE,
            STATES: {"type": f"{STATES}/JointStateBroadcaster"},
            TRAJECTORIES: {"type": f"{TRAJECTORIES}/JointTrajectoryController"},
        },
        STATES: {"joints": joints, "interfaces": interfaces},
        TRAJECTORIES: {
            "joints": list(joints),
            "command_interfaces": ["position"],
            "state_interfaces": list(interfaces),
            "allow_nonzero_velocity_at_trajectory_end": True,
            "interpolate_from_desired_state": True,
        },
    }
    content = {f"{prefix}{name}": {"ros__parameters": parameters} for name, parameters in nodes.items()}
    return yaml.safe_dump(content, sort_keys=False)


def horizontal_view(fovy: float, width: int, height: int) -> float:
    """Horizontal angle of view in rad of square pixels, from the vertical one in rad and the image's size."""
    return 2.0 * math.atan(math.tan(fovy / 2.0) * width / height)


def _check(root: Element, base: str, robot: Robot) -> None:
    """Refuse what Gazebo would drop without an error: links that move, or stand on the world, without any mass."""
    links = {str(link.get("name")): link for link in root.iterfind("link")}
    for name in (CAMERA_LINK, OPTICAL_FRAME):
        if name in links:
            raise RobotError(f"{robot.urdf_path}: link '{name}' is what Gazebo's camera is called: rename it")
    joints = [
        (joint.get("type"), _link(joint, "parent"), _link(joint, "child")) for joint in root.iterfind("joint")
    ]
    attached = {name: [child for kind, parent, child in joints if kind == "fixed" and parent == name] for name in links}

    def mass(name: str) -> float:
        """Mass of a link and all that is fixed to it, in kg."""
        element = links[name].find("inertial/mass")
        own = 0.0 if element is None else float(element.get("value", 0.0))
        return own + sum(mass(child) for child in attached[name])

    bodies = [child for kind, _, child in joints if kind != "fixed"] + (attached[base] if base == "world" else [base])
    for name in bodies:
        if not mass(name) > 0.0:
            raise RobotError(
                f"{robot.urdf_path}: link '{name}' has no mass, and Gazebo leaves out such links with all that they"
                " carry: give it an <inertial>"
            )


def _link(joint: Element, end: str) -> str:
    element = joint.find(end)
    return "" if element is None else str(element.get("link"))


def _add_fixed_joint(root: Element, parent: str, child: str, position: Array, rotation: Array) -> None:
    """Add a fixed joint; position (3,) in m and rotation (3, 3) of the child in the parent."""
    joint = ElementTree.SubElement(root, "joint", name=f"{parent}_to_{child}", type="fixed")
    ElementTree.SubElement(joint, "parent", link=parent)
    ElementTree.SubElement(joint, "child", link=child)
    ElementTree.SubElement(joint, "origin", xyz=_text(position), rpy=_text(pinocchio.rpy.matrixToRpy(rotation)))


def _text(values: Array) -> str:
    """Numbers as URDF writes them."""
    return " ".join(f"{value + 0.0:.12g}" for value in values)  # + 0.0 takes the sign from a zero


def _add(parent: Element, path: str, value: object) -> None:
    """Add an element that holds one value, below elements that are made where they are missing."""
    *above, name = path.split("/")
    for step in above:
        found = parent.find(step)
        parent = ElementTree.SubElement(parent, step) if found is None else found
    ElementTree.SubElement(parent, name).text = str(value)


def _add_camera(root: Element, fovy: float, camera: Camera) -> None:
    """Add the sensor; fovy in rad."""
    extension = ElementTree.SubElement(root, "gazebo", reference=CAMERA_LINK)
    sensor = ElementTree.SubElement(extension, "sensor", name="camera", type="camera")
    for path, value in (
        ("always_on", "true"),
        ("update_rate", f"{camera.rate:.12g}"),
        ("topic", IMAGE_TOPIC),
        ("gz_frame_id", OPTICAL_FRAME),
        ("camera/camera_info_topic", CAMERA_INFO_TOPIC),
        ("camera/horizontal_fov", f"{horizontal_view(fovy, camera.width, camera.height):.12g}"),
        ("camera/image/width", camera.width),
        ("camera/image/height", camera.height),
        ("camera/image/format", "R8G8B8"),
        ("camera/clip/near", CLIP[0]),
        ("camera/clip/far", CLIP[1]),
        ("camera/noise/type", "gaussian"),
        ("camera/noise/mean", 0.0),
        ("camera/noise/stddev", NOISE),
    ):
        _add(sensor, path, value)


def _add_control(root: Element, robot: Robot, parameters: Path, namespace: str) -> None:
    """Add the joints' interfaces, and the plugin that runs the controllers within Gazebo."""
    control = ElementTree.SubElement(root, "ros2_control", name="gazebo", type="system")
    _add(control, "hardware/plugin", "gz_ros2_control/GazeboSimSystem")
    for joint in robot.joints:
        element = ElementTree.SubElement(control, "joint", name=joint.name)
        command = ElementTree.SubElement(element, "command_interface", name="position")
        state = ElementTree.SubElement(element, "state_interface", name="position")
        ElementTree.SubElement(element, "state_interface", name="velocity")
        for interface, name, value in (
            (command, "min", joint.lower),
            (command, "max", joint.upper),
            (state, "initial_value", joint.home),
        ):
            ElementTree.SubElement(interface, "param", name=name).text = f"{value:.12g}"
    extension = ElementTree.SubElement(root, "gazebo")
    plugin = ElementTree.SubElement(
        extension,
        "plugin",
        filename="gz_ros2_control-system",
        name="gz_ros2_control::GazeboSimROS2ControlPlugin",
    )
    _add(plugin, "parameters", parameters)
    _add(plugin, "position_proportional_gain", POSITION_GAIN)
    if namespace.strip("/"):
        _add(plugin, "ros/namespace", f"/{namespace.strip('/')}")

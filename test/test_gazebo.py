"""The robot in Gazebo is the preset's robot, seen by the same camera; what is launched fits what is documented."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml

from ropes_ros.description import robot_description
from ropes_ros.errors import RobotError, RuntimeSetupError
from ropes_ros.gazebo import Camera, controller_parameters, gazebo_urdf, horizontal_view
from ropes_ros.robot import Robot, load_robot

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "config"
PARAMETERS = Path("/somewhere/controllers.yaml")
SIM = {"camera": {"position": [1.0, -0.5, 0.8], "look_at": [0.0, 0.0, 0.3], "fovy": 0.7}}
INERTIA = '<inertia ixx="0.01" ixy="0" ixz="0" iyy="0.01" iyz="0" izz="0.01"/>'
URDF = """<robot name="small">
  <link name="stand"><inertial><mass value="2"/>{inertia}</inertial></link>
  <link name="plate"/>
  <link name="arm">
    <inertial><mass value="1"/>{inertia}</inertial>
    <visual><geometry><mesh filename="{mesh}"/></geometry></visual>
  </link>
  <link name="hand"/>
  <link name="finger"><inertial><mass value="0.1"/>{inertia}</inertial></link>
  <joint name="bolts" type="fixed"><parent link="stand"/><child link="plate"/><origin xyz="0.2 0 0.1"/></joint>
  <joint name="shoulder" type="revolute">
    <parent link="plate"/><child link="arm"/><axis xyz="0 0 1"/>
    <limit lower="-1" upper="1" velocity="2" effort="5"/>
  </joint>
  <joint name="glue" type="fixed">
    <parent link="arm"/><child link="hand"/><origin xyz="0.3 0 0" rpy="0.1 0.2 0.3"/>
  </joint>
  <joint name="grip" type="prismatic">
    <parent link="hand"/><child link="finger"/><axis xyz="1 0 0"/>
    <limit lower="0" upper="0.02" velocity="1" effort="1"/>
  </joint>
  <ros2_control name="real" type="system"><hardware><plugin>vendor/Driver</plugin></hardware></ros2_control>
  <gazebo><plugin filename="vendor" name="vendor"/></gazebo>
  <gazebo reference="arm"><mu1>0.3</mu1></gazebo>
</robot>"""


@pytest.fixture(scope="module")
def arm6() -> Robot:
    return load_robot("arm6")


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., Robot]:
    """Makes a robot from the URDF above with things replaced in it."""

    def make(changes: dict[str, str] | None = None, **preset: Any) -> Robot:
        (tmp_path / "arm.stl").touch()
        text = URDF.replace("{mesh}", "arm.stl").replace("{inertia}", INERTIA)
        for old, new in (changes or {}).items():
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "small.urdf").write_text(text, encoding="utf-8")
        joints = {"shoulder": {"home": 0.1, "half_range": 0.5, "max_acceleration": 5.0}}
        base = {"name": "small", "urdf": "small.urdf", "base_link": "plate", "tip_link": "finger", "joints": joints}
        return Robot({**base, "sim": SIM, **preset}, tmp_path / "robot.yaml")

    return make


def reread(robot: Robot, text: str, folder: Path) -> Robot:
    """The preset with another URDF."""
    (folder / "other.urdf").write_text(text, encoding="utf-8")
    return Robot({**robot.preset, "urdf": "other.urdf"}, folder / "robot.yaml")


def matches(first: tuple[Any, Any], second: tuple[Any, Any]) -> bool:
    """Whether poses agree; a quaternion and its negative are one rotation."""
    turned = np.abs(np.sum(np.asarray(first[1]) * second[1], axis=-1))
    return np.allclose(first[0], second[0], atol=1e-9) and np.allclose(turned, 1.0, atol=1e-12)


def test_the_robot_in_gazebo_moves_as_the_preset_does(arm6: Robot, small: Any, tmp_path: Path) -> None:
    for robot in (arm6, small()):
        for text in (gazebo_urdf(robot, PARAMETERS), robot_description(robot)):
            other = reread(robot, text, tmp_path)
            q = np.random.default_rng(0).uniform(robot.lower, robot.upper, (20, len(robot.joints)))
            assert all(matches(robot.fk(q, link), other.fk(q, link)) for link in robot.links)
            assert other.joints == robot.joints


def test_the_robot_stands_in_the_world_as_its_root_link_does(small: Any) -> None:
    root = ElementTree.fromstring(gazebo_urdf(small(), PARAMETERS))
    (joint,) = [joint for joint in root.findall("joint") if joint.find("parent").get("link") == "world"]
    assert joint.get("type") == "fixed" and joint.find("child").get("link") == "stand"
    assert joint.find("origin").attrib == {"xyz": "0 0 0", "rpy": "0 0 0"}


def test_a_robot_that_has_a_world_keeps_it(small: Any) -> None:
    fixed = '<link name="world"/><joint name="feet" type="fixed"><parent link="world"/><child link="stand"/></joint>'
    robot = small({'<robot name="small">': f'<robot name="small">{fixed}'})
    root = ElementTree.fromstring(gazebo_urdf(robot, PARAMETERS))
    assert [link.get("name") for link in root.findall("link")].count("world") == 1
    assert [joint.get("name") for joint in root.findall("joint")].count("feet") == 1


def test_the_camera_stands_where_the_simulators_does(arm6: Robot, small: Any, tmp_path: Path) -> None:
    pytest.importorskip("mujoco")
    from ropes_ros.sim.arm import SimArm

    camera = Camera(width=400, height=200, rate=15.0)
    other = reread(arm6, gazebo_urdf(arm6, PARAMETERS, camera), tmp_path)
    arm = SimArm(arm6, camera.width, camera.height, render=False)
    pose = other.fk(arm6.home, "camera_optical_frame")
    assert matches(pose, arm.camera_pose())

    sensor = ElementTree.parse(tmp_path / "other.urdf").find("gazebo/sensor")
    width, height = (int(sensor.findtext(f"camera/image/{name}")) for name in ("width", "height"))
    focal = width / 2 / np.tan(float(sensor.findtext("camera/horizontal_fov")) / 2)
    gazebo = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    tips = arm6.fk(arm6.denormalise(np.random.default_rng(1).uniform(-1, 1, (50, 6))))[0]

    def pixels(intrinsics: Any, position: Any, quaternion: Any) -> Any:
        x, y, z, w = quaternion
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        rotation = np.eye(3) + 2 * w * cross + 2 * cross @ cross
        seen = (tips - position) @ rotation @ intrinsics.T
        assert (seen[:, 2] > 0).all()
        return seen[:, :2] / seen[:, 2:]

    assert np.allclose(pixels(gazebo, *pose), pixels(arm.intrinsics(), *arm.camera_pose()), atol=1e-6)


def test_gazebos_camera_looks_along_x_where_the_optical_frame_looks_along_z(arm6: Robot, tmp_path: Path) -> None:
    other = reread(arm6, gazebo_urdf(arm6, PARAMETERS), tmp_path)
    _, (x, y, z, w) = other.fk(arm6.home, "camera_link")
    forward = np.array([1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)])
    camera = arm6.preset["sim"]["camera"]
    ahead = np.subtract(camera["look_at"], camera["position"])
    assert np.allclose(forward, ahead / np.linalg.norm(ahead), atol=1e-9)
    up = 1 - 2 * (x * x + y * y)
    assert up > 0, "the image is upside down"


def test_the_sensor_publishes_as_asked(arm6: Robot) -> None:
    root = ElementTree.fromstring(gazebo_urdf(arm6, PARAMETERS, Camera(640, 480, 12.5)))
    extension = root.find("gazebo[@reference='camera_link']")
    assert extension.find("sensor").get("type") == "camera"
    wanted = {
        "update_rate": "12.5",
        "topic": "camera/image_raw",
        "gz_frame_id": "camera_optical_frame",
        "camera/camera_info_topic": "camera/camera_info",
        "camera/image/width": "640",
        "camera/image/height": "480",
    }
    assert {path: extension.findtext(f"sensor/{path}") for path in wanted} == wanted
    assert horizontal_view(0.5, 300, 300) == pytest.approx(0.5)


@pytest.mark.parametrize("values", [(8, 240, 30.0), (320, 5000, 30.0), (320, 240, 0.0), (320, 240, float("nan"))])
def test_impossible_images_are_refused(values: tuple[int, int, float]) -> None:
    with pytest.raises(RobotError, match=r"camera_(width|height|rate) is .*: choose"):
        Camera(*values)


def test_every_joint_of_the_preset_and_no_other_is_controlled(arm6: Robot, small: Any) -> None:
    for robot in (arm6, small()):
        root = ElementTree.fromstring(gazebo_urdf(robot, PARAMETERS))
        (control,) = root.findall("ros2_control")
        assert control.findtext("hardware/plugin") == "gz_ros2_control/GazeboSimSystem"
        assert tuple(joint.get("name") for joint in control.findall("joint")) == robot.joint_names
        for joint, element in zip(robot.joints, control.findall("joint"), strict=True):
            assert [command.get("name") for command in element.findall("command_interface")] == ["position"]
            assert [state.get("name") for state in element.findall("state_interface")] == ["position", "velocity"]
            values = {param.get("name"): float(param.text) for param in element.iter("param")}
            assert values == pytest.approx({"min": joint.lower, "max": joint.upper, "initial_value": joint.home})
        (plugin,) = root.findall("gazebo/plugin")
        assert plugin.findtext("parameters") == str(PARAMETERS)
        moving = [joint.get("name") for joint in root.findall("joint") if joint.get("type") != "fixed"]
        assert tuple(moving) == robot.joint_names


@pytest.mark.parametrize(("namespace", "prefix"), [("", ""), ("cell", "/cell/"), ("/cell/left/", "/cell/left/")])
def test_the_controllers_have_exactly_the_presets_joints(arm6: Robot, namespace: str, prefix: str) -> None:
    content = yaml.safe_load(controller_parameters(arm6, namespace))
    nodes = ("controller_manager", "joint_state_broadcaster", "joint_trajectory_controller")
    assert set(content) == {f"{prefix}{name}" for name in nodes}
    manager, states, trajectories = (content[f"{prefix}{name}"]["ros__parameters"] for name in nodes)
    assert manager["joint_state_broadcaster"]["type"] == "joint_state_broadcaster/JointStateBroadcaster"
    assert manager["joint_trajectory_controller"]["type"] == "joint_trajectory_controller/JointTrajectoryController"
    assert tuple(states["joints"]) == tuple(trajectories["joints"]) == arm6.joint_names
    assert trajectories["command_interfaces"] == ["position"]
    assert trajectories["allow_nonzero_velocity_at_trajectory_end"], "the commander's pieces end in motion"
    plugin = ElementTree.fromstring(gazebo_urdf(arm6, PARAMETERS, namespace=namespace)).find("gazebo/plugin")
    assert plugin.findtext("ros/namespace", "/") == (prefix.rstrip("/") or "/")


def test_what_is_of_other_simulators_and_drivers_is_left_out(arm6: Robot, small: Any) -> None:
    assert ElementTree.fromstring(gazebo_urdf(arm6, PARAMETERS)).find("mujoco") is None
    root = ElementTree.fromstring(gazebo_urdf(small(), PARAMETERS))
    assert "vendor" not in ElementTree.tostring(root, encoding="unicode")
    assert root.findtext("gazebo[@reference='arm']/mu1") == "0.3"


def test_meshes_have_absolute_paths(small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mesh(robot: Robot) -> str:
        return str(ElementTree.fromstring(gazebo_urdf(robot, PARAMETERS)).find(".//mesh").get("filename"))

    wanted = (tmp_path / "arm.stl").as_uri()
    assert mesh(small()) == wanted
    assert mesh(small({"arm.stl": wanted})) == wanted
    install(tmp_path, monkeypatch, "parts")
    share = tmp_path / "share" / "parts"
    share.mkdir()
    (share / "arm.stl").touch()
    assert mesh(small({"arm.stl": "package://parts/arm.stl"})) == (share / "arm.stl").as_uri()
    # MuJoCo takes the name alone, from the folder that its compiler is told.
    assert mesh(small({"arm.stl": "package://elsewhere/visual/arm.stl"})) == wanted
    with pytest.raises(RobotError, match=r"other\.stl.*not there"):
        mesh(small({"arm.stl": "meshes/other.stl"}))


@pytest.mark.parametrize(
    ("changes", "preset", "message"),
    [
        ({}, {"sim": {}}, "no section sim.camera.*position, look_at, fovy"),
        ({}, {"sim": {"camera": {**SIM["camera"], "fovy": "wide"}}}, "sim.camera.fovy must be 1 finite"),
        ({'mass value="1"': 'mass value="0"', 'mass value="0.1"': 'mass value="0"'}, {}, "'arm' has no mass"),
        ({'mass value="2"': 'mass value="0"'}, {}, "'stand' has no mass"),
        ({"hand": "camera_link"}, {}, "'camera_link' is what Gazebo's camera is called"),
    ],
)
def test_what_gazebo_cannot_simulate_is_refused(small: Any, changes: Any, preset: Any, message: str) -> None:
    with pytest.raises(RobotError, match=message):
        gazebo_urdf(small(changes, **preset), PARAMETERS)


def test_the_world_has_what_the_robot_needs() -> None:
    root = ElementTree.parse(CONFIG / "gazebo" / "world.sdf").getroot()
    (world,) = root.findall("world")
    systems = {plugin.get("filename"): plugin for plugin in world.findall("plugin")}
    wanted = ("physics", "sensors", "user-commands", "scene-broadcaster")
    assert set(systems) == {f"gz-sim-{name}-system" for name in wanted}
    assert systems["gz-sim-sensors-system"].findtext("render_engine") == "ogre2"
    assert world.findtext("scene/shadows") == "false"
    assert {light.findtext("cast_shadows") for light in world.findall("light")} == {"false"}
    rate = yaml.safe_load(controller_parameters(load_robot("arm6")))["controller_manager"]["ros__parameters"]
    assert float(world.findtext("physics/max_step_size")) * rate["update_rate"] == pytest.approx(1.0)


def bridged() -> list[dict[str, str]]:
    return yaml.safe_load((CONFIG / "gazebo" / "bridge.yaml").read_text(encoding="utf-8"))


def test_the_bridge_hands_on_what_the_sensor_publishes(arm6: Robot) -> None:
    sensor = ElementTree.fromstring(gazebo_urdf(arm6, PARAMETERS)).find("gazebo/sensor")
    published = {"/" + sensor.findtext(path) for path in ("topic", "camera/camera_info_topic")}
    assert {entry["gz_topic_name"] for entry in bridged()} == {*published, "/clock"}
    for entry in bridged():
        assert entry["direction"] == "GZ_TO_ROS"
        assert entry["ros_topic_name"].lstrip("/") == entry["gz_topic_name"].lstrip("/")
        assert entry["ros_type_name"].rpartition("/")[2] == entry["gz_type_name"].rpartition(".")[2]


def documented() -> set[str]:
    """Absolute names of the topics in docs/interface.md, of nodes in the root namespace."""
    text = (ROOT / "docs" / "interface.md").read_text(encoding="utf-8")
    text = text.partition("## Topics")[2].partition("\n## ")[0]
    topics = set()
    for node, table in re.findall(r"^### (\w+)\n(.*?)(?=^### |\Z)", text, flags=re.MULTILINE | re.DOTALL):
        for topic in re.findall(r"^\| `([^`]+)` \|", table, flags=re.MULTILINE):
            topics.add("/" + topic.replace("~", node).lstrip("/"))
    return topics


def strings(value: Any) -> Iterator[str]:
    """All strings in a tree of mappings and lists, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from strings(key)
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)


def layout_topics() -> dict[str, set[str]]:
    """Topics of the layouts and the bridge."""
    rviz = yaml.safe_load((CONFIG / "rviz" / "ropes.rviz").read_text(encoding="utf-8"))
    foxglove = json.loads((CONFIG / "foxglove" / "ropes.json").read_text(encoding="utf-8"))
    return {
        "rviz": {text for text in strings(rviz["Visualization Manager"]["Displays"]) if text.startswith("/")},
        "foxglove": {text.partition(".")[0] for text in strings(foxglove) if text.startswith("/")},
        "bridge": {"/" + entry["ros_topic_name"].lstrip("/") for entry in bridged()},
    }


def test_the_layouts_and_the_bridge_name_documented_topics() -> None:
    known = documented()
    assert {"/estimator/pose", "/camera/image_raw", "/joint_states", "/diagnostics"} <= known
    for name, topics in layout_topics().items():
        strays = {topic for topic in topics - known if topic != "/clock" and not topic.endswith("/robot_description")}
        assert topics and not strays, name


def test_the_foxglove_layout_shows_every_panel_it_configures() -> None:
    layout = json.loads((CONFIG / "foxglove" / "ropes.json").read_text(encoding="utf-8"))
    assert {text for text in strings(layout["layout"]) if "!" in text} == set(layout["configById"])


def test_rviz_shows_the_robots_in_the_frames_that_are_published(arm6: Robot) -> None:
    manager = yaml.safe_load((CONFIG / "rviz" / "ropes.rviz").read_text(encoding="utf-8"))["Visualization Manager"]
    assert manager["Global Options"]["Fixed Frame"] == arm6.base_link
    models = {
        display["Description Topic"]["Value"]: display["TF Prefix"]
        for display in manager["Displays"]
        if display["Class"] == "rviz_default_plugins/RobotModel"
    }
    assert models == {"/robot_description": "", "/estimator/robot_description": "estimated_robot"}


def install(prefix: Path, monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Make these ROS packages, and no others, look installed."""
    index = prefix / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True, exist_ok=True)
    for package in packages:
        (index / package).touch()
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(prefix))
    monkeypatch.setenv("ROS_DISTRO", "jazzy")


STAND_INS = (
    "launch",
    *(
        f"launch.{name}"
        for name in (
            "action", "actions", "conditions", "event_handlers", "events", "launch_description_sources", "substitutions"
        )
    ),
    "launch_ros",
    *(f"launch_ros.{name}" for name in ("actions", "event_handlers", "events", "parameter_descriptions")),
    "launch_ros.events.lifecycle",
    "lifecycle_msgs",
    "lifecycle_msgs.msg",
)  # fmt: skip


class Configuration:
    """A launch configuration; the context is a mapping."""

    def __init__(self, name: str) -> None:
        self.name = name

    def perform(self, context: dict[str, str]) -> str:
        return context[self.name]


class Condition:
    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration

    def evaluate(self, context: dict[str, str]) -> bool:
        return self.configuration.perform(context) == "true"


ARGUMENTS = {
    "robot": "arm6", "namespace": "", "use_sim_time": "false", "world": "/my worlds/table.sdf", "headless": "false",
    "camera_rate": "30.0", "camera_width": "320", "camera_height": "240", "rviz": "false", "foxglove": "false",
}  # fmt: skip


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports a module of ropes_ros that imports launch, against stand-ins that keep their arguments."""
    for name in STAND_INS:
        monkeypatch.setitem(sys.modules, name, MagicMock(name=name))
    sys.modules["launch.substitutions"].LaunchConfiguration = Configuration
    sys.modules["launch.conditions"].IfCondition = Condition
    sys.modules["launch_ros.parameter_descriptions"].ParameterValue = lambda value, value_type: value

    def load(name: str) -> ModuleType:
        for each in (name, "ropes_ros.launching"):  # which it imports
            monkeypatch.delitem(sys.modules, each, raising=False)
        module = importlib.import_module(name)
        for each in (name, "ropes_ros.launching"):
            monkeypatch.delitem(sys.modules, each)
        return module

    return load


def started(module: Any) -> dict[str, SimpleNamespace]:
    """Nodes that were made, by their name or the executable, or what a spawner spawns."""
    nodes = {}
    for call in module.Node.call_args_list:
        node = SimpleNamespace(**call.kwargs)
        node.name = getattr(node, "name", node.executable)
        nodes[node.arguments[0] if node.name == "spawner" else node.name] = node
    return nodes


def test_gazebo_starts_with_the_robot_and_its_controllers_in_order(
    stand_in: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = stand_in("ropes_ros.gazebo_launching")
    install(tmp_path, monkeypatch, *module.PACKAGES)
    monkeypatch.setattr(module.tempfile, "mkdtemp", lambda prefix: str(tmp_path))
    module.Node.side_effect = lambda **kwargs: SimpleNamespace(**kwargs)
    module.simulation({**ARGUMENTS, "namespace": "cell", "headless": "true", "camera_width": "640"})

    arguments = dict(module.IncludeLaunchDescription.call_args.kwargs["launch_arguments"])
    assert arguments["gz_args"] == "-r -s --headless-rendering '/my worlds/table.sdf'"
    nodes = started(module)
    assert {node.namespace for node in nodes.values()} == {"cell"}
    description = nodes["robot_state_publisher"].parameters[0]
    root = ElementTree.fromstring(description["robot_description"])
    assert root.findtext("gazebo/sensor/camera/image/width") == "640"
    parameters = Path(root.findtext("gazebo/plugin/parameters"))
    assert "/cell/controller_manager" in yaml.safe_load(parameters.read_text(encoding="utf-8"))
    assert nodes["create"].parameters == [{"topic": "robot_description", "name": "arm6"}]
    assert description["use_sim_time"] and nodes["gazebo_bridge"].parameters[0]["use_sim_time"]
    assert Path(nodes["gazebo_bridge"].parameters[0]["config_file"]).is_file()

    running = SimpleNamespace(is_shutdown=False)
    order = []
    for call in module.OnProcessExit.call_args_list:
        following = call.kwargs["on_exit"](SimpleNamespace(returncode=0), running)
        order.append((call.kwargs["target_action"], following))
        with pytest.raises(RuntimeSetupError, match="failed with status 1"):
            call.kwargs["on_exit"](SimpleNamespace(returncode=1), running)
        assert call.kwargs["on_exit"](SimpleNamespace(returncode=1), SimpleNamespace(is_shutdown=True)) is None
    assert [process.executable for process, _ in order] == ["create", "spawner", "spawner"]
    assert [order[0][1], order[1][1]] == [order[1][0], order[2][0]]
    spawned = [process.arguments[0] for process, _ in order[1:]]
    assert spawned == ["joint_state_broadcaster", "joint_trajectory_controller"]
    said = module.LogInfo.call_args.kwargs["msg"]
    assert "command_topic:=/cell/joint_trajectory_controller/joint_trajectory" in said

    module.OnShutdown.call_args.kwargs["on_shutdown"](None, None)
    assert not parameters.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"camera_width": "wide"}, "launch argument camera_width:=wide must be a number"),
        ({"camera_rate": "0"}, "camera_rate is 0.0: choose"),
        ({"robot": "no_such"}, "unknown robot 'no_such'"),
    ],
)
def test_bad_arguments_of_gazebo_are_told(
    stand_in: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], message: str
) -> None:
    module = stand_in("ropes_ros.gazebo_launching")
    install(tmp_path, monkeypatch, *module.PACKAGES)
    with pytest.raises((RobotError, RuntimeSetupError), match=message):
        module.simulation({**ARGUMENTS, **changes})


def test_missing_packages_are_named_with_how_to_get_them(
    stand_in: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "controller_manager", "robot_state_publisher", "tf2_ros")
    gazebo, viewers = stand_in("ropes_ros.gazebo_launching"), stand_in("ropes_ros.viewers")
    with pytest.raises(RuntimeSetupError, match=r"ros_gz_sim, .* apt-get install ros-jazzy-ros-gz-sim ") as caught:
        gazebo.simulation(ARGUMENTS)
    assert "controller_manager" not in str(caught.value)
    for argument, package in (("rviz", "rviz2"), ("foxglove", "foxglove-bridge")):
        with pytest.raises(RuntimeSetupError, match=f"^{argument}:=true needs .*ros-jazzy-{package} "):
            show(viewers, **{argument: "true"})
    monkeypatch.setenv("ROS_DISTRO", "humble")
    with pytest.raises(RuntimeSetupError, match="does not support ROS 2 Humble"):
        gazebo.simulation(ARGUMENTS)


def show(module: Any, *, measured: bool = False, **arguments: str) -> list[Any]:
    """What viewers() does at launch."""
    module.OpaqueFunction.reset_mock()
    module.Node.reset_mock()
    module.viewers(measured=measured)
    call = module.OpaqueFunction.call_args.kwargs
    return call["function"]({**ARGUMENTS, **arguments}, *call["args"])


def test_viewers_show_the_estimate_in_frames_of_its_own(
    stand_in: Any, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "rviz2", "foxglove_bridge", "robot_state_publisher", "tf2_ros")
    module = stand_in("ropes_ros.viewers")
    assert show(module) == [] and not module.Node.called
    module.viewer_arguments()
    declared = {call.args[0]: call.kwargs for call in module.DeclareLaunchArgument.call_args_list}
    assert set(declared) == {"rviz", "foxglove"}
    assert all(kwargs["default_value"] == "false" and kwargs["description"] for kwargs in declared.values())

    robot = small()
    (tmp_path / "robot.yaml").write_text(yaml.safe_dump(robot.preset), encoding="utf-8")
    show(module, rviz="true", namespace="cell", robot=str(tmp_path / "robot.yaml"))
    nodes = started(module)
    assert set(nodes) == {"rviz2", "estimated_state_publisher", "estimated_robot_placement"}
    estimate = nodes["estimated_state_publisher"]
    assert dict(estimate.remappings)["joint_states"] == "estimator/joint_states"
    assert estimate.parameters[0]["frame_prefix"] == "estimated_robot/"
    rviz = nodes["rviz2"]
    assert Path(rviz.arguments[1]).is_file()
    namespaced = layout_topics()["rviz"]
    assert dict(rviz.remappings) == {topic: f"/cell{topic}" for topic in namespaced}

    options = dict(zip(*[iter(nodes["estimated_robot_placement"].arguments)] * 2, strict=True))
    assert (options["--frame-id"], options["--child-frame-id"]) == ("plate", "estimated_robot/stand")
    assert [float(options[f"--{axis}"]) for axis in "xyz"] == pytest.approx([-0.2, 0.0, -0.1])

    show(module, foxglove="true", measured=True)
    assert set(started(module)) == {
        "foxglove_bridge", "estimated_state_publisher", "estimated_robot_placement", "robot_state_publisher"
    }  # fmt: skip


LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
source = PythonLaunchDescriptionSource(sys.argv[1])
description = source.get_launch_description(__import__("launch").LaunchContext())
print("arguments:", *(argument.name for argument in description.get_launch_arguments()))
service = LaunchService()
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(source)]))
sys.exit(service.run())
"""


def test_the_launch_file_says_what_is_missing_where_gazebo_is_not_installed() -> None:
    """Against the real launch."""
    pytest.importorskip("launch_ros")
    from ropes_ros.ament import package_share

    if package_share("ros_gz_sim") is not None:
        pytest.skip("Gazebo is installed")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", LAUNCH, str(ROOT / "launch" / "gazebo.launch.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, cwd=ROOT / "test")
    assert done.returncode == 1
    names = re.search(r"^arguments: (.*)$", done.stdout, flags=re.MULTILINE)
    assert names is not None
    assert set(names[1].split()) == {
        "namespace", "robot", "world", "headless", "camera_rate", "camera_width", "camera_height"
    }  # fmt: skip
    assert "needs the ROS package(s) ros_gz_sim" in done.stdout + done.stderr

"""The robot in Gazebo, as launch actions: the simulator, the robot and its controllers, one after the other."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from launch.action import Action
from launch.actions import IncludeLaunchDescription, LogInfo, RegisterEventHandler
from launch.event_handlers import OnProcessExit, OnShutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from ropes_ros.ament import package_share, require_packages
from ropes_ros.errors import RuntimeSetupError
from ropes_ros.gazebo import STATES, TRAJECTORIES, Camera, controller_parameters, gazebo_urdf
from ropes_ros.launching import argument, boolean, value_of
from ropes_ros.paths import share_dir
from ropes_ros.robot import load_robot

PACKAGES = (
    "ros_gz_sim",
    "ros_gz_bridge",
    "gz_ros2_control",
    "controller_manager",
    STATES,
    TRAJECTORIES,
    "robot_state_publisher",
)
"""ROS packages that Gazebo with controllers needs."""
UNSUPPORTED = ("humble",)
"""Distributions whose Gazebo has other names of plugins and messages."""


def simulation(context: Any) -> list[Action]:
    """The actions that simulate the robot, for an OpaqueFunction.

    Args:
        context: A launch context with the arguments of gazebo.launch.py.

    Raises:
        RuntimeSetupError: A ROS package is missing, the distribution is not supported, or an argument is no number.
        RobotError: The preset cannot be simulated in Gazebo.
    """
    distro = os.environ.get("ROS_DISTRO", "")
    if distro in UNSUPPORTED:
        raise RuntimeSetupError(
            f"gazebo.launch.py does not support ROS 2 {distro.capitalize()}, whose Gazebo has other names of plugins"
            " and messages: use Jazzy or later, or sim.launch.py"
        )
    require_packages(PACKAGES, "the simulation in Gazebo")

    given = partial(argument, context)
    robot = load_robot(given("robot"))
    sizes = (("camera_width", int), ("camera_height", int), ("camera_rate", float))
    camera = Camera(*(value_of(name, given(name), kind) for name, kind in sizes))
    namespace = given("namespace")
    headless = boolean("headless", given("headless"))
    folder = Path(tempfile.mkdtemp(prefix="ropes_ros_gazebo_"))
    parameters = folder / "controllers.yaml"
    try:
        parameters.write_text(controller_parameters(robot, namespace), encoding="utf-8")
        description = gazebo_urdf(robot, parameters, camera, namespace)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return [
        RegisterEventHandler(
            OnShutdown(on_shutdown=lambda event, context: shutil.rmtree(folder, ignore_errors=True))
        ),
        _gazebo(given("world"), headless),
        Node(
            package="robot_state_publisher",
            executable="robot_state_publisher",
            namespace=namespace,
            parameters=[
                {"robot_description": ParameterValue(description, value_type=str), "use_sim_time": True}
            ],
            output="screen",
        ),
        Node(
            package="ros_gz_bridge",
            executable="parameter_bridge",
            name="gazebo_bridge",
            namespace=namespace,
            parameters=[
                {"config_file": str(share_dir() / "config" / "gazebo" / "bridge.yaml"), "use_sim_time": True}
            ],
            output="screen",
        ),
        *_robot(robot.name, namespace, parameters),
    ]


def _gazebo(world: str, headless: bool) -> Action:
    """Gazebo itself, running; all ends when it does."""
    options = ["-r", *(["-s", "--headless-rendering"] if headless else []), world]
    return IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(package_share("ros_gz_sim")) + "/launch/gz_sim.launch.py"),
        # A shell reads them.
        launch_arguments={"gz_args": shlex.join(options), "on_exit_shutdown": "true"}.items(),
    )


def _robot(name: str, namespace: str, parameters: Path) -> list[Action]:
    """The robot, and, each once the last is there, its controllers."""
    create = Node(
        package="ros_gz_sim",
        executable="create",
        namespace=namespace,
        parameters=[{"topic": "robot_description", "name": name}],
        output="screen",
    )
    states, trajectories = (
        Node(
            package="controller_manager",
            executable="spawner",
            namespace=namespace,
            arguments=[controller, "--param-file", str(parameters)],
            output="screen",
        )
        for controller in (STATES, TRAJECTORIES)
    )
    topic = "/" + "/".join(filter(None, [namespace.strip("/"), TRAJECTORIES, "joint_trajectory"]))
    ready = LogInfo(msg=f"the robot listens: command it with command_topic:={topic}")
    return [
        create,
        _after(create, "the robot's creation in Gazebo", states),
        _after(states, STATES, trajectories),
        _after(trajectories, TRAJECTORIES, ready),
    ]


def _after(process: Node, what: str, action: Action) -> Action:
    """Do something when a process has done its work; end the launch with an error where it failed."""

    def ended(event: Any, context: Any) -> Action | None:
        if context.is_shutdown:
            return None
        if event.returncode:
            raise RuntimeSetupError(f"{what} failed with status {event.returncode}; the log above says why")
        return action

    return RegisterEventHandler(OnProcessExit(target_action=process, on_exit=ended))

"""RViz and Foxglove beside a launch: what the camera sees, the robot as measured, and the robot as estimated."""

from __future__ import annotations

from typing import Any

from launch.action import Action
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from ropes_ros.ament import require_packages
from ropes_ros.description import robot_description, robot_element, root_link
from ropes_ros.launching import argument, boolean
from ropes_ros.paths import share_dir
from ropes_ros.robot import Robot, load_robot

ESTIMATED = "estimated_robot"
"""What the frames of the estimated robot begin with, before a slash."""
FOXGLOVE_PORT = 8765
RVIZ_TOPICS = (
    "/camera/image_raw",
    "/estimator/debug_image",
    "/estimator/pose",
    "/estimator/robot_description",
    "/robot_description",
)
"""Topics of config/rviz/ropes.rviz that are in the launch's namespace."""


def viewer_arguments() -> list[Action]:
    """The arguments `rviz` and `foxglove`."""
    return [
        DeclareLaunchArgument("rviz", default_value="false", description="Show the camera, robot and estimate in RViz"),
        DeclareLaunchArgument(
            "foxglove",
            default_value="false",
            description=f"Serve Foxglove on port {FOXGLOVE_PORT} of every network interface",
        ),
    ]


def viewers(*, measured: bool = False) -> Action:
    """What the arguments `rviz` and `foxglove` start.

    They use the arguments `namespace`, `robot` and `use_sim_time` of `common_arguments()`. With either, the estimated
    robot has frames of its own, below `estimated_robot/`, which a robot_state_publisher makes of the estimator's
    joint states.

    Args:
        measured: Whether to publish the measured robot's frames and description too, from `joint_states`; not where
            the robot's own drivers or Gazebo do.

    Raises:
        RuntimeSetupError: At launch, where a ROS package that was asked for is not installed.
    """
    return OpaqueFunction(function=_show, args=[measured])


def _show(context: Any, measured: bool) -> list[Action]:
    """What the arguments ask for; nothing by default."""
    rviz, foxglove = (boolean(name, argument(context, name)) for name in ("rviz", "foxglove"))
    if not (rviz or foxglove):
        return []
    programs = (["rviz2"] if rviz else []) + (["foxglove_bridge"] if foxglove else [])
    require_packages([*programs, "robot_state_publisher", "tf2_ros"], "rviz:=true" if rviz else "foxglove:=true")
    return [
        *_robots(context, measured),
        *([_rviz(context)] if rviz else []),
        *(_foxglove() if foxglove else []),
    ]


def _rviz(context: Any) -> Action:
    namespace = argument(context, "namespace").strip("/")
    return Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(share_dir() / "config" / "rviz" / "ropes.rviz")],
        parameters=[_clock()],
        remappings=[(topic, f"/{namespace}{topic}") for topic in RVIZ_TOPICS] if namespace else [],
        output="log",
    )


def _foxglove() -> list[Action]:
    layout = share_dir() / "config" / "foxglove" / "ropes.json"
    return [
        Node(
            package="foxglove_bridge",
            executable="foxglove_bridge",
            parameters=[{"port": FOXGLOVE_PORT, **_clock()}],
            output="log",
        ),
        LogInfo(msg=f"Foxglove: open ws://localhost:{FOXGLOVE_PORT} and import the layout {layout}"),
    ]


def _robots(context: Any, measured: bool) -> list[Action]:
    """Frames of the estimated robot and, if wanted, of the measured one."""
    robot = load_robot(argument(context, "robot"))
    description = {"robot_description": ParameterValue(robot_description(robot), value_type=str)}
    namespace = LaunchConfiguration("namespace")
    robots: list[Action] = [
        Node(
            package="robot_state_publisher",
            executable="robot_state_publisher",
            name="estimated_state_publisher",
            namespace=namespace,
            parameters=[{**description, "frame_prefix": f"{ESTIMATED}/", **_clock()}],
            remappings=[
                ("joint_states", "estimator/joint_states"),
                ("robot_description", "estimator/robot_description"),
            ],
            output="log",
        ),
        Node(
            package="tf2_ros",
            executable="static_transform_publisher",
            name="estimated_robot_placement",
            namespace=namespace,
            arguments=_placement(robot),
            parameters=[_clock()],
            output="log",
        ),
    ]
    if measured:
        robots.append(
            Node(
                package="robot_state_publisher",
                executable="robot_state_publisher",
                namespace=namespace,
                parameters=[{**description, **_clock()}],
                output="log",
            )
        )
    return robots


def _placement(robot: Robot) -> list[str]:
    """Arguments of static_transform_publisher that put the estimated robot where the robot is."""
    root = root_link(robot_element(robot))
    position, orientation = robot.fk(robot.home, root)
    arguments = []
    for name, value in zip(("x", "y", "z", "qx", "qy", "qz", "qw"), [*position, *orientation], strict=True):
        arguments += [f"--{name}", f"{value:.12g}"]
    return [*arguments, "--frame-id", robot.base_link, "--child-frame-id", f"{ESTIMATED}/{root}"]


def _clock() -> dict[str, Any]:
    """The parameter use_sim_time as the launch has it."""
    return {"use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)}

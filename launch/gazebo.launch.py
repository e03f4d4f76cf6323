"""The robot in Gazebo under joint trajectories, with its camera; on simulation time."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction

from ropes_ros.gazebo_launching import simulation
from ropes_ros.launching import robot_arguments
from ropes_ros.paths import share_dir


def generate_launch_description() -> LaunchDescription:
    """Gazebo, the robot, its controllers, and the bridge of its camera and clock."""
    return LaunchDescription(
        [
            *robot_arguments(),
            DeclareLaunchArgument(
                "world",
                default_value=str(share_dir() / "config" / "gazebo" / "world.sdf"),
                description="World (SDF) to simulate; it needs the physics, sensors and user commands systems",
            ),
            DeclareLaunchArgument(
                "headless", default_value="false", description="Only the server, without window or display"
            ),
            DeclareLaunchArgument("camera_rate", default_value="30.0", description="Images per simulated second, Hz"),
            DeclareLaunchArgument("camera_width", default_value="320", description="Image width in pixels"),
            DeclareLaunchArgument("camera_height", default_value="240", description="Image height in pixels"),
            OpaqueFunction(function=simulation),
        ]
    )

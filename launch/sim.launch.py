"""The built-in simulated arm with its camera."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument

from ropes_ros.launching import common_arguments, lifecycle_node, params_argument


def generate_launch_description() -> LaunchDescription:
    """One node: sim_arm."""
    return LaunchDescription(
        [
            *common_arguments(),
            params_argument("sim_arm"),
            DeclareLaunchArgument("camera_rate", default_value="30.0", description="Images per simulated second, Hz"),
            DeclareLaunchArgument(
                "publish_clock", default_value="false", description="Publish /clock and stamp with simulation time"
            ),
            DeclareLaunchArgument(
                "real_time_factor",
                default_value="1.0",
                description="Simulated seconds per second, 0 = as fast as possible; other than 1 needs publish_clock",
            ),
            *lifecycle_node(
                "sim_arm", {"camera_rate": float, "publish_clock": bool, "real_time_factor": float}
            ),
        ]
    )

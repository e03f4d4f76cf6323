"""The built-in simulated arm with its camera."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument

from ropes_ros.launching import common_arguments, lifecycle_node, params_argument, respawn_argument, together
from ropes_ros.viewers import viewer_arguments, viewers


def generate_launch_description() -> LaunchDescription:
    """One node, sim_arm, and what shows it."""
    return LaunchDescription(
        [
            *common_arguments(),
            respawn_argument(),
            params_argument("sim_arm"),
            DeclareLaunchArgument(
                "camera_rate",
                default_value="",
                description="Images per simulated second, Hz; as in sim_arm_params if empty",
            ),
            DeclareLaunchArgument(
                "publish_clock",
                default_value="",
                description="Publish /clock and stamp with simulation time; as in sim_arm_params if empty",
            ),
            DeclareLaunchArgument(
                "real_time_factor",
                default_value="",
                description="Simulated seconds per second, 0 = as fast as possible, other than 1 needs publish_clock; "
                "as in sim_arm_params if empty",
            ),
            *viewer_arguments(),
            together(
                lifecycle_node(
                    "sim_arm",
                    {"camera_rate": float, "publish_clock": bool, "real_time_factor": float},
                    respawns=True,
                ),
                viewers(measured=True),
            ),
        ]
    )

"""Command a schedule and record it: the recorder first, then the commander; the launch ends with the schedule."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, Shutdown
from launch.substitutions import LaunchConfiguration

from ropes_ros.launching import common_arguments, lifecycle_node, params_argument, together


def generate_launch_description() -> LaunchDescription:
    """Two nodes: recorder and commander."""
    remappings = [("joint_command", LaunchConfiguration("command_topic"))]
    return LaunchDescription(
        [
            *common_arguments(),
            params_argument("recorder"),
            params_argument("commander"),
            DeclareLaunchArgument("schedule", description="Schedule to command (YAML; `ropes schedule make`)"),
            DeclareLaunchArgument("path", description="Folder of the new bag; must not exist"),
            DeclareLaunchArgument(
                "image_topic", default_value="", description="Camera topic to record; as in recorder_params if empty"
            ),
            DeclareLaunchArgument(
                "camera_info_topic",
                default_value="",
                description="Calibration of the camera; as in recorder_params if empty",
            ),
            DeclareLaunchArgument(
                "command_type",
                default_value="",
                description="Message type of joint_command: JointTrajectory, Float64MultiArray or JointState; as in "
                "commander_params if empty",
            ),
            DeclareLaunchArgument(
                "command_topic", default_value="joint_command", description="Topic that the robot's controller hears"
            ),
            DeclareLaunchArgument(
                "assume_home",
                default_value="",
                description="The robot is at home and publishes no joint_states; as in commander_params if empty",
            ),
            DeclareLaunchArgument(
                "armed",
                default_value="",
                description="Move the robot; otherwise the commander sends nothing; as in commander_params if empty",
            ),
            together(
                lifecycle_node(
                    "recorder",
                    {"path": str, "schedule": str, "image_topic": str, "camera_info_topic": str},
                    remappings=remappings,
                ),
                lifecycle_node(
                    "commander",
                    {"schedule": str, "command_type": str, "assume_home": bool, "armed": bool},
                    on_exit=[Shutdown()],
                    remappings=remappings,
                ),
            ),
        ]
    )

"""Command a schedule and record it: the recorder first, then the commander; the launch ends with the schedule."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, Shutdown
from launch.substitutions import LaunchConfiguration

from ropes_ros.launching import common_arguments, lifecycle_node, params_argument


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
                "image_topic", default_value="camera/image_raw", description="Camera topic to record"
            ),
            DeclareLaunchArgument(
                "command_type",
                default_value="JointTrajectory",
                description="Message type of joint_command: JointTrajectory, Float64MultiArray or JointState",
            ),
            DeclareLaunchArgument(
                "command_topic", default_value="joint_command", description="Topic that the robot's controller hears"
            ),
            *lifecycle_node("recorder", {"path": str, "schedule": str, "image_topic": str}, remappings=remappings),
            *lifecycle_node(
                "commander", {"schedule": str, "command_type": str}, on_exit=[Shutdown()], remappings=remappings
            ),
        ]
    )

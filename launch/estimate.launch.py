"""Estimate joint angles from a camera topic."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument

from ropes_ros.launching import common_arguments, lifecycle_node, params_argument


def generate_launch_description() -> LaunchDescription:
    """One node: estimator."""
    return LaunchDescription(
        [
            *common_arguments(),
            params_argument("estimator"),
            DeclareLaunchArgument(
                "model", default_value="", description="Folder of the model; the robot's shipped one when empty"
            ),
            DeclareLaunchArgument(
                "image_topic", default_value="camera/image_raw", description="Camera topic to watch"
            ),
            DeclareLaunchArgument(
                "publish_tf", default_value="false", description="Publish the estimated tip frame on /tf"
            ),
            DeclareLaunchArgument(
                "require_gpu", default_value="false", description="Refuse to start when inference would not use a GPU"
            ),
            *lifecycle_node(
                "estimator", {"model": str, "image_topic": str, "publish_tf": bool, "require_gpu": bool}
            ),
        ]
    )

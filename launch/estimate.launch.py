"""Estimate joint angles from a camera topic."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument

from ropes_ros.launching import common_arguments, lifecycle_node, params_argument, respawn_argument, together
from ropes_ros.viewers import viewer_arguments, viewers


def generate_launch_description() -> LaunchDescription:
    """One node, estimator, and what shows it."""
    return LaunchDescription(
        [
            *common_arguments(),
            respawn_argument(),
            params_argument("estimator"),
            DeclareLaunchArgument(
                "model", default_value="", description="Folder of the model; as in estimator_params if empty"
            ),
            DeclareLaunchArgument(
                "image_topic", default_value="", description="Camera topic to watch; as in estimator_params if empty"
            ),
            DeclareLaunchArgument(
                "camera_info_topic",
                default_value="",
                description="Calibration of the camera; as in estimator_params if empty",
            ),
            DeclareLaunchArgument(
                "compressed",
                default_value="",
                description="image_topic carries CompressedImage; as in estimator_params if empty",
            ),
            DeclareLaunchArgument(
                "publish_tf",
                default_value="",
                description="Publish the estimated tip frame on /tf; as in estimator_params if empty",
            ),
            DeclareLaunchArgument(
                "require_gpu",
                default_value="",
                description="Refuse to start when inference would not use a GPU; as in estimator_params if empty",
            ),
            *viewer_arguments(),
            together(
                lifecycle_node(
                    "estimator",
                    {
                        "model": str,
                        "image_topic": str,
                        "camera_info_topic": str,
                        "compressed": bool,
                        "publish_tf": bool,
                        "require_gpu": bool,
                    },
                    respawns=True,
                ),
                viewers(),
            ),
        ]
    )

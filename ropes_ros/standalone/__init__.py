"""ROS 2 nodes without a ROS 2 installation: the part of rclpy that this project's nodes use, over Cyclone DDS.

`install()` provides rclpy, sensor_msgs and the other interface packages as modules, unless the real rclpy is there;
`python -m ropes_ros.standalone MODULE --ros-args ...` does so and runs a node module's main().
"""

from __future__ import annotations

from ropes_ros.standalone.modules import install, real_rclpy

__all__ = ["install", "real_rclpy"]

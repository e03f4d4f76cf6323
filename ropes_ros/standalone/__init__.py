"""ROS 2 nodes without a ROS 2 installation: the part of rclpy that this project's nodes use, over Cyclone DDS.

`install()` provides rclpy, sensor_msgs and the other interface packages as modules, unless the real rclpy is there;
`python -m ropes_ros.standalone MODULE --ros-args ...` does so and runs a node module's main().
"""

from __future__ import annotations

import importlib.util
import sys


def install() -> bool:
    """Provide rclpy and the interface packages in sys.modules, unless the real rclpy is there.

    Returns:
        Whether the standalone modules are in place.
    """
    if real_rclpy():  # its Python may lack the packages that the standalone modules need
        return False
    from ropes_ros.standalone import modules

    modules.install()
    return True


def real_rclpy() -> bool:
    """Whether the real rclpy can be imported; cheap, and right also after `install`."""
    module = sys.modules.get("rclpy")
    if module is not None:
        return not getattr(module, "ROPES_STANDALONE", False)
    return importlib.util.find_spec("rclpy") is not None

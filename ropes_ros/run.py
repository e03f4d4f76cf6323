"""The nodes' executables, under either runtime: ROS 2 where rclpy can be imported, standalone where it cannot."""

from __future__ import annotations

import importlib
import sys

from ropes_ros.errors import RopesError
from ropes_ros.processes import end_on_signals, has_ros


def sim_arm() -> int:
    """The built-in simulated arm."""
    return _run("sim_arm")


def commander() -> int:
    """The node that commands a schedule."""
    return _run("commander")


def recorder() -> int:
    """The node that records an intervention bag."""
    return _run("recorder")


def estimator() -> int:
    """The node that estimates joint angles."""
    return _run("estimator")


def _run(node: str) -> int:
    module = f"ropes_ros.nodes.{node}"
    end_on_signals()
    try:
        if has_ros():
            return int(importlib.import_module(module).main() or 0)
        from ropes_ros.standalone.__main__ import main

        return main([module, *sys.argv[1:]])
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == "cyclonedds":
            advice = (
                "neither rclpy nor cyclonedds is there: source a ROS 2 installation, or run "
                "`pip install 'ropes_ros[standalone]'`"
            )
        elif missing in ("mcap", "rosbags", "mujoco"):
            advice = f"the Python package {missing} is missing: run `pip install {missing}` (README.md, 'On a robot')"
        elif has_ros() and missing != "ropes_ros":
            advice = (
                f"the ROS package {missing} is missing: run `rosdep install --from-paths src --ignore-src -y` in the "
                "workspace"
            )
        else:
            raise
        print(f"error: {advice}", file=sys.stderr)
        return 1
    except RopesError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1

"""The whole job on the built-in arm, as `ropes demo` does it: simulate, record, learn, estimate, and report."""

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    SetEnvironmentVariable,
    SetLaunchConfiguration,
    Shutdown,
)
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.substitutions import ExecutableInPackage

from ropes_ros.cli.demo import options
from ropes_ros.launching import failure
from ropes_ros.viewers import viewer_arguments, viewers

ENVIRONMENT = {"ROS_DOMAIN_ID": "0", "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}
"""What the command would set to a domain of its own, where other nodes of this launch could not see it."""


def generate_launch_description() -> LaunchDescription:
    """One process, which starts and ends the nodes as they are needed."""
    given = [part for option in options() for part in (f"--{option.name}", LaunchConfiguration(option.name))]
    demo = ExecuteProcess(
        cmd=[ExecutableInPackage(package="ropes_ros", executable="ropes"), "demo", *given],
        output="screen",
        additional_env={"PYTHONUNBUFFERED": "1"},  # and no terminal: lines, not bars that move
        on_exit=[Shutdown()],
    )
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(option.name, default_value=option.default, description=option.help)
                for option in options()
            ),
            *(
                SetEnvironmentVariable(name, EnvironmentVariable(name, default_value=default))
                for name, default in ENVIRONMENT.items()
            ),
            # The nodes of the demo have no namespace; its live part runs at the wall clock's time.
            SetLaunchConfiguration("namespace", ""),
            SetLaunchConfiguration("use_sim_time", "false"),
            *viewer_arguments(),
            viewers(measured=True),  # first: launch leaves running what has begun when one of these raises
            failure(demo, "ropes demo"),
            demo,
        ]
    )

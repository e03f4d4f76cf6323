"""What the launch files share: described arguments, and lifecycle nodes that configure and activate themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from launch.action import Action
from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction, RegisterEventHandler
from launch.conditions import IfCondition
from launch.event_handlers import OnProcessExit
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterValue
from lifecycle_msgs.msg import Transition

from ropes_ros.errors import RuntimeSetupError
from ropes_ros.paths import share_dir

REFUSALS = (
    ("configuring", "unconfigured"),
    ("activating", "inactive"),
    ("errorprocessing", "unconfigured"),
    ("errorprocessing", "finalized"),
)
"""The transitions of a node that will not come up."""


def common_arguments() -> list[Action]:
    """The arguments that every launch file of this package takes."""
    return [
        DeclareLaunchArgument("namespace", default_value="", description="Namespace of the nodes"),
        DeclareLaunchArgument("robot", default_value="arm6", description="Robot preset, or path of a preset's YAML"),
        DeclareLaunchArgument("use_sim_time", default_value="false", description="Take the time from /clock"),
        DeclareLaunchArgument(
            "autostart", default_value="true", description="Configure and activate the nodes at launch"
        ),
    ]


def params_argument(node: str) -> DeclareLaunchArgument:
    """The argument `<node>_params`: a parameter file, by default the one in config/."""
    return DeclareLaunchArgument(
        f"{node}_params",
        default_value=str(share_dir() / "config" / f"{node}.yaml"),
        description=f"Parameter file of {node}, for all that is not a launch argument here",
    )


def lifecycle_node(
    executable: str,
    parameters: Mapping[str, type],
    *,
    on_exit: list[Action] | None = None,
    remappings: list[tuple[str, LaunchConfiguration]] | None = None,
) -> list[Action]:
    """A lifecycle node, and the events that bring it to active when `autostart` is true.

    The launch ends with an error where the node refuses, or where its process ends with a status other than 0.

    Args:
        executable: Its executable in this package, also its name.
        parameters: Launch arguments that are passed on as parameters of the same name, with their types.
        on_exit: What happens when its process ends.
        remappings: Topic names that the node uses, and what they become.
    """
    values: dict[str, Any] = {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, kind in {"robot": str, "use_sim_time": bool, **parameters}.items()
    }
    node = LifecycleNode(
        package="ropes_ros",
        executable=executable,
        name=executable,
        namespace=LaunchConfiguration("namespace"),
        parameters=[LaunchConfiguration(f"{executable}_params"), values],
        remappings=remappings or [],
        output="screen",
        emulate_tty=True,
        on_exit=on_exit,
    )
    autostart = IfCondition(LaunchConfiguration("autostart"))
    configure = EmitEvent(
        event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=Transition.TRANSITION_CONFIGURE),
        condition=autostart,
    )
    activate = RegisterEventHandler(
        OnStateTransition(
            target_lifecycle_node=node,
            start_state="configuring",
            goal_state="inactive",
            entities=[
                EmitEvent(
                    event=ChangeState(
                        lifecycle_node_matcher=matches_action(node),
                        transition_id=Transition.TRANSITION_ACTIVATE,
                    ),
                    condition=autostart,
                )
            ],
        )
    )
    refused = [
        RegisterEventHandler(
            OnStateTransition(
                target_lifecycle_node=node,
                start_state=start,
                goal_state=goal,
                entities=[OpaqueFunction(function=_fail, args=[f"{executable} did not start; its log says why"])],
            ),
            condition=autostart,
        )
        for start, goal in REFUSALS
    ]

    def ended(event: Any, context: Any) -> None:
        if event.returncode:
            _fail(context, f"{executable} ended with status {event.returncode}; its log says why")

    failed = RegisterEventHandler(OnProcessExit(target_action=node, on_exit=ended))
    return [activate, *refused, failed, node, configure]


def _fail(context: Any, reason: str) -> NoReturn:
    """End the launch with an error: launch shuts everything down, and its status is 1, on an exception."""
    raise RuntimeSetupError(reason)

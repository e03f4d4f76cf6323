"""What the launch files share: described arguments, and lifecycle nodes that configure and activate themselves."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import yaml
from launch.action import Action
from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction, RegisterEventHandler, TimerAction
from launch.event_handlers import OnProcessExit, OnProcessStart
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from lifecycle_msgs.msg import Transition

from ropes_ros.errors import RopesError, RuntimeSetupError
from ropes_ros.paths import share_dir
from ropes_ros.robot import load_robot

REFUSALS = (
    ("configuring", "unconfigured"),
    ("activating", "inactive"),
    ("errorprocessing", "unconfigured"),
    ("errorprocessing", "finalized"),
)
"""The transitions of a node that will not come up."""
RESPAWN_DELAY_S = 2.0
LEASE_S = 21.0
"""Time after which the usual DDS implementations forget a participant that was killed. A request that is sent before
goes to its services as well, and is not answered."""
LEVELS = ("debug", "info", "warn", "error", "fatal")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def robot_arguments() -> list[Action]:
    """The arguments that say which robot is meant, and where its names are."""
    return [
        DeclareLaunchArgument("namespace", default_value="", description="Namespace of the nodes"),
        DeclareLaunchArgument("robot", default_value="arm6", description="Robot preset, or path of a preset's YAML"),
    ]


def common_arguments() -> list[Action]:
    """The arguments of every launch file that starts lifecycle nodes of this package."""
    return [
        *robot_arguments(),
        DeclareLaunchArgument("use_sim_time", default_value="false", description="Take the time from /clock"),
        DeclareLaunchArgument(
            "autostart", default_value="true", description="Configure and activate the nodes at launch"
        ),
        DeclareLaunchArgument(
            "log_level", default_value="info", description="Least severity logged: debug, info, warn, error or fatal"
        ),
        DeclareLaunchArgument(
            "enclaves",
            default_value="",
            description="SROS 2: what is above the nodes' enclaves, such as /ropes of /ropes/estimator; none if empty",
        ),
    ]


def params_argument(node: str) -> Action:
    """The argument `<node>_params`: a parameter file, by default the one in config/."""
    return DeclareLaunchArgument(
        f"{node}_params",
        default_value=str(share_dir() / "config" / f"{node}.yaml"),
        description=f"Parameter file of {node}; arguments that are given win over it",
    )


def respawn_argument() -> Action:
    """The argument `respawn`."""
    return DeclareLaunchArgument(
        "respawn",
        default_value="false",
        description="Start a node again, and configure and activate it, when its process fails (after 21 s if it was "
        "killed, for the middleware to forget it)",
    )


def lifecycle_node(
    executable: str,
    parameters: Mapping[str, type],
    *,
    on_exit: list[Action] | None = None,
    remappings: list[tuple[str, LaunchConfiguration]] | None = None,
    respawns: bool = False,
) -> Action:
    """A lifecycle node, and the events that bring it to active when `autostart` is true.

    The launch ends with an error where an argument is malformed, where the node refuses, or where its process ends with
    a status other than 0 and is not started again.

    Args:
        executable: Its executable in this package, also its name.
        parameters: Launch arguments that are passed on as parameters of the same name, with their types; an empty one
            leaves the parameter to the parameter file.
        on_exit: What happens when its process ends.
        remappings: Topic names that the node uses, and what they become.
        respawns: Whether the launch file takes the argument `respawn`.
    """

    def make(context: Any) -> list[Action]:
        given = partial(argument, context)
        respawn = respawns and boolean("respawn", given("respawn"))
        autostart = boolean("autostart", given("autostart"))
        file = Path(given(f"{executable}_params"))
        check_parameter_file(f"{executable}_params", file)
        values = {
            name: value_of(name, text, kind)
            for name, kind in {"robot": str, "use_sim_time": bool, **parameters}.items()
            if (text := given(name))
        }
        check_robot(given("robot"))
        if given("log_level") not in LEVELS:
            raise RuntimeSetupError(f"launch argument log_level:={given('log_level')} must be {', '.join(LEVELS)}")
        enclave = ["--enclave", f"{given('enclaves').rstrip('/')}/{executable}"] if given("enclaves") else []
        node = LifecycleNode(
            package="ropes_ros",
            executable=executable,
            name=executable,
            namespace=LaunchConfiguration("namespace"),
            parameters=[str(file), values],
            remappings=remappings or [],
            ros_arguments=["--log-level", given("log_level"), *enclave],
            output="screen",
            emulate_tty=True,
            on_exit=on_exit,
            respawn=respawn,
            respawn_delay=RESPAWN_DELAY_S,
        )
        events = [failure(node, executable)] if not respawn else []
        if autostart:
            events += _autostart(node, executable)
        return [*events, node]

    return OpaqueFunction(function=make)


def together(*makers: Any) -> Action:
    """What several OpaqueFunctions make, begun once all of it is made.

    A process that launch has begun when a later action raises is left running: so none begins where an argument of
    another one is malformed.
    """
    return OpaqueFunction(function=lambda context: [made for maker in makers for made in maker.execute(context) or []])


def boolean(argument: str, text: str) -> bool:
    """The value of a launch argument that is true or false.

    Raises:
        RuntimeSetupError: It is neither.
    """
    try:
        return _BOOLEANS[text.lower()]
    except KeyError:
        raise RuntimeSetupError(f"launch argument {argument}:={text} must be true or false") from None


def check_parameter_file(argument: str, path: Path) -> None:
    """Refuse a parameter file that nodes would only end over.

    Raises:
        RuntimeSetupError: It is missing, is no YAML, or holds no `ros__parameters`.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RuntimeSetupError(f"launch argument {argument}:={path} cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise RuntimeSetupError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    sections = content.values() if isinstance(content, dict) else [None]
    if not all(_has_parameters(section) for section in sections):
        raise RuntimeSetupError(f"{path} is no parameter file: it must look like /**: ros__parameters: ...")


def _has_parameters(section: object) -> bool:
    """Whether a section of a parameter file, or one below it, holds `ros__parameters`."""
    if not isinstance(section, dict):
        return False
    return "ros__parameters" in section or any(map(_has_parameters, section.values()))


def check_robot(robot: str) -> None:
    """Refuse a robot that is no preset.

    Raises:
        RuntimeSetupError: It cannot be loaded.
    """
    try:
        load_robot(robot)
    except RopesError as error:
        raise RuntimeSetupError(f"launch argument robot:={robot}: {error}") from None


def argument(context: Any, name: str) -> str:
    """The text of a launch argument."""
    return str(LaunchConfiguration(name).perform(context)).strip()


def value_of(name: str, text: str, kind: type) -> Any:
    """A launch argument's text as a value.

    Raises:
        RuntimeSetupError: It is not of that type.
    """
    if kind is bool:
        return boolean(name, text)
    try:
        return kind(text)
    except ValueError:
        raise RuntimeSetupError(f"launch argument {name}:={text} must be a number") from None


def failure(process: Any, name: str) -> Action:
    """End the launch with an error when a process fails.

    Args:
        process: The action that starts it.
        name: What it is called in the message.
    """

    def ended(event: Any, context: Any) -> None:
        interrupted = context.is_shutdown and event.returncode < 0
        if event.returncode and not interrupted:
            _fail(f"{name} ended with status {event.returncode}; its log says why")

    return RegisterEventHandler(OnProcessExit(target_action=process, on_exit=ended))


def _autostart(node: Any, executable: str) -> list[Action]:
    """Configure the node whenever its process starts, activate it when it is configured, give up where it refuses."""

    def change(transition: int) -> Action:
        return EmitEvent(event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition))

    def on(start: str, goal: str, action: Action) -> Action:
        return RegisterEventHandler(
            OnStateTransition(target_lifecycle_node=node, start_state=start, goal_state=goal, entities=[action])
        )

    def refuse(context: Any) -> NoReturn:
        _fail(f"{executable} did not start; its log says why")

    killed = False
    waiting: list[Any] = []

    def ended(event: Any, context: Any) -> None:
        nonlocal killed
        killed = event.returncode < 0
        while waiting:  # for a process that has ended meanwhile
            waiting.pop().cancel()

    def started(event: Any, context: Any) -> list[Action]:
        configure = change(Transition.TRANSITION_CONFIGURE)
        if not killed:
            return [configure]
        waiting.append(TimerAction(period=LEASE_S - RESPAWN_DELAY_S, actions=[configure]))
        return [waiting[-1]]

    return [
        RegisterEventHandler(OnProcessExit(target_action=node, on_exit=ended)),
        RegisterEventHandler(OnProcessStart(target_action=node, on_start=started)),
        on("configuring", "inactive", change(Transition.TRANSITION_ACTIVATE)),
        *(on(start, goal, OpaqueFunction(function=refuse)) for start, goal in REFUSALS),
    ]


def _fail(reason: str) -> NoReturn:
    """End the launch with an error: launch shuts everything down, and its status is 1, on an exception."""
    raise RuntimeSetupError(reason)

"""What the launch files share, against stand-ins for launch that keep their arguments."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from ropes_ros.errors import RuntimeSetupError
from ropes_ros.paths import share_dir

ARGUMENTS = {
    "namespace": "",
    "robot": "arm6",
    "use_sim_time": "false",
    "autostart": "true",
    "log_level": "info",
    "enclaves": "",
    "respawn": "false",
    "recorder_params": str(share_dir() / "config" / "recorder.yaml"),
    "path": "bag",
    "rate": "",
}


@pytest.fixture
def launching(monkeypatch: pytest.MonkeyPatch, tables: Any) -> ModuleType:
    for name in tables.LAUNCH_MODULES:
        monkeypatch.setitem(sys.modules, name, MagicMock(name=name))
    sys.modules["launch.substitutions"].LaunchConfiguration = lambda name: SimpleNamespace(  # type: ignore[attr-defined]
        perform=lambda context: context[name]
    )
    monkeypatch.delitem(sys.modules, "ropes_ros.launching", raising=False)
    module = importlib.import_module("ropes_ros.launching")
    monkeypatch.delitem(sys.modules, "ropes_ros.launching")
    return module


def make(launching: Any, **arguments: str) -> list[Any]:
    """The actions of a node, as launch makes them of arguments."""
    launching.lifecycle_node("recorder", {"path": str, "rate": float}, respawns=True)
    function = launching.OpaqueFunction.call_args_list[0].kwargs["function"]
    return list(function({**ARGUMENTS, **arguments}))


def node_parameters(launching: Any) -> list[Any]:
    return list(launching.LifecycleNode.call_args.kwargs["parameters"])


def test_arguments_win_over_the_parameter_file_and_empty_ones_do_not(launching: Any) -> None:
    make(launching, rate="")
    assert node_parameters(launching) == [
        ARGUMENTS["recorder_params"],
        {"robot": "arm6", "use_sim_time": False, "path": "bag"},
    ]
    make(launching, rate="2.5", use_sim_time="True")
    assert node_parameters(launching)[1] == {"robot": "arm6", "use_sim_time": True, "path": "bag", "rate": 2.5}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"use_sim_time": "maybe"}, r"use_sim_time:=maybe must be true or false"),
        ({"autostart": "2"}, r"autostart:=2 must be true or false"),
        ({"rate": "fast"}, r"rate:=fast must be a number"),
        ({"log_level": "loud"}, r"log_level:=loud must be debug"),
        ({"robot": "no_such_arm"}, r"robot:=no_such_arm"),
        ({"recorder_params": "/nowhere.yaml"}, r"recorder_params:=/nowhere.yaml cannot be read"),
    ],
)
def test_a_malformed_argument_ends_the_launch_with_its_name(
    launching: Any, arguments: dict[str, str], message: str
) -> None:
    with pytest.raises(RuntimeSetupError, match=message):
        make(launching, **arguments)
    launching.LifecycleNode.assert_not_called()


@pytest.mark.parametrize("text", ["[1, 2]", "a: 1", "/**: [", "", "\xff", "/**: {robot: x}", "[" * 20000])
def test_a_file_that_holds_no_parameters_is_named(launching: Any, tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(RuntimeSetupError, match=r"params\.yaml"):
        make(launching, recorder_params=str(path))


def test_a_node_is_configured_whenever_its_process_starts_and_then_activated(launching: Any) -> None:
    launching.Transition.TRANSITION_CONFIGURE, launching.Transition.TRANSITION_ACTIVATE = 1, 3
    make(launching)
    (started,) = launching.OnProcessStart.call_args_list
    assert started.kwargs["target_action"] is launching.LifecycleNode.return_value
    started.kwargs["on_start"](None, None)
    launching.TimerAction.assert_not_called()
    assert sorted(call.kwargs["transition_id"] for call in launching.ChangeState.call_args_list) == [1, 3]
    states = [
        (call.kwargs["start_state"], call.kwargs["goal_state"]) for call in launching.OnStateTransition.call_args_list
    ]
    assert states[0] == ("configuring", "inactive")
    assert set(launching.REFUSALS) == set(states[1:])


def test_a_node_that_was_killed_is_configured_when_it_is_forgotten(launching: Any) -> None:
    make(launching, respawn="true")
    (exited,), (started,) = launching.OnProcessExit.call_args_list, launching.OnProcessStart.call_args_list
    exited.kwargs["on_exit"](SimpleNamespace(returncode=1), None)
    started.kwargs["on_start"](None, None)
    launching.TimerAction.assert_not_called()
    exited.kwargs["on_exit"](SimpleNamespace(returncode=-9), None)
    (action,) = started.kwargs["on_start"](None, None)
    assert action is launching.TimerAction.return_value
    assert launching.TimerAction.call_args.kwargs["period"] + launching.RESPAWN_DELAY_S == launching.LEASE_S
    action.cancel.assert_not_called()
    exited.kwargs["on_exit"](SimpleNamespace(returncode=-9), None)
    action.cancel.assert_called_once()  # what waited for that process is not for the next one


def test_every_node_has_an_enclave_of_its_own_where_they_are_named(launching: Any) -> None:
    make(launching)
    assert "--enclave" not in launching.LifecycleNode.call_args.kwargs["ros_arguments"]
    make(launching, enclaves="/ropes/")
    assert launching.LifecycleNode.call_args.kwargs["ros_arguments"][-2:] == ["--enclave", "/ropes/recorder"]


def test_without_autostart_nothing_is_done_to_the_node(launching: Any) -> None:
    make(launching, autostart="false")
    launching.OnProcessStart.assert_not_called()
    launching.ChangeState.assert_not_called()


def fails(action: Any, *arguments: Any) -> bool:
    with pytest.raises(RuntimeSetupError, match="recorder"):
        action(*arguments)
    return True


def test_a_node_that_does_not_come_up_ends_the_launch_with_an_error(launching: Any) -> None:
    make(launching)
    refusals = [call.kwargs["function"] for call in launching.OpaqueFunction.call_args_list[1:]]
    assert len(refusals) == len(launching.OnStateTransition.call_args_list) - 1 == 4
    assert all(fails(refusal, None) for refusal in refusals)


def test_a_node_that_ends_with_an_error_ends_the_launch_unless_it_is_started_again(launching: Any) -> None:
    make(launching)
    call = launching.OnProcessExit.call_args_list[0]
    running, ending = SimpleNamespace(is_shutdown=False), SimpleNamespace(is_shutdown=True)
    ended = call.kwargs["on_exit"]
    assert ended(SimpleNamespace(returncode=0), running) is None
    assert ended(SimpleNamespace(returncode=-2), ending) is None
    assert fails(ended, SimpleNamespace(returncode=1), ending)
    assert fails(ended, SimpleNamespace(returncode=1), running)
    assert fails(ended, SimpleNamespace(returncode=-9), running)
    assert not launching.LifecycleNode.call_args.kwargs["respawn"]
    launching.OnProcessExit.reset_mock()
    make(launching, respawn="true")
    assert launching.LifecycleNode.call_args.kwargs["respawn"]
    assert len(launching.OnProcessExit.call_args_list) == 1  # the one of autostart


def test_nothing_begins_where_what_comes_after_it_cannot_be_made(launching: Any) -> None:
    """launch leaves a process running that has begun when a later action raises."""

    def refuse(context: Any) -> list[Any]:
        raise RuntimeSetupError("launch argument rviz:=maybe must be true or false")

    made = [SimpleNamespace(execute=lambda context: [f"{context} 1", f"{context} 2"])]
    launching.together(*made, SimpleNamespace(execute=lambda context: None))
    assert launching.OpaqueFunction.call_args.kwargs["function"]("node") == ["node 1", "node 2"]
    launching.together(*made, SimpleNamespace(execute=refuse))
    with pytest.raises(RuntimeSetupError, match="rviz:=maybe"):
        launching.OpaqueFunction.call_args.kwargs["function"]("node")

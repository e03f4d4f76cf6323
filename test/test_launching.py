"""What the launch files share, against stand-ins for launch that keep their arguments."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from ropes_ros.errors import RuntimeSetupError

MODULES = (
    "launch",
    *(f"launch.{name}" for name in ("action", "actions", "conditions", "event_handlers", "events", "substitutions")),
    "launch_ros",
    *(f"launch_ros.{name}" for name in ("actions", "event_handlers", "events", "parameter_descriptions")),
    "launch_ros.events.lifecycle",
    "lifecycle_msgs",
    "lifecycle_msgs.msg",
)


@pytest.fixture
def launching(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for name in MODULES:
        monkeypatch.setitem(sys.modules, name, MagicMock(name=name))
    monkeypatch.delitem(sys.modules, "ropes_ros.launching", raising=False)
    module = importlib.import_module("ropes_ros.launching")
    monkeypatch.delitem(sys.modules, "ropes_ros.launching")
    return module


def fails(action: Any, *arguments: Any) -> bool:
    with pytest.raises(RuntimeSetupError, match="recorder"):
        action(*arguments)
    return True


def test_a_node_that_does_not_come_up_ends_the_launch_with_an_error(launching: Any) -> None:
    launching.lifecycle_node("recorder", {})
    wanted = {
        (call.kwargs["start_state"], call.kwargs["goal_state"]) for call in launching.OnStateTransition.call_args_list
    }
    assert {("configuring", "unconfigured"), ("activating", "inactive"), ("errorprocessing", "finalized")} <= wanted
    assert len(launching.OpaqueFunction.call_args_list) == len(wanted) - 1
    for call in launching.OpaqueFunction.call_args_list:
        assert fails(call.kwargs["function"], None, *call.kwargs["args"])


def test_a_node_that_ends_with_an_error_ends_the_launch_with_one(launching: Any) -> None:
    launching.lifecycle_node("recorder", {})
    (call,) = launching.OnProcessExit.call_args_list
    assert call.kwargs["on_exit"](SimpleNamespace(returncode=0), None) is None
    assert fails(call.kwargs["on_exit"], SimpleNamespace(returncode=1), None)

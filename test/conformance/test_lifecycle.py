"""Lifecycle nodes from within: transitions, what callbacks may answer, publishers, managed entities."""

from __future__ import annotations

from typing import Any

import pytest
from conformance_support import STANDALONE, Ros, either
from lifecycle_msgs.msg import TransitionEvent
from lifecycle_msgs.srv import GetState
from rclpy.lifecycle import LifecycleNode, LifecycleState, ManagedEntity, SimpleManagedEntity, TransitionCallbackReturn
from std_msgs.msg import String

SUCCESS, FAILURE, ERROR = (
    TransitionCallbackReturn.SUCCESS,
    TransitionCallbackReturn.FAILURE,
    TransitionCallbackReturn.ERROR,
)


class Scripted(LifecycleNode):
    """Answers what it is told to, and notes what it is asked."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, str]] = []

    def _answer(self, callback: str, state: LifecycleState) -> TransitionCallbackReturn:
        self.asked.append((callback, state.label))
        answer = self.answers.get(callback, SUCCESS)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._answer("configure", state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._answer("cleanup", state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._answer("activate", state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._answer("deactivate", state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._answer("shutdown", state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._answer("error", state)


def state_of(ros: Ros, node: Any) -> str:
    """The state that the node's service tells."""
    return str(ros.call(node, GetState, "~/get_state", GetState.Request()).current_state.label)


def test_the_whole_circle(ros: Ros) -> None:
    node = ros.lifecycle(kind=Scripted)
    seen = [state_of(ros, node)]
    for step in ("configure", "activate", "deactivate", "cleanup", "configure", "activate", "shutdown"):
        assert getattr(node, f"trigger_{step}")() == SUCCESS
        seen.append(state_of(ros, node))
    assert seen == [
        *("unconfigured", "inactive", "active", "inactive", "unconfigured", "inactive", "active", "finalized")
    ]
    assert node.asked == [
        *(("configure", "unconfigured"), ("activate", "inactive"), ("deactivate", "active"), ("cleanup", "inactive")),
        *(("configure", "unconfigured"), ("activate", "inactive"), ("shutdown", "active")),
    ]


PATHS = {
    "configure": [],
    "cleanup": ["configure"],
    "activate": ["configure"],
    "deactivate": ["configure", "activate"],
    "shutdown": ["configure", "activate"],
}


@pytest.mark.parametrize(
    ("step", "after"),
    [
        ("configure", "unconfigured"),
        ("cleanup", "inactive"),
        ("activate", "inactive"),
        ("deactivate", "active"),
        ("shutdown", "finalized"),
    ],
)
def test_failure_leads_back_where_it_can(ros: Ros, step: str, after: str) -> None:
    node = ros.lifecycle(kind=Scripted)
    for before in PATHS[step]:
        getattr(node, f"trigger_{before}")()
    node.answers[step] = FAILURE
    assert getattr(node, f"trigger_{step}")() == FAILURE
    assert state_of(ros, node) == after and "error" not in dict(node.asked)


@pytest.mark.parametrize("step", list(PATHS))
@pytest.mark.parametrize("how", [ERROR, ValueError("surprise")], ids=["error", "raise"])
@pytest.mark.parametrize(
    ("answer", "after"),
    [(SUCCESS, "unconfigured"), (FAILURE, "finalized"), (ERROR, "finalized"), (KeyError("x"), "finalized")],
    ids=["recovers", "fails", "errs", "raises"],
)
def test_errors_are_processed(ros: Ros, step: str, how: Any, answer: Any, after: str) -> None:
    node = ros.lifecycle(kind=Scripted, enable_rosout=False)
    for before in PATHS[step]:
        getattr(node, f"trigger_{before}")()
    node.answers.update({step: how, "error": answer})
    assert getattr(node, f"trigger_{step}")() == ERROR
    assert [name for name, _ in node.asked[-2:]] == [step, "error"]
    assert node.asked[-1][1] == node.asked[-2][1]  # both are told the state from which the transition began
    assert state_of(ros, node) == after


def test_without_an_on_error_of_its_own_a_node_recovers(ros: Ros) -> None:
    class Broken(LifecycleNode):
        def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
            raise ValueError("surprise")

    node = ros.lifecycle(kind=Broken)
    assert node.trigger_configure() == ERROR and state_of(ros, node) == "unconfigured"


def test_transitions_that_the_state_does_not_allow_raise(ros: Ros) -> None:
    node = ros.lifecycle(kind=Scripted)
    for step in ("activate", "deactivate", "cleanup"):
        with pytest.raises(RuntimeError):
            getattr(node, f"trigger_{step}")()
    node.trigger_shutdown()
    for step in ("configure", "shutdown"):
        with pytest.raises(RuntimeError):
            getattr(node, f"trigger_{step}")()
    assert node.asked == [("shutdown", "unconfigured")] and state_of(ros, node) == "finalized"


def test_a_callback_that_answers_nothing_is_an_error(ros: Ros) -> None:
    class Silent(LifecycleNode):
        def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
            return None  # type: ignore[return-value]

    node = ros.lifecycle(kind=Silent)
    if either("transition-callback-without-answer", standalone=True, ros=False):
        assert node.trigger_configure() == ERROR
    else:
        with pytest.raises(AttributeError):
            node.trigger_configure()


def test_lifecycle_publishers_are_silent_while_the_node_is_not_active(ros: Ros) -> None:
    node = ros.lifecycle()
    listener = ros.node("listener")
    got: list[str] = []
    listener.create_subscription(String, "out", lambda message: got.append(message.data), 10)
    publisher = node.create_lifecycle_publisher(String, "out", 10)
    plain = node.create_publisher(String, "out", 10)
    ros.spin(lambda: publisher.get_subscription_count() and plain.get_subscription_count(), "the listener")

    def say(word: str) -> None:
        publisher.publish(String(data=word))

    say("unconfigured")
    node.trigger_configure()
    assert not publisher.is_activated
    say("inactive")
    node.trigger_activate()
    assert publisher.is_activated
    say("active")
    node.trigger_deactivate()
    say("deactivated")
    node.trigger_activate()
    say("again")
    plain.publish(String(data="end"))
    ros.spin(lambda: "end" in got and "again" in got, "the last message")
    assert sorted(got) == ["active", "again", "end"]
    assert node.destroy_lifecycle_publisher(publisher) and not node.destroy_lifecycle_publisher(publisher)
    assert node.trigger_deactivate() == SUCCESS


def test_managed_entities_follow_and_may_refuse(ros: Ros) -> None:
    class Part(ManagedEntity):
        def __init__(self) -> None:
            self.heard: list[str] = []
            self.answer = SUCCESS

        def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
            self.heard.append("configure")
            return self.answer

        def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
            self.heard.append("activate")
            return self.answer

    node, part = ros.lifecycle(), Part()
    node.add_managed_entity(part)
    with pytest.raises(TypeError):
        node.add_managed_entity("no entity")
    assert node.trigger_configure() == SUCCESS
    part.answer = FAILURE
    assert node.trigger_activate() == FAILURE and part.heard == ["configure", "activate"]
    assert state_of(ros, node) == "inactive"


def test_when_enabled(ros: Ros) -> None:
    instead: list[str] = []

    class Lamp(SimpleManagedEntity):
        def __init__(self) -> None:
            super().__init__()
            self.lit = 0

        @SimpleManagedEntity.when_enabled
        def light(self) -> None:
            self.lit += 1

        @SimpleManagedEntity.when_enabled(when_not_enabled=lambda: instead.append("dark"))
        def flash(self) -> None:
            self.lit += 1

    node, lamp = ros.lifecycle(), Lamp()
    node.add_managed_entity(lamp)
    lamp.light()
    lamp.flash()
    assert lamp.lit == 0 and instead == ["dark"] and not lamp.is_activated
    node.trigger_configure()
    node.trigger_activate()
    lamp.light()
    lamp.flash()
    assert lamp.lit == 2 and lamp.is_activated


def test_a_node_may_do_without_the_services(ros: Ros) -> None:
    node = ros.lifecycle("quiet", enable_communication_interface=False)
    assert node.trigger_configure() == SUCCESS
    ros.spin(lambda: "/quiet/get_parameters" in dict(node.get_service_names_and_types()), "the parameter services")
    assert "/quiet/get_state" not in dict(node.get_service_names_and_types())


def test_spinning_brings_a_node_up_only_standalone(ros: Ros) -> None:
    node = ros.node(kind=Scripted)
    ros.spin_for(0.1)
    expected = [("configure", "unconfigured"), ("activate", "inactive")]
    assert node.asked == either("lifecycle-autostart", standalone=expected, ros=[])


def test_destroying_shuts_a_node_down_only_standalone(ros: Ros) -> None:
    node = ros.lifecycle(kind=Scripted)
    node.trigger_configure()
    node.trigger_activate()
    del node.asked[:]
    ros.destroy(node)
    expected = [("deactivate", "active"), ("shutdown", "inactive")]
    assert node.asked == either("destroying-shuts-down", standalone=expected, ros=[])


def test_every_step_is_published(ros: Ros) -> None:
    node = ros.lifecycle("beside", Scripted)
    listener = ros.node("listener")
    events: list[TransitionEvent] = []
    listener.create_subscription(TransitionEvent, "/beside/transition_event", events.append, 10)
    ros.spin(lambda: node.count_subscribers("/beside/transition_event") == 1, "the listener")
    ros.spin(lambda: _heard(ros, node, events), "the first event")
    del events[:]
    node.answers["activate"] = FAILURE
    node.trigger_activate()
    node.answers.update(activate=ERROR, error=SUCCESS)
    node.trigger_activate()
    expected = [
        *(("inactive", "activating"), ("activating", "inactive"), ("inactive", "activating")),
        *(("activating", "errorprocessing"), ("errorprocessing", "unconfigured")),
    ]
    ros.spin(lambda: len(events) >= len(expected), "the events")
    assert [(event.start_state.label, event.goal_state.label) for event in events] == expected
    assert (events[0].start_state.id, events[0].goal_state.id) == (2, 13)
    if STANDALONE:
        assert (events[0].transition.id, events[0].transition.label) == (3, "activate") and events[0].timestamp > 0


def _heard(ros: Ros, node: Any, events: list[TransitionEvent]) -> bool:
    """Configure a node, again and again, until that is heard."""
    node.trigger_configure()
    ros.spin_for(0.05)
    if len(events) >= 2:
        return True
    node.trigger_cleanup()
    return False

"""Callback groups: rclpy.callback_groups. One thread runs all callbacks, so both kinds behave alike."""

from __future__ import annotations


class CallbackGroup:
    """Base of the callback groups."""


class MutuallyExclusiveCallbackGroup(CallbackGroup):
    """At most one of the group's callbacks runs at a time."""


class ReentrantCallbackGroup(CallbackGroup):
    """The group's callbacks may run at the same time where the executor has several threads."""

"""The commander's parameters: names, defaults, descriptions, bounds."""

from __future__ import annotations

from typing import Any

from ropes_ros.command_messages import COMMAND_TYPES
from ropes_ros.nodes.common import described


def parameters() -> tuple[tuple[str, Any, Any], ...]:
    """Name, default and descriptor of each."""
    return (
        ("robot", "arm6", described("Robot preset to command", read_only=True)),
        ("schedule", "", described("Schedule (YAML) to command", read_only=True)),
        ("motion", "schedule", described("schedule, or waypoints: random poses, no regimes", read_only=True)),
        (
            "seed",
            0,
            described("Seed of the waypoints", integer_bounds=(0, 2**31 - 1), read_only=True),
        ),
        (
            "duration",
            60.0,
            described("Length of the waypoint motion in s", bounds=(5.0, 86400.0), read_only=True),
        ),
        (
            "command_type",
            "JointTrajectory",
            described(f"Message type of joint_command: {', '.join(COMMAND_TYPES)}", read_only=True),
        ),
        (
            "horizon",
            3.0,
            described("How far ahead trajectories reach in s", bounds=(0.5, 30.0), read_only=True),
        ),
        (
            "chunk",
            0.5,
            described("Time between trajectories in s", bounds=(0.05, 5.0), read_only=True),
        ),
        (
            "point_rate",
            50.0,
            described("Points, or single targets, per s", bounds=(5.0, 1000.0), read_only=True),
        ),
        ("exit_when_done", False, described("End the process after the motion", read_only=True)),
        (
            "wait_for_recorder",
            False,
            described("Begin only when somebody listens to ropes/regime too", read_only=True),
        ),
        (
            "assume_home",
            False,
            described("Take a robot without joint_states to be at home, rather than wait for them", read_only=True),
        ),
        (
            "armed",
            False,
            described("Move the robot; otherwise nothing is sent to it, and no regime announced", read_only=True),
        ),
        (
            "start_within",
            1.1,
            described(
                "How far each joint may be from home, in half ranges, for the robot to be led there",
                bounds=(0.0, 100.0),
                read_only=True,
            ),
        ),
        (
            "soft_limit_margin",
            0.01,
            described(
                "Share of a joint's range that is kept free at both of its ends", bounds=(0.0, 0.4), read_only=True
            ),
        ),
        (
            "tracking_limit",
            [0.2],
            described(
                "How far a joint may be from its command, in half ranges: for all joints, or one each",
                read_only=True,
            ),
        ),
        (
            "tracking_time",
            0.3,
            described("How long in s it may be further away", bounds=(0.0, 10.0), read_only=True),
        ),
        (
            "joint_states_timeout",
            1.0,
            described("Silence of joint_states in s that stops the robot", bounds=(0.1, 10.0), read_only=True),
        ),
        (
            "deadman_topic",
            "",
            described(
                "Bool that must be true, and repeated, for the robot to move; none when empty", read_only=True
            ),
        ),
        (
            "deadman_timeout",
            0.5,
            described("Silence of deadman_topic in s that stops the robot", bounds=(0.05, 10.0), read_only=True),
        ),
        (
            "resume_from",
            0.0,
            described("Time in s of the motion to go on at", bounds=(0.0, 86400.0), read_only=True),
        ),
        (
            "progress_file",
            "",
            described("File to note in how far the motion is; none when empty", read_only=True),
        ),
    )

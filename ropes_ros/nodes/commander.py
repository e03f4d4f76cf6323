"""The commander node: commands a schedule's motion (or waypoints) and announces the regimes it is in.

Commands go out ahead of time and end in a stop; see `ropes_ros.streaming`, which decides what is said when.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import rclpy
from builtin_interfaces.msg import Duration as DurationMsg
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from ropes_ros.command_messages import COMMAND_TYPES
from ropes_ros.errors import ScheduleError
from ropes_ros.motion import Motion, Trajectory, WaypointMotion
from ropes_ros.nodes.common import (
    COMMAND_MESSAGES,
    INACTIVE,
    OVERRIDABLE,
    Reporter,
    Statement,
    described,
    latched,
    offer,
    run,
    to_stamp,
    told,
)
from ropes_ros.regimes import Schedule, regime_to_msg
from ropes_ros.robot import Robot, load_robot
from ropes_ros.streaming import CommandStream, Points, Update
from ropes_ros.units import NANOSECONDS

STREAM_HORIZON_NS = NANOSECONDS // 2
"""How far ahead labels reach where targets are sent one by one: what a label may be worth after a crash."""
JOINT_STATES_WAIT_NS = 2 * NANOSECONDS
"""How long joint states are waited for where the robot may be taken to be at home without them."""
JOINT_STATES_AGE_NS = 2 * NANOSECONDS
"""Age from which a measured position says no more where the joint is."""
REGIME_DEPTH = 100
"""Regimes of several seconds go out at once; none may push another out before it is delivered."""
GOODBYE = Duration(seconds=1.0)
WAITING_LOG_S = 5.0


class Commander(LifecycleNode):
    """Commands the robot and announces regimes; see docs/interface.md for topics and parameters."""

    def __init__(self) -> None:
        super().__init__("commander")
        for name, default, descriptor in (
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
        ):
            self.declare_parameter(name, default, descriptor)
        self._stream: CommandStream | None = None
        self._measured: dict[str, tuple[int, float]] = {}
        self._asked_ns: int | None = None
        self._timer: Any = None
        self._joint_states: Any = None
        self._finished = self._stopped = False
        self._reporter = Reporter(self, "motion", self._statement)
        offer(self, "~/start", self._start_again)
        offer(self, "~/stop", self._stop_motion)

    @told
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load robot and schedule; nothing is sent yet."""
        self._robot: Robot = load_robot(self._value("robot"))
        self._schedule, self._motion = self._load_motion()
        self._command_type: str = self._value("command_type")
        if self._command_type not in COMMAND_TYPES:
            raise ScheduleError(
                f"parameter command_type is '{self._command_type}': known are {', '.join(COMMAND_TYPES)}"
            )
        if self._value("horizon") < 2.0 * self._value("chunk"):
            raise ScheduleError("parameter horizon must be at least twice the parameter chunk")
        self._streamed = self._command_type != "JointTrajectory"
        self._commands = self.create_lifecycle_publisher(
            COMMAND_MESSAGES[self._command_type], "joint_command", 10, qos_overriding_options=OVERRIDABLE
        )
        self._regimes = self.create_lifecycle_publisher(DiagnosticArray, "ropes/regime", latched(REGIME_DEPTH))
        return TransitionCallbackReturn.SUCCESS

    @told
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to wait for listeners, then to command."""
        super().on_activate(state)
        self._await()
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop the robot."""
        self._stop()
        self._stopped = False
        super().on_deactivate(state)
        self._reporter.update()
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of what on_configure made."""
        for publisher in (self._commands, self._regimes):
            self.destroy_lifecycle_publisher(publisher)
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop the robot."""
        self._stop()
        return TransitionCallbackReturn.SUCCESS

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _await(self) -> None:
        """Wait for listeners and joint states, and begin when they are there."""
        self._stream = self._asked_ns = None
        self._measured = {}
        self._finished = self._stopped = False
        self._joint_states = self.create_subscription(
            JointState,
            "joint_states",
            self._on_joint_states,
            qos_profile_sensor_data,
            qos_overriding_options=OVERRIDABLE,
        )
        period = 1.0 / self._value("point_rate") if self._streamed else self._value("chunk")
        self._timer = self.create_timer(period, self._tick)
        self._reporter.update()

    def _start_again(self) -> str:
        """Begin the motion from its beginning."""
        if self._timer is None and not self._stopped:
            raise ScheduleError("the commander is not active: activate it, which begins the motion too")
        if not (self._stopped or self._finished):
            raise ScheduleError("the motion has begun, or waits to begin: stop it first")
        self._stop()
        self._await()
        return "the motion begins when the robot listens and its position is known"

    def _stop_motion(self) -> str:
        """Brake; only `~/start`, or another activation, begins anew."""
        if self._timer is None:
            raise ScheduleError("nothing is commanded: the commander is not active, or stopped already")
        self._stop()
        self._stopped = True
        self._reporter.update()
        return "stopped; no regime holds"

    def _load_motion(self) -> tuple[Schedule | None, Motion]:
        kind, path = self._value("motion"), self._value("schedule")
        if kind == "waypoints":
            return None, WaypointMotion(self._robot, self._value("seed"), self._value("duration"))
        if kind != "schedule":
            raise ScheduleError(f"parameter motion is '{kind}': known are schedule, waypoints")
        if not path:
            raise ScheduleError("parameter schedule is empty: give it a schedule (`ropes schedule make --save PATH`)")
        schedule = Schedule.load(path)
        try:
            return schedule, Trajectory(self._robot, schedule)
        except ScheduleError as error:
            raise ScheduleError(f"{path}: {error}") from None

    def _now(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def _on_joint_states(self, message: JointState) -> None:
        """Note where joints are before the motion begins; a message may hold some of them."""
        now_ns = self._now()
        for name, position in zip(message.name, message.position, strict=False):
            if name not in self._robot.joint_names:
                continue
            if not math.isfinite(position):
                self.get_logger().warning(
                    f"joint_states: the position of joint {name} is {position}, which is not used",
                    throttle_duration_sec=WAITING_LOG_S,
                )
            self._measured[name] = now_ns, float(position)

    def _unknown(self, now_ns: int) -> list[str]:
        """Joints whose position no recent joint state tells."""
        return [
            name
            for name in self._robot.joint_names
            if name not in self._measured
            or now_ns - self._measured[name][0] > JOINT_STATES_AGE_NS
            or not math.isfinite(self._measured[name][1])
        ]

    def _missing(self, now_ns: int) -> str:
        """What has to be waited for; empty when nothing."""
        if now_ns == 0:
            return "the first /clock"
        if not self._robot_listens():
            return "a robot that listens to joint_command"
        if self._value("wait_for_recorder") and self._regimes.get_subscription_count() == 0:
            return "a recorder that listens to ropes/regime"
        if self._asked_ns is None:
            self._asked_ns = now_ns
        unknown = self._unknown(now_ns)
        if not unknown:
            return ""
        if self._measured:
            return f"the position of joint {', '.join(unknown)} on joint_states"
        if not self._value("assume_home"):
            return "the robot's position on joint_states (assume_home does without, for a robot that is at home)"
        if now_ns < self._asked_ns + JOINT_STATES_WAIT_NS:
            return "the robot's position on joint_states, for up to 2 s"
        return ""

    def _robot_listens(self) -> bool:
        """Whether a node listens to joint_command that does not listen to ropes/regime, as recorders do."""
        commanded, labelled = (
            {(endpoint.node_namespace, endpoint.node_name) for endpoint in self.get_subscriptions_info_by_topic(topic)}
            for topic in ("joint_command", "ropes/regime")
        )
        return self._commands.get_subscription_count() > 0 and bool(commanded - labelled)

    def _tick(self) -> None:
        now_ns = self._now()
        if self._stream is None:
            if self._missing(now_ns):
                return
            self._begin(now_ns)
        stream = self._stream
        assert stream is not None
        late = stream.late
        update = stream.update(now_ns)
        if update is not None:
            self._publish(update)
        if stream.late > late:
            self.get_logger().warning("commands came too late: the robot stopped, and is led back unlabelled")
        if self._streamed and not self._finished:
            (position,), (velocity,) = stream.states_at(np.array([now_ns]))
            self._commands.publish(self._target(now_ns, position, velocity))
        if stream.done(now_ns) and not self._finished:
            self._finish()

    def _begin(self, now_ns: int) -> None:
        """Everybody listens: start from where the robot is."""
        position = None
        if self._measured:
            position = np.array([self._measured[name][1] for name in self._robot.joint_names])
        else:
            self.get_logger().warning("no joint_states: the robot is taken to be at home, as assume_home says")
        self._stream = CommandStream(
            self._robot,
            self._motion,
            self._schedule,
            horizon_ns=STREAM_HORIZON_NS if self._streamed else round(self._value("horizon") * NANOSECONDS),
            point_ns=round(NANOSECONDS / self._value("point_rate")),
            streamed=self._streamed,
        )
        self._stream.start(now_ns, position)
        self.destroy_subscription(self._joint_states)
        self._joint_states = None
        self.get_logger().info(f"commanding {self._motion.duration_ns / NANOSECONDS:.0f} s")

    def _publish(self, update: Update) -> None:
        if not self._streamed:
            self._commands.publish(self._trajectory(update.points))
        for regime in update.regimes:
            self._regimes.publish(regime_to_msg(regime, self._robot.joint_names))

    def _trajectory(self, points: Points) -> JointTrajectory:
        first_ns = int(points.times_ns[0])
        message = JointTrajectory()
        message.header.stamp = to_stamp(first_ns)
        message.joint_names = list(self._robot.joint_names)
        rows = zip(points.times_ns.tolist(), points.positions.tolist(), points.velocities.tolist(), strict=True)
        message.points = [
            JointTrajectoryPoint(
                positions=positions,
                velocities=velocities,
                time_from_start=DurationMsg(
                    sec=(time_ns - first_ns) // NANOSECONDS, nanosec=(time_ns - first_ns) % NANOSECONDS
                ),
            )
            for time_ns, positions, velocities in rows
        ]
        return message

    def _target(
        self, now_ns: int, position: npt.NDArray[np.float64], velocity: npt.NDArray[np.float64]
    ) -> JointState | Float64MultiArray:
        if self._command_type == "Float64MultiArray":
            return Float64MultiArray(data=position.tolist())
        message = JointState(name=list(self._robot.joint_names), position=position.tolist(), velocity=velocity.tolist())
        message.header.stamp = to_stamp(now_ns)
        return message

    def _finish(self) -> None:
        """All is said: report it, and end the process if it is to end with the motion."""
        self._finished = True
        self.get_logger().info("done")
        self._reporter.update()
        if self._value("exit_when_done"):
            self._reporter.wait_for_all_acked(GOODBYE)
            self._regimes.wait_for_all_acked(GOODBYE)
            raise SystemExit

    def _stop(self) -> None:
        """Brake, if the robot is moving, and command no more."""
        if self._timer is not None:
            self.destroy_timer(self._timer)
            self._timer = None
        if self._joint_states is not None:
            self.destroy_subscription(self._joint_states)
            self._joint_states = None
        if self._stream is not None and not self._finished and rclpy.ok():
            self._brake(self._stream)
        self._stream = None

    def _brake(self, stream: CommandStream) -> None:
        """Say that no label holds, and leave the robot with the way to rest: a trajectory, or, where targets are sent
        one by one, a ramp of them that is sent here and now, in the time that the robot needs to brake."""
        update = stream.halt(self._now())
        self._publish(update)
        if self._streamed:
            points = update.points
            waits = np.diff(points.times_ns, prepend=points.times_ns[0]) / NANOSECONDS
            for wait, *target in zip(waits, points.times_ns.tolist(), points.positions, points.velocities, strict=True):
                time.sleep(wait)
                self._commands.publish(self._target(*target))
        self._commands.wait_for_all_acked(GOODBYE)
        self._regimes.wait_for_all_acked(GOODBYE)

    def _statement(self) -> Statement:
        """State, progress and late chunks."""
        if self._timer is None and not self._stopped:
            return INACTIVE
        now_ns = self._now()
        stream = self._stream
        values: dict[str, object] = {"state": "waiting", "progress": "0.000", "late_chunks": 0}
        level, message = DiagnosticStatus.OK, "done" if self._finished else "running"
        if self._stopped:
            values["state"] = message = "stopped"
        elif stream is None:
            missing = self._missing(now_ns)
            message = f"waiting for {missing or 'the next tick'}"
            if missing:
                self.get_logger().info(message, throttle_duration_sec=WAITING_LOG_S)
        else:
            values = {
                "state": message,
                "progress": f"{stream.progress(now_ns):.3f}",
                "late_chunks": stream.late,
                "start_ns": stream.start_ns,
            }
            if stream.late:
                level, message = DiagnosticStatus.WARN, f"{message}; {stream.late} times too late to be followed"
        values["schedule_hash"] = "" if self._schedule is None else self._schedule.hash
        return Statement(level, message, values)


def main(args: list[str] | None = None) -> int:
    """Entry point."""
    return run(Commander, args)


if __name__ == "__main__":
    raise SystemExit(main())

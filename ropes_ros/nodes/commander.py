"""The commander node: commands a schedule's motion (or waypoints) and announces the regimes it is in.

Commands go out ahead of time and end in a stop; see `ropes_ros.streaming`, which decides what is said when, and
`ropes_ros.guards` for what stops the robot.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rclpy
from builtin_interfaces.msg import Duration as DurationMsg
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from ropes_ros.collision import refuse_collisions
from ropes_ros.command_messages import COMMAND_TYPES
from ropes_ros.errors import RobotError, ScheduleError
from ropes_ros.guards import ClockWatch, Deadman, JointWatch, Limits
from ropes_ros.motion import Motion, Trajectory, WaypointMotion
from ropes_ros.nodes.commander_parameters import parameters
from ropes_ros.nodes.common import (
    COMMAND_MESSAGES,
    INACTIVE,
    OVERRIDABLE,
    Reporter,
    Statement,
    latched,
    offer,
    run,
    to_nanoseconds,
    to_stamp,
    told,
)
from ropes_ros.occupancy import expectation
from ropes_ros.progress import Progress
from ropes_ros.regimes import Schedule, regime_to_msg
from ropes_ros.robot import Robot, load_robot
from ropes_ros.schedule import smoothing_ns
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
WATCH_S = 0.02
"""Time between two looks at what may stop the robot."""
PROGRESS_NS = NANOSECONDS
"""Time between two notes of how far the motion is."""
DRY_RUN = "dry run: nothing is sent (armed is false)"


class Commander(LifecycleNode):
    """Commands the robot and announces regimes; see docs/interface.md for topics and parameters."""

    def __init__(self) -> None:
        super().__init__("commander")
        for name, default, descriptor in parameters():
            self.declare_parameter(name, default, descriptor)
        self._stream: CommandStream | None = None
        self._asked_ns: int | None = None
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._watching: Any = None
        self._switch: Any = None
        self._stop_reason = ""
        self._failed = False
        self._goal_ns = self._next_seq = self._noted_ns = 0
        self._timer: Any = None
        self._joint_states: Any = None
        self._finished = self._stopped = False
        self._reporter = Reporter(self, "motion", self._statement)
        offer(self, "~/start", self._start_again)
        offer(self, "~/stop", self._stop_motion)
        offer(self, "~/pause", self._pause)
        offer(self, "~/resume", self._resume)
        offer(self, "~/skip", self._skip)

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
        self._armed = bool(self._value("armed"))
        Limits(self._robot, self._value("soft_limit_margin")).check_box()
        self._new_watch()
        begin_ns = round(self._value("resume_from") * NANOSECONDS)
        if begin_ns >= self._motion.duration_ns:
            raise ScheduleError(
                f"parameter resume_from is {self._value('resume_from'):.1f} s, after the motion's end at"
                f" {self._motion.duration_ns / NANOSECONDS:.1f} s"
            )
        path = self._value("progress_file")
        self._progress = None if self._schedule is None or not path else Progress(Path(path), self._schedule.hash)
        self._commands = self.create_lifecycle_publisher(
            COMMAND_MESSAGES[self._command_type], "joint_command", 10, qos_overriding_options=OVERRIDABLE
        )
        self._regimes = self.create_lifecycle_publisher(DiagnosticArray, "ropes/regime", latched(REGIME_DEPTH))
        return TransitionCallbackReturn.SUCCESS

    @told
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to wait for listeners, then to command."""
        super().on_activate(state)
        if not self._armed:
            self.get_logger().warning(f"{DRY_RUN}; with armed:=true the robot moves")
        if self._schedule is not None:
            self.get_logger().info(expectation(self._schedule))
        self._await(round(self._value("resume_from") * NANOSECONDS))
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
        """Stop the robot; FAILURE where a guard had stopped it."""
        self._stop()
        return TransitionCallbackReturn.FAILURE if self._failed else TransitionCallbackReturn.SUCCESS

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _new_watch(self) -> None:
        self._joints = JointWatch(
            self._robot,
            list(self._value("tracking_limit")),
            self._value("tracking_time"),
            self._value("joint_states_timeout"),
        )
        self._clock_watch = ClockWatch(simulated=bool(self.get_parameter("use_sim_time").value))
        self._deadman = Deadman(self._value("deadman_timeout")) if self._value("deadman_topic") else None

    def _await(self, begin_ns: int, seq: int = 0) -> None:
        """Wait for listeners and joint states, and begin, at a time of the motion, when they are there."""
        self._stream = self._asked_ns = None
        self._goal_ns, self._next_seq = begin_ns, seq
        self._new_watch()
        self._finished = self._stopped = False
        self._stop_reason = ""
        self._joint_states = self.create_subscription(
            JointState,
            "joint_states",
            self._on_joint_states,
            qos_profile_sensor_data,
            qos_overriding_options=OVERRIDABLE,
        )
        period = 1.0 / self._value("point_rate") if self._streamed else self._value("chunk")
        if self._deadman is not None:
            self._switch = self.create_subscription(Bool, self._value("deadman_topic"), self._on_deadman, 10)
        self._timer = self.create_timer(period, self._tick)
        self._watching = self.create_timer(WATCH_S, self._watch, clock=self._steady)
        self._reporter.update()

    def _start_again(self) -> str:
        """Begin the motion from its beginning."""
        if self._timer is None and not self._stopped:
            raise ScheduleError("the commander is not active: activate it, which begins the motion too")
        if not (self._stopped or self._finished):
            raise ScheduleError("the motion has begun, or waits to begin: stop it first")
        self._stop()
        self._await(0)
        return "the motion begins when the robot listens and its position is known"

    def _stop_motion(self) -> str:
        """Brake; only `~/start`, `~/resume` or another activation begins anew."""
        if self._timer is None:
            raise ScheduleError("nothing is commanded: the commander is not active, or stopped already")
        self._stop()
        self._stopped = True
        self._reporter.update()
        return "stopped; no regime holds"

    def _pause(self) -> str:
        """Ramp to a stop and hold; no regime holds until the motion is joined again."""
        stream = self._moving()
        if stream.paused:
            raise ScheduleError("the motion pauses already: resume it")
        self._publish(stream.pause(self._now()))
        self._note_progress(stream)
        self._reporter.update()
        return f"pauses at {stream.reached(self._now()) / NANOSECONDS:.1f} s of the motion; no regime holds"

    def _resume(self) -> str:
        """Go on where the motion paused or was stopped."""
        if self._stopped:
            seq = self._next_seq
            self._await(self._goal_ns, seq)
            return f"the robot is led home, and the motion goes on at {self._goal_ns / NANOSECONDS:.1f} s"
        stream = self._moving()
        if not stream.paused:
            raise ScheduleError("the motion does not pause")
        update = stream.resume(self._now())
        if update is not None:
            self._publish(update)
        self._reporter.update()
        return f"goes on at {stream.reached(self._now()) / NANOSECONDS:.1f} s of the motion"

    def _skip(self) -> str:
        """Leave out what is left of the segments that are held."""
        stream = self._moving()
        update = stream.skip(self._now())
        if update is not None:
            self._publish(update)
        self._reporter.update()
        return f"goes on at {stream.reached(self._now()) / NANOSECONDS:.1f} s of the motion"

    def _moving(self) -> CommandStream:
        if self._timer is None or self._stream is None or self._finished:
            raise ScheduleError("nothing is commanded: the motion has not begun, has ended, or was stopped")
        return self._stream

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
            trajectory = Trajectory(self._robot, schedule)
        except ScheduleError as error:
            raise ScheduleError(f"{path}: {error}") from None
        if schedule.smooth_ns < smoothing_ns(self._robot):
            raise ScheduleError(f"{path}: the schedule's jerk exceeds the robot's limit: make the schedule anew")
        if self._value("armed"):
            self._refuse_collisions(path, schedule)
        return schedule, trajectory

    def _refuse_collisions(self, path: str, schedule: Schedule) -> None:
        try:
            refuse_collisions(self._robot, schedule)
        except ScheduleError as error:
            raise ScheduleError(f"{path}: {error}") from None
        except RobotError as error:
            self.get_logger().warning(f"nobody looked whether the schedule hits something: {error}")

    def _now(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def _on_joint_states(self, message: JointState) -> None:
        """Note where joints are, and whether they do as they are told; a message may hold some of them."""
        self._watch()
        if self._timer is None:
            return
        for name, position in zip(message.name, message.position, strict=False):
            if name in self._robot.joint_names and not np.isfinite(position):
                self.get_logger().warning(
                    f"joint_states: the position of joint {name} is {position}, which is not used",
                    throttle_duration_sec=WAITING_LOG_S,
                )
        stream = self._stream
        commanded = None
        if stream is not None and self._armed and not self._finished:
            commanded = lambda times: stream.states_at(times)[0]  # noqa: E731
        reason = self._joints.measure(
            zip(message.name, message.position, strict=False),
            to_nanoseconds(message.header.stamp),
            self._now(),
            self._steady.now().nanoseconds,
            commanded,
        )
        if reason:
            self._guard(reason)

    def _on_deadman(self, message: Bool) -> None:
        if self._deadman is not None:
            self._deadman.hear(message.data, self._steady.now().nanoseconds)

    def _watch(self) -> None:
        """Stop the robot where clock, measurements or switch say so; on a steady clock, since others may stand."""
        now_ns, steady_ns = self._now(), int(self._steady.now().nanoseconds)
        reason, before_ns = self._clock_watch.check(now_ns, steady_ns)
        if self._stream is None or self._finished or not self._armed:
            return
        if reason:
            self._guard(reason, state_ns=before_ns)
            return
        reason = self._joints.silent(now_ns, steady_ns)
        if not reason and self._deadman is not None:
            reason = self._deadman.released(steady_ns)
        if reason:
            self._guard(reason)

    def _guard(self, reason: str, *, state_ns: int | None = None) -> None:
        """Ramp to a stop and hold, and say why; the process ends with status 1 where it was to end with the motion."""
        if self._stream is None or self._finished or not self._armed:
            return
        self._stop_reason = reason
        self._stop(state_ns=state_ns)
        self._stopped = True
        self.get_logger().error(
            f"stopped: {reason}; the motion can go on at {self._goal_ns / NANOSECONDS:.1f} s (resume, or resume_from)"
        )
        self._reporter.update()
        if self._value("exit_when_done"):
            self._failed = True
            self._reporter.wait_for_all_acked(GOODBYE)
            raise SystemExit

    def _unknown(self, now_ns: int) -> list[str]:
        """Joints whose position no recent joint state tells."""
        return self._joints.unknown(now_ns, JOINT_STATES_AGE_NS)

    def _missing(self, now_ns: int) -> str:
        """What has to be waited for; empty when nothing."""
        if now_ns == 0:
            return "the first /clock"
        if not self._armed:
            return ""
        if not self._robot_listens():
            return "a robot that listens to joint_command"
        if self._value("wait_for_recorder") and self._regimes.get_subscription_count() == 0:
            return "a recorder that listens to ropes/regime"
        if self._asked_ns is None:
            self._asked_ns = now_ns
        if self._deadman is not None and (reason := self._deadman.released(int(self._steady.now().nanoseconds))):
            return f"the deadman switch on {self._value('deadman_topic')}: {reason}"
        unknown = self._unknown(now_ns)
        if not unknown:
            if outside := self._joints.outside():
                return f"joint {', '.join(outside)} to be moved back by hand: it is beyond its limits"
            within = self._value("start_within")
            if far := self._joints.far(within):
                return (
                    f"joint {', '.join(far)} to be brought nearer to home: it is more than {within:g} half ranges away"
                    " (parameter start_within)"
                )
            return ""
        if self._joints.heard:
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
        self._watch()  # first: after a clock was set, nothing may be made of its time
        now_ns = self._now()
        if self._timer is None:
            return
        if self._stream is None:
            if self._missing(now_ns):
                return
            self._begin(now_ns)
        stream = self._stream
        assert stream is not None
        late = stream.late
        update = stream.update(now_ns)
        if update is not None and not self._publish(update):
            return
        if stream.late > late:
            self.get_logger().warning("commands came too late: the robot stopped, and is led back unlabelled")
        if self._streamed and self._armed and not self._finished:
            positions, velocities = stream.states_at(np.array([now_ns]))
            excess = self._limits.exceeded(np.array([now_ns]), positions, velocities)
            if excess:
                self._guard(excess)
                return
            self._commands.publish(self._target(now_ns, positions[0], velocities[0]))
        if now_ns - self._noted_ns > PROGRESS_NS:
            self._noted_ns = now_ns
            self._note_progress(stream)
        if stream.done(now_ns) and not self._finished:
            self._finish()

    def _begin(self, now_ns: int) -> None:
        """Everybody listens: start from where the robot is."""
        position = None
        self._limits = Limits(self._robot, self._value("soft_limit_margin"))
        if self._joints.heard and not self._unknown(now_ns):
            position = np.array([self._joints.position(name) for name in self._robot.joint_names])
            self._limits.widened(position)
        elif self._armed:
            self.get_logger().warning("no joint_states: the robot is taken to be at home, as assume_home says")
        self._stream = CommandStream(
            self._robot,
            self._motion,
            self._schedule,
            horizon_ns=STREAM_HORIZON_NS if self._streamed else round(self._value("horizon") * NANOSECONDS),
            point_ns=round(NANOSECONDS / self._value("point_rate")),
            streamed=self._streamed,
            seq=self._next_seq,
        )
        self._stream.start(now_ns, position, self._goal_ns)
        self._noted_ns = now_ns
        rest = (self._motion.duration_ns - self._goal_ns) / NANOSECONDS
        self.get_logger().info(f"commanding {rest:.0f} s" if self._armed else f"{DRY_RUN}, for {rest:.0f} s")

    def _publish(self, update: Update) -> bool:
        """Send what is due; False where it would exceed the limits, and the robot was stopped instead."""
        if not self._armed:
            return True
        points = update.points
        excess = self._limits.exceeded(points.times_ns, points.positions, points.velocities)
        if excess:
            self._guard(excess)
            return False
        if not self._streamed:
            self._commands.publish(self._trajectory(points))
        self._say(update)
        return True

    def _say(self, update: Update) -> None:
        for regime in update.regimes:
            self._regimes.publish(regime_to_msg(regime, self._robot.joint_names))

    def _note_progress(self, stream: CommandStream) -> None:
        if self._progress is None or not self._armed:
            return
        try:
            self._progress.note(stream.reached(self._now()))
        except OSError as error:
            self.get_logger().warning(
                f"progress_file cannot be written: {error.strerror}", throttle_duration_sec=WAITING_LOG_S
            )

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
        if self._progress is not None and self._armed:
            self._progress.forget()
        self.get_logger().info("done" if self._armed else f"done; {DRY_RUN}")
        self._reporter.update()
        if self._value("exit_when_done"):
            self._reporter.wait_for_all_acked(GOODBYE)
            self._regimes.wait_for_all_acked(GOODBYE)
            raise SystemExit

    def _stop(self, *, state_ns: int | None = None) -> None:
        """Brake, if the robot is moving, and command no more."""
        for timer in (self._timer, self._watching):
            if timer is not None:
                self.destroy_timer(timer)
        for subscription in (self._joint_states, self._switch):
            if subscription is not None:
                self.destroy_subscription(subscription)
        self._timer = self._watching = self._joint_states = self._switch = None
        stream = self._stream
        if stream is not None and not self._finished and rclpy.ok():
            self._goal_ns = stream.reached(self._now() if state_ns is None else state_ns)
            if self._armed:
                self._note_progress(stream)
                self._brake(stream, state_ns)
            self._next_seq = stream.seq
        self._stream = None

    def _brake(self, stream: CommandStream, state_ns: int | None) -> None:
        """Say that no label holds, and leave the robot with the way to rest: a trajectory, or, where targets are sent
        one by one, a ramp of them that is sent here and now, in the time that the robot needs to brake."""
        update = stream.halt(self._now(), reason=self._stop_reason, state_ns=state_ns)
        if not self._streamed:
            self._commands.publish(self._trajectory(update.points))
        self._say(update)
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
            values["resume_from"] = f"{self._goal_ns / NANOSECONDS:.3f}"
            if self._stop_reason:
                level, message = DiagnosticStatus.ERROR, f"stopped: {self._stop_reason}"
        elif stream is None:
            missing = self._missing(now_ns)
            message = f"waiting for {missing or 'the next tick'}"
            if missing:
                self.get_logger().info(message, throttle_duration_sec=WAITING_LOG_S)
        else:
            if stream.paused:
                message = "paused"
            values = {
                "state": message,
                "progress": f"{stream.progress(now_ns):.3f}",
                "late_chunks": stream.late,
                "start_ns": stream.start_ns,
                "resume_from": f"{stream.reached(now_ns) / NANOSECONDS:.3f}",
            }
            if not self._armed:
                message = f"{message}; {DRY_RUN}"
            if stream.late:
                level, message = DiagnosticStatus.WARN, f"{message}; {stream.late} times too late to be followed"
        values["armed"] = str(self._armed).lower()
        values["stop_reason"] = self._stop_reason
        values["schedule_hash"] = "" if self._schedule is None else self._schedule.hash
        return Statement(level, message, values)


def main(args: list[str] | None = None) -> int:
    """Entry point."""
    return run(Commander, args)


if __name__ == "__main__":
    raise SystemExit(main())

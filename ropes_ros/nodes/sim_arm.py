"""The simulated arm node: a robot preset under position control, with a camera, in place of a real robot.

It keeps one of three paces:

- wall clock (`publish_clock` false): the simulation follows the system's clock; images that the machine is too
  slow to draw are left out;
- simulation time (`publish_clock` true): stamps start at 1 s and follow `real_time_factor`; where the machine is
  too slow, time itself slows down, and nothing is left out;
- as fast as the machine allows (`real_time_factor` 0): as long as a trajectory lies ahead, image after image is
  drawn, and every now and then all subscribers are waited for. At the trajectory's end the simulation waits for
  more; until the first trajectory, and when none has come for a while, it runs at the wall clock's pace.
"""

from __future__ import annotations

import array
import math
import time
from typing import Any

import numpy as np
from geometry_msgs.msg import TransformStamped
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rosgraph_msgs.msg import Clock as ClockMsg
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Float64MultiArray
from tf2_msgs.msg import TFMessage
from trajectory_msgs.msg import JointTrajectory

from ropes_ros.command_messages import COMMAND_TYPES, apply_command
from ropes_ros.errors import RobotError
from ropes_ros.nodes.common import COMMAND_MESSAGES, OVERRIDABLE, described, latched, run, to_stamp, told
from ropes_ros.robot import Robot, load_robot
from ropes_ros.sim.agenda import Agenda
from ropes_ros.sim.arm import SimArm
from ropes_ros.trajectory import TrajectoryBuffer
from ropes_ros.units import NANOSECONDS

TICK_S = 0.002
FIRST_STAMP_NS = NANOSECONDS
"""Stamp at which simulation time starts; 0 would mean 'no time' to ROS."""
STALL_NS = NANOSECONDS // 2
"""A longer step of the wall clock means that it was set, or that the process was suspended."""
BACKLOG_NS = NANOSECONDS // 10
"""Simulation time never runs further ahead of what is to be published next."""
PATIENCE_S = 2.0
"""How long the end of a trajectory is waited at for more, in wall time."""
WINDOW = 32
"""Images after which a simulation that runs as fast as it can waits until every subscriber has them. One at a time
would cost an acknowledgement's latency each."""
ACKNOWLEDGE_S = 1.0


class SimArmNode(LifecycleNode):
    """Simulates the arm and its camera; see docs/interface.md for topics and parameters."""

    def __init__(self) -> None:
        super().__init__("sim_arm")
        for name, default, descriptor in (
            ("robot", "arm6", described("Robot preset to simulate", read_only=True)),
            (
                "camera_width",
                320,
                described("Image width in pixels", integer_bounds=(16, 4096), read_only=True),
            ),
            (
                "camera_height",
                240,
                described("Image height in pixels", integer_bounds=(16, 4096), read_only=True),
            ),
            ("camera_rate", 30.0, described("Images per second", bounds=(0.1, 1000.0), read_only=True)),
            ("state_rate", 60.0, described("Joint states per second", bounds=(0.1, 1000.0), read_only=True)),
            (
                "publish_clock",
                False,
                described("Publish /clock and stamp with simulation time", read_only=True),
            ),
            (
                "real_time_factor",
                1.0,
                described(
                    "Simulated seconds per second, 0 = as fast as possible; other than 1 needs publish_clock",
                    bounds=(0.0, 100.0),
                    read_only=True,
                ),
            ),
            (
                "seed",
                0,
                described("Seed of the surroundings' look", integer_bounds=(0, 2**31 - 1), read_only=True),
            ),
            (
                "command_type",
                "JointTrajectory",
                described(f"Type of joint_command: {', '.join(COMMAND_TYPES)}", read_only=True),
            ),
            ("camera_frame", "camera_optical_frame", described("frame_id of images", read_only=True)),
            (
                "base_frame",
                "",
                described("The robot's base on /tf_static; the base link when empty", read_only=True),
            ),
        ):
            self.declare_parameter(name, default, descriptor)
        self._arm: SimArm | None = None
        self._timer: Any = None
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._system = Clock(clock_type=ClockType.SYSTEM_TIME)

    @told
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the robot, start rendering, open the topics."""
        self._publish_clock = bool(self.get_parameter("publish_clock").value)
        self._factor = float(self.get_parameter("real_time_factor").value)
        self._command_type = self._text("command_type")
        self._check()
        self._robot: Robot = load_robot(self._text("robot"))
        self._arm = SimArm(
            self._robot,
            int(self.get_parameter("camera_width").value),
            int(self.get_parameter("camera_height").value),
            seed=int(self.get_parameter("seed").value),
        )
        self._buffer = TrajectoryBuffer(self._robot.home, self._robot.lower, self._robot.upper)
        self._noise = np.random.default_rng(int(self.get_parameter("seed").value))
        self._camera_frame = self._text("camera_frame")
        self._camera_info = self._make_camera_info(self._arm)
        image_rate = float(self.get_parameter("camera_rate").value)
        state_rate = float(self.get_parameter("state_rate").value)
        self._agenda = Agenda(image_rate, state_rate)
        self._reached_ns = 0  # of simulated time since the physics' start
        # Twice what may be under way unacknowledged, so that nothing is overwritten before it has arrived.
        depth = 10 if self._factor else 2 * WINDOW
        state_depth = 2 * depth * math.ceil(1 + state_rate / image_rate)
        self._images = self.create_lifecycle_publisher(
            Image, "camera/image_raw", depth, qos_overriding_options=OVERRIDABLE
        )
        self._camera_infos = self.create_lifecycle_publisher(
            CameraInfo, "camera/camera_info", depth, qos_overriding_options=OVERRIDABLE
        )
        self._states = self.create_lifecycle_publisher(
            JointState, "joint_states", state_depth, qos_overriding_options=OVERRIDABLE
        )
        self._clocks = self.create_lifecycle_publisher(ClockMsg, "/clock", 10) if self._publish_clock else None
        self._static_transforms = self.create_lifecycle_publisher(TFMessage, "/tf_static", latched())
        self._commands = self.create_subscription(
            COMMAND_MESSAGES[self._command_type],
            "joint_command",
            self._on_command,
            10,
            qos_overriding_options=OVERRIDABLE,
        )
        return TransitionCallbackReturn.SUCCESS

    @told
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let time run."""
        assert self._arm is not None
        super().on_activate(state)
        self._pace = self._steady if self._publish_clock else self._system
        self._last_ns = self._pace.now().nanoseconds
        # The stamp of the physics' start.
        self._epoch_ns = FIRST_STAMP_NS if self._publish_clock else self._last_ns - self._reached_ns
        self._goal_ns = self._reached_ns
        self._waiting_since: float | None = None
        self._run_out = False
        self._unacknowledged = 0
        self._static_transforms.publish(self._camera_transform(self._arm))
        self._timer = self.create_timer(TICK_S if self._factor else 0.0, self._tick, clock=self._steady)
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop time."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Close the topics and the renderer."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop from any state."""
        self._stop()
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def _check(self) -> None:
        """Refuse parameters that contradict each other."""
        if self._command_type not in COMMAND_TYPES:
            raise RobotError(f"parameter command_type is '{self._command_type}': choose {', '.join(COMMAND_TYPES)}")
        if self._factor != 1.0 and not self._publish_clock:
            raise RobotError(f"parameter real_time_factor is {self._factor:g}: other than 1 needs publish_clock:=true")
        if self._factor == 0.0 and self._command_type != "JointTrajectory":
            raise RobotError(
                "parameter real_time_factor is 0: it needs command_type JointTrajectory, which tells what lies ahead"
            )

    def _tick(self) -> None:
        """Advance to where time is by now, or to the next image where it runs as fast as it can."""
        elapsed_ns = self._elapsed_ns()
        if self._factor == 0.0 and not self._idle():
            if self._trajectory_ahead():
                self._goal_ns = self._agenda.next_image_ns
                self._advance()
                self._unacknowledged += 1
                if self._unacknowledged == WINDOW:
                    self._wait_for_subscribers()
            else:
                time.sleep(TICK_S / 4)  # let the commander's process have the processor
            return
        self._goal_ns += round(elapsed_ns * (self._factor or 1.0))
        if self._publish_clock:
            self._goal_ns = min(self._goal_ns, self._agenda.next_ns + BACKLOG_NS)
        else:
            late = self._agenda.skip_late_images(self._goal_ns)
            if late:
                self.get_logger().warning(
                    f"too slow for camera_rate: {late} image(s) left out", throttle_duration_sec=5.0
                )
        self._advance()
        if self._factor == 0.0:
            time.sleep(TICK_S)

    def _elapsed_ns(self) -> int:
        """Wall time since the last tick; 0 across a jump of the system's clock, which moves the epoch instead."""
        now_ns = self._pace.now().nanoseconds
        elapsed_ns = int(now_ns - self._last_ns)
        self._last_ns = now_ns
        if self._publish_clock or 0 <= elapsed_ns <= STALL_NS:
            return elapsed_ns
        self.get_logger().warning(f"the clock jumped by {elapsed_ns / NANOSECONDS:.3f} s: the simulation paused")
        self._epoch_ns += elapsed_ns
        return 0

    def _idle(self) -> bool:
        """Whether there is no trajectory to hurry along: none yet, or the last has run out."""
        return self._buffer.end_ns is None or self._run_out

    def _trajectory_ahead(self) -> bool:
        """Whether the trajectory reaches to the next image; waits for more, up to a point, where it does not."""
        end_ns = self._buffer.end_ns
        if end_ns is not None and self._epoch_ns + self._agenda.next_image_ns <= end_ns:
            self._waiting_since = None
            return True
        now = time.monotonic()
        if self._waiting_since is None:
            self._waiting_since = now
        elif now - self._waiting_since > PATIENCE_S:
            self.get_logger().info("the trajectory has ended: going on at the wall clock's pace")
            self._run_out = True
        return False

    def _wait_for_subscribers(self) -> None:
        """Wait until all that was published has arrived."""
        self._unacknowledged = 0
        for publisher in (self._images, self._camera_infos, self._states):
            if not publisher.wait_for_all_acked(Duration(seconds=ACKNOWLEDGE_S)):
                self.get_logger().warning(
                    f"a subscriber of {publisher.topic_name} is over {ACKNOWLEDGE_S:g} s behind: messages may be lost",
                    throttle_duration_sec=5.0,
                )

    def _advance(self) -> None:
        """Step the physics to the goal, and publish all that falls due on the way."""
        assert self._arm is not None
        for due_ns, with_image in self._agenda.due(self._goal_ns):
            self._arm.step_to(due_ns / NANOSECONDS, self._command_at)
            self._reached_ns = due_ns
            stamp = to_stamp(self._epoch_ns + due_ns)
            if self._clocks is not None:
                self._clocks.publish(ClockMsg(clock=stamp))
            self._states.publish(self._joint_state(self._arm, stamp))
            if with_image:
                self._camera_info.header.stamp = stamp
                self._camera_infos.publish(self._camera_info)
                self._images.publish(self._image(self._arm.render(), stamp))

    def _command_at(self, seconds: float) -> NDArray[np.float64]:
        return self._buffer.sample(self._epoch_ns + round(seconds * NANOSECONDS))

    def _on_command(self, message: JointTrajectory | Float64MultiArray | JointState) -> None:
        if self._timer is None:
            return  # inactive: there is no time to begin from
        now_ns = self._epoch_ns + self._reached_ns
        try:
            inside = apply_command(message, self._command_type, self._robot, self._buffer, now_ns)
        except RobotError as error:
            self.get_logger().warning(f"joint_command ignored: {error}", throttle_duration_sec=5.0)
            return
        self._run_out = False
        self._waiting_since = None
        if not inside:
            self.get_logger().warning(
                "joint_command exceeds the joint limits and is clipped", throttle_duration_sec=5.0
            )

    def _image(self, pixels: NDArray[np.uint8], stamp: object) -> Image:
        """An image message; noise in its top row makes any two pictures differ, as they do from a real sensor."""
        pixels[0] ^= self._noise.integers(0, 2, pixels[0].shape, dtype=np.uint8)
        message = Image()
        message.header.stamp = stamp
        message.header.frame_id = self._camera_frame
        message.height, message.width = pixels.shape[:2]
        message.encoding = "rgb8"
        message.step = pixels.strides[0]
        message.data = array.array("B", pixels.tobytes())
        return message

    def _joint_state(self, arm: SimArm, stamp: object) -> JointState:
        message = JointState()
        message.header.stamp = stamp
        message.name = list(self._robot.joint_names)
        message.position = arm.positions().tolist()
        message.velocity = arm.velocities().tolist()
        return message

    def _make_camera_info(self, arm: SimArm) -> CameraInfo:
        message = CameraInfo()
        message.header.frame_id = self._camera_frame
        message.width = int(self.get_parameter("camera_width").value)
        message.height = int(self.get_parameter("camera_height").value)
        message.distortion_model = "plumb_bob"
        message.d = [0.0] * 5
        intrinsics = arm.intrinsics()
        message.k = intrinsics.ravel().tolist()
        message.r = np.eye(3).ravel().tolist()
        message.p = np.hstack([intrinsics, np.zeros((3, 1))]).ravel().tolist()
        return message

    def _camera_transform(self, arm: SimArm) -> TFMessage:
        message = TransformStamped()
        message.header.stamp = to_stamp(self._epoch_ns + self._reached_ns)
        message.header.frame_id = self._text("base_frame") or self._robot.base_link
        message.child_frame_id = self._camera_frame
        position, orientation = arm.camera_pose()
        translation, rotation = message.transform.translation, message.transform.rotation
        translation.x, translation.y, translation.z = position.tolist()
        rotation.x, rotation.y, rotation.z, rotation.w = orientation.tolist()
        return TFMessage(transforms=[message])

    def _stop(self) -> None:
        if self._timer is not None:
            self.destroy_timer(self._timer)
            self._timer = None

    def _release(self) -> None:
        if self._arm is None:
            return
        for publisher in (
            self._images,
            self._camera_infos,
            self._states,
            self._clocks,
            self._static_transforms,
        ):
            if publisher is not None:
                self.destroy_lifecycle_publisher(publisher)
        self.destroy_subscription(self._commands)
        self._arm.close()
        self._arm = None

    def _text(self, parameter: str) -> str:
        return str(self.get_parameter(parameter).value)


def main(args: list[str] | None = None) -> int:
    """Run the simulated arm until told to stop."""
    return run(SimArmNode, args)

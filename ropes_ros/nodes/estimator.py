"""The estimator node: watches the camera and publishes joint states and poses, and what they are worth."""

from __future__ import annotations

import json
import threading
import traceback
from collections import deque
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseWithCovarianceStamped, TwistWithCovarianceStamped
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile, QoSReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState
from std_msgs.msg import Header, String
from tf2_msgs.msg import TFMessage
from trajectory_msgs.msg import JointTrajectory

from ropes_ros.command_messages import apply_command
from ropes_ros.encoder import PRECISIONS, Encoder, load_encoder, shipped_model
from ropes_ros.errors import ModelError, RobotError, RopesError
from ropes_ros.estimation import LATE_FRAMES, Estimation, Output, Settings, State
from ropes_ros.frames import FrameReader
from ropes_ros.inference import PROVIDERS
from ropes_ros.nodes.common import (
    OVERRIDABLE,
    Reporter,
    Statement,
    described,
    latched,
    offer,
    run,
    to_nanoseconds,
    to_stamp,
    told,
)
from ropes_ros.nodes.estimate_messages import (
    joint_state,
    link_pose,
    picture,
    seen_from,
    tip_twist,
    transform,
)
from ropes_ros.overlay import Camera, draw_estimate
from ropes_ros.residuals import Residual, Residuals
from ropes_ros.robot import Robot, load_robot
from ropes_ros.tracking import TrackedState
from ropes_ros.trajectory import TrajectoryBuffer
from ropes_ros.units import NANOSECONDS
from ropes_ros.viewpoint import StaticFrames, camera_of

LATENCIES = 300
WATCH_S = 0.1
"""How often the state is looked at; a change of it is published at once."""
COMMANDS_KEPT_NS = 2 * NANOSECONDS
"""How old a frame may be for the command at its time to be known."""
LEVELS = {
    State.OK: DiagnosticStatus.OK,
    State.DEGRADED: DiagnosticStatus.WARN,
    State.NOVEL: DiagnosticStatus.WARN,
    State.STALE: DiagnosticStatus.STALE,
    State.STOPPED: DiagnosticStatus.OK,
}
_DEFAULTS = Settings()


class Estimator(LifecycleNode):
    """Estimates joint angles from each newest image; see docs/interface.md for topics and parameters."""

    def __init__(self) -> None:
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._worker: threading.Thread | None = None
        super().__init__("estimator")
        fixed: dict[str, Any] = {"read_only": True}
        for name, default, descriptor in (
            ("model", "", described("Model file or its folder; the robot's shipped one when empty", **fixed)),
            ("robot", "arm6", described("Robot preset that the model must have been trained for", **fixed)),
            ("image_topic", "camera/image_raw", described("Camera topic", **fixed)),
            ("compressed", False, described("image_topic carries CompressedImage", **fixed)),
            ("resize", False, described("Scale images of another size, but the same shape, to the model's", **fixed)),
            ("camera_info_topic", "camera/camera_info", described("Calibration of the camera", **fixed)),
            (
                "joint_states_topic",
                "joint_states",
                described("Measured angles to compare estimates with, never used for them; none when empty", **fixed),
            ),
            (
                "command_topic",
                "",
                described("JointTrajectory that the robot follows, for the filter; none when empty", **fixed),
            ),
            ("base_frame", "", described("frame_id of poses; the robot's base link when empty", **fixed)),
            ("links", [""], described("More links whose poses are published on ~/poses/LINK", **fixed)),
            (
                "extrinsics",
                [0.0] * 7,
                described(
                    "The camera's optical frame in the base: x y z in m, quaternion x y z w; /tf_static if all are 0",
                    **fixed,
                ),
            ),
            (
                "execution_providers",
                list(PROVIDERS),
                described("Execution providers to try, in order; the CPU is always the last", **fixed),
            ),
            ("require_gpu", False, described("Refuse to start without a GPU execution provider", **fixed)),
            ("precision", "fp32", described(f"{', '.join(PRECISIONS)}; all but fp32 checked at start", **fixed)),
            (
                "engine_cache",
                "",
                described("Folder for TensorRT's engines; ~/.cache/ropes_ros/tensorrt when empty", **fixed),
            ),
            ("threads", 1, described("Threads within one inference, 0 = automatic", integer_bounds=(0, 64), **fixed)),
            ("publish_tf", False, described("Publish the estimated tip and links on /tf")),
            ("tf_prefix", "estimated_", described("Prefix of their frames; empty means the robot's own", **fixed)),
            (
                "novelty_limit",
                _DEFAULTS.novelty_limit,
                described("Novelty above which the state is NOVEL and nothing is published", bounds=(1.0, 1e6)),
            ),
            (
                "novelty_release",
                _DEFAULTS.novelty_release,
                described("Novelty at or below which NOVEL ends; novelty_limit if that is less", bounds=(0.1, 1e6)),
            ),
            (
                "stale_after",
                _DEFAULTS.stale_after,
                described("Seconds without a usable frame until the state is STALE", bounds=(0.05, 60.0)),
            ),
            (
                "old_after",
                _DEFAULTS.old_after,
                described("Age of an image in seconds from which the state is DEGRADED", bounds=(0.01, 60.0)),
            ),
            (
                "future_tolerance",
                _DEFAULTS.future_tolerance,
                described("Seconds that a stamp may lie ahead of the clock before it is dropped", bounds=(0.0, 60.0)),
            ),
            (
                "late_frames",
                _DEFAULTS.late_frames,
                described(f"Frames older than the newest: {' or '.join(LATE_FRAMES)} them into the filter", **fixed),
            ),
            (
                "predict_for",
                _DEFAULTS.predict_for,
                described("Seconds without a frame for which predictions are published", bounds=(0.0, 2.0)),
            ),
            (
                "drop_identical",
                _DEFAULTS.drop_identical,
                described("Take no picture that equals the one before in every byte: the camera is stuck"),
            ),
            (
                "residual_limit",
                4.0,
                described("Lasting residual, in std, from which the state is DEGRADED; 0 = none", bounds=(0.0, 1e6)),
            ),
        ):
            self.declare_parameter(name, default, descriptor)
        self._robot: Robot | None = None
        self._encoder: Encoder | None = None
        self._estimation: Estimation | None = None
        self._newest: Image | CompressedImage | None = None
        self._wake = threading.Condition()
        self._stopping = False
        self._reporter = Reporter(self, "estimate", self._statement)
        offer(self, "~/reload", self._reload, background=True)

    @told
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and open all topics but those that are listened to."""
        robot = load_robot(self._text("robot"))
        if not self._text("image_topic"):
            raise RopesError("parameter image_topic is empty: name the camera's topic")
        if self._text("late_frames") not in LATE_FRAMES:
            raise ModelError(f"late_frames: {self._text('late_frames')!r} is none of {', '.join(LATE_FRAMES)}")
        self._links = tuple(dict.fromkeys(link for link in self.get_parameter("links").value if link))
        for link in self._links:
            robot.fk(robot.home, link)  # raises for a link that there is not
        self._frames = StaticFrames()
        self._base_frame = self._text("base_frame") or robot.base_link
        self._prefix = _checked_prefix(self._text("tf_prefix"))
        self._given_extrinsics = _extrinsics([float(value) for value in self.get_parameter("extrinsics").value])
        encoder = self._load(robot)
        try:
            self._open()
        except Exception:
            self._close()
            raise
        self._encoder, self._robot = encoder, robot
        return TransitionCallbackReturn.SUCCESS

    def _open(self) -> None:
        """Make the publishers."""
        self._states = self._publisher(JointState, "~/joint_states")
        self._raw_states = self._publisher(JointState, "~/raw_joint_states")
        self._deviations = self._publisher(JointState, "~/joint_std")
        self._residuals_out = self._publisher(JointState, "~/residual")
        self._poses = self._publisher(PoseWithCovarianceStamped, "~/pose")
        self._twists = self._publisher(TwistWithCovarianceStamped, "~/twist")
        self._camera_poses = self._publisher(PoseWithCovarianceStamped, "~/camera_pose")
        self._link_poses = {
            link: self._publisher(PoseWithCovarianceStamped, f"~/poses/{link}") for link in self._links
        }
        self._debug = self._publisher(Image, "~/debug_image", qos_profile_sensor_data)
        self._transforms = self._publisher(TFMessage, "/tf", overridable=False)
        self._model_info = self._publisher(String, "~/model_info", latched(), overridable=False)

    def _close(self) -> None:
        """Destroy the publishers, as far as they were made."""
        while self._outputs:
            self.destroy_lifecycle_publisher(self._outputs.pop())

    @told
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the worker and listen to the camera."""
        assert self._encoder is not None and self._robot is not None
        super().on_activate(state)
        robot = self._robot
        unknown = np.full(len(robot.joints), np.nan)
        self._commands = TrajectoryBuffer(unknown, robot.lower, robot.upper, kept_ns=COMMANDS_KEPT_NS)
        self._commands_turn = threading.Lock()
        self._estimation = Estimation(
            robot,
            self._encoder,
            self._settings(),
            source=self._text("image_topic"),
            commanded_velocity=self._commanded_velocity,
        )
        self._residuals = Residuals(robot)
        self._read = FrameReader(self._text("image_topic"), resize=bool(self.get_parameter("resize").value))
        self._latencies_ms: deque[float] = deque(maxlen=LATENCIES)
        self._camera_info: CameraInfo | None = None
        self._camera_frame = ""
        self._said = State.STOPPED
        self._newest = None
        self._stopping = False
        self._publish_model_info(self._encoder)
        newest_only = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
        kind = CompressedImage if self.get_parameter("compressed").value else Image
        try:
            for type_, topic, callback, qos in (
                (kind, self._text("image_topic"), self._on_image, newest_only),
                (CameraInfo, self._text("camera_info_topic"), self._on_camera_info, qos_profile_sensor_data),
                (JointState, self._text("joint_states_topic"), self._on_joint_states, qos_profile_sensor_data),
                (JointTrajectory, self._text("command_topic"), self._on_command, QoSProfile(depth=10)),
            ):
                if topic:
                    self._inputs.append(
                        self.create_subscription(type_, topic, callback, qos, qos_overriding_options=OVERRIDABLE)
                    )
            if self._given_extrinsics is None:
                self._inputs.append(
                    self.create_subscription(TFMessage, "/tf_static", self._on_static_transforms, latched(100))
                )
            worker = threading.Thread(target=self._work, name="estimator", daemon=True)
            worker.start()
        except Exception:
            self._stop()
            super().on_deactivate(state)
            raise
        self._worker = worker
        self._watch_timer = self.create_timer(WATCH_S, self._watch, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._watch()
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop listening and end the worker."""
        self._stop()
        super().on_deactivate(state)
        self._reporter.update()
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Forget the model."""
        self._encoder = self._robot = self._estimation = None
        self._close()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End the worker if it still runs."""
        self._stop()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End the worker if it still runs; the node stays down."""
        self._stop()
        return TransitionCallbackReturn.ERROR

    def destroy_node(self) -> None:
        """End the worker before what it publishes with goes, whichever way the process was told to stop."""
        self._stop()
        super().destroy_node()

    def _text(self, name: str) -> str:
        return str(self.get_parameter(name).value)

    def _publisher(self, type_: Any, topic: str, qos: Any = 10, *, overridable: bool = True) -> Any:
        options = OVERRIDABLE if overridable else None
        self._outputs.append(self.create_lifecycle_publisher(type_, topic, qos, qos_overriding_options=options))
        return self._outputs[-1]

    def _settings(self) -> Settings:
        return Settings(**{field.name: self.get_parameter(field.name).value for field in fields(Settings)})

    def _stop(self) -> None:
        """Stop listening and end the worker, as far as they were started."""
        while self._inputs:
            self.destroy_subscription(self._inputs.pop())
        if self._worker is not None:
            self.destroy_timer(self._watch_timer)
            with self._wake:
                self._stopping = True
                self._wake.notify()
            self._worker.join()
            self._worker = None

    def _load(self, robot: Robot) -> Encoder:
        """The model that the parameters name, checked and run.

        Raises:
            RopesError: It cannot be used.
        """
        model = self._text("model") or str(shipped_model(robot.name))
        cache = self._text("engine_cache")
        encoder = load_encoder(
            model,
            robot=robot.name,
            providers=list(self.get_parameter("execution_providers").value),
            require_gpu=bool(self.get_parameter("require_gpu").value),
            threads=int(self.get_parameter("threads").value),
            precision=self._text("precision"),
            cache=Path(cache) if cache else None,
            say=self.get_logger().info,
        )
        if encoder.info.joint_names != robot.joint_names:
            raise ModelError(f"{model}: its joints are not those of robot {robot.name!r}; export it again")
        encoder.warm_up()
        self.get_logger().info(f"model {encoder.path} on {encoder.providers[0]}")
        return encoder

    def _reload(self) -> str:
        """Take the model's file as it is by now; the one in use stays where the new one cannot be used.

        Runs beside the node, which goes on with the old model meanwhile.
        """
        robot, estimation = self._robot, self._estimation
        if robot is None:
            raise ModelError("no model is in use yet: configure the node")
        encoder = self._load(robot)
        if robot is not self._robot or estimation is not self._estimation:
            raise ModelError("the node was configured or activated anew meanwhile: call again")
        self._encoder = encoder
        if estimation is not None:
            estimation.encoder = encoder
            self._publish_model_info(encoder)
        return f"{encoder.path}, sha256 {encoder.sha256}, on {encoder.providers[0]}"

    def _publish_model_info(self, encoder: Encoder) -> None:
        content = {
            **asdict(encoder.info),
            "sha256": encoder.sha256,
            "execution_providers": encoder.providers,
            "precision": encoder.precision,
            "precision_loss": None if encoder.half_loss is None else encoder.half_loss._asdict(),
        }
        self._model_info.publish(String(data=json.dumps(content)))

    def _on_camera_info(self, message: CameraInfo) -> None:
        assert self._encoder is not None
        self._camera_info = message
        if (message.width, message.height) != self._encoder.info.camera_size and not self.get_parameter("resize").value:
            self.get_logger().error(
                f"{self._text('camera_info_topic')}: the camera gives {message.width}x{message.height}, the model "
                "takes {}x{}; set the camera to the model's size".format(*self._encoder.info.camera_size),
                throttle_duration_sec=10.0,
            )

    def _on_joint_states(self, message: JointState) -> None:
        self._residuals.add(to_nanoseconds(message.header.stamp), message.name, message.position)

    def _on_static_transforms(self, message: TFMessage) -> None:
        try:
            self._frames.add(message.transforms)
        except RopesError as error:
            self.get_logger().error(f"/tf_static: {error}", throttle_duration_sec=10.0)

    def _on_command(self, message: JointTrajectory) -> None:
        assert self._robot is not None
        now_ns = self.get_clock().now().nanoseconds
        try:
            with self._commands_turn:
                apply_command(message, "JointTrajectory", self._robot, self._commands, now_ns)
        except RobotError as error:
            self.get_logger().warning(f"{self._text('command_topic')}: {error}", throttle_duration_sec=5.0)

    def _commanded_velocity(self, stamp_ns: int) -> NDArray[np.float64] | None:
        with self._commands_turn:
            return self._commands.velocity(stamp_ns)

    def _on_image(self, message: Image | CompressedImage) -> None:
        """Keep the newest frame and nothing else."""
        assert self._estimation is not None
        with self._wake:
            self._estimation.heard(self._newest is not None)
            self._newest = message
            self._wake.notify()

    def _work(self) -> None:
        estimation = self._estimation
        assert estimation is not None
        while True:
            with self._wake:
                if self._newest is None and not self._stopping:
                    self._wake.wait(estimation.patience_s)
                if self._stopping:
                    return
                message, self._newest = self._newest, None
            try:
                self._step(estimation, message)
            except Exception:  # the next frame may fare better, and a silent node would be worse
                if not rclpy.ok(context=self.context):
                    return  # the middleware went away below this thread
                self.get_logger().error(traceback.format_exc().rstrip(), throttle_duration_sec=5.0)

    def _step(self, estimation: Estimation, message: Image | CompressedImage | None) -> None:
        """Work on a frame, or on its absence."""
        estimation.settings = self._settings()
        now_ns = self.get_clock().now().nanoseconds
        if message is None:
            prediction = estimation.predict(now_ns)
            if prediction is not None:
                stamp = to_stamp(prediction.tracked.stamp_ns)
                self._publish(Header(stamp=stamp, frame_id=self._camera_frame), prediction)
            return
        self._camera_frame = message.header.frame_id
        pixels: NDArray[np.uint8] | None = None

        def read() -> NDArray[np.uint8]:
            nonlocal pixels
            pixels = self._read(message, estimation.camera_size)
            return pixels

        rejected = estimation.counters.rejected
        stamp_ns = to_nanoseconds(message.header.stamp)
        output = estimation.frame(stamp_ns, now_ns, message.data, read)
        residual = None if output is None else self._publish(message.header, output)
        if estimation.counters.rejected > rejected:
            self.get_logger().error(estimation.state()[1], throttle_duration_sec=5.0)
        if pixels is not None and self._debug.get_subscription_count() > 0:
            measured = None if residual is None else residual.measured
            self._publish_debug(message.header, pixels, output, measured)

    def _publish(self, image: Header, output: Output) -> Residual | None:
        """Publish an output, the joint states first; gives what the robot's encoders say, where they do."""
        assert self._robot is not None
        robot, tracked = self._robot, output.tracked
        header = Header(stamp=image.stamp, frame_id=self._base_frame)
        self._states.publish(joint_state(header, robot.joint_names, tracked.position, tracked.velocity))
        if output.estimate is not None:
            self._latencies_ms.append((self.get_clock().now().nanoseconds - tracked.stamp_ns) * 1e-6)
            if self._raw_states.get_subscription_count() > 0:
                self._raw_states.publish(joint_state(header, robot.joint_names, output.estimate.position[0]))
        if self._deviations.get_subscription_count() > 0:
            self._deviations.publish(
                joint_state(header, robot.joint_names, tracked.position_std, tracked.velocity_std)
            )
        tip = link_pose(header, robot, tracked, robot.tip_link)
        self._poses.publish(tip)
        if self._twists.get_subscription_count() > 0:
            self._twists.publish(tip_twist(header, robot, tracked))
        links = {link: link_pose(header, robot, tracked, link) for link in self._links}
        for link, message in links.items():
            self._link_poses[link].publish(message)
        if self._camera_poses.get_subscription_count() > 0:
            camera = self._camera_pose(image.frame_id)
            if camera is not None:
                seen = Header(stamp=image.stamp, frame_id=image.frame_id)
                self._camera_poses.publish(seen_from(tip, seen, camera))
        if self.get_parameter("publish_tf").value:
            named = {robot.tip_link: tip, **links}
            transforms = [transform(message, self._prefix + link) for link, message in named.items()]
            self._transforms.publish(TFMessage(transforms=transforms))
        return None if output.estimate is None else self._publish_residual(header, tracked)

    def _publish_residual(self, header: Header, tracked: TrackedState) -> Residual | None:
        """What the estimate differs from the robot's encoders by, where it has any."""
        assert self._robot is not None and self._estimation is not None
        residual = self._residuals.of(tracked.stamp_ns, tracked.position, tracked.position_std)
        if residual is None:
            return None
        self._residuals_out.publish(joint_state(header, self._robot.joint_names, residual.now))
        limit = float(self.get_parameter("residual_limit").value)
        ratio = np.abs(np.nan_to_num(residual.ratio))
        worst = int(ratio.argmax())
        if limit and ratio[worst] > limit:
            joint = self._robot.joints[worst]
            unit, scale = joint.figures
            self._estimation.degrade(
                f"RESIDUAL: estimate and joint_states of {joint.name} differ by {scale * residual.mean[worst]:+.1f} "
                f"{unit} in the mean, {ratio[worst]:.1f} std: does the joint slip, or was the camera moved?"
            )
        return residual

    def _camera_pose(self, frame: str) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Position [3] in m and quaternion [4] xyzw of the camera in the base frame; None where nobody told."""
        if self._given_extrinsics is not None:
            return self._given_extrinsics
        return self._frames.pose(self._base_frame, frame)

    def _camera(self, frame: str, pixels: NDArray[np.uint8]) -> Camera | None:
        """The camera that a picture is of; None where it is not known, or not calibrated."""
        info, where = self._camera_info, self._camera_pose(frame)
        if info is None or where is None:
            return None
        try:
            return camera_of(info, where, size=(pixels.shape[1], pixels.shape[0]))
        except RopesError as error:
            self.get_logger().warning(f"~/debug_image is without the arm: {error}", throttle_duration_sec=60.0)
            return None

    def _publish_debug(
        self,
        header: Header,
        pixels: NDArray[np.uint8],
        output: Output | None,
        measured: NDArray[np.float64] | None,
    ) -> None:
        """The image with the estimate drawn into it; drawn only when someone watches."""
        assert self._robot is not None and self._estimation is not None
        state, reason = self._estimation.state()
        drawn = draw_estimate(
            pixels,
            self._robot,
            None if output is None else output.tracked.position,
            None if output is None else output.tracked.position_std,
            camera=self._camera(header.frame_id, pixels),
            state=state.value,
            reason=reason,
            latency_ms=self._latencies_ms[-1] if output is not None else None,
            measured=measured,
        )
        self._debug.publish(picture(header, drawn))

    def _watch(self) -> None:
        """Publish the state when it has changed."""
        state = self._state()[0]
        if state is not self._said:
            self._said = state
            self._reporter.update()

    def _state(self) -> tuple[State, str]:
        if self._worker is None or self._estimation is None:
            return State.STOPPED, "not active"
        state, reason = self._estimation.state()
        if state is State.STALE and self.count_publishers(self._inputs[0].topic_name) == 0:
            reason += "; nobody publishes that topic"
            self.get_logger().warning(
                f"nobody publishes {self._inputs[0].topic_name}: start the camera, or name its topic",
                throttle_duration_sec=10.0,
            )
        return state, reason

    def _statement(self) -> Statement:
        """State and reason, and what became of the frames since activation."""
        state, reason = self._state()
        if state is State.STOPPED:
            return Statement(LEVELS[state], f"{state.value}: {reason}", {"state": state.value})
        assert self._encoder is not None and self._estimation is not None and self._robot is not None
        latencies = np.asarray(self._latencies_ms or [float("nan")])
        last = self._estimation.last
        values = {
            "state": state.value,
            **asdict(self._estimation.counters),
            "latency_ms_p50": f"{np.percentile(latencies, 50):.2f}",
            "latency_ms_p99": f"{np.percentile(latencies, 99):.2f}",
            "novelty": "" if last is None else f"{float(last.novelty[0]):.3f}",
            "std": "" if last is None else _in_figures(self._robot, last.std[0]),
            "units": ", ".join(joint.unit for joint in self._robot.joints),
            "execution_provider": self._encoder.providers[0],
            "precision": self._encoder.precision,
            "model_sha256": self._encoder.sha256,
        }
        return Statement(LEVELS[state], f"{state.value}: {reason}", values)


def _in_figures(robot: Robot, values: NDArray[np.floating]) -> str:
    return ", ".join(f"{value:.2f} {unit}" for value, unit in robot.in_figures(values))


def _checked_prefix(prefix: str) -> str:
    """A prefix of tf frames.

    Raises:
        RobotError: tf2 would refuse the frames' names.
    """
    if prefix.startswith("/") or any(sign.isspace() for sign in prefix):
        raise RobotError(f"tf_prefix: {prefix!r} begins with a slash or holds white space; tf frames may not")
    return prefix


def _extrinsics(values: list[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Position [3] and unit quaternion [4] xyzw out of the parameter; None where all are 0.

    Raises:
        RobotError: They are no pose.
    """
    array = np.asarray(values)
    if not array.any():
        return None
    if array.shape != (7,) or not np.isfinite(array).all() or not array[3:].any():
        raise RobotError(f"extrinsics: {values} are not x y z in m and a quaternion x y z w")
    return array[:3], array[3:] / np.linalg.norm(array[3:])


def main(args: list[str] | None = None) -> int:
    """Entry point of the node."""
    return run(Estimator, args)


if __name__ == "__main__":
    raise SystemExit(main())

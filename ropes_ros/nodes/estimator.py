"""The estimator node: watches the camera and publishes joint states and the tip's pose."""

from __future__ import annotations

import array
import json
import threading
import time
import traceback
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseWithCovarianceStamped, TransformStamped
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile, QoSReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage

from ropes_ros.encoder import Encoder, Estimate, load_encoder, shipped_model
from ropes_ros.errors import ModelError, RopesError
from ropes_ros.images import compressed_to_rgb, to_rgb
from ropes_ros.nodes.common import (
    INACTIVE,
    OVERRIDABLE,
    Reporter,
    Statement,
    described,
    latched,
    offer,
    run,
    to_nanoseconds,
    told,
)
from ropes_ros.robot import Robot, load_robot
from ropes_ros.tracking import JointTracker
from ropes_ros.units import NANOSECONDS

LATENCIES = 300
OLD_S = 10.0
"""Age of a frame from which its stamp is taken to be of another clock."""
JUMP_NS = NANOSECONDS
"""A stamp that is this much older than the last means that time itself jumped (a bag loops, a simulation restarts)."""


@dataclass
class Counters:
    """What happened to the frames since activation: all of `received`, but at most two that are at work, are in one
    of `published` to `from_future`; `clock_jumps` counts those of them at which time had jumped."""

    received: int = 0
    published: int = 0
    novel: int = 0
    skipped: int = 0
    rejected: int = 0
    out_of_order: int = 0
    from_future: int = 0
    clock_jumps: int = 0


class Estimator(LifecycleNode):
    """Estimates joint angles from each newest image; see docs/interface.md for topics and parameters."""

    def __init__(self) -> None:
        self._inputs: list[Any] = []
        self._worker: threading.Thread | None = None
        super().__init__("estimator")
        for name, default, descriptor in (
            ("model", "", described("Model file or its folder; the robot's shipped one when empty", read_only=True)),
            ("robot", "arm6", described("Robot preset that the model must have been trained for", read_only=True)),
            ("image_topic", "camera/image_raw", described("Camera topic", read_only=True)),
            ("compressed", False, described("image_topic carries CompressedImage", read_only=True)),
            ("camera_info_topic", "camera/camera_info", described("Calibration of the camera", read_only=True)),
            ("base_frame", "", described("frame_id of poses; the robot's base link when empty", read_only=True)),
            ("require_gpu", False, described("Refuse to start without a GPU execution provider", read_only=True)),
            (
                "threads",
                1,
                described("Threads within one inference, 0 = automatic", integer_bounds=(0, 64), read_only=True),
            ),
            ("publish_tf", False, described("Publish the estimated tip on /tf")),
            ("tf_prefix", "estimated_", described("Prefix of the tip's frame on /tf")),
            ("novelty_limit", 1.5, described("Novelty above which no estimate is published", bounds=(1.0, 1e6))),
            ("stale_after", 0.5, described("Seconds without a frame until the state is STALE", bounds=(0.05, 60.0))),
            (
                "future_tolerance",
                0.5,
                described("Seconds that a stamp may lie ahead of the clock before it is dropped", bounds=(0.0, 60.0)),
            ),
        ):
            self.declare_parameter(name, default, descriptor)
        self._encoder: Encoder | None = None
        self._robot: Robot | None = None
        self._newest: Image | CompressedImage | None = None
        self._wake = threading.Condition()
        self._stopping = False
        self._reporter = Reporter(self, "estimate", self._statement)
        offer(self, "~/reload", self._reload)

    @told
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and open all topics but the camera's."""
        robot = load_robot(self._text("robot"))
        self._encoder, self._robot = self._load(robot), robot
        self._base_frame = self._text("base_frame") or robot.base_link
        self._states = self.create_lifecycle_publisher(
            JointState, "~/joint_states", 10, qos_overriding_options=OVERRIDABLE
        )
        self._raw_states = self.create_lifecycle_publisher(
            JointState, "~/raw_joint_states", 10, qos_overriding_options=OVERRIDABLE
        )
        self._poses = self.create_lifecycle_publisher(
            PoseWithCovarianceStamped, "~/pose", 10, qos_overriding_options=OVERRIDABLE
        )
        self._debug = self.create_lifecycle_publisher(
            Image, "~/debug_image", qos_profile_sensor_data, qos_overriding_options=OVERRIDABLE
        )
        self._transforms = self.create_lifecycle_publisher(TFMessage, "/tf", 10)
        self._model_info = self.create_lifecycle_publisher(String, "~/model_info", latched())
        return TransitionCallbackReturn.SUCCESS

    @told
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the worker and listen to the camera."""
        assert self._encoder is not None and self._robot is not None
        super().on_activate(state)
        self._counters = Counters()
        self._tracker = JointTracker(self._robot)
        self._latencies_ms: deque[float] = deque(maxlen=LATENCIES)
        self._last_stamp_ns = 0
        self._last_arrival = time.monotonic()
        self._verdict = DiagnosticStatus.OK, "OK"
        self._last_estimate: Estimate | None = None
        self._last_encoder = self._encoder
        self._newest = None
        self._stopping = False
        self._publish_model_info(self._encoder)
        kind = CompressedImage if self.get_parameter("compressed").value else Image
        newest_only = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
        try:
            for type_, topic, callback, qos in (
                (kind, self._text("image_topic"), self._on_image, newest_only),
                (CameraInfo, self._text("camera_info_topic"), self._on_camera_info, qos_profile_sensor_data),
            ):
                self._inputs.append(
                    self.create_subscription(type_, topic, callback, qos, qos_overriding_options=OVERRIDABLE)
                )
            worker = threading.Thread(target=self._work, name="estimator", daemon=True)
            worker.start()
        except Exception:
            self._stop()
            raise
        self._worker = worker
        self._reporter.update()
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop listening and end the worker."""
        self._stop()
        super().on_deactivate(state)
        self._reporter.update()
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Forget the model."""
        self._encoder = self._robot = None
        for publisher in (
            self._states,
            self._raw_states,
            self._poses,
            self._debug,
            self._transforms,
            self._model_info,
        ):
            self.destroy_lifecycle_publisher(publisher)
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

    def _stop(self) -> None:
        """Stop listening and end the worker, as far as they were started."""
        while self._inputs:
            self.destroy_subscription(self._inputs.pop())
        if self._worker is not None:
            with self._wake:
                self._stopping = True
                self._wake.notify()
            self._worker.join()
            self._worker = None

    def _load(self, robot: Robot) -> Encoder:
        """The model that the parameters name, checked and run once.

        Raises:
            RopesError: It cannot be used.
        """
        model = self._text("model") or str(shipped_model(robot.name))
        encoder = load_encoder(
            model,
            robot=robot.name,
            require_gpu=bool(self.get_parameter("require_gpu").value),
            threads=int(self.get_parameter("threads").value),
        )
        if encoder.info.joint_names != robot.joint_names:
            raise ModelError(f"{model}: its joints are not those of robot {robot.name!r}; export it again")
        width, height = encoder.info.camera_size
        encoder.run(np.zeros((height, width, 3), dtype=np.uint8))
        self.get_logger().info(f"model {encoder.path} on {encoder.providers[0]}")
        return encoder

    def _reload(self) -> str:
        """Take the model's file as it is by now; the one in use stays where the new one cannot be used."""
        if self._robot is None:
            raise ModelError("no model is in use yet: configure the node")
        self._encoder = encoder = self._load(self._robot)
        self._publish_model_info(encoder)
        return f"{encoder.path}, sha256 {encoder.sha256}, on {encoder.providers[0]}"

    def _publish_model_info(self, encoder: Encoder) -> None:
        content = {
            **asdict(encoder.info),
            "sha256": encoder.sha256,
            "execution_providers": encoder.providers,
        }
        self._model_info.publish(String(data=json.dumps(content)))

    def _on_camera_info(self, message: CameraInfo) -> None:
        assert self._encoder is not None
        if (message.width, message.height) != self._encoder.info.camera_size:
            self.get_logger().error(
                f"{self._text('camera_info_topic')}: the camera gives {message.width}x{message.height}, the model "
                "takes {}x{}; set the camera to the model's size".format(*self._encoder.info.camera_size),
                throttle_duration_sec=10.0,
            )

    def _on_image(self, message: Image | CompressedImage) -> None:
        """Keep the newest frame and nothing else."""
        with self._wake:
            self._counters.received += 1
            self._counters.skipped += self._newest is not None
            self._newest = message
            self._last_arrival = time.monotonic()
            self._wake.notify()

    def _work(self) -> None:
        while True:
            with self._wake:
                while self._newest is None and not self._stopping:
                    self._wake.wait()
                if self._stopping:
                    return
                message, self._newest = self._newest, None
            try:
                self._estimate(message)
            except RopesError as error:
                self._reject(str(error))
            except Exception as error:  # the next frame may fare better, and a silent node would be worse
                if not rclpy.ok(context=self.context):
                    return  # the middleware went away below this thread
                self._reject(f"the estimate failed: {type(error).__name__}: {' '.join(str(error).split())}")
                self.get_logger().error(traceback.format_exc().rstrip(), throttle_duration_sec=5.0)

    def _reject(self, problem: str) -> None:
        self._counters.rejected += 1
        self._verdict = DiagnosticStatus.ERROR, problem
        self.get_logger().error(problem, throttle_duration_sec=5.0)

    def _estimate(self, message: Image | CompressedImage) -> None:
        encoder = self._encoder
        assert encoder is not None
        stamp_ns = to_nanoseconds(message.header.stamp)
        if not self._in_order(stamp_ns):
            return
        if encoder is not self._last_encoder:  # reloaded
            self._tracker.reset()
            self._last_encoder = encoder
        if isinstance(message, CompressedImage):
            image = compressed_to_rgb(message.data, self._text("image_topic"))
        else:
            image = to_rgb(message.data, message.height, message.width, message.encoding, message.step)
        estimate = encoder.run(image)
        self._last_estimate = estimate
        novelty = float(estimate.novelty[0])
        finite = bool(np.isfinite(estimate.position).all() and np.isfinite(estimate.std).all())
        novel = not (finite and novelty <= float(self.get_parameter("novelty_limit").value))
        if novel:
            self._counters.novel += 1
            self._tracker.reset()
            text = "NOVEL: the image is unlike the training frames; nothing is published"
            self._verdict = DiagnosticStatus.WARN, text
        else:
            self._tracker.update(stamp_ns, estimate.position[0], estimate.std[0])
            self._publish(message, stamp_ns, estimate)
            self._counters.published += 1
            self._verdict = self._verdict_on_age(stamp_ns)
        if self._debug.get_subscription_count() > 0:
            self._publish_debug(message, image, estimate, novel)

    def _in_order(self, stamp_ns: int) -> bool:
        """Whether a frame is to be used; counts those that are not, and starts anew when time jumped."""
        ahead_s = (stamp_ns - self.get_clock().now().nanoseconds) / NANOSECONDS
        if ahead_s > float(self.get_parameter("future_tolerance").value):
            self._counters.from_future += 1
            advice = "synchronise the clocks, or set use_sim_time"
            text = f"DROPPED: stamps lie {ahead_s:.1f} s ahead of this node's clock; {advice}"
            self._verdict = DiagnosticStatus.WARN, text
            return False
        if stamp_ns < self._last_stamp_ns - JUMP_NS:
            self._counters.clock_jumps += 1
            self._tracker.reset()
        elif stamp_ns <= self._last_stamp_ns:
            self._counters.out_of_order += 1
            text = (
                f"DROPPED: stamps do not increase (now {stamp_ns / NANOSECONDS:.3f} s); the camera's driver must stamp "
                "each image with its time"
            )
            self._verdict = DiagnosticStatus.WARN, text
            return False
        self._last_stamp_ns = stamp_ns
        return True

    def _verdict_on_age(self, stamp_ns: int) -> tuple[bytes, str]:
        """OK, or a warning where stamps and the node's clock can hardly be of the same time."""
        age_s = (self.get_clock().now().nanoseconds - stamp_ns) / NANOSECONDS
        if age_s < OLD_S:
            return DiagnosticStatus.OK, "OK"
        return DiagnosticStatus.WARN, (
            f"OLD: stamps lie {age_s:.0f} s behind this node's clock; synchronise the clocks, or set use_sim_time"
        )

    def _publish(self, message: Image | CompressedImage, stamp_ns: int, estimate: Estimate) -> None:
        assert self._robot is not None
        position, std = self._tracker.position, self._tracker.std
        filtered, raw = JointState(), JointState()
        for state in (filtered, raw):
            state.header.stamp = message.header.stamp
            state.header.frame_id = self._base_frame
            state.name = list(self._robot.joint_names)
        filtered.position, filtered.velocity = position.tolist(), self._tracker.velocity.tolist()
        raw.position = estimate.position[0].astype(np.float64).tolist()
        self._states.publish(filtered)
        self._latencies_ms.append((self.get_clock().now().nanoseconds - stamp_ns) * 1e-6)
        self._raw_states.publish(raw)
        where, turn = self._robot.fk(position)
        pose = PoseWithCovarianceStamped()
        pose.header.stamp, pose.header.frame_id = message.header.stamp, self._base_frame
        spot, attitude = pose.pose.pose.position, pose.pose.pose.orientation
        spot.x, spot.y, spot.z = (float(value) for value in where)
        attitude.x, attitude.y, attitude.z, attitude.w = (float(value) for value in turn)
        scaled = self._robot.jacobian(position) * std
        pose.pose.covariance = (scaled @ scaled.T).ravel()
        self._poses.publish(pose)
        if self.get_parameter("publish_tf").value:
            transform = TransformStamped()
            transform.header = pose.header
            transform.child_frame_id = self._text("tf_prefix") + self._robot.tip_link
            move = transform.transform
            move.translation.x, move.translation.y, move.translation.z = spot.x, spot.y, spot.z
            move.rotation = attitude
            self._transforms.publish(TFMessage(transforms=[transform]))

    def _publish_debug(
        self, message: Image | CompressedImage, image: NDArray[np.uint8], estimate: Estimate, novel: bool
    ) -> None:
        """The image with each joint's estimate written on it; drawn only when someone watches."""
        assert self._robot is not None
        canvas = image.copy()
        for index, name in enumerate(self._robot.joint_names):
            angle, spread = np.degrees(estimate.position[0, index]), np.degrees(estimate.std[0, index])
            line = f"{name} {angle:+6.1f} +- {spread:.1f} deg"
            cv2.putText(canvas, line, (4, 14 + 14 * index), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1)
        state = f"novelty {float(estimate.novelty[0]):.2f}" + (" NOVEL, silent" if novel else "")
        cv2.putText(
            canvas, state, (4, canvas.shape[0] - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1
        )
        debug = Image(height=canvas.shape[0], width=canvas.shape[1], encoding="rgb8", step=3 * canvas.shape[1])
        debug.header = message.header
        debug.data = array.array("B", canvas.tobytes())
        self._debug.publish(debug)

    def _statement(self) -> Statement:
        """What became of the frames since activation."""
        if self._worker is None:
            return INACTIVE
        assert self._encoder is not None
        silence = time.monotonic() - self._last_arrival
        level, text = self._verdict
        if silence > float(self.get_parameter("stale_after").value):
            level = DiagnosticStatus.STALE
            text = f"STALE: no frame on {self._text('image_topic')} for {silence:.1f} s"
            if self.count_publishers(self._inputs[0].topic_name) == 0:
                text += "; nobody publishes that topic"
                self.get_logger().warning(
                    f"nobody publishes {self._inputs[0].topic_name}: start the camera, or name its topic",
                    throttle_duration_sec=10.0,
                )
        latencies = np.asarray(self._latencies_ms or [float("nan")])
        last = self._last_estimate
        values = {
            **asdict(self._counters),
            "latency_ms_p50": f"{np.percentile(latencies, 50):.2f}",
            "latency_ms_p99": f"{np.percentile(latencies, 99):.2f}",
            "novelty": "" if last is None else f"{float(last.novelty[0]):.3f}",
            "std_deg": "" if last is None else ", ".join(f"{value:.2f}" for value in np.degrees(last.std[0])),
            "execution_provider": self._encoder.providers[0],
            "model_sha256": self._encoder.sha256,
        }
        return Statement(level, text, values)


def main(args: list[str] | None = None) -> int:
    """Entry point of the node."""
    return run(Estimator, args)


if __name__ == "__main__":
    raise SystemExit(main())

"""What else the estimator publishes: links, the camera's view, residuals, predictions; and how a model is exchanged."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pinocchio
import pytest
from staging import DEADLINE_S
from staging import rclpy as rclpy  # fixture
from synthetic import familiar
from theatre import FRAME_NS, ROBOT, SECOND, Theatre, levels, stamp_of
from theatre import theatre as theatre  # fixture

from ropes_ros.encoder import Encoder


@pytest.fixture
def estimator_module(rclpy: Any) -> Any:
    """The module of the node, which needs rclpy."""
    from ropes_ros.nodes import estimator

    return estimator


CAMERA = np.array([1.0, -0.5, 0.8]), np.array([-0.6, 0.2, 0.1, 0.76])


def unit(quaternion: np.ndarray) -> np.ndarray:
    return quaternion / np.linalg.norm(quaternion)


def placed(message: Any) -> pinocchio.SE3:
    """A pose message as a transform."""
    spot, turn = message.pose.pose.position, message.pose.pose.orientation
    return pinocchio.XYZQUATToSE3(np.array([spot.x, spot.y, spot.z, turn.x, turn.y, turn.z, turn.w]))


def static_transform(stage: Theatre) -> Any:
    """Publish where the camera is, latched; the publisher."""
    from geometry_msgs.msg import TransformStamped
    from rclpy.qos import QoSDurabilityPolicy, QoSProfile
    from tf2_msgs.msg import TFMessage

    latched = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
    publisher = stage.other.create_publisher(TFMessage, "/tf_static", latched)
    transform = TransformStamped(child_frame_id="camera")
    transform.header.frame_id = ROBOT.base_link
    move, (where, turn) = transform.transform, CAMERA
    move.translation.x, move.translation.y, move.translation.z = where.tolist()
    move.rotation.x, move.rotation.y, move.rotation.z, move.rotation.w = unit(turn).tolist()
    publisher.publish(TFMessage(transforms=[transform]))
    return publisher


@pytest.mark.parametrize("given", ["tf_static", "parameter"])
def test_the_tip_is_published_as_the_camera_sees_it(theatre: Callable[..., Theatre], given: str) -> None:
    values = ", ".join(str(float(value)) for part in CAMERA for value in part)
    stage = theatre(*([f"extrinsics:=[{values}]"] if given == "parameter" else []))
    if given == "tf_static":
        keep = static_transform(stage)
        stage.spin_until(lambda: stage.node._camera_pose("camera") is not None, "the camera's place is known")
        assert keep
    stage.show(time.time_ns())
    heard = stage.heard["/estimator/camera_pose"]
    stage.spin_until(lambda: heard, "the pose in the camera's frame")
    assert heard[0].header.frame_id == "camera"
    view = pinocchio.XYZQUATToSE3(np.concatenate([CAMERA[0], unit(CAMERA[1])]))
    tip = stage.heard["/estimator/pose"][0]
    seen = placed(heard[0])
    np.testing.assert_allclose((view * seen).homogeneous, placed(tip).homogeneous, atol=1e-9)
    ours, base = (np.reshape(message.pose.covariance, (6, 6)) for message in (heard[0], tip))
    np.testing.assert_allclose(np.linalg.eigvalsh(ours), np.linalg.eigvalsh(base), atol=1e-12)
    turn = view.rotation
    np.testing.assert_allclose(turn @ ours[:3, :3] @ turn.T, base[:3, :3], atol=1e-12)
    np.testing.assert_allclose(turn @ ours[:3, 3:] @ turn.T, base[:3, 3:], atol=1e-12)


def test_without_extrinsics_nothing_is_said_of_the_cameras_view(theatre: Callable[..., Theatre]) -> None:
    stage = theatre()
    stage.show(time.time_ns())
    stage.spin_for(0.2)
    assert stage.heard["/estimator/camera_pose"] == []


def test_listed_links_have_poses_and_transforms(theatre: Callable[..., Theatre]) -> None:
    from geometry_msgs.msg import PoseWithCovarianceStamped

    middle = ROBOT.links[len(ROBOT.links) // 2]
    stage = theatre(f"links:=[{middle}]", "publish_tf:=true", "tf_prefix:=seen/")
    heard: list[Any] = []
    stage.other.create_subscription(PoseWithCovarianceStamped, f"/estimator/poses/{middle}", heard.append, 10)
    publisher = stage.node._link_poses[middle]
    stage.spin_until(lambda: publisher.get_subscription_count() > 0, "the link has a listener")
    stage.show(time.time_ns())
    stage.spin_until(lambda: heard and stage.heard["/tf"], "poses and transforms")
    position = np.asarray(stage.states[0].position)
    where, turn = ROBOT.fk(position, middle)
    np.testing.assert_allclose(placed(heard[0]).translation, where, atol=1e-9)
    np.testing.assert_allclose(np.abs(pinocchio.SE3ToXYZQUAT(placed(heard[0]))[3:] @ turn), 1.0, atol=1e-9)
    names = {transform.child_frame_id for transform in stage.heard["/tf"][0].transforms}
    assert names == {f"seen/{ROBOT.tip_link}", f"seen/{middle}"}


@pytest.mark.parametrize(
    ("parameter", "complaint"),
    [
        ("links:=[nowhere]", "no link 'nowhere'"),
        ("tf_prefix:='a b'", "tf_prefix"),
        ("tf_prefix:=/x", "tf_prefix"),
        ("extrinsics:=[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]", "extrinsics"),
        ("extrinsics:=[1.0]", "extrinsics"),
        ("late_frames:=forget", "late_frames: 'forget' is none of drop, replay"),
        ("precision:=fp8", "precision 'fp8' is unknown"),
        ("execution_providers:=[tpu]", "execution provider 'tpu' is unknown"),
    ],
)
def test_parameters_that_make_no_sense_are_named(
    rclpy: Any, tiny_model: Path, parameter: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Theatre(tiny_model, parameter)
    said: list[str] = []
    monkeypatch.setattr(stage.node.get_logger(), "error", lambda text, **_: said.append(text))
    try:
        assert not stage.start()
        (line,) = said
        assert complaint in line and "\n" not in line
    finally:
        stage.close()


def joint_states(stage: Theatre) -> Any:
    from sensor_msgs.msg import JointState

    return stage.other.create_publisher(JointState, "/joint_states", 10)


def measure(publisher: Any, stamp_ns: int, position: np.ndarray) -> None:
    from sensor_msgs.msg import JointState

    message = JointState(name=list(ROBOT.joint_names), position=position.tolist())
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, SECOND)
    publisher.publish(message)


def test_residuals_are_published_and_never_change_an_estimate(
    theatre: Callable[..., Theatre], tiny_model: Path
) -> None:
    """A joint that slips is named after a while; estimates are those of a node that hears no joint states."""
    from ropes_ros.tracking import JointTracker

    stage = theatre("residual_limit:=4.0", "stale_after:=60.0")
    encoder, tracker = Encoder(tiny_model), JointTracker(ROBOT)
    measured = joint_states(stage)
    stage.spin_until(lambda: measured.get_subscription_count() > 0, "it listens to joint states")
    said: list[str] = []
    begin_ns = time.time_ns() - SECOND // 2
    for number in range(12):
        stamp_ns = begin_ns + number * FRAME_NS
        pixels = familiar(number % 3)
        pixels[0, 0] = number
        estimate = encoder.run(pixels)
        tracker.update(stamp_ns, estimate.position[0], estimate.std[0])
        truth = tracker.state.position.copy()
        truth[2] -= 10.0 * tracker.state.position_std[2]
        measure(measured, stamp_ns, truth)
        stage.spin_until(
            lambda wanted=stamp_ns: (
                stage.node._residuals._measured[0][-1:] and (stage.node._residuals._measured[0][-1][0] == wanted)
            ),
            "the joint state is heard",
        )
        stage.show(stamp_ns, pixels)
        np.testing.assert_allclose(stage.states[-1].position, tracker.state.position, atol=1e-9)
        said.append(stage.node._estimation.state()[1])
    residuals = stage.heard["/estimator/residual"]
    stage.spin_until(lambda: len(residuals) == 12, "the residuals")
    expected = np.zeros(6)
    expected[2] = 10.0 * tracker.state.position_std[2]
    np.testing.assert_allclose(residuals[-1].position, expected, atol=1e-9)
    assert list(residuals[-1].name) == list(ROBOT.joint_names) and stamp_of(residuals[-1]) == stamp_ns
    assert "RESIDUAL: estimate and joint_states of joint3 differ by" in said[-1]
    assert stage.verdict().level == levels().WARN


def test_predictions_are_marked_by_their_stamps_and_end(theatre: Callable[..., Theatre]) -> None:
    stage = theatre("predict_for:=0.3", "stale_after:=0.2")
    last_ns = 0
    for _ in range(10):
        last_ns = time.time_ns()
        stage.show(last_ns)
        stage.spin_for(0.03)
    before = stage.counters["published"]
    stage.node._estimation._period_ns = 33e6  # a busy machine has stretched it
    stage.spin_for(0.8)
    assert stage.counters["published"] == before
    predicted = [stamp_of(state) for state in stage.states if stamp_of(state) > last_ns]
    assert len(predicted) == stage.counters["predicted"] >= 2
    assert (np.diff(predicted) > 0).all() and predicted[-1] - last_ns <= 0.3 * SECOND
    widths = [state.position[0] for state in stage.heard["/estimator/joint_std"]][before - 1 :]
    assert (np.diff(widths) > 0.0).all()
    assert stage.verdict().level == levels().STALE, "predictions are no frames"


def test_commands_are_expected_by_the_filter(theatre: Callable[..., Theatre]) -> None:
    """A commanded motion is in the velocity that the filter goes by; nonsense is logged and changes nothing."""
    from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

    stage = theatre("command_topic:=joint_command")
    commands = stage.other.create_publisher(JointTrajectory, "/joint_command", 10)
    stage.spin_until(lambda: commands.get_subscription_count() > 0, "it listens to commands")
    assert stage.node._commanded_velocity(time.time_ns()) is None
    begin_ns = time.time_ns()
    message = JointTrajectory(joint_names=list(ROBOT.joint_names))
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(begin_ns, SECOND)
    for second in range(3):
        point = JointTrajectoryPoint(positions=(ROBOT.home + 0.1 * second).tolist())
        point.time_from_start.sec = second
        message.points.append(point)
    commands.publish(message)
    commands.publish(JointTrajectory(joint_names=["nobody"]))
    stage.spin_until(lambda: stage.node._commands.end_ns is not None, "the command is heard")
    stage.spin_for(0.1)
    np.testing.assert_allclose(stage.node._commanded_velocity(begin_ns + SECOND // 2), 0.1, atol=1e-6)
    stage.show(time.time_ns())
    assert stage.counters["published"] == 1


def test_images_of_another_size_are_scaled_where_that_is_wanted(
    theatre: Callable[..., Theatre], tiny_model: Path
) -> None:
    stage = theatre("resize:=true", "stale_after:=60.0")
    large = cv2.resize(familiar(2), (128, 96), interpolation=cv2.INTER_NEAREST)
    stage.show(time.time_ns(), np.asarray(large, dtype=np.uint8))
    expected = Encoder(tiny_model).run(familiar(2)).position[0]
    np.testing.assert_allclose(stage.heard["/estimator/raw_joint_states"][0].position, expected, atol=1e-5)
    stage.show(time.time_ns(), familiar(2, (128, 60)))
    assert stage.counters["rejected"] == 1
    assert "have another shape than the model's 64x48" in stage.verdict().message


def test_the_debug_image_is_drawn_for_a_watcher_alone(
    theatre: Callable[..., Theatre], estimator_module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import CameraInfo, Image

    drawings: list[Any] = []
    draw = estimator_module.draw_estimate

    def noted(*arguments: Any, **options: Any) -> Any:
        drawings.append(options)
        return draw(*arguments, **options)

    monkeypatch.setattr(estimator_module, "draw_estimate", noted)
    stage = theatre("stale_after:=60.0")
    infos = stage.other.create_publisher(CameraInfo, "/camera/camera_info", qos_profile_sensor_data)
    stage.show(time.time_ns())
    assert drawings == []
    seen: list[Any] = []
    stage.other.create_subscription(Image, "/estimator/debug_image", seen.append, qos_profile_sensor_data)
    stage.spin_until(lambda: stage.node._debug.get_subscription_count() > 0, "the debug image has a watcher")
    keep = static_transform(stage)
    info = CameraInfo(width=64, height=48, k=[60.0, 0.0, 31.5, 0.0, 60.0, 23.5, 0.0, 0.0, 1.0])
    info.distortion_model, info.d = "plumb_bob", [0.0] * 5
    stage.spin_until(lambda: infos.get_subscription_count() > 0, "it listens to the calibration")
    infos.publish(info)
    stage.spin_until(
        lambda: stage.node._camera_info is not None and stage.node._camera_pose("camera") is not None, "calibrated"
    )
    assert keep
    stamp_ns = time.time_ns()
    stage.show(stamp_ns)
    stage.spin_until(lambda: seen, "the debug image")
    assert stamp_of(seen[-1]) == stamp_ns and drawings[-1]["camera"] is not None
    assert drawings[-1]["latency_ms"] > 0.0


@pytest.fixture
def own_model(tiny_model: Path, tmp_path: Path) -> Iterator[Path]:
    yield shutil.copytree(tiny_model, tmp_path / "model")


def slow_reload(
    stage: Theatre, estimator_module: Any, monkeypatch: pytest.MonkeyPatch
) -> tuple[Any, threading.Event]:
    """A reload that is at work: its future answer, and the event that lets it go on."""
    from std_srvs.srv import Trigger

    loading, go_on = threading.Event(), threading.Event()
    load = estimator_module.load_encoder

    def slow(*arguments: Any, **options: Any) -> Encoder:
        loading.set()
        assert go_on.wait(DEADLINE_S)
        return load(*arguments, **options)

    monkeypatch.setattr(estimator_module, "load_encoder", slow)
    client = stage.other.create_client(Trigger, "/estimator/reload")
    stage.spin_until(client.service_is_ready, "the service")
    future = client.call_async(Trigger.Request())
    stage.spin_until(loading.is_set, "the model is being loaded")
    return future, go_on


def test_no_frame_is_missed_while_a_model_is_reloaded(
    theatre: Callable[..., Theatre], own_model: Path, estimator_module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = theatre(f"model:={own_model}")
    future, go_on = slow_reload(stage, estimator_module, monkeypatch)
    before = stage.node._encoder
    for _ in range(5):
        stage.show(time.time_ns())
    assert stage.counters["published"] == stage.sent == 5 and not future.done()
    assert stage.node._encoder is before
    answer = stage.trigger("/estimator/reload")
    assert not answer.success and "already" in answer.message
    go_on.set()
    stage.spin_until(future.done, "the answer")
    assert future.result().success and stage.node._encoder is not before
    stage.show(time.time_ns())
    assert stage.counters["published"] == stage.sent == 6


def test_a_reload_that_fails_in_an_unforeseen_way_ends_no_node(
    theatre: Callable[..., Theatre], own_model: Path, estimator_module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = theatre(f"model:={own_model}")

    def fail(*_: Any, **__: Any) -> Encoder:
        raise RuntimeError("no kernel image\nfor this device")

    monkeypatch.setattr(estimator_module, "load_encoder", fail)
    answer = stage.trigger("/estimator/reload")
    assert not answer.success and answer.message == "RuntimeError: no kernel image for this device; see the node's log"
    stage.show(time.time_ns())
    assert stage.counters["published"] == 1


def test_a_reload_that_a_deactivation_overtakes_changes_nothing(
    theatre: Callable[..., Theatre], own_model: Path, estimator_module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = theatre(f"model:={own_model}")
    future, go_on = slow_reload(stage, estimator_module, monkeypatch)
    stage.node.trigger_deactivate()
    stage.node.trigger_cleanup()
    go_on.set()
    stage.spin_until(future.done, "the answer")
    answer = future.result()
    assert not answer.success and "meanwhile" in answer.message
    assert stage.node._encoder is None


def test_precision_and_its_loss_are_told(theatre: Callable[..., Theatre], own_model: Path) -> None:
    from rclpy.qos import QoSDurabilityPolicy, QoSProfile
    from std_msgs.msg import String

    from ropes_ros.encoder import write_frames

    write_frames(own_model, np.stack([familiar(number) for number in range(3)]))
    stage = theatre(f"model:={own_model}", "precision:=fp16")
    told: list[str] = []
    latched = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
    stage.other.create_subscription(String, "/estimator/model_info", lambda m: told.append(m.data), latched)
    stage.spin_until(lambda: told, "the model's description")
    content = json.loads(told[0])
    assert content["precision"] == "fp16" and 0.0 < content["precision_loss"]["position"] < 0.25
    stage.show(time.time_ns())
    assert stage.verdict().values["precision"] == "fp16"


def test_the_debug_image_of_a_camera_without_calibration_has_no_arm(theatre: Callable[..., Theatre]) -> None:
    """Drivers publish a calibration of zeros where they have none."""
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import CameraInfo, Image

    values = ", ".join(str(float(value)) for part in CAMERA for value in part)
    stage = theatre("stale_after:=60.0", f"extrinsics:=[{values}]")
    infos = stage.other.create_publisher(CameraInfo, "/camera/camera_info", qos_profile_sensor_data)
    seen: list[Any] = []
    stage.other.create_subscription(Image, "/estimator/debug_image", seen.append, qos_profile_sensor_data)
    stage.spin_until(lambda: stage.node._debug.get_subscription_count() > 0, "the debug image has a watcher")
    stage.spin_until(lambda: infos.get_subscription_count() > 0, "it listens to the calibration")
    infos.publish(CameraInfo(width=64, height=48))
    stage.spin_until(lambda: stage.node._camera_info is not None, "the calibration is heard")
    stage.show(time.time_ns())
    stage.spin_until(lambda: seen, "the debug image")
    assert stage.counters["published"] == 1


def test_a_configuration_that_fails_leaves_no_publisher_behind(
    rclpy: Any, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link's name need not be one of a topic; what was made before is not made twice at the next attempt."""
    from rclpy.lifecycle import TransitionCallbackReturn

    from ropes_ros.errors import RopesError

    stage = Theatre(tiny_model)
    try:
        before = len(list(stage.node.publishers))
        make = stage.node.create_lifecycle_publisher

        def refuse(kind: Any, topic: str, *arguments: Any, **options: Any) -> Any:
            if topic == "~/debug_image":
                raise RopesError("no such name")
            return make(kind, topic, *arguments, **options)

        monkeypatch.setattr(stage.node, "create_lifecycle_publisher", refuse)
        assert stage.node.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert len(list(stage.node.publishers)) == before
    finally:
        stage.close()

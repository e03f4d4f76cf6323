"""The estimator node: what it publishes, what it refuses to publish, and that it says so either way."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from staging import DEADLINE_S, has_rclpy, isolate
from staging import rclpy as rclpy  # fixture
from synthetic import familiar, stick_robot, unfamiliar
from theatre import FRAME_NS, ROBOT, SECOND, Gate, Theatre, levels, stamp_of
from theatre import theatre as theatre  # fixture

from ropes_ros.encoder import Encoder, Estimate, file_sha256
from ropes_ros.processes import node_command
from ropes_ros.tracking import JointTracker


def test_estimates_are_those_of_the_model_filtered_and_placed_by_kinematics(
    theatre: Callable[..., Theatre], tiny_model: Path
) -> None:
    stage = theatre()
    start_ns = time.time_ns() - SECOND // 2
    encoder, tracker = Encoder(tiny_model), JointTracker(ROBOT)
    for number in range(3):
        stamp_ns, pixels = start_ns + number * FRAME_NS, familiar(number)
        stage.show(stamp_ns, pixels)
        estimate = encoder.run(pixels)
        tracker.update(stamp_ns, estimate.position[0], estimate.std[0])
        filtered, raw, pose = (
            stage.heard[f"/estimator/{topic}"][-1] for topic in ("joint_states", "raw_joint_states", "pose")
        )
        assert stamp_of(filtered) == stamp_of(raw) == stamp_of(pose) == stamp_ns
        assert {message.header.frame_id for message in (filtered, raw, pose)} == {ROBOT.base_link}
        assert list(filtered.name) == list(raw.name) == list(ROBOT.joint_names)
        np.testing.assert_allclose(raw.position, estimate.position[0], atol=1e-5)
        np.testing.assert_allclose(filtered.position, tracker.state.position, atol=1e-5)
        np.testing.assert_allclose(filtered.velocity, tracker.state.velocity, atol=1e-3)
        deviation = stage.heard["/estimator/joint_std"][-1]
        np.testing.assert_allclose(deviation.position, tracker.state.position_std, rtol=1e-3)
        np.testing.assert_allclose(deviation.velocity, tracker.state.velocity_std, rtol=1e-3)
        where, turn = ROBOT.fk(filtered.position)
        spot, attitude = pose.pose.pose.position, pose.pose.pose.orientation
        np.testing.assert_allclose([spot.x, spot.y, spot.z], where, atol=1e-9)
        np.testing.assert_allclose([attitude.x, attitude.y, attitude.z, attitude.w], turn, atol=1e-9)
        covariance = np.array(pose.pose.covariance)
        assert covariance.shape == (36,)
        square = covariance.reshape(6, 6)
        jacobian = ROBOT.jacobian(filtered.position)
        spread = np.diag(tracker.state.position_std**2)
        np.testing.assert_allclose(square, jacobian @ spread @ jacobian.T, rtol=1e-3, atol=1e-9)
        np.testing.assert_array_equal(square, square.T)
        assert np.linalg.eigvalsh(square).min() > -1e-12
        stage.spin_until(lambda wanted=number + 1: len(stage.heard["/estimator/twist"]) == wanted, "the twist")
        moving = stage.heard["/estimator/twist"][-1].twist
        twist = moving.twist
        moved = [getattr(part, axis) for part in (twist.linear, twist.angular) for axis in "xyz"]
        np.testing.assert_allclose(moved, jacobian @ filtered.velocity, atol=1e-6)
        np.testing.assert_allclose(
            np.reshape(moving.covariance, (6, 6)),
            jacobian @ np.diag(tracker.state.velocity_std**2) @ jacobian.T,
            rtol=1e-3,
            atol=1e-9,
        )
    assert stage.heard["/tf"] == []
    verdict = stage.verdict()
    assert verdict.level in (levels().OK, levels().STALE)
    assert verdict.values["published"] == verdict.values["received"] == "3"
    assert float(verdict.values["latency_ms_p50"]) > 0.0
    assert verdict.values["model_sha256"] == file_sha256(tiny_model / "model.onnx")


def test_compressed_images_and_a_transform(theatre: Callable[..., Theatre], tiny_model: Path) -> None:
    stage = theatre("compressed:=true", "publish_tf:=true")
    stamp_ns = time.time_ns()
    stage.show(stamp_ns, familiar(3))
    np.testing.assert_allclose(stage.states[0].position, Encoder(tiny_model).run(familiar(3)).position[0], atol=1e-5)
    stage.spin_until(lambda: stage.heard["/tf"], "a transform")
    (transform,) = stage.heard["/tf"][0].transforms
    assert stamp_of(transform) == stamp_ns
    assert (transform.header.frame_id, transform.child_frame_id) == (ROBOT.base_link, f"estimated_{ROBOT.tip_link}")
    spot = stage.heard["/estimator/pose"][0].pose.pose.position
    assert transform.transform.translation.x == spot.x


def test_late_frames_are_dropped_and_a_clock_that_jumps_back_is_followed(theatre: Callable[..., Theatre]) -> None:
    stage = theatre()
    now_ns = time.time_ns()
    for stamp_ns in (now_ns - FRAME_NS, now_ns, now_ns, now_ns - SECOND // 2):
        stage.show(stamp_ns)
    assert stage.counters["out_of_order"] == 2
    assert [stamp_of(state) for state in stage.states] == [now_ns - FRAME_NS, now_ns]
    past_ns = now_ns - 5 * SECOND
    for number in (0, 1, 1):
        stage.show(past_ns + number * FRAME_NS, familiar(number))
    assert stage.counters["clock_jumps"] == 1
    assert stage.counters["out_of_order"] == 3
    assert [stamp_of(state) for state in stage.states[2:]] == [past_ns, past_ns + FRAME_NS]
    assert not any(stage.states[2].velocity)  # nothing is left of the time before
    assert any(stage.states[3].velocity)


def test_frames_from_the_future_are_dropped_and_said(theatre: Callable[..., Theatre]) -> None:
    stage = theatre("stale_after:=60.0")
    stage.show(time.time_ns() + 5 * SECOND)
    assert stage.counters["from_future"] == 1
    verdict = stage.verdict()
    assert verdict.level == levels().WARN
    assert "ahead of this node's clock" in verdict.message
    stage.show(time.time_ns())
    assert stage.counters["published"] == 1


def test_images_without_a_stamp_are_said(theatre: Callable[..., Theatre]) -> None:
    stage = theatre("stale_after:=60.0")
    for _ in range(3):
        stage.show(0)
    assert (stage.counters["out_of_order"], stage.states) == (3, [])
    verdict = stage.verdict()
    assert verdict.level == levels().WARN
    assert "images are not stamped" in verdict.message
    stage.show(time.time_ns())
    assert len(stage.states) == 1


def test_frames_of_another_clock_are_used_and_said(theatre: Callable[..., Theatre]) -> None:
    stage = theatre("stale_after:=60.0")
    stage.show(time.time_ns() - 3600 * SECOND)
    verdict = stage.verdict()
    assert verdict.level == levels().WARN
    assert re.search(r"36\d\d\.\d s behind this node's clock", verdict.message)
    assert len(stage.states) == 1


def test_unusable_images_are_refused_and_the_next_good_one_is_taken(
    theatre: Callable[..., Theatre], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = theatre("stale_after:=60.0")
    large, unknown, short, fine = (stage.message(0, familiar(0, size)) for size in ((80, 60), *3 * [(64, 48)]))
    unknown.encoding = "32FC1"
    short.data = short.data[:-1]

    def fail(images: NDArray[np.uint8]) -> Estimate:
        raise ValueError("out of memory\non the device")

    for number, (message, complaint) in enumerate(
        (
            (large, "images are 80x60, the model takes 64x48"),
            (unknown, "encoding '32FC1' is not supported"),
            (short, "damaged messages"),
            (fine, "the estimate failed: ValueError: out of memory on the device"),
        ),
        start=1,
    ):
        with monkeypatch.context() as patch:
            if message is fine:
                patch.setattr(stage.node._encoder, "run", fail)
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(time.time_ns(), SECOND)
            stage.post(message)
            stage.settle()
        assert stage.counters["rejected"] == number
        verdict = stage.verdict()
        assert verdict.level == levels().WARN
        assert complaint in verdict.message and "\n" not in verdict.message
        stage.show(time.time_ns())
        assert len(stage.states) == number


def test_a_novel_image_silences_the_node(theatre: Callable[..., Theatre]) -> None:
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image

    stage = theatre("stale_after:=60.0")
    drawn: list[Any] = []
    stage.other.create_subscription(Image, "/estimator/debug_image", drawn.append, qos_profile_sensor_data)
    stage.spin_until(lambda: stage.node._debug.get_subscription_count() > 0, "the debug image has a watcher")
    stamp_ns = time.time_ns()
    stage.show(stamp_ns, unfamiliar(99))
    assert stage.counters["novel"] == 1 and stage.states == []
    verdict = stage.verdict()
    assert verdict.level == levels().WARN and verdict.message.startswith("NOVEL")
    stage.spin_until(lambda: drawn, "the debug image")
    assert stamp_of(drawn[0]) == stamp_ns
    assert (drawn[0].width, drawn[0].height, len(drawn[0].data)) == (64, 48, 64 * 48 * 3)
    stage.show(time.time_ns())
    assert len(stage.states) == 1
    assert stage.verdict().level == levels().OK


def test_silence_of_the_camera_is_stale_and_nothing_is_repeated(theatre: Callable[..., Theatre]) -> None:
    stage = theatre("stale_after:=0.2")
    stage.verdict()  # at activation
    verdict = stage.verdict()
    assert verdict.level == levels().STALE and "camera/image_raw" in verdict.message
    assert "nobody publishes" not in verdict.message
    stage.show(time.time_ns())
    assert stage.verdict().level in (levels().OK, levels().STALE)
    assert stage.verdict().level == levels().STALE
    assert len(stage.states) == len(stage.heard["/estimator/pose"]) == 1


def test_a_topic_without_a_publisher_is_said(theatre: Callable[..., Theatre], monkeypatch: pytest.MonkeyPatch) -> None:
    stage = theatre("stale_after:=0.2")
    said: list[str] = []
    monkeypatch.setattr(stage.node.get_logger(), "warning", lambda text, **_: said.append(text))
    stage.verdict()
    assert said == []
    stage.other.destroy_publisher(stage.camera)
    stage.spin_until(lambda: said, "the warning")
    assert "nobody publishes /camera/image_raw" in said[0]
    verdict = stage.verdict()
    assert verdict.level == levels().STALE and verdict.message.endswith("nobody publishes that topic")


def test_what_runs_is_told_to_those_who_come_late(theatre: Callable[..., Theatre], tiny_model: Path) -> None:
    from rclpy.qos import QoSDurabilityPolicy, QoSProfile
    from std_msgs.msg import String

    stage = theatre()
    told: list[str] = []
    latched = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
    stage.other.create_subscription(String, "/estimator/model_info", lambda m: told.append(m.data), latched)
    stage.spin_until(lambda: told, "the model's description")
    content = json.loads(told[0])
    assert content["sha256"] == file_sha256(tiny_model / "model.onnx")
    assert content["execution_providers"] == list(Encoder(tiny_model).providers)
    assert content["joint_names"] == list(ROBOT.joint_names)


def test_only_the_newest_frame_is_kept(theatre: Callable[..., Theatre], monkeypatch: pytest.MonkeyPatch) -> None:
    stage = theatre()
    gate = Gate(stage.node._encoder, monkeypatch)
    start_ns = time.time_ns() - SECOND
    stage.post(stage.message(start_ns, familiar(0)))
    assert gate.reached.wait(DEADLINE_S)
    for number in range(1, 6):
        stage.post(stage.message(start_ns + number * FRAME_NS, familiar(number)))
    gate.opened.set()
    stage.settle()
    assert [stamp_of(state) for state in stage.states] == [start_ns, start_ns + 5 * FRAME_NS]
    counters = stage.counters
    assert (counters["received"], counters["published"], counters["skipped"]) == (6, 2, 4)


def test_deactivation_waits_for_the_worker_and_activation_begins_anew(
    theatre: Callable[..., Theatre], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = theatre()
    with monkeypatch.context() as patch:
        gate = Gate(stage.node._encoder, patch)
        stage.post(stage.message(time.time_ns(), familiar(0)))
        assert gate.reached.wait(DEADLINE_S)
        threading.Timer(0.1, gate.opened.set).start()
        stage.node.trigger_deactivate()
    stage.settle()
    assert stage.counters["published"] == 1
    assert "estimator" not in [thread.name for thread in threading.enumerate()]
    stage.node.trigger_activate()
    stage.wait_for_listener()
    for heard in stage.heard.values():
        heard.clear()
    stage.sent = 0
    stage.show(time.time_ns())
    assert stage.counters["published"] == 1


def test_destruction_waits_for_the_worker(theatre: Callable[..., Theatre], monkeypatch: pytest.MonkeyPatch) -> None:
    stage = theatre()
    gate = Gate(stage.node._encoder, monkeypatch)
    stage.post(stage.message(time.time_ns(), familiar(0)))
    assert gate.reached.wait(DEADLINE_S)
    threading.Timer(0.1, gate.opened.set).start()
    stage.node.destroy_node()
    assert stage.counters == {**dict.fromkeys(stage.counters, 0), "received": 1, "published": 1}


def test_an_activation_that_fails_leaves_nothing_behind(rclpy: Any, tiny_model: Path) -> None:
    stage = Theatre(tiny_model, "camera_info_topic:='no topic'")
    try:
        assert not stage.start()
        assert "estimator" not in [thread.name for thread in threading.enumerate()]
        assert stage.camera.get_subscription_count() == 0
    finally:
        stage.close()


def test_what_cannot_be_loaded_ends_the_process_with_one_line(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_rclpy():
        pytest.skip("neither rclpy nor cyclonedds is installed")
    isolate(monkeypatch)
    stick_robot(tmp_path)
    good = {"model": str(tiny_model), "robot": "arm6"}
    cases = {
        "no such model; make one with `ropes export`": {**good, "model": str(tmp_path / "none")},
        "no model of robot 'stick' comes with ropes_ros": {"model": "", "robot": str(tmp_path / "robot.yaml")},
        "was trained for robot 'arm6', not 'stick'": {**good, "robot": str(tmp_path / "robot.yaml")},
        "a GPU was required": {**good, "require_gpu": True},
        "'no topic'": {**good, "image_topic": "no topic"},
        "image_topic is empty": {**good, "image_topic": ""},
    }
    if "CUDAExecutionProvider" in Encoder(tiny_model).providers:
        del cases["a GPU was required"]
    running = [
        (
            complaint,
            subprocess.Popen(
                node_command("estimator", parameters), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            ),
        )
        for complaint, parameters in cases.items()
    ]
    for complaint, process in running:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 1
        (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
        assert complaint in said and "Traceback" not in said
        assert complaint in line or "see its log" in line or "its log above" in line


def test_a_reloaded_model_takes_over_and_a_broken_one_does_not(
    theatre: Callable[..., Theatre], tiny_model: Path, tmp_path: Path
) -> None:
    import json
    import shutil

    from rclpy.qos import QoSDurabilityPolicy, QoSProfile
    from std_msgs.msg import String

    folder = tmp_path / "model"
    shutil.copytree(tiny_model if tiny_model.is_dir() else tiny_model.parent, folder)
    stage = theatre(f"model:={folder}")
    infos: list[Any] = []
    latched = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
    stage.other.create_subscription(String, "/estimator/model_info", infos.append, latched)
    stage.show(10 * SECOND)
    before = stage.node._encoder
    answer = stage.trigger("/estimator/reload")
    assert answer.success and str(folder) in answer.message
    stage.spin_until(lambda: len(infos) > 1, "the model is announced anew")
    assert json.loads(infos[-1].data)["sha256"] == before.sha256
    after = stage.node._encoder
    assert after is not before
    stage.show(10 * SECOND + FRAME_NS)
    assert stage.counters["published"] == 2
    (folder / "model.onnx").write_bytes(b"no model")
    answer = stage.trigger("/estimator/reload")
    assert not answer.success and "model.onnx" in answer.message
    assert stage.node._encoder is after
    stage.show(10 * SECOND + 2 * FRAME_NS)
    assert stage.counters["published"] == 3


def test_reliability_of_the_camera_can_be_set_by_parameter(theatre: Callable[..., Theatre]) -> None:
    from rclpy.qos import QoSReliabilityPolicy

    name = "qos_overrides./camera/image_raw.subscription.reliability"
    for given, wanted in ((None, QoSReliabilityPolicy.BEST_EFFORT), ("reliable", QoSReliabilityPolicy.RELIABLE)):
        stage = theatre(*([] if given is None else [f"{name}:={given}"]))
        (info,) = stage.other.get_subscriptions_info_by_topic("/camera/image_raw")
        assert info.qos_profile.reliability == wanted
        assert stage.node.describe_parameter(name).read_only
        stage.close()
        import rclpy

        rclpy.try_shutdown()

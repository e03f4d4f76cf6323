"""One fault after another, on a running estimator: the state it ends in, that no wrong pose goes out, and recovery.

Frames come in real time from the simulated arm in motion, the model is the shipped one. How long things take is
asserted in test_estimation.py, where time is made; here deadlines only end what hangs.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from staging import DEADLINE_S
from staging import rclpy as rclpy  # fixture
from synthetic import stick_robot
from theatre import ROBOT, SECOND, Theatre, stamp_of

from ropes_ros import estimation
from ropes_ros.encoder import Estimate, shipped_model
from ropes_ros.estimation import OUTCOMES

pytest.importorskip("mujoco")
PERIOD_NS = SECOND // 30
WRONG_RAD = np.radians(25.0)
"""An angle that is further off than this is wrong; the shipped model errs by 2 to 3 degrees in the mean."""


class Take:
    """Pictures of the arm in smooth motion with its true angles, a second of them, there and back."""

    def __init__(self) -> None:
        from ropes_ros.sim.arm import SimArm

        arm = SimArm(ROBOT)
        phase = np.linspace(0.0, 2.0 * np.pi, 60, endpoint=False)[:, None]
        self.truth = ROBOT.home + 0.4 * ROBOT.half_range * np.sin(phase + np.arange(6))
        pictures = []
        for position in self.truth:
            arm.set_positions(position)
            pictures.append(arm.render())
        arm.close()
        self.pictures = np.stack(pictures)


@pytest.fixture(scope="module")
def take() -> Take:
    return Take()


class Scene(Theatre):
    """A camera that films the take in real time, and a listener that keeps the states."""

    def __init__(self, take: Take, model: Path, *parameters: str) -> None:
        super().__init__(model, *parameters)
        from diagnostic_msgs.msg import DiagnosticStatus
        from rclpy.qos import QoSDurabilityPolicy, QoSProfile

        self.take = take
        self.number = 0
        self.truth: dict[int, NDArray[np.float64]] = {}
        self.states_said: list[str] = []
        latched = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
        self.other.create_subscription(
            DiagnosticStatus, "/estimator/status", lambda m: self.states_said.append(m.message), latched
        )

    def film(
        self,
        seconds: float,
        *,
        change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] = lambda pixels: pixels,
        shift_ns: Callable[[int], int] = lambda number: 0,
        alter: Callable[[Any], None] = lambda message: None,
        twice: bool = False,
        still: bool = False,
    ) -> None:
        """Send frames at 30 Hz: pictures changed, stamps shifted, messages altered, sent twice, or one and the same."""
        pixels = None
        for _ in range(round(seconds * 30)):
            index = self.number % len(self.take.pictures)
            if pixels is None or not still:
                pixels = change(self.take.pictures[index].copy())
                pixels[0, self.number % 300] = self.number % 251  # as a sensor's noise does
            stamp_ns = time.time_ns() + shift_ns(self.number)
            message = self.message(stamp_ns, pixels)
            alter(message)
            self.truth[stamp_ns] = self.take.truth[index]
            self.number += 1
            for _ in range(1 + twice):
                self.camera.publish(message)
                self.sent += 1
                self.spin_for(PERIOD_NS / SECOND / (1 + twice))
        self.settle()

    def settle(self) -> None:
        """Wait until all frames that arrived are accounted for."""

        def settled() -> bool:
            counters = self.counters
            through = sum(counters[name] for name in OUTCOMES) == counters["received"]
            return through and len(self.states) >= counters["published"] + counters["predicted"]

        self.spin_for(0.1)  # for what is on its way
        self.spin_until(settled, f"all frames are accounted for: {self.counters}")

    def until(self, state: str, film: bool = False) -> str:
        """Wait until a state is said, filming on where that is needed for it; its text."""
        deadline = time.monotonic() + DEADLINE_S
        while not self.states_said or not self.states_said[-1].startswith(state):
            assert time.monotonic() < deadline, f"{state} is not said, but {self.states_said[-3:]}"
            if film:
                self.film(0.2)
            else:
                self.spin_for(0.05)
        return self.states_said[-1]

    def check(self, since: int = 0) -> int:
        """How many estimates were published since; each must be near the truth at its stamp, in order of stamps."""
        stamps = [stamp_of(state) for state in self.states[since:]]
        for state, stamp_ns in zip(self.states[since:], stamps, strict=True):
            error = np.abs(np.asarray(state.position) - self.truth[stamp_ns])
            assert error.max() < WRONG_RAD, f"an estimate that is {np.degrees(error.max()):.0f} deg off was published"
        return len(stamps)

    def recover(self) -> None:
        """Without a restart, estimates are right again and the state is OK."""
        before = len(self.states)
        self.film(0.5)
        self.until("OK", film=True)
        assert self.check(before) > 5


@pytest.fixture
def scene(rclpy: Any, take: Take, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Scene]]:
    """Starts an estimator whose troubles are forgotten sooner, so that the tests end sooner."""
    monkeypatch.setattr(estimation, "RECENT_S", 0.7)
    made: list[Scene] = []

    def start(*parameters: str, model: Path | None = None) -> Scene:
        made.append(Scene(take, model or shipped_model("arm6"), *parameters))
        assert made[-1].start()
        made[-1].wait_for_listener()
        made[-1].film(0.4)
        assert made[-1].until("OK", film=True).startswith("OK") and made[-1].check() > 5
        return made[-1]

    yield start
    for each in made:
        each.close()


def silent(scene: Scene, film: Callable[[], None], state: str) -> str:
    """Film so that nothing may be published; the state that this ends in."""
    before = len(scene.states)
    film()
    assert len(scene.states) == before, "nothing is published"
    return scene.until(state)


def test_fault_camera_stops(scene: Callable[..., Scene]) -> None:
    stage = scene()
    assert "no frame on camera/image_raw" in silent(stage, lambda: stage.spin_for(0.8), "STALE")
    stage.recover()


def test_fault_camera_freezes(scene: Callable[..., Scene]) -> None:
    stage = scene()
    stage.film(0.05)
    before = len(stage.states)
    stage.film(1.0, still=True)
    assert len(stage.states) - before <= 1, "the first of the equal pictures"
    assert stage.check() and "FROZEN" in stage.until("STALE")
    assert stage.counters["identical"] > 20
    stage.recover()


def test_fault_camera_repeats(scene: Callable[..., Scene]) -> None:
    stage = scene()
    stage.film(1.0, twice=True)
    stamps = [stamp_of(state) for state in stage.states]
    assert (np.diff(stamps) > 0).all() and stage.check()
    assert stage.counters["out_of_order"] > 15
    assert "stamps do not increase" in stage.until("DEGRADED")
    stage.recover()


@pytest.mark.parametrize("late_frames", ["drop", "replay"])
def test_fault_camera_reorders(scene: Callable[..., Scene], late_frames: str) -> None:
    stage = scene(f"late_frames:={late_frames}")
    before = len(stage.states)
    stage.film(1.0, shift_ns=lambda number: -2 * PERIOD_NS if number % 5 == 0 else 0)
    stamps = [stamp_of(state) for state in stage.states]
    assert (np.diff(stamps) > 0).all() and stage.check(before) > 15
    outcome = {"drop": "out_of_order", "replay": "replayed"}[late_frames]
    assert stage.counters[outcome] >= 4
    if late_frames == "drop":
        stage.until("DEGRADED")
    stage.recover()


def test_fault_camera_delays(scene: Callable[..., Scene]) -> None:
    stage = scene()
    stage.film(1.3, shift_ns=lambda number: -SECOND * 3 // 2)  # from a pipeline that has filled up
    assert "behind this node's clock" in stage.until("DEGRADED")
    assert stage.check(), "estimates keep the stamps of their images"
    stage.recover()


def test_fault_time_jumps_back(scene: Callable[..., Scene]) -> None:
    stage = scene()
    before = len(stage.states)
    stage.film(0.7, shift_ns=lambda number: -60 * SECOND)
    assert stage.counters["clock_jumps"] == 1 and stage.check(before) > 5
    assert "JUMPED" in stage.until("DEGRADED") or "OLD" in stage.states_said[-1]
    stage.recover()
    assert stage.counters["clock_jumps"] == 2


def test_fault_time_jumps_forward(scene: Callable[..., Scene]) -> None:
    stage = scene()
    said = silent(stage, lambda: stage.film(0.8, shift_ns=lambda number: 60 * SECOND), "STALE")
    assert "ahead of this node's clock" in said and stage.counters["from_future"] > 15
    stage.recover()


def test_fault_simulated_time_starts_again(scene: Callable[..., Scene]) -> None:
    """A simulator that is reset, or a bag that loops, takes clock and stamps along."""
    from rosgraph_msgs.msg import Clock as ClockMessage

    stage = Scene(Take(), shipped_model("arm6"), "use_sim_time:=true")
    clock = stage.other.create_publisher(ClockMessage, "/clock", 10)
    try:
        assert stage.start()
        stage.wait_for_listener()
        for begin_ns in (1000 * SECOND, 5 * SECOND):
            for _ in range(15):
                begin_ns += PERIOD_NS
                message = ClockMessage()
                message.clock.sec, message.clock.nanosec = divmod(begin_ns, SECOND)
                clock.publish(message)
                stage.spin_for(0.01)
                stage.film(1 / 30, shift_ns=lambda number, now=begin_ns: now - time.time_ns())  # type: ignore[misc]
        stamps = [stamp_of(state) for state in stage.states]
        assert stage.counters["clock_jumps"] == 1 and min(stamps) < 10 * SECOND < max(stamps)
    finally:
        stage.close()


def test_fault_picture_black(scene: Callable[..., Scene]) -> None:
    stage = scene()
    silent(stage, lambda: stage.film(0.5, change=np.zeros_like), "NOVEL")
    stage.recover()


def test_fault_picture_white(scene: Callable[..., Scene]) -> None:
    stage = scene()
    silent(stage, lambda: stage.film(0.5, change=lambda pixels: np.full_like(pixels, 255)), "NOVEL")
    stage.recover()


def test_fault_picture_covered(scene: Callable[..., Scene]) -> None:
    """A hand before the lens leaves a fifth of the picture."""
    stage = scene()
    rng = np.random.default_rng(0)

    def cover(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        wide = pixels.shape[1] * 4 // 5
        pixels[:, :wide] = rng.normal((60, 45, 38), 3.0, (len(pixels), wide, 3)).clip(0, 255).astype(np.uint8)
        return pixels

    silent(stage, lambda: stage.film(0.5, change=cover), "NOVEL")
    stage.recover()


def test_fault_picture_not_numbers(scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch) -> None:
    """Floating point pictures that hold NaN are refused, and so is what a model makes NaN of."""
    stage = scene()

    def alter(message: Any) -> None:
        message.encoding, message.step = "32FC3", 12 * message.width
        data = np.full(3 * message.width * message.height, np.nan, dtype=np.float32)
        data[0] = stage.number
        message.data = data.tobytes()

    assert "32FC3" in silent(stage, lambda: stage.film(0.8, alter=alter), "STALE")
    stage.recover()
    run = stage.node._encoder.run

    def nan(images: NDArray[np.uint8]) -> Estimate:
        return run(images)._replace(position=np.full((1, 6), np.nan, dtype=np.float32))

    with monkeypatch.context() as patch:
        patch.setattr(stage.node._encoder, "run", nan)
        assert "not a number" in silent(stage, lambda: stage.film(0.8), "STALE")
    stage.recover()


def test_fault_picture_wrong_size(scene: Callable[..., Scene]) -> None:
    stage = scene()
    film = lambda: stage.film(0.8, change=lambda pixels: np.ascontiguousarray(pixels[::2, ::2]))  # noqa: E731
    assert "images are 160x120, the model takes 320x240" in silent(stage, film, "STALE")
    assert stage.counters["rejected"] > 15
    stage.recover()


def test_fault_picture_wrong_encoding(scene: Callable[..., Scene]) -> None:
    stage = scene()

    def alter(message: Any) -> None:
        message.encoding = "hsv8"

    assert "'hsv8'" in silent(stage, lambda: stage.film(0.8, alter=alter), "STALE")
    stage.recover()


def test_fault_model_corrupt(scene: Callable[..., Scene], tmp_path: Path) -> None:
    """A file that was damaged is refused at the start and at a reload, and the model in use goes on."""
    folder = tmp_path / "model"
    shutil.copytree(shipped_model("arm6"), folder)
    stage = scene(model=folder)
    content = bytearray((folder / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.onnx").write_bytes(content)
    answer = stage.trigger("/estimator/reload")
    assert not answer.success and "its SHA-256 is not the one in card.md" in answer.message
    stage.recover()
    stage.close()
    import rclpy

    rclpy.try_shutdown()
    anew = Scene(stage.take, folder)
    try:
        assert not anew.start()
    finally:
        anew.close()


def test_fault_model_of_another_robot(rclpy: Any, take: Take, tmp_path: Path) -> None:
    stick_robot(tmp_path)
    stage = Scene(take, shipped_model("arm6"), f"robot:={tmp_path / 'robot.yaml'}")
    try:
        assert not stage.start()
        stage.executor.add_node(stage.node)
        assert "not active" in stage.until("STOPPED")
    finally:
        stage.close()


def test_fault_provider_missing(scene: Callable[..., Scene], take: Take) -> None:
    """The CPU takes over and is named as what runs; where a GPU is demanded the node does not start."""
    stage = scene("execution_providers:=[cuda]")
    providers = list(stage.node._encoder.providers)
    if providers[0] != "CPUExecutionProvider":
        pytest.skip("there is a GPU")
    verdict = stage.verdict()
    assert verdict.values["execution_provider"] == "CPUExecutionProvider"
    stage.close()
    import rclpy

    rclpy.try_shutdown()
    demanding = Scene(take, shipped_model("arm6"), "execution_providers:=[cuda]", "require_gpu:=true")
    try:
        assert not demanding.start()
    finally:
        demanding.close()


SLOW = """
import importlib.util, sys
if importlib.util.find_spec("rclpy") is None:
    from ropes_ros import standalone
    standalone.install()
import rclpy
from geometry_msgs.msg import PoseWithCovarianceStamped
from sensor_msgs.msg import JointState
rclpy.init()
node = rclpy.create_node("slow")
node.create_subscription(JointState, "/estimator/joint_states", lambda m: None, 10)
node.create_subscription(PoseWithCovarianceStamped, "/estimator/pose", lambda m: None, 10)
print("ready", flush=True)
rclpy.spin(node)
"""


def test_fault_subscriber_slow(scene: Callable[..., Scene]) -> None:
    """A reliable subscriber that takes nothing for seconds holds nobody up."""
    stage = scene()
    with subprocess.Popen([sys.executable, "-c", SLOW], stdout=subprocess.PIPE, env=os.environ.copy()) as slow:
        try:
            assert slow.stdout is not None and slow.stdout.readline().strip() == b"ready"
            stage.spin_until(
                lambda: stage.other.count_subscribers("/estimator/joint_states") == 2, "the slow one is there"
            )
            slow.send_signal(signal.SIGSTOP)
            before, counters = len(stage.states), stage.counters
            stage.film(3.0)
            published = stage.counters["published"] - counters["published"]
            assert stage.check(before) == published > 60
            assert published + stage.counters["skipped"] - counters["skipped"] == (
                stage.counters["received"] - counters["received"]
            )
        finally:
            slow.send_signal(signal.SIGCONT)
            slow.kill()
    stage.recover()

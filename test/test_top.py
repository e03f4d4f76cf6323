"""`ropes top`: an estimator that runs, one that is silent, one that goes away, and none at all."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from staging import Stage, has_rclpy, isolate
from staging import rclpy as rclpy  # fixture
from synthetic import familiar, unfamiliar

from ropes_ros.cli.top import OLD_S, Watch

TOP = [sys.executable, "-c", "import sys; from ropes_ros.cli import main; sys.exit(main())", "top"]


def text_of(watch: Watch) -> str:
    console = Console(width=150, highlight=False, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(watch.screen())
    return console.export_text()


class Filmed(Stage):
    """An active estimator that is shown pictures."""

    def __init__(self, model: Path) -> None:
        from sensor_msgs.msg import Image, JointState

        from ropes_ros.nodes.estimator import Estimator

        super().__init__(Estimator, f"model:={model}")
        assert self.start()
        self.camera = self.other.create_publisher(Image, "/camera/image_raw", 1)
        self.residual = self.other.create_publisher(JointState, "/estimator/residual", 5)
        self.deviations = self.other.create_publisher(JointState, "/estimator/joint_std", 5)
        self.spin_until(lambda: self.camera.get_subscription_count() > 0, "it listens to the camera")

    def show(self, picture: Any) -> None:
        from sensor_msgs.msg import Image

        height, width, _ = picture.shape
        image = Image(height=height, width=width, encoding="rgb8", step=3 * width)
        image.header.stamp = self.other.get_clock().now().to_msg()
        image.data = picture.tobytes()
        self.camera.publish(image)


@pytest.fixture
def stage(rclpy: Any, tiny_model: Path) -> Iterator[Filmed]:
    stage = Filmed(tiny_model)
    yield stage
    stage.close()


def test_one_screen_of_a_running_estimator(stage: Filmed) -> None:
    """The command in a process of its own, while pictures are shown thirty times a second."""
    done = threading.Event()

    def work() -> None:
        number = 0
        while not done.is_set():
            number += 1
            stage.show(familiar(number % 8))
            end = time.monotonic() + 0.03
            while time.monotonic() < end:
                stage.executor.spin_once(timeout_sec=0.005)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        result = subprocess.run(
            [*TOP, "--once", "--timeout", "30"], capture_output=True, text=True, timeout=60,
            env={**os.environ, "COLUMNS": "150"}, check=False,
        )  # fmt: skip
    finally:
        done.set()
        worker.join()
    assert result.returncode == 0, result.stderr
    screen = result.stdout
    assert re.search(r"^/estimator +OK", screen)
    rate = re.search(r"rate +([\d.]+) estimates/s", screen)
    assert rate and float(rate[1]) > 1.0
    assert re.search(r"latency p50 / p99 +\d+\.\d+ / \d+\.\d+ ms", screen)
    assert re.search(r"runs on +CPUExecutionProvider", screen)
    assert re.search(r"received \d+ \(\+[\d.]+/s\)", screen), "counters move"
    row = re.search(r"joint3 +│ +(-?[\d.]+) │ +([\d.]+) │ +(-?[\d.]+) │", screen)
    assert row is not None
    assert re.search(r"tip +x -?\d+ \+- \d+ .* mm in base_link", screen)
    assert "residual" not in screen


def test_the_view_follows_the_estimator(stage: Filmed) -> None:
    """Silence, the filter's deviations, residuals, and that the node went away."""
    from sensor_msgs.msg import JointState

    watch = Watch(stage.other, "estimator/")
    assert "waiting for /estimator" in text_of(watch)
    stage.spin_until(lambda: watch.heard, "its status arrives")

    def shown(picture: Any, wanted: str) -> None:
        def there() -> bool:
            stage.show(picture)
            return wanted in text_of(watch)

        stage.spin_until(there, wanted)

    shown(unfamiliar(1), "NOVEL  the image is unlike")
    shown(familiar(1), "joint6")
    said = JointState(name=["joint2", "joint1"], position=[np.radians(12.5), np.radians(34.5)], velocity=[0.0, 0.0])
    stage.spin_until(lambda: stage.deviations.get_subscription_count() > 0, "deviations are listened to")
    stage.deviations.publish(said)
    stage.spin_until(lambda: re.search(r"joint1 +│ +-?[\d.]+ │ +34\.5 │", text_of(watch)), "deviations are shown")
    assert re.search(r"joint2 +│ +-?[\d.]+ │ +12\.5 │", text_of(watch))
    stage.spin_until(lambda: stage.residual.get_subscription_count() > 0, "residuals are listened to")
    stage.residual.publish(JointState(name=["joint2", "joint1"], position=[np.radians(2.5), np.radians(-1.5)]))
    stage.spin_until(lambda: "residual" in text_of(watch), "residuals are shown")
    rows = [line for line in text_of(watch).splitlines() if "joint1" in line or "joint2" in line]
    assert rows[0].rstrip(" │").endswith("-1.5 │ deg, deg/s")
    assert rows[1].rstrip(" │").endswith("2.5 │ deg, deg/s")
    time.sleep(OLD_S)
    assert re.search(r"rate +[\d.]+ estimates/s, the last \d+ s ago", text_of(watch)), "what is shown is old"
    shown(familiar(2), "joint6")
    stage.spin_until(lambda: "s ago" not in text_of(watch), "a fresh estimate")
    assert "residual" not in text_of(watch), "the robot's encoders are silent"
    stage.executor.remove_node(stage.node)
    stage.node.destroy_node()
    stage.spin_until(lambda: "GONE  it no longer publishes" in text_of(watch), "it is told to be gone")
    stage.executor.add_node(stage.node)


def test_without_an_estimator_it_ends_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_rclpy():
        pytest.skip("neither rclpy nor cyclonedds is installed")
    isolate(monkeypatch)
    command = [*TOP, "--once", "--timeout", "0.5"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert result.stdout == ""
    assert re.fullmatch(r"error: /estimator: nothing was heard for 0\.5 s; start the estimator.*\n", result.stderr)

"""An estimator on a stage: a camera that sends it frames and listens to all that it says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from staging import DEADLINE_S, Stage
from synthetic import familiar

from ropes_ros.encoder import Encoder, Estimate
from ropes_ros.estimation import OUTCOMES
from ropes_ros.robot import load_robot

ROBOT = load_robot("arm6")
SECOND = 10**9
FRAME_NS = 33_000_000
STATED = ("/estimator/joint_states", "/estimator/raw_joint_states", "/estimator/joint_std", "/estimator/pose")
"""Topics on which every published frame is."""


class Theatre(Stage):
    """An active estimator and a camera that sends it frames and listens to all that it says."""

    def __init__(self, model: Path, *parameters: str) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from geometry_msgs.msg import PoseWithCovarianceStamped, TwistWithCovarianceStamped
        from sensor_msgs.msg import CompressedImage, Image, JointState
        from tf2_msgs.msg import TFMessage

        from ropes_ros.nodes.estimator import Estimator

        super().__init__(Estimator, f"model:={model}", *parameters)
        self.heard: dict[str, list[Any]] = {}
        for kind, topic in (
            (JointState, "/estimator/joint_states"),
            (JointState, "/estimator/raw_joint_states"),
            (JointState, "/estimator/joint_std"),
            (JointState, "/estimator/residual"),
            (PoseWithCovarianceStamped, "/estimator/pose"),
            (TwistWithCovarianceStamped, "/estimator/twist"),
            (PoseWithCovarianceStamped, "/estimator/camera_pose"),
            (TFMessage, "/tf"),
            (DiagnosticArray, "/diagnostics"),
        ):
            self.heard[topic] = []
            self.other.create_subscription(kind, topic, self.heard[topic].append, 50)
        self.compressed = "compressed:=true" in parameters
        kind = CompressedImage if self.compressed else Image
        self.camera = self.other.create_publisher(kind, "/camera/image_raw", 1)
        self.sent = 0

    def wait_for_listener(self) -> None:
        node = self.node
        watched = (node._states, node._raw_states, node._deviations, node._poses, node._twists, node._camera_poses)
        self.spin_until(
            lambda: all(each.get_subscription_count() > 0 for each in (self.camera, *watched)), "all are connected"
        )

    @property
    def states(self) -> list[Any]:
        return self.heard["/estimator/joint_states"]

    @property
    def counters(self) -> dict[str, int]:
        return asdict(self.node._estimation.counters)

    def message(self, stamp_ns: int, pixels: NDArray[np.uint8]) -> Any:
        from sensor_msgs.msg import CompressedImage, Image

        if self.compressed:
            png = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1]
            message = CompressedImage(format="png", data=png.tobytes())
        else:
            height, width, _ = pixels.shape
            message = Image(height=height, width=width, encoding="rgb8", step=3 * width, data=pixels.tobytes())
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, SECOND)
        message.header.frame_id = "camera"
        return message

    def post(self, message: Any) -> None:
        """Send a message and wait until the node has it."""
        self.camera.publish(message)
        self.sent += 1
        self.spin_until(lambda: self.counters["received"] == self.sent, f"frame {self.sent} is received")

    def show(self, stamp_ns: int, pixels: NDArray[np.uint8] | None = None) -> None:
        """Send a picture, by default a new one, and wait until the node is through with it and all it said is here."""
        self.post(self.message(stamp_ns, self.picture() if pixels is None else pixels))
        self.settle()

    def picture(self) -> NDArray[np.uint8]:
        """A familiar picture that differs from the ones before, as a camera's do."""
        pixels = familiar(0)
        pixels[0, 0] = self.sent % 256
        return pixels

    def settle(self) -> None:
        def settled() -> bool:
            counters = self.counters
            through = sum(counters[name] for name in OUTCOMES) == self.sent
            return through and all(
                len(self.heard[topic]) == counters["published"]
                for topic in STATED
            )

        self.spin_until(settled, f"all frames are accounted for: {self.counters}")

    def verdict(self) -> SimpleNamespace:
        """The next diagnostics: level, message and values."""
        heard = self.heard["/diagnostics"]
        before = len(heard)
        self.spin_until(lambda: len(heard) > before, "diagnostics")
        (status,) = heard[-1].status
        state = next((pair.value for pair in status.values if pair.key == "state"), "")
        assert status.message.startswith(state)
        return SimpleNamespace(
            level=status.level, message=status.message, values={pair.key: pair.value for pair in status.values}
        )


@pytest.fixture
def theatre(rclpy: Any, tiny_model: Path) -> Iterator[Callable[..., Theatre]]:
    """Starts an estimator with parameters NAME:=VALUE."""
    made: list[Theatre] = []

    def start(*parameters: str) -> Theatre:
        made.append(Theatre(tiny_model, *parameters))
        assert made[-1].start()
        made[-1].wait_for_listener()
        return made[-1]

    yield start
    for each in made:
        each.close()
    assert "estimator" not in [thread.name for thread in threading.enumerate()]


class Gate:
    """Stands before an encoder and holds its work up until it is opened."""

    def __init__(self, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()
        run = encoder.run

        def wait(images: NDArray[np.uint8]) -> Estimate:
            self.reached.set()
            assert self.opened.wait(DEADLINE_S)
            return run(images)

        monkeypatch.setattr(encoder, "run", wait)


def stamp_of(message: Any) -> int:
    return int(message.header.stamp.sec) * SECOND + int(message.header.stamp.nanosec)


def levels() -> Any:
    from diagnostic_msgs.msg import DiagnosticStatus

    return DiagnosticStatus

"""The peer: the estimator node as one would write it first, with cv_bridge, OpenCV, numpy and onnxruntime.

Fair means: the same transport, the same network with the same weights, the same answers. Each choice is the usual one:

- a subscription with the usual queue of 10, and all work in its callback;
- the image becomes an array as by cv_bridge's `imgmsg_to_cv2(message, "rgb8")`: a copy of the message's bytes;
- `cv2.resize` with INTER_AREA, which the network was trained with, then float32, /255, NCHW by numpy; float32 for what
  the second look sees;
- onnxruntime with its default options, unless `threads` is set: as many threads as cores, which spin while they wait;
- one `JointState` with the encoder's angles. It filters nothing, and publishes no pose, covariance or diagnostics.

    python -m ropes_ros.standalone ropes_ros.bench.estimator.peer --ros-args -p network:=FILE -p peering:=FILE
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ropes_ros.bench.estimator.models import Peering
from ropes_ros.encoder import OUTPUTS

TOPIC = "/peer/joint_states"


class PlainEncoder:
    """Preprocessing by OpenCV and numpy, then the network.

    Args:
        network: The graph that takes float pictures.
        peering: What it needs to know of them.
        threads: Threads of onnxruntime; 0 leaves all its options at their defaults.
    """

    def __init__(self, network: Path, peering: Peering, threads: int = 0) -> None:
        self.peering = peering
        options = onnxruntime.SessionOptions()
        if threads:
            options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(str(network), options, providers=["CPUExecutionProvider"])

    def run(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        """Position [1, J], std [1, J] and novelty [1] for an image, uint8 [H, W, 3] RGB."""
        left, top, width, height = self.peering.region
        crop = image[top : top + height, left : left + width]
        small = cv2.resize(crop, self.peering.small, interpolation=cv2.INTER_AREA)
        pictures = (_nchw(small), crop[None].astype(np.float32))
        feeds = dict(zip(self.peering.inputs, pictures, strict=False))
        return tuple(self._session.run(list(OUTPUTS), feeds))


def _nchw(picture: Any) -> NDArray[np.float32]:
    """uint8 [h, w, 3] as float32 [1, 3, h, w] in 0..1."""
    scaled = picture.astype(np.float32) / 255.0
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None])


def imgmsg_to_cv2(message: Any) -> NDArray[np.uint8]:
    """A copy of a message's pixels, uint8 [H, W, 3], as cv_bridge makes it where no colours are to be converted."""
    rows = np.ndarray((message.height, message.step), dtype=np.uint8, buffer=message.data)
    return rows[:, : 3 * message.width].reshape(message.height, message.width, 3).copy()


def read_peering(path: Path) -> Peering:
    """What `models.prepare` wrote."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return Peering(**{name: tuple(values) for name, values in content.items()})


def main() -> int:
    """Run the node."""
    import rclpy
    from rclpy.executors import ExternalShutdownException
    from sensor_msgs.msg import Image, JointState

    rclpy.init()
    node = rclpy.create_node("peer")
    defaults = {"network": "", "peering": "", "threads": 0}
    given = {name: node.declare_parameter(name, default).value for name, default in defaults.items()}
    encoder = PlainEncoder(Path(given["network"]), read_peering(Path(given["peering"])), int(given["threads"]))
    publisher = node.create_publisher(JointState, TOPIC, 10)

    def on_image(message: Any) -> None:
        position, _, _ = encoder.run(imgmsg_to_cv2(message))
        state = JointState(name=list(encoder.peering.joint_names), position=position[0].astype(float).tolist())
        state.header.stamp = message.header.stamp
        publisher.publish(state)

    node.create_subscription(Image, "camera/image_raw", on_image, 10)
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""A video of a bag with the estimates drawn on it: what the estimator would have said, frame by frame."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ropes_ros.bags import Bag, open_bag
from ropes_ros.cdr import header_stamp
from ropes_ros.encoder import Encoder
from ropes_ros.errors import BagError, ModelError, RopesError, RuntimeSetupError
from ropes_ros.estimation import Estimation, Settings
from ropes_ros.evaluation import Estimates, read_images
from ropes_ros.overlay import Camera, draw_estimate
from ropes_ros.robot import Robot
from ropes_ros.units import NANOSECONDS
from ropes_ros.viewpoint import StaticFrames, camera_of

CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
"""FourCC by the video's ending."""
_RATE_SAMPLES = 1000
_STATIC_TOPIC = "/tf_static"

Progress = Callable[[int, int], None]
"""Called with (frames done, frames in all)."""


class Filmed(NamedTuple):
    """What a video shows.

    Attributes:
        estimates: Of the model alone, unfiltered, one for each frame of the video.
        rate: Frames a second, the median of the bag's first thousand images.
        out_of_order: Images left out because their stamps do not increase.
        arm: Why the arm is not drawn into the picture; empty where it is.
    """

    estimates: Estimates
    rate: float
    out_of_order: int
    arm: str


def film(
    encoder: Encoder,
    robot: Robot,
    bag_path: Path,
    path: Path,
    *,
    topics: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Filmed:
    """Run model and filter over a bag, as the estimator does, and write what they say as a video.

    One image is in memory at a time. Where the bag holds the camera's calibration and the static transforms that lead
    from the robot's base to the camera, the arm is drawn at the estimate. `joint_states` are not read.

    Args:
        encoder: The model.
        robot: Its robot.
        bag_path: The bag.
        path: Of the video, `.mp4` or `.avi`; written beside its place and moved there.
        topics: Topics of the roles "image" and "camera_info", for bags from elsewhere.
        progress: Told after each frame.

    Raises:
        BagError: No images, or damaged ones.
        ModelError: The model is of another robot, or takes images of another size.
        RopesError: The video's name has an unknown ending, or it cannot be written.
        RuntimeSetupError: OpenCV was built without the codec.
    """
    if encoder.info.joint_names != robot.joint_names:
        raise ModelError(f"{encoder.path}: its joints are not those of robot {robot.name!r}; name its robot")
    if path.suffix not in CODECS:
        raise RopesError(f"{path}: a video's name ends with {' or '.join(CODECS)}; name another file")
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        with open_bag(bag_path, topics=topics) as bag:
            filmed = _write(encoder, robot, bag, path, partial, progress)
        os.replace(partial, path)
    except OSError as error:
        raise RopesError(f"{path}: the video cannot be written ({error.strerror}); name another file") from None
    finally:
        partial.unlink(missing_ok=True)
    return filmed


def _write(
    encoder: Encoder, robot: Robot, bag: Bag, path: Path, partial: Path, progress: Progress | None
) -> Filmed:
    rate = _rate(bag)
    camera, problem = _camera(bag, robot, encoder.info.camera_size)
    total = bag.topics[bag.topic("image")].count
    partial.touch()  # OpenCV would only say that it failed
    writer = cv2.VideoWriter(
        str(partial), cv2.VideoWriter.fourcc(*CODECS[path.suffix]), rate, encoder.info.camera_size
    )
    if not writer.isOpened():
        others = ", ".join(ending for ending in CODECS if ending != path.suffix)
        raise RuntimeSetupError(
            f"{path}: this OpenCV cannot write {CODECS[path.suffix]} video; try {others}, or install an opencv-python "
            "that was built with FFmpeg"
        )
    stamps: list[int] = []
    parts: list[tuple[NDArray[np.float32], ...]] = []
    dropped = 0
    try:
        for number, (stamp_ns, picture, estimate) in enumerate(_drawn(encoder, robot, bag, camera), start=1):
            if picture is None:
                dropped += 1
            else:
                writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
                stamps.append(stamp_ns)
                parts.append(estimate)
            if progress is not None:
                progress(number, total)
    finally:
        writer.release()
    if not partial.stat().st_size:
        raise RopesError(f"{path}: OpenCV wrote nothing; is there room on the disk?")
    position, std, novelty = (np.concatenate(column).astype(np.float64) for column in zip(*parts, strict=True))
    return Filmed(Estimates(np.asarray(stamps, dtype=np.int64), position, std, novelty), rate, dropped, problem)


def _drawn(
    encoder: Encoder, robot: Robot, bag: Bag, camera: Camera | None
) -> Iterator[tuple[int, NDArray[np.uint8] | None, Any]]:
    """Stamp, annotated image and the model's estimate of each image; no image where its stamp does not increase."""
    seconds = 0.0
    estimation = Estimation(robot, encoder, Settings(), steady=lambda: seconds)
    for stamp_ns, image in read_images(bag):
        seconds = stamp_ns / NANOSECONDS
        dropped = estimation.counters.out_of_order
        estimation.heard(False)
        output = estimation.frame(stamp_ns, stamp_ns, b"", _given(image))
        state, reason = estimation.state()
        if estimation.counters.rejected:
            raise BagError(f"{bag.path}: {reason}")
        if estimation.counters.out_of_order > dropped:
            yield stamp_ns, None, None
            continue
        estimate = estimation.last
        assert estimate is not None
        picture = draw_estimate(
            image,
            robot,
            None if output is None else output.tracked.position,
            None if output is None else output.tracked.position_std,
            camera=camera,
            state=state.value,
            reason=f"novelty {float(estimate.novelty[0]):.2f}: {reason}",
            latency_ms=None,
        )
        yield stamp_ns, picture, estimate


def _given(image: NDArray[np.uint8]) -> Callable[[], NDArray[np.uint8]]:
    return lambda: image


def _rate(bag: Bag) -> float:
    """Images a second: the median of the first ones; 1 where there is one image."""
    first = islice(bag.messages([bag.topic("image")]), _RATE_SAMPLES)
    steps = np.diff(np.array([header_stamp(message.data) for message in first], dtype=np.int64))
    rising = steps[steps > 0]
    return NANOSECONDS / float(np.median(rising)) if len(rising) else 1.0


def _camera(bag: Bag, robot: Robot, size: tuple[int, int]) -> tuple[Camera | None, str]:
    """The camera as the bag tells it; None, and why, where it does not."""
    if not bag.has("camera_info"):
        return None, "no camera_info was recorded"
    if _STATIC_TOPIC not in bag.topics:
        return None, f"no {_STATIC_TOPIC} was recorded"
    try:
        topic = bag.topic("camera_info")
        info = bag.deserialize(next(bag.messages([topic])).data, bag.topics[topic].type_name)
        frames = StaticFrames()
        for message in bag.messages([_STATIC_TOPIC]):
            frames.add(bag.deserialize(message.data, bag.topics[_STATIC_TOPIC].type_name).transforms)
        if (info.width, info.height) != size:
            return None, f"camera_info is of {info.width}x{info.height}, the images are {size[0]}x{size[1]}"
        pose = frames.pose(robot.base_link, info.header.frame_id)
        if pose is None:
            return None, f"{_STATIC_TOPIC} does not lead from {robot.base_link} to {info.header.frame_id}"
        return camera_of(info, pose), ""
    except BagError:
        raise
    except RopesError as error:
        return None, str(error)

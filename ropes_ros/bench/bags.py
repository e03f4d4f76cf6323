"""Figures of bags: how fast a recording becomes a dataset, and what a drifting light and a sorted order do to training.

    dataset_figures()   # {"dataset_speed_ratio": ..., ...}: building against reading and decoding alone
    drift_figures()     # {"drift_error_ratio": ..., "sequential_flagged": ..., ...}

Both are measured on bags and recordings that are made here; neither needs a robot.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ropes_ros.bag_images import decode_image
from ropes_ros.bags import TOPICS, BagWriter, open_bag
from ropes_ros.dataset import load_frames
from ropes_ros.foreign_bags import STANDARD
from ropes_ros.importing import regime_cdr, regime_states
from ropes_ros.motion import Trajectory
from ropes_ros.regimes import Schedule, Segment, make_schedule
from ropes_ros.robot import Robot, load_robot
from ropes_ros.units import NANOSECONDS

START_NS = 1_700_000_000 * NANOSECONDS
RATE = 30
SIZE = (640, 480)
NETWORK_SIZE = (88, 80)
ROUNDS = 3
MEMORY_FRAMES = (1500, 6000)
"""Lengths of two bags whose building must take the same memory, in images."""


def dataset_figures(*, frames: int = 2400, folder: Path | None = None) -> dict[str, Any]:
    """How fast images of a bag become a dataset, as a share of the speed of reading and decoding them.

    Reading and decoding one image after the other, and building (hashing, finding the region, decoding, cutting,
    resizing and writing the cache, in as many threads as it takes), take turns on the same bag, which is in the page
    cache, of raw images and of JPEGs. Each turn is a process of its own, since the first large blocks that a process
    takes cost it more than those after. The worse median of the two kinds is the figure.

    Args:
        frames: Images in each bag.
        folder: Where the bags lie meanwhile; some 1 MB an image.

    Returns:
        `dataset_speed_ratio`; per kind images a second of both, and the same ratio by processor time, which more cores
        do not change; `dataset_memory_mb`, the peak private memory of building from bags of `MEMORY_FRAMES` images.
    """
    with tempfile.TemporaryDirectory(dir=folder) as name:
        base = Path(name)
        kinds: dict[str, dict[str, float]] = {}
        for kind in ("raw", "jpeg"):
            bag = base / kind
            write_bag(bag, frames, compressed=kind == "jpeg")
            read, built = [], []
            for _ in range(ROUNDS):
                read.append(_seconds("read_images", bag))
                built.append(_seconds("build_frames", bag, base / "cache"))
                shutil.rmtree(base / "cache")
            ratios = np.array(read) / np.array(built)
            kinds[kind] = {
                "ratio": float(np.median(ratios[:, 0])),
                "cpu_ratio": float(np.median(ratios[:, 1])),
                "read_per_s": frames / float(np.median(read, axis=0)[0]),
                "built_per_s": frames / float(np.median(built, axis=0)[0]),
            }
            shutil.rmtree(bag)
        memory = []
        for count in MEMORY_FRAMES:
            bag = base / f"bag{count}"
            write_bag(bag, count, compressed=True)
            memory.append(_peak_mb(bag, base / "cache"))
            shutil.rmtree(bag)
    return {
        "dataset_speed_ratio": min(figures["ratio"] for figures in kinds.values()),
        "dataset_speed": kinds,
        "dataset_memory_mb": dict(zip(map(str, MEMORY_FRAMES), memory, strict=True)),
    }


def drift_figures(*, folder: Path | None = None, minutes: float = 6.0, epochs: int = 10) -> dict[str, Any]:
    """What light that drifts does to training, with levels spread at random and with levels in order.

    One schedule is simulated twice, in a steady light and in one that grows from start to end from 0.6 to 1.4 of it. A
    first network is trained on each and judged by fresh poses in both lights at random. Then the drifting frames are
    put in the order of the first joint's levels, and looked at by `inspect` and, with the net that learned of them at
    random, by the check for leaks.

    Args:
        folder: Where recordings and checkpoints lie meanwhile.
        minutes: Length of the schedule.
        epochs: Of training.

    Returns:
        `drift_error_ratio`: mean angular error with drift over that without; both errors, deg;
        `sequential_flagged`: whether both `inspect` and the check for leaks tell the ordered recording, and neither the
        randomised one; and each of these four answers.
    """
    from ropes_ros.bench.drifting import measure

    with tempfile.TemporaryDirectory(dir=folder) as name:
        return measure(Path(name), minutes=minutes, epochs=epochs)


def in_order(schedule: Schedule, joint: int = 0) -> tuple[Schedule, NDArray[np.int64]]:
    """A schedule whose stretches of time, one to each segment of a joint, are sorted by that joint's level.

    Returns:
        The new schedule, and for each stretch, in its new order, when it began and ended in the old one and when it
        begins now, int64 [S, 3] in ns.
    """
    own = [segment for segment in schedule.segments if segment.joint == joint]
    edges = [0, *(segment.end_ns for segment in own[:-1]), schedule.duration_ns]
    lead = schedule.settle_ns + schedule.smooth_ns
    segments: list[Segment] = []
    moved: list[tuple[int, int, int]] = []
    at = 0
    for number in sorted(range(len(own)), key=lambda number: schedule.levels.ids.index(own[number].level)):
        begin, end = edges[number], edges[number + 1]
        for segment in schedule.segments:
            first, last = max(segment.start_ns, begin), min(segment.end_ns, end)
            if last - first > 2 * lead:
                shift = at - begin
                segments.append(
                    replace(segment, start_ns=first + shift + lead, end_ns=last + shift)
                )
        moved.append((begin, end, at))
        at += end - begin
    segments.sort(key=lambda segment: (segment.start_ns, segment.joint))
    return replace(schedule, segments=tuple(segments)), np.array(moved, dtype=np.int64)


def source_times(elapsed_ns: NDArray[np.int64], moved: NDArray[np.int64]) -> NDArray[np.int64]:
    """When in the old schedule instants of the ordered one were, int64 [N] in ns; `moved` is as `in_order` gives it."""
    stretch = np.clip(np.searchsorted(moved[:, 2], elapsed_ns, side="right") - 1, 0, len(moved) - 1)
    return np.asarray(elapsed_ns - moved[stretch, 2] + moved[stretch, 0])


def write_bag(path: Path, frames: int, *, compressed: bool, robot: Robot | None = None) -> None:
    """An intervention bag of drawn pictures, for measurements of speed.

    Args:
        path: The bag.
        frames: Number of images, 30 a second, 640x480.
        compressed: As JPEG, else rgb8.
        robot: Whose schedule is commanded; the demo's by default.
    """
    robot = robot or load_robot("arm6")
    schedule = make_schedule(robot, duration_s=max(60.0, frames / RATE), seed=0)
    type_name = f"sensor_msgs/msg/{'CompressedImage' if compressed else 'Image'}"
    with BagWriter(
        path,
        robot=robot.name,
        schedule_yaml=schedule.to_yaml(),
        schedule_hash=schedule.hash,
        compression="lz4",
    ) as writer:
        writer.add_topic(TOPICS["image"], type_name)
        writer.add_topic(TOPICS["regime"], "diagnostic_msgs/msg/DiagnosticArray")
        regimes = list(regime_states(schedule, START_NS))
        for number, picture in enumerate(_pictures(robot, schedule, frames)):
            stamp_ns = START_NS + number * NANOSECONDS // RATE
            while regimes and regimes[0].stamp_ns <= stamp_ns:
                state = regimes.pop(0)
                writer.write(TOPICS["regime"], regime_cdr(state, schedule.joint_names), state.stamp_ns)
            writer.write(TOPICS["image"], image_cdr(picture, stamp_ns, compressed=compressed), stamp_ns)


def _pictures(robot: Robot, schedule: Schedule, frames: int) -> Iterator[NDArray[np.uint8]]:
    """A stick for each joint before a textured wall, uint8 [480, 640, 3]."""
    rng = np.random.default_rng(0)
    wall = cv2.resize(rng.integers(60, 180, (60, 80, 3)).astype(np.uint8), SIZE, interpolation=cv2.INTER_LINEAR)
    noise = [rng.integers(0, 6, wall.shape).astype(np.uint8) for _ in range(4)]
    elapsed = np.arange(frames, dtype=np.int64) * NANOSECONDS // RATE
    positions = Trajectory(robot, schedule).positions_at(elapsed)
    for number, position in enumerate(positions):
        picture = wall + noise[number % 4]
        point, heading = np.array([320.0, 300.0]), -1.57
        for angle in position:
            heading += 0.6 * float(angle)
            end = point + 70.0 * np.array([np.cos(heading), np.sin(heading)])
            cv2.line(picture, point.astype(int).tolist(), end.astype(int).tolist(), (240, 200, 30), 14)
            point = end
        yield np.asarray(picture, dtype=np.uint8)


def image_cdr(picture: NDArray[np.uint8], stamp_ns: int, *, compressed: bool) -> bytes:
    """A picture, uint8 [H, W, 3] RGB, as a serialised image message."""
    types: Any = STANDARD.types
    type_name = f"sensor_msgs/msg/{'CompressedImage' if compressed else 'Image'}"
    stamp = types["builtin_interfaces/msg/Time"](sec=stamp_ns // NANOSECONDS, nanosec=stamp_ns % NANOSECONDS)
    header = types["std_msgs/msg/Header"](stamp=stamp, frame_id="camera")
    if compressed:
        data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].reshape(-1)
        message = types[type_name](header=header, format="jpeg", data=data)
    else:
        height, width = picture.shape[:2]
        message = types[type_name](
            header=header,
            height=height,
            width=width,
            encoding="rgb8",
            is_bigendian=0,
            step=3 * width,
            data=picture.reshape(-1),
        )
    return bytes(STANDARD.serialize_cdr(message, type_name))


def read_images(path: Path) -> None:
    """Read and decode the images of a bag, one after the other, and keep nothing."""
    with open_bag(path) as bag:
        topic = bag.topic("image")
        compressed = bag.topics[topic].type_name.endswith("CompressedImage")
        for message in bag.messages([topic]):
            decode_image(message.data, compressed, topic)


def build_frames(path: Path, cache: Path) -> None:
    """Build the frames of a bag as for training."""
    load_frames(path, size=NETWORK_SIZE, cache_dir=cache)


_TIMED = """
import sys, time
from pathlib import Path
from ropes_ros.bench.bags import {function}
begin = time.perf_counter(), time.process_time()
{function}(*map(Path, sys.argv[1:]))
print(time.perf_counter() - begin[0], time.process_time() - begin[1])
"""


def _seconds(function: str, *paths: Path) -> tuple[float, float]:
    """Time that one of the two functions above takes in a new process: by the clock, and of its processors, s."""
    code = _TIMED.format(function=function)
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    elapsed, busy = done.stdout.split()
    return float(elapsed), float(busy)


LIMIT_MB = 1500
"""Private memory (RLIMIT_DATA) that building must do with, however long the bag; mapped files do not count."""
_MEASURED = """
import resource, sys, threading, time
from pathlib import Path
from ropes_ros.bench.bags import build_frames
resource.setrlimit(resource.RLIMIT_DATA, ({limit} << 20, {limit} << 20))
most = 0
def watch():
    global most
    while True:
        fields = dict(line.split(":", 1) for line in open("/proc/self/status"))
        most = max(most, int(fields["RssAnon"].split()[0]))
        time.sleep(0.02)
threading.Thread(target=watch, daemon=True).start()
build_frames(Path(sys.argv[1]), Path(sys.argv[2]))
print(most / 1024)
"""


def _peak_mb(bag: Path, cache: Path) -> float:
    """Peak private memory in MB of a process that builds a dataset and may take no more than `LIMIT_MB` of it."""
    code = _MEASURED.format(limit=LIMIT_MB)
    done = subprocess.run([sys.executable, "-c", code, bag, cache], capture_output=True, text=True, check=True)
    shutil.rmtree(cache, ignore_errors=True)
    return float(done.stdout)

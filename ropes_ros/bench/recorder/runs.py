"""The runs: so many cameras, each a process of its own, and what records them; each ends with its figures.

Rows of the same load take turns with the disk's floor, so that what else the machine does meets all of them.
"""

from __future__ import annotations

import os
import platform
import random
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from subprocess import Popen
from typing import Any

import numpy as np

from ropes_ros.bags import open_bag
from ropes_ros.bench.cells import write_json
from ropes_ros.bench.estimator.watcher import ISOLATION, cpu_seconds, rss_bytes
from ropes_ros.bench.recorder.floor import write_plainly
from ropes_ros.errors import RopesError, RuntimeSetupError
from ropes_ros.processes import Processes, has_ros, node_command, program_command

OURS, PEER, ROS2, FLOOR = "recorder", "rosbags in a callback", "ros2 bag record", "plain writes"
RATE = 30.0
PICTURES = 8
"""Different pictures of a camera, shown in turn."""
DEPTH = 30
"""Pictures that a camera keeps for who is late: one second. With the usual 10 they are lost on the way after 0.3 s."""
START_S = 45.0
"""Longest that a run takes beside the frames themselves."""
QUIET_S = 1.0
"""How long recorders are left alone after the last frame before they are interrupted."""
MEGA = 1e6


@dataclass(frozen=True)
class Settings:
    """What is run.

    Attributes:
        seconds: Length of one run.
        sizes: (width, height) of the cameras in pixels.
        cameras: Numbers of cameras.
        peers: Whether the other recorders run too.
    """

    seconds: float = 20.0
    sizes: tuple[tuple[int, int], ...] = ((640, 480), (1280, 720))
    cameras: tuple[int, ...] = (1, 2, 3, 4)
    peers: bool = True


QUICK = Settings(seconds=4.0, sizes=((640, 480),), cameras=(1, 4))


def measure(settings: Settings, out: Path, *, on_step: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Run everything, and write OUT/recorder.json.

    Args:
        settings: What to run.
        out: Folder for the result and the logs of the processes; bags are written there and deleted.
        on_step: Told what begins.

    Returns:
        What is written: "machine", "settings", and "runs", one for each size and number of cameras, with a row for each
        recorder (see `Stand.record`) and one for the disk's floor.

    Raises:
        RuntimeSetupError: There is neither rclpy nor Cyclone DDS.
        RopesError: A process ended early.
    """
    if not has_ros() and find_spec("cyclonedds") is None:
        raise RuntimeSetupError("the bench needs rclpy or cyclonedds; run `pip install 'ropes_ros[standalone]'`")
    machine = _machine()
    runs = []
    domain = {**ISOLATION, "ROS_DOMAIN_ID": str(random.SystemRandom().randint(1, 101))}
    with Processes(domain) as processes:
        stand = Stand(processes, out, settings.seconds)
        for size in settings.sizes:
            for cameras in settings.cameras:
                load = f"{cameras} x {size[0]}x{size[1]}"
                run: dict[str, Any] = {"size": list(size), "cameras": cameras, "rows": {}}
                on_step(f"{load}: {FLOOR}")
                run[FLOOR] = stand.floor(size, cameras)
                rows = {OURS: stand.ours}
                if settings.peers:
                    rows[PEER] = stand.peer
                    if has_ros() and shutil.which("ros2"):
                        rows[ROS2] = stand.ros2
                for name, record in rows.items():
                    on_step(f"{load}: {name}")
                    run["rows"][name] = record(size, cameras)
                runs.append(run)
    result = {"machine": machine, "settings": asdict(settings), "runs": runs}
    write_json(out / "recorder.json", result)
    return result


def topic(camera: int) -> str:
    """The image topic of a camera, counted from 1."""
    return f"/camera_{camera}/image_raw"


class Stand:
    """Where runs are made.

    Args:
        processes: What starts the processes, and ends them should this one be interrupted.
        out: Folder for bags, pictures and logs.
        seconds: Length of a run.
    """

    def __init__(self, processes: Processes, out: Path, seconds: float) -> None:
        self._processes, self._out, self._seconds = processes, out, seconds
        self._logs = out / "logs"
        self._logs.mkdir(parents=True, exist_ok=True)

    def floor(self, size: tuple[int, int], cameras: int) -> dict[str, Any]:
        """The disk with the same bytes."""
        block = np.load(self._pictures(size), mmap_mode="r")[0].tobytes()
        return write_plainly(self._out / "floor.bin", int(cameras * RATE * self._seconds) * len(block), block)

    def ours(self, size: tuple[int, int], cameras: int) -> dict[str, Any]:
        """The recorder node, with its default parameters."""
        bag = self._bag()
        command = node_command(
            "recorder",
            {
                "path": str(bag),
                "image_topic": topic(1),
                "camera_info_topic": "/camera_1/camera_info",
                "extra_cameras": [topic(camera) for camera in range(2, cameras + 1)] or [""],
            },
        )
        figures = self.record(OURS, command, bag, size, cameras)
        with open_bag(bag) as recorded:
            assert recorded.header is not None
            losses = recorded.header.losses
        told = {part: sum(getattr(each, part) for each in losses.values()) for part in ("gaps", "transport", "queue")}
        shutil.rmtree(bag)
        return {**figures, **account(figures["sent"], figures["recorded"], told)}

    def peer(self, size: tuple[int, int], cameras: int) -> dict[str, Any]:
        """A plain recorder."""
        bag = self._bag()
        given = {"path": str(bag), "topics": [topic(camera) for camera in range(1, cameras + 1)]}
        figures = self.record(PEER, program_command("ropes_ros.bench.recorder.plain", given), bag, size, cameras)
        shutil.rmtree(bag)
        return figures

    def ros2(self, size: tuple[int, int], cameras: int) -> dict[str, Any]:
        """`ros2 bag record`, with its default parameters, into MCAP."""
        bag = self._bag()
        topics = [topic(camera) for camera in range(1, cameras + 1)]
        command = ["ros2", "bag", "record", "--storage", "mcap", "--output", str(bag), "--topics", *topics]
        figures = self.record(ROS2, command, bag, size, cameras)
        shutil.rmtree(bag)
        return figures

    def record(
        self, name: str, command: list[str], bag: Path, size: tuple[int, int], cameras: int
    ) -> dict[str, Any]:
        """Show pictures to a recorder.

        Returns:
            "sent" and "recorded" frames of all cameras together, "lost" of them, "mb_per_s" sent, "cpu_ms_per_frame" of
            the recorder and "rss_mb" at its end.

        Raises:
            RopesError: A process failed.
        """
        recorder = self._start(name, command)
        notes = [self._logs / f"camera_{camera}.npy" for camera in range(1, cameras + 1)]
        for note in notes:
            note.unlink(missing_ok=True)
        sources = [
            self._start(
                f"camera_{camera}",
                program_command(
                    "ropes_ros.bench.estimator.camera",
                    {
                        "pictures": str(self._pictures(size)),
                        "log": str(note),
                        "rate": RATE,
                        "seconds": float(self._seconds),
                        "depth": DEPTH,
                    },
                    {"camera/image_raw": topic(camera), "__node": f"bench_camera_{camera}"},
                ),
            )
            for camera, note in enumerate(notes, start=1)
        ]
        before, deadline = None, time.monotonic() + self._seconds + START_S
        while any(source.poll() is None for source in sources):
            if recorder.poll() is not None:
                raise RopesError(f"{name} ended in the middle of a run; see the logs in {self._logs}")
            if time.monotonic() > deadline:
                raise RopesError(f"the cameras do not come to their end; see the logs in {self._logs}")
            if before is None and any(bag.glob("*.mcap*")):
                before = cpu_seconds(recorder.pid)
            time.sleep(0.25)
        if not all(source.wait() == 0 and note.is_file() for source, note in zip(sources, notes, strict=True)):
            raise RopesError(f"a camera failed; see the logs in {self._logs}")
        time.sleep(QUIET_S)
        used, memory = cpu_seconds(recorder.pid) - (before or 0.0), rss_bytes(recorder.pid) / MEGA
        status = self._processes.stop(recorder)
        if status != 0:
            raise RopesError(f"{name} ended with status {status}; see the logs in {self._logs}")
        sent = [len(np.load(note)) for note in notes]
        with open_bag(bag) as recorded:
            counts = [recorded.topics[topic(camera)].count for camera in range(1, cameras + 1)]
        frame = 3 * size[0] * size[1]
        return {
            "sent": sum(sent),
            "recorded": sum(counts),
            "lost": sum(sent) - sum(counts),
            "mb_per_s": sum(sent) * frame / self._seconds / MEGA,
            "cpu_ms_per_frame": 1e3 * used / max(1, sum(counts)),
            "rss_mb": memory,
        }

    def _bag(self) -> Path:
        bag = self._out / "bag"
        shutil.rmtree(bag, ignore_errors=True)
        return bag

    def _pictures(self, size: tuple[int, int]) -> Path:
        """Pictures such as a camera gives, uint8 [N, H, W, 3] in a file: soft shapes, and noise of its sensor."""
        path = self._out / "{}x{}.npy".format(*size)
        if not path.is_file():
            rng = np.random.default_rng(0)
            x, y = np.meshgrid(np.linspace(0, 6, size[0]), np.linspace(0, 4, size[1]))
            shapes = np.stack([np.sin(x + k) * np.cos(y - k) for k in range(3)], axis=-1)
            pictures = [
                np.clip(128 + 90 * np.roll(shapes, 20 * number, axis=1) + rng.normal(0, 3, shapes.shape), 0, 255)
                for number in range(PICTURES)
            ]
            temporary = path.with_suffix(".partial.npy")
            np.save(temporary, np.array(pictures).astype(np.uint8))
            temporary.replace(path)
        return path

    def _start(self, name: str, command: list[str]) -> Popen[bytes]:
        with (self._logs / f"{name.replace(' ', '_')}.log").open("ab") as log:
            return self._processes.start(command, output=log.fileno())


def account(sent: int, recorded: int, told: Mapping[str, int]) -> dict[str, Any]:
    """Whether what the bag says of its losses is what is missing in it.

    Args:
        sent: Frames that the cameras published.
        recorded: Frames in the bag.
        told: What the bag says: "gaps" between stamps, "transport" losses that the middleware told of, and what the
            recorder's "queue" dropped.

    Returns:
        Those three, "lost_in_transport" (sent, but neither recorded nor dropped by the queue), and "exact": the bag
        tells that number, in the one or the other way.
    """
    lost = sent - recorded - told["queue"]
    return {**told, "lost_in_transport": lost, "exact": lost == max(told["gaps"], told["transport"])}


def _machine() -> dict[str, Any]:
    """What ran it all, and how busy it was."""
    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
        "runtime": "rclpy" if has_ros() else "standalone",
        "load_before": os.getloadavg()[0],
    }

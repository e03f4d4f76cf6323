"""The runs: each starts a camera, what is measured and a listener, and ends with their figures.

In each round the rows take turns, so that what else the machine does meets all of them. Stamps are those of this
machine's clock, which all processes share.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from subprocess import Popen
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropes_ros.bench.cells import write_json
from ropes_ros.bench.estimator.batches import measure_batches
from ropes_ros.bench.estimator.figures import (
    INFERENCE_S,
    accounted,
    latencies,
    medians,
    newest_ages,
    slope_per_hour,
    spread,
)
from ropes_ros.bench.estimator.models import Prepared, prepare, shipped_checkpoint
from ropes_ros.bench.estimator.watcher import Heard, Watcher, cpu_seconds, rss_bytes
from ropes_ros.encoder import load_encoder
from ropes_ros.errors import RopesError, RuntimeSetupError
from ropes_ros.processes import Processes, has_ros, node_command, program_command

IMAGES, OURS_TOPIC = "/camera/image_raw", "/estimator/joint_states"
OURS, FLOOR, PEER, PEER_ONE, TRANSPORT = "estimator", "floor", "peer", "peer, one thread", "transport"
WARMUP_S = 1.0
"""Seconds from the first frame on that count neither for latency nor for processor time."""
START_S = 45.0
"""Longest that a run takes beside the frames themselves."""
STATUS_S = 10.0
"""Longest that is waited for the estimator's last word on its counters."""
AGREE_RAD = 0.02
"""Largest difference between our angles and the peer's, whose small picture OpenCV rounds a little otherwise."""
SOAK_RATE = 60.0
MEGA = 1e6
NEEDED = {"torch": "train", "onnx": "train", "mujoco": "sim", "onnxruntime": "cpu"}
"""Optional packages, and the extras of this package that bring them."""


@dataclass(frozen=True)
class Settings:
    """What is run.

    Attributes:
        size: (width, height) of the camera in pixels, of all runs but the sweep over sizes.
        rate: Frames a second.
        seconds: Length of one run.
        rounds: Rounds of the rows that are compared.
        sizes: Camera sizes of the sweep.
        batches: Numbers of images at once.
        soak_minutes: Length of the soak, 0 for none.
    """

    size: tuple[int, int] = (640, 480)
    rate: float = 30.0
    seconds: float = 20.0
    rounds: int = 3
    sizes: tuple[tuple[int, int], ...] = ((64, 48), (320, 240), (640, 480), (1280, 720))
    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    soak_minutes: float = 0.0


QUICK = Settings(seconds=4.0, rounds=1, sizes=((64, 48), (640, 480)), batches=(1, 8))


def measure(
    settings: Settings,
    out: Path,
    *,
    checkpoint: Path | None = None,
    on_step: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Run everything, and write OUT/estimator.json.

    Args:
        settings: What to run.
        out: Folder for the result, the logs of the processes, and models and pictures, which later runs take again.
        checkpoint: Another network than the shipped one.
        on_step: Told what begins.

    Returns:
        What is written: "machine", "settings", "latency" (by row: medians over rounds, and "runs"), "overload",
        "sizes", "batches", and "soak" where there was one.

    Raises:
        RuntimeSetupError: An optional package is missing.
        RopesError: A process ended early, or our angles and the peer's are not the same.
    """
    _require()
    machine = _machine()

    def made(size: tuple[int, int]) -> Prepared:
        on_step(f"models and pictures of {size[0]}x{size[1]}")
        return prepare(size, out / "prepared", checkpoint=checkpoint or shipped_checkpoint())

    prepared = made(settings.size)
    sweep = [made(size) for size in settings.sizes]
    agreement = assert_agreement(prepared)
    with Watcher() as watcher, Processes() as processes:
        stand = Stand(watcher, processes, out / "logs", settings)
        rows: dict[str, list[dict[str, Any]]] = {}
        for number in range(settings.rounds):
            for name, run in ROWS.items():
                on_step(f"round {number + 1} of {settings.rounds}: {name}")
                for row, figures in run(stand, prepared).items():
                    rows.setdefault(row, []).append(figures)
        on_step(f"overload: {1e3 * INFERENCE_S:.0f} ms an inference")
        overload = stand.overload(prepared)
        sizes = []
        for each in sweep:
            on_step("{}x{}".format(*each.size))
            sizes.append({"size": list(each.size), **stand.ours(each), **stand.floor(each)})
        soak = None
        if settings.soak_minutes > 0:
            on_step(f"soak of {settings.soak_minutes:g} min")
            soak = stand.soak(prepared)
    on_step("batches")
    result = {
        "machine": machine,
        "settings": asdict(settings),
        "largest_difference_to_peer_rad": agreement,
        "latency": {name: {**medians(runs), "runs": runs} for name, runs in rows.items()},
        "overload": overload,
        "sizes": sizes,
        "batches": measure_batches(prepared, settings.batches),
        **({} if soak is None else {"soak": soak}),
    }
    write_json(out / "estimator.json", result)
    return result


def assert_agreement(prepared: Prepared, pictures: int = 8) -> float:
    """The largest difference between our angles and the peer's, rad, each frame alone.

    Raises:
        RopesError: It is above `AGREE_RAD`, so that not the same work would be compared.
    """
    from ropes_ros.bench.estimator.peer import PlainEncoder, read_peering

    ours = load_encoder(prepared.model, threads=1)
    theirs = PlainEncoder(prepared.network, read_peering(prepared.peering))
    stored = np.load(prepared.pictures, mmap_mode="r")
    worst = max(
        float(np.abs(ours.run(np.array(image)).position - theirs.run(np.array(image))[0]).max())
        for image in stored[:pictures]
    )
    if not worst <= AGREE_RAD:
        raise RopesError(f"{prepared.model}: the peer's angles differ by {worst:.3g} rad from ours; report this")
    return worst


class Stand:
    """Where runs are made: a listener, and the processes that they start.

    Args:
        watcher: The listener.
        processes: What ends the processes should this one be interrupted.
        logs: Folder for what they say and note.
        settings: Rate and length of runs.
    """

    def __init__(self, watcher: Watcher, processes: Processes, logs: Path, settings: Settings) -> None:
        self._watcher, self._processes, self._logs, self._settings = watcher, processes, logs, settings
        logs.mkdir(parents=True, exist_ok=True)

    def ours(self, prepared: Prepared) -> dict[str, dict[str, Any]]:
        """The estimator node."""
        return {OURS: self._estimator("estimator", prepared)[0]}

    def peer(self, prepared: Prepared) -> dict[str, dict[str, Any]]:
        """The plain node, as one gets it."""
        return {PEER: self._peer(prepared, 0)}

    def peer_of_one_thread(self, prepared: Prepared) -> dict[str, dict[str, Any]]:
        """The plain node with as many threads as ours."""
        return {PEER_ONE: self._peer(prepared, 1)}

    def floor(self, prepared: Prepared) -> dict[str, dict[str, Any]]:
        """Inference alone, while a camera publishes to a listener that only receives, which tells the transport."""
        log = self._logs / "floor.npy"
        log.unlink(missing_ok=True)
        command = [sys.executable, "-m", "ropes_ros.bench.estimator.floor", str(prepared.model), str(prepared.pictures)]
        process = self._start("floor", [*command, str(self._settings.rate), str(log)])
        with self._watcher.listen(IMAGES, images=True) as heard:
            sent, _ = self._play(prepared, heard, process)
        self._processes.stop(process)
        taken = np.load(log)
        during = taken[(taken[:, 0] >= sent[0] + int(WARMUP_S * 1e9)) & (taken[:, 0] <= sent[-1])]
        if len(during) < 0.5 * len(sent) * (1.0 - WARMUP_S / self._settings.seconds):
            raise RopesError(f"only {len(during)} inferences ran beside {len(sent)} frames; the machine is overloaded")
        images = heard.array()
        return {
            FLOOR: {**spread(during[:, 1]), "inferences": len(during)},
            TRANSPORT: {
                **spread(latencies(sent, images, WARMUP_S)),
                "sent": len(sent),
                "lost": len(sent) - len(images),
            },
        }

    def overload(self, prepared: Prepared) -> dict[str, Any]:
        """The estimator with an encoder that cannot keep up."""
        figures, heard = self._estimator("ropes_ros.bench.estimator.slow", prepared)
        arrival = spread(heard[:, 1] - heard[:, 0])
        p99, most = newest_ages(heard)
        return {
            "inference_ms": 1e3 * INFERENCE_S,
            "age_on_arrival_ms": arrival["max_ms"],
            "age_on_arrival_p99_ms": arrival["p99_ms"],
            "newest_age_p99_ms": p99,
            "newest_age_max_ms": most,
            "frame_period_ms": 1e3 / self._settings.rate,
            **{name: figures[name] for name in ("sent", "estimates", "frames")},
        }

    def soak(self, prepared: Prepared) -> dict[str, Any]:
        """The estimator over a long time, at 60 frames a second."""
        minutes = self._settings.soak_minutes
        long = replace(self._settings, rate=SOAK_RATE, seconds=60.0 * minutes)
        figures, _ = Stand(self._watcher, self._processes, self._logs, long)._estimator("estimator", prepared)
        memory = np.array(figures.pop("memory")).reshape(-1, 2)
        settled = memory[memory[:, 0] >= min(60.0, 30.0 * minutes)]
        slope = slope_per_hour(settled[:, 0], settled[:, 1])
        return {
            "minutes": minutes,
            "rate": SOAK_RATE,
            "rss_slope_mb_per_hour": slope,
            **figures,
            "rss_mb_over_s": memory.tolist(),
        }

    def _estimator(self, node: str, prepared: Prepared) -> tuple[dict[str, Any], NDArray[np.int64]]:
        """Figures of one run of the estimator node, and what was heard, int64 [N, 2]: stamp and reception.

        It publishes whatever the novelty, so that an untrained network of a small camera is measured too.
        """
        process = self._start("estimator", node_command(node, {"model": str(prepared.model), "novelty_limit": 1e6}))
        with self._watcher.listen(OURS_TOPIC) as heard, self._watcher.follow_status() as status:
            sent, used = self._play(prepared, heard, process)
            spoken, deadline = status.messages, time.monotonic() + STATUS_S
            while status.messages < spoken + 2:  # one may have been on its way
                if time.monotonic() > deadline:
                    raise RopesError("/estimator/status fell silent; the estimator's log says why")
                self._watcher.spin(0.1)
            counters = status.counters()
        self._stop(process, "estimator")
        found = heard.array()
        return {**self._row(sent, found, used), "frames": accounted(counters, len(sent), len(found))}, found

    def _peer(self, prepared: Prepared, threads: int) -> dict[str, Any]:
        from ropes_ros.bench.estimator.peer import TOPIC

        given = {"network": str(prepared.network), "peering": str(prepared.peering), "threads": threads}
        process = self._start("peer", program_command("ropes_ros.bench.estimator.peer", given))
        with self._watcher.listen(TOPIC) as heard:
            sent, used = self._play(prepared, heard, process)
        self._stop(process, "peer")
        return self._row(sent, heard.array(), used)

    def _row(self, sent: NDArray[np.int64], heard: NDArray[np.int64], used: Usage) -> dict[str, Any]:
        return {
            **spread(latencies(sent, heard, WARMUP_S)),
            "sent": len(sent),
            "estimates": len(heard),
            "lost": len(sent) - len(heard),
            "cpu_ms_per_frame": used.cpu_ms_per_frame(),
            "rss_mb": used.memory[-1][1],
            "memory": used.memory,
        }

    def _play(self, prepared: Prepared, heard: Heard, process: Popen[bytes]) -> tuple[NDArray[np.int64], Usage]:
        """Show the pictures to a process that has been started; stamps of what was sent, and what the process used."""
        settings, log = self._settings, self._logs / "camera.npy"
        log.unlink(missing_ok=True)
        given = {
            "pictures": str(prepared.pictures),
            "log": str(log),
            "rate": settings.rate,
            "seconds": settings.seconds,
        }
        camera = self._start("camera", program_command("ropes_ros.bench.estimator.camera", given))
        used, deadline = Usage(process.pid), time.monotonic() + settings.seconds + START_S
        while camera.poll() is None:
            self._watcher.spin(0.25)
            if process.poll() is not None:
                raise RopesError(f"a process ended in the middle of a run; see the logs in {self._logs}")
            if time.monotonic() > deadline:
                raise RopesError(f"the camera does not come to its end; see the logs in {self._logs}")
            used.sample(heard)
        if camera.wait() != 0 or not log.is_file():
            raise RopesError(f"the camera failed; see {self._logs / 'camera.log'}")
        sent: NDArray[np.int64] = np.load(log)
        if len(heard.pairs) < 2:
            raise RopesError(f"of {len(sent)} frames none was answered; see the logs in {self._logs}")
        return sent, used

    def _start(self, name: str, command: list[str]) -> Popen[bytes]:
        with (self._logs / f"{name}.log").open("ab") as log:
            return self._processes.start(command, output=log.fileno())

    def _stop(self, process: Popen[bytes], name: str) -> None:
        status = self._processes.stop(process)
        if status != 0:
            raise RopesError(f"{name} ended with status {status}; see {self._logs / name}.log")


class Usage:
    """Processor time and memory of a process while it answers frames."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._begin: float | None = None
        self._points: list[tuple[int, float]] = []
        self.memory: list[tuple[float, float]] = []
        """Seconds since the first answer, and MB, about once a second."""

    def sample(self, heard: Heard) -> None:
        """Look once."""
        answers, now = len(heard.pairs), time.monotonic()
        if not answers:
            return
        if self._begin is None:
            self._begin = now
        since = now - self._begin
        if since >= WARMUP_S and (not self._points or answers > self._points[-1][0]):
            self._points.append((answers, cpu_seconds(self._pid)))
        if not self.memory or since >= self.memory[-1][0] + 1.0:
            self.memory.append((since, rss_bytes(self._pid) / MEGA))

    def cpu_ms_per_frame(self) -> float | None:
        """Between the first answer after the warm-up and the last; None where there were fewer than two."""
        if len(self._points) < 2:
            return None
        (first, begin), (last, end) = self._points[0], self._points[-1]
        return 1e3 * (end - begin) / (last - first)


ROWS: dict[str, Callable[[Stand, Prepared], dict[str, dict[str, Any]]]] = {
    OURS: Stand.ours,
    FLOOR: Stand.floor,
    PEER: Stand.peer,
    PEER_ONE: Stand.peer_of_one_thread,
}


def _require() -> None:
    """Refuse to begin where an optional package is missing."""
    needed = {**NEEDED, **({} if has_ros() else {"cyclonedds": "standalone"})}
    missing = {name: extra for name, extra in needed.items() if find_spec(name) is None}
    if missing:
        extras = ",".join(dict.fromkeys(missing.values()))
        raise RuntimeSetupError(f"the bench needs {', '.join(missing)}; run `pip install 'ropes_ros[{extras}]'`")


def _machine() -> dict[str, Any]:
    """What ran it all, and how busy it was."""
    import onnxruntime

    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "providers": onnxruntime.get_available_providers(),
        "runtime": "rclpy" if has_ros() else "standalone",
        "load_before": os.getloadavg()[0],
    }

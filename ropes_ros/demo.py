"""The whole job on the built-in arm: record, learn, export, estimate live, and report.

The nodes run as processes of their own and talk over DDS, as they would on a robot; this module starts them, waits
for what they say of themselves, and writes down what came out.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ropes_ros import __version__
from ropes_ros.bags import open_bag
from ropes_ros.cdr import header_stamp
from ropes_ros.encoder import LEVELS_ONLY
from ropes_ros.errors import ModelError, RopesError, RuntimeSetupError
from ropes_ros.evaluation import NOVELTY_LIMIT
from ropes_ros.metrics import mean_error_text
from ropes_ros.processes import Processes, free_domain, has_ros, node_command
from ropes_ros.regimes import Schedule, make_schedule
from ropes_ros.robot import Robot, load_robot

if TYPE_CHECKING:
    from ropes_ros.dataset import FrameSet
    from ropes_ros.evaluation import Estimates
    from ropes_ros.learning.pipeline import Learned
    from ropes_ros.report import TrainingCurve

ESTIMATE_TOPIC = "/estimator/joint_states"
READY_SECONDS = 60.0
SILENCE_SECONDS = 60.0
SAMPLES = 6
COUNTERS = ("received", "published", "novel", "skipped", "rejected", "out_of_order", "from_future")
"""What the estimator counts of the frames it was offered."""
MARKER = ".ropes_demo"
"""File that marks a folder as a demo's own, whose content the next demo may replace."""
VERSIONS = ("numpy", "torch", "onnxruntime", "mujoco", "opencv-python", "cyclonedds", "rosbags", "mcap", "pin")


@dataclass(frozen=True)
class DemoConfig:
    """What the demo does.

    Attributes:
        robot: Robot preset with a `sim` section.
        out: Folder for all that it writes; what an earlier demo left there is replaced.
        seed: Seed of schedule, training and fresh motion.
        record_s: Length of the recorded schedule in simulated seconds.
        epochs: Passes of the first network over the training frames.
        refine_epochs: Passes of the second one.
        live_s: Length of the fresh motion in seconds.
        camera: (width, height) in pixels.
        camera_rate: Images a second.
    """

    robot: str = "arm6"
    out: Path = Path("out/demo")
    seed: int = 0
    record_s: float = 1440.0
    epochs: int = 6
    refine_epochs: int = 3
    live_s: float = 60.0
    camera: tuple[int, int] = (320, 240)
    camera_rate: float = 30.0


class Monitor:
    """Listens to /diagnostics and keeps each node's newest status; a context manager."""

    def __init__(self) -> None:
        if not has_ros():
            from ropes_ros import standalone

            standalone.install()
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.executors import SingleThreadedExecutor

        self._rclpy = rclpy
        self._lock = threading.Lock()
        self._values: dict[str, dict[str, str]] = {}
        self._context = rclpy.Context()
        rclpy.init(args=[], context=self._context)
        self._node = rclpy.create_node("ropes_demo", context=self._context)
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 50)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._stopping = False
        self._thread = threading.Thread(target=self._spin, name="monitor", daemon=True)

    def _spin(self) -> None:
        while not self._stopping:
            self._executor.spin_once(timeout_sec=0.2)

    def _on_diagnostics(self, message: Any) -> None:
        with self._lock:
            for status in message.status:
                node = status.name.split(":")[0].strip("/ ")
                values = {entry.key: entry.value for entry in status.values}
                self._values[node] = {**values, "message": status.message}

    def value(self, node: str, key: str, default: str = "") -> str:
        """The newest value that a node published under a key."""
        with self._lock:
            return self._values.get(node, {}).get(key, default)

    def forget(self) -> None:
        """Drop what was heard, before nodes of the same names start again."""
        with self._lock:
            self._values.clear()

    def publishers(self, topic: str) -> int:
        """Number of publishers of a topic that are known now."""
        return int(self._node.count_publishers(topic))

    def __enter__(self) -> Monitor:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        self._thread.join()
        self._node.destroy_node()
        self._rclpy.shutdown(context=self._context)


def run_demo(config: DemoConfig, console: Console) -> dict[str, Any]:
    """Run the demo from recording to report.

    Args:
        config: What to do.
        console: Where progress and the closing table go.

    Returns:
        The content of report.json.

    Raises:
        RopesError: A stage failed; the message says which and where its log is.
    """
    robot = load_robot(config.robot)
    out = config.out
    _prepare(out)
    os.environ.setdefault("ROS_DOMAIN_ID", str(free_domain()))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    schedule = make_schedule(robot, duration_s=config.record_s, seed=config.seed)
    schedule.save(out / "schedule.yaml")
    with Monitor() as monitor:
        _stage(console, 1, "record interventions", f"{config.record_s / 60:.0f} simulated minutes")
        _record(config, monitor, console)
        _stage(console, 2, "learn from regimes", "no measured pose")
        learned, frames = _learn(config, robot, console)
        _stage(console, 3, "export", "ONNX, checked against torch")
        model = _export(learned, out)
        _stage(console, 4, "estimate live", f"{config.live_s:.0f} s of motion never commanded before, real time")
        counters = _live(config, model, monitor, console)
    _stage(console, 5, "report", str(out / "report.html"))
    figures = _report(config, robot, schedule, learned, frames, counters, console)
    _print_figures(figures, console)
    return figures


def _prepare(out: Path) -> None:
    """Empty the places that the demo writes to, in a folder of its own.

    Raises:
        RopesError: The folder holds something else, or cannot be written.
    """
    marker = out / MARKER
    try:
        if out.exists() and not marker.exists() and any(out.iterdir()):
            raise RopesError(f"{out} is not empty and no demo made it; give --out an empty or a new folder")
        out.mkdir(parents=True, exist_ok=True)
        marker.touch()
    except OSError as error:
        raise RopesError(f"{out}: cannot be written ({error.strerror}); give --out another folder") from None
    for name in ("record", "cache", "live", "training", "model", "logs"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in ("report.json", "report.html", "frames.png"):
        (out / name).unlink(missing_ok=True)
    (out / "logs").mkdir(parents=True, exist_ok=True)


def _stage(console: Console, number: int, title: str, detail: str) -> None:
    console.print(Text.assemble((f"{number}/5 {title}", "bold"), f"  {detail}"))


def _next(console: Console, what: str) -> None:
    """Say what is done now, where it takes long and no bar shows it."""
    console.print(f"   {what} ...", markup=False)


@contextmanager
def _bar(console: Console, title: str) -> Iterator[Callable[[float, float, str], None]]:
    """A progress bar that is fed with (done, total, note)."""
    columns = (TextColumn("   {task.description}"), BarColumn(), TextColumn("{task.fields[note]}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=None, note="")

        def show(done: float, total: float, note: str) -> None:
            progress.update(task, completed=done, total=total, note=note)

        yield show


class _Stage:
    """Node processes of one stage, each with a log file, that must all live until the stage ends."""

    def __init__(self, processes: Processes, logs: Path) -> None:
        self._processes = processes
        self._logs = logs
        self._running: dict[str, tuple[subprocess.Popen[bytes], Path]] = {}

    def start(self, name: str, parameters: Mapping[str, object], log: str) -> subprocess.Popen[bytes]:
        """Start a node."""
        path = self._logs / f"{log}.log"
        with path.open("wb") as stream:
            process = self._processes.start(node_command(name, parameters), output=stream.fileno())
        self._running[name] = process, path
        return process

    def check(self) -> None:
        """Raise when a node has failed."""
        for name, (process, log) in self._running.items():
            status = process.poll()
            if status not in (None, 0):
                lines = log.read_text(errors="replace").strip().splitlines()
                reason = lines[-1] if lines else "it printed nothing"
                raise RopesError(f"{name} ended with status {status}: {reason} (whole log: {log})")

    def until(self, condition: Callable[[], bool], what: str, seconds: float = READY_SECONDS) -> None:
        """Wait for a condition while all nodes live."""
        deadline = time.monotonic() + seconds
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                raise RuntimeSetupError(f"{what} did not happen within {seconds:.0f} s; the logs are in {self._logs}")
            time.sleep(0.1)

    def stop(self, name: str) -> None:
        """Ask a node to end and check that it ended well."""
        self._processes.stop(self._running[name][0])
        self.check()
        del self._running[name]


def _record(config: DemoConfig, monitor: Monitor, console: Console) -> None:
    """Simulated arm, recorder and commander; as fast as the machine allows, in simulation time."""
    common = {"robot": config.robot, "use_sim_time": True, "schedule": str(config.out / "schedule.yaml")}
    total = config.record_s * config.camera_rate
    with Processes() as processes, _bar(console, "frames recorded") as show:
        stage = _Stage(processes, config.out / "logs")
        fast = {"publish_clock": True, "real_time_factor": 0.0}
        stage.start("sim_arm", {**_sim_parameters(config), **fast}, "record_sim")
        stage.until(lambda: monitor.publishers("/camera/image_raw") > 0, "the simulated camera's start")
        stage.start("recorder", {**common, "path": str(config.out / "record")}, "record_recorder")
        stage.until(lambda: monitor.value("recorder", "state") == "recording", "the recorder's start")
        commander = stage.start("commander", {**common, "armed": True, "exit_when_done": True}, "record_commander")
        last, moved = -1.0, time.monotonic()
        while commander.poll() is None:
            stage.check()
            frames = float(monitor.value("recorder", "frames", "0"))
            if frames != last:
                last, moved = frames, time.monotonic()
            elif time.monotonic() - moved > SILENCE_SECONDS:
                raise RuntimeSetupError(f"no frame was recorded for {SILENCE_SECONDS:.0f} s; see {config.out / 'logs'}")
            show(frames, total, f"{frames:.0f} of about {total:.0f}, {monitor.value('recorder', 'drops', '0')} dropped")
            time.sleep(0.2)
        stage.check()
        stage.stop("recorder")
        stage.stop("sim_arm")


def _sim_parameters(config: DemoConfig) -> dict[str, object]:
    return {
        "robot": config.robot,
        "seed": config.seed,
        "camera_width": config.camera[0],
        "camera_height": config.camera[1],
        "camera_rate": config.camera_rate,
        "state_rate": config.camera_rate,
    }


def _learn(config: DemoConfig, robot: Robot, console: Console) -> tuple[Learned, FrameSet]:
    """Training, and the frames that it was given."""
    from ropes_ros.dataset import load_frames
    from ropes_ros.learning.pipeline import learn
    from ropes_ros.learning.refine import RefineConfig
    from ropes_ros.learning.train import Epoch, TrainConfig

    settings = TrainConfig(epochs=config.epochs, seed=config.seed)
    with _bar(console, "frames read") as show:
        frames = load_frames(
            config.out / "record",
            size=settings.image_size,
            cache_dir=config.out / "cache",
            progress=lambda done, total: show(done, total, f"{done} of {total}"),
        )
    lines: list[Epoch] = []
    with _bar(console, "training") as show:

        def on_step(done: int, total: int, loss: float) -> None:
            held_out = f", held-out {lines[-1].validation_loss:.3f}" if lines else ""
            show(done, total, f"loss {loss:.3f}{held_out}")

        def on_epoch(entry: Epoch, floor: float) -> None:
            lines.append(entry)
            console.print(
                f"   {entry.task:>10} {entry.epoch}: training {entry.training_loss:.3f}, held-out "
                f"{entry.validation_loss:.3f}, Bayes floor {floor:.3f} nats"
            )

        learned = learn(
            frames,
            config.out / "training",
            robot=robot,
            config=settings,
            refinement=RefineConfig(epochs=config.refine_epochs),
            on_step=on_step,
            on_epoch=on_epoch,
            on_phase=partial(_next, console),
        )
    for finding in learned.findings:
        console.print(f"   note: {finding}", style="yellow", markup=False)
    return learned, frames


def _export(learned: Learned, out: Path) -> Path:
    from ropes_ros.bag_images import sample_images
    from ropes_ros.encoder import MAX_FRAMES
    from ropes_ros.export import export

    return export(learned.result.checkpoint, out / "model", frames=sample_images(out / "record", MAX_FRAMES))


def _live(config: DemoConfig, model: Path, monitor: Monitor, console: Console) -> dict[str, int]:
    """Simulated arm at real time, estimator, recorder, and a motion that no training frame shows.

    Returns:
        What the estimator said last of its frames, by `COUNTERS`, from its start on.
    """
    monitor.forget()
    common = {"robot": config.robot}
    with Processes() as processes, _bar(console, "estimates published") as show:
        stage = _Stage(processes, config.out / "logs")
        stage.start("sim_arm", {**_sim_parameters(config), "seed": config.seed + 1}, "live_sim")
        stage.until(lambda: monitor.publishers("/camera/image_raw") > 0, "the simulated camera's start")
        stage.start(
            "estimator", {**common, "model": str(model), "novelty_limit": NOVELTY_LIMIT}, "live_estimator"
        )
        stage.until(lambda: int(monitor.value("estimator", "published", "0")) > 0, "the first estimate")
        extra = [f"{ESTIMATE_TOPIC}:sensor_msgs/msg/JointState"]
        stage.start(
            "recorder", {**common, "path": str(config.out / "live"), "extra_topics": extra}, "live_recorder"
        )
        stage.until(lambda: monitor.value("recorder", "state") == "recording", "the recorder's start")
        motion = {"motion": "waypoints", "duration": config.live_s, "seed": config.seed + 1, "exit_when_done": True}
        commander = stage.start("commander", {**common, **motion, "armed": True}, "live_commander")
        while commander.poll() is None:
            stage.check()
            count = int(monitor.value("estimator", "published", "0"))
            p99 = monitor.value("estimator", "latency_ms_p99", "-")
            show(count, config.live_s * config.camera_rate, f"{count}, latency p99 {p99} ms")
            time.sleep(0.2)
        for name in ("commander", "recorder", "estimator", "sim_arm"):
            stage.stop(name)
    return {name: int(monitor.value("estimator", name, "0")) for name in COUNTERS}


def _report(
    config: DemoConfig,
    robot: Robot,
    schedule: Schedule,
    learned: Learned,
    frames: FrameSet,
    counters: Mapping[str, int],
    console: Console,
) -> dict[str, Any]:
    from ropes_ros.commands import load_commands
    from ropes_ros.encoder import load_encoder
    from ropes_ros.evaluation import compare, estimate_bag, read_images, read_published
    from ropes_ros.overlay import Camera
    from ropes_ros.report import write_report
    from ropes_ros.sim.arm import SimArm

    live = config.out / "live"
    published, delays = read_published(live, ESTIMATE_TOPIC, robot.joint_names)
    start_ns = _first_command(live)
    end_ns = start_ns + int(config.live_s * 1e9)
    moving = (published.stamps_ns >= start_ns) & (published.stamps_ns < end_ns)
    if moving.sum() < 2:
        raise RopesError(f"{live}: the estimator published nothing while the arm moved; see {config.out / 'logs'}")
    estimates = published.select(moving)
    evaluation = compare(robot, estimates, live)
    _next(console, "running the new and the shipped model over the frames one by one")
    encoder = load_encoder(config.out / "model", robot=config.robot)
    single = estimate_bag(encoder, live)
    offered = single.select((single.stamps_ns >= start_ns) & (single.stamps_ns < end_ns))
    per_frame = compare(robot, single.select(np.isin(single.stamps_ns, estimates.stamps_ns)), live)
    with open_bag(config.out / "record") as bag:
        header = bag.header
        recorded = bag.topics[bag.topic("image")].count
    metrics = evaluation.metrics
    figures: dict[str, Any] = {
        "frames_recorded": recorded,
        "frames_dropped": sum(header.drops.values()) if header is not None else 0,
        "labelled_share": (frames.labels >= 0).mean(axis=0).tolist(),
        "train_seconds": round(learned.result.seconds, 1),
        "mcc": metrics.mcc,
        "r2": metrics.r2,
        "joint_mae_deg": [None if np.isnan(value) else float(value) for value in metrics.mae_deg],
        "mean_joint_mae_deg": None if np.isnan(metrics.mean_mae_deg) else metrics.mean_mae_deg,
        "joint_errors": [f"{value:.1f} {unit}" for value, unit in robot.in_figures(metrics.mae)],
        "mean_joint_error": mean_error_text(robot, metrics.mae),
        "tip_error_mm_median": metrics.tip_error_mm_median,
        **account(offered, estimates.stamps_ns),
        "estimator_counters": dict(counters),
        "estimate_latency_ms_p50": float(np.percentile(delays[moving], 50)),
        "estimate_latency_ms_p99": float(np.percentile(delays[moving], 99)),
        "coverage_1_std": per_frame.coverage["1"].tolist(),
        "coverage_2_std": per_frame.coverage["2"].tolist(),
        "shipped_model": _shipped(robot, live, published.stamps_ns[moving]),
        "pose_labels_used": pose_labels_used(encoder.info.supervision),
        "supervision": encoder.info.supervision,
        "level_label_noise": schedule.label_noise,
        "findings": list(learned.findings),
        "robot": robot.name,
        "seed": config.seed,
        "versions": _versions(),
    }
    _next(console, "reading back what was commanded, and drawing")
    arm = SimArm(robot, *config.camera, render=False)
    with open_bag(live) as bag:
        samples = _samples(read_images(bag), estimates.stamps_ns, estimates.position)
    position, quaternion = arm.camera_pose()
    write_report(
        config.out / "report.html",
        figures=figures,
        robot=robot,
        evaluation=evaluation,
        per_frame=per_frame,
        curve=_curve(learned),
        schedule=schedule,
        commanded=load_commands(config.out / "record", robot).at(frames.stamps_ns),
        labels=frames.labels,
        samples=samples,
        camera=Camera.from_pose(arm.intrinsics(), position, quaternion),
    )
    temporary = config.out / "report.partial"
    temporary.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, config.out / "report.json")
    return figures


def pose_labels_used(supervision: str) -> int | str:
    """How many measured poses a model was told in training, by what its file says: none, or that in its words."""
    return 0 if supervision == LEVELS_ONLY else supervision


def _curve(learned: Learned) -> TrainingCurve:
    """Losses of both networks, one after the other."""
    from ropes_ros.report import TrainingCurve

    history = learned.result.history
    second = "second look" if learned.refined else "second look, not kept"
    return TrainingCurve(
        [entry.training_loss for entry in history],
        [entry.validation_loss for entry in history],
        [second if entry.task == "refinement" else "first network" for entry in history],
        learned.result.floor,
    )


def _shipped(robot: Robot, live: Path, stamps_ns: NDArray[np.int64]) -> dict[str, Any] | None:
    """Errors on the same frames of the model that comes with the package for this robot; None where none does."""
    from ropes_ros.encoder import load_encoder, shipped_model
    from ropes_ros.evaluation import compare, estimate_bag

    try:
        folder = shipped_model(robot.name)
    except ModelError:
        return None
    estimates = estimate_bag(load_encoder(folder), live)
    metrics = compare(robot, estimates.select(np.isin(estimates.stamps_ns, stamps_ns)), live).metrics
    return {
        "mcc": metrics.mcc,
        "mean_joint_mae_deg": None if np.isnan(metrics.mean_mae_deg) else metrics.mean_mae_deg,
        "mean_joint_error": mean_error_text(robot, metrics.mae),
        "tip_error_mm_median": metrics.tip_error_mm_median,
    }


def account(offered: Estimates, published_ns: NDArray[np.int64]) -> dict[str, int]:
    """What became of the frames that the camera offered while the arm moved.

    Args:
        offered: The model's estimates of all frames that were recorded then; what was published is one of them or was
            seen by the estimator alone.
        published_ns: Stamps of the estimates that were published live, int64 [N].

    Returns:
        Numbers of frames: `frames_offered`; of these `estimates_published`; of the others `frames_novel`, which the
        estimator keeps silent about, and `frames_lost`, which it skipped for a newer one, or which it, or whose
        estimate the recorder, never received.
    """
    silent = ~np.isin(offered.stamps_ns, published_ns)
    novel = silent & ~(offered.novelty <= NOVELTY_LIMIT)
    return {
        "frames_offered": len(np.union1d(offered.stamps_ns, published_ns)),
        "estimates_published": len(published_ns),
        "frames_novel": int(novel.sum()),
        "frames_lost": int((silent & ~novel).sum()),
    }


def _first_command(live: Path) -> int:
    """Time of the first command in nanoseconds."""
    with open_bag(live) as bag:
        for message in bag.messages([bag.topic("joint_command")]):
            return header_stamp(message.data)
    raise RopesError(f"{live}: no joint command was recorded")


def _samples(
    images: Iterator[tuple[int, NDArray[np.uint8]]], stamps_ns: NDArray[np.int64], position: NDArray[np.float64]
) -> list[tuple[NDArray[np.uint8], NDArray[np.float64]]]:
    """Images at evenly spaced stamps with the estimates made from them."""
    wanted = np.linspace(0, len(stamps_ns) - 1, SAMPLES + 2).astype(int)[1:-1]
    rows = {int(stamps_ns[row]): row for row in wanted}
    return [(image.copy(), position[rows[stamp_ns]]) for stamp_ns, image in images if stamp_ns in rows]


def _versions() -> dict[str, str]:
    found = {"ropes_ros": __version__}
    for package in VERSIONS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _print_figures(figures: Mapping[str, Any], console: Console) -> None:
    from ropes_ros.report import main_rows

    table = Table(title="Fresh motion, estimated live", title_justify="left", show_header=False)
    for name, value in main_rows(figures).items():
        table.add_row(name, value)
    console.print(table)

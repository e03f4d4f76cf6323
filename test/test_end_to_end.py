"""The whole job as processes: the demo from motion to report, and what is left when something of it is killed."""

from __future__ import annotations

import html
import importlib.util
import io
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from command import Command, ropes
from rich.console import Console
from staging import has_rclpy, isolate

from ropes_ros.bags import open_bag, recover
from ropes_ros.demo import DemoConfig, _learn, account, pose_labels_used
from ropes_ros.encoder import LEVELS_ONLY
from ropes_ros.errors import BagError
from ropes_ros.evaluation import Estimates
from ropes_ros.processes import node_command
from ropes_ros.robot import load_robot

IMAGE = "/camera/image_raw"
HERE = Path(__file__).parent
ENOUGH = 3_000_000
"""Bytes in a bag of the demo that are more than its header."""
FIGURES = {
    "frames_recorded": int,
    "frames_dropped": int,
    "labelled_share": list,
    "train_seconds": float,
    "mcc": float,
    "r2": float,
    "joint_mae_deg": list,
    "mean_joint_mae_deg": float,
    "tip_error_mm_median": float,
    "frames_offered": int,
    "estimates_published": int,
    "frames_novel": int,
    "frames_lost": int,
    "estimator_counters": dict,
    "estimate_latency_ms_p50": float,
    "estimate_latency_ms_p99": float,
    "pose_labels_used": int,
    "supervision": str,
    "level_label_noise": float,
    "findings": list,
    "robot": str,
    "seed": int,
    "versions": dict,
}


@pytest.fixture(autouse=True)
def domain(monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_rclpy():
        pytest.skip("neither rclpy nor cyclonedds is installed")
    isolate(monkeypatch)


@pytest.fixture
def rendering() -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    try:
        from ropes_ros.sim.arm import SimArm

        SimArm(load_robot("arm6"), 16, 16).close()
    except Exception as error:
        pytest.skip(f"no rendering here: {error}")


def storage(bag: Path) -> int:
    """Bytes that a bag's recording has on disk."""
    return sum(file.stat().st_size for file in bag.glob("*.mcap"))


def assert_bag_tells_its_state(bag: Path) -> None:
    """A bag is whole, or it says that it is not and can be mended; either way it holds images then."""
    try:
        open_bag(bag).close()
    except BagError as error:
        assert f"ropes recover {bag}" in str(error)
        recover(bag)
    with open_bag(bag) as whole:
        count = whole.topics[IMAGE].count
        assert sum(1 for _ in whole.messages([IMAGE])) == count > 0


def test_demo_from_motion_to_report(rendering: None, tmp_path: Path) -> None:
    with ropes(
        tmp_path, "demo", "--minutes", "2", "--epochs", "1", "--live", "5", "--seed", "3", "--out", tmp_path / "demo"
    ) as demo:
        assert demo.end(300) == 0, demo.out + demo.err
        assert demo.gone()
    figures = json.loads((tmp_path / "demo" / "report.json").read_text())
    assert {name: type(figures.get(name)) for name in FIGURES} == FIGURES
    assert figures["frames_recorded"] + figures["frames_dropped"] > 3600 > 10 * figures["frames_dropped"]
    assert figures["estimates_published"] > 0
    parts = (figures[name] for name in ("estimates_published", "frames_novel", "frames_lost"))
    assert figures["frames_offered"] == sum(parts)
    assert figures["frames_offered"] == pytest.approx(150, abs=15)  # 5 s of 30 frames
    assert figures["estimator_counters"]["received"] >= figures["estimator_counters"]["published"] > 0
    assert 0.0 < figures["estimate_latency_ms_p50"] <= figures["estimate_latency_ms_p99"]
    assert len(figures["joint_mae_deg"]) == 6
    assert (figures["pose_labels_used"], figures["robot"], figures["seed"]) == (0, "arm6", 3)
    assert 0.1 < figures["level_label_noise"] < 0.2
    assert figures["supervision"] == LEVELS_ONLY
    assert len(figures["labelled_share"]) == 6 and 0.4 < min(figures["labelled_share"]) < 1.0
    assert {"ropes_ros", "numpy", "torch", "onnxruntime"} <= set(figures["versions"])
    assert figures["findings"]  # one epoch over a minute does not learn six joints
    page = (tmp_path / "demo" / "report.html").read_text()
    assert all(html.escape(finding) in page for finding in figures["findings"])
    assert f"{figures['estimates_published']} of the {figures['frames_offered']} frames that the camera offered" in page
    assert page.count('src="data:image/png;base64,') + page.count("src='data:image/png;base64,") >= 5
    assert not re.search(r"https?://|file:|(src|href)=['\"]?(?!['\"]?data:)|<link|<script", page)
    assert not list((tmp_path / "demo").rglob("*partial*"))
    for bag in ("record", "live"):
        with open_bag(tmp_path / "demo" / bag) as recording:
            assert recording.header is not None and recording.header.state == "complete"


def test_frames_that_were_not_estimated_are_accounted_for() -> None:
    """10 and 30 were published, 20 is novel, 40 was lost; 50 has no novelty and counts as novel; 60 has no image."""
    stamps = np.array([10, 20, 30, 40, 50], dtype=np.int64)
    offered = Estimates(stamps, np.zeros((5, 1)), np.ones((5, 1)), np.array([0.5, 1.6, 0.5, 1.5, np.nan]))
    assert account(offered, np.array([10, 30, 60], dtype=np.int64)) == {
        "frames_offered": 6,
        "estimates_published": 3,
        "frames_novel": 2,
        "frames_lost": 1,
    }


def test_no_measured_pose_is_claimed_of_a_model_of_levels_alone() -> None:
    assert pose_labels_used(LEVELS_ONLY) == 0
    assert pose_labels_used("a position of every labelled frame") == "a position of every labelled frame"


def test_what_takes_long_after_the_last_epoch_is_announced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Line by line in order, the last epoch before what follows it."""
    pytest.importorskip("torch")
    from ropes_ros.learning.train import Epoch

    def learn(*_: Any, on_epoch: Callable[..., None], on_phase: Callable[..., None], **__: Any) -> SimpleNamespace:
        on_epoch(Epoch(3, 1.0, 1.1, 60.0, "refinement"), 0.9)
        on_phase("calibrating [a while]")
        return SimpleNamespace(findings=())

    monkeypatch.setattr("ropes_ros.dataset.load_frames", lambda *_, **__: None)
    monkeypatch.setattr("ropes_ros.learning.pipeline.learn", learn)
    said = io.StringIO()
    _learn(DemoConfig(out=tmp_path), load_robot("arm6"), Console(file=said, width=120))
    assert re.search(r"refinement 3: training 1\.000.*\n +calibrating \[a while\] \.\.\.\n", said.getvalue())


STAGES = {
    "recording": (["--minutes", "10"], lambda out: storage(out / "record") > ENOUGH),
    "training": (["--minutes", "1", "--epochs", "500"], lambda out: any((out / "training").rglob("checkpoint.pt"))),
    "live": (["--minutes", "1", "--epochs", "1", "--live", "60"], lambda out: storage(out / "live") > ENOUGH // 10),
}


@pytest.mark.parametrize(
    "stage", ["recording", *(pytest.param(stage, marks=pytest.mark.slow) for stage in ("training", "live"))]
)
def test_interrupt_ends_the_demo_and_all_that_it_started(rendering: None, tmp_path: Path, stage: str) -> None:
    options, reached = STAGES[stage]
    out = tmp_path / "demo"
    with ropes(tmp_path, "demo", *options, "--out", out) as demo:
        demo.wait_until(lambda: reached(out), f"the stage {stage}", 240)
        demo.process.send_signal(signal.SIGINT)
        assert demo.end(20) == 130, demo.out + demo.err
        assert demo.gone(1.0), demo.running()
        assert "Traceback" not in demo.err and "interrupted" in demo.out
    assert not (out / "report.json").exists() and not (out / "report.html").exists()
    assert_bag_tells_its_state(out / "record")
    if stage == "live":
        assert_bag_tells_its_state(out / "live")


@pytest.mark.slow
def test_a_killed_demo_takes_its_nodes_along(rendering: None, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    with ropes(tmp_path, "demo", "--minutes", "10", "--out", out) as demo:
        demo.wait_until(lambda: storage(out / "record") > ENOUGH, "the recording")
        assert len(demo.running()) >= 3
        demo.process.kill()
        demo.end()
        assert demo.gone(20.0), demo.running()
    assert not (out / "report.json").exists()
    assert_bag_tells_its_state(out / "record")


SLEEPER = "import time; print('up', flush=True); time.sleep(60)"
PARENT = f"""
import sys, threading
from ropes_ros.processes import Processes
with Processes() as group:
    group.wait(group.start([sys.executable, "-c", {SLEEPER!r}]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_processes_of_a_killed_parent_end(tmp_path: Path) -> None:
    with Command(tmp_path, [sys.executable, "-c", PARENT]) as parent:
        parent.wait_until(lambda: "up" in parent.out, "the child runs")
        assert len(parent.running()) == 2
        parent.process.kill()
        parent.end()
        assert parent.gone(), parent.running()


@pytest.fixture
def talker(tmp_path: Path) -> Iterator[Command]:
    """A process that publishes 50 images a second."""
    path = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
    node = [sys.executable, "-m", "ropes_ros.standalone", "standalone_child", "--ros-args", "-r", f"reliable:={IMAGE}"]
    with Command(tmp_path, node, environment={"CHILD": "Talker", "PYTHONPATH": path}) as process:
        yield process


@pytest.mark.skipif(importlib.util.find_spec("cyclonedds") is None, reason="cyclonedds is not installed")
def test_a_killed_recorder_leaves_all_but_the_last_second(tmp_path: Path, talker: Command) -> None:
    bag = tmp_path / "bag"
    with Command(tmp_path, node_command("recorder", {"path": str(bag)})) as recorder:
        recorder.wait_until(lambda: storage(bag) > 10_000, "the recording")
        killed_ns = time.time_ns()
        recorder.process.kill()
        recorder.end()
    with ropes(tmp_path, "info", bag) as info:
        assert info.end() == 1 and f"ropes recover {bag}" in info.err
    with ropes(tmp_path, "recover", bag, "--json") as mend:
        assert mend.end() == 0, mend.err
        told = json.loads(mend.out)
    with open_bag(bag) as recovered:
        assert recovered.header is not None and recovered.header.state == "recovered"
        stamps = [
            recovered.deserialize(entry.data, "sensor_msgs/msg/Image").header.stamp.sec
            for entry in recovered.messages([IMAGE])
        ]
        assert stamps == list(range(stamps[0], stamps[0] + len(stamps)))
        assert told["messages"] >= len(stamps) > 25
        assert (killed_ns - recovered.end_ns) / 1e9 < 1.2  # a second, and what a busy machine makes of it

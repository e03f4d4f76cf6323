"""The bench of the estimator node: its bookkeeping, its figures and the judgement; no time is asserted."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from staging import has_rclpy

from ropes_ros.bench.estimator.figures import (
    INFERENCE_S,
    accounted,
    latencies,
    medians,
    newest_ages,
    slope_per_hour,
    spread,
)
from ropes_ros.encoder import load_encoder
from ropes_ros.errors import RopesError, RuntimeSetupError

MS = 1_000_000


def pairs(*values: tuple[int, int]) -> Any:
    """(stamp, reception) in ms as the listener notes them."""
    return np.array(values, dtype=np.int64) * MS


# Figures.


def test_frames_of_the_warm_up_do_not_count() -> None:
    sent = np.array([0, 500, 1000, 1500], dtype=np.int64) * MS
    heard = pairs((0, 90), (500, 590), (1000, 1004), (1500, 1506))
    assert (latencies(sent, heard, 1.0) / MS).tolist() == [4.0, 6.0]
    assert spread(latencies(sent, heard, 1.0))["max_ms"] == 6.0
    assert set(spread(latencies(sent, heard[:0], 1.0)).values()) == {None}


def test_the_newest_estimate_ages_until_the_next_one_comes() -> None:
    p99, most = newest_ages(pairs((0, 10), (100, 110), (200, 260)))
    assert most == 160.0
    assert 150.0 < p99 < most
    assert newest_ages(pairs((0, 10))) == (None, None)


def test_an_old_estimate_does_not_make_the_newest_one_older() -> None:
    assert newest_ages(pairs((100, 110), (50, 120), (200, 210)))[1] == 110.0


def test_frames_are_accounted_for_exactly() -> None:
    counters = {"received": 9, "published": 6, "skipped": 2, "novel": 1, "clock_jumps": 7}
    found = accounted(counters, sent=10, heard=6)
    assert found["exact"] and found["lost_in_transport"] == 1
    assert found["received"] + found["lost_in_transport"] == 10
    assert not accounted({**counters, "skipped": 3}, sent=10, heard=6)["exact"]
    assert not accounted(counters, sent=10, heard=5)["exact"]
    assert not accounted(counters, sent=8, heard=6)["exact"]
    assert not accounted({}, sent=8, heard=0)["exact"]


def test_growth_is_given_per_hour() -> None:
    seconds = np.arange(0.0, 100.0)
    assert slope_per_hour(seconds, 200.0 + seconds / 3600.0) == pytest.approx(1.0)
    assert slope_per_hour(seconds[:1], seconds[:1]) is None


def test_medians_are_taken_of_what_all_runs_measured() -> None:
    runs = [{"a": 1.0, "b": None, "c": []}, {"a": 5.0, "b": 1.0, "c": []}, {"a": 2.0, "b": 1.0, "c": []}]
    assert medians(runs) == {"a": 2.0}


# Targets.


REACHED: dict[str, Any] = {
    "p99_ms": 15.0,
    "age_max_ms": 40.0,
    "floor_ms": 4.0,
    "cpu_ratio_vs_peer": 0.5,
    "overload_age_ms": 101.0,
    "inference_ms": 50.0,
    "transport_p99_ms": 2.0,
    "frames_accounted_for": True,
    "filter_rmse_ratio": 0.6,
    "nees_ok": True,
    "faults_tested": 12,
    "faults_passed": 12,
    "fuzz_messages": 10_000,
}


@pytest.fixture
def judged() -> Any:
    pytest.importorskip("onnxruntime")
    from ropes_ros.bench.estimator.targets import judge

    return lambda **changed: {entry.name: entry.reached for entry in judge({**REACHED, **changed})}


def test_all_targets_can_be_reached(judged: Any) -> None:
    assert set(judged().values()) == {True}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("p99_ms", 15.1),
        ("age_max_ms", 100.1),
        ("cpu_ratio_vs_peer", 0.51),
        ("overload_age_ms", 102.1),
        ("frames_accounted_for", False),
        ("filter_rmse_ratio", 0.71),
        ("nees_ok", False),
        ("faults_passed", 11),
        ("fuzz_messages", 9_999),
    ],
)
def test_a_target_is_missed_or_not_measured(judged: Any, name: str, value: Any) -> None:
    assert {other for other, reached in judged(**{name: value}).items() if reached is not True} == {name}
    assert judged(**{name: value})[name] is False
    assert judged(**{name: None})[name] is None


def test_no_faults_tested_is_no_pass(judged: Any) -> None:
    assert judged(faults_tested=0, faults_passed=0)["faults_passed"] is None


# Models and pictures.


def test_a_network_for_a_larger_camera_says_the_same_of_larger_pictures(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    pytest.importorskip("mujoco")
    from ropes_ros.bench.estimator.models import prepare, shipped_checkpoint
    from ropes_ros.bench.estimator.runs import assert_agreement

    prepared = prepare((640, 480), tmp_path, checkpoint=shipped_checkpoint())
    pictures = np.load(prepared.pictures, mmap_mode="r")
    small = np.array(pictures[::30, ::2, ::2])
    large = small.repeat(2, axis=1).repeat(2, axis=2)
    ours, shipped = load_encoder(prepared.model), load_encoder(shipped_checkpoint().parent)
    np.testing.assert_allclose(ours.run(large).position, shipped.run(small).position, atol=0.05)
    rendered = ours.run(np.array(pictures[::10]))
    assert rendered.novelty.max() < 1.5, "the pictures are of what the model knows"
    assert np.ptp(rendered.position, axis=0).min() > 0.3, "every joint moves"
    assert assert_agreement(prepared) < 0.005


def test_a_network_for_a_smaller_camera_can_be_made(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    pytest.importorskip("mujoco")
    from ropes_ros.bench.estimator.models import prepare, shipped_checkpoint

    prepared = prepare((64, 48), tmp_path, checkpoint=shipped_checkpoint())
    assert load_encoder(prepared.model).info.camera_size == (64, 48)


def test_the_bench_says_which_extras_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ropes_ros.bench.estimator import runs

    absent = {"torch", "onnx", "mujoco"}
    monkeypatch.setattr(runs, "find_spec", lambda name: None if name in absent else name)
    advice = r"needs torch, onnx, mujoco; run `pip install 'ropes_ros\[train,sim\]'`"
    with pytest.raises(RuntimeSetupError, match=advice):
        runs.measure(runs.QUICK, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_verification_counts_faults_by_name_and_messages_only_of_passing_tests(tmp_path: Path) -> None:
    (tmp_path / "test_estimator_faults.py").write_text(
        "import pytest\n"
        "@pytest.mark.parametrize('n', [1, 2])\ndef test_fault_dark(n): assert n < 3\n"
        "@pytest.mark.parametrize('n', [1, 2])\ndef test_fault_late(n): assert n < 2\n"
        "def test_fault_gone(): pytest.skip('cannot be tried')\n"
        "def test_other(): pass\n"
    )
    (tmp_path / "test_fuzz_images.py").write_text(
        "import os\nMESSAGES = 77\ndef test_all(): assert 'WRONG' not in os.environ\n"
    )
    script = (
        "import pathlib, sys, json, verify_estimator as v; sys.path.insert(0, sys.argv[1]); "
        "v.HERE = pathlib.Path(sys.argv[1]); print(json.dumps({**v.faults(), **v.fuzz()}))"
    )
    for environment, messages in (({}, 77), ({"WRONG": "1"}, None)):
        path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)],
            env={**os.environ, "PYTHONPATH": path, **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        found = json.loads(done.stdout.splitlines()[-1])
        assert found["faults"] == {"dark": True, "late": False, "gone": False}
        assert (found["faults_tested"], found["faults_passed"]) == (3, 1)
        assert found["fuzz_messages"] == messages


# Runs.


@pytest.fixture
def stage() -> None:
    for name in ("torch", "onnx", "onnxruntime", "mujoco"):
        pytest.importorskip(name)
    if not has_rclpy():
        pytest.skip("neither rclpy nor cyclonedds is installed")
    if not Path("/proc/self/stat").is_file():
        pytest.skip("processor time and memory are read from /proc")


def test_everything_that_is_sent_is_accounted_for(stage: None, tiny_model: Path, tmp_path: Path) -> None:
    from ropes_ros.bench.estimator.runs import FLOOR, OURS, PEER, PEER_ONE, TRANSPORT, Settings, measure
    from ropes_ros.bench.estimator.targets import judge, key_figures

    settings = Settings(size=(64, 48), seconds=2.0, rounds=1, sizes=(), batches=(1, 2))
    result = measure(settings, tmp_path, checkpoint=tiny_model.parent / "checkpoint.pt")
    assert json.loads((tmp_path / "estimator.json").read_text()) == json.loads(json.dumps(result))
    rows = result["latency"]
    assert list(rows) == [OURS, FLOOR, TRANSPORT, PEER, PEER_ONE]
    for name in (OURS, PEER, PEER_ONE):
        (run,) = rows[name]["runs"]
        assert run["sent"] == 60 and run["estimates"] + run["lost"] == 60
        assert 0.0 < run["p50_ms"] <= run["p99_ms"] <= run["p99.9_ms"] <= run["max_ms"]
        assert run["cpu_ms_per_frame"] >= 0.0 and run["rss_mb"] > 1.0
    assert rows[FLOOR]["p50_ms"] > 0.0 and rows[TRANSPORT]["p50_ms"] > 0.0
    overload = result["overload"]
    for run in (*rows[OURS]["runs"], overload):
        frames = run["frames"]
        assert frames["exact"] and frames["received"] + frames["lost_in_transport"] == run["sent"] == 60
        assert frames["published"] == run["estimates"]
    assert overload["frames"]["skipped"] > 0, "an encoder of 50 ms cannot take 30 frames a second"
    assert overload["newest_age_max_ms"] >= overload["age_on_arrival_ms"] >= 1e3 * INFERENCE_S
    assert [row["batch"] for row in result["batches"]] == [1, 2]
    assert all(entry.measured is not None for entry in judge(key_figures(result))[:5])


def test_a_node_that_cannot_start_ends_the_bench_with_one_line(
    stage: None, tiny_model: Path, tmp_path: Path
) -> None:
    from ropes_ros.bench.estimator.models import prepare
    from ropes_ros.bench.estimator.runs import QUICK, Stand
    from ropes_ros.bench.estimator.watcher import Watcher
    from ropes_ros.processes import Processes

    prepared = prepare((64, 48), tmp_path, checkpoint=tiny_model.parent / "checkpoint.pt")
    (prepared.model / "card.md").unlink()
    with (
        Watcher() as watcher,
        Processes() as processes,
        pytest.raises(RopesError, match=f"ended in the middle of a run; see the logs in {re.escape(str(tmp_path))}"),
    ):
        Stand(watcher, processes, tmp_path / "logs", QUICK).ours(prepared)
    assert "card.md: missing" in (tmp_path / "logs" / "estimator.log").read_text()

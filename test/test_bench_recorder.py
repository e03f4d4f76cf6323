"""The recorder's bench: what is sent is accounted for, and targets are judged by what was measured."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from staging import has_rclpy

from ropes_ros.bench.recorder.floor import write_plainly
from ropes_ros.bench.recorder.runs import FLOOR, OURS, PEER, Settings, account, measure
from ropes_ros.bench.recorder.targets import judge, loss_figures

REACHED: dict[str, Any] = {
    "loss_4x640_30hz": 0.0,
    "losses_told": True,
    "seconds_lost_max": 1.0,
    "kills": 50,
    "recovered": 50,
    "dataset_speed_ratio": 0.6,
    "occupancy_tv_max": 0.05,
    "drift_error_ratio": 1.3,
    "sequential_flagged": True,
}


def test_what_the_bag_tells_of_its_losses_is_held_against_what_is_missing() -> None:
    told = {"gaps": 2, "transport": 3, "queue": 5}
    assert account(100, 92, told) == {**told, "lost_in_transport": 3, "exact": True}
    assert not account(100, 91, told)["exact"]
    assert not account(100, 93, told)["exact"]


def test_all_targets_can_be_reached() -> None:
    assert all(entry.reached for entry in judge(REACHED))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("loss_4x640_30hz", 0.001),
        ("losses_told", False),
        ("seconds_lost_max", 1.01),
        ("recovered", 49),
        ("dataset_speed_ratio", 0.59),
        ("occupancy_tv_max", 0.051),
        ("drift_error_ratio", 1.31),
        ("sequential_flagged", False),
    ],
)
def test_a_target_is_missed_or_not_measured(name: str, value: Any) -> None:
    judged = {entry.name: entry.reached for entry in judge({**REACHED, name: value})}
    assert {other for other, reached in judged.items() if not reached} == {name} and judged[name] is False
    assert {entry.name: entry.reached for entry in judge({**REACHED, name: None})}[name] is None


def test_loss_is_that_of_the_recorder_with_four_cameras() -> None:
    def run(cameras: int, lost: int) -> dict[str, Any]:
        return {"size": [640, 480], "cameras": cameras, "rows": {OURS: {"sent": 200, "lost": lost, "exact": True}}}

    assert loss_figures({"runs": [run(1, 9), run(4, 1)]}) == {"loss_4x640_30hz": 0.005, "losses_told": True}


def test_the_floor_leaves_no_file(tmp_path: Path) -> None:
    figures = write_plainly(tmp_path / "floor.bin", 10_000_000, os.urandom(100_000))
    assert all(figure > 0.0 for figure in figures.values())
    assert not list(tmp_path.iterdir())


def test_everything_that_is_sent_is_accounted_for(tmp_path: Path) -> None:
    if not has_rclpy():
        pytest.skip("neither rclpy nor cyclonedds is installed")
    if not Path("/proc/self/stat").is_file():
        pytest.skip("processor time and memory are read from /proc")
    result = measure(Settings(seconds=2.0, sizes=((64, 48),), cameras=(2,)), tmp_path)
    assert json.loads((tmp_path / "recorder.json").read_text()) == json.loads(json.dumps(result))
    (run,) = result["runs"]
    assert run[FLOOR]["mb_per_s"] > 0.0
    for name in (OURS, PEER):
        row = run["rows"][name]
        assert row["sent"] == 120 == row["recorded"] + row["lost"]
        assert row["recorded"] > 0 and row["cpu_ms_per_frame"] > 0.0
    ours = run["rows"][OURS]
    assert ours["sent"] == ours["recorded"] + ours["queue"] + ours["lost_in_transport"]
    assert not list(tmp_path.glob("bag*"))


@pytest.mark.slow
def test_a_killed_recording_is_good_for_training(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("mujoco")
    from ropes_ros.bench.recorder.kills import kill_figures

    figures = kill_figures(tmp_path, kills=1)
    assert (figures["kills"], figures["recovered"], figures["problems"]) == (1, 1, [])
    assert 0.0 <= figures["seconds_lost_max"] < 1.2  # a second, and what a busy machine makes of it

"""The demo's report: a page that a person can read, which says what was found weak and what its plots show."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from ropes_ros.evaluation import Estimates, _evaluation
from ropes_ros.overlay import Camera
from ropes_ros.regimes import make_schedule
from ropes_ros.report import TrainingCurve, _training, main_rows, write_report
from ropes_ros.robot import load_robot

FINDINGS = ["joint 'joint2': its level is told 0.33 nats better in spans that were trained on", "a <b> finding"]
FIGURES: dict[str, Any] = {
    "frames_recorded": 1801,
    "frames_dropped": 2,
    "labelled_share": [0.71, 0.72, 0.73, 0.74, 0.75, 0.76],
    "train_seconds": 90.0,
    "mcc": 0.987,
    "r2": 0.912,
    "joint_mae_deg": [1.1, 2.2, 3.3, 4.4, 5.5, 6.6],
    "mean_joint_mae_deg": 3.9,
    "joint_errors": ["1.1 °", "2.2 °", "3.3 °", "4.4 °", "5.5 °", "6.6 °"],
    "mean_joint_error": "3.85 °",
    "tip_error_mm_median": 23.4,
    "frames_offered": 150,
    "estimates_published": 140,
    "frames_novel": 7,
    "frames_lost": 3,
    "estimator_counters": {"received": 171, "published": 160, "novel": 8, "skipped": 3, "out_of_order": 0},
    "estimate_latency_ms_p50": 12.5,
    "estimate_latency_ms_p99": 45.6,
    "coverage_1_std": [0.61, 0.62, 0.63, 0.64, 0.65, 0.66],
    "coverage_2_std": [0.91, 0.92, 0.93, 0.94, 0.95, 0.96],
    "shipped_model": {"mcc": 0.995, "mean_joint_error": "2.20 °", "tip_error_mm_median": 14.0},
    "pose_labels_used": 0,
    "supervision": "the commanded levels; no measured pose",
    "level_label_noise": 0.164,
    "findings": FINDINGS,
    "robot": "arm6",
    "seed": 3,
    "versions": {"numpy": "2.4.6"},
}
CURVE = TrainingCurve([1.8, 1.5, 1.4, 1.1], [1.4, 1.3, 1.2, 1.15], ["first network"] * 3 + ["second look"], 1.07)


def page(folder: Path, **changes: Any) -> str:
    """The report of random estimates, with some figures changed."""
    robot = load_robot("arm6")
    rng = np.random.default_rng(0)
    truth = rng.uniform(-0.5, 0.5, (40, 6))
    stamps = np.arange(40, dtype=np.int64) * 33_000_000
    estimates = Estimates(stamps, truth + 0.02 * rng.normal(size=truth.shape), np.full_like(truth, 0.02), np.ones(40))
    evaluation = _evaluation(robot, estimates, truth)
    write_report(
        folder / "report.html",
        figures={**FIGURES, **changes},
        robot=robot,
        evaluation=evaluation,
        per_frame=evaluation,
        curve=CURVE,
        schedule=make_schedule(robot, duration_s=60.0, seed=3),
        commanded=rng.uniform(-1.0, 1.0, (50, 6)),
        labels=rng.integers(-1, 8, (50, 6)).astype(np.int16),
        samples=[(np.zeros((48, 64, 3), np.uint8), truth[0])],
        camera=Camera(np.diag([64.0, 64.0, 1.0]), np.array([2.0, 0.0, 0.5]), np.eye(3)),
    )
    return (folder / "report.html").read_text()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> str:
    return page(tmp_path_factory.mktemp("report"))


def section(text: str, title: str) -> str:
    return text.split(f"<h2>{html.escape(title)}")[1].split("<h2>")[0]


def test_what_training_found_weak_has_a_section(written: str) -> None:
    found = section(written, "What training found weak")
    assert re.findall("<li>(.*?)</li>", found) == [html.escape(finding) for finding in FINDINGS]


def test_a_training_without_findings_says_so_and_another_supervision_is_named(tmp_path: Path) -> None:
    told = "a position of every labelled frame"
    text = page(tmp_path, findings=[], supervision=told, pose_labels_used=told)
    assert "Nothing: no joint was left out" in section(text, "What training found weak")
    assert text.count(told) == 2 and "no measured pose" not in text.lower()


def test_every_figure_has_a_readable_name(written: str) -> None:
    table = section(written, "Fresh motion, estimated live").split("</table>")[0]
    rows = dict(re.findall("<tr><td>(.*?)</td><td>(.*?)</td></tr>", table))
    assert not [name for name in rows if "_" in name.replace("ropes_ros", "")]
    assert set(main_rows(FIGURES)) < set(rows)
    shown = " ".join(rows.values())
    for figure in (
        *("0.987", "0.912", "1.1 °, 2.2 °", "6.6 °", "23 mm", "12.5 / 45.6 ms", "1801 / 2", "61%, 62%", "95%, 96%"),
        *("171 received", "0 out of order", "1.5 min", "numpy 2.4.6", "arm6"),
    ):
        assert figure in shown, figure


def test_the_labelled_share_is_told_beside_what_was_commanded(written: str) -> None:
    assert "joint1 71%, joint2 72%" in section(written, "Regimes: what each level commanded")


def test_the_networks_epochs_are_apart_in_the_plot_of_training() -> None:
    from matplotlib import pyplot

    figure = _training(CURVE)
    axis = figure.axes[0]
    assert [text.get_text() for text in axis.texts] == ["first network", "second look"]
    losses = [line.get_xdata() for line in axis.lines if line.get_marker() == "."]
    assert sorted(tuple(epochs) for epochs in losses) == [(1, 2, 3), (1, 2, 3), (4,), (4,)]
    assert [tuple(line.get_xdata()) for line in axis.lines].count((3.5, 3.5)) == 1
    assert [text.get_text() for text in axis.get_legend().get_texts()] == [
        "training (augmented)", "held-out spans", "Bayes floor",
    ]  # fmt: skip
    pyplot.close(figure)

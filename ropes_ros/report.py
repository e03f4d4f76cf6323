"""The demo's report: one HTML file that holds its plots, so that it can be sent to a colleague as it is."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ropes_ros.evaluation import Evaluation
from ropes_ros.html_page import embed, prepare_drawing, write_page
from ropes_ros.overlay import Camera, draw_arm
from ropes_ros.regimes import Schedule
from ropes_ros.robot import Robot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ESTIMATE_COLOUR = (255, 255, 255)
SERIES_S = 20.0


@dataclass(frozen=True)
class TrainingCurve:
    """Losses in nats and name of the stage, by epoch, and the Bayes floor that follows from the design."""

    training: Sequence[float]
    validation: Sequence[float]
    stages: Sequence[str]
    floor: float


def write_report(
    path: Path,
    *,
    figures: dict[str, Any],
    robot: Robot,
    evaluation: Evaluation,
    per_frame: Evaluation,
    curve: TrainingCurve,
    schedule: Schedule,
    commanded: NDArray[np.float64],
    labels: NDArray[np.int16],
    samples: Sequence[tuple[NDArray[np.uint8], NDArray[np.float64]]],
    camera: Camera,
) -> None:
    """Write the report as one self-contained HTML file, and the frames with the arm drawn over them as `frames.png`.

    Args:
        path: Where to; written beside its place and moved there.
        figures: The content of report.json.
        robot: The robot.
        evaluation: Live estimates against the simulator.
        per_frame: The encoder's estimates of the same frames, unfiltered, with their standard deviations.
        curve: Losses of training.
        schedule: What was commanded.
        commanded: Normalised positions that were commanded at the recorded frames, float64 [N, J].
        labels: Level of each joint at these frames as recorded, int16 [N, J], -1 for none.
        samples: Camera images, uint8 [H, W, 3], with the angles estimated from them, float64 [J], rad.
        camera: Camera that took them, for the overlay.

    Raises:
        RuntimeSetupError: matplotlib is not installed.
    """
    prepare_drawing("train")
    frames = _sample_sheet(robot, samples, camera)
    frames.savefig(path.with_name("frames.png"), dpi=100, bbox_inches="tight")
    sections = [
        ("Fresh motion, estimated live", _table({**main_rows(figures), **_other_rows(figures)}) + _losses(figures)),
        (
            "Frames with the estimated arm drawn over them",
            embed(frames, "white: forward kinematics of the estimate"),
        ),
        ("Estimate against truth, per joint", embed(_scatter(robot, evaluation), "the line is the truth")),
        ("Time series", embed(_series(robot, evaluation), f"the first {SERIES_S:.0f} s")),
        ("Tip error", embed(_tip_histogram(evaluation), "distance between the tips of estimate and truth")),
        ("Is the stated uncertainty true?", _uncertainty(robot, per_frame)),
        (
            "Training",
            embed(
                _training(curve),
                "regime loss of the first network, then of the second look on top of it; the floor is what a perfect "
                "encoder reaches, so a training loss below it is memory",
            ),
        ),
        ("What training found weak", _findings(figures["findings"])),
        (
            "Regimes: what each level commanded, against its designed density",
            embed(
                _occupancy(robot, schedule, commanded, labels),
                "bars: commanded at the recorded frames, by the regimes in the recording; lines: designed; labelled "
                f"share of the recorded frames: {_by_joint(robot, figures['labelled_share'])}",
            ),
        ),
    ]
    introduction = (
        "<p>An encoder learned the arm's joint angles from camera frames. What it was told of poses: "
        f"{html.escape(figures['supervision'])}. A commanded level is, statistically, a coarse position label with a "
        f"standard deviation of {figures['level_label_noise']:.3f} half ranges.</p>"
    )
    write_page(path, robot.name, f"ropes_ros on {robot.name}", introduction, sections)


def main_rows(figures: Mapping[str, Any]) -> dict[str, str]:
    """The figures that matter most, by readable names, for the terminal and the page.

    Args:
        figures: The content of report.json.
    """
    poses = figures["pose_labels_used"]
    rows = {
        "mean correlation (MCC)": f"{figures['mcc']:.3f}",
        "R2": f"{figures['r2']:.3f}",
        "mean joint error": figures["mean_joint_error"],
        "error per joint": ", ".join(figures["joint_errors"]),
        "median tip error": f"{figures['tip_error_mm_median']:.0f} mm",
        "frames offered": (
            f"{figures['frames_offered']}: {figures['estimates_published']} published, of which the figures above "
            f"speak, {figures['frames_novel']} novel, {figures['frames_lost']} skipped or lost"
        ),
        "latency p50 / p99": (
            f"{figures['estimate_latency_ms_p50']:.1f} / {figures['estimate_latency_ms_p99']:.1f} ms "
            "(image stamp to receipt of the estimate)"
        ),
        "frames recorded / dropped": f"{figures['frames_recorded']} / {figures['frames_dropped']}",
        "measured poses used": f"{poses} (commanded levels: position labels with a std of "
        f"{figures['level_label_noise']:.2f} half ranges)",
    }
    shipped = figures["shipped_model"]
    if shipped is not None:
        rows["the model that comes with ropes_ros"] = (
            f"{shipped['mean_joint_error']}, {shipped['tip_error_mm_median']:.0f} mm, MCC "
            f"{shipped['mcc']:.3f} on the same frames one by one, from more training and other recordings"
        )
    return rows


def _other_rows(figures: Mapping[str, Any]) -> dict[str, str]:
    """The figures that the terminal leaves out, by readable names."""

    def shares(values: Sequence[float]) -> str:
        return ", ".join(f"{value:.0%}" for value in values)

    counted = figures["estimator_counters"].items()
    return {
        "errors within 1 std, per joint": shares(figures["coverage_1_std"]),
        "errors within 2 std, per joint": shares(figures["coverage_2_std"]),
        "frames counted by the estimator": ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in counted),
        "time of training": f"{figures['train_seconds'] / 60.0:.1f} min",
        "robot": figures["robot"],
        "seed": str(figures["seed"]),
        "versions": ", ".join(f"{name} {value}" for name, value in figures["versions"].items()),
    }


def _table(rows: Mapping[str, str]) -> str:
    cells = (f"<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>" for name, value in rows.items())
    return f"<table>{''.join(cells)}</table><p class='note'>report.json holds these figures unrounded, for scripts.</p>"


def _findings(findings: Sequence[str]) -> str:
    """What training said of joints left out, weak spots and signs of leaks."""
    if not findings:
        return (
            "<p>Nothing: no joint was left out, and there is no sign of memorised moments or of pictures that betray "
            "the level by anything but the pose.</p>"
        )
    return "<ul>" + "".join(f"<li>{html.escape(finding)}</li>" for finding in findings) + "</ul>"


def _by_joint(robot: Robot, shares: Sequence[float]) -> str:
    return ", ".join(f"{name} {share:.0%}" for name, share in zip(robot.joint_names, shares, strict=True))


def _losses(figures: dict[str, Any]) -> str:
    """What became of the frames whose estimates are missing from the figures."""
    counters = figures["estimator_counters"]
    return (
        f"<p class='note'>Accuracy is that of published frames: {figures['estimates_published']} of the "
        f"{figures['frames_offered']} frames that the camera offered while the arm moved. "
        f"{figures['frames_novel']} were novel, so that nothing was published; {figures['frames_lost']} were skipped "
        "or lost on the way. The estimator itself counted, from its start to its end, "
        f"{counters['received']} frames received, {counters['published']} published, {counters['novel']} novel and "
        f"{counters['skipped']} skipped for a newer one.</p>"
    )


def _uncertainty(robot: Robot, per_frame: Evaluation) -> str:
    """Stated and real errors per joint: 68 % and 95 % would lie within one and two std of Gaussian errors."""
    found = robot.in_figures(np.sqrt(((per_frame.estimates.position - per_frame.truth) ** 2).mean(axis=0)))
    stated = robot.in_figures(np.sqrt((per_frame.estimates.std**2).mean(axis=0)))
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{stated[index][0]:.1f} {stated[index][1]}</td>"
        f"<td>{found[index][0]:.1f} {found[index][1]}</td>"
        f"<td>{per_frame.coverage['1'][index]:.0%}</td><td>{per_frame.coverage['2'][index]:.0%}</td></tr>"
        for index, name in enumerate(robot.joint_names)
    )
    novel = float((per_frame.estimates.novelty > 1.0).mean())
    return (
        "<table><tr><th>joint</th><th>stated std</th><th>RMS error</th><th>within 1 std (68 %)</th>"
        f"<th>within 2 std (95 %)</th></tr>{rows}</table><p class='note'>Single frames, before filtering. Novelty is "
        f"above 1 in {novel:.1%} of these frames, and was in 1 % of the calibration frames.</p>"
    )


def _grid(count: int, width: float, height: float, columns: int = 3) -> tuple[Figure, NDArray[Any]]:
    """A figure of `count` axes in rows of `columns`, sized per cell in inches."""
    from matplotlib import pyplot

    rows = -(-count // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(width * columns, height * rows), squeeze=False, layout="constrained"
    )
    flat = axes.ravel()
    for spare in flat[count:]:
        spare.set_axis_off()
    return figure, flat


def _scale(robot: Robot) -> NDArray[np.float64]:
    """Factors [J] from rad (m) to degrees (mm)."""
    return np.array([joint.figures[1] for joint in robot.joints])


def _scatter(robot: Robot, evaluation: Evaluation) -> Figure:
    figure, axes = _grid(len(robot.joints), 3.4, 3.2)
    scale = _scale(robot)
    truth, guess = scale * evaluation.truth, scale * evaluation.estimates.position
    errors = robot.in_figures(evaluation.metrics.mae)
    for index, name in enumerate(robot.joint_names):
        low, high = truth[:, index].min(), truth[:, index].max()
        axes[index].plot([low, high], [low, high], color="0.4", linewidth=1)
        axes[index].scatter(truth[:, index], guess[:, index], s=3, alpha=0.4)
        (error, unit), correlation = errors[index], evaluation.metrics.correlation[index]
        axes[index].set_title(f"{name} ({unit}): {error:.1f} {unit}, r {correlation:.3f}", fontsize=10)
    return figure


def _series(robot: Robot, evaluation: Evaluation) -> Figure:
    figure, axes = _grid(len(robot.joints), 10.0, 1.3, columns=1)
    seconds = (evaluation.estimates.stamps_ns - evaluation.estimates.stamps_ns[0]) * 1e-9
    shown = seconds <= SERIES_S
    for index, name in enumerate(robot.joint_names):
        scale = _scale(robot)[index]
        axes[index].plot(seconds[shown], scale * evaluation.truth[shown, index], color="0.3", label="truth")
        axes[index].plot(seconds[shown], scale * evaluation.estimates.position[shown, index], label="estimate")
        axes[index].set_ylabel(f"{name}, {robot.joints[index].figures[0]}")
    axes[0].legend(loc="upper right", ncols=2, fontsize=8)
    axes[-1].set_xlabel("s")
    return figure


def _tip_histogram(evaluation: Evaluation) -> Figure:
    figure, axes = _grid(1, 8.0, 2.6, columns=1)
    axes[0].hist(evaluation.metrics.tip_error_mm, bins=60)
    axes[0].axvline(evaluation.metrics.tip_error_mm_median, color="0.3", linestyle="--")
    axes[0].set_xlabel(f"mm (median {evaluation.metrics.tip_error_mm_median:.0f})")
    axes[0].set_ylabel("frames")
    return figure


def _training(curve: TrainingCurve) -> Figure:
    figure, axes = _grid(1, 8.0, 2.8, columns=1)
    axis = axes[0]
    starts = [number for number in range(1, len(curve.stages)) if curve.stages[number] != curve.stages[number - 1]]
    edges = [0, *starts, len(curve.stages)]
    for losses, label, colour in (
        (curve.training, "training (augmented)", "C0"),
        (curve.validation, "held-out spans", "C1"),
    ):
        for begin, end in pairwise(edges):
            line = axis.plot(range(begin + 1, end + 1), losses[begin:end], marker=".", color=colour)[0]
            line.set_label(label if begin == 0 else "_")
    axis.axhline(curve.floor, color="0.3", linestyle="--", label="Bayes floor")
    for start in starts:
        axis.axvline(start + 0.5, color="0.6", linewidth=1)
    for begin, end in pairwise(edges):
        middle = 0.5 * (begin + 1 + end)
        axis.text(middle, 1.02, curve.stages[begin], ha="center", transform=axis.get_xaxis_transform(), fontsize=9)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_xlabel("epoch, of both networks")
    axis.set_ylabel("nats")
    axis.legend()
    return figure


def _occupancy(
    robot: Robot, schedule: Schedule, commanded: NDArray[np.float64], labels: NDArray[np.int16]
) -> Figure:
    from matplotlib import colormaps

    figure, axes = _grid(len(robot.joints), 3.6, 2.4)
    edges = np.linspace(-1.0, 1.0, 41)
    colours = colormaps["turbo"](np.linspace(0.05, 0.95, len(schedule.levels.ids)))
    for index, name in enumerate(robot.joint_names):
        for level, (key, colour) in enumerate(zip(schedule.levels.ids, colours, strict=True)):
            values = commanded[labels[:, index] == level, index]
            if len(values):
                axes[index].hist(values, bins=edges, density=True, color=colour, alpha=0.35)
            axes[index].plot(schedule.grid, schedule.levels[key].pdf(schedule.grid), color=colour, linewidth=1)
        axes[index].set_title(f"{name} (u)", fontsize=10)
        axes[index].set_yticks([])
    return figure


def _sample_sheet(
    robot: Robot, samples: Sequence[tuple[NDArray[np.uint8], NDArray[np.float64]]], camera: Camera
) -> Figure:
    figure, axes = _grid(len(samples), 3.6, 2.7)
    for axis, (image, position) in zip(axes, samples, strict=False):
        axis.imshow(draw_arm(image, robot, position, camera, ESTIMATE_COLOUR))
        axis.set_axis_off()
    return figure

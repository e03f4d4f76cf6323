"""`ropes evaluate`: how good a model is, over a bag with measured angles or over fresh poses of the simulator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ropes_ros.cli.output import (
    Json,
    ModelRobotOption,
    TopicsOption,
    console,
    print_facts,
    print_json,
    print_table,
    topics_by_role,
)
from ropes_ros.errors import RopesError

if TYPE_CHECKING:
    from ropes_ros.encoder import Encoder
    from ropes_ros.evaluation import Evaluation
    from ropes_ros.robot import Robot
    from ropes_ros.tracking_report import TrackingReport

_ERROR_KEYS = {"°": "mae_deg", "mm": "mae_mm"}
"""Keys of a joint's error in JSON, by its unit."""


def evaluate(
    model: Annotated[Path, typer.Argument(help="Model folder or model.onnx.")],
    bag: Annotated[Path | None, typer.Argument(help="Bag with images and joint_states.")] = None,
    sim: Annotated[
        str | None,
        typer.Option(metavar="ROBOT", help="Instead of a bag: fresh poses of this robot in the built-in simulator."),
    ] = None,
    poses: Annotated[
        str | None, typer.Option(help="With --sim: uniform (the default), observational or extrapolation.")
    ] = None,
    n: Annotated[int | None, typer.Option("--n", min=2, help="With --sim: number of poses, by default 2000.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="With --sim: seed of poses and surroundings.")] = None,
    condition: Annotated[
        str | None,
        typer.Option(
            help="With --sim: clean (the default), drift, jitter, occlusion, heavy_occlusion or second_object."
        ),
    ] = None,
    robot: ModelRobotOption = None,
    topic: TopicsOption = None,
    as_json: Json = False,
) -> None:
    """Compare a model's estimates with true angles: a bag's joint_states, or fresh poses of the simulator."""
    from ropes_ros.encoder import load_encoder

    of_sim: dict[str, Any] = {"poses": poses, "n": n, "seed": seed, "condition": condition}
    given = {name: value for name, value in of_sim.items() if value is not None}
    if (bag is None) == (sim is None):
        raise RopesError("give either a BAG to evaluate on, or --sim ROBOT")
    if bag is not None and given:
        raise RopesError(f"--{next(iter(given))} is about fresh poses: it goes with --sim, not with a bag")
    if sim is not None and (robot is not None or topic):
        raise RopesError("--robot and --topic are about bags: --sim names the robot itself")
    encoder = load_encoder(model)
    if bag is not None:
        _on_bag(encoder, bag, robot, topics_by_role(topic), as_json)
    elif sim is not None:
        _on_sim(encoder, sim, {"poses": "uniform", "n": 2000, "seed": 0, "condition": "clean", **given}, as_json)


def _on_bag(encoder: Encoder, bag: Path, robot: str | None, topics: dict[str, str], as_json: bool) -> None:
    import numpy as np

    from ropes_ros.evaluation import evaluate as evaluate_model
    from ropes_ros.robot import bundled_robot, load_robot

    arm = bundled_robot(encoder.info.robot) if robot is None else load_robot(robot)
    result = evaluate_model(encoder, bag, arm, topics=topics)
    metrics = result.metrics
    joints = [
        {
            "name": name,
            _ERROR_KEYS[unit]: error,
            "correlation": float(metrics.correlation[index]),
            **{f"within_{sigmas}_std": float(share[index]) for sigmas, share in result.coverage.items()},
        }
        for index, (name, (error, unit)) in enumerate(
            zip(encoder.info.joint_names, arm.in_figures(metrics.mae), strict=True)
        )
    ]
    tip_90 = float(np.percentile(metrics.tip_error_mm, 90))
    if as_json:
        print_json(
            {
                "frames": len(result.truth),
                "frames_without_joint_states": result.uncovered,
                "in_sample": result.in_sample,
                "mcc": metrics.mcc,
                "r2": metrics.r2,
                "mean_mae_deg": _known(metrics.mean_mae_deg),
                "tip_error_mm_median": metrics.tip_error_mm_median,
                "tip_error_mm_90": tip_90,
                "tip_rotation_deg_median": result.tip_rotation.median_deg,
                "level_label_noise_half_ranges": encoder.info.level_label_noise,
                "joints": joints,
                "tracking": None if result.tracking is None else _tracked(encoder.info.joint_names, result.tracking),
            }
        )
        return
    if result.in_sample:
        console.print("warning: the model was trained on this bag: these figures are in sample", style="yellow")
    left_out = f", {result.uncovered} more left out, without joint states" if result.uncovered else ""
    tip = f"median {metrics.tip_error_mm_median:.0f} mm, 90 % below {tip_90:.0f} mm"
    _print(encoder, arm, result, f"{len(result.truth)}{left_out}", tip)
    for finding in () if result.tracking is None else result.tracking.sentences:
        console.print(f"note: {finding}", style="yellow")


def _tracked(joint_names: Sequence[str], tracking: TrackingReport) -> dict[str, Any]:
    """How well the robot reached what was commanded, for JSON."""

    joints = [
        {"name": name, "distance_half_ranges": _known(distance), "shift_half_ranges": _known(shift)}
        for name, distance, shift in zip(joint_names, tracking.mean, tracking.shift, strict=True)
    ]
    return {"joints": joints, "findings": list(tracking.sentences)}


def _on_sim(encoder: Encoder, sim: str, settings: dict[str, Any], as_json: bool) -> None:
    from ropes_ros.evaluation import evaluate_sim
    from ropes_ros.robot import load_robot

    arm = load_robot(sim)
    result = evaluate_sim(encoder, arm, **settings)
    metrics = result.metrics
    tip_mean = float(metrics.tip_error_mm.mean())
    if as_json:
        print_json(
            {
                "robot": encoder.info.robot,
                "joint_names": list(encoder.info.joint_names),
                **settings,
                "mcc": metrics.mcc,
                "r2": metrics.r2,
                "joint_mae_deg": [_known(value) for value in metrics.mae_deg],
                "mean_joint_mae_deg": _known(metrics.mean_mae_deg),
                "tip_error_mm_median": metrics.tip_error_mm_median,
                "tip_error_mm_mean": tip_mean,
                "tip_rotation_deg_median": result.tip_rotation.median_deg,
                "coverage_2std": result.coverage["2"].tolist(),
                "level_label_noise_half_ranges": encoder.info.level_label_noise,
            }
        )
        return
    frames = f"{settings['n']} fresh {settings['poses']} poses, {settings['condition']}, seed {settings['seed']}"
    tip = f"median {metrics.tip_error_mm_median:.0f} mm, mean {tip_mean:.0f} mm"
    _print(encoder, arm, result, frames, tip)


def _known(value: float) -> float | None:
    """A figure for JSON, which has no other word for what is not a number."""
    return float(value) if math.isfinite(value) else None


def _print(encoder: Encoder, arm: Robot, result: Evaluation, frames: str, tip: str) -> None:
    """The figures for a person."""
    from ropes_ros.metrics import mean_error_text

    metrics = result.metrics
    print_facts(
        {
            "frames": frames,
            "supervision": f"{encoder.info.supervision}; a level is worth a position label with a standard deviation "
            f"of {encoder.info.level_label_noise:.3f} half ranges",
            "MCC": f"{metrics.mcc:.3f}",
            "R2": f"{metrics.r2:.3f}",
            "mean joint error": mean_error_text(arm, metrics.mae),
            "tip error": tip,
            "tip rotation error": f"median {result.tip_rotation.median_deg:.2f} deg",
        }
    )
    print_table(
        ["joint", "mean error", "|correlation|", *(f"within {sigmas} std" for sigmas in result.coverage)],
        [
            (
                name,
                f"{error:.2f} {unit}",
                f"{metrics.correlation[index]:.3f}",
                *(f"{share[index]:.0%}" for share in result.coverage.values()),
            )
            for index, (name, (error, unit)) in enumerate(
                zip(encoder.info.joint_names, arm.in_figures(metrics.mae), strict=True)
            )
        ],
    )

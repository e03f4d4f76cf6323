"""`ropes train`, `ropes export`, `ropes evaluate`: from an intervention bag to a model, and how good it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ropes_ros.cli.output import (
    Json,
    ModelRobotOption,
    TopicsOption,
    console,
    in_words,
    print_facts,
    print_json,
    print_table,
    topics_by_role,
)
from ropes_ros.errors import RuntimeSetupError, TrainingError

if TYPE_CHECKING:
    from ropes_ros.learning.train import Epoch, TrainConfig


SMALLEST = 16
"""Least width and height in pixels of the images that the network sees."""


def train(
    bag: Annotated[Path, typer.Argument(help="Intervention bag to learn from.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the checkpoint.")] = Path("out/train"),
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training frames.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Source of split, initial weights and order.")] = 0,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Image size that the network sees, for example 96x72.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the checkpoint in the folder.")] = False,
    topic: TopicsOption = None,
    schedule: Annotated[
        Path | None, typer.Option(help="The schedule that was commanded, for bags that do not hold it.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for resized images; may be deleted at any time.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train an encoder from images and commanded regimes; joint_states in the bag are not read."""
    _need("torch", "train")
    from rich.progress import Progress

    from ropes_ros.dataset import load_frames
    from ropes_ros.learning.train import train as train_encoder
    from ropes_ros.regimes import Schedule

    config = _config(epochs, seed, size)
    _writable(out)
    frames = load_frames(
        bag,
        size=config.image_size,
        cache_dir=cache or _cache_dir(),
        topics=topics_by_role(topic),
        schedule=None if schedule is None else Schedule.load(schedule),
    )
    with Progress(console=console, disable=as_json, transient=True) as progress:
        task = progress.add_task("training", total=None)

        def on_step(done: int, total: int, loss: float) -> None:
            progress.update(task, completed=done, total=total, description=f"training, loss {loss:.3f}")

        def on_epoch(epoch: Epoch, floor: float) -> None:
            if not as_json:
                progress.console.print(
                    f"epoch {epoch.epoch}: training {epoch.training_loss:.3f}, held out {epoch.validation_loss:.3f}, "
                    f"floor {floor:.3f} nats, {in_words(epoch.seconds)}"
                )

        result = train_encoder(frames, out, config=config, resume=resume, on_step=on_step, on_epoch=on_epoch)
    best = result.history[result.best_epoch - 1]
    if as_json:
        print_json(
            {
                "checkpoint": str(result.checkpoint),
                "frames": result.frames,
                "best_epoch": result.best_epoch,
                "held_out_loss": best.validation_loss,
                "floor": result.floor,
                "seconds": result.seconds,
            }
        )
        return
    console.print(
        f"kept epoch {result.best_epoch} (held out {best.validation_loss:.3f} nats, floor {result.floor:.3f}) "
        f"after {in_words(result.seconds)}; next: `ropes export {result.checkpoint} models/NAME`"
    )


def export(
    checkpoint: Annotated[Path, typer.Argument(help="checkpoint.pt that `ropes train` wrote.")],
    model: Annotated[Path, typer.Argument(help="Folder for model.onnx and card.md.")],
    robot: ModelRobotOption = None,
) -> None:
    """Export a checkpoint as a model file that the estimator runs, with its card."""
    _need("torch", "train")
    _need("onnx", "train")
    from ropes_ros.export import export as export_model

    if not checkpoint.is_file():
        raise TrainingError(f"{checkpoint}: no such checkpoint; run `ropes train` first")
    _writable(model)
    console.print(f"written: {export_model(checkpoint, model, robot=robot)}")


def evaluate(
    model: Annotated[Path, typer.Argument(help="Model folder or model.onnx.")],
    bag: Annotated[Path, typer.Argument(help="Bag with images and joint_states.")],
    robot: ModelRobotOption = None,
    topic: TopicsOption = None,
    as_json: Json = False,
) -> None:
    """Compare a model's estimates over a bag with the bag's measured joint_states."""
    import numpy as np

    from ropes_ros.encoder import load_encoder
    from ropes_ros.evaluation import evaluate as evaluate_model
    from ropes_ros.robot import load_robot

    encoder = load_encoder(model)
    arm = None if robot is None else load_robot(robot)
    result = evaluate_model(encoder, bag, arm, topics=topics_by_role(topic))
    metrics = result.metrics
    joints = [
        {
            "name": name,
            "mae_deg": float(metrics.mae_deg[index]),
            "correlation": float(metrics.correlation[index]),
            **{f"within_{sigmas}_std": float(share[index]) for sigmas, share in result.coverage.items()},
        }
        for index, name in enumerate(encoder.info.joint_names)
    ]
    content: dict[str, Any] = {
        "frames": len(result.truth),
        "frames_without_joint_states": result.uncovered,
        "in_sample": result.in_sample,
        "mcc": metrics.mcc,
        "r2": metrics.r2,
        "mean_mae_deg": metrics.mean_mae_deg,
        "tip_error_mm_median": metrics.tip_error_mm_median,
        "tip_error_mm_90": float(np.percentile(metrics.tip_error_mm, 90)),
        "level_label_noise_half_ranges": encoder.info.level_label_noise,
        "joints": joints,
    }
    if as_json:
        print_json(content)
        return
    if result.in_sample:
        console.print("warning: the model was trained on this bag: these figures are in sample", style="yellow")
    left_out = f", {result.uncovered} more left out, without joint states" if result.uncovered else ""
    print_facts(
        {
            "frames": f"{content['frames']}{left_out}",
            "supervision": f"levels worth a position label with a standard deviation of "
            f"{encoder.info.level_label_noise:.3f} half ranges; no measured pose",
            "MCC": f"{metrics.mcc:.3f}",
            "R2": f"{metrics.r2:.3f}",
            "mean joint error": f"{metrics.mean_mae_deg:.2f} deg",
            "tip error": f"median {metrics.tip_error_mm_median:.0f} mm, 90 % below {content['tip_error_mm_90']:.0f} mm",
        }
    )
    print_table(
        ["joint", "mean error deg", "|correlation|", *(f"within {sigmas} std" for sigmas in result.coverage)],
        [
            (
                joint["name"],
                f"{joint['mae_deg']:.2f}",
                f"{joint['correlation']:.3f}",
                *(f"{joint[f'within_{sigmas}_std']:.0%}" for sigmas in result.coverage),
            )
            for joint in joints
        ],
    )


def _need(package: str, extra: str) -> None:
    """Refuse with advice when an optional package is missing."""
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise RuntimeSetupError(f"{package} is not installed; run `pip install 'ropes_ros[{extra}]'`")


def _config(epochs: int | None, seed: int, size: str | None) -> TrainConfig:
    """Training settings from the options that were given."""
    from ropes_ros.learning.train import TrainConfig

    given: dict[str, Any] = {"seed": seed}
    if epochs is not None:
        given["epochs"] = epochs
    if size is not None:
        width, _, height = size.partition("x")
        if not (width.isdigit() and height.isdigit()):
            raise TrainingError(f"--size {size}: write it as WxH in pixels, for example 96x72")
        given["image_size"] = (int(width), int(height))
        if min(given["image_size"]) < SMALLEST:
            raise TrainingError(f"--size {size}: take at least {SMALLEST} pixels for width and height")
    return TrainConfig(**given)


def _writable(folder: Path) -> None:
    """Make a folder and see that files can be written there, before the work whose result goes there."""
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise TrainingError(f"{folder}: no file can be written there; name another folder, or mend its permissions")


def _cache_dir() -> Path:
    """The user's cache folder for resized images."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ropes_ros"

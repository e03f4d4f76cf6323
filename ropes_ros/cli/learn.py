"""`ropes train` and `ropes export`: from an intervention bag to a model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ropes_ros.cli.output import (
    Json,
    ModelRobotOption,
    TopicsOption,
    as_command,
    console,
    in_words,
    print_json,
    topics_by_role,
)
from ropes_ros.errors import RobotError, TrainingError
from ropes_ros.optional import need

if TYPE_CHECKING:
    from collections.abc import Callable

    from ropes_ros.dataset import FrameSet
    from ropes_ros.learning.supervision import CommandSupervision
    from ropes_ros.learning.train import Epoch, Progress, TrainConfig, TrainResult
    from ropes_ros.robot import Robot


METHODS = ("mechanism", "ropes")
SUPERVISIONS = ("regimes", "commands")
PUBLISHED_SIZE = (64, 64)
"""(width, height) of the images that the published method sees."""
SMALLEST = 16
"""Least width and height in pixels of the images that the network sees."""


def train(
    bag: Annotated[Path, typer.Argument(help="Intervention bag to learn from.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the checkpoint.")] = Path("out/train"),
    method: Annotated[
        str, typer.Option(help="`mechanism`, ours; or `ropes`, the published method with its own settings.")
    ] = "mechanism",
    permutation: Annotated[
        str, typer.Option(help="With --method ropes: which latent is which joint, by `commands` or `found` without.")
    ] = "commands",
    task: Annotated[
        str,
        typer.Option(
            help="What the latent must keep: mechanism, reconstruction, contrastive, contrastive-time or masked."
        ),
    ] = "mechanism",
    constraint: Annotated[
        str,
        typer.Option(
            help="What structure it has: none, independence, quantized or score; any but none leaves out --refine."
        ),
    ] = "none",
    constraint_weight: Annotated[float, typer.Option(min=0.0, help="Factor on the constraint's penalty.")] = 1.0,
    backbone: Annotated[
        str | None,
        typer.Option(help="small (the default), residual-small, residual or residual-large; +coordinates may follow."),
    ] = None,
    pretrain: Annotated[str, typer.Option(help="Task to train first, on all frames; none for none.")] = "none",
    supervision: Annotated[
        str,
        typer.Option(help="`regimes`, the levels alone; or `commands`, the commanded positions with a learned lag."),
    ] = "regimes",
    refine: Annotated[
        bool, typer.Option("--refine/--no-refine", help="Find the camera, look closer, correct the angles.")
    ] = True,
    init: Annotated[
        Path | None,
        typer.Option(help="Model folder or checkpoint to adapt, for example to a camera that was moved."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training frames.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Source of split, initial weights and order.")] = 0,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Image size that the first network sees, for example 96x72.")
    ] = None,
    compiled: Annotated[
        bool,
        typer.Option("--compile", help="Compile the first network: pays in long runs, needs a C++ compiler."),
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the checkpoint in the folder.")] = False,
    robot: ModelRobotOption = None,
    topic: TopicsOption = None,
    schedule: Annotated[
        Path | None, typer.Option(help="The schedule that was commanded, for bags that do not hold it.")
    ] = None,
    schedule_start: Annotated[
        int | None,
        typer.Option(metavar="NS", help="When the schedule began, ns since the epoch, for bags without regimes."),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for resized images; may be deleted at any time.")
    ] = None,
    tensorboard: Annotated[Path | None, typer.Option(help="Folder for TensorBoard's event files.")] = None,
    as_json: Json = False,
) -> None:
    """Train an encoder from images and commanded regimes; joint_states in the bag are not read."""
    need("torch", extra="train")
    from rich.progress import Progress

    from ropes_ros.dataset import load_frames
    from ropes_ros.learning.checkpoint import crop_of, find_checkpoint, load_checkpoint
    from ropes_ros.learning.pipeline import learn
    from ropes_ros.learning.refine import RefineConfig
    from ropes_ros.learning.tasks import REGIME_LOSSES
    from ropes_ros.regimes import Schedule

    if method not in METHODS:
        raise TrainingError(f"--method {method}: take one of {', '.join(METHODS)}")
    if supervision not in SUPERVISIONS:
        raise TrainingError(f"--supervision {supervision}: take one of {', '.join(SUPERVISIONS)}")
    if supervision == "commands" and (task, constraint, pretrain) != ("mechanism", "none", "none"):
        raise TrainingError(
            "--supervision commands is a likelihood of its own, which knows no --task, --constraint or --pretrain; "
            "leave them out"
        )
    if method == "ropes":
        ours = {"--task": task != "mechanism", "--constraint": constraint != "none", "--pretrain": pretrain != "none"}
        ours |= {"--init": init is not None, "--epochs": epochs is not None, "--size": size is not None}
        ours |= {"--backbone": backbone is not None, "--supervision": supervision != "regimes", "--resume": resume}
        ours |= {"--compile": compiled, "--constraint-weight": constraint_weight != 1.0, "--no-refine": not refine}
        ours |= {"--tensorboard": tensorboard is not None}
        if any(ours.values()):
            raise TrainingError(
                f"{next(name for name, given in ours.items() if given)} does not go with --method ropes, which has the "
                "published settings; leave it out"
            )
    elif permutation != "commands":
        raise TrainingError("--permutation goes with --method ropes; leave it out")
    settings = {"task": task, "constraint": constraint, "constraint_weight": constraint_weight, "pretrain": pretrain}
    settings["compile"] = compiled
    by_regimes = supervision == "regimes"
    if backbone is not None:
        settings["backbone"] = backbone
    _known(task, constraint, pretrain)
    config = _config(epochs, seed, size, init, settings)
    writable(out)
    with Progress(console=console, disable=as_json, transient=True) as progress:
        bar = progress.add_task("reading", total=None)
        frames = load_frames(
            bag,
            size=PUBLISHED_SIZE if method == "ropes" else config.image_size,
            cache_dir=cache or cache_dir(),
            topics=topics_by_role(topic),
            schedule=None if schedule is None else Schedule.load(schedule),
            schedule_start_ns=schedule_start,
            progress=lambda done, total: progress.update(bar, completed=done, total=total),
            crop=None if init is None else crop_of(load_checkpoint(find_checkpoint(init)), follows=True),
        )

        def on_step(done: int, total: int, loss: float) -> None:
            progress.update(bar, completed=done, total=total, description=f"training, loss {loss:.3f}")

        def on_epoch(epoch: Epoch, floor: float) -> None:
            if not as_json:
                what = "commands" if epoch.task == "given" else epoch.task
                unit = f", floor {floor:.3f} nats" if by_regimes and epoch.task in REGIME_LOSSES else ""
                progress.console.print(
                    f"{what} {epoch.epoch}: training {epoch.training_loss:.3f}, held out "
                    f"{epoch.validation_loss:.3f}{unit}, {in_words(epoch.seconds)}"
                )

        if method == "ropes":
            result, findings = _ropes(frames, out, seed, permutation, on_step, on_epoch)
        else:
            look_closer = refine and task == "mechanism" and constraint == "none"
            if refine and not look_closer and not as_json:
                progress.console.print(
                    "note: no second look follows: it goes with --task mechanism and --constraint none alone",
                    style="yellow",
                )
            arm = _arm(robot or frames.robot) if look_closer or supervision == "commands" else None
            learned = learn(
                frames,
                out,
                robot=arm,
                config=config,
                refinement=RefineConfig() if look_closer else None,
                task=_commands(bag, arm, topics_by_role(topic), seed) if supervision == "commands" else None,
                init=init,
                resume=resume,
                log_dir=tensorboard,
                on_step=on_step,
                on_epoch=on_epoch,
                on_phase=None if as_json else lambda what: progress.console.print(f"{what} ..."),
            )
            result, findings = learned.result, learned.findings
    if int(os.environ.get("RANK", "0")) > 0:  # of processes that torchrun started, the first one speaks
        return
    if as_json:
        print_json(
            {
                "checkpoint": str(result.checkpoint),
                "frames": result.frames,
                "best_epoch": result.best_epoch,
                "held_out_loss": result.held_out_loss,
                "regime_loss": result.calibration.loss,
                "floor": result.calibration.bayes_floor,
                "seconds": result.seconds,
                "findings": list(findings),
            }
        )
        return
    for finding in findings:
        console.print(f"note: {finding}", style="yellow")
    kept = f"epoch {result.best_epoch}" if result.best_epoch else "the weights that were started from"
    console.print(
        f"kept {kept}; regime loss after calibration {result.calibration.loss:.3f}, floor "
        f"{result.calibration.bayes_floor:.3f} nats; next: "
        f"`{as_command('ropes', 'export', result.checkpoint, 'models/NAME')}`",
        soft_wrap=True,
    )


def _arm(robot: str) -> Robot:
    """The robot that was recorded, by its preset's name or path."""
    from ropes_ros.robot import load_robot

    try:
        return load_robot(robot)
    except RobotError as error:
        raise RobotError(f"{error}; name it with --robot FILE, or leave out what needs it (--no-refine)") from None


def _ropes(
    frames: FrameSet,
    out: Path,
    seed: int,
    permutation: str,
    on_step: Progress,
    on_epoch: Callable[[Epoch, float], None],
) -> tuple[TrainResult, tuple[str, ...]]:
    """The published method, with its own settings."""
    from ropes_ros.learning.ropes import RopesConfig, train_ropes

    config = RopesConfig(seed=seed, permutation=permutation)
    result = train_ropes(frames, out, config=config, on_step=on_step, on_epoch=on_epoch)
    return result, tuple(result.notes)


def _commands(bag: Path, robot: Robot | None, topics: dict[str, str], seed: int) -> CommandSupervision:
    """The likelihood of the commanded positions, from the bag's command topic."""
    from ropes_ros.commands import load_commands
    from ropes_ros.learning.supervision import commands_task

    return commands_task(load_commands(bag, robot, topics=topics), seed=seed)


def export(
    checkpoint: Annotated[
        Path, typer.Argument(help="checkpoint.pt that `ropes train` wrote, or checkpoint.int8.pt of `ropes quantize`.")
    ],
    model: Annotated[Path, typer.Argument(help="Folder for model.onnx and card.md.")],
    robot: ModelRobotOption = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(help="Of checkpoint.int8.pt: int8, int4, int2 or mixed, all that it has by default; repeatable."),
    ] = None,
    frames: Annotated[
        Path | None,
        typer.Option(metavar="BAG", help="Store frames of this bag too; 16 bit runs only where they vouch for it."),
    ] = None,
    topic: TopicsOption = None,
) -> None:
    """Export a checkpoint as a model file that the estimator runs, with its card."""
    need("torch", "onnx", extra="train")
    from ropes_ros.bag_images import sample_images
    from ropes_ros.encoder import MAX_FRAMES
    from ropes_ros.export import export as export_model
    from ropes_ros.export import export_quantised, is_quantised

    if not checkpoint.is_file():
        raise TrainingError(f"{checkpoint}: no such checkpoint; run `ropes train` first")
    writable(model)
    stored = None if frames is None else sample_images(frames, MAX_FRAMES, topics=topics_by_role(topic))
    if not is_quantised(checkpoint):
        if precision and not set(precision) <= {"fp32", "fp16"}:
            raise TrainingError(f"{checkpoint}: has no integer weights; make some with `ropes quantize`")
        console.print(f"written: {export_model(checkpoint, model, robot=robot, frames=stored)}")
        return
    written = export_quantised(checkpoint, model, robot=robot, precisions=precision or (), frames=stored)
    console.print(f"written: {', '.join(str(path) for path in written.values())}", soft_wrap=True)


def _known(task: str, constraint: str, pretrain: str) -> None:
    """Refuse names of tasks and constraints that there are not, before images are read."""
    from ropes_ros.learning.constraints import CONSTRAINTS
    from ropes_ros.learning.tasks import TASKS

    for option, name, names in (
        ("--task", task, TASKS),
        ("--constraint", constraint, CONSTRAINTS),
        ("--pretrain", pretrain, (*TASKS, "none")),
    ):
        if name not in names:
            raise TrainingError(f"{option} {name}: take one of {', '.join(names)}")


def _config(
    epochs: int | None, seed: int, size: str | None, init: Path | None, settings: dict[str, Any]
) -> TrainConfig:
    """Training settings from the options that were given, and from the model that is adapted."""
    from ropes_ros.learning.checkpoint import encoder_of, find_checkpoint, load_checkpoint
    from ropes_ros.learning.train import TrainConfig

    given: dict[str, Any] = {"seed": seed, **settings}
    if init is not None:
        known = encoder_of(load_checkpoint(find_checkpoint(init)))[0]
        if known["kind"] != "angle":
            raise TrainingError(f"{init}: a network of --method ropes, which cannot be adapted: start from one of ours")
        given = {"image_size": tuple(known["image_size"]), "backbone": known["backbone"], **given}
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


def writable(folder: Path) -> None:
    """Make a folder and see that files can be written there, before the work whose result goes there."""
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise TrainingError(f"{folder}: no file can be written there; name another folder, or mend its permissions")


def cache_dir() -> Path:
    """The user's cache folder for resized images."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ropes_ros"

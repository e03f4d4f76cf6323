"""`ropes quantize` and `ropes model`: integer weights for a trained encoder, and its updates as differences."""

from __future__ import annotations

from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ropes_ros.cli.learn import cache_dir, writable
from ropes_ros.cli.output import Json, TopicsOption, as_command, console, in_words, print_json, topics_by_role
from ropes_ros.errors import RopesError, TrainingError
from ropes_ros.optional import need

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ropes_ros.learning.qat import Lesson, QuantiseConfig
    from ropes_ros.learning.quantize import QuantisedNet

model = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Send a model's update, or another precision of it, as a difference.",
)


class Bits(str, Enum):
    """Bits of a weight, on the command line."""

    EIGHT, FOUR, TWO = "8", "4", "2"


def quantize(
    checkpoint: Annotated[Path, typer.Argument(help="checkpoint.pt that `ropes train` wrote.")],
    bag: Annotated[Path, typer.Argument(help="The intervention bag that it was trained on.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for checkpoint.int8.pt.")] = Path("out/quantize"),
    steps: Annotated[int | None, typer.Option(min=0, help="Steps of the fine-tuning; 0 rounds only.")] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Training frames at most.")] = None,
    extra: Annotated[bool, typer.Option("--extra", help="Slices keep the value that clamping takes.")] = False,
    edges: Annotated[Bits, typer.Option(help="Bits that the first and the last layers have at least.")] = Bits.EIGHT,
    convolutions: Annotated[Bits, typer.Option(help="Bits that the other convolutions have at least.")] = Bits.EIGHT,
    mixed: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, metavar="SHARE", help="Also a precision a layer, within this share of 32 bits."),
    ] = None,
    mixed_loss: Annotated[
        float | None,
        typer.Option(min=0.0, metavar="NATS", help="The same, with this loss at most above that of int8."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Source of order and augmentation.")] = 0,
    topic: TopicsOption = None,
    as_json: Json = False,
) -> None:
    """Fine-tune a trained encoder so that its int8 weights hold int4 and int2 ones; joint_states are not read."""
    if mixed is not None and mixed_loss is not None:
        raise RopesError("--mixed and --mixed-loss are two budgets: give one of them")
    need("torch", extra="train")
    from dataclasses import replace

    from rich.progress import Progress

    from ropes_ros.dataset import load_frames
    from ropes_ros.learning.checkpoint import crop_of, encoder_of, load_checkpoint
    from ropes_ros.learning.qat import QuantiseConfig, quantise
    from ropes_ros.learning.quantize import CONVOLUTIONS, EDGES

    content = load_checkpoint(checkpoint)
    architecture = encoder_of(content)[0]
    least = {EDGES: int(edges.value), CONVOLUTIONS: int(convolutions.value)}
    config = QuantiseConfig(seed=seed, extra=extra, least=least)
    _assert_possible(content, config, mixed)
    size = architecture["image_size"]
    writable(out)
    config = replace(config, steps=config.steps if steps is None else steps, frames=frames or config.frames)
    with Progress(console=console, disable=as_json, transient=True) as progress:
        bar = progress.add_task("reading", total=None)
        recorded = load_frames(
            bag,
            size=(size[0], size[1]),
            cache_dir=cache_dir(),
            topics=topics_by_role(topic),
            progress=lambda done, total: progress.update(bar, completed=done, total=total),
            crop=crop_of(content, follows=False),
        )
        result = quantise(
            recorded,
            checkpoint,
            out,
            config=config,
            plans=None if mixed is None and mixed_loss is None else partial(_mixed, mixed, mixed_loss),
            on_step=lambda done, total, loss: progress.update(
                bar, completed=done, total=total, description=f"fine-tuning, loss {loss:.3f}"
            ),
            on_phase=None if as_json else lambda what: progress.console.print(f"{what} ..."),
        )
    if as_json:
        print_json({"checkpoint": str(result.checkpoint), "held_out": result.held_out, "seconds": result.seconds})
        return
    losses = ", ".join(f"{name} {loss:.3f}" for name, loss in result.held_out.items())
    console.print(
        f"held-out loss: {losses}; {in_words(result.seconds)}; next: "
        f"`{as_command('ropes', 'export', result.checkpoint, 'models/NAME')}` into the folder of the exported model",
        soft_wrap=True,
    )


def _assert_possible(content: Mapping[str, Any], config: QuantiseConfig, share: float | None) -> None:
    """Refuse a network that cannot be quantised, and a share that no choice of bits keeps to, before the work."""
    from ropes_ros.learning.quantize import QuantisedNet, size_share
    from ropes_ros.nested import WIDTHS

    made = {"kind": "quantised", "inner": content["architecture"], "extra": config.extra, "least": config.least}
    least = size_share(QuantisedNet(made), min(WIDTHS))
    if share is not None and share < least:
        raise TrainingError(f"--mixed {share:g}: with the fewest bits this network's weights take {least:.3f}")


def _mixed(
    size: float | None, loss: float | None, net: QuantisedNet, lesson: Lesson
) -> Mapping[str, Mapping[str, int]]:
    """The plan of the mixed precision within a budget."""
    from ropes_ros.learning.mixing import mix

    return {"mixed": mix(net, lesson.judge, size=size, loss=loss).plan}


@model.command("diff")
def diff(
    old: Annotated[Path, typer.Argument(help="The model file that the robot has, for example model.int2.onnx.")],
    new: Annotated[Path, typer.Argument(help="The one that it is to have, beside its card.")],
    out: Annotated[Path, typer.Argument(help="File for the difference.")],
) -> None:
    """Write what makes one model file of another: of nested weights, the residual bits alone."""
    from ropes_ros.model_delivery import difference

    size = difference(old, new, out)
    console.print(f"written: {out}, {size} bytes in place of {new.stat().st_size}", soft_wrap=True)


@model.command("apply")
def apply(
    old: Annotated[Path, typer.Argument(help="The model file that is there.")],
    difference: Annotated[Path, typer.Argument(help="What `ropes model diff` wrote.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder; the old file's by default.")] = None,
) -> None:
    """Make the new model file, verified by its SHA-256, and put it and its card into the folder."""
    from ropes_ros.model_delivery import apply as apply_difference

    console.print(f"written: {apply_difference(old, difference, out)}", soft_wrap=True)

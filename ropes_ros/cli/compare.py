"""`ropes compare`: which of several trained networks to keep, told by commanded levels alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ropes_ros.cli.learn import cache_dir
from ropes_ros.cli.output import Json, TopicsOption, console, print_json, print_table, topics_by_role
from ropes_ros.errors import TrainingError
from ropes_ros.optional import need

if TYPE_CHECKING:
    from ropes_ros.bags import Bag


def compare(
    bag: Annotated[Path, typer.Argument(help="Intervention bag to compare on; one that none was trained on is best.")],
    checkpoints: Annotated[list[Path], typer.Argument(help="Two or more checkpoint.pt, or folders that hold one.")],
    topic: TopicsOption = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for resized images; may be deleted at any time.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Choose among trained networks without a measured pose: the lowest regime loss on frames that none has seen."""
    need("torch", extra="train")
    import numpy as np

    from ropes_ros.bags import open_bag
    from ropes_ros.dataset import load_frames
    from ropes_ros.learning.checkpoint import crop_of, find_checkpoint, load_checkpoint
    from ropes_ros.learning.ensemble import select

    if len(checkpoints) < 2:
        raise TrainingError(f"{checkpoints[0]}: name two checkpoints or more to choose among")
    paths = [find_checkpoint(path) for path in checkpoints]
    contents = [load_checkpoint(path) for path in paths]
    sizes = [tuple(content["config"]["image_size"]) for content in contents]
    if len(set(sizes)) > 1:
        told = ", ".join(f"{path} {width}x{height}" for path, (width, height) in zip(paths, sizes, strict=True))
        raise TrainingError(f"networks of different image sizes do not compare ({told}): choose among equals")
    with open_bag(bag, topics=topics_by_role(topic)) as opened:
        for path, content in zip(paths, contents, strict=True):
            _check(path, content, opened)
    frames = [
        load_frames(
            bag,
            size=sizes[0],
            cache_dir=cache or cache_dir(),
            topics=topics_by_role(topic),
            crop=crop_of(content, follows=False),
        )
        for content in contents
    ]
    result = select(paths, frames)
    means = [float(np.nanmean(losses)) for losses in result.losses]
    if as_json:
        print_json(
            {
                "best": str(paths[result.best]),
                "frames": result.frames,
                "models": [
                    {"checkpoint": str(path), "regime_loss": mean, "error_of_difference": float(error)}
                    for path, mean, error in zip(paths, means, result.errors, strict=True)
                ],
            }
        )
        return
    rows = [
        (str(path), f"{mean:.4f}", "best" if number == result.best else f"± {error:.4f}")
        for number, (path, mean, error) in enumerate(zip(paths, means, result.errors, strict=True))
    ]
    print_table(["checkpoint", "regime loss, nats", "error of the difference to the best"], rows)
    console.print(f"on {result.frames} frames that none was trained on; no measured pose was read")


def _check(path: Path, content: Mapping[str, Any], bag: Bag) -> None:
    """Refuse a network that a bag's schedule cannot judge.

    Raises:
        TrainingError: They are of different joints or ranges.
    """
    frames, joints = content["frames"], bag.schedule.joints
    asked = [(joint.name, joint.home, joint.half_range) for joint in joints]
    known = list(zip(frames["joint_names"], frames["home"], frames["half_range"], strict=True))
    if asked != known:
        raise TrainingError(
            f"{path}: a network of robot {frames['robot']} with {len(known)} joints, {bag.path} is of robot "
            f"{bag.schedule.robot} with {len(asked)}, or of other ranges: compare on a bag of the same preset"
        )

"""The file that training leaves: how it is written, read, and turned into a network again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ropes_ros.errors import TrainingError
from ropes_ros.framing import Crop, Region
from ropes_ros.learning import networks

CHECKPOINT_VERSION = 2
CHECKPOINT_FILE = "checkpoint.pt"
_INNER = {"aligned": "inner", "cascade": "base"}
"""Where networks of the kinds that are built about another one keep it."""


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint next to its place and move it there, so that a killed run leaves the last whole one.

    Args:
        path: The file.
        content: Tensors and plain values; the version is added.

    Raises:
        TrainingError: It cannot be written.
    """
    temporary = path.with_suffix(".partial")
    try:
        torch.save({"version": CHECKPOINT_VERSION, **content}, temporary)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch tells a full disk as a RuntimeError
        raise TrainingError(f"{path}: cannot be written ({error}); make room or choose another folder") from None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint (tensors and plain values only, so that a foreign file cannot run code).

    Raises:
        TrainingError: Missing, damaged, or of another version.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TrainingError(f"{path}: no such checkpoint; run `ropes train` first") from None
    except Exception as error:
        raise TrainingError(f"{path}: cannot be read as a checkpoint ({type(error).__name__}); train again") from None
    if not isinstance(content, dict) or content.get("version") != CHECKPOINT_VERSION:
        raise TrainingError(f"{path}: not a checkpoint of version {CHECKPOINT_VERSION}; train again")
    return content


def provenance(supervision: str, bag_hash: str, start: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a model has been told, and what it was trained on, those that it was started from included.

    Args:
        supervision: Of its own training, in words.
        bag_hash: Of its own recording.
        start: Checkpoint that it was started from, None for none.

    Returns:
        "supervision" and "bags", entries of its checkpoint.
    """
    if start is None:
        return {"supervision": supervision, "bags": [bag_hash]}
    told = str(start["supervision"])
    text = supervision if told == supervision else f"{supervision}; started from a model that was told: {told}"
    return {"supervision": text, "bags": list(dict.fromkeys([*bags_of(start), bag_hash]))}


def bags_of(content: Mapping[str, Any]) -> tuple[str, ...]:
    """Hashes of the bags that a checkpoint's network has seen in training; older ones name their own alone."""
    return tuple(content.get("bags", (content["frames"]["bag_hash"],)))


def crop_of(content: Mapping[str, Any], *, follows: bool) -> Crop:
    """The part of the camera's image that a checkpoint's network knows; see `framing.Crop` for `follows`."""
    return Crop(Region(*(int(value) for value in content["frames"]["region"])), follows)


def load_net(content: dict[str, Any]) -> nn.Module:
    """The network of a checkpoint with the weights that were kept, on the CPU, in evaluation mode.

    Args:
        content: What `load_checkpoint` gave.
    """
    net = networks.build(content["architecture"])
    net.load_state_dict(content["best"])
    return net.eval()


def encoder_of(content: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Architecture and kept weights of the first network, without what was put about it later.

    Args:
        content: What `load_checkpoint` gave.

    Raises:
        TrainingError: Its weights are integers, from which no training starts.
    """
    architecture, weights = content["architecture"], content["best"]
    if architecture["kind"] == "quantised":
        raise TrainingError("this checkpoint has integer weights: name the one that `ropes train` wrote, checkpoint.pt")
    while architecture["kind"] in _INNER:
        inner = _INNER[architecture["kind"]]
        weights = part(weights, inner)
        architecture = architecture[inner]
    return architecture, weights


def part(weights: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Those weights of a network that are of one of its parts, by the names that they have in it."""
    start = f"{name}."
    return {key.removeprefix(start): value for key, value in weights.items() if key.startswith(start)}


def start_from(net: networks.AngleNet, content: dict[str, Any], path: Path | None) -> None:
    """Take over the weights of a checkpoint of an equal network, but for a codebook, which is learned anew.

    Args:
        net: The network.
        content: What `load_checkpoint` gave.
        path: Where it was, for messages.

    Raises:
        TrainingError: The checkpoint's network is another one.
    """
    architecture, weights = encoder_of(content)
    ours, theirs = ({**part, "dropout": None, "codes": None} for part in (net.architecture(), architecture))
    if ours != theirs:
        names = ", ".join(sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name)))
        raise TrainingError(f"{path}: its network differs in {names}: train with the same settings to start from it")
    net.load_state_dict({name: value for name, value in weights.items() if name != "codebook"})


def find_checkpoint(start: Path) -> Path:
    """The checkpoint to start from.

    Args:
        start: A checkpoint, or a model folder or model.onnx with `checkpoint.pt` beside the model.

    Raises:
        TrainingError: There is none.
    """
    if start.suffix == ".onnx":
        start = start.parent
    if start.is_dir():
        if not (start / CHECKPOINT_FILE).is_file():
            raise TrainingError(
                f"{start}: holds no {CHECKPOINT_FILE}, without which training cannot start from this model: copy the "
                "checkpoint that it was exported from there, or name that file"
            )
        return start / CHECKPOINT_FILE
    if not start.is_file():
        raise TrainingError(f"{start}: no such model or checkpoint to start from; name one that `ropes train` wrote")
    return start

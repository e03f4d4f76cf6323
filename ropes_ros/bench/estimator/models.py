"""The shipped network for a camera of another size, and pictures that it knows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropes_ros.encoder import OUTPUTS, load_encoder
from ropes_ros.framing import Region
from ropes_ros.paths import share_dir
from ropes_ros.robot import Robot, load_robot

ROBOT = "arm6"
PICTURES = 120
"""Different pictures that the camera shows in a loop."""
TURNS = (1, 2, 3, 2, 1, 3)
"""Sweeps of each joint, in turn, within one loop: whole numbers, so that the last picture goes over into the first."""
SHARE = 0.8
"""Share of each joint's commanded range that pictures show."""


@dataclass(frozen=True)
class Prepared:
    """What the runs with one camera size need; all files are below one folder.

    Attributes:
        size: (width, height) of the camera in pixels.
        model: Folder of `model.onnx` and `card.md`, as the node takes it.
        network: The same graph without its preprocessing, for the peer; see `Peering`.
        peering: JSON of a `Peering`.
        pictures: uint8 [PICTURES, height, width, 3] RGB, as a .npy file.
    """

    size: tuple[int, int]
    model: Path
    network: Path
    peering: Path
    pictures: Path


@dataclass(frozen=True)
class Peering:
    """What a node needs that prepares the network's inputs itself.

    Attributes:
        joint_names: In the order of the outputs.
        region: (left, top, width, height) of the part of the image that the network sees.
        small: (width, height) of the first network's picture.
        inputs: Names of the network's inputs: the small picture, and where there is a second look the region.
    """

    joint_names: tuple[str, ...]
    region: tuple[int, int, int, int]
    small: tuple[int, int]
    inputs: tuple[str, ...]


def shipped_checkpoint() -> Path:
    """The checkpoint that the shipped model was exported from."""
    return share_dir() / "models" / ROBOT / "checkpoint.pt"


def prepare(size: tuple[int, int], folder: Path, *, checkpoint: Path) -> Prepared:
    """Make a model for a camera size, and pictures, unless these are in the folder already.

    Args:
        size: (width, height) of the camera in pixels.
        folder: Where they go; of no other checkpoint.
        checkpoint: The trained network.

    Raises:
        RuntimeSetupError: Nothing can be rendered.
    """
    width, height = size
    own = folder / f"{width}x{height}"
    made = Prepared(size, own / "model", own / "network.onnx", own / "peering.json", own / "pictures.npy")
    own.mkdir(parents=True, exist_ok=True)
    if not made.pictures.is_file():
        temporary = made.pictures.with_suffix(".partial.npy")
        np.save(temporary, _render(load_robot(ROBOT), size))
        temporary.replace(made.pictures)
    _write_models(made, checkpoint, np.load(made.pictures))
    return made


def _write_models(made: Prepared, checkpoint: Path, pictures: NDArray[np.uint8]) -> None:
    from ropes_ros.export import export
    from ropes_ros.learning.checkpoint import load_checkpoint, save_checkpoint

    content = scaled(load_checkpoint(checkpoint), made.size)
    own = made.model.parent / "checkpoint.pt"
    save_checkpoint(own, content)
    export(own, made.model, frames=pictures)
    architecture = content["architecture"]
    first = architecture.get("base", architecture)
    peering = Peering(
        load_encoder(made.model).info.joint_names,
        Region(*content["frames"]["region"]),
        (first["image_size"][0], first["image_size"][1]),
        _cut_preprocessing(made.model / "model.onnx", made.network),
    )
    made.peering.write_text(json.dumps(asdict(peering)), encoding="utf-8")


def scaled(content: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """A checkpoint as it would be had the camera given larger or smaller pictures.

    The region, the camera found in training and the spacing of the second look's glimpses grow with the picture's
    height; all weights stay, and so does the size of what the networks see. Where the region gets smaller than the
    first network's picture that becomes as small, and weights that depend on its size are drawn anew: such a model
    takes the time that one of its size takes, and knows nothing.

    Args:
        content: What `load_checkpoint` gave.
        size: (width, height) of the camera in pixels; added or missing width is shared out to both sides.
    """
    from ropes_ros.learning import networks

    frames = content["frames"]
    before, factor = frames["camera_size"], size[1] / frames["camera_size"][1]
    left, top, width, height = (factor * side for side in frames["region"])
    left += 0.5 * (size[0] - factor * before[0])
    region = Region(max(0, round(left)), round(top), round(width), round(height))
    region = region._replace(width=min(region.width, size[0] - region.left), height=min(region.height, size[1]))
    architecture, weights = dict(content["architecture"]), dict(content["best"])
    for name in ("aim.spacing", "aim.camera.focal"):
        if name in weights:
            weights[name] = factor * weights[name]
    if "aim.camera.centre" in weights:
        weights["aim.camera.centre"] = factor * (weights["aim.camera.centre"] + 0.5) - 0.5
    first = architecture.get("base", architecture)
    small = [min(first["image_size"][0], region.width), min(first["image_size"][1], region.height)]
    if small != list(first["image_size"]):
        smaller = {**first, "image_size": small}
        architecture = {**architecture, "base": smaller} if "base" in architecture else smaller
        drawn = networks.build(architecture).state_dict()
        weights = {name: weights[name] if weights[name].shape == new.shape else new for name, new in drawn.items()}
    return {
        **content,
        "architecture": architecture,
        "best": weights,
        "frames": {**frames, "camera_size": list(size), "region": list(region)},
    }


def _cut_preprocessing(path: Path, network: Path) -> tuple[str, ...]:
    """Write the part of an exported graph that begins with float pictures; the names of its inputs.

    They are what was averaged by area and rounded, in 0..1, and for a second look the region, float [N, H, W, 3] in
    grey levels.
    """
    import onnx

    graph = onnx.load(str(path)).graph
    producers = {name: node for node in graph.node for name in node.output}

    def made_by(name: str) -> str:
        return producers[name].op_type if name in producers else ""

    small = next(node for node in graph.node if node.op_type == "Div" and made_by(node.input[0]) == "Round")
    region = next(node for node in graph.node if node.op_type == "Cast" and made_by(node.input[0]) in ("", "Slice"))
    inputs = [small.output[0], region.output[0]]
    onnx.utils.extract_model(str(path), str(network), inputs, list(OUTPUTS))
    cut = onnx.load(str(network))
    used = {name for node in cut.graph.node for name in node.input}
    for entry in [entry for entry in cut.graph.input if entry.name not in used]:
        cut.graph.input.remove(entry)
    onnx.save(cut, str(network))
    return tuple(name for name in inputs if name in used)


def _render(robot: Robot, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Pictures of the built-in arm on its way, uint8 [PICTURES, height, width, 3]."""
    from ropes_ros.sim.arm import SimArm

    arm = SimArm(robot, *size)
    turns = 2.0 * np.pi * np.resize(TURNS, len(robot.joints))
    pictures = np.empty((PICTURES, size[1], size[0], 3), dtype=np.uint8)
    try:
        for number in range(PICTURES):
            angles = SHARE * np.sin(turns * number / PICTURES + np.arange(len(turns)))
            arm.set_positions(robot.denormalise(angles))
            pictures[number] = arm.render()
    finally:
        arm.close()
    return pictures

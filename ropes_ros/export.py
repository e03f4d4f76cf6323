"""From a checkpoint to `models/NAME/model.onnx` and its card: preprocessing goes into the graph, parity is proved."""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ropes_ros import __version__, onnx_weights
from ropes_ros.encoder import (
    CARD_HEADING,
    CHECK_KEY,
    FRAMES_FILE,
    HALF_FILE,
    INPUT,
    METADATA_KEY,
    OUTPUTS,
    PRECISION_FILES,
    SCHEMA_VERSION,
    Encoder,
    ModelInfo,
    file_sha256,
    read_frames,
    stated_sha256,
    write_frames,
)
from ropes_ros.errors import ModelError, RuntimeSetupError, TrainingError
from ropes_ros.framing import Region, area_weights
from ropes_ros.learning.calibrate import Calibrated, Calibration
from ropes_ros.learning.checkpoint import bags_of, load_checkpoint, load_net
from ropes_ros.learning.quantised_checkpoint import calibrations_of, describe
from ropes_ros.learning.quantize import QuantisedConv2d, QuantisedNet, layer_weights
from ropes_ros.learning.tasks import LEVELS_ONLY, REGIME_LOSSES
from ropes_ros.nested import ZERO
from ropes_ros.onnx_weights import NestedWeight, quantise_biases, replace_weights
from ropes_ros.robot import Robot, bundled_robot, load_robot

OPSET = 17
PARITY_SHARE = 1e-3
"""Largest difference between torch and onnxruntime that an output may show, as a share of 1 + its largest magnitude."""
INTEGER_PARITY_SHARE = 2e-2
"""The same where activations are integers: a value between two of them may go to either."""
AXES = "feature_axes"
_CHOSE = "on validation spans, which chose the epoch"
"""Ends the name of the figure by which trainings are told apart."""


class DeployedEncoder(nn.Module):
    """The whole way from a camera image to radians, as one graph.

    Args:
        net: Trained network, of any kind in `ropes_ros.learning.networks`.
        calibration: Its constants.
        robot: Gives the joints' limits.
        region: The part of the camera's image that the network sees.
        home, half_range: The box that was commanded, rad, [J] each.
        integers: Whether the product for novelty is one of integers of 8 bits, each frame's features in units of the
            largest.
    """

    def __init__(
        self,
        net: nn.Module,
        calibration: Calibration,
        robot: Robot,
        region: Region,
        home: NDArray[np.float64],
        half_range: NDArray[np.float64],
        *,
        integers: bool = False,
    ) -> None:
        super().__init__()
        size: tuple[int, int] = net.image_size  # type: ignore[assignment]
        self.net = net
        self.sees_region = getattr(net, "sees_region", False)
        self.region, self.integers = region, integers
        width, height = size
        self.rows_each, self.columns_each = math.gcd(region.height, height), math.gcd(region.width, width)
        rows, share = _exact(area_weights(region.height // self.rows_each, height // self.rows_each))
        columns, other = _exact(area_weights(region.width // self.columns_each, width // self.columns_each))
        self.rows, self.columns, self.share = _constant(rows), _constant(columns.T), share * other
        self.home, self.half_range = _constant(home), _constant(half_range)
        self.lower, self.upper = _constant(robot.lower), _constant(robot.upper)
        self.calibrated = Calibrated(calibration)
        familiar = calibration.familiar
        self.feature_mean, self.feature_unit = _constant(familiar.mean), _constant(familiar.unit)
        self.feature_axes = _constant(familiar.axes)
        weights = familiar.weights / calibration.novelty_reference**2
        self.along, self.rest = _constant(weights[:-1]), float(weights[-1])

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """uint8 [N, H, W, 3] to position [N, J] rad, std [N, J] rad, novelty [N]."""
        left, top, width, height = self.region
        part = image if image.shape[1] == height else image[:, top : top + height]
        part = part if image.shape[2] == width else part[:, :, left : left + width]
        pixels = part.to(torch.float32)
        small = torch.round(self._resized(pixels) / self.share) / 255.0
        prediction = self.net(small, pixels.permute(0, 3, 1, 2)) if self.sees_region else self.net(small)
        angle, std = self.calibrated(prediction.angle, prediction.log_std)
        position = self.home + self.half_range * angle
        position = torch.minimum(torch.maximum(position, self.lower), self.upper)
        return position, self.half_range * std, self._novelty(prediction.features)

    def _resized(self, pixels: Tensor) -> Tensor:
        """Averages by area times a known share, float [N, H, W, 3] to [N, 3, h, w].

        Weights repeat after so many pixels that both sizes share. No sum is rounded, so that what lies in the middle of
        two grey levels does so in every runtime.
        """
        height, width = self.region.height, self.region.width
        lines = self.rows @ pixels.reshape(-1, self.rows_each, height // self.rows_each, width * 3)
        rows = self.rows_each * self.rows.shape[0]
        planes = lines.reshape(-1, rows, width, 3).permute(0, 3, 1, 2)
        parts = planes.reshape(-1, 3, rows, self.columns_each, width // self.columns_each) @ self.columns
        return parts.reshape(-1, 3, rows, self.columns_each * self.columns.shape[1])

    def _novelty(self, features: Tensor) -> Tensor:
        """As `Familiar.distance`, in units of the reference."""
        centred = (features - self.feature_mean) * self.feature_unit
        along = self._along(centred).square()
        rest = (centred.square().sum(dim=1) - along.sum(dim=1)).clamp(min=0.0)
        return (along @ self.along + rest * self.rest).sqrt()

    def _along(self, centred: Tensor) -> Tensor:
        """Features along the axes of novelty; as integers they are in units of each frame's largest."""
        if not self.integers:
            return centred @ self.feature_axes
        unit = centred.abs().amax(dim=1, keepdim=True).clamp(min=1e-6)
        whole = torch.fake_quantize_per_tensor_affine(centred / unit, 1.0 / 127.0, ZERO, 0, 255)
        return (whole @ self.feature_axes) * unit


def export(
    checkpoint: Path, model_dir: Path, *, robot: str | None = None, frames: NDArray[np.uint8] | None = None
) -> Path:
    """Export a trained checkpoint, in 32 and in 16 bit.

    Args:
        checkpoint: File that `ropes_ros.learning.train.train` finished.
        model_dir: Folder for `model.onnx` and `card.md`; made when missing, an older model in it is replaced.
        robot: Preset, or path of a preset's YAML; needed only where the robot's name is not that of a known preset.
        frames: Frames of the camera, uint8 [N, H, W, 3] RGB, to be stored beside the model: 16 bit can be used only
            where its loss was checked on them.

    Returns:
        Path of `model.onnx`; `model.fp16.onnx` lies beside it.

    Raises:
        TrainingError: The checkpoint is unreadable or its training did not end.
        ModelError: torch and onnxruntime disagree about the exported graph.
    """
    content, arm, camera_size = _read(checkpoint, robot)
    if "precisions" in content:
        raise TrainingError(f"{checkpoint}: has integer weights; export its precisions (`export_quantised`)")
    calibration = Calibration.from_dict(content["calibration"])
    if frames is not None:
        _check_frames(frames, camera_size, checkpoint)
    deployed = _deployed(load_net(content), calibration, arm, content)
    info = _describe(content, calibration, arm, camera_size)
    with _replacing(model_dir) as made:
        _write_graph(deployed, camera_size, made / "model.onnx", info)
        _assert_parity(deployed, camera_size, made / "model.onnx")
        _write_half(made / "model.onnx", made / HALF_FILE)
        if frames is not None:
            write_frames(made, frames)
        (made / "card.md").write_text(_card(info, made), encoding="utf-8")
        Encoder(made)
        for name in (FRAMES_FILE, *PRECISION_FILES.values()):
            (model_dir / name).unlink(missing_ok=True)
    return model_dir / "model.onnx"


def is_quantised(checkpoint: Path) -> bool:
    """Whether `export_quantised` exports this checkpoint, and not `export`.

    Raises:
        TrainingError: The checkpoint is unreadable.
    """
    return "precisions" in load_checkpoint(checkpoint)


def export_quantised(
    checkpoint: Path,
    model_dir: Path,
    *,
    robot: str | None = None,
    precisions: Sequence[str] = (),
    frames: NDArray[np.uint8] | None = None,
) -> dict[str, Path]:
    """Export the precisions of a checkpoint with integer weights, beside the model of which they are versions.

    Args:
        checkpoint: File that `ropes_ros.learning.qat.quantise` wrote.
        model_dir: Folder for `model.int8.onnx` and the like; its card, if there is one, gets their SHA-256.
        robot: See `export`.
        precisions: Names out of `encoder.PRECISION_FILES`; all that the checkpoint has when empty.
        frames: Frames of the camera, uint8 [N, H, W, 3] RGB, to be stored where none are: on those that are there the
            folder's other files are checked.

    Returns:
        Paths of the files by precision.

    Raises:
        TrainingError: The checkpoint is unreadable, or has no such precision.
        ModelError: No frames are there, the folder's model is of another robot or training, or torch and onnxruntime
            disagree; the folder is left as it was.
    """
    content, arm, camera_size = _read(checkpoint, robot)
    calibrations = calibrations_of(content)
    wanted = tuple(precisions) or tuple(content["precisions"])
    if unknown := [name for name in wanted if name not in content["precisions"]]:
        raise TrainingError(
            f"{checkpoint}: has no precision {unknown[0]!r}; it has {', '.join(content['precisions'])}"
        )
    _assert_same_training(model_dir / PRECISION_FILES["fp32"], content)
    net = load_net(content)
    assert isinstance(net, QuantisedNet)  # what has precisions is one
    with _replacing(model_dir) as made:
        if frames is None or (model_dir / FRAMES_FILE).is_file():
            read_frames(model_dir, camera_size)
            shutil.copy(model_dir / FRAMES_FILE, made)
        else:
            _check_frames(frames, camera_size, checkpoint)
            write_frames(made, frames)
        frames, shown = read_frames(made, camera_size), file_sha256(made / FRAMES_FILE)
        for name in wanted:
            net.serve(content["precisions"][name])
            plain = _plain(net)
            deployed = _deployed(plain, calibrations[name], arm, content, integers=True)
            info = replace(
                _describe(content, calibrations[name], arm, camera_size),
                figures={
                    "regime loss on calibration spans, which scaled std (nats)": calibrations[name].loss,
                    "Bayes floor of regime losses (nats)": calibrations[name].bayes_floor,
                },
            )
            path = made / PRECISION_FILES[name]
            _write_graph(deployed, camera_size, path, info, onnx_weights.OPSET)
            expected = _run(deployed, frames)
            _make_integer(path, _weights(net, calibrations[name]), {CHECK_KEY: _stated(shown, expected)})
            _assert_parity(deployed, camera_size, path, frames, INTEGER_PARITY_SHARE)
        described = {name: describe(net, content["precisions"][name]) for name in wanted}
        _amend_card(model_dir / "card.md", made, info, described)
        for name in wanted:
            Encoder(made, precision=name, providers=("cpu",))
    return {name: model_dir / PRECISION_FILES[name] for name in wanted}


def _read(checkpoint: Path, robot: str | None) -> tuple[dict[str, Any], Robot, tuple[int, int]]:
    """A finished checkpoint's content, its robot, and (width, height) of its camera's images."""
    content = load_checkpoint(checkpoint)
    if content["calibration"] is None:
        raise TrainingError(f"{checkpoint}: its training did not end; continue it with `ropes train --resume`")
    seen = content["frames"]
    arm = load_robot(robot) if robot else bundled_robot(seen["robot"])
    if arm.name != seen["robot"] or list(arm.joint_names) != seen["joint_names"]:
        raise TrainingError(
            f"{checkpoint}: was trained on robot {seen['robot']!r} with joints {', '.join(seen['joint_names'])}; "
            f"{robot or arm.name!r} is another robot"
        )
    return content, arm, (int(seen["camera_size"][0]), int(seen["camera_size"][1]))


def _assert_same_training(whole: Path, content: dict[str, Any]) -> None:
    """Raise where `model.onnx` is there and is not of the float encoder from which integer weights were made."""
    if not whole.is_file():
        return
    import onnx

    stated = [entry.value for entry in onnx.load(str(whole)).metadata_props if entry.key == METADATA_KEY]
    theirs = ModelInfo.from_json(stated[0] if stated else "", whole)
    chosen = [value for name, value in theirs.figures.items() if name.endswith(_CHOSE)]
    if theirs.bags != bags_of(content) or chosen != [float(content["progress"][2])]:
        raise ModelError(
            f"{whole}: is of another training than these integer weights; export into another folder, or first the "
            "checkpoint of which they were made"
        )


def _check_frames(frames: NDArray[np.uint8], camera_size: tuple[int, int], checkpoint: Path) -> None:
    if not len(frames) or frames.shape[1:] != (camera_size[1], camera_size[0], 3):
        raise ModelError(
            f"frames of shape {frames.shape} are not of the camera that {checkpoint} was trained with, "
            "{}x{}: take them from its recordings".format(*camera_size)
        )


def _deployed(
    net: nn.Module, calibration: Calibration, arm: Robot, content: dict[str, Any], *, integers: bool = False
) -> DeployedEncoder:
    seen = content["frames"]
    home, half_range = np.asarray(seen["home"]), np.asarray(seen["half_range"])
    region = Region(*seen["region"])
    return DeployedEncoder(net, calibration, arm, region, home, half_range, integers=integers).eval()


@contextmanager
def _replacing(model_dir: Path) -> Iterator[Path]:
    """A folder whose files are moved into the model's at the end, if nothing was raised."""
    try:
        model_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(f"{model_dir}: cannot be made ({error.strerror}); choose another folder") from None
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=model_dir) as folder:
        yield Path(folder)
        for path in sorted(Path(folder).iterdir(), key=lambda path: path.name == "card.md"):  # which vouches, last
            os.replace(path, model_dir / path.name)


@torch.no_grad()
def _plain(net: QuantisedNet) -> nn.Module:
    """The network as it is served, with weights and biases that hold what is: a graph is exported of it."""
    plain = copy.deepcopy(net)
    for layer in plain.layers().values():
        if isinstance(layer, QuantisedConv2d) and layer.range.active and layer.bias is not None:
            unit = layer.range.scale * layer.log_scale.exp()  # as `quantise_biases` says
            layer.bias.copy_((layer.bias / unit).round() * unit)
        layer.weight.copy_(layer.served())
        layer.bits = 0
    return plain


def _weights(net: QuantisedNet, calibration: Calibration) -> dict[str, NestedWeight]:
    """What the exported graph's weights are made of, by their names in it; the axes of novelty among them."""
    made = {}
    for name, layer in net.layers().items():
        codes, scale = layer_weights(layer)
        folded = not layer.range.active
        made[f"net.inner.{name}.weight"] = NestedWeight(codes, scale, layer.bits, layer.extra, folded=folded)
    familiar = calibration.familiar
    unit = familiar.axis_scale()
    axes = (np.rint(familiar.axes / unit) + ZERO).astype(np.uint8)
    made[AXES] = NestedWeight(axes, unit.astype(np.float32), 8, last=True)
    return made


def _make_integer(path: Path, weights: dict[str, NestedWeight], properties: dict[str, str]) -> None:
    """Give an exported graph its integer weights, and further metadata."""
    import onnx

    model = onnx.load(str(path))
    replace_weights(model, weights)
    quantise_biases(model)
    for key, value in properties.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _stated(shown: str, outputs: Sequence[NDArray[np.float32]]) -> str:
    """The document of `CHECK_KEY`: the stored frames' SHA-256 and what the model said of them."""
    said = {name: values.astype(float).round(6).tolist() for name, values in zip(OUTPUTS, outputs, strict=True)}
    return json.dumps({"frames": shown, **said})


@torch.no_grad()
def _run(deployed: DeployedEncoder, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    return [output.numpy() for output in deployed(torch.from_numpy(np.ascontiguousarray(images)))]


def _exact(weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Area weights as whole numbers over a power of two, and by what their sums differ from 1."""
    source = weights.shape[1]
    whole = 1 << (source - 1).bit_length()
    return np.rint(weights * source) / whole, source / whole


def _constant(values: NDArray[np.float64]) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)), requires_grad=False)


def _describe(
    content: dict[str, Any], calibration: Calibration, robot: Robot, camera_size: tuple[int, int]
) -> ModelInfo:
    frames = content["frames"]
    return ModelInfo(
        schema_version=SCHEMA_VERSION,
        robot=robot.name,
        joint_names=tuple(robot.joint_names),
        lower=tuple(float(value) for value in robot.lower),
        upper=tuple(float(value) for value in robot.upper),
        camera_size=camera_size,
        bags=bags_of(content),
        schedule_hash=frames["schedule_hash"],
        levels=tuple(frames["level_ids"]),
        level_label_noise=float(frames["level_label_noise"]),
        supervision=str(content["supervision"]),
        calibration=_calibrated_how(calibration, robot),
        figures={
            f"{_chosen_by(content)} {_CHOSE}": float(content["progress"][2]),
            "regime loss on calibration spans, which scaled std (nats)": calibration.loss,
            "Bayes floor of regime losses (nats)": calibration.bayes_floor,
            "recorded frames": float(frames["frames"]),
            "epochs trained": float(len(content["history"])),
            "epoch kept": float(content["progress"][3]),
        },
        producer=f"ropes_ros {__version__}",
    )


def _chosen_by(content: dict[str, Any]) -> str:
    """The loss by which the epoch was chosen, in words: only that of levels is in nats, and has the Bayes floor."""
    task = content["history"][-1]["task"] if content["history"] else "mechanism"
    if task in REGIME_LOSSES and str(content["supervision"]).startswith(LEVELS_ONLY):
        return "regime loss (nats)"
    return "loss of another task"


def _calibrated_how(calibration: Calibration, robot: Robot) -> str:
    """In words, what was fitted after training, and on what."""
    names = np.array(robot.joint_names)
    mapped, unknown = names[calibration.map_accepted], names[~calibration.identified]
    parts = [
        "angle and std are the moments of a normal cut to the commanded range" if calibration.truncated else "",
        f"a monotone map to the commanded distribution for {', '.join(mapped)}" if len(mapped) else "",
        "std: one factor a joint, the mean over its posterior given the regimes of held-out spans (below the levels' "
        "width it is the prior that speaks)",
        "novelty: 1.0 is the 99th percentile of calibration frames",
        f"NOT identified, stated at home with the spread of the range: {', '.join(unknown)}" if len(unknown) else "",
        "fitted without measured angles",
    ]
    return "; ".join(part for part in parts if part)


def _write_graph(
    deployed: DeployedEncoder, camera_size: tuple[int, int], path: Path, info: ModelInfo, opset: int = OPSET
) -> None:
    try:
        import onnx
    except ImportError:
        raise RuntimeSetupError("onnx is not installed; run `pip install 'ropes_ros[train]'`") from None
    example = torch.zeros((1, camera_size[1], camera_size[0], 3), dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            deployed,
            (example,),
            str(path),
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_axes={name: {0: "batch"} for name in (INPUT, *OUTPUTS)},
            opset_version=opset,
            dynamo=False,
        )
    model = onnx.load(str(path))
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, info.to_json()
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _write_half(path: Path, half: Path) -> None:
    """The graph in 16 bit, but for its input and outputs; onnxruntime's converter."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constants below the least number of 16 bit
        onnx.save(convert_float_to_float16(onnx.load(str(path)), keep_io_types=True), str(half))


def _assert_parity(
    deployed: DeployedEncoder,
    camera_size: tuple[int, int],
    path: Path,
    frames: NDArray[np.uint8] | None = None,
    share: float = PARITY_SHARE,
) -> None:
    """Compare torch and onnxruntime on frames; where there are none, on noise and smooth images of two batch sizes.

    Without optimisations, which may round once more: what they do is for the check where a model is used.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    for images in _probes(camera_size) if frames is None else (frames[:1], frames):
        found = session.run(list(OUTPUTS), {INPUT: np.ascontiguousarray(images)})
        for name, ours, theirs in zip(OUTPUTS, _run(deployed, images), found, strict=True):
            error = float(np.abs(ours - theirs).max() / (1.0 + np.abs(ours).max()))
            if not error < share:
                raise ModelError(f"{path}: output {name} differs between torch and onnxruntime by {error:.2g}")


def _probes(camera_size: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    """Noise and smooth images, uint8 [N, H, W, 3]."""
    rng = np.random.default_rng(0)
    for count in (1, 3):
        noise = rng.integers(0, 256, (count, camera_size[1], camera_size[0], 3)).astype(np.uint8)
        yield noise
        yield np.broadcast_to(np.linspace(0, 255, camera_size[0])[None, None, :, None], noise.shape).astype(np.uint8)


def _sha_line(path: Path, what: str) -> str:
    return f"SHA-256 of {path.name}: `{file_sha256(path)}` ({what})"


def _amend_card(card: Path, made: Path, info: ModelInfo, described: dict[str, str]) -> None:
    """Write a card with the new files' SHA-256: the old one's with these lines replaced, or a new one.

    What was measured of a file that is replaced by another one is left out.
    """
    lines = {
        PRECISION_FILES[name]: _sha_line(made / PRECISION_FILES[name], f"integer weights: {what}")
        for name, what in described.items()
    }
    if card.is_file():
        text = card.read_text(encoding="utf-8")
        if not text.startswith(_title(info)):
            raise ModelError(f"{card}: is of another robot than {info.robot!r}; export into another folder")
        if any(stated_sha256(text, name) not in (None, file_sha256(made / name)) for name in lines):
            text = text.split(f"\n{CARD_HEADING}\n")[0]
    else:
        text = _card(info, made)
    kept = [line for line in text.splitlines() if not any(line.startswith(f"SHA-256 of {name}:") for name in lines)]
    last = max((number for number, line in enumerate(kept) if line.startswith("SHA-256 of ")), default=1)
    kept[last + 1 : last + 1] = lines.values()
    (made / "card.md").write_text("\n".join(kept) + "\n", encoding="utf-8")


def _title(info: ModelInfo) -> str:
    return f"# Joint angle encoder for {info.robot}\n"


def _card(info: ModelInfo, folder: Path) -> str:
    """The model card: what the file is, for whom, and how good."""
    whole, sums = folder / PRECISION_FILES["fp32"], []
    if whole.is_file():
        sums = [f"SHA-256 of {whole.name}: `{file_sha256(whole)}`", _sha_line(folder / HALF_FILE, "the same in 16 bit")]
    figures = "\n".join(f"| {name} | {value:.6g} |" for name, value in info.figures.items())
    stated = "\n".join(sums)
    return f"""{_title(info)}
{stated}

This model belongs to one robot (**{info.robot}**) and to the one camera placement that its training bags show. Move
the camera, and it must be trained again.

- Input `image`: uint8 [N, {info.camera_size[1]}, {info.camera_size[0]}, 3], RGB, as the camera gives it.
- Outputs: `position` and `std`, float32 [N, {len(info.joint_names)}], rad; `novelty`, float32 [N], above 1.0 unlike
  99 % of held-out frames.
- Joints: {", ".join(info.joint_names)}.
- Supervision: {info.supervision}. A level ({len(info.levels)} densities a joint) is, statistically, a position label
  with a standard deviation of {info.level_label_noise:.3f} half ranges.
- Calibration: {info.calibration}.
- Trained on bags {", ".join(bag[:16] for bag in info.bags)}; schedule {info.schedule_hash[:16]}.
- Producer: {info.producer}; model schema version {info.schema_version}.

| figure | value |
|---|---|
{figures}
"""

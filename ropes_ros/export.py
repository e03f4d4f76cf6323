"""From a checkpoint to `models/NAME/model.onnx` and its card: preprocessing goes into the graph, parity is proved."""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ropes_ros import __version__
from ropes_ros.encoder import (
    FRAMES_FILE,
    HALF_FILE,
    INPUT,
    METADATA_KEY,
    OUTPUTS,
    SCHEMA_VERSION,
    Encoder,
    ModelInfo,
    file_sha256,
    write_frames,
)
from ropes_ros.errors import ModelError, RuntimeSetupError, TrainingError
from ropes_ros.framing import Region, area_weights
from ropes_ros.learning.calibrate import Calibrated, Calibration
from ropes_ros.learning.checkpoint import bags_of, load_checkpoint, load_net
from ropes_ros.learning.tasks import LEVELS_ONLY, REGIME_LOSSES
from ropes_ros.robot import Robot, bundled_robot, load_robot

OPSET = 17
PARITY_SHARE = 1e-3
"""Largest difference between torch and onnxruntime that an output may show, as a share of 1 + its largest magnitude."""


class DeployedEncoder(nn.Module):
    """The whole way from a camera image to radians, as one graph.

    Args:
        net: Trained network, of any kind in `ropes_ros.learning.networks`.
        calibration: Its constants.
        robot: Gives the joints' limits.
        region: The part of the camera's image that the network sees.
        home, half_range: The box that was commanded, rad, [J] each.
    """

    def __init__(
        self,
        net: nn.Module,
        calibration: Calibration,
        robot: Robot,
        region: Region,
        home: NDArray[np.float64],
        half_range: NDArray[np.float64],
    ) -> None:
        super().__init__()
        size: tuple[int, int] = net.image_size  # type: ignore[assignment]
        self.net = net
        self.sees_region = getattr(net, "sees_region", False)
        self.region = region
        width, height = size
        # Rows that are whole numbers of rows are averaged as such: the product is for those that are not.
        self.rows_each = region.height // height if region.height % height == 0 else 0
        self.rows = None if self.rows_each else _constant(area_weights(region.height, height))
        self.columns = _constant(area_weights(region.width, width).T)
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
        part = image[:, top : top + height, left : left + width]
        planes = part.permute(0, 3, 1, 2).to(torch.float32)
        shorter = F.avg_pool2d(planes, (self.rows_each, 1)) if self.rows is None else self.rows @ planes
        small = torch.round(shorter @ self.columns) / 255.0
        prediction = self.net(small, planes / 255.0) if self.sees_region else self.net(small)
        angle, std = self.calibrated(prediction.angle, prediction.log_std)
        position = self.home + self.half_range * angle
        position = torch.minimum(torch.maximum(position, self.lower), self.upper)
        return position, self.half_range * std, self._novelty(prediction.features)

    def _novelty(self, features: Tensor) -> Tensor:
        """As `Familiar.distance`, in units of the reference."""
        centred = (features - self.feature_mean) * self.feature_unit
        along = (centred @ self.feature_axes).square()
        rest = (centred.square().sum(dim=1) - along.sum(dim=1)).clamp(min=0.0)
        return (along @ self.along + rest * self.rest).sqrt()


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
    calibration = Calibration.from_dict(content["calibration"])
    net = load_net(content)
    camera_size = (int(seen["camera_size"][0]), int(seen["camera_size"][1]))
    if frames is not None and (not len(frames) or frames.shape[1:] != (camera_size[1], camera_size[0], 3)):
        raise ModelError(
            f"frames of shape {frames.shape} are not of the camera that {checkpoint} was trained with, "
            "{}x{}: take them from its recordings".format(*camera_size)
        )
    home, half_range = np.asarray(seen["home"]), np.asarray(seen["half_range"])
    deployed = DeployedEncoder(net, calibration, arm, Region(*seen["region"]), home, half_range).eval()
    info = _describe(content, calibration, arm, camera_size)
    try:
        model_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(f"{model_dir}: cannot be made ({error.strerror}); choose another folder") from None
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=model_dir) as folder:
        made = Path(folder)
        _write_graph(deployed, camera_size, made / "model.onnx", info)
        _assert_parity(deployed, camera_size, made / "model.onnx")
        _write_half(made / "model.onnx", made / HALF_FILE)
        if frames is not None:
            write_frames(made, frames)
        (made / "card.md").write_text(_card(info, made), encoding="utf-8")
        (model_dir / FRAMES_FILE).unlink(missing_ok=True)
        for path in made.iterdir():
            os.replace(path, model_dir / path.name)
    Encoder(model_dir)
    return model_dir / "model.onnx"


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
            f"{_chosen_by(content)} on validation spans, which chose the epoch": float(content["progress"][2]),
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


def _write_graph(deployed: DeployedEncoder, camera_size: tuple[int, int], path: Path, info: ModelInfo) -> None:
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
            opset_version=OPSET,
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


@torch.no_grad()
def _assert_parity(deployed: DeployedEncoder, camera_size: tuple[int, int], path: Path) -> None:
    """Compare torch and onnxruntime on noise and on smooth images of two batch sizes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    for count in (1, 3):
        noise = rng.integers(0, 256, (count, camera_size[1], camera_size[0], 3)).astype(np.uint8)
        ramp = np.broadcast_to(np.linspace(0, 255, camera_size[0])[None, None, :, None], noise.shape).astype(np.uint8)
        for images in (noise, ramp):
            expected = deployed(torch.from_numpy(np.ascontiguousarray(images)))
            found = session.run(list(OUTPUTS), {INPUT: np.ascontiguousarray(images)})
            for name, ours, theirs in zip(OUTPUTS, expected, found, strict=True):
                error = float(np.abs(ours.numpy() - theirs).max() / (1.0 + np.abs(ours.numpy()).max()))
                if not error < PARITY_SHARE:
                    raise ModelError(f"{path}: output {name} differs between torch and onnxruntime by {error:.2g}")


def _card(info: ModelInfo, folder: Path) -> str:
    """The model card: what the file is, for whom, and how good."""
    figures = "\n".join(f"| {name} | {value:.6g} |" for name, value in info.figures.items())
    return f"""# Joint angle encoder for {info.robot}

SHA-256 of model.onnx: `{file_sha256(folder / "model.onnx")}`
SHA-256 of {HALF_FILE}: `{file_sha256(folder / HALF_FILE)}` (the same in 16 bit)

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

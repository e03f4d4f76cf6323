"""The model artefact: its contract (inputs, outputs, metadata) and its runtime on onnxruntime, without torch.

`models/NAME/model.onnx` takes `image`, uint8 [N, H, W, 3] RGB at camera resolution, and gives `position` and `std`,
float32 [N, J] in radians, and `novelty`, float32 [N]: how unlike the training frames an image is, 1.0 being the 99th
percentile of held-out frames. One JSON document in the file's metadata says all else; `card.md` beside it holds its
SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ropes_ros.errors import ModelError, RuntimeSetupError
from ropes_ros.paths import share_dir

SCHEMA_VERSION = 2
MAX_MODEL_BYTES = 1 << 30
MAX_CARD_BYTES = 1 << 20
MAX_JOINTS = 1024
MAX_SIDE = 8192
"""Largest width and height of images in pixels that a model may ask for."""
METADATA_KEY = "ropes_ros"
INPUT = "image"
OUTPUTS = ("position", "std", "novelty")
LEVELS_ONLY = "the commanded levels; no measured pose"
"""`ModelInfo.supervision` of a model that was told nothing else of poses."""
_EXTERNAL_DATA = re.compile(rb"(?:\x0a|\x8a\x80{0,8}\x00)(?:\x08|\x88\x80{0,8}\x00)location")
"""How ONNX says that a tensor's bytes are elsewhere: the key `location`, however its tag and length are coded."""
GPU_PROVIDERS = ("CUDAExecutionProvider", "TensorrtExecutionProvider")


@dataclass(frozen=True)
class ModelInfo:
    """What a model file says of itself.

    Attributes:
        schema_version: Version of this contract.
        robot: Name of the robot preset.
        joint_names: Joint order of the outputs.
        lower, upper: Joint limits in radians, to which `position` is clipped.
        camera_size: (width, height) of the images it takes, in pixels.
        bags: Content hashes of the bags it was trained on.
        schedule_hash: Hash of the schedule that was commanded.
        levels: Ids of the regimes' levels.
        level_label_noise: Standard deviation of the position label that a level amounts to, in half ranges.
        supervision: What it was told of poses in training, in words.
        calibration: How std and novelty were calibrated, in one sentence.
        figures: Figures of training by name.
        producer: Program and version that wrote the file.
    """

    schema_version: int
    robot: str
    joint_names: tuple[str, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    camera_size: tuple[int, int]
    bags: tuple[str, ...]
    schedule_hash: str
    levels: tuple[str, ...]
    level_label_noise: float
    supervision: str
    calibration: str
    figures: Mapping[str, float]
    producer: str

    def to_json(self) -> str:
        """The metadata document."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str, source: Path) -> ModelInfo:
        """Parse the metadata document.

        Args:
            text: JSON.
            source: The file that it stands in, for messages.

        Raises:
            ModelError: Not such a document, or of another schema version.
        """
        try:
            content: dict[str, Any] = json.loads(text)
            version = content["schema_version"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ModelError(f"{source}: its metadata cannot be read; export the model again") from None
        if version != SCHEMA_VERSION:
            raise ModelError(
                f"{source}: model schema version {version} is unknown (this release reads version {SCHEMA_VERSION}); "
                "export the model again, or install the release that wrote it"
            )
        try:
            values = {name.name: content[name.name] for name in fields(ModelInfo)}
        except KeyError as missing:
            raise ModelError(f"{source}: its metadata lacks {missing}; export the model again") from None
        sequences = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
        info = ModelInfo(**{**values, **sequences})
        for name, sound in info._sound().items():
            if not sound:
                given = repr(values[name])[:60]
                raise ModelError(f"{source}: its metadata has an impossible {name} ({given}); export the model again")
        return info

    def _sound(self) -> dict[str, bool]:
        """Whether the fields on which sizes and loops depend are of their type and within bounds."""
        joints = len(self.joint_names) if isinstance(self.joint_names, tuple) else 0

        def limits(values: object) -> bool:
            return isinstance(values, tuple) and len(values) == joints and all(_is_finite(value) for value in values)

        return {
            "robot": isinstance(self.robot, str),
            "joint_names": 0 < joints <= MAX_JOINTS and all(isinstance(name, str) for name in self.joint_names),
            "lower": limits(self.lower),
            "upper": limits(self.upper),
            "camera_size": isinstance(self.camera_size, tuple)
            and len(self.camera_size) == 2
            and all(type(side) is int and 0 < side <= MAX_SIDE for side in self.camera_size),
        }


class Estimate(NamedTuple):
    """Estimates for N images of a robot with J joints.

    Attributes:
        position: Joint angles, float32 [N, J], rad.
        std: Their standard deviations, float32 [N, J], rad.
        novelty: float32 [N]; above 1.0 an image is unlike 99 % of held-out training frames.
    """

    position: NDArray[np.float32]
    std: NDArray[np.float32]
    novelty: NDArray[np.float32]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class Encoder:
    """A loaded model.

    Args:
        path: `model.onnx`, or the folder that holds it.
        robot: Refuse a model of another robot when given.
        require_gpu: Refuse to run without a GPU execution provider.
        threads: Threads within one inference; onnxruntime's choice when 0.

    Raises:
        ModelError: Missing, damaged or unsuitable file.
        RuntimeSetupError: No onnxruntime, or a GPU was demanded and is not used.
    """

    def __init__(
        self, path: Path, *, robot: str | None = None, require_gpu: bool = False, threads: int = 0
    ) -> None:
        self.path = path / "model.onnx" if path.is_dir() else path
        content = _checked_content(self.path)
        self.sha256 = hashlib.sha256(content).hexdigest()
        self._session = _open_session(self.path, content, require_gpu, threads)
        self.providers: tuple[str, ...] = tuple(self._session.get_providers())
        properties = self._session.get_modelmeta().custom_metadata_map
        if METADATA_KEY not in properties:
            raise ModelError(f"{self.path}: not a model of ropes_ros (no {METADATA_KEY!r} in its metadata)")
        self.info = ModelInfo.from_json(properties[METADATA_KEY], self.path)
        names = tuple(output.name for output in self._session.get_outputs())
        if names != OUTPUTS or [entry.name for entry in self._session.get_inputs()] != [INPUT]:
            raise ModelError(f"{self.path}: inputs or outputs are not those of a ropes_ros model; export it again")
        if robot is not None and robot != self.info.robot:
            raise ModelError(
                f"{self.path}: was trained for robot {self.info.robot!r}, not {robot!r}; "
                "give the parameter `robot` its name, or a model of this robot"
            )

    def run(self, images: NDArray[np.uint8]) -> Estimate:
        """Estimate joint angles.

        Args:
            images: uint8 [N, H, W, 3] or [H, W, 3], RGB, at the model's camera size.

        Raises:
            ModelError: Images of another size, channel count or type.
        """
        batch = images[None] if images.ndim == 3 else images
        width, height = self.info.camera_size
        if batch.ndim != 4 or batch.shape[1:] != (height, width, 3) or batch.dtype != np.uint8:
            raise ModelError(
                f"{self.path}: takes uint8 RGB images of {width}x{height}, not {batch.dtype} of shape "
                f"{tuple(batch.shape)}; use the camera and resolution that it was trained with"
            )
        position, std, novelty = self._session.run(list(OUTPUTS), {INPUT: batch})
        return Estimate(position, std, novelty)


def shipped_model(robot: str) -> Path:
    """Folder of the model that comes with the package for a robot preset.

    Raises:
        ModelError: None does.
    """
    folder = share_dir() / "models" / robot
    if not (folder / "model.onnx").is_file():
        raise ModelError(f"no model of robot {robot!r} comes with ropes_ros: name one, or make one with `ropes export`")
    return folder


def load_encoder(
    path: str | Path, *, robot: str | None = None, require_gpu: bool = False, threads: int = 0
) -> Encoder:
    """Load and check a model; see `Encoder`."""
    return Encoder(Path(path), robot=robot, require_gpu=require_gpu, threads=threads)


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _checked_content(path: Path) -> bytes:
    """The file's bytes: what is checked here, the SHA-256 in the card beside it included, is what will be loaded."""
    if not path.is_file():
        raise ModelError(f"{path}: no such model; make one with `ropes export`")
    size = path.stat().st_size
    if size > MAX_MODEL_BYTES:
        raise ModelError(f"{path}: {size} bytes are more than the {MAX_MODEL_BYTES} that a model may have")
    card = path.with_name("card.md")
    if not card.is_file():
        raise ModelError(f"{card}: missing; a model is used only beside the card that `ropes export` wrote with it")
    with card.open("rb") as stream:
        text = stream.read(MAX_CARD_BYTES).decode("utf-8", errors="replace")
    content = path.read_bytes()
    stated = re.search(r"SHA-256 of model\.onnx: `([0-9a-f]{64})`", text)
    if stated is None or stated.group(1) != hashlib.sha256(content).hexdigest():
        raise ModelError(
            f"{path}: its SHA-256 is not the one in {card.name}; the file was changed or damaged, export it again"
        )
    if _EXTERNAL_DATA.search(content):
        raise ModelError(
            f"{path}: keeps weights in other files, for which the card does not vouch; export it again as one file"
        )
    return content


def _open_session(path: Path, content: bytes, require_gpu: bool, threads: int) -> Any:
    """An onnxruntime session on the best provider there is; what really runs is asked of the session."""
    try:
        import onnxruntime
    except ImportError:
        raise RuntimeSetupError("onnxruntime is not installed; run `pip install 'ropes_ros[cpu]'` or `[gpu]`") from None
    wanted = [p for p in (GPU_PROVIDERS[0], "CPUExecutionProvider") if p in onnxruntime.get_available_providers()]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        session = onnxruntime.InferenceSession(content, options, providers=wanted)
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise ModelError(f"{path}: onnxruntime cannot load it ({reason}); export it again") from None
    if require_gpu and not set(session.get_providers()) & set(GPU_PROVIDERS):
        raise RuntimeSetupError(
            f"a GPU was required, but onnxruntime runs {path.name} on {', '.join(session.get_providers())}; install "
            "onnxruntime-gpu (and not onnxruntime beside it) with a matching CUDA, or set require_gpu to false"
        )
    return session

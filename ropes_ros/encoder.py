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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ropes_ros.errors import ModelError, RopesError, RuntimeSetupError
from ropes_ros.images import compressed_to_rgb
from ropes_ros.inference import PROVIDERS, Say, Session, offers_gpu
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
FRAMES_FILE = "frames.png"
PRECISION_FILES = {
    "fp32": "model.onnx",
    "fp16": "model.fp16.onnx",
    "int8": "model.int8.onnx",
    "int4": "model.int4.onnx",
    "int2": "model.int2.onnx",
    "mixed": "model.mixed.onnx",
}
"""Which file beside the card holds a model in a precision; "mixed" has a precision a layer."""
AUTO = "auto"
"""Takes fp32 where a GPU runs it, else int8, where that is there and passes its check; else fp32."""
PRECISIONS = (AUTO, *PRECISION_FILES)
HALF_FILE = PRECISION_FILES["fp16"]
CARD_HEADING = "## Precisions, as `ropes bench precision` measured them"
"""What stands above the table at a card's end, which speaks of the files that the card states."""
CHECK_KEY = "ropes_ros_check"
"""Metadata of models with integer weights: what they said of the stored frames as they were exported."""
MAX_FRAMES = 16
HALF_POSITION, HALF_STD, HALF_NOVELTY = 0.25, 0.05, 0.10
"""What 16 bit, or another machine's integer arithmetic, may change on the stored frames at most: angles in std, and std
and novelty as shares of themselves. A quarter of the std that is stated adds 3 % to an error of that size. Novelty is a
score, of which 1 is a percentile, and adds up what is rounded in hundreds of features."""
WARM_UP = 3


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


def stated_sha256(card: str, name: str) -> str | None:
    """The SHA-256 that a card's text states of the file of that name, as hexadecimal digits; None for none."""
    stated = re.search(rf"SHA-256 of {re.escape(name)}: `([0-9a-f]{{64}})`", card)
    return None if stated is None else stated.group(1)


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
        path: `model.onnx`, or the folder that holds it; a file of another precision, which is then the one that runs.
        robot: Refuse a model of another robot when given.
        providers: Execution providers to try, in order: names of `ropes_ros.inference.PROVIDERS`.
        require_gpu: Refuse to run without a GPU execution provider.
        threads: Threads within one inference; onnxruntime's choice when 0.
        precision: One of `PRECISIONS`: which of the files beside the card runs. On the frames that were stored with it,
            fp16 is checked against fp32, and integer weights against what they gave where they were exported.
        cache: Folder for TensorRT's engines.
        say: Told in a line what takes long.

    Raises:
        ModelError: Missing, damaged or unsuitable file, or it is off by more than `HALF_POSITION` and the like.
        RuntimeSetupError: No onnxruntime, or a GPU was demanded and is not used.
    """

    def __init__(
        self,
        path: Path,
        *,
        robot: str | None = None,
        providers: Sequence[str] = tuple(PROVIDERS),
        require_gpu: bool = False,
        threads: int = 0,
        precision: str = "fp32",
        cache: Path | None = None,
        say: Say = lambda line: None,
    ) -> None:
        if precision not in PRECISIONS:
            raise RuntimeSetupError(f"precision {precision!r} is unknown; take one of {', '.join(PRECISIONS)}")
        given = path / PRECISION_FILES["fp32"] if path.is_dir() else path
        named = next((name for name, file in PRECISION_FILES.items() if file == given.name), "fp32")
        if named != "fp32":
            given = given.with_name(PRECISION_FILES["fp32"])
            precision = named if precision == "fp32" else precision
        options: dict[str, Any] = {"providers": providers, "threads": threads, "cache": cache, "say": say}
        if precision == AUTO:
            self._load_fastest(given, options)
        else:
            self._load(given, precision, options)
        if require_gpu and not self._session.on_gpu:
            raise RuntimeSetupError(
                f"a GPU was required, but onnxruntime runs {self.path.name} on {', '.join(self.providers)}; install "
                "onnxruntime-gpu (and not onnxruntime beside it) with a matching CUDA, or set require_gpu to false"
            )
        if robot is not None and robot != self.info.robot:
            raise ModelError(
                f"{self.path}: was trained for robot {self.info.robot!r}, not {robot!r}; "
                "give the parameter `robot` its name, or a model of this robot"
            )

    def _load_fastest(self, given: Path, options: dict[str, Any]) -> None:
        """Load what `AUTO` stands for: of what was measured the fastest."""
        if offers_gpu(options["providers"]):
            self._load(given, "fp32", options)
            if self._session.on_gpu:  # where only 32 bit runs as one CUDA graph
                return
        if all(given.with_name(name).is_file() for name in (PRECISION_FILES["int8"], FRAMES_FILE)):
            try:
                self._load(given, "int8", options)
                return
            except ModelError as error:
                options["say"](f"{error}; fp32 is taken")
        self._load(given, "fp32", options)

    def _load(self, given: Path, precision: str, options: dict[str, Any]) -> None:
        """Load a precision of the model, and check it."""
        self.path = given if precision == "fp32" else given.with_name(PRECISION_FILES[precision])
        self.precision = precision
        half = precision == "fp16"
        reference = _checked_content(given) if half else b""
        content = _checked_content(self.path, "one" if precision == "fp32" else f"its {precision} version")
        self.sha256 = hashlib.sha256(content).hexdigest()
        self._session = Session(content, str(self.path), half=half, **options)
        self.providers = self._session.providers
        if METADATA_KEY not in self._session.properties:
            raise ModelError(f"{self.path}: not a model of ropes_ros (no {METADATA_KEY!r} in its metadata)")
        self.info = ModelInfo.from_json(self._session.properties[METADATA_KEY], self.path)
        self._check_graph()
        self.half_loss: HalfLoss | None = None
        if half:
            frames = read_frames(self.path.parent, self.info.camera_size)
            exact = Session(reference, str(given), providers=("cpu",))
            self.half_loss = self._check(frames, _one_by_one(exact.run, frames))
        elif precision != "fp32" or CHECK_KEY in self._session.properties:
            frames = read_frames(self.path.parent, self.info.camera_size)
            self.half_loss = self._check(frames, self._expected(len(frames)))

    def run(self, images: NDArray[np.uint8]) -> Estimate:
        """Estimate joint angles.

        Args:
            images: uint8 [N, H, W, 3] or [H, W, 3], RGB, at the model's camera size. The N of one call may come from
                several cameras, as long as one model fits them all.

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
        return Estimate(*self._session.run(batch))

    def warm_up(self) -> None:
        """Run a few times, so that the first frame does not pay for what is set up on first use."""
        width, height = self.info.camera_size
        for _ in range(WARM_UP):
            self.run(np.zeros((height, width, 3), dtype=np.uint8))

    def _check_graph(self) -> None:
        """Raise unless the graph's inputs and outputs are those of the contract, and of its metadata."""
        width, height = self.info.camera_size
        joints = len(self.info.joint_names)
        shapes = {"position": (joints,), "std": (joints,), "novelty": ()}
        # a size that is not a number is one that the file leaves open
        fits = tuple(self._session.outputs) == OUTPUTS and all(
            _agrees(self._session.outputs[name][1:], shape) for name, shape in shapes.items()
        )
        if not fits or not _agrees(self._session.inputs.get(INPUT, ())[1:], (height, width, 3)):
            raise ModelError(f"{self.path}: inputs or outputs are not those of a ropes_ros model; export it again")

    def _expected(self, count: int) -> Estimate:
        """What the model gave for the stored frames as it was exported."""
        try:
            stated = json.loads(self._session.properties[CHECK_KEY])
            same = stated["frames"] == file_sha256(self.path.with_name(FRAMES_FILE))
            values = [np.asarray(stated[name], dtype=np.float32) for name in OUTPUTS]
        except (KeyError, TypeError, ValueError, RecursionError):
            raise ModelError(f"{self.path}: does not say what it gave as it was exported; export it again") from None
        joints = len(self.info.joint_names)
        if not same or [value.shape for value in values] != [(count, joints), (count, joints), (count,)]:
            raise ModelError(f"{self.path}: was exported beside another {FRAMES_FILE}; export it again")
        return Estimate(*values)

    def _check(self, frames: NDArray[np.uint8], reference: Estimate) -> HalfLoss:
        """What this session changes on the stored frames; raises where that is more than the bounds."""
        found = _one_by_one(self.run, frames)
        loss = HalfLoss(
            float(np.abs((found.position - reference.position) / reference.std).max()),
            float(np.abs(found.std / reference.std - 1.0).max()),
            float(np.abs(found.novelty / reference.novelty - 1.0).max()),
        )
        if not (loss.position <= HALF_POSITION and loss.std <= HALF_STD and loss.novelty <= HALF_NOVELTY):
            raise ModelError(
                f"{self.path}: in {self.precision}, angles of the stored frames change by up to {loss.position:.2g} "
                f"std ({HALF_POSITION} is allowed), std by {loss.std:.1%} ({HALF_STD:.0%}) and novelty by "
                f"{loss.novelty:.1%} ({HALF_NOVELTY:.0%}); set precision to fp32"
            )
        return loss


def _one_by_one(
    run: Callable[[NDArray[np.uint8]], Sequence[NDArray[np.float32]]], frames: NDArray[np.uint8]
) -> Estimate:
    """Estimates for frames, one at a time: a batch would leave its memory behind, and TensorRT build it an engine."""
    parts = [run(frames[number : number + 1]) for number in range(len(frames))]
    return Estimate(*(np.concatenate(column) for column in zip(*parts, strict=True)))


class HalfLoss(NamedTuple):
    """Largest change over stored frames: angles in units of std; std and novelty as shares of themselves."""

    position: float
    std: float
    novelty: float


def write_frames(folder: Path, frames: NDArray[np.uint8]) -> None:
    """Store frames beside a model, uint8 [N, H, W, 3] RGB, on which other precisions are checked at loading.

    They are one below the other in a PNG, at most `MAX_FRAMES`.
    """
    tall = frames[:MAX_FRAMES].reshape(-1, *frames.shape[2:])
    encoded = cv2.imencode(".png", cv2.cvtColor(tall, cv2.COLOR_RGB2BGR))[1]
    (folder / FRAMES_FILE).write_bytes(encoded.tobytes())


def read_frames(folder: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The frames that `write_frames` stored, uint8 [N, H, W, 3] RGB.

    Args:
        folder: The model's.
        size: (width, height) that they must have.

    Raises:
        ModelError: There are none, or they are damaged or of another size.
    """
    path = folder / FRAMES_FILE
    if not path.is_file():
        raise ModelError(
            f"{path}: missing; all precisions but fp32 are checked on frames that are stored there: "
            "`ropes export --frames BAG` stores some"
        )
    width, height = size
    try:
        tall = compressed_to_rgb(path.read_bytes(), str(path))
    except RopesError as error:
        raise ModelError(f"{error}; export the model again") from None
    if tall.shape[1] != width or tall.shape[0] % height:
        raise ModelError(f"{path}: holds no frames of {width}x{height}; export the model again")
    return tall.reshape(-1, height, width, 3)


def _agrees(stated: tuple[object, ...], wanted: tuple[int, ...]) -> bool:
    return len(stated) == len(wanted) and all(
        not isinstance(side, int) or side == size for side, size in zip(stated, wanted, strict=True)
    )


def shipped_model(robot: str) -> Path:
    """Folder of the model that comes with the package for a robot preset.

    Raises:
        ModelError: None does.
    """
    folder = share_dir() / "models" / robot
    if not (folder / "model.onnx").is_file():
        raise ModelError(f"no model of robot {robot!r} comes with ropes_ros: name one, or make one with `ropes export`")
    return folder


def load_encoder(path: str | Path, **options: Any) -> Encoder:
    """Load and check a model; arguments as of `Encoder`."""
    return Encoder(Path(path), **options)


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _checked_content(path: Path, what: str = "one") -> bytes:
    """The file's bytes: what is checked here, the SHA-256 in the card beside it included, is what will be loaded."""
    if not path.is_file():
        raise ModelError(f"{path}: no such model; make {what} with `ropes export`")
    size = path.stat().st_size
    if size > MAX_MODEL_BYTES:
        raise ModelError(f"{path}: {size} bytes are more than the {MAX_MODEL_BYTES} that a model may have")
    card = path.with_name("card.md")
    if not card.is_file():
        raise ModelError(f"{card}: missing; a model is used only beside the card that `ropes export` wrote with it")
    with card.open("rb") as stream:
        text = stream.read(MAX_CARD_BYTES).decode("utf-8", errors="replace")
    content = path.read_bytes()
    if stated_sha256(text, path.name) != hashlib.sha256(content).hexdigest():
        raise ModelError(
            f"{path}: its SHA-256 is not the one in {card.name}; the file was changed or damaged, export it again"
        )
    if _EXTERNAL_DATA.search(content):
        raise ModelError(
            f"{path}: keeps weights in other files, for which the card does not vouch; export it again as one file"
        )
    return content

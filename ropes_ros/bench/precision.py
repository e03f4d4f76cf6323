"""A model's precisions side by side: accuracy in all conditions, file size, load time, latency, processor time, memory.

    table = measure(model_dir, out)

Accuracy is judged on fresh poses of the built-in simulator. What a precision costs is measured in processes of their
own, of one thread, that take turns; let nothing else run.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ropes_ros.bench.cells import write_json
from ropes_ros.encoder import CARD_HEADING, FRAMES_FILE, PRECISION_FILES, file_sha256, load_encoder, read_frames
from ropes_ros.errors import ModelError, RopesError, RuntimeSetupError
from ropes_ros.evaluation import evaluate_sim, novelty_auroc
from ropes_ros.robot import bundled_robot

CONDITIONS = ("clean", "drift", "second_object", "occlusion", "jitter")
ROUNDED = "rounded by onnxruntime"
"""Name of plain post-training quantisation to 8 bits."""
PROFILED = 60
"""Inferences of a profile."""


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        poses: Fresh poses a condition.
        disturbed: Pictures of each kind of disturbance that novelty is to tell.
        conditions: Surroundings, see `sim.nuisances.CONDITIONS`.
        inferences: In each round.
        rounds: Rounds of costs, in which all take turns; medians are stated.
        seed: Of the poses.
    """

    poses: int = 2000
    disturbed: int = 300
    conditions: tuple[str, ...] = CONDITIONS
    inferences: int = 300
    rounds: int = 5
    seed: int = 0


QUICK = Settings(poses=100, disturbed=30, conditions=("clean",), inferences=30, rounds=1)


def measure(
    model: Path, out: Path, settings: Settings | None = None, *, on_step: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Measure all precisions of a model that are there and run here, and onnxruntime's own rounding to 8 bits.

    Args:
        model: The model's folder.
        out: Folder for `precision.json` and the rounded model.
        settings: How much; everything when None.
        on_step: Told what is measured now.

    Returns:
        "rows": by precision `bytes`, `latency_ms_p50` and the like, `accuracy` by condition and `novelty_auroc` by kind
        of disturbance; "refused": why a precision was left out; "profile": microseconds by kind of operator of fp32 and
        int8; "settings".

    Raises:
        RopesError: No model is there, or none runs.
    """
    settings = settings or Settings()
    out.mkdir(parents=True, exist_ok=True)
    folders = {name: model for name, file in PRECISION_FILES.items() if (model / file).is_file()}
    if not folders:
        raise RopesError(f"{model}: holds no model; name a folder that `ropes export` wrote")
    if "fp32" in folders and (model / FRAMES_FILE).is_file():
        on_step(ROUNDED)
        folders[ROUNDED] = rounded_model(model, out / "rounded")
    rows: dict[str, dict[str, Any]] = {}
    refused: dict[str, str] = {}
    for name, folder in list(folders.items()):
        on_step(f"accuracy: {name}")
        size = (folder / PRECISION_FILES[_file_of(name)]).stat().st_size
        try:
            rows[name] = {
                "bytes": size,
                "accuracy": accuracy(folder, _file_of(name), settings),
                "novelty_auroc": _told(folder, _file_of(name), settings),
            }
        except ModelError as error:
            refused[name] = str(error)
            del folders[name]
            on_step(f"left out: {error}")
    if not rows:
        raise RopesError(f"{model}: no precision runs: {next(iter(refused.values()))}")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in folders}
    for number in range(settings.rounds):
        on_step(f"costs, round {number + 1} of {settings.rounds}")
        for name, folder in folders.items():
            found[name].append(_costs_apart(folder, _file_of(name), settings.inferences))
    for name, rounds in found.items():
        rows[name] |= {key: float(np.median([entry[key] for entry in rounds])) for key in rounds[0]}
    profiled = [name for name in ("fp32", "int8") if name in folders]
    result = {
        "rows": rows,
        "refused": refused,
        "profile": {name: profile(model / PRECISION_FILES[name], out) for name in profiled},
        "settings": {**vars(settings)},
    }
    write_json(out / "precision.json", result)
    return result


def columns(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of a table of what `measure` gave."""
    conditions = result["settings"]["conditions"]
    heads = ["precision", *(f"{name}, deg" for name in conditions), "MCC", "tip, mm", "novelty, least AUROC"]
    heads += ["file, MB", "load, s", "p50, ms", "p99, ms", "CPU, ms", "memory, MB"]
    rows = []
    for name, row in result["rows"].items():
        first = row["accuracy"][conditions[0]]
        errors = [f"{row['accuracy'][condition]['mean_joint_mae_deg']:.2f}" for condition in conditions]
        costs = [f"{row[key]:.2f}" for key in ("load_s", "latency_ms_p50", "latency_ms_p99", "cpu_ms")]
        size = f"{row['bytes'] / 1e6:.2f}"
        told = min(row["novelty_auroc"].values())
        judged = [f"{first['mcc']:.3f}", f"{first['tip_error_mm_median']:.1f}", f"{told:.3f}"]
        rows.append([name, *errors, *judged, size, *costs, f"{row['memory_mb']:.0f}"])
    return heads, rows


def amend_card(card: Path, result: dict[str, Any]) -> None:
    """Put the table into a model's card, in the place of an older one.

    Raises:
        RopesError: There is no card.
    """
    if not card.is_file():
        raise RopesError(f"{card}: no such card; name the folder of an exported model")
    heads, rows = columns(result)
    how = result["settings"]
    said = (
        f"On {how['poses']} fresh poses of the built-in simulator a condition (seed {how['seed']}); costs on one "
        f"thread of a processor, medians of {how['rounds']} rounds."
    )
    table = [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows)]
    lines = ["", CARD_HEADING, "", said, "", *table]
    kept = card.read_text(encoding="utf-8").split(f"\n{CARD_HEADING}\n")[0].rstrip("\n")
    card.write_text("\n".join([kept, *lines]) + "\n", encoding="utf-8")


def accuracy(folder: Path, precision: str, settings: Settings) -> dict[str, dict[str, Any]]:
    """Figures of a model by condition, in one precision, on fresh poses."""
    encoder = load_encoder(folder, precision=precision, providers=("cpu",), threads=1)
    robot = bundled_robot(encoder.info.robot)
    figures = {}
    for condition in settings.conditions:
        result = evaluate_sim(encoder, robot, n=settings.poses, seed=settings.seed, condition=condition)
        metrics = result.metrics
        figures[condition] = {
            "mean_joint_mae_deg": metrics.mean_mae_deg,
            "joint_mae_deg": metrics.mae_deg.tolist(),
            "mcc": metrics.mcc,
            "r2": metrics.r2,
            "tip_error_mm_median": metrics.tip_error_mm_median,
            "tip_error_mm_mean": float(metrics.tip_error_mm.mean()),
            "tip_rotation_deg_median": result.tip_rotation.median_deg,
            "within_2_std": np.asarray(result.coverage["2"]).tolist(),
            "novel": float((result.estimates.novelty > 1.0).mean()),
        }
    return figures


def _told(folder: Path, precision: str, settings: Settings) -> dict[str, float]:
    """Area under the ROC curve of a model's novelty by kind of disturbance."""
    encoder = load_encoder(folder, precision=precision, providers=("cpu",), threads=1)
    robot = bundled_robot(encoder.info.robot)
    return novelty_auroc(encoder, robot, n=settings.disturbed, seed=settings.seed)


def rounded_model(model: Path, out: Path) -> Path:
    """onnxruntime's static quantisation of `model.onnx` to 8 bits, scales by output channel, ranges of stored frames.

    Returns:
        Its folder.

    Raises:
        RuntimeSetupError: onnx is not installed.
    """
    try:
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError:
        raise RuntimeSetupError("onnx is not installed; run `pip install 'ropes_ros[train]'`") from None
    encoder = load_encoder(model, providers=("cpu",))
    frames = read_frames(model, encoder.info.camera_size)

    class Frames(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest = iter(frames)

        def get_next(self) -> dict[str, Any] | None:
            frame = next(self.rest, None)
            return None if frame is None else {"image": frame[None]}

    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    whole, made = out / "inferred.onnx", out / PRECISION_FILES["fp32"]
    quant_pre_process(str(model / PRECISION_FILES["fp32"]), str(whole), skip_symbolic_shape=True)
    quantize_static(
        str(whole),
        str(made),
        Frames(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        op_types_to_quantize=["Conv", "Gemm"],
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    whole.unlink()
    (out / "card.md").write_text(f"SHA-256 of {made.name}: `{file_sha256(made)}`\n", encoding="utf-8")
    return out


def profile(model: Path, out: Path) -> dict[str, float]:
    """Microseconds of an inference by kind of operator, as onnxruntime's profiler tells them, the longest first."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_profiling = True
    options.profile_file_prefix = str(out / "profile")
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    image = np.random.default_rng(0).integers(0, 256, (1, *entry.shape[1:])).astype(np.uint8)
    for _ in range(PROFILED):
        session.run(None, {entry.name: image})
    path = Path(session.end_profiling())
    events = [event for event in json.loads(path.read_text()) if event["name"].endswith("_kernel_time")]
    path.unlink()
    spent: dict[str, dict[str, list[float]]] = {}
    for event in events:
        kinds = spent.setdefault(event["args"]["op_name"], {})
        kinds.setdefault(event["name"], []).append(event["dur"])
    # the median of each node: another process's turn on the core is not the node's time
    total = {kind: float(sum(np.median(times) for times in nodes.values())) for kind, nodes in spent.items()}
    return dict(sorted(total.items(), key=lambda item: -item[1]))


def _file_of(name: str) -> str:
    """The precision under which a row's model is loaded."""
    return "fp32" if name == ROUNDED else name


def _costs_apart(folder: Path, precision: str, inferences: int) -> dict[str, float]:
    """`costs` in a process of its own."""
    command = [sys.executable, "-m", "ropes_ros.bench.precision", str(folder), precision, str(inferences)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RopesError(f"measuring {precision} of {folder} failed: {ended.stderr.strip()[-300:]}")
    found: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return found


def costs(folder: Path, precision: str, inferences: int) -> dict[str, float]:
    """Load time, latency, processor time and memory of one precision in this process, on one thread."""
    import onnxruntime  # noqa: F401  # its own load time and memory are no model's

    before, started = _resident_mb(), time.perf_counter()
    encoder = load_encoder(folder, precision=precision, providers=("cpu",), threads=1)
    loaded = time.perf_counter() - started
    width, height = encoder.info.camera_size
    images = np.random.default_rng(0).integers(0, 256, (8, height, width, 3)).astype(np.uint8)
    encoder.warm_up()
    times, used = [], time.process_time()
    for number in range(inferences):
        begun = time.perf_counter()
        encoder.run(images[number % len(images)])
        times.append(time.perf_counter() - begun)
    used = time.process_time() - used
    p50, p99 = (np.quantile(np.array(times) * 1e3, share) for share in (0.5, 0.99))
    return {
        "load_s": loaded,
        "latency_ms_p50": float(p50),
        "latency_ms_p99": float(p99),
        "latency_ms_p05": float(np.quantile(np.array(times) * 1e3, 0.05)),
        "cpu_ms": used / inferences * 1e3,
        "memory_mb": _resident_mb() - before,
    }


def _resident_mb() -> float:
    """Memory that this process holds now, MB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1e6


def main(argv: Sequence[str]) -> int:
    """Print the costs of a folder's precision as one line of JSON."""
    print(json.dumps(costs(Path(argv[0]), argv[1], int(argv[2]))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

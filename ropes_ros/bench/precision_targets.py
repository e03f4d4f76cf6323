"""What a model's precisions must reach, and the judgement of measured figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropes_ros.bench.judged import Judged
from ropes_ros.encoder import PRECISION_FILES
from ropes_ros.nested import WIDTHS, ZERO, digit_values, slice_codes

ERROR_RATIO = {"int8": 1.02, "int4": 1.10, "int2": 1.50}
"""Mean error over that of fp32, at most."""
SIZE_SHARE = {"int8": 0.27, "int4": 0.15, "int2": 0.09}
"""Bytes of the encoder's weights, scales included, over those in 32 bits, at most."""
LATENCY_RATIO = 0.8
"""Median latency of int8 over that of fp32, at most."""


def key_figures(bench: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """By precision: mean error, MCC, bytes and median latency.

    Args:
        bench: What `precision.measure` gave.
    """
    return {
        name: {
            "mean_joint_mae_deg": row["accuracy"]["clean"]["mean_joint_mae_deg"],
            "mcc": row["accuracy"]["clean"]["mcc"],
            "bytes": row["bytes"],
            "latency_ms_p50": row["latency_ms_p50"],
        }
        for name, row in bench["rows"].items()
    }


def served_weights(model: Path) -> dict[str, NDArray[np.float32]]:
    """The integer weights of a model file as the graph makes plain ones of them, by name.

    Products have them as [inputs, outputs].
    """
    import onnx
    from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions

    content = onnx.load(str(model))
    (image,) = content.graph.input
    names = [name for name in _stored(content) if name.startswith("net.")]
    del content.graph.output[:]
    content.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in names)
    options = SessionOptions()
    options.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL
    session = InferenceSession(content.SerializeToString(), options, providers=["CPUExecutionProvider"])
    shape = [1, *(side.dim_value for side in image.type.tensor_type.shape.dim[1:])]
    return dict(zip(names, session.run(names, {image.name: np.zeros(shape, np.uint8)}), strict=True))


def _stored(content: Any) -> dict[str, tuple[int, int]]:
    """By integer weight of a graph: bytes of its codes, and of its scales."""
    tensors = {entry.name: len(entry.raw_data) for entry in content.graph.initializer}
    found = {}
    for name, length in tensors.items():
        weight, _, form = name.rpartition(".")
        scale = {"codes": "scale", "packed": "unit"}.get(form)
        # a bias has codes, too, of 32 bits
        if scale is not None and f"{weight}.{scale}" in tensors and weight.endswith((".weight", "axes")):
            found[weight] = length, tensors[f"{weight}.{scale}"]
    return found


def nested_exact(folder: Path) -> bool:
    """Whether each weight of the files of 4 and 2 bits is exactly a published slice of that of 8 bits.

    What is compared are the weights that the graphs compute with, from the codes and scales of 8 bits.
    """
    import onnx
    from onnx import numpy_helper

    whole = onnx.load(str(folder / PRECISION_FILES["int8"]))
    tensors = {entry.name: numpy_helper.to_array(entry) for entry in whole.graph.initializer}
    eight = served_weights(folder / PRECISION_FILES["int8"])
    for name, bits in (("int4", 4), ("int2", 2)):
        sliced = 0
        for weight, values in served_weights(folder / PRECISION_FILES[name]).items():
            if np.array_equal(values, eight[weight]):
                continue
            codes = (tensors[f"{weight}.codes"].astype(np.int16) + ZERO).astype(np.uint8)
            scale = tensors[f"{weight}.scale"]
            unit = scale if codes.ndim == 2 else scale.reshape(-1, *[1] * (codes.ndim - 1))
            if not any(np.array_equal(values, worth * unit) for worth in _slices(codes, bits)):
                return False
            sliced += 1
        if not sliced:
            return False
    return True


def _slices(codes: NDArray[np.uint8], fewest: int) -> Iterator[NDArray[np.float32]]:
    """Codes as all slices of at least so many bits, in units of the code."""
    for bits in WIDTHS:
        for extra in (False, True) if fewest <= bits < 8 else ():
            yield digit_values(bits, extra=extra)[slice_codes(codes, bits, extra=extra)]


def size_shares(folder: Path) -> dict[str, float]:
    """Bytes of the integer weights and their scales over those of the same weights in 32 bits, by precision.

    The axes of novelty, which are no weights of the encoder, are left out on both sides.
    """
    import onnx

    found = {}
    for name in SIZE_SHARE:
        path = folder / PRECISION_FILES[name]
        weights = {key: sum(sizes) for key, sizes in _stored(onnx.load(str(path))).items() if key.startswith("net.")}
        found[name] = sum(weights.values()) / sum(4 * values.size for values in served_weights(path).values())
    return found


def judge(
    figures: Mapping[str, Mapping[str, float]],
    shares: Mapping[str, float],
    *,
    exact: bool | None,
    nested: Sequence[float],
    alone: Sequence[float],
) -> list[Judged]:
    """Compare with all targets.

    Args:
        figures: What `key_figures` gave.
        shares: What `size_shares` gave.
        exact: What `nested_exact` gave.
        nested: Mean error of int2 of nested weights by seed, degrees.
        alone: The same of weights that were trained for 2 bits alone, on the same poses. What their seeds differ by
            (their standard deviation) is no difference.
    """

    def ratio(name: str, key: str) -> float | None:
        ours, theirs = figures.get(name, {}).get(key), figures.get("fp32", {}).get(key)
        return None if ours is None or theirs is None else ours / theirs

    bound = fmean(alone) + stdev(alone) if len(alone) > 1 else None
    errors = [Judged(f"{name}_error_ratio", ratio(name, "mean_joint_mae_deg"), most, "<=")
              for name, most in ERROR_RATIO.items()]  # fmt: skip
    sizes = [Judged(f"{name}_weights_share", shares.get(name), most, "<=") for name, most in SIZE_SHARE.items()]
    return [
        *errors,
        *sizes,
        Judged("int2_error_deg", fmean(nested) if nested else None, bound, "<="),
        Judged("int8_latency_ratio", ratio("int8", "latency_ms_p50"), LATENCY_RATIO, "<="),
        Judged("nested_exact", exact, True, "is"),
    ]

"""What a model's precisions must reach, and the judgement of measured figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from ropes_ros.bench.judged import Judged
from ropes_ros.encoder import PRECISION_FILES
from ropes_ros.nested import digit_values, slice_codes, values_of

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


def stored_weights(model: Path) -> dict[str, tuple[str, Any]]:
    """The integer weights of a model file by name: their form, "codes" or "packed", and the stored values.

    Codes are int8, of products as [inputs, outputs]; packed values are the floats in units of the code of 8 bits.
    """
    import onnx
    from onnx import numpy_helper

    tensors = {entry.name: numpy_helper.to_array(entry) for entry in onnx.load(str(model)).graph.initializer}
    found: dict[str, tuple[str, Any]] = {}
    for name, values in tensors.items():
        weight, _, form = name.rpartition(".")
        if form == "codes" and values.dtype == np.int8:
            found[weight] = (form, values)
        elif form == "packed":
            size, shape = int(tensors[f"{weight}.size"][0]), tensors[f"{weight}.shape"]
            found[weight] = (form, tensors[f"{weight}.table"][values].reshape(-1)[:size].reshape(shape))
    return found


def nested_exact(folder: Path) -> bool:
    """Whether each weight of the files of 4 and 2 bits is exactly the published slice of that of 8 bits."""
    whole = stored_weights(folder / PRECISION_FILES["int8"])
    for name, bits in (("int4", 4), ("int2", 2)):
        sliced = 0
        for weight, (form, values) in stored_weights(folder / PRECISION_FILES[name]).items():
            kind, codes = whole[weight]
            if form == kind:
                if not np.array_equal(values, codes):
                    return False
                continue
            codes = (codes.astype(np.int16) + 128).astype(np.uint8)
            codes = codes.T if codes.ndim == 2 else codes
            extra = len(np.unique(values)) > values_of(bits)
            if not np.array_equal(values, digit_values(bits, extra=extra)[slice_codes(codes, bits, extra=extra)]):
                return False
            sliced += 1
        if not sliced:
            return False
    return True


def size_shares(folder: Path) -> dict[str, float]:
    """Bytes of the integer weights and their scales over those of the same weights in 32 bits, by precision.

    The axes of novelty, which are no weights of the encoder, are left out on both sides.
    """
    import onnx
    from onnx import numpy_helper

    found = {}
    for name in SIZE_SHARE:
        tensors = {
            entry.name: numpy_helper.to_array(entry)
            for entry in onnx.load(str(folder / PRECISION_FILES[name])).graph.initializer
        }
        stored = whole = 0
        for key, values in tensors.items():
            weight, _, form = key.rpartition(".")
            integer = form == "packed" or (form == "codes" and values.dtype == np.int8)
            if not weight.startswith("net.") or not integer:
                continue
            scale = tensors[f"{weight}.scale"] if form == "codes" else tensors[f"{weight}.unit"]
            stored += values.nbytes + scale.nbytes
            whole += 4 * (int(tensors[f"{weight}.size"][0]) if form == "packed" else values.size)
        found[name] = stored / whole
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

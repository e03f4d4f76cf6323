"""Inference of many images at once, by execution provider and precision, without any transport."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ropes_ros.bench.estimator.models import Prepared
from ropes_ros.encoder import INPUT, PRECISION_FILES, load_encoder
from ropes_ros.inference import PROVIDERS

REPEATS = 7
"""Calls of which the median counts, after one that does not."""


def measure_batches(prepared: Prepared, batches: Sequence[int]) -> list[dict[str, Any]]:
    """Milliseconds an image of a bare session with onnxruntime's default options, and of `Encoder.run` with one thread.

    Rows of TensorRT and CUDA are there where they run, in both precisions; on the CPU 16 bit gains nothing.
    """
    stored = np.load(prepared.pictures, mmap_mode="r")
    rows = []
    for name, provider in PROVIDERS.items():
        for precision in ("fp32",) if name == "cpu" else ("fp32", "fp16"):
            encoder = load_encoder(prepared.model, providers=(name,), threads=1, precision=precision)
            if encoder.providers[0] != provider:
                continue  # it is not there, or its libraries could not be loaded
            bare = _bare(prepared.model / PRECISION_FILES[precision], provider)
            for count in batches:
                images = np.resize(stored, (count, *stored.shape[1:]))
                rows.append(
                    {
                        "provider": provider,
                        "precision": precision,
                        "batch": count,
                        "session_ms_per_image": _milliseconds(partial(bare.run, None, {INPUT: images})) / count,
                        "encoder_ms_per_image": _milliseconds(partial(encoder.run, images)) / count,
                    }
                )
    return rows


def _bare(path: Path, provider: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=[provider])


def _milliseconds(call: Callable[[], object]) -> float:
    call()
    taken = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return 1e3 * float(np.median(taken))

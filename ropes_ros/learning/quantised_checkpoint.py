"""A quantised checkpoint: what it holds beside weights, and every precision's calibration.

It takes over from the float encoder's checkpoint what describes the recordings and the training. Calibration is by
precision, fitted without angles; what all precisions share is stored once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ropes_ros.dataset import FrameSet, Split
from ropes_ros.errors import TrainingError
from ropes_ros.learning.calibrate import Calibration, Familiar, calibrate
from ropes_ros.learning.checkpoint import save_checkpoint
from ropes_ros.learning.mechanism import MechanismLikelihood, level_shares
from ropes_ros.learning.quantize import Precision, QuantisedNet, size_share

QUANTISED_FILE = "checkpoint.int8.pt"
_KEPT = ("config", "bag_hash", "schedule_hash", "init", "findings", "supervision", "bags", "refinement", "refined",
         "frames", "progress", "history")  # fmt: skip
"""Entries of the float encoder's checkpoint that the quantised one's takes over."""


def precision_name(bits: int) -> str:
    """Name of the precision whose weights have so many bits."""
    return f"int{bits}"


def assert_trained_on(content: Mapping[str, Any], frames: FrameSet) -> None:
    """Raise where frames are not of the recording that a float encoder's checkpoint states.

    Spans that calibrate have to be those that its training left out, and what is exported states that recording.

    Raises:
        TrainingError: They are of another one.
    """
    trained = str(content["frames"]["bag_hash"])
    if frames.bag_hash != trained:
        raise TrainingError(
            f"this bag ({frames.bag_hash[:16]}) is not the one that the encoder was trained on ({trained[:16]}): name "
            "that one, or train on this one first"
        )


def save_quantised(
    path: Path,
    content: Mapping[str, Any],
    net: QuantisedNet,
    frames: FrameSet,
    split: Split,
    precisions: Mapping[str, Precision],
    told: Mapping[str, Any],
) -> None:
    """Calibrate every precision of a network and write its checkpoint.

    Args:
        path: The file.
        content: Of the float encoder's checkpoint.
        net: The network.
        frames: All frames.
        split: Their uses; held-out ones calibrate.
        precisions: By name.
        told: How the network came about, plain values.
    """
    shares = level_shares(split.labels[split.train], frames.joint_names, frames.level_ids)
    objective = MechanismLikelihood(frames.log_density, shares)
    truncated = Calibration.from_dict(content["calibration"]).truncated
    found = calibrate_precisions(net.cpu(), frames, split, objective, precisions, truncated=truncated)
    entries = {
        **{key: content[key] for key in _KEPT if key in content},
        "architecture": net.architecture(),
        "best": net.compact(),
        "quantisation": dict(told),
        "precisions": dict(precisions),
        **_packed(found),
    }
    save_checkpoint(path, entries)


def calibrate_precisions(
    net: QuantisedNet,
    frames: FrameSet,
    split: Split,
    objective: MechanismLikelihood,
    precisions: Mapping[str, Precision],
    *,
    truncated: bool,
) -> dict[str, Calibration]:
    """Constants of each precision, fitted without angles as those of the float encoder are, see `calibrate`.

    All share the axes along which features are told apart, those of the first one, so that a file of one precision
    differs from that of another in little else but its weights.
    """
    made: dict[str, Calibration] = {}
    axes: Familiar | None = None
    for name, precision in precisions.items():
        net.serve(precision)
        made[name] = calibrate(net, frames, split, objective, truncated=truncated, axes=axes, whole=True)
        axes = made[name].familiar
    return made


def calibrations_of(content: Mapping[str, Any]) -> dict[str, Calibration]:
    """Calibration of each precision in a quantised checkpoint's content.

    Raises:
        TrainingError: It is not quantised.
    """
    if "precisions" not in content:
        raise TrainingError("this checkpoint has no integer weights: make one that has with `ropes quantize`")
    codes, scale, unit = (content["axes"][name] for name in ("codes", "scale", "unit"))
    axes = codes.double() * scale
    made = {}
    for name, stored in content["calibrations"].items():
        familiar = {**stored["familiar"], "axes": axes, "unit": unit}
        made[name] = Calibration.from_dict({**stored, "familiar": familiar})
    return made


def _packed(calibrations: Mapping[str, Calibration]) -> dict[str, Any]:
    """Entries of the checkpoint: the calibrations, and once what they share."""
    entries = {name: calibration.to_dict() for name, calibration in calibrations.items()}
    shared = next(iter(calibrations.values())).familiar
    scale = shared.axis_scale()
    for entry in entries.values():
        entry["familiar"] = {key: entry["familiar"][key] for key in ("mean", "weights")}
    first = next(iter(entries.values()))
    axes = {
        "codes": torch.from_numpy(np.rint(shared.axes / scale).astype(np.int8)),
        "scale": torch.from_numpy(scale),
        "unit": torch.from_numpy(shared.unit),
    }
    return {"calibration": first, "calibrations": entries, "axes": axes}


def describe(net: QuantisedNet, precision: Precision) -> str:
    """A precision in words, for a card."""
    share = f"weights {size_share(net, precision):.3f} of those in 32 bits"
    if isinstance(precision, int):
        return f"{precision} bits, {share}"
    counts: dict[int, int] = {}
    for bits in net.plan(precision).values():
        counts[bits] = counts.get(bits, 0) + 1
    return ", ".join(f"{number} layers of {bits} bits" for bits, number in sorted(counts.items())) + f"; {share}"

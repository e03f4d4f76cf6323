"""Nested weights beside weights that were trained for one precision alone, and beside plain rounding.

All start from one float encoder, see the same frames for the same number of steps, and are judged as exported files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ropes_ros.bench.cells import write_json
from ropes_ros.bench.precision import Settings, accuracy
from ropes_ros.dataset import FrameSet, Split
from ropes_ros.encoder import FRAMES_FILE, read_frames
from ropes_ros.export import export_quantised
from ropes_ros.learning.checkpoint import load_checkpoint, load_net
from ropes_ros.learning.qat import Lesson, QuantiseConfig, fine_tune, prepare_lesson
from ropes_ros.learning.quantised_checkpoint import QUANTISED_FILE, precision_name, save_quantised
from ropes_ros.learning.quantize import CONVOLUTIONS, EDGES
from ropes_ros.learning.validation import prepare
from ropes_ros.nested import WIDTHS

NESTED = "nested"
VARIANTS: dict[str, dict[str, Any]] = {
    NESTED: {},
    **{f"{precision_name(bits)} alone": {"widths": {bits: 1.0}} for bits in WIDTHS},
    "nested, joint throughout": {"settled": 0.0},
    "nested, extra value": {"extra": True},
    "nested, no co-distillation": {"codistil": 0.0},
    "nested, convolutions sliced to 4 bits": {"least": {EDGES: 8, CONVOLUTIONS: 4}},
    "nested, all layers sliced": {"least": {EDGES: 2, CONVOLUTIONS: 2}},
    **{f"{precision_name(bits)} rounded": {"widths": {bits: 1.0}, "steps": 0} for bits in WIDTHS},
}
"""What differs from the default settings, by name; rounding is a fine-tuning of no steps."""
THINNED = 4
"""Of held-out frames, every so many calibrate a variant that nobody is going to use."""


def compare(
    frames: FrameSet,
    checkpoint: Path,
    out: Path,
    *,
    config: QuantiseConfig,
    seeds: Sequence[int],
    variants: Sequence[str] = tuple(VARIANTS),
    settings: Settings,
    lesson: Lesson | None = None,
    on_step: Callable[[str], None] = lambda text: None,
) -> list[dict[str, Any]]:
    """Fine-tune, export and judge all variants; what is done already is read.

    Args:
        frames: The frames that the float encoder was trained on.
        checkpoint: The float encoder's, whose folder holds stored frames.
        out: Folder for checkpoints, models and `nesting.json`.
        config: Settings that variants have in common.
        seeds: Of the fine-tunings.
        variants: Names out of `VARIANTS`.
        settings: Of the judgement.
        lesson: What `prepare_lesson` gave; made now when None.
        on_step: Told what comes next.

    Returns:
        Rows: variant, seed, held-out losses, and accuracy by precision and condition.
    """
    content = load_checkpoint(checkpoint)
    split = prepare(frames, span_s=content["config"]["span_s"], seed=content["config"]["seed"]).split
    shown = read_frames(checkpoint.parent, frames.camera_size)
    rows, looked = [], None if lesson is None else config.least
    for variant in variants:
        for seed in seeds[:1] if VARIANTS[variant].get("steps") == 0 else seeds:
            folder = out / f"{variant.replace(',', '').replace(' ', '-')}-{seed}"
            if not (folder / "row.json").is_file():
                on_step(f"{variant}, seed {seed}")
                chosen = replace(config, seed=seed, **VARIANTS[variant])
                if lesson is None or looked != chosen.least:
                    looked = chosen.least
                    lesson = prepare_lesson(load_net(content), frames, split, replace(config, least=looked))
                row = _row(variant, chosen, lesson, content, frames, split, folder, shown, settings)
                write_json(folder / "row.json", row)
            rows.append(json.loads((folder / "row.json").read_text(encoding="utf-8")))
            write_json(out / "nesting.json", {"rows": rows})
    return rows


def _row(
    variant: str,
    config: QuantiseConfig,
    lesson: Lesson,
    content: dict[str, Any],
    frames: FrameSet,
    split: Split,
    folder: Path,
    shown: Any,
    settings: Settings,
) -> dict[str, Any]:
    """One variant with one seed."""
    tuned = fine_tune(lesson, config)
    names = {precision_name(bits): bits for bits in config.bits}
    held_out = {name: lesson.judge(tuned.net, bits) for name, bits in names.items()}
    thinned = split._replace(validation=split.validation[::THINNED], calibration=split.calibration[::THINNED])
    told = {"variant": variant, "held_out": held_out, "history": tuned.history}
    folder.mkdir(parents=True, exist_ok=True)
    save_quantised(folder / QUANTISED_FILE, content, tuned.net, frames, thinned, names, told)
    export_quantised(folder / QUANTISED_FILE, folder, frames=None if (folder / FRAMES_FILE).is_file() else shown)
    figures = {name: accuracy(folder, name, settings) for name in names}
    return {"seed": config.seed, **told, "accuracy": figures}


def summary(rows: Sequence[dict[str, Any]], condition: str = "clean") -> dict[str, dict[str, Any]]:
    """Mean error and its standard deviation over seeds, degrees, by "variant: precision"."""
    errors: dict[str, list[float]] = {}
    for row in rows:
        for name, by_condition in row["accuracy"].items():
            errors.setdefault(f"{row['variant']}: {name}", []).append(by_condition[condition]["mean_joint_mae_deg"])
    return {
        name: {"mean_deg": float(np.mean(found)), "sd_deg": float(np.std(found, ddof=1)) if len(found) > 1 else None,
               "seeds": len(found)}
        for name, found in errors.items()
    }  # fmt: skip

"""A cell of the table: one method on one recording, and the file that keeps its figures.

A cell is named by what it is, so that a second run finds what the first one measured: `OUT/cells/NAME.json`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ropes_ros.errors import RopesError

VERSION = 1
"""Raised when figures of an older version no longer compare with new ones."""

PARTS = ("training", "data", "tests")
"""What a record holds besides its state, each by name."""
FRAMES_A_MINUTE = 1800
"""Of a sweep recording: 30 a second."""
REFERENCE_FRAMES = 70_000
"""Number of frames that a budget's epochs are given for."""


@dataclass(frozen=True)
class Budget:
    """How much work goes into a cell.

    Attributes:
        image_size: (width, height) of the first network's images in pixels.
        epochs: Passes of the first network over `REFERENCE_FRAMES`; see `passes`.
        refine_epochs: The same of the refinement.
        most_epochs: Bound of both for fewer frames.
        span_s: Length of the spans of time that are split, in seconds.
        poses: Fresh poses a test.
        watched: Fresh poses on which MCC is looked at after every epoch.
        ropes: Epochs of the three stages of ROPES as `RopesConfig` orders them (autoencoder, classifiers, latents).
        timed: Images a regime on which the published recipe's speed is measured.
        oracle_steps: Steps a start of the recovery from exact scores.
    """

    image_size: tuple[int, int]
    epochs: int
    refine_epochs: int
    most_epochs: int
    span_s: float
    poses: int
    watched: int
    ropes: tuple[int, int, int]
    timed: int
    oracle_steps: int

    def passes(self, epochs: int, frames: int) -> int:
        """Passes over fewer frames: half way, geometrically, between equal passes and equal steps."""
        return max(1, min(self.most_epochs, round(epochs * math.sqrt(REFERENCE_FRAMES / frames))))


BUDGETS: dict[str, Budget] = {
    "full": Budget((88, 80), 8, 5, 40, 30.0, 2000, 500, (100, 10, 150), 1024, 2000),
    "quick": Budget((44, 40), 1, 1, 4, 10.0, 200, 100, (1, 1, 2), 64, 200),
}


@dataclass(frozen=True)
class Cell:
    """One training, and all that its result depends on.

    Attributes:
        method: Name in `methods.METHODS`.
        kind: What it learns from: "iid" poses, "sweeps", or "none" for what needs no recording.
        frames: Number of frames; of sweeps 30 a second.
        seed: Of recording and training.
        budget: Name in `BUDGETS`.
        condition: Of the recording's surroundings.
        design: "factorial" or "single_joint"; of sweeps always the first.
        levels: Name in `recordings.LEVELS`.
        faults: Name in `recordings.FAULTS`, of sweeps.
        camera: "preset", or "moved": 10 cm off its place.
        task, constraint, pretrain, backbone: As `TrainConfig` has them.
        start: Name of the cell whose first network is adapted; "" for none.
    """

    method: str
    kind: str = "iid"
    frames: int = 0
    seed: int = 0
    budget: str = "full"
    condition: str = "clean"
    design: str = "factorial"
    levels: str = "default"
    faults: str = "none"
    camera: str = "preset"
    task: str = "mechanism"
    constraint: str = "none"
    pretrain: str = "none"
    backbone: str = "small"
    start: str = ""

    @property
    def key(self) -> str:
        """Hash of the definition, of its budget's values, and of `VERSION`."""
        text = json.dumps([VERSION, asdict(self), asdict(BUDGETS[self.budget])], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def name(self) -> str:
        """A file name: what differs from the plainest cell, in words, and the start of `key`."""
        parts = [self.method, self.kind, str(self.frames)]
        plain = {entry.name: entry.default for entry in fields(self)}
        said = {"method", "kind", "frames", "seed", "budget", "start"}
        parts += [str(value) for name, value in asdict(self).items() if name not in said and value != plain[name]]
        parts += ["adapted"] * bool(self.start) + [f"s{self.seed}", self.budget, self.key[:8]]
        return re.sub(r"[^a-z0-9]+", "-", "_".join(parts).lower()).strip("-")

    @property
    def minutes(self) -> float:
        """Length of a sweep recording."""
        return self.frames / FRAMES_A_MINUTE

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def cell_file(out: Path, cell: Cell) -> Path:
    """Where a cell's figures are kept."""
    return out / "cells" / f"{cell.name}.json"


def read_cell(out: Path, cell: Cell) -> dict[str, Any] | None:
    """A cell's record, done or failed; None where there is none that fits.

    Raises:
        RopesError: What is there is no record.
    """
    path = cell_file(out, cell)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if isinstance(record, dict) and record.get("key") != cell.key:
        return None
    if not isinstance(record, dict) or not all(isinstance(record.get(part), dict) for part in PARTS):
        raise RopesError(f"{path}: is no record of a cell; delete it, and run the cell again")
    return record


def write_cell(out: Path, cell: Cell, record: Mapping[str, Any]) -> None:
    """Write a cell's record, beside its place and moved there."""
    write_json(cell_file(out, cell), {"key": cell.key, "version": VERSION, "cell": cell.to_dict(), **record})


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON document beside its place and move it there.

    Raises:
        RopesError: A value is not a finite number.
    """
    try:
        text = json.dumps(content, indent=1, allow_nan=False)
    except ValueError as error:
        raise RopesError(f"{path}: figures hold what is not a finite number ({error}); look at the log") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".partial{os.getpid()}")
    temporary.write_text(text + "\n", encoding="utf-8")
    os.replace(temporary, path)


def is_done(record: Mapping[str, Any] | None, tests: tuple[str, ...]) -> bool:
    """Whether a record holds all of some tests."""
    return record is not None and record["state"] == "done" and set(tests) <= set(record["tests"])

"""Work on one cell, in a process of its own: record, train, export, test, and write what came out."""

from __future__ import annotations

import json
import shutil
import time
import traceback
from pathlib import Path
from typing import Any

from ropes_ros.bench.cells import BUDGETS, PARTS, Cell, cell_file, is_done, read_cell, write_cell
from ropes_ros.errors import RopesError

KEPT_BYTES = 100 * 2**20
"""A model's folder larger than this is not kept."""
TRAVERSED = "uniform"
NOTHING: dict[str, Any] = {part: {} for part in PARTS}
"""What a record holds at least."""


def work(out: Path, cell: Cell, tests: tuple[str, ...]) -> bool:
    """Work on a cell and write its record, done or failed.

    Where only tests are missing and the model was kept, only those are run.

    Args:
        out: The bench's folder.
        cell: The cell.
        tests: Tests that are wanted.

    Returns:
        Whether the cell is done.
    """
    before = read_cell(out, cell)
    if is_done(before, tests):
        return True
    started = time.monotonic()
    try:
        record = _tested_again(out, cell, tests, before) if _has_model(out, cell, before) else _fresh(out, cell, tests)
    except Exception as error:
        traceback.print_exc()
        message = str(error) if isinstance(error, RopesError) else f"{type(error).__name__}: {error}"
        write_cell(out, cell, {**(before or NOTHING), "state": "failed", "message": message})
        return False
    write_cell(out, cell, {"state": "done", "message": "", "wall_seconds": time.monotonic() - started, **record})
    shutil.rmtree(_folder(out, cell), ignore_errors=True)
    return True


def picture_file(out: Path, cell: Cell) -> Path:
    """Where a cell's traversal is drawn."""
    return cell_file(out, cell).with_suffix(".png")


def _folder(out: Path, cell: Cell) -> Path:
    return out / "work" / cell.name


def _has_model(out: Path, cell: Cell, before: dict[str, Any] | None) -> bool:
    trained = before is not None and bool(before["training"])
    return trained and (out / "models" / cell.name / "model.onnx").is_file()


def _fresh(out: Path, cell: Cell, tests: tuple[str, ...]) -> dict[str, Any]:
    """Train and test."""
    from ropes_ros.bench.methods import METHODS, Job
    from ropes_ros.bench.recordings import recording
    from ropes_ros.learning.checkpoint import crop_of, find_checkpoint, load_checkpoint

    method, budget = METHODS[cell.method], BUDGETS[cell.budget]
    if method.train is None:
        assert method.figures is not None  # a method has the one or the other
        return {"training": {}, "data": {}, "tests": {test: method.figures(cell) for test in tests}}
    crop = None
    if cell.start:
        crop = crop_of(load_checkpoint(find_checkpoint(out / "models" / cell.start / "first")), follows=True)
    taken = recording(cell, method.size or budget.image_size, out / "data", crop)
    folder = _folder(out, cell)
    folder.mkdir(parents=True, exist_ok=True)
    trained = method.train(Job(cell, taken, folder, out / "models"))
    frames = taken.frames
    record = {
        "training": trained.facts,
        "data": {
            "frames": len(frames),
            "segments": sum(len(set(column[column >= 0].tolist())) for column in frames.segments.T),
            "level_label_noise": frames.level_label_noise,
        },
        "tests": _tests(out, cell, tests, trained),
    }
    kept = out / "models" / cell.name
    if kept.is_dir() and sum(path.stat().st_size for path in kept.rglob("*") if path.is_file()) > KEPT_BYTES:
        shutil.rmtree(kept)
    return record


def _tested_again(out: Path, cell: Cell, tests: tuple[str, ...], before: dict[str, Any] | None) -> dict[str, Any]:
    """Run the tests that a finished cell lacks on the model that was kept."""
    from ropes_ros.bench.methods import Trained, encoder_reader, load_kept

    assert before is not None  # there is a model because there is a record
    encoder = load_kept(out / "models" / cell.name)
    missing = tuple(test for test in tests if test not in before["tests"])
    found = _tests(out, cell, missing, Trained(encoder_reader(encoder), encoder, {}, {}))
    return {**{name: before[name] for name in NOTHING}, "tests": {**before["tests"], **found}}


def _tests(out: Path, cell: Cell, tests: tuple[str, ...], trained: Any) -> dict[str, Any]:
    from ropes_ros.bench.measures import run_test
    from ropes_ros.bench.methods import METHODS

    method, poses = METHODS[cell.method], BUDGETS[cell.budget].poses
    return {
        test: run_test(test, trained, method, poses, picture_file(out, cell) if test == TRAVERSED else None)
        for test in tests
    }


def main(argv: list[str]) -> int:
    """Work on the cell that the arguments describe: the folder, and one JSON document."""
    order = json.loads(argv[1])
    return 0 if work(Path(argv[0]), Cell(**order["cell"]), tuple(order["tests"])) else 1

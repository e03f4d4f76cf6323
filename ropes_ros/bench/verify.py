"""`ropes bench verify`: the committed models against the targets, each measured as by `ropes evaluate --sim arm6`.

`benchmarks/models.yaml` lists the models:

    models:
      - folder: models/arm6
        rows: [iid]                      # rows of `targets.TARGETS` that it stands for
        cell: headline/ours-iid          # row of the table whose training made it
        seed: 0
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ropes_ros.bench.cells import Cell, is_done, read_cell, write_json
from ropes_ros.bench.groups import groups, wanted
from ropes_ros.bench.runner import Event, run_cells
from ropes_ros.bench.targets import NOVELTY, ROWS, Judged, judge, tests_of
from ropes_ros.errors import RopesError

LIST_FILE = Path("benchmarks/models.yaml")
SEED = 0
POSES = 2000
NOVEL_POSES = 500
ROBOT = "arm6"
_KEYS = {"folder", "rows", "cell", "seed"}
_COPIED = ("model.onnx", "card.md")
_SHIPPED = ("checkpoint.pt",)
"""Kept beside those models that the package installs, so that they can be adapted."""


@dataclass(frozen=True)
class Listed:
    """A committed model.

    Attributes:
        folder: Where it lies.
        rows: Rows of targets that it stands for.
        cell: GROUP/ROW of the full table that trains it.
        seed: Which of that row's cells.
    """

    folder: Path
    rows: tuple[str, ...]
    cell: str
    seed: int

    def find(self) -> Cell:
        """The cell that trains it.

        Raises:
            RopesError: There is no such row, or it has no cell of that seed.
        """
        for cell in wanted(groups("full"), (self.cell,)):
            if cell.seed == self.seed:
                return cell
        raise RopesError(f"{LIST_FILE}: row {self.cell} has no cell of seed {self.seed}; name another one")


def read_list(path: Path) -> list[Listed]:
    """Read `models.yaml`.

    Raises:
        RopesError: It is missing or malformed.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RopesError(f"{path}: no such list of models; run this in the repository, or name one") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RopesError(f"{path}: not readable as YAML ({' '.join(str(error).split())}); mend it") from None
    entries = content.get("models") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise RopesError(f"{path}: needs a list `models`")
    if not entries:
        raise RopesError(f"{path}: the list `models` is empty, so there is nothing to verify; list a model")
    return [_listed(f"{path}: models[{number}]", entry) for number, entry in enumerate(entries)]


def _listed(where: str, entry: Any) -> Listed:
    """An entry of the list, checked; `where` names it in messages."""
    if not isinstance(entry, dict) or set(entry) != _KEYS:
        raise RopesError(f"{where} needs exactly {', '.join(sorted(_KEYS))}, got {entry!r}")
    folder, rows, cell, seed = (entry[key] for key in ("folder", "rows", "cell", "seed"))
    for key in ("folder", "cell"):
        if not isinstance(entry[key], str) or not entry[key]:
            raise RopesError(f"{where}: `{key}` must be text, got {entry[key]!r}")
    if not isinstance(rows, list) or not rows:
        raise RopesError(f"{where} ({folder}): `rows` must be a list of one or more of {', '.join(ROWS)}, got {rows!r}")
    unknown = [row for row in rows if row not in ROWS]
    if unknown:
        raise RopesError(f"{where} ({folder}): unknown row {unknown[0]!r}; rows are {', '.join(ROWS)}")
    if type(seed) is not int:
        raise RopesError(f"{where} ({folder}): `seed` must be a whole number, got {seed!r}")
    return Listed(Path(folder), tuple(rows), cell, seed)


def retrain(
    models: list[Listed], out: Path, *, jobs: int, on_event: Callable[[Event], None] | None = None
) -> None:
    """Train the listed models anew, as cells of the full table, and put them into their folders.

    Args:
        models: What to train.
        out: The bench's folder; cells that are done there are taken.
        jobs: Processes at a time.
        on_event: As for `run_cells`.

    Raises:
        RopesError: A training failed.
    """
    cells = {model: model.find() for model in models}
    run_cells(dict.fromkeys(cells.values(), ()), out, jobs=jobs, on_event=on_event)
    for model, cell in cells.items():
        record, made = read_cell(out, cell), out / "models" / cell.name
        if not is_done(record, ()) or not (made / "model.onnx").is_file():
            why = record["message"] if record else "it was not run"
            raise RopesError(f"{model.folder}: its training failed ({why or 'its model was too large to keep'})")
        model.folder.mkdir(parents=True, exist_ok=True)
        for name in (*_COPIED, *(() if "benchmarks" in model.folder.parts else _SHIPPED)):
            shutil.copy(made / name, model.folder / name)


def verify(models: list[Listed], out: Path) -> list[Judged]:
    """Evaluate the listed models, and write OUT/accuracy.json.

    Args:
        models: The models.
        out: Folder for the result.

    Raises:
        ModelError: A model is missing or damaged.
    """
    rows: dict[str, list[dict[str, dict[str, Any]]]] = {row: [] for row in ROWS}
    measured: dict[str, dict[str, dict[str, Any]]] = {}
    for model in models:
        tests = tuple(dict.fromkeys(test for row in model.rows for test in (*tests_of(row), "clean")))
        measured[str(model.folder)] = figures = evaluate_model(model.folder, tests)
        for row in model.rows:
            rows[row].append(figures)
    judged = judge(rows)
    table = [entry.plain() for entry in judged]
    write_json(
        out / "accuracy.json",
        {"robot": ROBOT, "poses": POSES, "seed": SEED, "targets": table, "models": measured},
    )
    return judged


def evaluate_model(folder: Path, tests: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Figures of one model by test, as `ropes evaluate --sim --json` names them, on fresh uniform poses.

    Raises:
        ModelError: It is missing, damaged, or of another robot.
    """
    from ropes_ros.encoder import load_encoder
    from ropes_ros.evaluation import evaluate_sim, novelty_auroc
    from ropes_ros.robot import load_robot

    encoder, robot = load_encoder(folder), load_robot(ROBOT)
    found: dict[str, dict[str, Any]] = {}
    for test in tests:
        if test == NOVELTY:
            areas = novelty_auroc(encoder, robot, n=NOVEL_POSES, seed=SEED)
            found[test] = {f"auc_{kind}": area for kind, area in areas.items()}
            continue
        result = evaluate_sim(encoder, robot, n=POSES, seed=SEED, condition=test)
        metrics = result.metrics
        found[test] = {
            "mcc": metrics.mcc,
            "r2": metrics.r2,
            "joint_mae_deg": metrics.mae_deg.tolist(),
            "mean_joint_mae_deg": metrics.mean_mae_deg,
            "tip_error_mm_median": metrics.tip_error_mm_median,
            "tip_error_mm_mean": float(metrics.tip_error_mm.mean()),
            "tip_rotation_deg_median": result.tip_rotation.median_deg,
            "coverage_2std": result.coverage["2"].tolist(),
        }
    return found

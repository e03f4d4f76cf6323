"""From cells to the table: mean and spread over seeds, what is best, and where a baseline beats ours."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ropes_ros.bench.cells import Cell, read_cell
from ropes_ros.bench.groups import QUICK_LEAVES_OUT, Group, Row

JSON_FILE = "accuracy.json"
TITLE = "Accuracy of pose from pictures: methods, bounds and baselines"


class Metric(NamedTuple):
    """A column.

    Attributes:
        title: Its heading, with the unit.
        form: How a number is written, a format specification.
        better: +1 where more is better, -1 where less is, 0 where neither can be said.
    """

    title: str
    form: str
    better: int


METRICS: dict[str, Metric] = {
    "mcc": Metric("MCC (Pearson)", ".3f", 1),
    "mcc_spearman": Metric("MCC (Spearman)", ".3f", 1),
    "r2": Metric("R2", ".3f", 1),
    "r2_diagonal": Metric("R2 diag", ".3f", 1),
    "r2_off_diagonal": Metric("R2 off-diag", ".3f", -1),
    "dci_disentanglement": Metric("DCI disent.", ".3f", 1),
    "dci_completeness": Metric("DCI compl.", ".3f", 1),
    "dci_error": Metric("DCI error", ".3f", -1),
    "info_m": Metric("InfoM", ".3f", 1),
    "info_e": Metric("InfoE", ".3f", 1),
    "info_c": Metric("InfoC", ".3f", 1),
    "joint_mae_deg": Metric("by joint, deg", ".1f", 0),
    "mean_joint_mae_deg": Metric("mean error, deg", ".2f", -1),
    "tip_error_mm_median": Metric("tip median, mm", ".1f", -1),
    "tip_error_mm_mean": Metric("tip mean, mm", ".1f", -1),
    "tip_rotation_deg_median": Metric("tip median, deg", ".2f", -1),
    "add_auc": Metric("ADD AUC 10 cm", ".3f", 1),
    "coverage_2std": Metric("within 2 std, by joint", ".2f", 0),
    "auc_covered": Metric("AUC, covered lens", ".3f", 1),
    "auc_object": Metric("AUC, strange object", ".3f", 1),
    "auc_moved": Metric("AUC, moved camera", ".3f", 1),
    "held_out_loss": Metric("held-out regime loss, nats", ".3f", 0),
    "floor": Metric("Bayes floor, nats", ".3f", 0),
    "label_noise": Metric("label noise of a level, half ranges", ".3f", 0),
    "frames": Metric("frames", ",.0f", 0),
    "segments": Metric("segments", ",.0f", 0),
    "seconds": Metric("training, s", ",.0f", 0),
    "lag_s": Metric("learned lag, s", ".3f", 0),
    "unexecuted": Metric("learned share not executed", ".3f", 0),
    "error": Metric("||Z - Zhat|| / ||Z||", ".3f", -1),
    "correlation": Metric("correlation", ".4f", 1),
    "shd": Metric("SHD", ".2f", -1),
    "edges": Metric("true edges", ".1f", 0),
    "seconds_to_mcc_95": Metric("s to MCC 0.95", ",.0f", 0),
    "published_seconds": Metric("s of the whole published run", ",.0f", 0),
}


class Line(NamedTuple):
    """A row under one test, over its seeds.

    Attributes:
        row: The row.
        test: The test.
        role: Of the method.
        supervision: What the method is told.
        values: By metric: {"mean", "spread", "n"}; spread is the standard deviation over seeds, None for one seed.
            Means and spreads of metrics by joint are lists.
        state: "done"; "not run" or "failed" where that is true of any of its cells.
        message: Why it failed.
        cells: Names of the cells.
        notes: What trainings said of themselves.
    """

    row: Row
    test: str
    role: str
    supervision: str
    values: dict[str, dict[str, Any]]
    state: str
    message: str
    cells: tuple[str, ...]
    notes: tuple[str, ...] = ()


def lines(out: Path, group: Group) -> list[Line]:
    """A group's rows from the cells that are there."""
    from ropes_ros.bench.methods import METHODS

    found = []
    for row in group.rows:
        method = METHODS[row.cells[0].method]
        records = [read_cell(out, cell) for cell in row.cells]
        for test in row.tests:
            there = [record for record in records if record is not None and test in record["tests"]]
            failed = [record["message"] for record in records if record is not None and record["state"] == "failed"]
            state = "done" if len(there) == len(row.cells) else "failed" if failed else "not run"
            values = aggregate([_flat(record, test) for record in there], group.metrics)
            names = tuple(cell.name for cell in row.cells)
            message = "; ".join(failed)
            notes = tuple(dict.fromkeys(note for record in there for note in record["training"].get("notes", ())))
            found.append(Line(row, test, method.role, method.supervision, values, state, message, names, notes))
    return found


def _flat(record: dict[str, Any], test: str) -> dict[str, Any]:
    """All figures of a cell that a column may show."""
    data, training = record["data"], record["training"]
    about = {**data, "label_noise": data.get("level_label_noise"), **training}
    return {**about, **record["tests"][test]}


def aggregate(cells: Sequence[dict[str, Any]], metrics: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Mean, spread (n - 1 in its denominator) and number of each metric over cells; what no cell has is left out."""
    found: dict[str, dict[str, Any]] = {}
    for metric in metrics:
        values = [cell[metric] for cell in cells if cell.get(metric) is not None]
        if not values:
            continue
        if isinstance(values[0], list):
            columns = [_mean_spread(column) for column in zip(*values, strict=True)]
            spread = [column[1] for column in columns] if len(values) > 1 else None
            found[metric] = {"mean": [column[0] for column in columns], "spread": spread, "n": len(values)}
        else:
            mean, deviation = _mean_spread(values)
            found[metric] = {"mean": mean, "spread": deviation, "n": len(values)}
    return found


def _mean_spread(values: Sequence[float]) -> tuple[float, float | None]:
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def best(table: Sequence[Line], metric: str, test: str) -> set[str]:
    """Keys of the rows that are best at a metric under one test; none where that cannot be said."""
    direction = METRICS[metric].better
    there = [line for line in table if line.test == test and metric in line.values]
    scored = [(line.values[metric]["mean"], line.row.key) for line in there]
    if not direction or len(scored) < 2:
        return set()
    top = max(direction * value for value, _ in scored)
    return {key for value, key in scored if direction * value == top}


def beaten(table: Sequence[Line], metrics: Iterable[str]) -> list[str]:
    """A sentence for every metric and test at which a label-free baseline beats our row."""
    sentences = []
    for line in table:
        if line.role != "ours":
            continue
        for metric in metrics:
            shown = METRICS[metric]
            if not shown.better or metric not in line.values:
                continue
            ours = line.values[metric]["mean"]
            for other in table:
                if other.role != "label-free" or other.test != line.test or metric not in other.values:
                    continue
                theirs = other.values[metric]["mean"]
                if shown.better * (theirs - ours) > 0:
                    sentences.append(
                        f"{shown.title} on {line.test} poses: {other.row.label} ({theirs:{shown.form}}) beats "
                        f"{line.row.label} ({ours:{shown.form}})."
                    )
    return sentences


def time_ratio(table: Sequence[Line]) -> float | None:
    """Our seconds to MCC 0.95 over those of the published run; None where either is not known for all seeds."""
    values = {line.row.key: line for line in table}
    ours, published = values.get("ours"), values.get("published")
    if ours is None or published is None:
        return None
    reached = ours.values.get("seconds_to_mcc_95")
    whole = published.values.get("published_seconds")
    if reached is None or whole is None or reached["n"] < len(ours.row.cells):
        return None
    return float(reached["mean"] / whole["mean"])


def over_bound(table: Sequence[Line]) -> dict[str, float]:
    """Our mean error over the supervised bound's on the same recording and poses, by "KIND, TEST"; of the headline."""
    errors = {
        (line.row.key, line.test): line.values["mean_joint_mae_deg"]["mean"]
        for line in table
        if "mean_joint_mae_deg" in line.values
    }
    return {
        f"{kind}, {test}": errors[f"ours-{kind}", test] / errors[f"bound-{kind}", test]
        for kind in ("iid", "sweeps")
        for test in ("uniform", "observational")
        if (f"ours-{kind}", test) in errors and (f"bound-{kind}", test) in errors
    }


def about(budget: str) -> str:
    """What a reader should know of all tables; names of rows are between backquotes."""
    scope = "Full budget."
    if budget == "quick":
        scope = f"Quick budget: a check that all runs, no result. Left out: {QUICK_LEAVES_OUT}."
    return (
        f"{scope} Best of a column and test in bold, ± the standard deviation over seeds. No row of ours has seen a "
        "measured pose; a commanded level is, statistically, a position label whose noise stands beside the figures. "
        "Seconds are those of one thread beside another one, unless the machine has a GPU."
    )


def remarks(group: Group, table: Sequence[Line]) -> list[str]:
    """What follows from a group's rows besides their figures, in sentences."""
    sentences = []
    if group.key == "headline":
        ratios = "; ".join(f"{name}: {ratio:.2f}" for name, ratio in over_bound(table).items())
        sentences.append(f"Our mean error over the bound's: {ratios or 'not known'} (goal 2, stretch 1.25).")
    if group.key == "time":
        ratio = time_ratio(table)
        text = "not known" if ratio is None else f"{ratio:.4f} (1/{1 / ratio:.0f})"
        sentences.append(f"Ratio of ours to the published recipe's whole run: {text}; the goal is 1/10.")
    both = {"ours", "label-free"} <= {line.role for line in table if line.values}
    if group.compared and both and not beaten(table, group.metrics):
        sentences.append("Ours is better than every label-free baseline that was run, as it was run, on every metric.")
    said = dict.fromkeys((line.row.label, line.notes) for line in table if line.notes)
    return sentences + [f"{label}, of its own training: {'; '.join(notes)}." for label, notes in said]


def shown(metric: str, value: dict[str, Any] | None, done: int = 0) -> str:
    """A figure with its spread, where seeds differ, and of how many of the `done` seeds it is, where not of all.

    Nothing where there is no figure.
    """
    if value is None:
        return ""
    form = METRICS[metric].form
    if isinstance(value["mean"], list):
        return " ".join(f"{entry:{form}}" for entry in value["mean"])
    text = f"{value['mean']:{form}}"
    text += f" ± {value['spread']:{form}}" if value["spread"] else ""
    return f"{text} (of {value['n']})" if value["n"] < done else text


def document(out: Path, tables: Sequence[Group], budget: str) -> dict[str, Any]:
    """The content of accuracy.json: all groups, aggregated, and all cells."""
    groups = []
    cells: dict[Cell, None] = {}
    for group in tables:
        table = lines(out, group)
        for row in group.rows:
            cells.update(dict.fromkeys(row.cells))
        groups.append(
            {
                "key": group.key,
                "title": group.title,
                "note": group.note,
                "rows": [
                    {
                        "key": line.row.key,
                        "label": line.row.label,
                        "test": line.test,
                        "role": line.role,
                        "supervision": line.supervision,
                        "state": line.state,
                        "message": line.message,
                        "values": line.values,
                        "cells": list(line.cells),
                    }
                    for line in table
                ],
                "where_baselines_win": beaten(table, group.metrics) if group.compared else [],
                **({"ratio": time_ratio(table)} if group.key == "time" else {}),
                **({"error_over_bound": over_bound(table)} if group.key == "headline" else {}),
            }
        )
    return {"budget": budget, "groups": groups, "cells": {cell.name: read_cell(out, cell) for cell in cells}}

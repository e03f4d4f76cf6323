"""The bench: cells that are kept and resumed, the table, its page, and the targets."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("mujoco")
pytest.importorskip("sklearn")

from typer.testing import CliRunner

from ropes_ros.bench import groups as tables
from ropes_ros.bench import measures, methods, page, runner, targets, verify, worker
from ropes_ros.bench.cells import BUDGETS, Cell, cell_file, is_done, read_cell, write_cell, write_json
from ropes_ros.bench.groups import Group, Row, groups, wanted
from ropes_ros.bench.markdown import markdown
from ropes_ros.bench.methods import LABEL_FREE, METHODS, OURS, Method, Reading, Trained
from ropes_ros.bench.published import PUBLISHED, whole_run
from ropes_ros.bench.recordings import FAULTS, LEVELS, bench_robot
from ropes_ros.bench.summary import METRICS, Line, aggregate, beaten, best, document, lines, over_bound, time_ratio
from ropes_ros.bench.watch import seconds_to
from ropes_ros.cli.bench import app
from ropes_ros.errors import RopesError, TrainingError
from ropes_ros.sim.canonical import fresh_positions

ORACLE = Cell("exact scores", kind="none", budget="quick", design="quadratic/linear")
REPOSITORY = Path(__file__).parent.parent
DONE = {"state": "done", "message": "", "data": {}, "training": {}}


# Cells.


def test_every_field_of_a_cell_and_its_budget_change_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Cell("ours")
    other: dict[str, Any] = {"frames": 5, "seed": 1, "budget": "quick"}
    changed = [replace(plain, **{f.name: other.get(f.name, "other")}) for f in fields(Cell)]
    keys = {plain.key, *(cell.key for cell in changed)}
    assert len(keys) == 1 + len(changed)
    assert len({plain.name, *(cell.name for cell in changed)}) == len(keys)
    monkeypatch.setitem(BUDGETS, "full", replace(BUDGETS["full"], epochs=99))
    assert plain.key not in keys


def test_a_record_is_found_again_unless_the_cell_means_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cell(tmp_path, ORACLE, {**DONE, "tests": {"recovery": {"error": 0.1}}})
    record = read_cell(tmp_path, ORACLE)
    assert record is not None and record["cell"] == ORACLE.to_dict()
    assert is_done(record, ("recovery",)) and not is_done(record, ("recovery", "novelty"))
    assert not is_done({**record, "state": "failed"}, ("recovery",)) and not is_done(None, ())
    name = ORACLE.name
    monkeypatch.setattr("ropes_ros.bench.cells.VERSION", 2)
    assert ORACLE.name != name and read_cell(tmp_path, ORACLE) is None
    (tmp_path / "cells" / f"{ORACLE.name}.json").write_text("{ torn")
    assert read_cell(tmp_path, ORACLE) is None


def test_what_is_no_number_is_not_written(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"value": 1.0})
    with pytest.raises(RopesError, match=r"a\.json.*finite"):
        write_json(tmp_path / "a.json", {"value": math.nan})
    assert json.loads((tmp_path / "a.json").read_text()) == {"value": 1.0}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_fewer_frames_are_passed_over_more_often_within_bounds() -> None:
    budget = replace(BUDGETS["full"], most_epochs=40)
    assert [budget.passes(8, frames) for frames in (280_000, 70_000, 17_500, 1000)] == [4, 8, 16, 40]
    assert BUDGETS["quick"].passes(1, 10**9) == 1


# The table.


@pytest.mark.parametrize("budget", ["full", "quick"])
def test_the_table_names_only_what_there_is(budget: str) -> None:
    found = groups(budget)
    assert len({group.key for group in found}) == len(found)
    by_name = {cell.name: cell for group in found for row in group.rows for cell in row.cells}
    for group in found:
        assert set(group.metrics) <= set(METRICS)
        assert len({row.key for row in group.rows}) == len(group.rows)
        for row in group.rows:
            for cell in row.cells:
                assert cell.budget == budget
                assert cell.method in METHODS and cell.levels in LEVELS and cell.faults in FAULTS
                assert cell.frames > 0 or cell.kind == "none"
                assert not cell.start or by_name[cell.start].method == "ours"
    assert len({cell.seed for group in found[:1] for row in group.rows for cell in row.cells}) == {
        "full": 3,
        "quick": 1,
    }[budget]


def test_rows_are_chosen_by_patterns_and_bring_what_they_start_from() -> None:
    found = groups("quick")
    everything = wanted(found)
    ours = [cell for cell in everything if cell.method == "ours" and cell.condition == "clean" and cell.kind == "iid"]
    headline = next(cell for cell in ours if cell.frames == tables.SCALES["quick"].headline)
    assert set(everything[headline]) >= {"uniform", "observational", "novelty", "extrapolation", "uniform/drift"}
    adapted = wanted(found, ("adaptation/adapted-*",))
    assert list(adapted) == [headline, *(cell for cell in adapted if cell.start == headline.name)]
    assert len(adapted) > 1 and adapted[headline] == ()
    with pytest.raises(RopesError, match="headline/ours-iid"):
        wanted(found, ("no such row",))


def test_the_moved_camera_stands_ten_centimetres_off_and_looks_at_the_same_point() -> None:
    there, moved = (bench_robot(camera).preset["sim"]["camera"] for camera in ("preset", "moved"))
    assert np.linalg.norm(np.subtract(moved["position"], there["position"])) == pytest.approx(0.1)
    assert moved["look_at"] == there["look_at"] and moved["fovy"] == there["fovy"]


# Work on a cell.


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A method that knows the answers to the uniform poses; its trainings are noted."""
    trainings: list[str] = []
    poses = 40
    monkeypatch.setitem(BUDGETS, "quick", replace(BUDGETS["quick"], poses=poses))

    def train(job: methods.Job) -> Trained:
        trainings.append(job.cell.name)
        assert job.recording.frames.images.shape[1:3] == BUDGETS["quick"].image_size[::-1]
        robot = bench_robot()
        truth = fresh_positions(robot, poses, seed=measures.SEED)

        def read(pictures: Iterable[Any]) -> Reading:
            assert len(list(pictures)) == poses
            return Reading(truth, np.full(truth.shape, 0.1), robot.normalise(truth)[:, ::-1])

        return Trained(read, None, {"seconds": 1.5}, {})

    monkeypatch.setitem(METHODS, "oracle", Method(LABEL_FREE, "everything", train, known_order=False))
    return trainings


def test_a_cell_is_recorded_trained_tested_and_kept(tmp_path: Path, oracle: list[str]) -> None:
    cell = Cell("oracle", frames=60, budget="quick")
    assert worker.work(tmp_path, cell, ("uniform",))
    record = read_cell(tmp_path, cell)
    assert record is not None and record["state"] == "done"
    assert record["data"] == {"frames": 60, "segments": 360, "level_label_noise": pytest.approx(0.167, abs=0.002)}
    assert record["training"] == {"seconds": 1.5}
    figures = record["tests"]["uniform"]
    assert figures["mcc"] == pytest.approx(1.0)  # latents stand in reverse order, and are matched
    assert figures["mean_joint_mae_deg"] == pytest.approx(0.0, abs=1e-9)
    assert figures["add_auc"] == pytest.approx(1.0) and figures["coverage_2std"] == [1.0] * 6
    assert worker.picture_file(tmp_path, cell).read_bytes().startswith(b"\x89PNG")
    assert worker.work(tmp_path, cell, ("uniform",)) and oracle == [cell.name]
    assert not (tmp_path / "work" / cell.name).exists()


def test_a_failure_is_recorded_with_its_message_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(cell: Cell) -> dict[str, Any]:
        raise TrainingError("the lens is covered")

    monkeypatch.setitem(METHODS, "exact scores", Method(OURS, "", None, fail))
    assert not worker.work(tmp_path, ORACLE, ("recovery",))
    record = read_cell(tmp_path, ORACLE)
    assert record is not None and (record["state"], record["message"]) == ("failed", "the lens is covered")
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setitem(METHODS, "exact scores", Method(OURS, "", None, lambda cell: {"error": 0.25}))
    assert worker.work(tmp_path, ORACLE, ("recovery",))
    record = read_cell(tmp_path, ORACLE)
    assert record is not None and record["tests"] == {"recovery": {"error": 0.25}} and record["state"] == "done"


def test_only_missing_tests_are_run_where_the_model_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = Cell("ours", frames=60, budget="quick")
    write_cell(tmp_path, cell, {**DONE, "training": {"seconds": 9.0}, "tests": {"uniform": {"mcc": 0.5}}})
    kept = tmp_path / "models" / cell.name
    kept.mkdir(parents=True)
    (kept / "model.onnx").touch()
    monkeypatch.setattr(methods, "load_kept", lambda folder: {kept: "encoder"}[folder])
    run: list[str] = []

    def test(name: str, trained: Trained, *_: Any) -> dict[str, Any]:
        assert trained.encoder == "encoder"
        run.append(name)
        return {"mcc": 0.25}

    monkeypatch.setattr(measures, "run_test", test)
    assert worker.work(tmp_path, cell, ("uniform", "observational"))
    record = read_cell(tmp_path, cell)
    assert run == ["observational"] and record is not None
    assert record["training"] == {"seconds": 9.0}
    assert record["tests"] == {"uniform": {"mcc": 0.5}, "observational": {"mcc": 0.25}}


# Many cells.


def test_the_command_runs_cells_goes_on_after_a_failure_and_takes_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = replace(ORACLE, design="no such model/linear")
    rows = Row("good", "good", (ORACLE,), ("recovery",)), Row("bad", "bad", (bad,), ("recovery",))
    table = Group("check", "Check", "", rows, ("error", "shd"))
    monkeypatch.setattr(tables, "groups", lambda budget: (table,))
    out = ["--out", str(tmp_path)]
    first = CliRunner().invoke(app, ["accuracy", "--quick", *out])
    assert first.exit_code == 1
    assert "no such model" in first.output and "1 of 2 cells done" in first.output
    content = json.loads((tmp_path / "accuracy.json").read_text())
    good, failed = content["groups"][0]["rows"]
    assert good["state"] == "done" and 0.0 <= good["values"]["error"]["mean"] < 1.0
    assert failed["state"] == "failed" and "no such model" in failed["message"]
    assert "Traceback" in runner.log_file(tmp_path, bad).read_text()
    assert "failed: causal model" in (tmp_path / "accuracy.html").read_text()
    monkeypatch.setattr(runner, "_start", lambda *_: pytest.fail("nothing is left to run"))
    again = CliRunner().invoke(app, ["accuracy", "--quick", "--only", "check/good", *out])
    assert again.exit_code == 0 and "1 of 1 cells done" in again.output
    unknown = CliRunner().invoke(app, ["accuracy", "--quick", "--only", "else/*", *out])
    assert isinstance(unknown.exception, RopesError)


def test_a_process_that_dies_without_a_word_gets_a_record_and_a_cell_waits_for_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = Cell("ours", frames=10, budget="quick")
    follower = replace(base, start=base.name)
    started: list[tuple[Cell, bool]] = []

    def start(processes: Any, out: Path, cell: Cell, tests: tuple[str, ...]) -> Any:
        started.append((cell, read_cell(out, base) is not None))
        kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
        return processes.start([sys.executable, "-I", "-S", "-c", kill])

    monkeypatch.setattr(runner, "_start", start)
    events: list[runner.Event] = []
    failed = runner.run_cells({follower: (), base: ()}, tmp_path, jobs=2, on_event=events.append)
    assert failed == 2 and started == [(base, False), (follower, True)]
    assert all("-9" in event.message and event.cell.name in event.message for event in events)
    record = read_cell(tmp_path, base)
    assert record is not None and record["state"] == "failed"
    with pytest.raises(RopesError, match="--jobs 0"):
        runner.run_cells({}, tmp_path, jobs=0)


# Aggregation, worked out by hand.


def test_mean_and_spread_over_seeds() -> None:
    cells = [
        {"mcc": 0.9, "coverage_2std": [0.9, 1.0], "lag_s": None},
        {"mcc": 0.6, "coverage_2std": [0.7, 1.0], "lag_s": 0.2},
    ]
    found = aggregate(cells, ("mcc", "coverage_2std", "lag_s", "r2"))
    # Deviations of +-0.15 from 0.75: sqrt(2 x 0.0225 / 1) = 0.2121.
    assert found["mcc"] == {"mean": pytest.approx(0.75), "spread": pytest.approx(0.2121, abs=1e-4), "n": 2}
    assert found["coverage_2std"]["mean"] == pytest.approx([0.8, 1.0])
    assert found["coverage_2std"]["spread"] == pytest.approx([0.1414, 0.0], abs=1e-4)
    assert found["lag_s"] == {"mean": 0.2, "spread": None, "n": 1}
    assert "r2" not in found


def _line(key: str, role: str, test: str = "uniform", **values: float) -> Line:
    row = Row(key, key, (Cell("ours"),), (test,))
    means = {name: {"mean": value, "spread": None, "n": 1} for name, value in values.items()}
    return Line(row, test, role, "", means, "done", "", ("",))


def test_the_best_row_and_where_baselines_win() -> None:
    table = [
        _line("ours", OURS, mcc=0.9, mean_joint_mae_deg=3.0, seconds=5.0),
        _line("ica", LABEL_FREE, mcc=0.3, mean_joint_mae_deg=2.0, seconds=1.0),
        _line("bound", "labels", mcc=0.95, mean_joint_mae_deg=1.0, seconds=5.0),
        _line("ica", LABEL_FREE, "observational", mcc=0.99),
    ]
    assert best(table, "mcc", "uniform") == {"bound"}
    assert best(table, "mean_joint_mae_deg", "uniform") == {"bound"}
    assert best(table, "seconds", "uniform") == set()  # neither more nor less is better
    assert best(table, "mcc", "observational") == set()  # alone
    (sentence,) = beaten(table, ("mcc", "mean_joint_mae_deg", "seconds"))
    assert sentence == "mean error, deg on uniform poses: ica (2.00) beats ours (3.00)."


def test_the_ratio_of_wall_times_needs_both_and_all_seeds() -> None:
    ours, published = _line("ours", OURS, seconds_to_mcc_95=60.0), _line("published", "check", published_seconds=6000.0)
    assert time_ratio([ours, published]) == pytest.approx(0.01)
    assert time_ratio([_line("ours", OURS), published]) is None
    two_seeds = ours._replace(row=replace(ours.row, cells=(Cell("ours"), Cell("ours", seed=1))))
    assert time_ratio([two_seeds, published]) is None


def test_our_error_over_the_bounds_is_told_where_both_are_known() -> None:
    table = [
        _line("ours-iid", OURS, mean_joint_mae_deg=3.0),
        _line("bound-iid", "labels", mean_joint_mae_deg=1.5),
        _line("ours-sweeps", OURS, mean_joint_mae_deg=3.0),
        _line("ours-iid", OURS, "observational", mean_joint_mae_deg=3.0),
    ]
    assert over_bound(table) == {"iid, uniform": 2.0}


def test_seconds_until_a_value_is_reached() -> None:
    assert seconds_to([10.0, 20.0, 30.0], [0.5, 0.96, 0.94]) == 20.0
    assert seconds_to([10.0], [0.5]) is None and seconds_to([], []) is None


def test_the_published_recipes_time_from_its_steps() -> None:
    # 512 images: 2 steps of the autoencoder, 4 of each of 2 classifiers, 2 of the latents. The autoencoder's take 3 s,
    # the classifiers' 1 s with 5 s of score differences after each pair, the latents' 0.5 s.
    moments = [7.0, 10.0]
    for begin in (21.0, 30.0):  # what lies before the first classifier is start-up
        moments += [begin, begin + 1.0, begin + 2.0, begin + 3.0]
    moments += [38.5, 39.0]
    found = whole_run(moments, 512, 256, 2)
    scale = 10_000 / 512
    assert (PUBLISHED.autoencoder_epochs, PUBLISHED.classifier_epochs, PUBLISHED.latent_epochs) == (100, 10, 150)
    assert found["autoencoder_seconds"] == pytest.approx(scale * 100 * 2 * 3.0)
    assert found["classifier_seconds"] == pytest.approx(scale * 10 * 2 * 4 * 1.0)
    # From 24 to 30 and from 33 to 38.5, of which a step of 1 s each.
    assert found["score_seconds"] == pytest.approx(scale * (5.0 + 4.5))
    assert found["latent_seconds"] == pytest.approx(scale * 150 * 2 * 0.5)
    stages = [value for name, value in found.items() if name != "published_seconds"]
    assert found["published_seconds"] == pytest.approx(sum(stages))
    with pytest.raises(TrainingError, match="fewer than 512 images"):
        whole_run(moments[:-1], 512, 256, 2)


# The page.


def test_the_page_shows_what_was_run_and_says_what_was_not(tmp_path: Path) -> None:
    cells = [Cell(method, frames=60, budget="quick") for method in ("ours", "beta-VAE", "QLAE", "PCA + ICA")]
    rows = tuple(Row(f"r{number}", f"label <{cell.method}>", (cell,)) for number, cell in enumerate(cells))
    metrics = ("mcc", "coverage_2std", "seconds")
    table = Group("baselines", "Methods & baselines", "A note.", rows, metrics, compared=True)
    for cell, mcc in zip(cells[:2], (0.5, 0.75), strict=True):
        tests = {"uniform": {"mcc": mcc, "coverage_2std": [0.5, 0.25]}}
        write_cell(tmp_path, cell, {**DONE, "training": {"seconds": 1234.0}, "tests": tests})
    write_cell(tmp_path, cells[2], {**worker.NOTHING, "state": "failed", "message": "no <light>"})
    worker.picture_file(tmp_path, cells[0]).write_bytes(b"picture")
    states = [line.state for line in lines(tmp_path, table)]
    assert states == ["done", "done", "failed", "not run"]
    text = page.write_page(tmp_path, [table], "quick").read_text(encoding="utf-8")
    assert "<b>0.750</b>" in text and "<b>0.500</b>" not in text
    assert "0.50 0.25" in text and "1,234" in text
    assert "label &lt;ours&gt;" in text and "Methods &amp; baselines" in text
    assert "label &lt;beta-VAE&gt; (0.750) beats label &lt;ours&gt; (0.500)" in text
    assert "failed: no &lt;light&gt;" in text and ">not run<" in text
    assert METHODS["beta-VAE"].supervision.split(";")[1].strip()[:20] in text
    assert "src='data:image/png;base64,cGljdHVyZQ=='" in text
    assert "http" not in text.replace("charset", "")
    plain = markdown(tmp_path, [table], "quick")
    assert "| label <ours> |" in plain and "| **0.750** | 0.50 0.25 |" in plain
    assert "- MCC (Pearson) on uniform poses: label <beta-VAE> (0.750) beats label <ours> (0.500)." in plain
    assert "Failed: label <QLAE> (no <light>)." in plain and "Not run yet: label <PCA + ICA>." in plain
    content = document(tmp_path, [table], "quick")
    assert content["cells"][cells[3].name] is None and len(content["groups"][0]["where_baselines_win"]) == 1


def test_curves_are_drawn_from_rows_that_are_there(tmp_path: Path) -> None:
    found = {group.key: group for group in groups("quick")}
    cells = [cell for row in found["curve"].rows for cell in row.cells]
    for cell in cells:
        figures = {"mcc": 0.5, "mean_joint_mae_deg": 9.0}
        write_cell(tmp_path, cell, {**DONE, "tests": {"uniform": figures}})
    text = page.write_page(tmp_path, [found["curve"], found["time"]], "quick").read_text(encoding="utf-8")
    assert text.count("data:image/png") == 1 and "learning curves" in text
    assert "whole run: not known" in text


def test_a_row_of_which_seeds_are_missing_says_so(tmp_path: Path) -> None:
    row = Row("ours", "ours", tuple(replace(ORACLE, seed=seed) for seed in range(3)), ("recovery",))
    table = Group("identifiability", "Latents", "A note.", (row,), ("error",))
    for cell, error in zip(row.cells[:2], (0.2, 0.3), strict=True):
        write_cell(tmp_path, cell, {**DONE, "tests": {"recovery": {"error": error}}})
    assert "| ours (2 of 3 seeds) | exact score differences | 0.250 ± 0.071 |" in markdown(tmp_path, [table], "quick")


def test_a_figure_of_fewer_seeds_than_its_row_says_so(tmp_path: Path) -> None:
    row = Row("ours", "ours", tuple(replace(ORACLE, seed=seed) for seed in range(3)), ("recovery",))
    table = Group("identifiability", "Latents", "A note.", (row,), ("error", "seconds"))
    for cell, seconds in zip(row.cells, ({}, {"seconds": 5.0}, {"seconds": 7.0}), strict=True):
        write_cell(tmp_path, cell, {**DONE, "tests": {"recovery": {"error": 0.2, **seconds}}})
    text = markdown(tmp_path, [table], "quick")
    assert "(3 of 3 seeds)" in text and "| 0.200 ± 0.000 | 6 ± 1 (of 2) |" in text


def test_what_trainings_say_of_themselves_stands_below_the_table(tmp_path: Path) -> None:
    row = Row("ropes", "ROPES", (ORACLE,), ("recovery",))
    table = Group("baselines", "Methods", "A note.", (row,), ("error",))
    training = {"notes": ["stage 3 fell short"]}
    write_cell(tmp_path, ORACLE, {**DONE, "training": training, "tests": {"recovery": {"error": 0.2}}})
    assert "ROPES, of its own training: stage 3 fell short." in markdown(tmp_path, [table], "quick")


@pytest.mark.parametrize("content", ["[]", '{"state": "done"}', '{"training": 1}'])
def test_what_is_no_record_of_a_cell_is_named(tmp_path: Path, content: str) -> None:
    path = cell_file(tmp_path, ORACLE)
    path.parent.mkdir(parents=True)
    path.write_text(content.replace("{", f'{{"key": "{ORACLE.key}", ', 1))
    with pytest.raises(RopesError, match=f"{ORACLE.name}.json: is no record"):
        read_cell(tmp_path, ORACLE)


def test_the_committed_table_is_that_of_the_committed_cells() -> None:
    results = REPOSITORY / "benchmarks" / "results"
    assert len(list((results / "cells").glob("*.json"))) > 10
    committed = (REPOSITORY / "docs" / "accuracy.md").read_text(encoding="utf-8")
    assert markdown(results, groups("full"), "full") == committed


# The targets.


def _figures(**clean: Any) -> dict[str, dict[str, Any]]:
    plain = {"mcc": 0.99, "mean_joint_mae_deg": 2.0, "tip_error_mm_median": 10.0, "coverage_2std": [0.95, 0.95]}
    areas = dict.fromkeys(("auc_covered", "auc_object", "auc_moved"), 0.96)
    return {"clean": {**plain, **clean}, "novelty": areas}


def test_models_are_judged_by_the_mean_of_their_row() -> None:
    drifted = {"drift": {"mean_joint_mae_deg": 3.4}, **_figures()}
    rows = {
        "iid": [_figures(mcc=0.98, coverage_2std=[0.95, 0.99]), _figures(mean_joint_mae_deg=2.5)],
        "iid-drift": [drifted],
    }
    judged = {(e.target.row, e.target.test, e.target.metric): e for e in targets.judge(rows)}
    mcc = judged["iid", "clean", "mcc"]
    assert mcc.measured == pytest.approx(0.985) and mcc.reached is False and mcc.models == 2
    assert judged["iid", "clean", "tip_error_mm_median"].reached is True
    # By joint 0.95 and (0.99 + 0.95) / 2 = 0.97; the second is the one nearer to its bound, 0.98.
    coverage = judged["iid", "clean", "coverage_2std"]
    assert coverage.measured == pytest.approx(0.97) and coverage.reached is True
    assert (coverage.lowest, coverage.highest) == (0.95, 0.99)
    drift = judged["iid-drift", "drift", "mean_joint_mae_deg"]
    assert drift.bounds == (None, pytest.approx(1.5 * 2.25)) and drift.reached is False
    missing = judged["sweeps", "clean", "mcc"]
    assert missing.reached is None and missing.measured is missing.lowest is missing.highest is None


def test_worst_joints_of_different_models_do_not_make_up_for_each_other() -> None:
    """Two models, too sure of joint 1 and too unsure of joint 2; the mean of their worst joints would be 0.935."""
    first, second = _figures(coverage_2std=[0.86, 0.97]), _figures(coverage_2std=[0.88, 1.0])
    judged = {(e.target.row, e.target.metric): e for e in targets.judge({"iid": [first, second]})}
    coverage = judged["iid", "coverage_2std"]
    # By joint 0.87 and 0.985, which lie 0.03 and 0.005 outside of 0.90 to 0.98.
    assert coverage.measured == pytest.approx(0.87) and coverage.reached is False
    assert (coverage.lowest, coverage.highest) == (0.86, 1.0)


def test_verify_measures_what_the_targets_need_and_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = tmp_path / "models.yaml"
    listing.write_text("models:\n- {folder: models/a, rows: [iid], cell: headline/ours-iid, seed: 0}\n")
    asked: dict[str, tuple[str, ...]] = {}

    def measure(folder: Path, tests: tuple[str, ...]) -> dict[str, dict[str, Any]]:
        asked[str(folder)] = tests
        return _figures(mean_joint_mae_deg=2.75, coverage_2std=[0.95, 0.93])

    monkeypatch.setattr(verify, "evaluate_model", measure)
    result = CliRunner().invoke(app, ["verify", "--models", str(listing), "--out", str(tmp_path / "out")])
    assert asked == {"models/a": ("clean", "novelty")}
    assert result.exit_code == 1 and "1 targets missed" in result.output
    written = json.loads((tmp_path / "out" / "accuracy.json").read_text())
    missed = [entry for entry in written["targets"] if entry["reached"] is False]
    assert [(entry["metric"], entry["measured"]) for entry in missed] == [("mean_joint_mae_deg", 2.75)]
    coverage = next(entry for entry in written["targets"] if entry["metric"] == "coverage_2std")
    assert (coverage["row"], coverage["lowest"], coverage["highest"]) == ("iid", 0.93, 0.95)
    assert written["poses"] == 2000 and written["models"]["models/a"]["clean"]["mcc"] == 0.99


def test_targets_that_nothing_measured_do_not_pass_unless_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One model reaches all that its row asks for; the other rows have none."""
    listing = tmp_path / "models.yaml"
    listing.write_text("models:\n- {folder: models/a, rows: [iid], cell: headline/ours-iid, seed: 0}\n")
    monkeypatch.setattr(verify, "evaluate_model", lambda *_: _figures())
    arguments = ["verify", "--models", str(listing), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    others = [row for row in targets.ROWS if row != "iid"]
    count = sum(target.row != "iid" for target in targets.TARGETS)
    assert result.exit_code == 1 and "0 targets missed" in result.output
    assert f"{count} of {len(targets.TARGETS)} targets not measured: {', '.join(others)}" in result.output
    partial = CliRunner().invoke(app, [*arguments, "--partial", "--json"])
    assert partial.exit_code == 0
    assert (json.loads(partial.output)["missed"], json.loads(partial.output)["not_measured"]) == (0, count)
    monkeypatch.setattr(verify, "evaluate_model", lambda *_: _figures(mcc=0.9))
    assert CliRunner().invoke(app, [*arguments, "--partial"]).exit_code == 1


def test_a_listed_model_is_retrained_as_its_cell_and_put_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def model_in(place: Path) -> verify.Listed:
        return verify.Listed(place, ("iid",), "headline/ours-iid", 1)

    model = model_in(tmp_path / "models" / "arm6")
    cell = model.find()
    assert (cell.method, cell.frames, cell.seed, cell.budget) == ("ours", 70_000, 1, "full")
    out = tmp_path / "bench"

    def run(cells: Any, folder: Path, **_: Any) -> int:
        made = folder / "models" / cell.name
        made.mkdir(parents=True, exist_ok=True)
        for name in ("model.onnx", "card.md", "checkpoint.pt"):
            (made / name).write_text(name)
        write_cell(folder, cell, {**DONE, "tests": {}})
        return 0

    monkeypatch.setattr(verify, "run_cells", run)
    verify.retrain([model], out, jobs=1)
    assert {path.name for path in model.folder.iterdir()} == {"model.onnx", "card.md", "checkpoint.pt"}
    judged_only = model_in(tmp_path / "benchmarks" / "arm6")
    verify.retrain([judged_only], out, jobs=1)
    assert {path.name for path in judged_only.folder.iterdir()} == {"model.onnx", "card.md"}
    write_cell(out, cell, {**worker.NOTHING, "state": "failed", "message": "no room"})
    monkeypatch.setattr(verify, "run_cells", lambda *_, **__: 1)
    with pytest.raises(RopesError, match="no room"):
        verify.retrain([model], out, jobs=1)


def test_the_list_of_models_is_checked(tmp_path: Path) -> None:
    committed = verify.read_list(REPOSITORY / verify.LIST_FILE)
    assert all(model.find() for model in committed)
    good = "{folder: a, rows: [iid], cell: headline/ours-iid, seed: 0}"
    for text, message in (
        ("models: 3", "needs a list"),
        ("models: []", "`models` is empty"),
        ("models: [{folder: a}]", "exactly cell, folder, rows, seed"),
        ("models: [3]", r"models\[0\] needs exactly"),
        (f"models: [{good.replace('iid]', 'else]')}]", "unknown row 'else'"),
        (f"models: [{good}, {good.replace('[iid]', '3')}]", r"models\[1\] \(a\): `rows` must be a list .* got 3"),
        (f"models: [{good.replace('[iid]', 'iid')}]", "`rows` must be a list .* got 'iid'"),
        (f"models: [{good.replace('[iid]', '[]')}]", "`rows` must be a list of one or more"),
        (f"models: [{good.replace('[iid]', '[[iid]]')}]", "unknown row"),
        (f"models: [{good.replace('seed: 0', 'seed: x')}]", r"models\[0\] \(a\): `seed` .* got 'x'"),
        (f"models: [{good.replace('seed: 0', 'seed: true')}]", "`seed` must be a whole number"),
        (f"models: [{good.replace('folder: a', 'folder: 3')}]", "`folder` must be text, got 3"),
        (f"models: [{good.replace('headline/ours-iid', 'null')}]", "`cell` must be text, got None"),
        ("models: [", "YAML"),
        ("models: []  # Fr\u00e4n", "YAML .*utf-8"),
    ):
        (tmp_path / "models.yaml").write_bytes(text.encode("latin-1"))
        with pytest.raises(RopesError, match=message) as refused:
            verify.read_list(tmp_path / "models.yaml")
        assert "models.yaml" in str(refused.value) and "\n" not in str(refused.value)
    with pytest.raises(RopesError, match="no such list"):
        verify.read_list(tmp_path / "none.yaml")
    with pytest.raises(RopesError, match="no cell of seed 7"):
        replace(committed[0], seed=7).find()

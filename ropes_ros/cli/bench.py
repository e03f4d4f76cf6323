"""`ropes bench`: the table of methods, bounds and baselines, the committed models, and the nodes as they run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ropes_ros.cli.output import Json, console, in_words, print_facts, print_json, print_table
from ropes_ros.errors import RopesError

if TYPE_CHECKING:
    from ropes_ros.bench.runner import Event
    from ropes_ros.bench.targets import Judged

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Measure: every method in one table, the committed models against their targets, or nodes as they run.",
)

Jobs = Annotated[int, typer.Option(min=1, help="Processes at a time, of one thread each.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for cells, models, data and the page.")]


@app.command()
def accuracy(
    quick: Annotated[bool, typer.Option("--quick", help="A check that all runs, in some ten minutes.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="GROUP/ROW", help="Run only rows that fit, for example 'headline/*'; may be repeated."),
    ] = None,
    jobs: Jobs = 2,
    out: Out = Path("out/bench"),
    as_json: Json = False,
) -> None:
    """Train and judge every method on the same frames; what is done is not done again."""
    from ropes_ros.bench.groups import groups, wanted
    from ropes_ros.bench.runner import run_cells

    budget = "quick" if quick else "full"
    cells = wanted(groups(budget), tuple(only or ()))
    try:
        failed = run_cells(cells, out, jobs=jobs, on_event=None if as_json else _say)
    except KeyboardInterrupt:
        console.print("interrupted; what is done is kept, run it again to go on")
        raise typer.Exit(130) from None
    if not as_json:
        console.print(f"{len(cells) - failed} of {len(cells)} cells done")
    _write(out, budget, as_json=as_json)
    if failed:
        raise typer.Exit(1)


@app.command()
def table(
    quick: Annotated[bool, typer.Option("--quick", help="Of the quick budget's cells.")] = False,
    out: Out = Path("out/bench"),
    as_json: Json = False,
) -> None:
    """Write the table from the cells that are done, without running any."""
    if not any((out / "cells").glob("*.json")):
        raise RopesError(f"{out} holds no cell; name the --out of a `ropes bench accuracy` that was run")
    _write(out, "quick" if quick else "full", as_json=as_json)


def _write(out: Path, budget: str, *, as_json: bool) -> None:
    """The table in its three forms."""
    from ropes_ros.bench.cells import write_json
    from ropes_ros.bench.groups import groups
    from ropes_ros.bench.markdown import write_markdown
    from ropes_ros.bench.page import write_page
    from ropes_ros.bench.summary import JSON_FILE, document

    tables = groups(budget)
    content = document(out, tables, budget)
    write_json(out / JSON_FILE, content)
    pages = [write_page(out, tables, budget), write_markdown(out, tables, budget)]
    if as_json:
        print_json(content)
    else:
        console.print(f"written: {', '.join(str(path) for path in (out / JSON_FILE, *pages))}")


@app.command()
def verify(
    train: Annotated[bool, typer.Option("--train", help="Train the models anew first, which takes hours.")] = False,
    models: Annotated[Path, typer.Option(help="The list of models.")] = Path("benchmarks/models.yaml"),
    jobs: Jobs = 2,
    bench: Annotated[Path, typer.Option(help="With --train: the bench's folder.")] = Path("out/bench"),
    partial: Annotated[
        bool, typer.Option("--partial", help="Let targets pass whose rows have no model; missed ones still count.")
    ] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for accuracy.json.")] = Path("out/verify"),
    as_json: Json = False,
) -> None:
    """Compare the committed models with the targets, on 2,000 fresh poses; status 1 unless all are measured and met."""
    from ropes_ros.bench.verify import read_list, retrain
    from ropes_ros.bench.verify import verify as verify_models

    listed = read_list(models)
    if train:
        retrain(listed, bench, jobs=jobs, on_event=None if as_json else _say)
    judged = verify_models(listed, out)
    missed = sum(entry.reached is False for entry in judged)
    open_rows = [entry.target.row for entry in judged if entry.reached is None]
    if as_json:
        targets = [entry.plain() for entry in judged]
        print_json({"missed": missed, "not_measured": len(open_rows), "targets": targets})
    else:
        rows = [_judged_row(entry) for entry in judged]
        print_table(["models", "test", "figure", "target", "measured", ""], rows)
        if open_rows:
            named = ", ".join(dict.fromkeys(open_rows))
            console.print(f"{len(open_rows)} of {len(judged)} targets not measured: {named}", soft_wrap=True)
        console.print(f"{missed} targets missed; written: {out / 'accuracy.json'}", soft_wrap=True)
    if missed or (open_rows and not partial):
        raise typer.Exit(1)


@app.command()
def estimator(
    quick: Annotated[bool, typer.Option("--quick", help="A check that all runs, in some two minutes.")] = False,
    seconds: Annotated[float | None, typer.Option(min=2.0, help="Length of each run, 20 or 4 when not given.")] = None,
    soak: Annotated[
        float, typer.Option(min=0.0, metavar="MINUTES", help="Also run so long at 60 frames a second.")
    ] = 0.0,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for estimator.json, logs, models and pictures.")
    ] = Path("out/bench-estimator"),
    as_json: Json = False,
) -> None:
    """Latency and cost of the estimator node, beside a bare inference and a plain node; let nothing else run."""
    from dataclasses import replace

    from ropes_ros.bench.estimator.runs import QUICK, Settings, measure

    settings = replace(QUICK if quick else Settings(), soak_minutes=soak)
    if seconds is not None:
        settings = replace(settings, seconds=seconds)
    result = measure(settings, out, on_step=(lambda text: None) if as_json else console.print)
    if as_json:
        print_json(result)
        return
    _print_estimator(result)
    console.print(f"written: {out / 'estimator.json'}", soft_wrap=True)


def _print_estimator(result: dict[str, Any]) -> None:
    """The tables of `ropes bench estimator`."""
    times = ("p50_ms", "p99_ms", "p99.9_ms", "max_ms")
    more = ("cpu_ms_per_frame", "rss_mb", "lost")
    heads = ["p50", "p99", "p99.9", "max", "CPU ms/frame", "RSS MB", "lost"]
    width, height = result["settings"]["size"]
    print_table(
        ["ms", *heads],
        [[name, *(_figure(row.get(key)) for key in (*times, *more))] for name, row in result["latency"].items()],
        f"{width}x{height} at {result['settings']['rate']:g} Hz, median of {result['settings']['rounds']} rounds",
    )
    print_table(
        ["camera", *(f"{name} {head}" for name in ("ours", "floor") for head in heads[:3]), "CPU ms"],
        [
            [
                "{}x{}".format(*row["size"]),
                *(_figure(row[name][key]) for name in ("estimator", "floor") for key in times[:3]),
                _figure(row["estimator"]["cpu_ms_per_frame"]),
            ]
            for row in result["sizes"]
        ],
        "Camera sizes, ms; CPU of the estimator for each frame",
    )
    batch = ("provider", "precision", "batch", "session_ms_per_image", "encoder_ms_per_image")
    print_table(
        ["provider", "precision", "images", "bare session, ms/image", "Encoder.run, ms/image"],
        [[_figure(row[key]).removesuffix("ExecutionProvider") for key in batch] for row in result["batches"]],
        "Many images at once",
    )
    print_facts({f"overload: {name}": _figure(value) for name, value in result["overload"].items()})
    for name, value in result.get("soak", {}).items():
        if name != "rss_mb_over_s":
            print_facts({f"soak: {name}": _figure(value)})


@app.command()
def recorder(
    quick: Annotated[bool, typer.Option("--quick", help="A check that all runs, in some two minutes.")] = False,
    seconds: Annotated[float | None, typer.Option(min=2.0, help="Length of each run, 20 or 4 when not given.")] = None,
    cameras: Annotated[list[int] | None, typer.Option(min=1, max=8, help="How many cameras; may be repeated.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for recorder.json, bags and logs.")] = Path(
        "out/bench-recorder"
    ),
    as_json: Json = False,
) -> None:
    """Throughput, loss and cost of the recorder node, beside the disk and other recorders; let nothing else run."""
    from dataclasses import replace

    from ropes_ros.bench.recorder.runs import FLOOR, QUICK, Settings, measure

    settings = QUICK if quick else Settings()
    if seconds is not None:
        settings = replace(settings, seconds=seconds)
    if cameras:
        settings = replace(settings, cameras=tuple(cameras))
    result = measure(settings, out, on_step=(lambda text: None) if as_json else console.print)
    if as_json:
        print_json(result)
        return
    columns = ("sent", "recorded", "lost", "queue", "transport", "gaps", "exact", "cpu_ms_per_frame", "rss_mb")
    print_table(
        ["cameras", "recorder", "MB/s", "disk MB/s", *columns],
        [
            [
                "{} x {}x{}".format(run["cameras"], *run["size"]),
                name,
                _figure(row["mb_per_s"]),
                _figure(run[FLOOR]["mb_per_s_on_disk"]),
                *(_figure(row.get(column)) for column in columns),
            ]
            for run in result["runs"]
            for name, row in run["rows"].items()
        ],
        f"30 frames a second for {settings.seconds:g} s",
    )
    console.print(f"written: {out / 'recorder.json'}", soft_wrap=True)


@app.command()
def precision(
    model: Annotated[Path | None, typer.Argument(help="Folder of the model; the shipped one by default.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A check that all runs, in a minute.")] = False,
    poses: Annotated[int | None, typer.Option(min=2, help="Fresh poses a condition, 2000 when not given.")] = None,
    card: Annotated[bool, typer.Option("--card", help="Write the table into the model's card as well.")] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for precision.json.")] = Path("out/bench-precision"),
    as_json: Json = False,
) -> None:
    """A model's precisions side by side: accuracy, size, latency, memory; let nothing else run."""
    from dataclasses import replace

    from ropes_ros.bench.precision import QUICK, Settings, amend_card, columns, measure
    from ropes_ros.encoder import shipped_model

    settings = QUICK if quick else Settings()
    if poses is not None:
        settings = replace(settings, poses=poses)
    folder = shipped_model("arm6") if model is None else model
    result = measure(folder, out, settings, on_step=(lambda text: None) if as_json else console.print)
    if card:
        amend_card(folder / "card.md", result)
    if as_json:
        print_json(result)
        return
    heads, rows = columns(result)
    print_table(heads, rows, f"{settings.poses} fresh poses a condition, one thread")
    console.print(f"written: {out / 'precision.json'}", soft_wrap=True)


@app.command()
def nesting(
    seeds: Annotated[int, typer.Option(min=1, help="Fine-tunings of each variant.")] = 3,
    only: Annotated[list[str] | None, typer.Option(metavar="VARIANT", help="These variants; may be repeated.")] = None,
    poses: Annotated[int, typer.Option(min=2, help="Fresh poses.")] = 1000,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for models and nesting.json.")] = Path(
        "out/bench-nesting"
    ),
    as_json: Json = False,
) -> None:
    """Nested weights of the shipped model beside weights for one precision alone, and beside plain rounding."""
    from ropes_ros.bench.cells import BUDGETS, REFERENCE_FRAMES
    from ropes_ros.bench.nesting import VARIANTS, compare, summary
    from ropes_ros.bench.precision import Settings
    from ropes_ros.bench.recordings import bench_robot
    from ropes_ros.encoder import shipped_model
    from ropes_ros.learning.checkpoint import find_checkpoint
    from ropes_ros.learning.qat import QuantiseConfig
    from ropes_ros.sim.canonical import iid_poses

    if unknown := set(only or ()) - set(VARIANTS):
        raise RopesError(f"--only {sorted(unknown)[0]}: take some of {', '.join(VARIANTS)}")
    size = BUDGETS["full"].image_size
    recording = iid_poses(bench_robot(), REFERENCE_FRAMES, seed=0, size=size, cache_dir=out / "data")
    rows = compare(
        recording.frames,
        find_checkpoint(shipped_model("arm6")),
        out,
        config=QuantiseConfig(),
        seeds=range(seeds),
        variants=tuple(only or VARIANTS),
        settings=Settings(poses=poses, conditions=("clean",)),
        on_step=(lambda text: None) if as_json else console.print,
    )
    if as_json:
        print_json({"rows": rows, "summary": summary(rows)})
        return
    table = [[name, *(_figure(value) for value in row.values())] for name, row in summary(rows).items()]
    print_table(["variant: precision", "mean error, deg", "sd over seeds", "seeds"], table)
    console.print(f"written: {out / 'nesting.json'}", soft_wrap=True)


def _figure(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _say(event: Event) -> None:
    """One line at the end of a cell."""
    what = f"failed: {event.message}" if event.message else "done"
    console.print(f"{event.done}/{event.total} {event.cell.name}: {what} ({in_words(event.seconds)})")


def _judged_row(entry: Judged) -> tuple[str, ...]:
    from ropes_ros.bench.summary import METRICS

    target, (least, most) = entry.target, entry.bounds
    bounds = " ".join(
        f"{sign} {bound:.4g}" for sign, bound in ((">=", least), ("<=", most)) if bound is not None
    )
    measured = "" if entry.measured is None else f"{entry.measured:.4g}"
    verdict = {True: "pass", False: "MISS", None: "not measured"}[entry.reached]
    return target.row, target.test, METRICS[target.metric].title, bounds, measured, verdict

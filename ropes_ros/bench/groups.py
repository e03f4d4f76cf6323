"""The table: groups of rows, each row a method on some recording, with one cell a seed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from ropes_ros.bench.cells import FRAMES_A_MINUTE, Cell
from ropes_ros.errors import RopesError

UNIFORM, OBSERVATIONAL, EXTRAPOLATION, NOVELTY = "uniform", "observational", "extrapolation", "novelty"
POSES = (UNIFORM, OBSERVATIONAL)
CONDITIONS = ("drift", "jitter", "occlusion", "second_object")
FAULTS = ("none", "late camera", "sag and backlash", "not executed")
UNSUPERVISED = ("PCA + ICA", "autoencoder + ICA", "beta-VAE", "QLAE", "factor subspaces")
LATENT_METRICS = (
    "mcc", "mcc_spearman", "r2_diagonal", "r2_off_diagonal", "dci_disentanglement", "dci_completeness", "dci_error",
    "info_m", "info_e", "info_c",
)
POSE_METRICS = (
    "r2", "mean_joint_mae_deg", "joint_mae_deg", "tip_error_mm_median", "tip_error_mm_mean", "tip_rotation_deg_median",
    "add_auc", "coverage_2std",
)
ERRORS = ("mcc", "mean_joint_mae_deg", "tip_error_mm_median", "add_auc")
RUN = ("held_out_loss", "floor", "label_noise", "frames", "segments", "seconds")


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        key: What `--only` knows it by, within its group.
        label: What it is, for readers.
        cells: One a seed.
        tests: Tests whose figures it shows, a line each.
    """

    key: str
    label: str
    cells: tuple[Cell, ...]
    tests: tuple[str, ...] = (UNIFORM,)


@dataclass(frozen=True)
class Group:
    """A table.

    Attributes:
        key: What `--only` knows it by.
        title: Its heading.
        note: What a reader should know.
        rows: Its rows.
        metrics: Its columns, keys of `summary.METRICS`.
        compared: Whether label-free baselines stand here beside ours, so that it must say where they win.
    """

    key: str
    title: str
    note: str
    rows: tuple[Row, ...]
    metrics: tuple[str, ...]
    compared: bool = False


@dataclass(frozen=True)
class Scale:
    """Sizes of a budget's recordings, in frames; minutes of video times 1800 for sweeps.

    Attributes:
        budget: Name of the budget.
        seeds: Of the headline rows.
        headline, sweeps: Of the headline rows.
        common: Of all rows that compare methods.
        single: Of the published method, whose networks are large.
        timed: Of the recording on which the published recipe's speed is measured.
        curve: Of the learning curve.
        spectrum: Of the sweeps of the spectrum of supervision.
        adaptation: Minutes recorded with the moved camera.
        oracles: Seeds of the recovery from exact scores.
    """

    budget: str
    seeds: int
    headline: int
    sweeps: int
    common: int
    single: int
    timed: int
    curve: tuple[int, ...]
    spectrum: int
    adaptation: tuple[int, ...]
    oracles: int


SCALES = {
    "full": Scale(
        "full", 3, 70_000, 40 * FRAMES_A_MINUTE, 20_000, 20_000, 20_000, (2000, 5000, 10_000, 20_000, 70_000),
        12 * FRAMES_A_MINUTE, (2, 4, 8, 16), 10,
    ),
    "quick": Scale(
        "quick", 1, 2500, 3 * FRAMES_A_MINUTE, 2500, 1300, 1300, (1250, 2500), 3 * FRAMES_A_MINUTE, (2,), 1,
    ),
}
QUICK_LEAVES_OUT = (
    "seeds 1 and 2, `50 labels`, `1000 labels`, `ROPES, permutation found`, ROPES on variances, most pairs of tasks "
    "and constraints, the distilled ensemble, the residual backbone, tilts and 12 levels of the factorial design, "
    "single faults other than the late camera, most minutes of adaptation, most causal models"
)
"""Rows of the full table that `--quick` has no time for."""


def groups(budget: str) -> tuple[Group, ...]:
    """All tables of a budget."""
    scale = SCALES[budget]
    return (
        _headline(scale),
        _baselines(scale),
        _objectives(scale),
        _conditions(scale),
        _curve(scale),
        _designs(scale),
        _spectrum(scale),
        _novelty(scale),
        _extrapolation(scale),
        _adaptation(scale),
        _identifiability(scale),
        _time(scale),
    )


def wanted(tables: Iterable[Group], only: tuple[str, ...] = ()) -> dict[Cell, tuple[str, ...]]:
    """Cells of rows with all tests that any row asks of them; those that others start from are among them, first.

    Args:
        tables: The tables.
        only: Patterns of GROUP/ROW, as a shell has them; all rows when empty.

    Raises:
        RopesError: A pattern fits no row.
    """
    rows = [(f"{table.key}/{row.key}", row) for table in tables for row in table.rows]
    for pattern in only:
        if not any(fnmatchcase(key, pattern) for key, _ in rows):
            raise RopesError(f"--only {pattern}: fits no row; rows are {', '.join(sorted(key for key, _ in rows))}")
    by_name = {cell.name: cell for _, row in rows for cell in row.cells}
    found: dict[Cell, tuple[str, ...]] = {}
    for key, row in rows:
        if only and not any(fnmatchcase(key, pattern) for pattern in only):
            continue
        for cell in row.cells:
            if cell.start:
                found.setdefault(by_name[cell.start], ())
            found[cell] = tuple(dict.fromkeys((*found.get(cell, ()), *row.tests)))
    return found


def _cell(scale: Scale, method: str, frames: int, **rest: Any) -> Cell:
    return Cell(method, frames=frames, budget=scale.budget, **rest)


def _seeds(cell: Cell, count: int) -> tuple[Cell, ...]:
    return tuple(replace(cell, seed=seed) for seed in range(count))


def _ours(scale: Scale) -> tuple[Cell, ...]:
    return _seeds(_cell(scale, "ours", scale.headline), scale.seeds)


def _headline(scale: Scale) -> Group:
    rows = []
    for key, label, method in (
        ("ours", "ours", "ours"),
        ("first", "ours, first network alone", "first network"),
        ("bound", "supervised bound", "supervised bound"),
    ):
        for kind, frames, words in (
            ("iid", scale.headline, f"{scale.headline:,} independent poses"),
            ("sweeps", scale.sweeps, f"{scale.sweeps // FRAMES_A_MINUTE} min of recorded sweeps"),
        ):
            if key == "first" and scale.budget == "quick":
                continue
            cells = _seeds(_cell(scale, method, frames, kind=kind), scale.seeds if key != "first" else 1)
            rows.append(Row(f"{key}-{kind}", f"{label}, {words}", cells, POSES))
    return Group(
        "headline",
        "Headline",
        "Two networks trained without any measured pose, beside the same two trained with all true positions on the "
        "same frames, by the same steps. Fresh poses, the exported file run by onnxruntime.",
        tuple(rows),
        ("mcc", "r2", "mean_joint_mae_deg", "joint_mae_deg", "tip_error_mm_median", "tip_error_mm_mean",
         "tip_rotation_deg_median", "add_auc", "coverage_2std", *RUN),
    )


def _baselines(scale: Scale) -> Group:
    quick = scale.budget == "quick"
    common = scale.common
    rows = [
        Row("ours", "ours", (_cell(scale, "ours", common),), POSES),
        Row("bound", "supervised bound", (_cell(scale, "supervised bound", common),), POSES),
    ]
    names = ["all labels", "1000 labels", "200 labels", "50 labels", "commanded position", "command likelihood"]
    if quick:
        names = [name for name in names if name not in ("1000 labels", "50 labels")]
    rows += [Row(_key(name), name, (_cell(scale, name, common),), POSES) for name in (*names, *UNSUPERVISED)]
    own: dict[str, Any] = {"design": "single_joint"}
    rows += [
        Row("ropes-own", "ROPES, its own design (tilts)", (_cell(scale, "ROPES", scale.single, **own),),
            POSES),
        Row("ropes-factorial", "ROPES on factorial frames, pooled per pair of levels",
            (_cell(scale, "ROPES", scale.single),), POSES),
    ]
    if not quick:
        rows += [
            Row("ropes-variances", "ROPES, variances x0.25 and x4",
                (_cell(scale, "ROPES", scale.single, levels="variances", **own),), POSES),
            Row("ropes-found", "ROPES, permutation found, not commanded",
                (_cell(scale, "ROPES, permutation found", scale.single, **own),), POSES),
        ]
    return Group(
        "baselines",
        f"Methods on the same {common:,} frames",
        "Independent poses, one seed. ROPES has the published structure, losses and numbers of epochs, and works on "
        "64x64 pixels; it learns from 500 frames of each of its 13 regimes (6,500 of the column's 20,000), where the "
        "published recipe has 10,000 of each: its rows say what it does at this cost, not what it could. Where a row's "
        "supervision says oracle map, true positions have fitted the way from its latents to angles, which flatters "
        "its errors; latents are judged before any map. Commands are perfect labels here: poses are reached exactly "
        "and clocks agree (for less perfect ones see the spectrum of supervision).",
        tuple(rows),
        (*LATENT_METRICS, *POSE_METRICS, *RUN),
        compared=True,
    )


def _objectives(scale: Scale) -> Group:
    pairs = [
        ("mechanism", "none"), ("reconstruction", "score"), ("contrastive", "independence"), ("masked", "independence"),
    ]
    if scale.budget == "full":
        pairs += [
            ("mechanism", "score"), ("mechanism", "independence"), ("mechanism", "quantized"),
            ("reconstruction", "none"), ("reconstruction", "independence"), ("reconstruction", "quantized"),
            ("contrastive", "score"), ("contrastive-time", "independence"), ("masked", "score"),
            ("masked", "quantized"),
        ]
    rows = [
        Row(f"{task}-{constraint}", f"{task} x {constraint}",
            (_cell(scale, "first network", scale.common, task=task, constraint=constraint),))
        for task, constraint in pairs
    ]
    if scale.budget == "full":
        rows += [
            Row("pretrained", "mechanism x none after reconstruction",
                (_cell(scale, "first network", scale.common, pretrain="reconstruction"),)),
            Row("residual", "mechanism x none, residual backbone",
                (_cell(scale, "first network", scale.common, backbone="residual"),)),
            Row("refined", "mechanism x none, refined (ours)", (_cell(scale, "ours", scale.common),)),
            Row("ensemble", "distilled ensemble of 4, refined", (_cell(scale, "distilled ensemble", scale.common),)),
        ]
    return Group(
        "objectives",
        "Objectives: task x constraint, and what is built on them",
        "The first network alone. Latents of tasks other than mechanism are read without labels (commanded "
        "distributions).",
        tuple(rows),
        (*LATENT_METRICS, "mean_joint_mae_deg", "tip_error_mm_median", "held_out_loss", "floor", "seconds"),
    )


def _conditions(scale: Scale) -> Group:
    clean = _ours(scale)
    rows = [Row("clean", "trained clean", clean, (UNIFORM, *(f"{UNIFORM}/{name}" for name in CONDITIONS)))]
    for name in CONDITIONS:
        cells = (_cell(scale, "ours", scale.headline, condition=name),)
        rows.append(Row(name, f"trained with {name.replace('_', ' ')}", cells, (f"{UNIFORM}/{name}", UNIFORM)))
    if scale.budget == "full":  # where the picture itself may not tell the pose
        bound = _cell(scale, "supervised bound", scale.headline, condition="occlusion")
        tests = (f"{UNIFORM}/occlusion", UNIFORM)
        rows.append(Row("bound-occlusion", "supervised bound, trained with occlusion", (bound,), tests))
    return Group(
        "conditions",
        "Surroundings",
        "Independent poses; ours but for the bound. Lamps, occluders and objects of tests come from generators that "
        "training never uses.",
        tuple(rows),
        (*ERRORS, "coverage_2std", "held_out_loss", "floor", "frames"),
    )


def _curve(scale: Scale) -> Group:
    rows = []
    for method in ("ours", "supervised bound"):
        for frames in scale.curve:
            seeds = scale.seeds if frames == scale.headline else 1
            cells = _seeds(_cell(scale, method, frames), seeds)
            rows.append(Row(f"{_key(method)}-{frames}", f"{method}, {frames:,} frames", cells))
    return Group(
        "curve",
        "Learning curve",
        "Independent poses. Fewer frames are passed over more often.",
        tuple(rows),
        (*ERRORS, "held_out_loss", "floor", "seconds"),
    )


def _designs(scale: Scale) -> Group:
    designs: list[tuple[str, str, dict[str, Any]]] = [
        ("single-joint", "single joint, two tilts and the observational level", {"design": "single_joint"}),
        ("4-bumps", "factorial, 4 bumps of width 0.25", {"levels": "4 bumps"}),
        ("8-bumps", "factorial, 8 bumps of width 0.15", {}),
    ]
    if scale.budget == "full":
        designs += [
            ("tilts", "factorial, two tilts", {"levels": "tilts"}),
            ("12-bumps", "factorial, 12 bumps of width 0.1", {"levels": "12 bumps"}),
        ]
    return Group(
        "designs",
        "Designs of interventions",
        "The first network alone, independent poses. The level's label noise is the strength of the supervision.",
        tuple(Row(key, label, (_cell(scale, "first network", scale.common, **of),)) for key, label, of in designs),
        (*ERRORS, *RUN),
    )


def _spectrum(scale: Scale) -> Group:
    faults = FAULTS if scale.budget == "full" else FAULTS[:2]
    rows = [
        Row(f"{_key(method)}-{_key(fault)}", f"{label}; {words}",
            (_cell(scale, method, scale.spectrum, kind="sweeps", faults=fault),))
        for fault, words in zip(
            faults,
            ("perfect clocks", "camera 200 ms late", "sag and backlash", "5 % of segments not executed"),
            strict=False,
        )
        for method, label in (
            ("first network", "regimes (label free)"),
            ("command likelihood", "commands, learned lag"),
            ("commanded position", "commanded position, least squares"),
        )
    ]
    return Group(
        "spectrum",
        "The spectrum of supervision",
        "Sweeps with lag and sag; one network each, judged by true angles. Which to choose when: the lowest error of "
        "the column of faults that the robot has.",
        tuple(rows),
        (*ERRORS, "lag_s", "unexecuted", "label_noise", "seconds"),
    )


def _novelty(scale: Scale) -> Group:
    return Group(
        "novelty",
        "Novelty",
        "Area under the ROC curve of the model's novelty: disturbed pictures against clean ones of other poses.",
        (Row("ours", "ours, independent poses", _ours(scale), (NOVELTY,)),),
        ("auc_covered", "auc_object", "auc_moved"),
    )


def _extrapolation(scale: Scale) -> Group:
    bound = _seeds(_cell(scale, "supervised bound", scale.headline), scale.seeds)
    return Group(
        "extrapolation",
        "Outside the commanded range",
        "One joint or more up to a fifth of a half range beyond what was ever commanded (after Rep4Ex).",
        tuple(
            Row(key, label, cells, (EXTRAPOLATION, UNIFORM))
            for key, label, cells in (("ours", "ours", _ours(scale)), ("bound", "supervised bound", bound))
        ),
        (*ERRORS, "joint_mae_deg", "coverage_2std"),
    )


def _adaptation(scale: Scale) -> Group:
    moved = f"{UNIFORM}/moved camera"
    start = _ours(scale)[0]
    rows = [Row("before", "the headline model, not adapted", (start,), (moved,))]
    for minutes in scale.adaptation:
        scratch = _cell(scale, "first network", minutes * FRAMES_A_MINUTE, kind="sweeps", camera="moved")
        rows += [
            Row(f"adapted-{minutes}", f"adapted, {minutes} min recorded", (replace(scratch, start=start.name),),
                (moved,)),
            Row(f"scratch-{minutes}", f"from scratch, {minutes} min recorded", (scratch,), (moved,)),
        ]
    return Group(
        "adaptation",
        "A camera moved by 10 cm",
        "The headline's first network adapted to a short recording with the moved camera, against one from scratch.",
        tuple(rows),
        (*ERRORS, "frames", "seconds"),
    )


def _identifiability(scale: Scale) -> Group:
    models = ("linear", "quadratic", "mlp") if scale.budget == "full" else ("quadratic",)
    rows = []
    for model in models:
        for mixing in ("linear", "mlp"):
            cell = Cell("exact scores", kind="none", budget=scale.budget, design=f"{model}/{mixing}")
            rows.append(
                Row(f"{model}-{mixing}", f"{model} causal model, {mixing} mixing", _seeds(cell, scale.oracles),
                    ("recovery",))
            )
    return Group(
        "identifiability",
        "Where theory says it must work: five latent variables, exact scores",
        "Published for GSCALE-I: error 0.03 to 0.04, structural Hamming distance about 0.1.",
        tuple(rows),
        ("error", "correlation", "shd", "edges"),
    )


def _time(scale: Scale) -> Group:
    timed = _cell(scale, "published recipe, timed", scale.timed, design="single_joint")
    return Group(
        "time",
        "Wall time",
        "Ours: seconds of training until MCC is 0.95 on fresh poses, looked at after every epoch. The published "
        "recipe: its whole run with its own epochs and 13 x 10,000 images, from the time of its steps here.",
        (
            Row("ours", "ours, first network, to MCC 0.95", (_cell(scale, "first network", scale.headline),)),
            Row("published", "published recipe, whole run", (timed,), ("time",)),
        ),
        ("seconds_to_mcc_95", "published_seconds", "seconds"),
    )


def _key(name: str) -> str:
    """A name as a part of a key."""
    return name.lower().replace(" + ", "-").replace(" ", "-")

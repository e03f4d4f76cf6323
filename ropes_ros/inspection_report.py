"""What an inspection found, as one HTML file with pictures, or as plain values for scripts."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ropes_ros.bag_pass import CELLS
from ropes_ros.html_page import embed, prepare_drawing, rows, write_page
from ropes_ros.inspecting import Inspection

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST_SPAN = 4.0
"""Grey levels that the plot of the light spans at least: less is no change."""
STREAM_COLUMNS = ("topic", "type", "messages", "Hz", "longest gap s", "missing", "dropped", "clock offset s", "ppm")
JOINT_COLUMNS = (
    "joint", "images in a regime", "rarest level", "segments there", "commanded TV", "W1", "reached TV", "W1",
    "visible", "told by time", "by light",
)  # fmt: skip


def stream_rows(found: Inspection) -> list[tuple[str, ...]]:
    """A row for each topic, under `STREAM_COLUMNS`."""
    return [
        (
            stream.name,
            stream.type_name.rpartition("/")[2],
            str(stream.count),
            f"{stream.rate_hz:.2f}",
            f"{stream.longest_gap_s:.2f}",
            _count(stream.missing),
            _count(stream.dropped),
            _number(stream.offset_s, 3),
            _number(stream.drift_ppm, 0),
        )
        for stream in found.streams
    ]


def joint_rows(found: Inspection) -> list[tuple[str, ...]]:
    """A row for each joint, under `JOINT_COLUMNS`."""
    assert found.schedule is not None
    return [
        (
            joint.name,
            str(joint.frames.sum()),
            f"{found.schedule.levels.ids[int(joint.frames.argmin())]} ({joint.frames.min()})",
            str(joint.segments[int(joint.frames.argmin())]),
            _number(joint.commanded_tv, 2),
            _number(joint.commanded_w1, 2),
            _number(joint.reached_tv, 2),
            _number(joint.reached_w1, 2),
            f"{joint.visible:.2%}" if math.isfinite(joint.visible) else "-",
            f"{joint.time.share:.0%}",
            f"{joint.light.share:.0%}",
        )
        for joint in found.joints
    ]


def image_facts(found: Inspection) -> dict[str, str]:
    """What the images are like, by readable names."""
    pictures = found.pictures
    if pictures is None:
        return {}
    return {
        "images": f"{pictures.count}, " + ", ".join(f"{width}x{height}" for width, height in pictures.sizes),
        "encoding": ", ".join(f"{kind} ({count})" for kind, count in pictures.encodings.items()),
        "equal to the one before": str(pictures.repeated),
        "mean grey level": f"{pictures.brightness[0]:.0f} +- {pictures.brightness[1]:.1f} over time",
        "black / white pixels": f"{pictures.dark:.1%} / {pictures.bright:.1%}",
        "still background": f"{pictures.background_change:+.1f} grey levels from start to end",
    }


def as_values(found: Inspection) -> dict[str, Any]:
    """All figures as plain values, not a number as None."""
    pictures, ids = found.pictures, () if found.schedule is None else found.schedule.levels.ids
    return {
        "bag": str(found.path),
        "seconds": found.seconds,
        "fit": found.fit,
        "verdict": found.verdict,
        "sequential": found.sequential,
        "faults": list(found.faults),
        "warnings": list(found.warnings),
        "remarks": list(found.remarks),
        "topics": [{key: _plain(value) for key, value in stream._asdict().items()} for stream in found.streams],
        "images": None
        if pictures is None
        else {
            "count": pictures.count,
            "encodings": dict(pictures.encodings),
            "sizes": [list(size) for size in pictures.sizes],
            "repeated": pictures.repeated,
            "damaged": pictures.damaged,
            "brightness_mean": pictures.brightness[0],
            "brightness_std": pictures.brightness[1],
            "black_share": pictures.dark,
            "white_share": pictures.bright,
            "background_change": pictures.background_change,
        },
        "joints": [
            {
                "name": joint.name,
                "frames": dict(zip(ids, joint.frames.tolist(), strict=True)),
                "segments": dict(zip(ids, joint.segments.tolist(), strict=True)),
                "commanded_total_variation": _plain(joint.commanded_tv),
                "commanded_wasserstein": _plain(joint.commanded_w1),
                "reached_total_variation": _plain(joint.reached_tv),
                "reached_wasserstein": _plain(joint.reached_w1),
                "visible_share_estimate": _plain(joint.visible),
                "told_by_time": joint.time.share,
                "told_by_light": joint.light.share,
                "flagged": joint.time.flagged or joint.light.flagged,
            }
            for joint in found.joints
        ],
    }


def write_inspection(found: Inspection, path: Path) -> None:
    """Write a page of all that was found.

    Args:
        found: The inspection.
        path: Of the HTML file.

    Raises:
        RuntimeSetupError: matplotlib is not installed.
    """
    prepare_drawing("import")
    sentences = [*found.faults, *found.warnings]
    said = "<ul>" + "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences) + "</ul>"
    remarks = "".join(f"<p class='note'>{html.escape(remark)}</p>" for remark in found.remarks)
    introduction = f"<p><b>{html.escape(found.verdict)}</b></p>{said if sentences else ''}{remarks}"
    write_page(path, found.path.name, f"Inspection of {found.path.name}", introduction, _sections(found))


def _sections(found: Inspection) -> Iterator[tuple[str, str]]:
    yield "Topics", rows(STREAM_COLUMNS, stream_rows(found))
    if found.pictures is not None:
        facts = rows(("", ""), image_facts(found).items())
        yield "Images", facts + embed(_samples(found), "images spread over the recording")
        yield (
            "Light",
            embed(_light(found), "mean grey level of the half of the image that changes least, over the recording"),
        )
    if found.joints and found.schedule is not None:
        yield (
            "Joints",
            rows(JOINT_COLUMNS, joint_rows(found))
            + "<p class='note'>TV: total variation between designed occupancy and what was commanded or reached; W1: "
            "Wasserstein-1 distance, half ranges; visible: share of the image that changes when the joint alone "
            "moves by a tenth of its half range, an estimate; told by time or light: share of the level these tell "
            "beyond chance.</p>",
        )
        yield "Images at each level", embed(_frames(found), "images, by joint and level")
        if found.occupancy is not None:
            yield (
                "Occupancy: what each level commanded, against its design",
                embed(_occupancy(found), "bars: commanded at the images; lines: designed"),
            )
        if found.joints[0].seen_where.size:
            yield (
                "Where each joint is seen",
                embed(_seen(found), "RMS change in grey levels for a move by a tenth of a half range, estimated"),
            )


def _axes(count: int, width: float, height: float, columns: int = 3) -> tuple[Figure, Any]:
    from matplotlib import pyplot

    rows_ = -(-count // columns)
    figure, axes = pyplot.subplots(
        rows_, columns, figsize=(width * columns, height * rows_), squeeze=False, layout="constrained"
    )
    for spare in axes.ravel()[count:]:
        spare.set_axis_off()
    return figure, axes.ravel()


def _samples(found: Inspection) -> Figure:
    assert found.pictures is not None
    figure, axes = _axes(max(1, len(found.pictures.samples)), 3.6, 2.7)
    for axis, image in zip(axes, found.pictures.samples, strict=False):
        axis.imshow(image)
        axis.set_axis_off()
    return figure


def _light(found: Inspection) -> Figure:
    assert found.pictures is not None
    figure, axes = _axes(1, 10.0, 2.2, columns=1)
    seconds, grey = found.pictures.background.T
    axes[0].plot(seconds, grey, linewidth=1)
    middle, span = 0.5 * (grey.max() + grey.min()), max(grey.max() - grey.min(), LEAST_SPAN)
    axes[0].set_ylim(middle - 0.6 * span, middle + 0.6 * span)
    axes[0].set_xlabel("s")
    axes[0].set_ylabel("grey level")
    return figure


def _frames(found: Inspection) -> Figure:
    assert found.schedule is not None
    figure, axes = _axes(1, 8.0, 0.6 + 0.35 * len(found.joints), columns=1)
    table = np.stack([joint.frames for joint in found.joints])
    axes[0].imshow(table, cmap="Blues", vmin=0, aspect="auto")
    for (row, column), value in np.ndenumerate(table):
        dark = value > 0.6 * table.max()
        axes[0].text(column, row, str(value), ha="center", va="center", fontsize=8, color="w" if dark else "k")
    axes[0].set_xticks(range(table.shape[1]), found.schedule.levels.ids)
    axes[0].set_yticks(range(table.shape[0]), [joint.name for joint in found.joints])
    return figure


def _occupancy(found: Inspection) -> Figure:
    from matplotlib import colormaps

    assert found.schedule is not None and found.occupancy is not None
    (u, labels), plan = found.occupancy, found.schedule
    figure, axes = _axes(len(found.joints), 3.6, 2.4)
    colours = colormaps["turbo"](np.linspace(0.05, 0.95, len(plan.levels)))
    for number, joint in enumerate(found.joints):
        for level, colour in enumerate(colours):
            values = u[labels[:, number] == level, number]
            if np.isfinite(values).any():
                axes[number].hist(
                    values[np.isfinite(values)], bins=np.linspace(-1, 1, 41), density=True, color=colour, alpha=0.35
                )
            axes[number].plot(plan.grid, plan.commanded[number, level], color=colour, linewidth=1)
        axes[number].set_title(f"{joint.name} (u)", fontsize=10)
        axes[number].set_ylim(0, 1.5 * float(np.quantile(plan.commanded[number], 0.97)))  # turning points stand out
        axes[number].set_yticks([])
    return figure


def _seen(found: Inspection) -> Figure:
    figure, axes = _axes(len(found.joints), 3.6, 2.7)
    most = max(float(np.quantile(joint.seen_where, 0.995)) for joint in found.joints)
    for axis, joint in zip(axes, found.joints, strict=False):
        axis.imshow(joint.seen_where, vmin=0, vmax=max(most, 1e-6), cmap="magma", extent=(0, CELLS[0], CELLS[1], 0))
        axis.set_title(f"{joint.name}: {joint.visible:.2%} of the image", fontsize=10)
        axis.set_axis_off()
    return figure


def _count(value: int | None) -> str:
    return "-" if value is None else str(value)


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value

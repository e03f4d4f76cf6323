"""A picture of imported regimes: commands over time, coloured by level, beside the levels' densities."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ropes_ros.importing import Imported
from ropes_ros.optional import need
from ropes_ros.units import NANOSECONDS

_POINTS = 6000


def plot_regimes(imported: Imported, path: Path) -> None:
    """Draw what an import took for regimes, for the user to check.

    Args:
        imported: The import.
        path: Of the PNG file.

    Raises:
        RuntimeSetupError: matplotlib is not installed.
    """
    need("matplotlib", extra="import")
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    schedule, track, ids = imported.schedule, imported.track, imported.schedule.levels.ids
    count = len(schedule.joint_names)
    figure = Figure(figsize=(12.0, 1.9 * count), layout="constrained")
    axes = figure.subplots(count, 2, squeeze=False, width_ratios=(4, 1), sharex="col", sharey=True)
    colours = colormaps["turbo"](np.linspace(0.05, 0.95, len(ids)))
    start_ns = min(span.start_ns for span in imported.spans)
    for joint, name in enumerate(schedule.joint_names):
        line, side = axes[joint]
        if track is not None:
            step = max(1, len(track.times_ns) // _POINTS)
            seconds = (track.times_ns[::step] - start_ns) / NANOSECONDS
            line.plot(seconds, track.u[::step, joint], color="0.3", linewidth=0.5)
        for span in imported.spans:
            if span.joint == joint:
                begin, end = ((edge - start_ns) / NANOSECONDS for edge in (span.start_ns, span.end_ns))
                line.axvspan(begin, end, color=colours[ids.index(span.level)], alpha=0.3, linewidth=0)
        for number, (level, colour) in enumerate(zip(ids, colours, strict=True)):
            side.plot(schedule.commanded[joint, number], schedule.grid, color=colour, label=level)
        line.set_ylim(-1.1, 1.1)
        line.set_ylabel(f"{name} (u)")
    axes[0][1].legend(fontsize=7, loc="upper right")
    axes[-1][0].set_xlabel("s")
    axes[-1][1].set_xlabel("density")
    figure.savefig(path, dpi=100)

"""A bag as plain files: a PNG for each image and a CSV of what is known of them."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path

import cv2

from ropes_ros.errors import RopesError
from ropes_ros.frame_table import FrameTable
from ropes_ros.whole_folder import whole_folder

CSV_FILE = "frames.csv"
MEASURED_SUFFIX = ".measured_rad_evaluation_only"

Progress = Callable[[int, int], None]
"""Called with (frames done, frames in all)."""


def export_frames(frames: FrameTable, out: Path, *, progress: Progress | None = None) -> int:
    """Write images and table.

    The table has the columns `file`, `stamp_ns`, and for each joint `<joint>.level`, `<joint>.commanded_rad` where
    commands were recorded, and `<joint>.measured_rad_evaluation_only` where measured positions were asked for.

    Args:
        frames: The images.
        out: Folder to create.
        progress: Called after each image.

    Returns:
        Number of images written.

    Raises:
        RopesError: The folder exists, or cannot be written; it is removed then, as where an image is damaged.
        BagError: A damaged image.
    """
    with whole_folder(out):
        out.mkdir(parents=True)
        return _write(frames, out, progress)


def _write(frames: FrameTable, out: Path, progress: Progress | None) -> int:
    joints = frames.schedule.joint_names
    columns = ["file", "stamp_ns", *(f"{name}.level" for name in joints)]
    if frames.commanded is not None:
        columns += [f"{name}.commanded_rad" for name in joints]
    if frames.measured is not None:
        columns += [f"{name}{MEASURED_SUFFIX}" for name in joints]
    written = 0
    with (out / CSV_FILE).open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(columns)
        for number, image in frames.images():
            file = f"{number:06d}.png"
            if not cv2.imwrite(str(out / file), cv2.cvtColor(image, cv2.COLOR_RGB2BGR)):
                raise RopesError(f"{out / file} cannot be written: is there room on the disk?")
            row = [file, int(frames.stamps_ns[number]), *frames.levels[number].tolist()]
            for positions in (frames.commanded, frames.measured):
                if positions is not None:
                    row += ["" if math.isnan(value) else f"{value:.9g}" for value in positions[number].tolist()]
            table.writerow(row)
            written += 1
            if progress is not None:
                progress(written, len(frames.stamps_ns))
    return written

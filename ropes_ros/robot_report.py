"""What `ropes robot check` found, as one HTML file that holds its pictures."""

from __future__ import annotations

import html
import math
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ropes_ros.collision import Examination, Swept
from ropes_ros.html_page import picture, rows, write_page
from ropes_ros.robot import Robot

_EDGE = 420  # pixels of the longer edge of a picture
VIEWS = {"from above": 2, "from the side": 1, "from the front": 0}
"""Pictures of what is swept, and the axis that each looks along."""


def shadow(swept: Swept, axis: int) -> NDArray[np.uint8]:
    """What is swept, seen along an axis of the base link: uint8 (H, W, 3) BGR, darker where more lies behind.

    The other axes, in order, point to the right and up, with a grid of 0.1 m; the base's origin is red.
    """
    rights = [number for number in range(3) if number != axis]
    depth = swept.cells.sum(axis=axis).astype(np.float64)
    scale = max(1, round(_EDGE / max(depth.shape)))
    level = np.where(depth > 0, 225.0 - 170.0 * depth / max(depth.max(), 1.0), 255.0).astype(np.uint8)
    picture = np.repeat(np.repeat(level.T[::-1], scale, axis=0), scale, axis=1)
    image = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)
    height, width = picture.shape
    per_metre = scale / swept.voxel
    for number, along in enumerate(rights):
        start, end = float(swept.low[along]), float(swept.high[along])
        for tenth in range(math.ceil(10 * start), math.floor(10 * end) + 1):
            at = round((tenth / 10 - start) * per_metre)
            ends = ((at, 0), (at, height)) if number == 0 else ((0, height - at), (width, height - at))
            cv2.line(image, ends[0], ends[1], (235, 215, 195) if tenth else (120, 120, 220), 1)
    origin = [round(-swept.low[axis] * per_metre) for axis in rights]
    cv2.circle(image, (origin[0], height - origin[1]), 4, (0, 0, 220), -1)
    return np.asarray(image, dtype=np.uint8)


def write_robot_report(path: Path, robot: Robot, found: Examination, subject: str) -> None:
    """Write the page.

    Args:
        path: The HTML file.
        robot: The robot.
        found: What `examine` returned.
        subject: What was looked at, as a phrase.
    """
    verdict = (
        "<ul class=bad>" + "".join(f"<li>{html.escape(str(finding))}</li>" for finding in found.findings) + "</ul>"
        if found.findings
        else "<p class=good>Nothing is hit.</p>"
    )
    facts = "".join(f"<li>{html.escape(name)}: {html.escape(value)}</li>" for name, value in facts_of(found).items())
    sections = [("Joints", rows(JOINT_COLUMNS, joint_rows(robot, found)))]
    if found.swept is not None:
        note = (
            "<p class=note>From above, from the side and from the front; a line every 0.1 m, the base link's origin in "
            "red.</p>"
        )
        views = (picture(_png(shadow(found.swept, axis)), name, "32%") for name, axis in VIEWS.items())
        sections.insert(0, ("Swept volume", note + " ".join(views)))
    write_page(path, robot.name, f"{robot.name}: {subject}", f"{verdict}<ul>{facts}</ul>", sections)


def _png(image: NDArray[np.uint8]) -> bytes:
    done, data = cv2.imencode(".png", image)
    assert done
    return data.tobytes()


JOINT_COLUMNS = ("joint", "commanded", "limits", "to the limits", "speed limit", "acceleration limit")


def joint_rows(robot: Robot, found: Examination) -> list[tuple[str, ...]]:
    """Per joint what `JOINT_COLUMNS` say, in degrees, or in millimetres where it is prismatic."""
    rows: list[tuple[str, ...]] = []
    for number, (joint, (low, high)) in enumerate(zip(robot.joints, found.commanded.tolist(), strict=True)):
        unit, scale = joint.figures
        spare = "" if joint.continuous else f"{scale * min(low - joint.lower, joint.upper - high):.1f} {unit}"
        speed = "" if found.speeds is None else f"{scale * found.speeds[number]:.0f} of "
        limits = f"{scale * joint.lower:.1f} to {scale * joint.upper:.1f} {unit}"
        rows.append(
            (
                joint.name,
                f"{scale * low:.1f} to {scale * high:.1f} {unit}",
                "continuous" if joint.continuous else limits,
                spare,
                speed + f"{scale * joint.max_velocity:.0f} {unit}/s",
                f"{scale * joint.max_acceleration:.0f} {unit}/s²",
            )
        )
    return rows


def facts_of(found: Examination) -> dict[str, str]:
    """What was found besides collisions, by name, for a person."""
    facts = {"configurations": str(found.configurations)}
    if found.clearance_m is not None:
        facts["floor clearance"] = f"{1000.0 * found.clearance_m:.0f} mm, of link '{found.lowest}'"
    if found.closest is not None:
        one, other = found.closest.links
        facts["links come as near as"] = f"{1000.0 * found.closest.distance:.0f} mm, '{one}' and '{other}'"
    if found.swept is not None:
        spans = zip("xyz", found.swept.low, found.swept.high, strict=True)
        facts["swept"] = ", ".join(f"{axis} {low:+.2f} to {high:+.2f} m" for axis, low, high in spans)
        facts["swept volume"] = f"{1000.0 * found.swept.volume:.0f} litres"
    for number, note in enumerate(found.notes):
        facts["note" if not number else f"note {number + 1}"] = note
    return facts

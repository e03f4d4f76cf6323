"""What a recording tells of each joint: frames and segments at each level, occupancy, visibility, order in time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ropes_ros.bag_pass import CELLS, BagPass
from ropes_ros.commands import CommandTrack
from ropes_ros.order_check import Told, told_by
from ropes_ros.regimes import RegimeTimeline, Schedule
from ropes_ros.tracking_report import tracking_report
from ropes_ros.units import NANOSECONDS

Array = NDArray[np.float64]

BINS = 16
"""Bins over [-1, 1] that total variation is taken over."""
CHANGED = 12.0
"""Change of a cell in grey levels that counts as movement."""
MOVE = 0.1
"""Move of a joint, in half ranges, that visibility is stated for."""
ERRORS = 2.0
"""Standard errors that a joint's visibility must exceed, and within which it may be more than it seems."""
FITS = 3
"""Regressions of changes on moves, each weighted by what the one before expects."""
LEAST_WEIGHED = 0.05
"""Share of the median change below which no less is expected of a pair."""
HIDDEN = 0.05
"""Share of the most visible joint's visibility below which a joint is hidden."""


@dataclass(frozen=True)
class JointFindings:
    """What a bag tells of a joint.

    Attributes:
        name: The joint.
        frames: Images at each level, int64 [K].
        segments: Segments of each level, int64 [K].
        commanded_tv: Total variation between designed and commanded occupancy, mean over levels; not a number without.
        commanded_w1: Wasserstein-1 distance of the same, half ranges.
        reached_tv: As `commanded_tv`, of measured positions.
        reached_w1: As `commanded_w1`, of measured positions.
        visible: Share of the image that changes when it alone moves by a tenth of a half range, an estimate; not a
            number where it cannot be told.
        seen_where: Root mean square change of each cell then, grey levels, float64 [h, w]; empty without commands.
        time: How well the time tells its level.
        light: How well the brightness of the still background tells it.
    """

    name: str
    frames: NDArray[np.int64]
    segments: NDArray[np.int64]
    commanded_tv: float
    commanded_w1: float
    reached_tv: float
    reached_w1: float
    visible: float
    seen_where: Array = field(repr=False)
    time: Told
    light: Told


def joint_findings(
    plan: Schedule,
    stamps: NDArray[np.int64],
    labels: NDArray[np.int16],
    segments: NDArray[np.int32],
    track: CommandTrack | None,
    truth: Array | None,
    passed: BagPass,
    timeline: RegimeTimeline,
) -> tuple[JointFindings, ...]:
    """What a bag tells of each joint.

    Args:
        plan: What was designed.
        stamps: Of the images, in order, int64 [N].
        labels: Level of each joint at these, int16 [N, J], -1 for none.
        segments: Segment of each joint at these, int32 [N, J].
        track: What was commanded; None where it is not known.
        truth: Measured positions, float64 [N, J], rad; None without.
        passed: The pass through the bag; at least one pair of images.
        timeline: The bag's regimes.
    """
    home = np.array([joint.home for joint in plan.joints])
    half = np.array([joint.half_range for joint in plan.joints])
    unknown = np.full((len(stamps), len(home)), np.nan)
    commanded = unknown if track is None else track.at(stamps)
    reached = unknown if truth is None else (truth - home) / half
    far = [tracking_report(plan, labels, home + half * u).mean for u in (commanded, reached)]
    apart = [occupancy_distance(plan, labels, u) for u in (commanded, reached)]
    times = np.array([first for first, _ in passed.times], dtype=np.int64)
    pictures = passed.pictures()
    assert pictures is not None
    visible, where = visibility(passed, track)
    pair_labels, pair_segments = timeline.labels_at(times), timeline.segment_ids_at(times)
    seconds = (stamps - stamps[0]) / NANOSECONDS
    joints = []
    for joint, name in enumerate(plan.joint_names):
        held = np.array(
            [len(np.unique(segments[labels[:, joint] == level, joint])) for level in range(len(plan.levels))]
        )
        joints.append(
            JointFindings(
                name,
                np.bincount(labels[labels[:, joint] >= 0, joint], minlength=len(plan.levels)),
                held,
                float(apart[0][joint]),
                float(far[0][joint]),
                float(apart[1][joint]),
                float(far[1][joint]),
                float(visible[joint]) if len(visible) else float("nan"),
                where[joint] if len(where) else np.empty((0, 0)),
                told_by(seconds, labels[:, joint], segments[:, joint]),
                told_by(pictures.background[:, 1], pair_labels[:, joint], pair_segments[:, joint]),
            )
        )
    return tuple(joints)


def occupancy_distance(schedule: Schedule, labels: NDArray[np.int16], u: Array) -> Array:
    """Total variation between designed and found occupancy, over `BINS` bins, mean over the levels' frames.

    Args:
        schedule: What was designed.
        labels: Level of each joint at the frames, int16 [N, J], -1 for none.
        u: Positions there in half ranges, float64 [N, J], not a number where there are none.

    Returns:
        float64 [J]; not a number for a joint without frames.
    """
    edges = np.linspace(-1.0, 1.0, BINS + 1)
    grid, density = schedule.grid, schedule.commanded
    mass = np.concatenate(
        [np.zeros((*density.shape[:2], 1)), np.cumsum(0.5 * (density[..., 1:] + density[..., :-1]), axis=-1)], axis=-1
    )
    out = np.full(labels.shape[1], np.nan)
    for joint in range(labels.shape[1]):
        known = np.isfinite(u[:, joint])
        parts, counts = [], []
        for level in range(density.shape[1]):
            inside = known & (labels[:, joint] == level)
            if inside.any():
                wanted = np.diff(np.interp(edges, grid, mass[joint, level] / mass[joint, level, -1]))
                found = np.histogram(np.clip(u[inside, joint], -1.0, 1.0), edges)[0] / inside.sum()
                parts.append(0.5 * np.abs(found - wanted).sum())
                counts.append(inside.sum())
        if parts:
            out[joint] = np.average(parts, weights=counts)
    return out


def visibility(passed: BagPass, track: CommandTrack | None) -> tuple[Array, Array]:
    """Share of the image that a joint's own move by `MOVE` changes [J], and by how much where [J, h, w].

    Squared changes between the images of a pair are regressed on all products of two moves commanded meanwhile: to
    first order the change is linear in the moves, so that its square is a quadratic form of them, and what a joint does
    alone is on the form's diagonal. The share is what would have to change by as much as changed cells do. Lag is not
    allowed for: it is an estimate. Of a joint that does not stand out from its standard error the share is 0 where it
    would be little even so, otherwise not a number.
    """
    if track is None:
        return np.empty(0), np.empty(0)
    times = np.array(passed.times, dtype=np.int64).reshape(-1, 2)
    moved = track.at(times[:, 1]) - track.at(times[:, 0])
    pairs = np.stack(passed.small).reshape(-1, 2, CELLS[1], CELLS[0]).astype(np.float64)
    known = np.isfinite(moved).all(axis=1)
    joints = moved.shape[1]
    one, other = np.triu_indices(joints, 1)
    if known.sum() < 4 * (1 + joints + len(one)):
        return np.empty(0), np.empty(0)
    change = ((pairs[known, 1] - pairs[known, 0]) ** 2).reshape(int(known.sum()), -1)
    alone, together = moved[known] ** 2, moved[known][:, one] * moved[known][:, other]
    still = alone.std(axis=0) < 1e-8
    found, noise, solve = _regressed(np.hstack([np.ones((len(change), 1)), alone, together]), change.mean(axis=1))
    own = slice(1, joints + 1)
    cells = (solve @ change)[own]
    strong = change[change > CHANGED**2]
    scale = MOVE**2 / (strong.mean() if len(strong) else CHANGED**2)
    share, error = scale * found[own], scale * ERRORS * noise[own]
    told = share >= error
    most = np.max(share, where=told, initial=0.0)
    share[~told] = np.where((share + error < HIDDEN * most) | ~told.any(), 0.0, np.nan)[~told]
    share[still] = np.nan
    return share, MOVE * np.sqrt(cells.clip(0.0)).reshape(joints, CELLS[1], CELLS[0])


def _regressed(design: Array, change: Array) -> tuple[Array, Array, Array]:
    """Coefficients [P] of changes [N] on a design [N, P], their standard errors, and what solves for others [P, N].

    The larger a change, the less certain it is: each is weighted by the inverse square of what the fit before made of
    it. Standard errors hold whatever the residuals' variances are (White, Econometrica 48(4), 1980).
    """
    least = LEAST_WEIGHED * float(np.median(change)) + 1e-9
    weights = np.ones(len(change))
    for _ in range(FITS):
        solve = np.linalg.pinv(design * weights[:, None]) * weights
        found = solve @ change
        weights = 1.0 / np.maximum(design @ found, least)
    return found, np.sqrt(solve**2 @ (change - design @ found) ** 2), solve

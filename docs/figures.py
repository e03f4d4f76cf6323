"""Figures and numbers of docs/method.md, from the code that learns, and pictures of docs/tutorials/your_robot.md.

    python docs/figures.py                 # docs/images/*.png; the document's tables on standard output
    python docs/figures.py levels std      # some figures
    python docs/figures.py pictures        # the tutorial's renderings of the built-in arm alone

Needs what `pip install '.[sim,train,cpu]'` brings. Nothing here is learned; the picture of silhouettes and those of the
tutorial are rendered, and the one of disturbances is judged by the shipped model.
"""

from __future__ import annotations

import argparse
import io
import math
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from ropes_ros.densities import Bump, Levels
from ropes_ros.learning.calibrate import truncated_moments
from ropes_ros.learning.camera import BLURS, _excess, _links, _silhouettes, find_camera
from ropes_ros.learning.kinematics import Kinematics
from ropes_ros.learning.mechanism import STD_STEPS, MechanismLikelihood, bayes_floor, level_posterior
from ropes_ros.learning.networks import LOG_STD_RANGE
from ropes_ros.motion import Trajectory
from ropes_ros.paths import share_dir
from ropes_ros.regimes import make_schedule
from ropes_ros.robot import Robot, load_robot
from ropes_ros.schedule import GRID, Schedule
from ropes_ros.units import NANOSECONDS

Array = NDArray[np.float64]

HERE = Path(__file__).parent
SETS: dict[str, Levels] = {
    "2 tilts, t = 2": Levels.tilts(),
    "4 bumps of 0.25": Levels.bumps(4, 0.25),
    "8 bumps of 0.15": Levels.bumps(),
    "12 bumps of 0.1": Levels.bumps(12, 0.1),
}
DEFAULT = "8 bumps of 0.15"
REACHES = {"cell centres": 7 / 8, "as in Levels.bumps": 15 / 16, "on the ends": 1.0}
"""Outermost centre of 8 bumps."""
TRUE_STDS = (0.02, 0.05, 0.1, 0.15)
FACTORS = np.exp(np.linspace(math.log(0.5), math.log(2.0), 25))
MINUTES = 40.0
GUESS_ERROR = 0.08
"""Standard deviation of the angles' error from which the camera is found, half ranges."""
INKS = ("#31688e", "#35b779", "#c44e52", "#8c6bb1")


def log_densities(levels: Levels) -> Array:
    """log p_k on the schedules' grid, float64 [1, K, G]."""
    return np.log(levels.pdf(GRID))[None]


def equal_shares(levels: Levels) -> Array:
    """As many frames of each level, float64 [1, K]."""
    return np.full((1, len(levels)), 1.0 / len(levels))


def entropy(levels: Levels) -> Array:
    """Entropy of the level given u, on the grid, nats, float64 [G]."""
    posterior = level_posterior(log_densities(levels), equal_shares(levels))[0]
    return -(posterior * np.log(posterior)).sum(axis=0)


def floor(levels: Levels) -> float:
    """Bayes floor of the regime loss, nats."""
    return float(bayes_floor(log_densities(levels), equal_shares(levels))[0])


def noise(levels: Levels, u: Array) -> Array:
    """Standard deviation of the position label that a level amounts to at u, half ranges, of u's shape."""
    return 1.0 / np.sqrt(levels.fisher_information(u))


def spaced(reach: float) -> Levels:
    """8 bumps of width 0.15 with the outer centres at +-reach."""
    return Levels({f"b{k}": Bump(float(c), 0.15) for k, c in enumerate(np.linspace(-reach, reach, 8))})


def cost_of_std(levels: Levels, true: float, factors: Array) -> Array:
    """Nats a frame that are lost by stating factor * true for a standard deviation that is `true`, one per factor.

    Means over locations on the grid, from the table that the loss itself looks up.
    """
    objective = MechanismLikelihood(log_densities(levels), equal_shares(levels))
    table = objective.table[0].double().numpy()
    steps = np.linspace(*LOG_STD_RANGE, STD_STEPS)

    def at(std: float) -> Array:
        position = float(np.interp(math.log(std), steps, np.arange(STD_STEPS)))
        lower = min(int(position), STD_STEPS - 2)
        return (1.0 - position + lower) * table[:, lower] + (position - lower) * table[:, lower + 1]

    told = at(true)
    probability = np.exp(told) / np.exp(told).sum(axis=0)
    return np.array([(probability * (told - at(true * factor))).sum(axis=0).mean() for factor in factors])


@cache
def arm_schedule() -> Schedule:
    """The default schedule of the bundled arm."""
    return make_schedule(load_robot("arm6"), duration_s=60.0 * MINUTES, seed=0)


class Sought(NamedTuple):
    """The search for the camera on rendered frames.

    Attributes:
        picture: One frame's region, uint8 [H, W, 3].
        silhouette, excess: Of that frame, float [h, w] in cells; the excess at the middle blur.
        links: Points along the links in that picture by the camera found, pixels, float [P, 2].
        turns: Angles by which the camera found is turned about the base, degrees, float64 [n].
        values: The objective there at each blur, float64 [blurs, n].
        error: Distance of the joints and the tip from where the simulator's camera sees them, means over frames,
            pixels, float64 [J + 1].
    """

    picture: NDArray[np.uint8]
    silhouette: NDArray[np.float32]
    excess: NDArray[np.float32]
    links: NDArray[np.float32]
    turns: Array
    values: Array
    error: Array


def sought(count: int = 400, frame: int = 14) -> Sought:
    """Find the camera on `count` rendered poses whose angles are known up to `GUESS_ERROR`."""
    from ropes_ros.framing import swept_region
    from ropes_ros.overlay import Camera
    from ropes_ros.sim.arm import SimArm
    from ropes_ros.sim.canonical import CAMERA_SIZE, fresh_poses

    robot = load_robot("arm6")
    images, positions = fresh_poses(robot, count, seed=0)
    region = swept_region(list(images), (64, 64))
    cut = np.stack([region.cut(image) for image in images])
    u = robot.normalise(positions)
    guess = u + np.random.default_rng(0).normal(0.0, GUESS_ERROR, u.shape)
    kinematics = Kinematics.of(robot)
    centre = 0.5 * (CAMERA_SIZE[0] - 1) - region.left, 0.5 * (CAMERA_SIZE[1] - 1) - region.top
    camera = find_camera(kinematics, guess, cut, width=CAMERA_SIZE[0], centre=centre)
    silhouettes = _silhouettes(cut)
    size = torch.tensor([region.width, region.height], dtype=torch.float32)
    with torch.no_grad():
        joints = kinematics(torch.from_numpy(u).float())
        points = _links(kinematics(torch.from_numpy(guess).float().clamp(-1.0, 1.0)))
        turns = np.arange(-180.0, 181.0, 4.0)
        values = np.empty((len(BLURS), len(turns)))
        maps = [_excess(silhouettes, blur) for blur in BLURS]
        for column, turn in enumerate(np.radians(turns)):
            about = torch.tensor(
                [[math.cos(turn), math.sin(turn), 0.0], [-math.sin(turn), math.cos(turn), 0.0], [0.0, 0.0, 1.0]]
            )
            places = ((camera(points @ about) + 0.5) / size * 2.0 - 1.0)[:, None]
            for row, blurred in enumerate(maps):
                values[row, column] = float(F.grid_sample(blurred, places, align_corners=False).mean())
        found = camera(joints).numpy()
        links = camera(_links(joints[frame : frame + 1]))[0].numpy()
    arm = SimArm(robot, render=False)
    true = Camera.from_pose(arm.intrinsics(), *arm.camera_pose())
    seen = np.stack([true.project(pose) for pose in joints.double().numpy()]) - [region.left, region.top]
    error = np.linalg.norm(found - seen, axis=2).mean(axis=0)
    return Sought(cut[frame], silhouettes[frame], maps[1][frame, 0].numpy(), links, turns, values, error)


# --- tables ------------------------------------------------------------------------------------------------------


def level_table() -> str:
    """What each set of levels tells, as a Markdown table."""
    rows = [
        "| levels | label noise | at u = 0 | at 0.9 | at 1 | floor, nats | chance, nats |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, levels in SETS.items():
        middle, near, end = noise(levels, np.array([0.0, 0.9, 1.0]))
        rows.append(
            f"| {name} | {levels.label_noise():.3f} | {middle:.3f} | {near:.3f} | {end:.2f} | {floor(levels):.3f} "
            f"| {math.log(len(levels)):.3f} |"
        )
    return "\n".join(rows)


def reach_table() -> str:
    """Where the outer bumps stand, as a Markdown table."""
    rows = [
        "| outer centres | label noise | at u = 0 | at 0.9 | at 1 | mixture, least to largest |",
        "|---|---|---|---|---|---|",
    ]
    for name, reach in REACHES.items():
        levels = spaced(reach)
        middle, near, end = noise(levels, np.array([0.0, 0.9, 1.0]))
        mixture = levels.pdf(GRID).mean(axis=0)
        rows.append(
            f"| ±{reach:.4g}, {name} | {levels.label_noise():.3f} | {middle:.3f} | {near:.3f} | {end:.2f} "
            f"| {mixture.min():.2f} to {mixture.max():.2f} |"
        )
    return "\n".join(rows)


def std_table() -> str:
    """What a standard deviation off by two costs with the default levels, as a Markdown table."""
    rows = [
        "| true std, half ranges | doubled costs, nats a frame | halved costs | independent frames to tell double |",
        "|---|---|---|---|",
    ]
    for true in TRUE_STDS:
        halved, doubled = cost_of_std(SETS[DEFAULT], true, np.array([0.5, 2.0]))
        rows.append(f"| {true:g} | {doubled:.1e} | {halved:.1e} | {2.0 / doubled:,.0f} |")
    return "\n".join(rows)


def schedule_table() -> str:
    """What the default schedule of the bundled arm gives a joint, as a Markdown table; ranges are over joints."""
    schedule = arm_schedule()
    held = np.bincount([segment.joint for segment in schedule.segments])
    share = schedule.labelled_fractions
    return "\n".join(
        (
            "| minutes | segments a joint | labelled share of time | label noise, as commanded |",
            "|---|---|---|---|",
            f"| {MINUTES:.0f} | {held.min()} to {held.max()} | {share.min():.2f} to {share.max():.2f} "
            f"| {schedule.label_noise:.3f} |",
        )
    )


TABLES = (level_table, reach_table, schedule_table, std_table)


# --- figures -----------------------------------------------------------------------------------------------------


def _axes(columns: int, *, width: float = 10.0, height: float = 3.3) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def draw_levels() -> Figure:
    """Densities of tilts and bumps; the log density ratio of two tilts."""
    figure, (one, two, three) = _axes(3)
    tilts, bumps = SETS["2 tilts, t = 2"], SETS[DEFAULT]
    for density, ink in zip(tilts.densities, INKS, strict=False):
        one.plot(GRID, density.pdf(GRID), color=ink)
    one.set(title="Two tilts, t = 2", xlabel="u", ylabel="density", ylim=0)
    for share, ink in ((0.05, INKS[0]), (0.001, INKS[1])):
        minus, plus = Levels.tilts(floor=share).densities
        two.plot(GRID, (plus.log_pdf(GRID) - minus.log_pdf(GRID)) / 4.0, color=ink, label=f"uniform floor {share:g}")
    two.plot(GRID, GRID, "k:", lw=1, label="u")
    two.set(title="Their log density ratio / 2t", xlabel="u", ylabel="")
    two.legend(frameon=False)
    for density in bumps.densities:
        three.plot(GRID, density.pdf(GRID), color=INKS[0], lw=1)
    three.plot(GRID, bumps.pdf(GRID).mean(axis=0), "k", label="their mean")
    three.set(title="8 bumps of width 0.15", xlabel="u", ylim=0)
    three.legend(frameon=False, loc="upper center")
    return figure


def draw_posterior() -> Figure:
    """Posterior over the default levels, and the entropy whose mean is the Bayes floor."""
    figure, (one, two) = _axes(2)
    levels = SETS[DEFAULT]
    one.stackplot(GRID, levels.posterior(GRID), colors=matplotlib.colormaps["viridis"](np.linspace(0, 1, len(levels))))
    one.set(title="P(level | u), 8 bumps", xlabel="u", xlim=(-1, 1), ylim=(0, 1))
    for (name, entry), ink in zip(SETS.items(), INKS, strict=True):
        two.plot(GRID, entropy(entry), color=ink, label=name)
        two.axhline(floor(entry), color=ink, ls="--", lw=1)
    two.set(title="Entropy of the level given u; dashed: Bayes floor", xlabel="u", ylabel="nats", ylim=0)
    two.legend(frameon=False, fontsize=8)
    return figure


def draw_information() -> Figure:
    """Label noise over u, for sets of levels and for places of the outer bumps."""
    figure, (one, two) = _axes(2)
    u = np.linspace(-1.0, 1.0, 801)
    for (name, levels), ink in zip(SETS.items(), INKS, strict=True):
        one.semilogy(u, noise(levels, u), color=ink, label=name)
    one.set(title="Label noise by position", xlabel="u", ylabel="1 / sqrt(Fisher information), half ranges")
    for (name, reach), ink in zip(REACHES.items(), INKS, strict=False):
        two.plot(u, noise(spaced(reach), u), color=ink, label=f"±{reach:.4g}, {name}")
    two.set(title="8 bumps: where the outer centres stand", xlabel="u", xlim=(0, 1), ylim=0)
    for axis in (one, two):
        axis.legend(frameon=False, fontsize=8)
    return figure


def draw_sweeps() -> Figure:
    """A density as a pile of slices, a joint's commanded motion, and the law of its positions."""
    schedule = arm_schedule()
    level = 2
    density = schedule.levels.densities[level]
    figure, (one, two, three) = _axes(3)
    shares = (np.arange(14) + 0.5) / 14
    lo, hi = density.slices(shares)
    one.plot(GRID, density.pdf(GRID), "k")
    one.hlines(density.pdf(hi - 1e-9), lo, hi, color=INKS[0], lw=1)
    one.set(title="A level as a pile of slices", xlabel="u", ylabel="density", ylim=0, xlim=(-1, 1))
    times = np.arange(0, schedule.duration_ns, NANOSECONDS // 30)
    robot = load_robot(schedule.robot)
    u = robot.normalise(Trajectory(robot, schedule).positions_at(times))[:, 0]
    labels = schedule.labels_at(times)[:, 0]
    early = times < 25 * NANOSECONDS
    colours = matplotlib.colormaps["viridis"](labels[early] / (len(schedule.levels) - 1))
    colours[labels[early] < 0] = (0.8, 0.8, 0.8, 1.0)
    two.scatter(times[early] / NANOSECONDS, u[early], c=colours, s=3)
    two.set(title="Joint 1: sweeps; grey: unlabelled", xlabel="s", ylabel="u", ylim=(-1, 1))
    three.hist(u[labels == level], bins=80, range=(-1, 1), density=True, color="0.8", label=f"{MINUTES:.0f} minutes")
    three.plot(GRID, density.pdf(GRID), "k", lw=1, label="intended")
    three.plot(GRID, schedule.commanded[0, level], color=INKS[2], lw=1, label="commanded law")
    three.set(title="Its positions in that level", xlabel="u", ylim=0)
    three.legend(frameon=False, fontsize=8)
    return figure


def draw_std() -> Figure:
    """What a wrong std costs, and how far the location of a cut normal is from its mean."""
    figure, (one, two) = _axes(2)
    for true, ink in zip(TRUE_STDS, INKS, strict=True):
        one.loglog(FACTORS, np.maximum(cost_of_std(SETS[DEFAULT], true, FACTORS), 1e-7), color=ink, label=f"{true:g}")
    one.loglog(FACTORS, np.maximum(cost_of_std(SETS["2 tilts, t = 2"], 0.15, FACTORS), 1e-7), "k:", label="0.15, tilts")
    one.set(title="Cost of a wrong std", xlabel="stated / true std", ylabel="nats a frame", ylim=(1e-5, 0.2))
    one.set_xticks([0.5, 1.0, 2.0], ["0.5", "1", "2"])
    one.minorticks_off()
    one.legend(frameon=False, fontsize=8, title="true std", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    location = torch.linspace(-1.0, 1.0, 201)[:, None]
    for width, ink in zip((0.05, 0.15, 0.3), INKS, strict=False):
        mean, _ = truncated_moments(location, torch.full_like(location, math.log(width)))
        two.plot(location, mean - location, color=ink, label=f"width {width:g}")
    two.set(title="Mean of the cut normal less its location", xlabel="location", ylabel="half ranges")
    two.set_xticks([-1.0, -0.5, 0.0, 0.5, 1.0])
    two.legend(frameon=False, fontsize=8)
    return figure


def draw_silhouettes() -> Figure:
    """The search for the camera; prints how far off the joints are in the picture."""
    found = sought()
    told = ", ".join(f"{value:.1f}" for value in found.error)
    print(f"silhouettes: joints and tip by the camera found, mean distance in pixels: {told}")
    figure, (one, two, three, four) = _axes(4, width=13.0)
    height, width = found.picture.shape[:2]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    one.imshow(found.picture)
    one.plot(*found.links.T, ".-", color="white", ms=4, lw=1)
    one.set(title="Links by the camera found", xlim=extent[:2], ylim=extent[2:])
    two.imshow(found.silhouette, cmap="gray", extent=extent)
    two.set_title("Silhouette")
    bound = float(np.abs(found.excess).max())
    shown = three.imshow(found.excess, cmap="RdBu_r", vmin=-bound, vmax=bound, extent=extent)
    three.set_title("Excess over its mean")
    figure.colorbar(shown, ax=three, shrink=0.7)
    for axis in (one, two, three):
        axis.set_axis_off()
    for values, blur, ink in zip(found.values, BLURS, INKS, strict=False):
        four.plot(found.turns, values, color=ink, label=f"blur {blur:g} cells")
    four.set(title="Objective", xlabel="camera turned about the base, degrees")
    four.set_xticks([-180, -90, 0, 90, 180])
    four.legend(frameon=False, fontsize=8)
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {
    "levels": draw_levels,
    "posterior": draw_posterior,
    "information": draw_information,
    "sweeps": draw_sweeps,
    "std": draw_std,
    "silhouettes": draw_silhouettes,
}


# --- pictures of the tutorial ------------------------------------------------------------------------------------


class Placement(NamedTuple):
    """A camera of the built-in arm: where it differs from the preset's, and what there is to say of it."""

    changes: dict[str, Any]
    verdict: str


PLACEMENTS = (
    Placement({}, "good: all of the box, from above and aside"),
    Placement({"fovy": 1.4}, "too wide: the arm is few pixels"),
    Placement({"fovy": 0.3}, "too narrow: the arm leaves the picture"),
    Placement(
        {"position": [2.4, 0.0, 0.75], "look_at": [0.0, 0.0, 0.75], "fovy": 0.56},
        "from the front: links hide links,\nmotion along the axis of view",
    ),
    Placement(
        {"position": [0.35, 0.02, 2.6], "look_at": [0.3, 0.0, 0.3], "fovy": 0.62},
        "from straight above: shoulder and elbow\nmove along the axis of view",
    ),
    Placement(
        {"position": [1.79, -0.9, 0.35]},
        "low: usable if nobody\nwalks behind the arm",
    ),
)
POSES = 60
"""Poses whose union the pictures show as the swept volume."""


def _arm(changes: dict[str, Any] | None = None) -> tuple[Robot, Any]:
    """The built-in robot and its simulated arm, with the preset's camera changed where that is asked for."""
    from ropes_ros.sim.arm import SimArm

    robot = load_robot("arm6")
    if changes:
        sim = robot.preset["sim"]
        preset = {**robot.preset, "sim": {**sim, "camera": {**sim["camera"], **changes}}}
        robot = Robot(preset, share_dir() / "config" / "robots" / "arm6" / "robot.yaml")
    return robot, SimArm(robot)


def _seen(arm: Any, positions: Array) -> NDArray[np.uint8]:
    """Pictures of the arm at positions [N, J], uint8 [N, H, W, 3]."""
    pictures = []
    for position in positions:
        arm.set_positions(position)
        pictures.append(arm.render())
    return np.stack(pictures)


def _box_poses(robot: Robot, count: int = POSES) -> Array:
    """Random poses of the whole box, float64 [count, J], rad."""
    return robot.denormalise(np.random.default_rng(0).uniform(-1.0, 1.0, (count, len(robot.joints))))


def _without_arm(arm: Any) -> NDArray[np.uint8]:
    """The picture of the scene alone, uint8 [H, W, 3]."""
    from ropes_ros.sim.scene import TABLE

    kept = arm._model.geom_rgba[:, 3].copy()
    arm._model.geom_rgba[:, 3] = 0.0
    arm._model.geom(TABLE).rgba[3] = 1.0
    picture: NDArray[np.uint8] = arm.render()
    arm._model.geom_rgba[:, 3] = kept
    return picture


def _differ(pictures: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels that differ by more than noise, bool, of the pictures' shape without the colours."""
    apart: NDArray[np.bool_] = np.abs(pictures.astype(int) - other).max(axis=-1) > 12
    return apart


def _union(arm: Any, robot: Robot) -> NDArray[np.uint8]:
    """The arm at home, and tinted all pixels at which some pose of the box shows it, uint8 [H, W, 3]."""
    scene = _without_arm(arm)
    home, pictures = _seen(arm, robot.home[None])[0], _seen(arm, _box_poses(robot))
    tinted = _differ(pictures, scene).any(axis=0) & ~_differ(home, scene)
    shown = home.astype(float)
    shown[tinted] = 0.55 * shown[tinted] + 0.45 * np.array([255.0, 170.0, 60.0])
    return shown.astype(np.uint8)


def _plates(rows: int, columns: int, *, width: float, height: float) -> tuple[Figure, list[Any]]:
    """A figure of bare panels for pictures."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = list(np.atleast_1d(figure.subplots(rows, columns)).ravel())
    for axis in axes:
        axis.set_axis_off()
    return figure, axes


def draw_placement() -> Figure:
    """The arm at home and all that it sweeps, from six camera placements."""
    figure, axes = _plates(2, 3, width=9.6, height=5.4)
    for axis, placement in zip(axes, PLACEMENTS, strict=True):
        robot, arm = _arm(placement.changes)
        axis.imshow(_union(arm, robot))
        axis.set_title(placement.verdict, fontsize=9)
        arm.close()
    return figure


def draw_box() -> Figure:
    """Home, some poses of the box, and the region that training will cut out."""
    from ropes_ros.framing import swept_region

    robot, arm = _arm()
    home = _seen(arm, robot.home[None])[0]
    pictures = _seen(arm, _box_poses(robot))
    region = swept_region(list(pictures), (64, 64))
    union = _union(arm, robot)
    arm.close()
    figure, axes = _plates(1, 3, width=9.6, height=2.8)
    axes[0].imshow(home)
    axes[0].set_title("home", fontsize=9)
    axes[1].imshow(pictures[3])
    axes[1].set_title("another pose of the box", fontsize=9)
    axes[2].imshow(union)
    corner = (region.left - 0.5, region.top - 0.5)
    axes[2].add_patch(Rectangle(corner, region.width, region.height, fill=False, color="white", lw=1.2))
    axes[2].set_title("all that is swept, and the region cut out", fontsize=9)
    return figure


def draw_visibility() -> Figure:
    """Which pixels each joint moves, and how many."""
    robot, arm = _arm()
    figure, axes = _plates(2, 3, width=9.6, height=5.0)
    home = _seen(arm, robot.home[None])[0]
    for joint, axis in enumerate(axes):
        u = np.zeros((2, len(robot.joints)))
        u[:, joint] = -0.5, 0.5
        first, second = _seen(arm, robot.denormalise(u))
        moved = _differ(first, second)
        shown = 0.4 * home.astype(float) + 0.6 * 255.0
        shown[moved] = (196, 78, 82)
        axis.imshow(shown.astype(np.uint8))
        axis.set_title(f"{robot.joint_names[joint]}: {moved.sum():,} pixels change", fontsize=9)
    arm.close()
    return figure


def draw_intervals() -> Figure:
    """What a schedule commands of one joint, and the two ends of one of its intervals."""
    schedule, robot = arm_schedule(), load_robot("arm6")
    joint = 1
    segments = [segment for segment in schedule.segments if segment.joint == joint][:8]
    chosen = max(segments, key=lambda segment: segment.hi - segment.lo)
    figure = Figure(figsize=(9.6, 2.9), layout="constrained")
    one, two, three = figure.subplots(1, 3, width_ratios=(1.5, 1.0, 1.0))
    times = np.arange(0, segments[-1].end_ns, NANOSECONDS // 60)
    u = robot.normalise(Trajectory(robot, schedule).positions_at(times))[:, joint]
    one.plot(times / NANOSECONDS, u, color="0.3", lw=1)
    for segment in segments:
        ink = INKS[2] if segment is chosen else INKS[0]
        corner = (segment.start_ns / NANOSECONDS, segment.lo)
        length = (segment.end_ns - segment.start_ns) / NANOSECONDS
        one.add_patch(Rectangle(corner, length, segment.hi - segment.lo, color=ink, alpha=0.3, lw=0))
        one.annotate(segment.level, (corner[0], segment.hi), (0, 2), textcoords="offset points", fontsize=8, color=ink)
    one.set(xlabel="s", ylabel="u, half ranges about home", ylim=(-1.05, 1.15), xlim=(0, times[-1] / NANOSECONDS))
    one.set_title(f"{robot.joint_names[joint]}: motion, intervals, levels", fontsize=9)
    one.spines[["top", "right"]].set_visible(False)
    _, arm = _arm()
    for axis, end, value in ((two, "lower", chosen.lo), (three, "upper", chosen.hi)):
        pose = np.zeros(len(robot.joints))
        pose[joint] = value
        axis.imshow(_seen(arm, robot.denormalise(pose)[None])[0])
        axis.set_axis_off()
        axis.set_title(f"its {end} end, u = {value:.2f}", fontsize=9)
    arm.close()
    return figure


def draw_disturbances() -> Figure:
    """The same pose as it was learned, and disturbed, with what the shipped model says of each."""
    from ropes_ros.encoder import load_encoder, shipped_model
    from ropes_ros.sim.look import Look, Patch, Solid

    robot, arm = _arm()
    position = robot.denormalise(np.array([0.2, -0.3, 0.4, 0.1, -0.2, 0.5]))
    arm.set_positions(position)
    covered = np.full((240, 320, 3), 12, dtype=np.uint8)
    hand = np.full((110, 90, 3), (150, 105, 85), dtype=np.uint8)
    box = Solid("box", np.array([0.1, 0.1, 0.4]), np.array([-0.1, 0.55, 0.4]), np.eye(3), np.array([0.5, 0.35, 0.2]))
    looks = {
        "as in the recording": Look(),
        "an object beside the arm": Look(solids=(box,)),
        "something before the arm": Look(patches=(Patch(130, 60, hand, np.ones(hand.shape[:2], dtype=bool)),)),
        "other light": Look(lamp_rgb=np.array([0.25, 0.25, 0.3]), ambient_rgb=np.array([0.2, 0.18, 0.15])),
        "camera moved by 5 cm": Look(camera_shift=np.array([0.05, 0.0, 0.0])),
        "lens covered": Look(patches=(Patch(0, 0, covered, np.ones(covered.shape[:2], dtype=bool)),)),
    }
    encoder = load_encoder(shipped_model("arm6"))
    figure, axes = _plates(2, 3, width=9.6, height=5.4)
    for axis, (name, look) in zip(axes, looks.items(), strict=True):
        picture = arm.render(look)
        said = encoder.run(picture)
        error = float(np.degrees(np.abs(said.position[0] - position)).mean())
        spread = float(np.degrees(said.std[0]).mean())
        axis.imshow(picture)
        told = f"novelty {float(said.novelty[0]):.1f}, std {spread:.1f} deg, error {error:.1f} deg"
        axis.set_title(f"{name}\n{told}", fontsize=9)
    arm.close()
    return figure


PICTURES: dict[str, Callable[[], Figure]] = {
    "placement": draw_placement,
    "visibility": draw_visibility,
    "box": draw_box,
    "intervals": draw_intervals,
    "disturbances": draw_disturbances,
}
ALL_PICTURES = "pictures"
COLOURS = 96
"""Colours of the tutorial's pictures, which keeps their files small."""


def _save_small(figure: Figure, path: Path) -> None:
    """Write a figure with few colours."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=115, format="png")
    buffer.seek(0)
    picture = Image.open(buffer).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    picture.save(path, optimize=True)


def main(arguments: list[str]) -> None:
    """Write the figures that are named, all when none is, and print the tables."""
    known = (*FIGURES, *PICTURES)
    parser = argparse.ArgumentParser(description="Figures and numbers of docs/method.md, pictures of the tutorial.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"Some of {', '.join((*known, ALL_PICTURES))}.")
    parser.add_argument("--out", type=Path, default=HERE / "images", help="Folder to write to.")
    options = parser.parse_args(arguments)
    names = [name for given in options.names or known for name in (PICTURES if given == ALL_PICTURES else (given,))]
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"no figure {unknown[0]!r}: choose from {', '.join((*known, ALL_PICTURES))}")
    options.out.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name in PICTURES:
            _save_small(PICTURES[name](), options.out / f"robot-{name}.png")
        else:
            FIGURES[name]().savefig(options.out / f"method-{name}.png", dpi=110, metadata={"Software": None})
    if not options.names or set(names) & set(FIGURES):
        print(*(table() for table in TABLES), sep="\n\n")


if __name__ == "__main__":
    main(sys.argv[1:])

"""`ropes schedule`: make schedules of interventions, and show what they command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ropes_ros.cli.output import Json, RobotOption, console, in_words, print_facts, print_json, print_table
from ropes_ros.errors import ScheduleError

if TYPE_CHECKING:
    from ropes_ros.regimes import Levels, Schedule

app = typer.Typer(
    no_args_is_help=True,
    help="Make a schedule (which joint follows which known density when), or show one.",
)

BARS = " ▁▂▃▄▅▆▇█"


@app.command()
def make(
    robot: RobotOption = "arm6",
    minutes: Annotated[float, typer.Option(min=0.1, help="Length of the recording in minutes.")] = 20.0,
    design: Annotated[
        str,
        typer.Option(
            help="factorial: all joints at once, independently; single_joint: one after the other; dwell: from pose to "
            "pose, labelled where the robot rests."
        ),
    ] = "factorial",
    levels: Annotated[
        str | None,
        typer.Option(
            help="bumps:N (N overlapping bumps) or tilts:T (two exponential tilts of strength T); "
            "by default bumps:8, for single_joint tilts:2."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Source of all that is drawn at random.")] = 0,
    save: Annotated[Path | None, typer.Option(help="Write the schedule to this YAML file.")] = None,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Refuse a schedule in which the robot hits itself or the floor.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Make a schedule, show it, and write it to a file with --save."""
    from ropes_ros.collision import refuse_collisions
    from ropes_ros.regimes import make_schedule
    from ropes_ros.robot import load_robot

    loaded = load_robot(robot)
    schedule = make_schedule(
        loaded, design=design, levels=_levels(levels, design), duration_s=60.0 * minutes, seed=seed
    )
    if check:
        refuse_collisions(loaded, schedule)
    if save is not None:
        schedule.save(save)
    _show(schedule, as_json)
    if save is not None and not as_json:
        console.print(f"written to {save}")


@app.command()
def show(
    path: Annotated[Path, typer.Argument(help="Schedule (YAML).")],
    as_json: Json = False,
) -> None:
    """Show a schedule: how long it takes, segments, labelled time, designed and commanded occupancy."""
    from ropes_ros.regimes import Schedule

    _show(Schedule.load(path), as_json)


def _levels(text: str | None, design: str) -> Levels | None:
    """Parse `bumps:8` or `tilts:2`; None leaves the choice to the design."""
    from ropes_ros.regimes import Levels

    if text is None:
        return None
    kind, _, number = text.partition(":")
    try:
        if kind == "bumps":
            return Levels.bumps(int(number))
        if kind == "tilts":
            return Levels.tilts(float(number), observational=design == "single_joint")
    except ValueError:
        pass
    raise ScheduleError(f"--levels {text}: unknown; write bumps:N (as bumps:8) or tilts:T (as tilts:2)")


def summary(schedule: Schedule) -> dict[str, Any]:
    """What a schedule commands, as plain values."""
    from ropes_ros import occupancy

    design, law = occupancy.designed(schedule), occupancy.lawful(schedule)
    designed, commanded = design.mean(axis=0), law.mean(axis=1)
    distances = occupancy.total_variation(law, design)
    joints = []
    for index, name in enumerate(schedule.joint_names):
        joints.append(
            {
                "name": name,
                "segments": sum(segment.joint == index for segment in schedule.segments),
                "labelled": float(schedule.labelled_fractions[index]),
                "designed_occupancy": designed.round(4).tolist(),
                "commanded_occupancy": commanded[index].round(4).tolist(),
                "distance": dict(zip(schedule.levels.ids, distances[index].round(5).tolist(), strict=True)),
            }
        )
    return {
        "robot": schedule.robot,
        "design": schedule.design,
        "levels": list(schedule.levels.ids),
        "label_noise_half_ranges": schedule.label_noise,
        "seed": schedule.seed,
        "duration_s": schedule.duration_ns / 1e9,
        "segments": len(schedule.segments),
        "hash": schedule.hash,
        "joints": joints,
    }


def _show(schedule: Schedule, as_json: bool) -> None:
    content = summary(schedule)
    if as_json:
        print_json(content)
        return
    peak = max(max(joint["designed_occupancy"] + joint["commanded_occupancy"]) for joint in content["joints"])
    print_facts(
        {
            "robot": content["robot"],
            "design": f"{content['design']}, levels {', '.join(content['levels'])}",
            "supervision": f"a level is worth a position label with a standard deviation of "
            f"{content['label_noise_half_ranges']:.3f} half ranges; no measured pose",
            "duration": in_words(content["duration_s"]),
            "at most off": "share of a level's time that speed, acceleration and jerk limits move elsewhere "
            "(total variation, bins of 1/16 half range), at the level where it is largest",
            "hash": content["hash"][:16],
            "designed occupancy": _bars(content["joints"][0]["designed_occupancy"], peak),
        }
    )
    print_table(
        ["joint", "segments", "labelled", "commanded occupancy", "at most off"],
        [
            (
                joint["name"],
                joint["segments"],
                f"{joint['labelled']:.0%}",
                _bars(joint["commanded_occupancy"], peak),
                f"{max(joint['distance'].values()):.1%}",
            )
            for joint in content["joints"]
        ],
        whole=["commanded occupancy"],
    )


def _bars(shares: list[float], peak: float) -> str:
    return "".join(BARS[round(share / peak * (len(BARS) - 1))] for share in shares)

"""`ropes robot`: draft a preset for any robot, and see whether its box or a schedule hits anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ropes_ros.cli.output import Json, as_command, console, in_words, print_facts, print_json, print_table
from ropes_ros.errors import RobotError

app = typer.Typer(
    no_args_is_help=True,
    help="Draft a robot's preset from its URDF, or see what it hits.",
)


@app.command()
def init(
    urdf: Annotated[
        str,
        typer.Argument(
            metavar="URDF", help="URDF, MJCF or xacro file; or PACKAGE:PATH in an installed ROS or Python package."
        ),
    ],
    srdf: Annotated[Path | None, typer.Option(help="SRDF: home state, end effector, links that may touch.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the preset; by default one named after the file.")] = None,
    tip: Annotated[str | None, typer.Option(help="Link whose pose is published.")] = None,
    base: Annotated[str | None, typer.Option(help="Link in whose frame poses are.")] = None,
    joints: Annotated[str | None, typer.Option(help="Joints that are commanded, in order: a,b,c.")] = None,
    package_dir: Annotated[
        list[str] | None,
        typer.Option("--package-dir", metavar="NAME=FOLDER", help="Folder of package://NAME/; repeatable."),
    ] = None,
    xacro_arg: Annotated[
        list[str] | None,
        typer.Option("--xacro-arg", metavar="NAME=VALUE", help="Argument of a xacro file; repeatable."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a preset, robot.yaml, for a robot: joints, limits, home, half ranges, tip, base, simulated camera."""
    from ropes_ros.robot_init import Sources, init_robot, source_of

    file, entry = source_of(urdf)
    folders = {name: Path(folder) for name, folder in _pairs(package_dir, "--package-dir").items()}
    drafted = init_robot(
        Sources(file, entry, srdf, folders, _pairs(xacro_arg, "--xacro-arg")),
        Path(file.name.split(".")[0]) if out is None else out,
        base=base,
        tip=tip,
        joints=[name.strip() for name in joints.split(",")] if joints else None,
    )
    robot = drafted.robot
    if as_json:
        print_json({"preset": str(drafted.path), "joints": list(robot.joint_names), "notes": list(drafted.notes)})
        return
    print_facts(
        {
            "preset": drafted.path,
            "base, tip": f"{robot.base_link}, {robot.tip_link}",
            "joints": ", ".join(robot.joint_names),
        }
    )
    for note in drafted.notes:
        console.print(f"note: {note}", style="yellow")
    console.print(f"look at every line of it, then: {as_command('ropes', 'robot', 'check', drafted.path)}")


@app.command()
def check(
    robot: Annotated[str, typer.Argument(metavar="ROBOT", help="Robot preset, or path of a preset's YAML.")],
    schedule: Annotated[
        Path | None, typer.Option(help="Look at this schedule's motion rather than at the whole box.")
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with pictures of what is swept.")] = None,
    as_json: Json = False,
) -> None:
    """See what the robot sweeps, and whether it hits itself or the floor; exit status 1 if it does."""
    from ropes_ros.collision import examine
    from ropes_ros.regimes import Schedule
    from ropes_ros.robot import load_robot
    from ropes_ros.robot_report import JOINT_COLUMNS, facts_of, joint_rows, write_robot_report

    loaded = load_robot(robot)
    plan = None if schedule is None else Schedule.load(schedule)
    found = examine(loaded, plan)
    subject = "its box" if plan is None else f"a schedule of {in_words(plan.duration_ns / 1e9)}"
    if html is not None:
        write_robot_report(html, loaded, found, subject)
    if as_json:
        print_json(
            {
                "robot": loaded.name,
                "free": not found.findings,
                "findings": [{**finding.__dict__, "message": str(finding)} for finding in found.findings],
                "configurations": found.configurations,
                "commanded": dict(zip(loaded.joint_names, found.commanded.tolist(), strict=True)),
                "speeds": None if found.speeds is None else found.speeds.tolist(),
                "floor_clearance_m": found.clearance_m,
                "lowest_link": found.lowest,
                "closest_links": None if found.closest is None else list(found.closest.links),
                "closest_m": None if found.closest is None else found.closest.distance,
                "swept_low_m": None if found.swept is None else found.swept.low.tolist(),
                "swept_high_m": None if found.swept is None else found.swept.high.tolist(),
                "swept_m3": None if found.swept is None else found.swept.volume,
                "notes": list(found.notes),
            }
        )
    else:
        print_facts({"robot": f"{loaded.name}, {subject}", **facts_of(found)})
        print_table(list(JOINT_COLUMNS), joint_rows(loaded, found))
        for finding in found.findings:
            console.print(f"hit: {finding}", style="red")
        if not found.findings and found.swept is not None:
            console.print("nothing is hit; surroundings other than a flat floor are not known", style="green")
        if html is not None:
            console.print(f"written to {html}")
    if found.findings:
        raise typer.Exit(1)


def _pairs(given: Sequence[str] | None, option: str) -> dict[str, str]:
    pairs = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise RobotError(f"{option} {text}: write it as NAME=VALUE")
        pairs[name.rstrip(":")] = value
    return pairs

"""`ropes import`, `inspect` and `export-...`: bags from elsewhere, whether a bag is fit to train, bags for others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ropes_ros.cli.output import (
    Json,
    RobotOption,
    TopicsOption,
    console,
    in_words,
    print_facts,
    print_json,
    print_table,
    printable,
    topics_by_role,
)
from ropes_ros.errors import RopesError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from ropes_ros.frame_table import FrameTable

PresetOption = Annotated[
    str | None, typer.Option("--robot", help="Path of the robot preset's YAML, where it is none of the bundled.")
]


def import_(
    source: Annotated[
        Path, typer.Argument(help="rosbag2 directory, .mcap, .db3 or ROS 1 .bag; with --per-regime-bags their folder.")
    ],
    out: Annotated[Path, typer.Argument(help="Intervention bag to create.")],
    robot: RobotOption = "arm6",
    topic: TopicsOption = None,
    regimes: Annotated[
        Path | None, typer.Option(help="YAML file of time ranges, or of the levels of each bag.")
    ] = None,
    per_regime_bags: Annotated[
        bool, typer.Option("--per-regime-bags", help="SOURCE is a folder of bags, each of which is one regime.")
    ] = False,
    infer_regimes: Annotated[
        bool, typer.Option("--infer-regimes", help="Find the regimes in the commands, and draw them for you to check.")
    ] = False,
    levels: Annotated[
        int | None, typer.Option(min=2, help="With --infer-regimes: number of levels, by default what can be told.")
    ] = None,
    schedule: Annotated[
        Path | None, typer.Option(help="The schedule that the commander ran, where the bag holds its regimes alone.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make an intervention bag of one that was recorded elsewhere, by any ROS distribution."""
    from ropes_ros.importing import RegimeSource, import_bag
    from ropes_ros.regime_files import load_regime_file
    from ropes_ros.regime_plot import plot_regimes
    from ropes_ros.regimes import Schedule
    from ropes_ros.robot import load_robot

    if infer_regimes and (regimes is not None or per_regime_bags):
        raise RopesError("--infer-regimes goes without --regimes and --per-regime-bags: they say what it would guess")
    if levels is not None and not infer_regimes:
        raise RopesError("--levels goes with --infer-regimes")
    arm = load_robot(robot)
    wanted = RegimeSource(
        file=None if regimes is None else load_regime_file(regimes, arm.joint_names),
        per_bag=per_regime_bags,
        infer=infer_regimes,
        levels=levels,
        schedule=None if schedule is None else Schedule.load(schedule),
    )
    done = import_bag(source, out, arm, topics=topics_by_role(topic), regimes=wanted)
    picture = None
    if done.spans:
        picture = out.with_name(f"{out.name}.regimes.png")
        try:
            plot_regimes(done, picture)
        except RopesError as error:
            console.print(f"no plot: {error}", style="yellow", soft_wrap=True)
            picture = None
    if as_json:
        print_json(
            {
                "bag": str(out),
                "topics": [carried._asdict() for carried in done.topics],
                "levels": list(done.schedule.levels.ids),
                "segments": len(done.spans),
                "images": done.images,
                "images_in_a_regime": dict(zip(arm.joint_names, done.frames.tolist(), strict=True)),
                "plot": None if picture is None else str(picture),
                "sentences": list(done.sentences),
            }
        )
        return
    print_table(["topic", "messages in", "out", "why"], done.topics)
    in_regimes = ", ".join(f"{name} {count}" for name, count in zip(arm.joint_names, done.frames, strict=True))
    print_facts(
        {
            "bag": out,
            "levels": ", ".join(done.schedule.levels.ids),
            "images": done.images,
            "in a regime": in_regimes,
            **({} if picture is None else {"plot": picture}),
        }
    )
    for sentence in done.sentences:
        console.print(f"note: {sentence}", style="yellow", soft_wrap=True)


def inspect(
    bag: Annotated[Path, typer.Argument(help="Bag to look at.")],
    html: Annotated[Path | None, typer.Option(help="Also write a page with pictures to this file.")] = None,
    robot: PresetOption = None,
    topic: TopicsOption = None,
    schedule: Annotated[
        Path | None, typer.Option(help="The schedule that was commanded, for bags that do not hold it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Look at a bag: clocks, images, regimes, occupancy, visibility, drift; and say whether it is fit to train."""
    from rich.progress import Progress

    from ropes_ros.inspecting import inspect_bag
    from ropes_ros.inspection_report import (
        JOINT_COLUMNS,
        STREAM_COLUMNS,
        as_values,
        image_facts,
        joint_rows,
        stream_rows,
        write_inspection,
    )
    from ropes_ros.regimes import Schedule
    from ropes_ros.robot import load_robot

    with Progress(console=console, disable=as_json, transient=True) as progress:
        bar = progress.add_task("reading", total=None)
        found = inspect_bag(
            bag,
            robot=None if robot is None else load_robot(robot),
            topics=topics_by_role(topic),
            schedule=None if schedule is None else Schedule.load(schedule),
            progress=lambda done, total: progress.update(bar, completed=done, total=total),
        )
    if html is not None:
        write_inspection(found, html)
    if as_json:
        print_json(as_values(found))
        return
    print_table(STREAM_COLUMNS, stream_rows(found), f"{bag}, {in_words(found.seconds)}", whole=("topic",))
    print_facts(image_facts(found))
    if found.joints:
        print_table(JOINT_COLUMNS, joint_rows(found), whole=("joint",))
    for sentence in found.remarks:
        console.print(f"not looked at: {printable(sentence)}", soft_wrap=True)
    for sentence in found.warnings:
        console.print(f"note: {printable(sentence)}", style="yellow", soft_wrap=True)
    for sentence in found.faults:
        console.print(f"fault: {printable(sentence)}", style="red", soft_wrap=True)
    console.print(f"verdict: {found.verdict}", style="red" if found.faults else "green")
    if html is not None:
        print_facts({"page": html})


_JointStates = Annotated[
    bool, typer.Option("--with-joint-states", help="Also measured positions: for evaluation, never to learn angles by.")
]


def export_frames(
    bag: Annotated[Path, typer.Argument(help="Intervention bag.")],
    out: Annotated[Path, typer.Argument(help="Folder to create.")],
    with_joint_states: _JointStates = False,
    robot: PresetOption = None,
    topic: TopicsOption = None,
) -> None:
    """Write a bag's images as PNG files, with a CSV of stamps, levels and commands."""
    from ropes_ros.frame_files import export_frames as write

    frames = _frames(bag, robot, topic, with_joint_states)
    with _bar() as (progress, bar):
        written = write(frames, out, progress=lambda done, total: progress.update(bar, completed=done, total=total))
    _exported(frames, {"folder": out, "images": written})


def export_lerobot(
    bag: Annotated[Path, typer.Argument(help="Intervention bag.")],
    out: Annotated[Path, typer.Argument(help="Folder to create.")],
    fps: Annotated[int | None, typer.Option(min=1, help="Frames a second, by default the camera's.")] = None,
    task: Annotated[str, typer.Option(help="What the robot does, in words.")] = "move the joints in designed ways",
    with_joint_states: _JointStates = False,
    robot: PresetOption = None,
    topic: TopicsOption = None,
) -> None:
    """Write a bag as a LeRobotDataset v3.0, at a fixed rate."""
    from ropes_ros.lerobot import export_lerobot as write

    frames = _frames(bag, robot, topic, with_joint_states)
    with _bar() as (progress, bar):
        done = write(
            frames,
            out,
            fps=fps,
            task=task,
            progress=lambda done, total: progress.update(bar, completed=done, total=total),
        )
    facts = {"folder": out, "episodes": done.episodes, "frames": done.frames}
    _exported(frames, {**facts, "shown twice": done.shown_twice, "images left out": done.left_out})


def _frames(bag: Path, robot: str | None, topic: list[str] | None, with_joint_states: bool) -> FrameTable:
    from ropes_ros.frame_table import frame_table
    from ropes_ros.robot import load_robot

    arm = None if robot is None else load_robot(robot)
    return frame_table(bag, robot=arm, topics=topics_by_role(topic), with_joint_states=with_joint_states)


@contextmanager
def _bar() -> Iterator[tuple[Progress, TaskID]]:
    from rich.progress import Progress

    with Progress(console=console, transient=True) as progress:
        yield progress, progress.add_task("writing", total=None)


def _exported(frames: FrameTable, facts: dict[str, object]) -> None:
    print_facts({**facts, "images out of order": frames.out_of_order})
    for remark in frames.remarks:
        console.print(f"note: {printable(remark)}", style="yellow", soft_wrap=True)

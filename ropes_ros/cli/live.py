"""`ropes sim`, `ropes record`, `ropes estimate`: start the nodes, under ROS 2 or standalone; estimate over a bag."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ropes_ros.cli.output import (
    Json,
    RobotOption,
    TopicsOption,
    as_command,
    console,
    in_words,
    print_facts,
    print_json,
    print_table,
    topics_by_role,
)
from ropes_ros.errors import BagError, ModelError, RopesError, ScheduleError
from ropes_ros.processes import Processes, has_ros, node_command

if TYPE_CHECKING:
    from ropes_ros.encoder import Encoder
    from ropes_ros.evaluation import Estimates
    from ropes_ros.robot import Robot
    from ropes_ros.video import Filmed

SIM_TIME = typer.Option("--sim-time", help="Take the time from /clock (a simulation publishes it).")


def sim(
    robot: RobotOption = "arm6",
    width: Annotated[int, typer.Option(min=16, help="Image width in pixels.")] = 320,
    height: Annotated[int, typer.Option(min=16, help="Image height in pixels.")] = 240,
    rate: Annotated[float, typer.Option(min=0.1, help="Images per simulated second.")] = 30.0,
    clock: Annotated[bool, typer.Option("--clock", help="Publish /clock and stamp with simulation time.")] = False,
    real_time_factor: Annotated[
        float, typer.Option(min=0.0, help="Simulated seconds per second; 0 is as fast as possible (with --clock).")
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the simulator's random texture.")] = 0,
) -> None:
    """Run the built-in simulated arm with its camera, until Ctrl-C."""
    parameters = {
        "robot": robot,
        "camera_width": width,
        "camera_height": height,
        "camera_rate": rate,
        "publish_clock": clock,
        "real_time_factor": real_time_factor,
        "seed": seed,
    }
    _run_until_interrupted(node_command("sim_arm", parameters))


def record(
    path: Annotated[Path, typer.Argument(help="Folder of the new bag; must not exist.")],
    schedule: Annotated[Path, typer.Option(help="Schedule to command (`ropes schedule make --save`).")],
    robot: RobotOption = "arm6",
    image_topic: Annotated[str, typer.Option(help="Camera topic to record.")] = "camera/image_raw",
    extra_camera: Annotated[
        list[str] | None,
        typer.Option(metavar="IMAGE[:CAMERA_INFO]", help="Record another camera too; may be repeated."),
    ] = None,
    command_type: Annotated[
        str, typer.Option(help="Type of joint_command: JointTrajectory, Float64MultiArray or JointState.")
    ] = "JointTrajectory",
    command_topic: Annotated[
        str, typer.Option(help="Topic that the robot's controller hears.")
    ] = "joint_command",
    command: Annotated[
        bool, typer.Option("--command/--no-command", help="Also command the schedule; the recording ends with it.")
    ] = True,
    armed: Annotated[
        bool, typer.Option("--armed", help="Move the robot. Keep its way and the emergency stop free.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where an earlier recording of this schedule was interrupted.")
    ] = False,
    assume_home: Annotated[
        bool, typer.Option("--assume-home", help="The robot is at home and publishes no joint_states.")
    ] = False,
    sim_time: Annotated[bool, SIM_TIME] = False,
) -> None:
    """Command a schedule and record what the camera sees into an intervention bag."""
    from ropes_ros.command_messages import COMMAND_TYPES
    from ropes_ros.progress import Progress
    from ropes_ros.regimes import Schedule
    from ropes_ros.robot import load_robot

    if path.exists():
        raise BagError(f"{path} exists; name a folder that does not, recordings are never overwritten")
    if not schedule.is_file():
        raise ScheduleError(f"{schedule} does not exist; make one with `ropes schedule make --save {schedule}`")
    if command and not armed:
        raise ScheduleError(
            "this moves the robot that listens to joint_command: say --armed if it may (--no-command records only)"
        )
    try:
        loaded = Schedule.load(schedule)
        loaded.check_robot(load_robot(robot))
    except ScheduleError as error:
        raise ScheduleError(f"{schedule}: {str(error).removeprefix(f'{schedule}: ')}") from None
    if command_type not in COMMAND_TYPES:
        raise ScheduleError(f"--command-type {command_type}: unknown; known are {', '.join(COMMAND_TYPES)}")
    common = {"robot": robot, "schedule": str(schedule), "use_sim_time": sim_time}
    remappings = {"joint_command": command_topic}
    cameras = {"image_topic": image_topic, "extra_cameras": extra_camera or [""]}
    progress = Progress(schedule.with_name(f"{schedule.name}.progress"), loaded.hash)
    begin_s = progress.read() if resume else 0.0
    recorder = node_command("recorder", {**common, "path": str(path), **cameras}, remappings)
    if not command:
        _run_until_interrupted(recorder)
        return
    commander = node_command(
        "commander",
        {
            **common,
            "command_type": command_type,
            "exit_when_done": True,
            "wait_for_recorder": True,
            "assume_home": assume_home,
            "armed": armed,
            "resume_from": begin_s,
            "progress_file": str(progress.path),
        },
        remappings,
    )
    with Processes() as processes:
        try:
            recording = processes.start(recorder)
            status = processes.wait(processes.start(commander))
            closed = processes.stop(recording)
            status = status or closed
        except KeyboardInterrupt:
            console.print("interrupted: closing the bag")
            status = 130
    _exit(status)
    console.print(f"recorded {path}; look at it with `{as_command('ropes', 'info', path)}`", soft_wrap=True)


def estimate(
    source: Annotated[str, typer.Argument(metavar="BAG_OR_TOPIC", help="A bag, or the camera topic to watch.")],
    model: Annotated[
        Path | None,
        typer.Option("--model", "-m", help="Model folder or model.onnx; the one shipped for the robot if none."),
    ] = None,
    robot: RobotOption = "arm6",
    csv_path: Annotated[
        Path | None, typer.Option("--csv", help="Over a bag: write one row a frame to this file, - for stdout.")
    ] = None,
    video: Annotated[
        Path | None,
        typer.Option(help="Over a bag: write its images with the estimates drawn on them to this .mp4 or .avi file."),
    ] = None,
    require_gpu: Annotated[bool, typer.Option("--require-gpu", help="Refuse to run without a GPU.")] = False,
    topic: TopicsOption = None,
    publish_tf: Annotated[bool, typer.Option("--tf", help="Live: publish the estimated tip on /tf.")] = False,
    sim_time: Annotated[bool, SIM_TIME] = False,
    as_json: Json = False,
) -> None:
    """Estimate joint angles: over a bag, or live from a camera topic until Ctrl-C."""
    if model is None:
        from ropes_ros.encoder import shipped_model

        model = shipped_model(robot)
    if not model.exists():
        raise ModelError(f"{model} does not exist; name a model's folder, or make one with `ropes export`")
    if Path(source).exists():
        _estimate_bag(Path(source), model, robot, csv_path, video, require_gpu, topics_by_role(topic), as_json)
        return
    if source.endswith((".mcap", ".db3")) or source.startswith((".", "~")):
        raise BagError(f"{source} does not exist; name a bag, or a camera topic such as camera/image_raw")
    given = {"--csv": csv_path is not None, "--video": video is not None, "--json": as_json, "--topic": bool(topic)}
    for_bags = [name for name, there in given.items() if there]
    if for_bags:
        raise BagError(
            f"{source} does not exist, and {' and '.join(for_bags)} need a bag; name one, or leave "
            f"{'them' if len(for_bags) > 1 else 'it'} out to watch a camera topic"
        )
    parameters = {
        "model": str(model),
        "robot": robot,
        "image_topic": source,
        "require_gpu": require_gpu,
        "publish_tf": publish_tf,
        "use_sim_time": sim_time,
    }
    _run_until_interrupted(node_command("estimator", parameters))


def _run_until_interrupted(command: list[str]) -> None:
    console.print(f"runtime: {'ROS 2 (rclpy)' if has_ros() else 'standalone'}; stop with Ctrl-C")
    with Processes() as processes:
        try:
            status = processes.wait(processes.start(command))
        except KeyboardInterrupt:
            status = 0
    _exit(status)


def _exit(status: int) -> None:
    """End with a process's status, as a shell counts it, unless it is 0."""
    if status:
        raise typer.Exit(status if status > 0 else 128 - status)


def _estimate_bag(
    bag_path: Path,
    model: Path,
    robot: str,
    csv_path: Path | None,
    video: Path | None,
    require_gpu: bool,
    topics: Mapping[str, str],
    as_json: bool,
) -> None:
    from ropes_ros.encoder import load_encoder
    from ropes_ros.evaluation import estimate_bag
    from ropes_ros.robot import load_robot

    arm = load_robot(robot)
    encoder = load_encoder(model, robot=arm.name, require_gpu=require_gpu)
    filmed = None
    if video is None:
        estimates = estimate_bag(encoder, bag_path, topics=topics)
    else:
        filmed = _film(encoder, arm, bag_path, video, topics, as_json or str(csv_path) == "-")
        estimates = filmed.estimates
    if csv_path is not None:
        _write_csv(estimates, encoder.info.joint_names, csv_path)
        if str(csv_path) == "-":
            return
    content = _summary(estimates, arm)
    if as_json:
        print_json({**content, "execution_providers": encoder.providers})
        return
    shown = {}
    if filmed is not None:
        left_out = f", {filmed.out_of_order} images out of order left out" if filmed.out_of_order else ""
        shown = {
            "video": f"{video}, {filmed.rate:.1f} frames/s{left_out}",
            "arm": f"not drawn into the picture: {filmed.arm}" if filmed.arm else "drawn at the filtered estimate",
        }
    print_facts(
        {
            **shown,
            "frames": content["frames"],
            "span": in_words(content["span_s"]),
            "novel frames": f"{content['novel_share']:.1%} (novelty above 1; 1 % is usual)",
            "runs on": encoder.providers[0],
        }
    )
    print_table(
        ["joint", "min", "mean", "max", "mean std", "in"],
        [(name, *(f"{value:.1f}" for value in values), unit) for name, unit, values in _ranges(estimates, arm)],
    )


def _film(
    encoder: Encoder, robot: Robot, bag_path: Path, video: Path, topics: Mapping[str, str], quiet: bool
) -> Filmed:
    from rich.progress import Progress

    from ropes_ros.video import film

    with Progress(console=console, disable=quiet, transient=True) as progress:
        bar = progress.add_task("filming", total=None)
        return film(
            encoder,
            robot,
            bag_path,
            video,
            topics=topics,
            progress=lambda done, total: progress.update(bar, completed=done, total=total),
        )


def _ranges(estimates: Estimates, arm: Robot) -> Iterator[tuple[str, str, tuple[float, ...]]]:
    """Of each joint its name, the unit of its figures, and least, mean and greatest position and mean std in it."""
    for index, joint in enumerate(arm.joints):
        unit, scale = joint.figures
        position = scale * estimates.position[:, index]
        std = scale * float(estimates.std[:, index].mean())
        yield joint.name, unit, (float(position.min()), float(position.mean()), float(position.max()), std)


_KEYS = ("min", "mean", "max", "std")
_UNIT_NAMES = {"°": "deg", "mm": "mm"}
"""Units as keys of JSON end."""


def _summary(estimates: Estimates, arm: Robot) -> dict[str, Any]:
    return {
        "frames": len(estimates.position),
        "span_s": float(estimates.stamps_ns[-1] - estimates.stamps_ns[0]) / 1e9,
        "novel_share": float((estimates.novelty > 1.0).mean()),
        "joints": [
            {
                "name": name,
                **{f"{key}_{_UNIT_NAMES[unit]}": value for key, value in zip(_KEYS, values, strict=True)},
            }
            for name, unit, values in _ranges(estimates, arm)
        ],
    }


def _write_csv(estimates: Estimates, joint_names: tuple[str, ...], path: Path) -> None:
    """One row a frame: stamp in ns, positions and standard deviations in rad, novelty."""
    header = [
        "stamp_ns",
        *(f"{name}.position" for name in joint_names),
        *(f"{name}.std" for name in joint_names),
        "novelty",
    ]
    try:
        stream = sys.stdout if str(path) == "-" else path.open("w", newline="", encoding="utf-8")
    except OSError as error:
        raise RopesError(f"{path} cannot be written ({error.strerror}); name another file for --csv") from None
    writer = csv.writer(stream)
    writer.writerow(header)
    for stamp, position, std, novelty in zip(
        estimates.stamps_ns, estimates.position, estimates.std, estimates.novelty, strict=True
    ):
        writer.writerow([int(stamp), *(f"{value:.6f}" for value in (*position, *std, novelty))])
    if stream is not sys.stdout:
        stream.close()

"""`ropes info`, `ropes recover` and `ropes bag`: look at a bag or a model, mend a bag, rewrite its metadata."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from ropes_ros.cli.output import Json, console, in_words, print_facts, print_json, print_table
from ropes_ros.errors import RopesError


def info(
    path: Annotated[Path, typer.Argument(metavar="BAG_OR_MODEL", help="A bag, or a model's folder or file.")],
    as_json: Json = False,
) -> None:
    """Say what is in a bag or a model."""
    if not path.exists():
        raise RopesError(f"{path} does not exist; name a bag or a model")
    from ropes_ros.encoder import PRECISION_FILES

    files = [path] if path.suffix == ".onnx" else [path / name for name in PRECISION_FILES.values()]
    if there := [file for file in files if file.is_file()]:
        _model_info(there[0], as_json)
    else:
        _bag_info(path, as_json)


def recover(
    path: Annotated[Path, typer.Argument(help="A bag whose recording was cut off.")],
    as_json: Json = False,
) -> None:
    """Make a bag readable again whose recording was cut off by a crash, a full disk or a power cut."""
    from ropes_ros.bags import recover as recover_bag

    result = recover_bag(path)
    if as_json:
        print_json(result.__dict__)
    elif result.rebuilt:
        console.print(
            f"rebuilt {', '.join(result.rebuilt)}: {result.messages} messages over "
            f"{in_words(result.duration_ns / 1e9)}, {result.lost_bytes} bytes lost",
        )
        for original in result.kept:
            console.print(f"it was damaged in its midst; the original is kept as {original}")
    else:
        console.print(f"nothing to mend: {result.messages} messages over {in_words(result.duration_ns / 1e9)}")


class Distribution(str, Enum):
    """What metadata are rewritten for."""

    HUMBLE = "humble"


def bag(
    path: Annotated[Path, typer.Argument(help="A whole bag.")],
    distribution: Annotated[Distribution, typer.Option("--for", help="The ROS 2 that is to read it.")],
) -> None:
    """Rewrite a bag's metadata.yaml in the form that an older ROS 2 reads; the messages stay as they are."""
    from ropes_ros.bag_conversion import rewrite_for_humble

    done = "rewritten" if rewrite_for_humble(path) else "left as they are:"
    console.print(f"metadata of {path} {done} for {distribution.value}", soft_wrap=True)


def _model_info(path: Path, as_json: bool) -> None:
    from dataclasses import asdict

    from ropes_ros.encoder import load_encoder

    encoder = load_encoder(path)
    content = {**asdict(encoder.info), "sha256": encoder.sha256, "execution_providers": encoder.providers}
    content["precision"] = encoder.precision
    if as_json:
        print_json(content)
        return
    noise = f"{encoder.info.level_label_noise:.3f} half ranges"
    print_facts(
        {
            "model": encoder.path,
            "robot": f"{encoder.info.robot} ({', '.join(encoder.info.joint_names)})",
            "camera": "{}x{}".format(*encoder.info.camera_size),
            "supervision": f"{encoder.info.supervision}; a level is worth a position label with a standard deviation "
            f"of {noise}",
            "calibration": encoder.info.calibration,
            "made by": encoder.info.producer,
            "precision": encoder.precision,
            "runs on": ", ".join(encoder.providers),
            "sha256": encoder.sha256,
        }
    )
    print_table(["held-out figure", "value"], [(name, f"{value:.4g}") for name, value in encoder.info.figures.items()])


def _bag_info(path: Path, as_json: bool) -> None:
    from ropes_ros.bags import open_bag

    with open_bag(path) as bag:
        header = bag.header
        content: dict[str, Any] = {
            "path": str(bag.path),
            "seconds": (bag.end_ns - bag.start_ns) / 1e9,
            "topics": [topic._asdict() for topic in bag.topics.values()],
            "intervention": None
            if header is None
            else {
                "schema_version": header.schema_version,
                "state": header.state,
                "robot": header.robot,
                "schedule_hash": header.schedule_hash,
                "drops": dict(header.drops),
                "losses": {topic: losses._asdict() for topic, losses in header.losses.items()},
                "rates": dict(header.rates),
                "ended": header.ended,
            },
        }
    if as_json:
        print_json(content)
        return
    facts: dict[str, object] = {"bag": path, "duration": in_words(content["seconds"])}
    if header is None:
        facts["kind"] = "recorded elsewhere: holds no schedule"
    else:
        facts["kind"] = f"intervention bag, version {header.schema_version}, {header.state}"
        facts["robot"] = header.robot
        facts["schedule"] = (header.schedule_hash or "none")[:16]
        facts["lost messages"] = sum(header.drops.values())
        for topic, losses in header.losses.items():
            parts = (f"{name} {number}" for name, number in losses._asdict().items() if number)
            facts[f"lost of {topic}"] = ", ".join(parts)
        if header.ended:
            facts["ended"] = header.ended
    print_facts(facts)
    print_table(
        ["topic", "type", "messages"],
        [(topic["name"], topic["type_name"], topic["count"]) for topic in content["topics"]],
    )

"""`ropes demo`: the whole job on the built-in arm."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, NamedTuple, get_type_hints

import typer

from ropes_ros.cli.output import Json, RobotOption, console, print_json


class Option(NamedTuple):
    """An option that takes a value: its name without dashes, its default and its help."""

    name: str
    default: str
    help: str


def options() -> list[Option]:
    """The options of `ropes demo` that take a value."""
    hints = get_type_hints(demo, include_extras=True)
    return [
        Option(name, str(parameter.default), hints[name].__metadata__[0].help)
        for name, parameter in inspect.signature(demo).parameters.items()
        if not isinstance(parameter.default, bool)
    ]


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def demo(
    robot: RobotOption = "arm6",
    out: Annotated[Path, typer.Option(help="Folder for bag, model, logs and report.")] = Path("out/demo"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of schedule, training and fresh motion.")] = 0,
    minutes: Annotated[float, typer.Option(min=1.0, help="Simulated minutes to record.")] = 24.0,
    epochs: Annotated[int, typer.Option(min=1, help="Passes of the first network over the recorded frames.")] = 6,
    live: Annotated[float, typer.Option(min=5.0, help="Seconds of fresh motion to estimate.")] = 60.0,
    as_json: Json = False,
) -> None:
    """Simulate, record, learn, estimate and report, in one go."""
    from ropes_ros.demo import DemoConfig, run_demo

    config = DemoConfig(robot=robot, out=out, seed=seed, record_s=60.0 * minutes, epochs=epochs, live_s=live)
    try:
        figures = run_demo(config, console)
    except KeyboardInterrupt:
        console.print("interrupted; all processes have ended, no report was written")
        raise typer.Exit(130) from None
    if as_json:
        print_json(figures)
    else:
        console.print(f"report: {out / 'report.html'}")

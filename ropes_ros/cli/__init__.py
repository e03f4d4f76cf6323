"""The `ropes` command. Its modules import what a subcommand needs only when that subcommand runs."""

from __future__ import annotations

import errno
import importlib
import sys
from typing import Annotated

import typer

from ropes_ros import __version__
from ropes_ros.cli import bag, bench, compare, doctor, evaluate, foreign, learn, live, quantized, robot, schedule, top
from ropes_ros.cli.output import printable
from ropes_ros.errors import RopesError

app = typer.Typer(
    name="ropes",
    help="Joint angles from camera images, learned from the known ways in which the joints were commanded.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of the command itself."""


_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.command(context_settings=_PASS_ON, rich_help_panel="All in one")
def demo(context: typer.Context) -> None:
    """Simulate, record, learn, estimate and report, in one go."""
    importlib.import_module("ropes_ros.cli.demo").app(context.args, prog_name="ropes demo")


app.add_typer(robot.app, name="robot", rich_help_panel="On the robot")
app.add_typer(schedule.app, name="schedule", rich_help_panel="On the robot")
app.command(rich_help_panel="On the robot")(live.sim)
app.command(rich_help_panel="On the robot")(live.record)
app.command(rich_help_panel="On the robot")(live.estimate)
app.command(rich_help_panel="On the robot")(top.top)
app.command(rich_help_panel="Learning")(learn.train)
app.command(rich_help_panel="Learning")(quantized.quantize)
app.command(rich_help_panel="Learning")(learn.export)
app.add_typer(quantized.model, name="model", rich_help_panel="Learning")
app.command(rich_help_panel="Learning")(evaluate.evaluate)
app.command(rich_help_panel="Learning")(compare.compare)
app.add_typer(bench.app, name="bench", rich_help_panel="Learning")
app.command("import", rich_help_panel="Care")(foreign.import_)
app.command(rich_help_panel="Care")(bag.info)
app.command(rich_help_panel="Care")(foreign.inspect)
app.command("export-lerobot", rich_help_panel="Care")(foreign.export_lerobot)
app.command("export-frames", rich_help_panel="Care")(foreign.export_frames)
app.command(rich_help_panel="Care")(bag.recover)
app.command(rich_help_panel="Care")(bag.bag)
app.command(rich_help_panel="Care")(doctor.doctor)


def main() -> int:
    """Run the command line; an error that the user can mend becomes one line and exit status 1."""
    try:
        app()
    except RopesError as error:
        print(f"error: {printable(error)}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = "" if error.filename is None else f"{error.filename}: "
            print(f"error: {where}the disk is full; make room, or write elsewhere", file=sys.stderr)
            return 1
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}; name another path, or see to this one", file=sys.stderr)
        return 1
    return 0

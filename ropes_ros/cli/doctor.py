"""`ropes doctor`: what this machine has and what works on it."""

from __future__ import annotations

from dataclasses import asdict

import typer
from rich.text import Text

from ropes_ros.cli.output import Json, console, print_json


def doctor(as_json: Json = False) -> None:
    """Look at packages, runtime, GPU, rendering and discovery; try what can be tried. Exit status 1 on a failure."""
    from ropes_ros.doctor import State, examine

    checks = examine()
    if as_json:
        print_json({"checks": [asdict(check) for check in checks]})
    else:
        colours = {State.OK: "green", State.ABSENT: "yellow", State.FAILED: "red"}
        for check in checks:
            colour = colours[check.state]
            line = Text.assemble((f"{check.state.value:7}", colour), (f"{check.name:14}", "bold"), check.detail)
            console.print(line, soft_wrap=True)
            if check.advice:
                console.print(Text.assemble(" " * 21, ("-> " + check.advice, "dim")), soft_wrap=True)
    if any(check.state is State.FAILED for check in checks):
        raise typer.Exit(1)

"""Run a node module's main(): python -m ropes_ros.standalone ropes_ros.nodes.estimator --ros-args ..."""

from __future__ import annotations

import importlib
import sys

from ropes_ros.processes import end_on_signals

_USAGE = "usage: python -m ropes_ros.standalone MODULE [ARGUMENTS] [--ros-args ...]"


def main(argv: list[str]) -> int:
    """Import a module and call its main(); its result is the exit status."""
    if not argv or argv[0].startswith("-"):
        print(_USAGE, file=sys.stderr)
        return 2
    end_on_signals()

    from ropes_ros.errors import RopesError
    from ropes_ros.standalone import install

    name = argv[0]
    sys.argv = argv
    install()
    try:
        module = importlib.import_module(name)
    except RopesError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing != name and not name.startswith(f"{missing}.") and missing.split(".")[0] != "rclpy":
            raise
        what = "is not supported by the standalone runtime" if missing.startswith("rclpy") else "does not exist"
        print(f"error: module {missing} {what}", file=sys.stderr)
        return 1
    if not hasattr(module, "main"):
        print(f"error: module {name} has no main()", file=sys.stderr)
        return 1
    return int(module.main() or 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Run cells in processes of their own, some beside each other; what an earlier run finished is taken as it is."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from ropes_ros.bench.cells import Cell, is_done, read_cell, write_cell
from ropes_ros.bench.worker import NOTHING
from ropes_ros.errors import RopesError
from ropes_ros.processes import Processes

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"), "1"
)
_PAUSE_S = 0.1

Wanted = Mapping[Cell, tuple[str, ...]]
"""Cells, in the order in which they are started, with the tests that are wanted of each."""


class Event(NamedTuple):
    """A cell's end.

    Attributes:
        cell: The cell.
        message: Why it failed; "" where it is done.
        seconds: How long it took.
        done: Cells that ended in this run so far.
        total: Cells of this run.
    """

    cell: Cell
    message: str
    seconds: float
    done: int
    total: int


def run_cells(
    wanted: Wanted, out: Path, *, jobs: int = 2, on_event: Callable[[Event], None] | None = None
) -> int:
    """Run all cells that are not done.

    Args:
        wanted: What to run; a cell that starts from another one's network comes after it.
        out: The bench's folder; logs go to OUT/logs/NAME.log.
        jobs: Processes at a time.
        on_event: Called at the end of each cell.

    Returns:
        Number of cells that failed.

    Raises:
        RopesError: Fewer than one process is asked for.
    """
    if jobs < 1:
        raise RopesError(f"--jobs {jobs}: take 1 or more")
    waiting = [cell for cell, tests in wanted.items() if not is_done(read_cell(out, cell), tests)]
    total, ended, failed = len(waiting), 0, 0
    running: dict[Cell, tuple[subprocess.Popen[bytes], float]] = {}
    (out / "logs").mkdir(parents=True, exist_ok=True)
    with Processes(ONE_THREAD) as processes:
        while waiting or running:
            busy = {cell.name for cell in (*waiting, *running)}
            ready = [cell for cell in waiting if cell.start not in busy]
            if ready and len(running) < jobs:
                cell = ready[0]
                waiting.remove(cell)
                running[cell] = _start(processes, out, cell, wanted[cell]), time.monotonic()
                continue
            over = [cell for cell, (process, _) in running.items() if process.poll() is not None]
            if not over:
                time.sleep(_PAUSE_S)
            for cell in over:
                process, started = running.pop(cell)
                message = _end(out, cell, wanted[cell], process.returncode)
                ended, failed = ended + 1, failed + bool(message)
                if on_event is not None:
                    on_event(Event(cell, message, time.monotonic() - started, ended, total))
    return failed


def _start(processes: Processes, out: Path, cell: Cell, tests: tuple[str, ...]) -> subprocess.Popen[bytes]:
    order = json.dumps({"cell": cell.to_dict(), "tests": tests})
    with log_file(out, cell).open("ab") as log:
        return processes.start([sys.executable, "-m", "ropes_ros.bench", str(out), order], output=log.fileno())


def log_file(out: Path, cell: Cell) -> Path:
    """Where a cell's output goes."""
    return out / "logs" / f"{cell.name}.log"


def _end(out: Path, cell: Cell, tests: tuple[str, ...], status: int) -> str:
    """Why a cell failed, "" where it is done; a process that died without a word gets a record too."""
    record = read_cell(out, cell)
    if is_done(record, tests):
        return ""
    if record is None or record["state"] == "done":
        message = f"its process ended with status {status}; see {log_file(out, cell)}"
        record = {**(record or NOTHING), "state": "failed", "message": message}
        write_cell(out, cell, record)
    return str(record["message"])

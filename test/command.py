"""The `ropes` command as a process, and a look at what it leaves running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

ROPES = (sys.executable, "-c", "import sys; from ropes_ros.cli import main; sys.exit(main())")


class Command:
    """A running process; its descendants are known by a mark in their environment. A context manager.

    Args:
        folder: Where its output is kept.
        command: Program and arguments.
        environment: Variables to set, or to unset where None.
    """

    def __init__(
        self, folder: Path, command: Sequence[str | Path], *, environment: dict[str, str | None] | None = None
    ) -> None:
        self._mark = uuid.uuid4().hex
        variables = {**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {}), "ROPES_TEST_MARK": self._mark}
        self._files = [folder / f"{self._mark}.{name}" for name in ("out", "err")]
        with self._files[0].open("wb") as out, self._files[1].open("wb") as err:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                env={name: value for name, value in variables.items() if value is not None},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=folder,
                start_new_session=True,
            )

    @property
    def out(self) -> str:
        return self._files[0].read_text(errors="replace")

    @property
    def err(self) -> str:
        return self._files[1].read_text(errors="replace")

    def wait_until(self, condition: Callable[[], object], what: str, deadline: float = 60.0) -> None:
        """Poll until a condition holds while the process lives."""
        end = time.monotonic() + deadline
        while not condition():
            said = f"; it said: {self.out[-2000:]}{self.err[-2000:]}"
            assert self.process.poll() is None, f"it ended before {what}{said}"
            assert time.monotonic() < end, f"not within {deadline:g} s: {what}{said}"
            time.sleep(0.02)

    def end(self, deadline: float = 60.0) -> int:
        """Wait for the end; the exit status."""
        return self.process.wait(deadline)

    def running(self) -> list[str]:
        """Command lines of the process and its descendants that live."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if self._mark.encode() in (entry / "environ").read_bytes():
                    found.append(f"{entry.name} {(entry / 'cmdline').read_text()}".replace("\0", " "))
            except OSError:
                continue
        return found

    def gone(self, deadline: float = 10.0) -> bool:
        """Whether nothing is left of it, now or soon."""
        end = time.monotonic() + deadline
        while self.running():
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def __enter__(self) -> Command:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for line in self.running():
            try:
                os.kill(int(line.split()[0]), signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()


def ropes(folder: Path, *arguments: str | Path, environment: dict[str, str | None] | None = None) -> Command:
    """Start the `ropes` command in a folder."""
    return Command(folder, [*ROPES, *arguments], environment=environment)

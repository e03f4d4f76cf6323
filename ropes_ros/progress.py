"""How far a schedule has been commanded, in a small file, so that what was interrupted can go on."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ropes_ros.errors import ScheduleError
from ropes_ros.units import NANOSECONDS


class Progress:
    """A file that says how far a schedule is; it is replaced as a whole, so that a crash leaves the last note.

    Args:
        path: The file.
        schedule_hash: The schedule's hash.
    """

    def __init__(self, path: Path, schedule_hash: str) -> None:
        self.path, self._hash = path, schedule_hash

    def note(self, reached_ns: int) -> None:
        """Write down the time of the schedule, in ns, up to which it has been commanded.

        Raises:
            OSError: The file cannot be written.
        """
        beside = self.path.with_name(f".{self.path.name}.new")
        beside.write_text(json.dumps({"schedule_hash": self._hash, "reached_ns": int(reached_ns)}), encoding="utf-8")
        os.replace(beside, self.path)

    def forget(self) -> None:
        """The schedule has ended: there is nothing to go on with."""
        self.path.unlink(missing_ok=True)

    def read(self) -> float:
        """The time of the schedule, in s, to go on at.

        Raises:
            ScheduleError: There is no note, or it is of another schedule.
        """
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            told, reached_ns = content["schedule_hash"], int(content["reached_ns"])
        except OSError:
            raise ScheduleError(f"{self.path} cannot be read: no interrupted run is known; start anew") from None
        except (ValueError, KeyError, TypeError):
            raise ScheduleError(f"{self.path} is no note of how far a schedule is: start anew") from None
        if told != self._hash:
            raise ScheduleError(f"{self.path} is about another schedule: start anew")
        return reached_ns / NANOSECONDS

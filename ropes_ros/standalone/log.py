"""Logging to the console in ROS 2's format: rclpy.logging."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ropes_ros.standalone.severity import LoggingSeverity

_COLOURS = {LoggingSeverity.DEBUG: "32", LoggingSeverity.WARN: "33", LoggingSeverity.ERROR: "31"}
_COLOURS[LoggingSeverity.FATAL] = _COLOURS[LoggingSeverity.ERROR]


@dataclass
class _Record:
    """How often a place in the code logged, and when it was last shown."""

    calls: int = 0
    shown: float | None = None


_levels: dict[str, LoggingSeverity] = {"": LoggingSeverity.INFO}
_records: dict[tuple[Any, ...], _Record] = {}
# What else a logger and its children do with a record (severity, name, text, file, function, line), by logger name.
sinks: dict[str, Callable[[LoggingSeverity, str, str, str, str, int], None]] = {}
# The last error that each logger has shown.
last_errors: dict[str, str] = {}


class RcutilsLogger:
    """A named logger; children are separated by dots."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    def get_child(self, name: str) -> RcutilsLogger:
        """The logger below this one."""
        if not name:
            raise ValueError("Child logger name cannot be empty.")
        return RcutilsLogger(f"{self.name}.{name}" if self.name else name)

    def set_level(self, level: LoggingSeverity | int) -> None:
        """Show messages from this severity on."""
        _levels[self.name] = LoggingSeverity(level)

    def get_effective_level(self) -> LoggingSeverity:
        """The severity from which messages are shown."""
        name = self.name
        while name:
            level = _levels.get(name, LoggingSeverity.UNSET)
            if level:
                return level
            name = name.rpartition(".")[0]
        return _levels[""]

    def is_enabled_for(self, severity: LoggingSeverity) -> bool:
        """Whether messages of that severity are shown."""
        return self.get_effective_level() <= severity

    def log(
        self,
        message: str,
        severity: LoggingSeverity,
        *,
        throttle_duration_sec: float | None = None,
        throttle_time_source_type: Any = None,
        skip_first: bool = False,
        once: bool = False,
        _depth: int = 1,
    ) -> bool:
        """Log a message; throttling, skip_first and once count per place in the code.

        Returns:
            Whether the message was shown.
        """
        if not self.is_enabled_for(severity):
            return False
        frame = sys._getframe(_depth)
        place = (self.name, frame.f_code.co_filename, frame.f_lineno)
        if once or skip_first or throttle_duration_sec is not None:
            record = _records.setdefault(place, _Record())
            record.calls += 1
            now = time.monotonic()
            if skip_first and record.calls == 1:
                return False
            if record.shown is not None:
                if once:
                    return False
                if throttle_duration_sec is not None and now - record.shown < throttle_duration_sec:
                    return False
            record.shown = now
        text = str(message)
        _print(self.name, severity, text)
        if severity >= LoggingSeverity.ERROR:
            last_errors[self.name] = text
        name = self.name
        while name:
            if name in sinks:
                code = frame.f_code
                sinks[name](severity, self.name, text, code.co_filename, code.co_name, frame.f_lineno)
                break
            name = name.rpartition(".")[0]
        return True

    def debug(self, message: str, **options: Any) -> bool:
        """Log for a developer."""
        return self.log(message, LoggingSeverity.DEBUG, **options, _depth=2)

    def info(self, message: str, **options: Any) -> bool:
        """Log what a user expects to see."""
        return self.log(message, LoggingSeverity.INFO, **options, _depth=2)

    def warning(self, message: str, **options: Any) -> bool:
        """Log what may be wrong."""
        return self.log(message, LoggingSeverity.WARN, **options, _depth=2)

    warn = warning

    def error(self, message: str, **options: Any) -> bool:
        """Log what is wrong."""
        return self.log(message, LoggingSeverity.ERROR, **options, _depth=2)

    def fatal(self, message: str, **options: Any) -> bool:
        """Log why the process ends."""
        return self.log(message, LoggingSeverity.FATAL, **options, _depth=2)


def _print(name: str, severity: LoggingSeverity, text: str) -> None:
    line = f"[{severity.name}] [{time.time():.9f}] [{name}]: {text}"
    colours = os.environ.get("RCUTILS_COLORIZED_OUTPUT", "")
    if severity in _COLOURS and (colours == "1" or (colours != "0" and sys.stderr.isatty())):
        line = f"\x1b[{_COLOURS[severity]}m{line}\x1b[0m"
    print(line, file=sys.stderr, flush=True)


def get_logger(name: str) -> RcutilsLogger:
    """The logger of that name."""
    return RcutilsLogger(name)


def set_logger_level(name: str, level: LoggingSeverity | int, detailed_error: bool = False) -> None:
    """Show a logger's messages from this severity on; the empty name is the default of all."""
    _levels[name] = LoggingSeverity(level)


def get_logger_level(name: str) -> LoggingSeverity:
    """The severity that is set for a logger itself; UNSET where it takes its parent's."""
    return _levels.get(name, LoggingSeverity.UNSET)


def get_logger_effective_level(name: str) -> LoggingSeverity:
    """The severity from which a logger's messages are shown."""
    return RcutilsLogger(name).get_effective_level()


def get_logging_severity_from_string(name: str) -> LoggingSeverity:
    """The severity of a name such as `info`."""
    return LoggingSeverity.from_name(name)

"""Log severities: rclpy.logging.LoggingSeverity."""

from __future__ import annotations

from enum import IntEnum

from ropes_ros.standalone.errors import ArgumentsError


class LoggingSeverity(IntEnum):
    """Severities in rising order; UNSET takes the parent logger's."""

    UNSET = 0
    DEBUG = 10
    INFO = 20
    WARN = 30
    ERROR = 40
    FATAL = 50

    @classmethod
    def from_name(cls, name: str) -> LoggingSeverity:
        """The severity of a name such as `info`.

        Raises:
            ArgumentsError: the name is unknown.
        """
        try:
            return cls[{"WARNING": "WARN"}.get(name.upper(), name.upper())]
        except KeyError:
            known = ", ".join(severity.name.lower() for severity in cls)
            raise ArgumentsError(f"log level {name!r} is unknown; take one of {known}") from None

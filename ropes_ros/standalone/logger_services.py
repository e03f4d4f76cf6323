"""The services by which others read and set a node's log levels (enable_logger_service)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ropes_ros.standalone import log
from ropes_ros.standalone.messages import message_class, service_class
from ropes_ros.standalone.severity import LoggingSeverity

if TYPE_CHECKING:
    from ropes_ros.standalone.node import Node


class LoggerServices:
    """Offers get_logger_levels and set_logger_levels of a node."""

    def __init__(self, node: Node) -> None:
        for name, kind, callback in (
            ("get_logger_levels", "GetLoggerLevels", self._get),
            ("set_logger_levels", "SetLoggerLevels", self._set),
        ):
            node.create_service(service_class(f"rcl_interfaces/srv/{kind}"), f"~/{name}", callback)

    def _get(self, request: Any, response: Any) -> Any:
        level = message_class("rcl_interfaces/msg/LoggerLevel")
        response.levels = [level(name=name, level=int(log.get_logger_level(name))) for name in request.names]
        return response

    def _set(self, request: Any, response: Any) -> Any:
        result = message_class("rcl_interfaces/msg/SetLoggerLevelsResult")
        for wanted in request.levels:
            try:
                log.set_logger_level(wanted.name, LoggingSeverity(wanted.level))
                response.results.append(result(successful=True))
            except ValueError:
                known = ", ".join(f"{level.value} ({level.name})" for level in LoggingSeverity)
                reason = f"log level {wanted.level} is unknown; take one of {known}"
                response.results.append(result(successful=False, reason=reason))
        return response

"""Loggers: levels, filters, children, /rosout, and levels set from without."""

from __future__ import annotations

from typing import Any

import pytest
from conformance_support import Ros
from rcl_interfaces.msg import Log
from rclpy.logging import LoggingSeverity, get_logger, get_logger_effective_level, set_logger_level
from rclpy.qos import QoSDurabilityPolicy, QoSProfile

LATCHED = QoSProfile(depth=100, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
Captured = pytest.CaptureFixture[str]


def lines(capfd: Captured) -> list[str]:
    return "".join(capfd.readouterr()).splitlines()


def test_lines_have_severity_time_and_name(ros: Ros, capfd: Captured) -> None:
    logger = ros.node("me", namespace="/lab").get_logger()
    lines(capfd)
    for word in ("info", "warning", "error", "fatal"):
        assert getattr(logger, word)(f"this is {word}")
    written = lines(capfd)
    for line, level in zip(written, ("INFO", "WARN", "ERROR", "FATAL"), strict=True):
        assert line.startswith(f"[{level}] [") and f"[lab.me]: this is {level.lower()}" in line


def test_levels(ros: Ros, capfd: Captured) -> None:
    logger = ros.node("levels").get_logger()
    lines(capfd)
    assert not logger.debug("hidden") and logger.get_effective_level() == LoggingSeverity.INFO
    logger.set_level(LoggingSeverity.DEBUG)
    assert logger.debug("shown") and logger.is_enabled_for(LoggingSeverity.DEBUG)
    logger.set_level(LoggingSeverity.ERROR)
    assert not logger.warning("hidden") and logger.error("shown too")
    logger.set_level(LoggingSeverity.UNSET)
    assert logger.get_effective_level() == LoggingSeverity.INFO
    assert [line.rpartition(": ")[2] for line in lines(capfd)] == ["shown", "shown too"]


def test_children_follow_their_parent(ros: Ros) -> None:
    logger = ros.node("parent").get_logger()
    child = logger.get_child("part")
    assert child.name == "parent.part"
    logger.set_level(LoggingSeverity.ERROR)
    assert child.get_effective_level() == LoggingSeverity.ERROR
    child.set_level(LoggingSeverity.DEBUG)
    assert child.get_effective_level() == LoggingSeverity.DEBUG
    assert logger.get_effective_level() == LoggingSeverity.ERROR
    with pytest.raises(ValueError):
        logger.get_child("")
    for one in (logger, child):
        one.set_level(LoggingSeverity.UNSET)


def test_levels_by_name() -> None:
    set_logger_level("conformance.some", LoggingSeverity.WARN)
    assert get_logger_effective_level("conformance.some.part") == LoggingSeverity.WARN
    assert get_logger("conformance.some").is_enabled_for(LoggingSeverity.ERROR)
    set_logger_level("conformance.some", LoggingSeverity.UNSET)


def test_levels_from_the_command_line(ros: Ros) -> None:
    ros.init("--log-level", "talkative:=debug")
    assert ros.node("talkative").get_logger().is_enabled_for(LoggingSeverity.DEBUG)
    assert not ros.node("quiet").get_logger().is_enabled_for(LoggingSeverity.DEBUG)
    set_logger_level("talkative", LoggingSeverity.UNSET)


def test_filters_count_per_place(ros: Ros, capfd: Captured) -> None:
    logger = ros.node("filters").get_logger()
    lines(capfd)
    shown: list[list[bool]] = []
    for number in range(3):
        shown.append(
            [
                logger.info(f"once {number}", once=True),
                logger.info(f"not first {number}", skip_first=True),
                logger.info(f"throttled {number}", throttle_duration_sec=60.0),
                logger.info(f"plain {number}"),
            ]
        )
    assert shown == [[True, False, True, True], [False, True, False, True], [False, True, False, True]]
    assert len(lines(capfd)) == sum(map(sum, shown))


def test_throttling_ends(ros: Ros) -> None:
    node = ros.node()
    shown: list[bool] = []

    def say() -> bool:
        shown.append(node.get_logger().info("now and then", throttle_duration_sec=0.1))
        return shown.count(True) >= 2

    ros.spin(say, "the second line")
    assert shown[0] and shown[1:-1].count(True) == 0


def collect(ros: Ros, **options: Any) -> tuple[Any, list[Log]]:
    """A node and what it logs to /rosout."""
    node, listener = ros.node("speaker", **options), ros.node("listener")
    got: list[Log] = []

    def keep(record: Log) -> None:
        if record.name.startswith("speaker"):
            got.append(record)

    listener.create_subscription(Log, "/rosout", keep, LATCHED)
    return node, got


def test_rosout_carries_level_text_place_and_time(ros: Ros) -> None:
    node, got = collect(ros)
    node.get_logger().warning("hello")
    node.get_logger().debug("hidden")
    ros.spin(lambda: got, "the record")
    (record,) = got
    assert (int.from_bytes(record.level, "little") if isinstance(record.level, bytes) else record.level) == 30
    assert (record.name, record.msg) == ("speaker", "hello")
    assert record.file.endswith("test_logging.py") and record.line > 0
    assert record.function == "test_rosout_carries_level_text_place_and_time"
    now = node.get_clock().now().nanoseconds
    assert 0 <= now - (record.stamp.sec * 10**9 + record.stamp.nanosec) < 60 * 10**9


def test_children_reach_rosout_too(ros: Ros) -> None:
    node, got = collect(ros)
    child = node.get_logger().get_child("part")
    child.error("from below")
    ros.spin(lambda: got, "the record")
    assert (got[0].name, got[0].msg) == ("speaker.part", "from below")


def test_a_node_may_stay_off_rosout(ros: Ros, capfd: Captured) -> None:
    node, got = collect(ros, enable_rosout=False)
    node.get_logger().error("only here")
    ros.spin_for(0.1)
    assert not got and any("only here" in line for line in lines(capfd))


def test_levels_by_service(ros: Ros) -> None:
    srv = pytest.importorskip("rcl_interfaces.srv")
    if not hasattr(srv, "SetLoggerLevels"):
        pytest.skip("this distribution has none")
    from rcl_interfaces.msg import LoggerLevel

    node, caller = ros.node("served", enable_logger_service=True), ros.node("caller")
    wanted = [LoggerLevel(name="served", level=10), LoggerLevel(name="served", level=17)]
    request = srv.SetLoggerLevels.Request(levels=wanted)
    answer = ros.call(caller, srv.SetLoggerLevels, "served/set_logger_levels", request)
    assert [(result.successful, bool(result.reason)) for result in answer.results] == [(True, False), (False, True)]
    assert node.get_logger().is_enabled_for(LoggingSeverity.DEBUG)
    request = srv.GetLoggerLevels.Request(names=["served", "nobody"])
    answer = ros.call(caller, srv.GetLoggerLevels, "served/get_logger_levels", request)
    assert [(level.name, level.level) for level in answer.levels] == [("served", 10), ("nobody", 0)]
    node.get_logger().set_level(LoggingSeverity.UNSET)
    ros.spin(lambda: "/caller/get_parameters" in dict(caller.get_service_names_and_types()), "the graph")
    assert "/caller/get_logger_levels" not in dict(caller.get_service_names_and_types())

"""Regimes of a bag from elsewhere, as a person writes them down: a YAML file of time ranges, or of one bag a regime.

    times: since_start            # or epoch: seconds since 1970, as in the messages' stamps
    levels:                       # densities of u = (angle - home) / half_range; left out, they are estimated
      low: {type: bump, center: -0.5, sigma: 0.3}
      high: {type: bump, center: 0.5, sigma: 0.3}
    joints:
      shoulder:
        - {level: low, from: 0.0, to: 42.5}
        - {level: high, from: 45.0, to: 90.0}
    bags:                         # instead of joints: what each of several bags held from end to end
      monday_low: {shoulder: low}

`levels` may also name a set: `levels: {set: bumps, n: 8, sigma: 0.15}` or `levels: {set: tilts, t: 2.0}`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from ropes_ros.densities import Density, Levels, density_from_mapping
from ropes_ros.errors import RopesError, ScheduleError
from ropes_ros.units import NANOSECONDS
from ropes_ros.yaml_text import parse_yaml

MOST_LEVELS = 100
"""Levels in a set at most: beyond, neighbours tell nothing that the others do not."""
MOST_S = 9e9
"""Times in s lie within this of 0: nanoseconds must fit into 64 bits."""
_KEYS = ("times", "levels", "joints", "bags")
_SETS: Mapping[str, tuple[str, ...]] = {"bumps": ("n", "sigma", "floor"), "tilts": ("t", "floor")}


class Span(NamedTuple):
    """A joint, by its number, at a level from `start_ns` to `end_ns` (excluded), in ns of the images' stamps."""

    joint: int
    level: str
    start_ns: int
    end_ns: int


@dataclass(frozen=True)
class RegimeFile:
    """What such a file says.

    Attributes:
        ranges: Time ranges, in ns from the bag's start or since the epoch.
        since_start: Which of the two.
        densities: Density of each level; None where they are to be estimated.
        bags: Name of a bag to the level of each joint, by its number.
    """

    ranges: tuple[Span, ...] = ()
    since_start: bool = True
    densities: Levels | None = None
    bags: Mapping[str, Mapping[int, str]] = field(default_factory=dict)

    def spans(self, start_ns: int) -> tuple[Span, ...]:
        """The time ranges of a bag that starts at `start_ns` (since the epoch)."""
        origin = start_ns if self.since_start else 0
        return tuple(
            span._replace(start_ns=span.start_ns + origin, end_ns=span.end_ns + origin) for span in self.ranges
        )


def load_regime_file(path: Path, joint_names: Sequence[str]) -> RegimeFile:
    """Read a file of regimes.

    Args:
        path: The YAML file.
        joint_names: The robot's joints, in order.

    Raises:
        ScheduleError: It cannot be read, is malformed, or names unknown joints or levels; ranges of a joint overlap.
    """
    try:
        document = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, RopesError) as error:
        raise ScheduleError(f"{path}: cannot be read as YAML ({error}): name a file of regimes") from None
    try:
        return _read(document, list(joint_names))
    except ScheduleError as error:
        raise ScheduleError(f"{path}: {error}") from None


def _read(document: Any, joints: list[str]) -> RegimeFile:
    if not isinstance(document, dict) or not set(document) <= set(_KEYS):
        raise ScheduleError(f"regimes are a mapping with the keys {', '.join(_KEYS)}")
    if ("joints" in document) == ("bags" in document):
        raise ScheduleError("give either 'joints' with time ranges, or 'bags' with the levels that each bag held")
    times = document.get("times", "since_start")
    if times not in ("since_start", "epoch"):
        raise ScheduleError(f"times is {times!r}: write since_start or epoch")
    densities = _densities(document["levels"]) if "levels" in document else None
    ranges: list[Span] = []
    for name, rows in _mapping(document.get("joints", {}), "joints").items():
        joint = _joint(name, joints)
        if not isinstance(rows, list):
            raise ScheduleError(f"joint '{name}': needs a list of {{level, from, to}}")
        own = sorted((_range(row, joint, name, densities) for row in rows), key=lambda span: span.start_ns)
        for before, after in pairwise(own):
            if after.start_ns < before.end_ns:
                raise ScheduleError(f"joint '{name}': the range from {after.start_ns / NANOSECONDS} s overlaps another")
        ranges += own
    bags = {
        str(bag): {_joint(name, joints): _level(level, densities) for name, level in _mapping(held, bag).items()}
        for bag, held in _mapping(document.get("bags", {}), "bags").items()
    }
    if not ranges and not bags:
        raise ScheduleError("no regime is named")
    return RegimeFile(tuple(ranges), times == "since_start", densities, bags)


def _mapping(value: Any, where: object) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise ScheduleError(f"'{where}' must be a mapping, got {value!r}")
    return value


def _joint(name: Any, joints: list[str]) -> int:
    if name not in joints:
        raise ScheduleError(f"joint '{name}' is not one of the robot's: {', '.join(joints)}")
    return joints.index(name)


def _level(level: Any, densities: Levels | None) -> str:
    if densities is not None and level not in densities.ids:
        raise ScheduleError(f"level '{level}' has no density: known are {', '.join(densities.ids)}")
    return str(level)


def _range(row: Any, joint: int, name: Any, densities: Levels | None) -> Span:
    if not isinstance(row, dict) or set(row) != {"level", "from", "to"}:
        raise ScheduleError(f"joint '{name}': needs {{level, from, to}}, got {row!r}")
    start, end = row["from"], row["to"]
    if type(start) not in (int, float) or type(end) not in (int, float) or not -MOST_S < start < end < MOST_S:
        raise ScheduleError(f"joint '{name}': from and to must be ascending times in s, got {row!r}")
    level = _level(row["level"], densities)
    return Span(joint, level, round(start * NANOSECONDS), round(end * NANOSECONDS))


def _densities(entries: Any) -> Levels:
    entries = _mapping(entries, "levels")
    if "set" in entries:
        name, options = entries["set"], {key: value for key, value in entries.items() if key != "set"}
        if name not in _SETS or not set(options) <= set(_SETS[name]):
            known = "; ".join(f"{known} ({', '.join(keys)})" for known, keys in _SETS.items())
            raise ScheduleError(f"levels: set {name!r} with {', '.join(options) or 'nothing'}: known are {known}")
        if not all(type(value) in (int, float) for value in options.values()):
            raise ScheduleError(f"levels: the set's options must be numbers, got {options!r}")
        count = options.get("n", 2)
        if type(count) is not int or not 2 <= count <= MOST_LEVELS:
            raise ScheduleError(f"levels: n must be a whole number from 2 to {MOST_LEVELS}, got {count!r}")
        return Levels.bumps(**options) if name == "bumps" else Levels.tilts(**options)
    densities: dict[str, Density] = {}
    for level, entry in entries.items():
        try:
            densities[str(level)] = density_from_mapping(entry)
        except ScheduleError as error:
            raise ScheduleError(f"levels: '{level}': {error}") from None
    return Levels(densities)

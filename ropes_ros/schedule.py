"""Schedules: which joint holds which level when, the one source of truth that the commander and learning share.

A schedule is a list of segments per joint and all that is needed to command them and to know the densities that
result. It is stored as YAML, which holds everything and reads back equal; `ropes_ros.scheduling` draws schedules.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import yaml

from ropes_ros.densities import Density, Levels, density_from_mapping
from ropes_ros.errors import RopesError, ScheduleError
from ropes_ros.kinematics import Array, Sweep, turning_points
from ropes_ros.units import NANOSECONDS
from ropes_ros.yaml_text import parse_yaml

if TYPE_CHECKING:
    from ropes_ros.robot import Joint, Robot

SCHEMA = 1
GRID = np.linspace(-1.0, 1.0, 257)
_CELLS = np.concatenate([[-1.0], 0.5 * (GRID[1:] + GRID[:-1]), [1.0]])
"""Edges of the grid's cells."""

IMPORTED = "imported"
"""Design of a schedule that says what was commanded elsewhere: levels are each joint's own, nothing can be run."""
DESIGNS = ("factorial", "single_joint", "dwell")
LIMIT_SHARE = 0.8
"""Share of the joints' limits of speed, acceleration and jerk that motions use."""
SETTLE_NS = 100_000_000
MAX_SMOOTH_NS = 400_000_000

_FIELDS = ("joint", "level", "start_ns", "end_ns", "lo", "hi", "speed", "phase", "direction")
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")


@dataclass(frozen=True)
class JointMotion:
    """What a schedule assumes of a joint: angles in rad, limits in rad/s and rad/s^2, sweep speeds in half ranges/s."""

    name: str
    home: float
    half_range: float
    max_velocity: float
    max_acceleration: float
    min_speed: float
    max_speed: float

    def __post_init__(self) -> None:
        where = f"joint '{self.name}'"
        for key in ("half_range", "max_velocity", "max_acceleration", "min_speed"):
            if not getattr(self, key) > 0.0:
                raise ScheduleError(f"{where}: {key} must be above 0, got {getattr(self, key)}")
        if not self.min_speed <= self.max_speed <= self.speed_limit:
            raise ScheduleError(
                f"{where}: sweep speeds {self.min_speed} to {self.max_speed} half ranges/s must ascend and stay within"
                f" {self.speed_limit:.4f}, {LIMIT_SHARE:.0%} of the joint's limit"
            )
        if self.max_speed**2 / self.acceleration > 1.0:
            raise ScheduleError(
                f"{where}: at {self.max_speed} half ranges/s its turns take more than a half range at"
                f" {self.max_acceleration} rad/s^2: take lower speeds"
            )

    @property
    def speed_limit(self) -> float:
        """Largest speed of any motion in half ranges/s."""
        return LIMIT_SHARE * self.max_velocity / self.half_range

    @property
    def acceleration(self) -> float:
        """Acceleration of turns and transitions in half ranges/s^2."""
        return LIMIT_SHARE * self.max_acceleration / self.half_range


@dataclass(frozen=True)
class Segment:
    """A labelled window of one joint, [start_ns, end_ns) from the schedule's start, and its sweep.

    At start_ns the joint is a share `phase` (of the time) of its way between the turning points lo and hi (in u),
    moving in `direction` (+1 or -1) at `speed` half ranges/s. In a dwell design it rests at lo = hi, at speed 0.
    """

    joint: int
    level: str
    start_ns: int
    end_ns: int
    lo: float
    hi: float
    speed: float
    phase: float
    direction: int


@dataclass(frozen=True)
class Schedule:
    """A whole schedule; construction checks it.

    Raises:
        ScheduleError: Segments overlap, leave the schedule, name unknown joints or levels, or exceed limits.
    """

    robot: str
    seed: int
    design: str
    levels: Levels
    joints: tuple[JointMotion, ...]
    segments: tuple[Segment, ...]
    duration_ns: int
    settle_ns: int = SETTLE_NS
    smooth_ns: int = 0
    """Window, in ns, over which sweeps and the ways between them are averaged so that jerk is limited; 0 in schedules
    from before there was such a limit, whose sweeps that end at the box's ends all reach them."""
    joint_levels: tuple[Levels, ...] = ()
    """Of an imported schedule: each joint's own densities of the levels' ids; `levels` are the first joint's."""

    def __post_init__(self) -> None:
        if self.design not in (*DESIGNS, IMPORTED):
            raise ScheduleError(f"unknown design '{self.design}': known are {', '.join((*DESIGNS, IMPORTED))}")
        if self.design == IMPORTED and [own.ids for own in self.joint_levels] != [self.levels.ids] * len(self.joints):
            raise ScheduleError("an imported schedule needs densities of the same levels for every joint")
        if not (0 <= self.smooth_ns <= MAX_SMOOTH_NS and self.smooth_ns % 2 == 0):
            raise ScheduleError(f"smooth_ns must be even and within 0 and {MAX_SMOOTH_NS} ns, got {self.smooth_ns}")
        last = [0] * len(self.joints)
        for i, segment in enumerate(self.segments):
            self._check_segment(segment, f"segment {i}", last)

    def _check_segment(self, segment: Segment, where: str, last: list[int]) -> None:
        if not 0 <= segment.joint < len(self.joints):
            raise ScheduleError(f"{where}: joint number {segment.joint} is not one of {len(self.joints)} joints")
        joint = self.joints[segment.joint]
        where = f"{where} of joint '{joint.name}'"
        if segment.level not in self.levels.ids:
            raise ScheduleError(f"{where}: unknown level '{segment.level}': known are {', '.join(self.levels.ids)}")
        least = self.settle_ns + self.smooth_ns
        if not last[segment.joint] + least <= segment.start_ns < segment.end_ns <= self.duration_ns:
            raise ScheduleError(
                f"{where}: the window {segment.start_ns} to {segment.end_ns} ns must not be empty, must begin at least"
                f" {least} ns after the one before and end within the schedule of {self.duration_ns} ns"
            )
        last[segment.joint] = segment.end_ns
        if self.design == "dwell":
            if not (-1.0 <= segment.lo == segment.hi <= 1.0 and segment.speed == 0.0):
                raise ScheduleError(f"{where}: a dwell needs -1 <= lo = hi <= 1 and speed 0, got {segment}")
            return
        if not (-1.0 <= segment.lo < segment.hi <= 1.0 and 0.0 <= segment.phase <= 1.0 and abs(segment.direction) == 1):
            raise ScheduleError(f"{where}: needs -1 <= lo < hi <= 1, 0 <= phase <= 1, direction 1 or -1, got {segment}")
        if not 0.0 < segment.speed <= joint.speed_limit:
            raise ScheduleError(f"{where}: speed {segment.speed} is outside (0, {joint.speed_limit:.4f}] half ranges/s")
        turns = segment.speed**2 / joint.acceleration + segment.speed * self.smooth_ns / NANOSECONDS
        if segment.hi - segment.lo < turns:
            raise ScheduleError(
                f"{where}: the interval {segment.lo} to {segment.hi} is too narrow to turn at speed {segment.speed}"
            )

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names of the joints in the robot's order."""
        return tuple(joint.name for joint in self.joints)

    @property
    def grid(self) -> Array:
        """The u at which `commanded` is given, float64 [G] over [-1, 1]."""
        return GRID

    @cached_property
    def commanded(self) -> Array:
        """Densities really commanded, float64 [J, K, G], averaged over the grid's cells.

        They are the law of u at a labelled instant under the way segments are drawn: rounded turns dwell a little,
        narrow intervals are widened. A dwell design commands the levels' densities themselves. They follow from levels,
        limits and speeds alone; the trapezoidal rule over `grid` gives 1.
        """
        if self.design == IMPORTED:
            return np.stack([own.pdf(GRID) for own in self.joint_levels])
        table = np.empty((len(self.joints), len(self.levels), len(GRID)))
        if self.design == "dwell":
            table[:] = np.stack([np.diff(density.cdf(_CELLS)) for density in self.levels.densities]) / np.diff(_CELLS)
            return table
        strata = (np.arange(1024) + 0.5) / 1024
        slices = [density.slices(strata) for density in self.levels.densities]
        memo: dict[tuple[float, float, float], Array] = {}
        for j, joint in enumerate(self.joints):
            key = (joint.acceleration, joint.min_speed, joint.max_speed)
            if key not in memo:
                memo[key] = np.stack([_law(lo, hi, joint, self.smooth_ns) for lo, hi in slices])
            table[j] = memo[key]
        return table

    @cached_property
    def log_commanded(self) -> Array:
        """Logarithm of `commanded`, float64 [J, K, G]; finite unless the levels' uniform floor is minute."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.commanded))

    @cached_property
    def label_noise(self) -> float:
        """Standard deviation, in half ranges, of the position label that knowing a joint's level amounts to.

        As `Levels.label_noise`, but from the densities really commanded, the information averaged over joints.
        """
        density = self.commanded
        curve = np.sqrt(density / density.sum(axis=1, keepdims=True))
        information = 4.0 * (np.gradient(curve, GRID, axis=-1) ** 2).sum(axis=1)
        weights = density.sum(axis=1)
        weights[:, [0, -1]] *= 0.5
        return float(1.0 / np.sqrt(np.average(information, axis=1, weights=weights).mean()))

    @cached_property
    def labelled_fractions(self) -> Array:
        """Share of the time in which each joint is labelled, float64 [J]."""
        lengths = np.zeros(len(self.joints))
        for segment in self.segments:
            lengths[segment.joint] += segment.end_ns - segment.start_ns
        return lengths / self.duration_ns

    @cached_property
    def _tables(self) -> list[npt.NDArray[np.int64]]:
        """Per joint, the start, end, level index and id of its segments: int64 [4, S]."""
        index = {level: k for k, level in enumerate(self.levels.ids)}
        tables = []
        for j in range(len(self.joints)):
            rows = [(s.start_ns, s.end_ns, index[s.level], i) for i, s in enumerate(self.segments) if s.joint == j]
            tables.append(np.array(rows, dtype=np.int64).reshape(-1, 4).T)
        return tables

    def labels_at(self, t_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.int16]:
        """Level indices int16 [N, J] at times [N] in ns from the schedule's start; -1 where a joint has no label."""
        return self._lookup(t_ns, 2).astype(np.int16)

    def segment_ids_at(self, t_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """Segment ids int32 [N, J] (positions in `segments`) at times [N] in ns; -1 where a joint has no label."""
        return self._lookup(t_ns, 3).astype(np.int32)

    def _lookup(self, t_ns: npt.NDArray[np.int64], column: int) -> npt.NDArray[np.int64]:
        t_ns = np.asarray(t_ns, dtype=np.int64)
        found = np.full((len(t_ns), len(self.joints)), -1, dtype=np.int64)
        for j, table in enumerate(self._tables):
            i = np.searchsorted(table[0], t_ns, side="right") - 1
            inside = (i >= 0) & (t_ns < (table[1][i] if len(table[1]) else 0))
            found[inside, j] = table[column][i[inside]]
        return found

    @cached_property
    def hash(self) -> str:
        """SHA-256, in hexadecimal, of the canonical YAML."""
        return hashlib.sha256(self.to_yaml().encode()).hexdigest()

    def to_yaml(self) -> str:
        """The canonical YAML; `from_yaml` gives an equal schedule."""
        head: dict[str, Any] = {
            "schema": SCHEMA,
            "robot": self.robot,
            "seed": self.seed,
            "design": self.design,
            "duration_ns": self.duration_ns,
            "settle_ns": self.settle_ns,
        }
        if self.smooth_ns:
            head["smooth_ns"] = self.smooth_ns
        lines = ["# Interventions: angles in rad, times in ns from the start, u = (angle - home) / half_range."]
        lines.append(yaml.safe_dump(head, sort_keys=False).rstrip())
        lines.append("joints:  # speeds of the sweeps in half ranges/s")
        lines += [_flow({joint.name: {key: getattr(joint, key) for key in _JOINT_KEYS}}) for joint in self.joints]
        lines.append("levels:  # densities of u on [-1, 1]")
        for name, own in zip(self.joint_names, self.joint_levels, strict=True) if self.joint_levels else ():
            lines.append(_flow({name: {level: own[level].to_mapping() for level in own.ids}}))
        if not self.joint_levels:
            lines += [_flow({level: self.levels[level].to_mapping()}) for level in self.levels.ids]
        lines.append(f"segments:  # {', '.join(_FIELDS)}")
        names = [_scalar(name) for name in self.joint_names]
        levels = {level: _scalar(level) for level in self.levels.ids}
        lines += [
            f"- [{names[s.joint]}, {levels[s.level]}, {s.start_ns}, {s.end_ns}, {s.lo:.6f}, {s.hi:.6f}, {s.speed:.6f},"
            f" {s.phase:.6f}, {s.direction}]"
            for s in self.segments
        ]
        return "\n".join(lines) + "\n"

    def save(self, path: str | Path) -> None:
        """Write the canonical YAML to a file."""
        try:
            Path(path).write_text(self.to_yaml(), encoding="utf-8")
        except OSError as error:
            raise ScheduleError(f"schedule {path} cannot be written: {error.strerror}; name another path") from None

    @classmethod
    def load(cls, path: str | Path) -> Schedule:
        """Read a schedule from a YAML file; see `from_yaml`."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise ScheduleError(f"schedule {path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ScheduleError(f"schedule {path} is not UTF-8 text") from None
        return cls.from_yaml(text, str(path))

    @classmethod
    def from_yaml(cls, text: str, source: str = "schedule") -> Schedule:
        """Read a schedule from YAML.

        Args:
            text: The YAML.
            source: Where it comes from, for error messages.

        Raises:
            ScheduleError: The YAML is malformed, of another schema, or contradicts itself.
        """
        try:
            document = parse_yaml(text)
        except RopesError as error:
            raise ScheduleError(f"{source}: not YAML: {error}") from None
        try:
            return _read(document)
        except ScheduleError as error:
            raise ScheduleError(f"{source}: {error}") from None

    def check_robot(self, robot: Robot) -> None:
        """Refuse a robot other than the one that the schedule was made for.

        Raises:
            ScheduleError: Joints, ranges or limits differ.
        """
        if robot.name != self.robot or tuple(robot.joint_names) != self.joint_names:
            raise ScheduleError(
                f"the schedule is for robot '{self.robot}' with joints {', '.join(self.joint_names)}, not for"
                f" '{robot.name}' with {', '.join(robot.joint_names)}: make a schedule for this robot"
            )
        for theirs, ours in zip(robot.joints, self.joints, strict=True):
            for key in ("home", "half_range", "max_velocity", "max_acceleration"):
                if not math.isclose(getattr(theirs, key), getattr(ours, key), rel_tol=1e-9, abs_tol=1e-9):
                    raise ScheduleError(
                        f"joint '{ours.name}': {key} is {getattr(theirs, key)} in the robot preset '{robot.name}' but"
                        f" {getattr(ours, key)} in the schedule: make the schedule anew"
                    )


_JOINT_KEYS = tuple(name for name in JointMotion.__dataclass_fields__ if name != "name")


def smoothing_ns(robot: Robot) -> int:
    """Window, in ns, over which motions of a robot are averaged so that no joint exceeds its share of its jerk limit.

    Raises:
        ScheduleError: A jerk limit is too low for motions of this kind.
    """
    window = float((2.0 * robot.max_acceleration / robot.max_jerk).max())
    if window * NANOSECONDS > MAX_SMOOTH_NS:
        raise ScheduleError(
            f"robot '{robot.name}': a joint's max_jerk takes {0.5 * window:.2f} s to build up its max_acceleration; at"
            f" most {0.5 * MAX_SMOOTH_NS / NANOSECONDS} s are possible: lower max_acceleration in the preset"
        )
    return 2 * math.ceil(0.5 * window * NANOSECONDS)


def top_speed(joint: JointMotion | Joint, length: float, smooth_ns: int) -> float:
    """Largest speed in half ranges/s at which a turn, averaged over a window, takes up at most `length` half ranges.

    A turn from full speed to full speed covers speed^2 / acceleration, and the speed times the window.
    """
    acceleration, window = LIMIT_SHARE * joint.max_acceleration / joint.half_range, smooth_ns / NANOSECONDS
    return 0.5 * acceleration * (math.sqrt(window**2 + 4.0 * length / acceleration) - window)


def _law(lo: Array, hi: Array, joint: JointMotion, smooth_ns: int) -> Array:
    """Density [G] of u in the sweeps of equally likely slices [S] at evenly spread speeds and insets."""
    n = len(lo)
    spread = np.mod((np.arange(n) + 0.5) * 0.6180339887498949, 1.0)
    speed = joint.min_speed + (joint.max_speed - joint.min_speed) * spread
    window = smooth_ns / NANOSECONDS
    inset = np.mod((np.arange(n) + 0.5) * 0.7548776662466927, 1.0) ** 2 if smooth_ns else 0.0
    low, high = turning_points(lo, hi, speed, np.float64(joint.acceleration), window, inset)
    low, high, speed, zero = (x[:, None] for x in (low, high, speed, np.zeros(n)))
    sweep = Sweep(low, high, speed, zero, zero, np.float64(joint.acceleration))
    below = sweep.averaged_occupancy(_CELLS, window) if smooth_ns else sweep.occupancy(_CELLS)
    return np.asarray(np.diff(below.mean(0)) / np.diff(_CELLS))


def _scalar(text: str) -> str:
    """A string as a YAML flow scalar, quoted where it would read as something else."""
    plain = _PLAIN.fullmatch(text) and yaml.safe_load(text) == text
    return text if plain else json.dumps(text)


def _flow(entry: dict[str, Any]) -> str:
    """One mapping entry as one line of YAML, indented."""
    line = yaml.safe_dump(entry, sort_keys=False, default_flow_style=True, width=math.inf).strip()
    return f"  {line[1:-1]}"


# --- reading -----------------------------------------------------------------------------------------------------


def _value(mapping: Mapping[str, Any], key: str, kind: type | tuple[type, ...], where: str = "") -> Any:
    if key not in mapping:
        raise ScheduleError(f"{where}key '{key}' is missing")
    value = mapping[key]
    if not isinstance(value, kind) or (isinstance(value, bool)):
        names = "/".join(t.__name__ for t in (kind if isinstance(kind, tuple) else (kind,)))
        raise ScheduleError(f"{where}key '{key}' must be {names}, got {value!r}")
    return value


def _read(document: object) -> Schedule:
    if not isinstance(document, dict):
        raise ScheduleError("a schedule is a mapping with the keys schema, robot, joints, levels, segments")
    schema = _value(document, "schema", int)
    if schema != SCHEMA:
        raise ScheduleError(f"key 'schema' is {schema}, this version reads {SCHEMA}: make the schedule anew")
    known = (
        *("schema", "robot", "seed", "design", "duration_ns", "settle_ns", "smooth_ns"),
        *("joints", "levels", "segments"),
    )
    for key in document:
        if key not in known:
            raise ScheduleError(f"unknown key '{key}': known are {', '.join(known)}")
    joints = []
    for name, entry in _value(document, "joints", dict).items():
        where = f"joints: '{name}': "
        if not isinstance(entry, dict) or set(entry) != set(_JOINT_KEYS) or not isinstance(name, str):
            raise ScheduleError(f"{where}needs exactly the keys {', '.join(_JOINT_KEYS)}")
        joints.append(JointMotion(name, **{key: float(_value(entry, key, (int, float), where)) for key in _JOINT_KEYS}))
    entries = _value(document, "levels", dict)
    joint_levels: tuple[Levels, ...] = ()
    if document.get("design") == IMPORTED:
        if not joints or set(entries) != {joint.name for joint in joints}:
            raise ScheduleError("levels: an imported schedule gives them for each of its joints")
        joint_levels = tuple(_read_levels(entries[joint.name], f"levels: '{joint.name}': ") for joint in joints)
    levels = joint_levels[0] if joint_levels else _read_levels(entries, "levels: ")
    index = {joint.name: j for j, joint in enumerate(joints)}
    segments = [_read_segment(row, i, index) for i, row in enumerate(_value(document, "segments", list))]
    return Schedule(
        robot=_value(document, "robot", str),
        seed=_value(document, "seed", int),
        design=_value(document, "design", str),
        levels=levels,
        joints=tuple(joints),
        segments=tuple(segments),
        duration_ns=_value(document, "duration_ns", int),
        settle_ns=_value(document, "settle_ns", int),
        smooth_ns=_value({"smooth_ns": 0, **document}, "smooth_ns", int),
        joint_levels=joint_levels,
    )


def _read_levels(entries: object, where: str) -> Levels:
    densities: dict[str, Density] = {}
    for level, entry in entries.items() if isinstance(entries, dict) else ():
        try:
            densities[str(level)] = density_from_mapping(entry)
        except ScheduleError as error:
            raise ScheduleError(f"{where}'{level}': {error}") from None
    return Levels(densities)


def _read_segment(row: object, number: int, joints: Mapping[str, int]) -> Segment:
    where = f"segments: entry {number}: "
    if not isinstance(row, list) or len(row) != len(_FIELDS):
        raise ScheduleError(f"{where}needs [{', '.join(_FIELDS)}], got {row!r}")
    joint, level, start_ns, end_ns, lo, hi, speed, phase, direction = row
    if not isinstance(joint, str) or joint not in joints:
        raise ScheduleError(f"{where}unknown joint '{joint}': known are {', '.join(joints)}")
    if type(start_ns) is not int or type(end_ns) is not int or type(direction) is not int:
        raise ScheduleError(f"{where}start_ns, end_ns and direction must be integers, got {row!r}")
    for value in (lo, hi, speed, phase):
        if type(value) is not float and type(value) is not int:
            raise ScheduleError(f"{where}lo, hi, speed and phase must be numbers, got {row!r}")
    return Segment(
        joints[joint], str(level), start_ns, end_ns, float(lo), float(hi), float(speed), float(phase), direction
    )

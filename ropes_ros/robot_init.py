"""A first preset for any robot, from its URDF or MJCF and, where there is one, its SRDF."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import pinocchio
import yaml

from ropes_ros.collision import Shapes, box_samples
from ropes_ros.errors import RobotError
from ropes_ros.model_files import expand_xacro, in_package, parse_description
from ropes_ros.placement import place_camera
from ropes_ros.robot import Robot, load_robot, read_model

HOME_STATES = ("home", "ready", "default")
"""SRDF group states that are taken for home, the first that there is."""
TIP_NAMES = ("tool0", "tcp", "ee_link", "ee", "tool_link", "tool", "gripper_frame_link", "flange", "attachment_site")
"""Links that are taken for the tip, the first that there is: of this name, or with it as the last part of theirs."""
HALF_RANGE = 0.7
"""Half range in rad that is tried first, where the limits allow it."""
SHARE_OF_LIMITS = 0.4
"""Share of the way between the limits that the half range is at most."""
LEAST_HALF_RANGE = 1e-3
"""Half range in rad or m below which a joint is not commanded."""
FAR_M = 20.0
"""A way from base to tip above which lengths are taken to be in another unit."""
ACCELERATION_PER_SPEED = 2.0
"""1/s: what the acceleration is guessed from; half a second from rest to full speed."""
MOST_ACCELERATION = 5.0
NO_SPEED = {False: 1.0, True: 0.1}
"""Speed in rad/s, or m/s of a prismatic joint, where the description gives none."""
_SHRINK, _TRIES = 0.8, 10
_HOMES, _HOME_SAMPLES = 100, 150
_MUST_NOT_COLLIDE = ("Never",)  # reasons of an SRDF that are no reason to look away


@dataclass
class Sources:
    """Where a robot's description comes from.

    Attributes:
        urdf: The file: URDF, MJCF (`.xml`) or xacro.
        entry: The preset's key `urdf`, or None for a path relative to the preset.
        srdf: The SRDF, if any.
        packages: Folders for `package://NAME/`, by name.
        arguments: Values of a xacro file's arguments.
    """

    urdf: Path
    entry: Mapping[str, str] | None = None
    srdf: Path | None = None
    packages: Mapping[str, Path] = field(default_factory=dict)
    arguments: Mapping[str, str] = field(default_factory=dict)


class Drafted(NamedTuple):
    """A preset that was written: its file, the robot, and what its owner should know."""

    path: Path
    robot: Robot
    notes: tuple[str, ...]


class _Semantics(NamedTuple):
    """What an SRDF says: joint positions of the home state, links at the tip, pairs of links that may touch."""

    state: str = ""
    home: Mapping[str, float] = {}
    tips: tuple[str, ...] = ()
    ignored: tuple[tuple[str, str], ...] = ()


def source_of(text: str) -> tuple[Path, Mapping[str, str] | None]:
    """The file that `URDF` on the command line names, and its preset's entry: a path, or PACKAGE:PATH.

    Raises:
        RobotError: There is no such file or package.
    """
    package, colon, inside = text.partition(":")
    if colon and not Path(text).exists() and os.sep not in package:
        return in_package(package, inside, f"'{text}'"), {"package": package, "path": inside}
    path = Path(text)
    if not path.is_file():
        raise RobotError(f"{path} does not exist: give a URDF, MJCF or xacro file, or PACKAGE:PATH of an installed one")
    return path.resolve(), None


def init_robot(
    sources: Sources,
    out: Path,
    *,
    base: str | None = None,
    tip: str | None = None,
    joints: Sequence[str] | None = None,
) -> Drafted:
    """Write `robot.yaml` into a folder.

    Home is the SRDF's state `home`, `ready` or `default`, otherwise the middle of the limits, or a pose near it where
    the box hits something there. The half ranges are 0.7
    rad where the limits allow it, and are made smaller together until the box, as far as samples tell, is free of
    collisions with the robot itself and the floor. Mimic joints and joints off the way from base to tip are left out,
    and so stay at zero.

    Args:
        sources: The robot's files; a xacro file is expanded into the folder.
        out: The folder, made where it is missing.
        base: The base link; `base_link` or the root by default.
        tip: The tip link; by default the SRDF's end effector, a link with a usual name, or the last one.
        joints: The joints that are commanded, in order; by default all between base and tip.

    Raises:
        RobotError: A file is missing or malformed, there is a preset already, or the robot has no joint to command.
    """
    path = out / "robot.yaml"
    if path.exists():
        raise RobotError(f"{path} is there already: remove it or name another folder with --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RobotError(f"{out} cannot be made: {error.strerror}: name another folder with --out") from None
    urdf = _expanded(sources, out) if ".xacro" in sources.urdf.suffixes else sources.urdf
    entry: Any = sources.entry or os.path.relpath(urdf, out.resolve())
    draft = _Draft(urdf, entry, path, sources, base, tip, joints)
    path.write_text(draft.text(), encoding="utf-8")
    return Drafted(path, load_robot(path), tuple(draft.notes))


def _expanded(sources: Sources, out: Path) -> Path:
    """Expand a xacro file beside the preset; mesh names relative to it become absolute."""
    root = ElementTree.fromstring(expand_xacro(sources.urdf, sources.arguments))
    for mesh in root.iter("mesh"):
        name = mesh.get("filename", "")
        if name and "://" not in name:
            mesh.set("filename", str((sources.urdf.parent / name).resolve()))
    path = out / f"{sources.urdf.name.split('.')[0]}.urdf"
    path.write_text(ElementTree.tostring(root, encoding="unicode") + "\n", encoding="utf-8")
    return path.resolve()


class _Draft:
    """The preset in the making."""

    def __init__(
        self,
        urdf: Path,
        entry: Any,
        path: Path,
        sources: Sources,
        base: str | None,
        tip: str | None,
        joints: Sequence[str] | None,
    ) -> None:
        self.notes: list[str] = []
        self._path, self._urdf, self._entry, self._packages = path, urdf, entry, sources.packages
        self._root = parse_description(urdf)
        self._model = read_model(urdf)
        self._semantics = _read_srdf(sources.srdf) if sources.srdf else _Semantics()
        frames = [frame for frame in self._model.frames if frame.type == pinocchio.FrameType.BODY]
        self._links: dict[str, int] = {str(frame.name): int(frame.parentJoint) for frame in frames}
        self._mimics = {
            str(joint.get("name")) for joint in self._root.iterfind("joint") if joint.find("mimic") is not None
        }
        state = self._semantics.state
        self._home_from = f"state '{state}' of the SRDF" if state else "the middle of the limits"
        self._base = self._check_link(base) if base else self._find_base()
        self._tip = self._check_link(tip) if tip else self._find_tip()
        self._joints = self._find_joints(joints)
        self._joint_entries = {name: self._describe(name) for name in self._joints}
        self._ignored: tuple[tuple[str, str], ...] = tuple(
            pair for pair in self._semantics.ignored if set(pair) <= set(self._links)
        )
        self._shrink()
        self._check_size()

    def _check_size(self) -> None:
        """Note lengths that are hardly in metres."""
        robot = Robot(self._preset(), self._path)
        reach = float(np.linalg.norm(robot.fk(robot.home)[0]))
        if reach > FAR_M:
            self.notes.append(f"the tip is {reach:.0f} m from the base: are the description's lengths in millimetres?")

    def _check_link(self, link: str) -> str:
        if link not in self._links:
            raise RobotError(f"{self._urdf} has no link '{link}': it has {', '.join(self._links)}")
        return link

    def _find_base(self) -> str:
        fixed = [link for link, joint in self._links.items() if joint == 0]
        if not fixed:
            raise RobotError(f"{self._urdf} has no link that stays in place: name one with --base")
        return next((link for link in ("base_link", *fixed) if link in fixed and link != "world"), fixed[0])

    def _find_tip(self) -> str:
        moved = [link for link, joint in self._links.items() if joint]
        if not moved:
            raise RobotError(f"{self._urdf} has no link that a joint moves")
        for tip in (*self._semantics.tips, *TIP_NAMES):
            for link in moved:
                if link == tip or (tip in TIP_NAMES and link.endswith((f"_{tip}", f"-{tip}"))):
                    return link
        deepest = max(moved, key=lambda link: (len(self._above(link)), moved.index(link)))
        self.notes.append(f"tip_link is '{deepest}', the link with the most joints above it: see whether it is the tip")
        return deepest

    def _above(self, link: str) -> list[str]:
        """Joints between the root and a link."""
        joints, number = [], self._links[link]
        while number:
            joints.append(self._model.names[number])
            number = self._model.parents[number]
        return joints[::-1]

    def _find_joints(self, wanted: Sequence[str] | None) -> list[str]:
        movable = list(self._model.names)[1:]
        if wanted:
            for name in wanted:
                if name not in movable:
                    raise RobotError(f"{self._urdf} has no joint '{name}' that moves: there are {', '.join(movable)}")
                if name in self._mimics:
                    raise RobotError(f"{self._urdf}: joint '{name}' follows another one (mimic): it takes no commands")
            chosen = list(wanted)
            if len(set(chosen)) < len(chosen):
                raise RobotError(f"--joints {','.join(chosen)}: name each joint once")
        else:
            chosen = [name for name in self._above(self._tip) if name not in self._mimics]
            chosen = [name for name in chosen if self._model.joints[self._model.getJointId(name)].nv == 1]
        if not chosen:
            raise RobotError(f"{self._urdf}: no joint moves '{self._tip}': name another --tip, or --joints")
        left_out = [name for name in movable if name not in chosen]
        if left_out:
            kinds = [f"{name} (mimic)" if name in self._mimics else name for name in left_out]
            self.notes.append(f"left out, and kept at zero in all computations: {', '.join(kinds)}")
        return chosen

    def _describe(self, name: str) -> dict[str, Any]:
        """A joint's entry: numbers of the preset, and its limits for a comment."""
        axis = self._model.joints[self._model.getJointId(name)]
        prismatic, continuous = axis.shortname().startswith("JointModelP"), axis.nq == 2
        speed = float(self._model.upperVelocityLimit[axis.idx_v])
        has_speed = math.isfinite(speed) and 0.0 < speed < 1e3
        if not has_speed:
            speed = NO_SPEED[prismatic]
            self.notes.append(f"joint '{name}' has no speed limit: max_velocity {speed} is a guess")
        home = self._semantics.home.get(name)
        if continuous:
            home = 0.0 if home is None else home
            lower, upper = home - math.pi, home + math.pi
        else:
            lower = float(self._model.lowerPositionLimit[axis.idx_q])
            upper = float(self._model.upperPositionLimit[axis.idx_q])
            if not (math.isfinite(lower) and math.isfinite(upper) and lower < upper and upper - lower < 1e3):
                raise RobotError(f"{self._urdf}: joint '{name}' has no limits: give it <limit lower upper>")
            if SHARE_OF_LIMITS * (upper - lower) < LEAST_HALF_RANGE:
                raise RobotError(
                    f"{self._urdf}: joint '{name}' has limits {upper - lower:.3g} apart, too little to move: give"
                    " others, or leave it out (--joints)"
                )
            home = 0.5 * (lower + upper) if home is None else min(max(home, lower), upper)
        half = SHARE_OF_LIMITS * (upper - lower)
        if not prismatic:
            half = min(half, HALF_RANGE)
        half = min(half, home - lower, upper - home)
        if half <= 0.01 * (upper - lower):  # home is at a limit
            half = 0.5 * min(SHARE_OF_LIMITS * (upper - lower), HALF_RANGE)
            home = lower + half if home - lower < upper - home else upper - half
            self.notes.append(f"joint '{name}': home was moved off its limit")
        return {
            "home": home,
            "half_range": half,
            "speed": speed,
            "has_speed": has_speed,
            "acceleration": min(ACCELERATION_PER_SPEED * speed, MOST_ACCELERATION),
            "limits": (lower, upper),
            "unit": "m" if prismatic else "rad",
            "continuous": continuous,
        }

    def _preset(self) -> dict[str, Any]:
        preset: dict[str, Any] = {
            "name": re.sub(r"\W+", "_", self._root.get("name") or self._root.get("model") or self._urdf.stem),
            "urdf": self._entry,
            "base_link": self._base,
            "tip_link": self._tip,
            "joints": {name: self._joint_entry(entry) for name, entry in self._joint_entries.items()},
        }
        if self._packages:
            preset["packages"] = {name: str(folder.resolve()) for name, folder in self._packages.items()}
        if self._ignored:
            preset["collision"] = {"ignore": [list(pair) for pair in self._ignored]}
        return preset

    def _joint_entry(self, entry: Mapping[str, Any]) -> dict[str, float]:
        half = math.floor(1e4 * entry["half_range"]) / 1e4
        lower, upper = entry["limits"]
        home = round(entry["home"], 4)
        if not entry["continuous"]:
            home = min(max(home, lower + half), upper - half)
        numbers = {"home": home, "half_range": half}
        if not entry["has_speed"]:
            numbers["max_velocity"] = entry["speed"]
        return {**numbers, "max_acceleration": round(entry["acceleration"], 3)}

    def _shrink(self) -> None:
        """Make all half ranges smaller until nothing is hit; note pairs of links that always touch."""
        first, searched = True, False
        for _ in range(_TRIES):
            robot = Robot(self._preset(), self._path)
            q, _ = box_samples(robot)
            shapes = Shapes(robot)
            if first:
                if not shapes.clouds:
                    self.notes.append("the description has no shapes of links that move: collisions cannot be checked")
                    return
                always = shapes.always_touching(q)
                self._ignored += always
                for pair in always:
                    self.notes.append(f"links '{pair[0]}' and '{pair[1]}' always touch: collision.ignore names them")
                first = False
                if always:
                    continue
            if not shapes.findings(q):
                return
            if not (searched or self._semantics.state):
                searched = True
                if self._find_home():
                    continue
            home = shapes.findings(robot.home[None])
            if home:
                self.notes.append(f"home itself hits something, move it: {home[0]}")
                return
            for entry in self._joint_entries.values():
                entry["half_range"] *= _SHRINK
        self.notes.append("even with small half ranges something is hit: see ropes robot check, and move home")

    def _find_home(self) -> bool:
        """Look for a home about which the box hits nothing, near the middle of the limits, in steps of 45 degrees."""
        rng = np.random.default_rng(0)
        middle = {name: entry["home"] for name, entry in self._joint_entries.items()}
        steps = rng.integers(-2, 3, (_HOMES, len(middle)))
        for step in steps[np.argsort(np.abs(steps).sum(axis=1))]:
            for (name, entry), times in zip(self._joint_entries.items(), step.tolist(), strict=True):
                lower, upper = entry["limits"]
                size = min(math.pi / 4, (upper - lower) / 8) if entry["unit"] == "rad" else (upper - lower) / 8
                home = middle[name] + times * size
                entry["home"] = min(max(home, lower + entry["half_range"]), upper - entry["half_range"])
            robot = Robot(self._preset(), self._path)
            q, _ = box_samples(robot)
            if not Shapes(robot).findings(q[:: len(q) // _HOME_SAMPLES]):
                self._home_from = "a pose about which nothing is hit, near the middle of the limits"
                return True
        for name, entry in self._joint_entries.items():
            entry["home"] = middle[name]
        return False

    def text(self) -> str:
        """The preset as YAML with comments."""
        preset = self._preset()
        robot = Robot(preset, self._path)
        quote = _scalar
        lines = [
            f"# Preset of {preset['name']}, drafted by `ropes robot init`. Angles in radians, lengths in metres.",
            "# Look at every line, then run `ropes robot check` on this file.",
            f"name: {quote(preset['name'])}",
            f"urdf: {_flow(preset['urdf']) if isinstance(preset['urdf'], Mapping) else quote(preset['urdf'])}",
        ]
        if "packages" in preset:
            lines.append(f"packages: {_flow(preset['packages'])}")
        lines += [
            f"base_link: {quote(self._base)}",
            f"tip_link: {quote(self._tip)}",
            "",
            "# Every joint is commanded within home +- half_range, all at once. home is",
            f"# {self._home_from}.",
            "# max_acceleration is a guess: no URDF holds it. Look it up in the robot's manual.",
        ]
        left_out = [note for note in self.notes if note.startswith("left out")]
        lines += [f"# {note[0].upper()}{note[1:]}." for note in left_out]
        lines.append("joints:")
        for name, entry in self._joint_entries.items():
            lower, upper = entry["limits"]
            unit = entry["unit"]
            limits = "continuous" if entry["continuous"] else f"{lower:.4g} to {upper:.4g} {unit}"
            speed = f"{entry['speed']:.4g} {unit}/s"
            if not entry["has_speed"]:
                speed = f"no speed limit: {speed} guessed"
            lines.append(f"  {quote(name)}: {_flow(preset['joints'][name])}  # {limits}, {speed}")
        if "collision" in preset:
            lines += ["", "# Links that may touch: their shapes overlap by design, or the SRDF says so.", "collision:"]
            lines += ["  ignore:", *(f"  - {_flow(pair)}" for pair in preset["collision"]["ignore"])]
        camera = place_camera(robot)
        lines += [
            "",
            "# The built-in simulator: a camera that sees all of the box. Its controllers' gains follow from inertia.",
            "sim:",
            f"  camera: {_flow({**camera, 'fovy': camera['fovy'][0]})}",
        ]
        return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10_000).strip()


def _scalar(value: str) -> str:
    return yaml.safe_dump(value, allow_unicode=True, width=10_000).removesuffix("...\n").strip()


def _read_srdf(path: Path) -> _Semantics:
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise RobotError(f"SRDF {path} cannot be read: {error}") from None
    states: dict[str, dict[str, float]] = {}
    for group in root.iterfind("group_state"):
        positions = states.setdefault(str(group.get("name")), {})
        for joint in group.iterfind("joint"):
            try:
                positions[str(joint.get("name"))] = float(str(joint.get("value")).split()[0])
            except (ValueError, IndexError):
                raise RobotError(f"SRDF {path}: {joint.get('value')!r} is no position of {joint.get('name')}") from None
    state = next((name for name in HOME_STATES if name in states), "")
    tips = [str(end.get("parent_link")) for end in root.iterfind("end_effector")]
    tips += [str(chain.get("tip_link")) for chain in root.iterfind("group/chain")]
    ignored = tuple(
        (str(pair.get("link1")), str(pair.get("link2")))
        for pair in root.iterfind("disable_collisions")
        if pair.get("reason") not in (*_MUST_NOT_COLLIDE, "Adjacent")
    )
    return _Semantics(state, states.get(state, {}), tuple(tips), ignored)


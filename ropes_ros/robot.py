"""Robots: presets (YAML + URDF), the intervention box, forward kinematics and Jacobians.

A preset names a URDF, the base and tip links, and for every joint that is commanded its home and half range.
The intervention box is home +- half_range per joint; `normalise` maps it to [-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pinocchio

from ropes_ros.errors import RobotError, RopesError
from ropes_ros.model_files import locate, packages_of, parse_description
from ropes_ros.paths import share_dir
from ropes_ros.yaml_text import parse_yaml

Array = npt.NDArray[np.float64]

_KEYS = {"name", "urdf", "base_link", "tip_link", "joints", "packages", "collision", "sim"}
_OPTIONAL = {"packages", "collision", "sim"}
_JOINT_KEYS = {"home", "half_range", "max_velocity", "max_acceleration", "max_jerk"}
_JERK_PER_ACCELERATION = 50.0
"""Jerk limit, in 1/s of the acceleration limit, of joints whose preset gives none: the full acceleration in 20 ms."""


@dataclass(frozen=True)
class Joint:
    """One commanded joint; angles in rad, max_velocity in rad/s, max_acceleration in rad/s^2, max_jerk in rad/s^3.

    Of a prismatic joint all of these are in m instead of rad. A continuous joint turns without end; its angles count
    from `lower` = home - pi to `upper` = home + pi.
    """

    name: str
    lower: float
    upper: float
    max_velocity: float
    max_acceleration: float
    max_jerk: float
    home: float
    half_range: float
    continuous: bool = False
    prismatic: bool = False

    @property
    def unit(self) -> str:
        """Unit of its positions."""
        return "m" if self.prismatic else "rad"

    @property
    def figures(self) -> tuple[str, float]:
        """Unit of its positions in what people read, mm or degrees, and the factor from `unit`."""
        return ("mm", 1000.0) if self.prismatic else ("°", 180.0 / math.pi)


class Chain(NamedTuple):
    """Geometry of J joints, in the preset's order.

    Attributes:
        parents: Index of each joint's parent joint, -1 for the base.
        placements: float64 [J, 4, 4], frame of each joint at q = 0 in that of its parent (the base link's for none).
        twists: float64 [J, 6], motion of a joint in its own frame for each unit of q: linear in m, angular in rad.
        tip_parent: Index of the joint that carries the tip link.
        tip: float64 [4, 4], frame of the tip link in that joint's.
    """

    parents: tuple[int, ...]
    placements: Array
    twists: Array
    tip_parent: int
    tip: Array


class Robot:
    """A robot: its joints in the preset's order, the intervention box, and its kinematics.

    Joints that the preset does not name, mimic joints among them, stay at their neutral position. Joints may be
    revolute, prismatic (in m wherever others are in rad) or continuous (their limits are half a turn to both sides of
    home). The description may also be MuJoCo's (MJCF); its bodies are then the links.

    Args:
        preset: The preset, a whole robot.yaml as a mapping.
        source: The preset's file; paths in it are relative to this file's folder.

    Raises:
        RobotError: The preset or its URDF is malformed, or they contradict each other.
    """

    def __init__(self, preset: Mapping[str, Any], source: Path) -> None:
        self._source = source
        _check_keys(preset, _KEYS, _KEYS - _OPTIONAL, source, "")
        self.preset = preset
        self.name = str(preset["name"])
        self.base_link = str(preset["base_link"])
        self.tip_link = str(preset["tip_link"])
        self.urdf_path = locate(preset["urdf"], source)
        self.packages = packages_of(preset, source)
        self._model = self._load_model()
        # By name, once: each frame that Pinocchio hands over is converted on the way.
        self._frame_ids = {
            frame.name: number
            for number, frame in enumerate(self._model.frames)
            if frame.type == pinocchio.FrameType.BODY
        }
        self.joints = self._read_joints()
        self.joint_names = tuple(joint.name for joint in self.joints)
        self.home = np.array([joint.home for joint in self.joints])
        self.half_range = np.array([joint.half_range for joint in self.joints])
        self.lower = np.array([joint.lower for joint in self.joints])
        self.upper = np.array([joint.upper for joint in self.joints])
        self.continuous = np.array([joint.continuous for joint in self.joints], dtype=np.bool_)
        self.max_velocity = np.array([joint.max_velocity for joint in self.joints])
        self.max_acceleration = np.array([joint.max_acceleration for joint in self.joints])
        self.max_jerk = np.array([joint.max_jerk for joint in self.joints])
        # Indices of the preset's joints in the model's configuration and velocity vectors.
        ids = [self._model.getJointId(name) for name in self.joint_names]
        self._q_index = np.array([self._model.joints[i].idx_q for i in ids])
        self._v_index = np.array([self._model.joints[i].idx_v for i in ids])
        self._check_axes()
        base = self._model.frames[self._frame_id(self.base_link)]
        if base.parentJoint != 0:
            raise RobotError(
                f"{source}: base_link '{self.base_link}' is moved by a joint of the preset: take a fixed link"
            )
        self._base = base.placement
        self._frame_id(self.tip_link)

    def _check_axes(self) -> None:
        rest = pinocchio.neutral(self._model)
        jacobians = pinocchio.computeJointJacobians(self._model, self._model.createData(), rest)
        ways = np.linalg.norm(np.reshape(jacobians, (6, -1)), axis=0)  # of one joint they come as a vector
        for name, way in zip(self.joint_names, ways[self._v_index], strict=True):
            if not way > 0.5:  # an axis has length 1
                raise RobotError(f"{self.urdf_path}: the axis of joint '{name}' is zero: give it <axis xyz>")

    def __repr__(self) -> str:
        return f"Robot({self.name!r}, joints={self.joint_names})"

    @property
    def links(self) -> tuple[str, ...]:
        """Names of all links, as in the URDF."""
        return tuple(self._frame_ids)

    @property
    def link_parents(self) -> tuple[int, ...]:
        """For each of `links`, the index of the link that a joint, fixed or not, ties it to; -1 for the root."""
        index = {link: number for number, link in enumerate(self.links)}
        return tuple(index.get(self._parents.get(link, ""), -1) for link in self.links)

    def link_positions(self, q: npt.ArrayLike) -> Array:
        """Origins of all `links` in the base link's frame, (L, 3) in m, at one configuration (J,) in rad.

        Raises:
            RobotError: q is not (J,).
        """
        data = self._model.createData()
        (configuration,) = self.configurations(self._per_joint(q).reshape(1, -1))
        pinocchio.framesForwardKinematics(self._model, data, configuration)
        base = self._base.inverse()
        return np.stack(
            [
                (base * place).translation
                for place, frame in zip(data.oMf, self._model.frames, strict=True)
                if frame.type == pinocchio.FrameType.BODY
            ]
        )

    def normalise(self, q: npt.ArrayLike) -> Array:
        """Joint angles (..., J) in rad as units of the intervention box: u = (q - home) / half_range."""
        normalised: Array = (self._per_joint(q) - self.home) / self.half_range
        return normalised

    def denormalise(self, u: npt.ArrayLike) -> Array:
        """Units of the intervention box (..., J) as joint angles in rad: q = home + half_range u."""
        return self.home + self.half_range * self._per_joint(u)

    def in_figures(self, values: npt.ArrayLike) -> tuple[tuple[float, str], ...]:
        """A value of each joint, (J,) in rad (or m), as people read it: in degrees, or mm where it is prismatic."""
        scaled = ((value, joint.figures) for value, joint in zip(self._per_joint(values), self.joints, strict=True))
        return tuple((float(value) * scale, unit) for value, (unit, scale) in scaled)

    def fk(self, q: npt.ArrayLike, link: str | None = None) -> tuple[Array, Array]:
        """Forward kinematics, batched.

        Args:
            q: Joint angles (..., J) in rad.
            link: The link; the tip link when None.

        Returns:
            The link's position (..., 3) in m and orientation (..., 4) as unit quaternion xyzw with w >= 0, both
            in the base link's frame.

        Raises:
            RobotError: The link is unknown or q's last axis is not J long.
        """
        q = self._per_joint(q)
        frame = self._frame_id(self.tip_link if link is None else link)
        data = self._model.createData()
        configurations = self.configurations(q.reshape(-1, len(self.joints)))
        poses = np.empty((len(configurations), 7))
        base_inverse = self._base.inverse()
        for i, configuration in enumerate(configurations):
            pinocchio.forwardKinematics(self._model, data, configuration)
            placement = pinocchio.updateFramePlacement(self._model, data, frame)
            poses[i] = pinocchio.SE3ToXYZQUAT(base_inverse * placement)
        quaternions = np.where(poses[:, 6:] < 0, -poses[:, 3:], poses[:, 3:])
        return poses[:, :3].reshape(*q.shape[:-1], 3), quaternions.reshape(*q.shape[:-1], 4)

    def jacobian(self, q: npt.ArrayLike, link: str | None = None) -> Array:
        """Geometric Jacobian of a link's origin at one configuration.

        Args:
            q: Joint angles (J,) in rad.
            link: The link; the tip link when None.

        Returns:
            (6, J), in the base link's frame: linear velocity xyz in m/rad, then angular velocity xyz in rad/rad.

        Raises:
            RobotError: The link is unknown or q is not (J,).
        """
        q = self._per_joint(q)
        if q.ndim != 1:
            raise RobotError(
                f"robot '{self.name}': jacobian takes one configuration ({len(self.joints)},), got {q.shape}"
            )
        frame = self._frame_id(self.tip_link if link is None else link)
        jacobian = pinocchio.computeFrameJacobian(
            self._model,
            self._model.createData(),
            self.configurations(q[None])[0],
            frame,
            pinocchio.ReferenceFrame.LOCAL_WORLD_ALIGNED,
        )
        to_base = self._base.rotation.T
        columns = jacobian[:, self._v_index]
        return np.vstack([to_base @ columns[:3], to_base @ columns[3:]])

    def chain(self) -> Chain:
        """The joints' geometry, from which forward kinematics can be written in any array library."""
        data = self._model.createData()
        ids = [self._model.getJointId(name) for name in self.joint_names]
        rest = pinocchio.neutral(self._model)
        pinocchio.forwardKinematics(self._model, data, rest)
        still = [data.liMi[i].copy() for i in ids]
        twists = np.empty((len(ids), 6))
        for number, (i, column) in enumerate(zip(ids, self._v_index, strict=True)):
            step = np.zeros(self._model.nv)
            step[column] = 1.0
            pinocchio.forwardKinematics(self._model, data, pinocchio.integrate(self._model, rest, step))
            twists[number] = pinocchio.log6(still[number].actInv(data.liMi[i])).vector
        parents = tuple(ids.index(p) if (p := self._model.parents[i]) else -1 for i in ids)
        base = self._base.inverse()
        placements = np.stack(
            [(base * place if parent < 0 else place).homogeneous for place, parent in zip(still, parents, strict=True)]
        )
        tip = self._model.frames[self._frame_id(self.tip_link)]
        if tip.parentJoint == 0:
            raise RobotError(f"{self._source}: tip_link '{self.tip_link}' is moved by no joint of the preset")
        return Chain(parents, placements, twists, ids.index(tip.parentJoint), tip.placement.homogeneous)

    def _per_joint(self, values: npt.ArrayLike) -> Array:
        array = np.asarray(values, dtype=np.float64)
        if array.ndim == 0 or array.shape[-1] != len(self.joints):
            raise RobotError(
                f"robot '{self.name}' has {len(self.joints)} joints: an array of shape {array.shape} does not fit"
            )
        return array

    @property
    def model(self) -> Any:
        """The Pinocchio model, of the preset's joints alone; its world is the root link's frame."""
        return self._model

    @property
    def base_placement(self) -> Array:
        """Frame of the base link in the root link's, float64 [4, 4]."""
        return np.asarray(self._base.homogeneous)

    def configurations(self, q: Array) -> Array:
        """Angles (N, J) in the preset's order as configuration vectors (N, nq) of `model`."""
        configurations = np.tile(pinocchio.neutral(self._model), (len(q), 1))
        configurations[:, self._q_index] = np.where(self.continuous, np.cos(q), q)
        configurations[:, self._q_index[self.continuous] + 1] = np.sin(q[:, self.continuous])
        return configurations

    def _frame_id(self, link: str) -> int:
        if link not in self._frame_ids:
            raise RobotError(
                f"robot '{self.name}' has no link '{link}' in {self.urdf_path}: it has {', '.join(self.links)}"
            )
        return self._frame_ids[link]

    def _load_model(self) -> Any:
        """The URDF as a Pinocchio model of the preset's joints alone; the others are locked."""
        model = read_model(self.urdf_path)
        wanted = self.preset["joints"]
        if not isinstance(wanted, Mapping) or not wanted:
            raise RobotError(f"{self._source}: joints must map joint names to home and half_range")
        movable = list(model.names)[1:]
        for name in wanted:
            if name not in movable:
                raise RobotError(
                    f"{self._source}: joint '{name}' is not in {self.urdf_path}: movable are {', '.join(movable)}"
                )
            if model.joints[model.getJointId(name)].nv != 1:
                raise RobotError(
                    f"{self.urdf_path}: joint '{name}' has several axes (it is floating or planar): make it revolute,"
                    " continuous or prismatic"
                )
        self._parents = _parents(model)
        locked = [model.getJointId(name) for name in movable if name not in wanted]
        return pinocchio.buildReducedModel(model, locked, pinocchio.neutral(model)) if locked else model

    def _read_joints(self) -> tuple[Joint, ...]:
        joints = []
        for name, entry in self.preset["joints"].items():
            where = f"joint '{name}': "
            if not isinstance(entry, Mapping):
                raise RobotError(
                    f"{self._source}: {where}expected home, half_range and max_acceleration, got {entry!r}"
                )
            _check_keys(entry, _JOINT_KEYS, _JOINT_KEYS - {"max_velocity", "max_jerk"}, self._source, where)
            axis = self._model.joints[self._model.getJointId(name)]
            values = {"max_velocity": float(self._model.upperVelocityLimit[axis.idx_v]), **entry}
            for key, value in values.items():
                number = isinstance(value, (int, float)) and not isinstance(value, bool)
                if not number or not math.isfinite(value) or (key != "home" and value <= 0):
                    wanted = "a finite number" if key == "home" else "a finite number above 0"
                    raise RobotError(f"{self._source}: {where}{key} must be {wanted}, got {value!r}")
            values.setdefault("max_jerk", _JERK_PER_ACCELERATION * float(values["max_acceleration"]))
            if axis.nq == 2:  # Pinocchio counts continuous joints by cosine and sine
                lower, upper = values["home"] - math.pi, values["home"] + math.pi
            else:
                lower, upper = (
                    float(limit[axis.idx_q])
                    for limit in (self._model.lowerPositionLimit, self._model.upperPositionLimit)
                )
            joint = Joint(
                name=name,
                lower=lower,
                upper=upper,
                continuous=axis.nq == 2,
                prismatic=axis.shortname().startswith("JointModelP"),
                **{key: float(value) for key, value in values.items()},
            )
            if joint.continuous and joint.half_range > math.pi:
                raise RobotError(
                    f"{self._source}: {where}half_range is {joint.half_range:.4f} rad: a continuous joint has a whole"
                    " turn, so that at most pi is possible"
                )
            low, high = joint.home - joint.half_range, joint.home + joint.half_range
            if low < joint.lower or high > joint.upper:
                raise RobotError(
                    f"{self._source}: {where}home +- half_range is [{low:.4f}, {high:.4f}] {joint.unit}, outside the"
                    f" URDF's limits [{joint.lower:.4f}, {joint.upper:.4f}]: reduce half_range or move home"
                )
            joints.append(joint)
        return tuple(joints)


def is_mjcf(path: Path) -> bool:
    """Whether a description is MuJoCo's (MJCF) rather than a URDF.

    Raises:
        RobotError: It cannot be read, or is no XML.
    """
    return parse_description(path).tag == "mujoco"


def read_model(path: Path) -> Any:
    """A URDF or MJCF file as a Pinocchio model of all its joints.

    Raises:
        RobotError: It is neither.
    """
    root = parse_description(path)
    mjcf = root.tag == "mujoco"
    if mjcf and root.find(".//include") is not None:
        raise RobotError(f"{path} includes other MJCF files: save it as one (MuJoCo: mj_saveLastXML), and give that")
    try:
        model = (pinocchio.buildModelFromMJCF if mjcf else pinocchio.buildModelFromUrdf)(str(path))
    except (ValueError, RuntimeError) as error:
        kind = "MJCF file" if mjcf else "URDF"
        raise RobotError(f"{path} is not a readable {kind}: {' '.join(str(error).split())}") from None
    if mjcf:
        _mend_slides(model, root)
    return model


def _mend_slides(model: Any, root: ElementTree.Element) -> None:
    """Take back that Pinocchio 4.1 converts ranges of slide joints, which are in m, from degrees as it does angles."""
    ranges = [
        [float(number) for number in text.split()]
        for joint in root.iter("joint")
        if (text := joint.get("range")) is not None
    ]
    for axis in model.joints:
        if not axis.shortname().startswith("JointModelP"):
            continue
        limits = [float(limit[axis.idx_q]) for limit in (model.lowerPositionLimit, model.upperPositionLimit)]
        if not any(np.allclose(limits, stated) for stated in ranges) and any(
            np.allclose(np.degrees(limits), stated) for stated in ranges
        ):
            model.lowerPositionLimit[axis.idx_q], model.upperPositionLimit[axis.idx_q] = np.degrees(limits)


def _parents(model: Any) -> dict[str, str]:
    """Name of each link's parent link, of a model whose joints are not locked: locking loses what they hang on."""
    body = pinocchio.FrameType.BODY
    parents = {}
    for index, frame in enumerate(model.frames):
        above = frame.parentFrame
        while above and model.frames[above].type != body:
            above = model.frames[above].parentFrame
        if frame.type == body and index != above and above:
            parents[frame.name] = model.frames[above].name
    return parents


def load_robot(name_or_path: str | Path) -> Robot:
    """Load a robot preset.

    Args:
        name_or_path: A preset's name (a folder of config/robots, such as `arm6`) or the path of a preset YAML.

    Raises:
        RobotError: No such preset, or it is malformed.
    """
    path = Path(name_or_path)
    return _load(path) if path.suffix in (".yaml", ".yml") else bundled_robot(str(name_or_path))


def bundled_robot(name: str) -> Robot:
    """Load a preset by its name, never by a path: for names that stand in a bag or a model.

    Raises:
        RobotError: No such preset.
    """
    presets = share_dir() / "config" / "robots"
    known = sorted(preset.parent.name for preset in presets.glob("*/robot.yaml"))
    if name not in known:
        raise RobotError(f"unknown robot '{name}': known are {', '.join(known)}; or give the path of a preset YAML")
    return _load(presets / name / "robot.yaml")


def _load(path: Path) -> Robot:
    try:
        preset = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RobotError(f"robot preset {path} cannot be read: {error.strerror}") from None
    except (RopesError, UnicodeDecodeError) as error:
        raise RobotError(f"robot preset {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(preset, Mapping):
        raise RobotError(f"robot preset {path} must be a mapping with the keys {', '.join(sorted(_KEYS))}")
    return Robot(preset, path)


def _check_keys(
    entry: Mapping[str, Any], known: set[str], required: set[str], source: Path, where: str
) -> None:
    """Refuse unknown and missing keys of one mapping of a preset."""
    for key in entry:
        if key not in known:
            raise RobotError(f"{source}: {where}unknown key '{key}': known are {', '.join(sorted(known))}")
    for key in sorted(required):
        if key not in entry:
            raise RobotError(f"{source}: {where}key '{key}' is missing")

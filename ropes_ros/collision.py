"""Whether a robot hits itself or the floor within its box or along a schedule; what it sweeps. No ROS, no MuJoCo.

Shapes are those of the URDF's collision elements (of the visual ones where it has none). Links that a joint connects,
links that are fixed to each other and the pairs that the preset ignores may touch. Convex hulls are looked at first,
and where two of them touch, the meshes themselves. Surroundings other than a flat floor are not known.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import coal
import numpy as np
import numpy.typing as npt
import pinocchio

from ropes_ros.description import robot_element
from ropes_ros.errors import RobotError, ScheduleError
from ropes_ros.motion import Trajectory
from ropes_ros.robot import Array, Robot, is_mjcf, read_model
from ropes_ros.units import NANOSECONDS

if TYPE_CHECKING:
    from ropes_ros.schedule import Schedule

POSES = 2000
"""Random poses of the box that are looked at, besides its corners."""
MOST_CORNERS = 256
STEP_M = 0.02
"""Way in m that no point of the robot exceeds between two of a motion's configurations that are looked at."""
_FINE_S = 0.01
_PAIRS_LOOKED_AT = 300  # configurations, at which distances between links are measured
_SEGMENTS = 24  # of the polygon that stands for a circle
_FILLING = 200  # points within each shape, for the swept volume
_SWEPT_POSES = 800
_CHUNK = 256
_ALWAYS = 0.99  # share of poses

Kind = Literal["self-collision", "floor"]


@dataclass(frozen=True)
class Finding:
    """Something that the robot hits.

    Attributes:
        kind: What it hits: itself, or the floor.
        links: The links that meet: two, or the one that meets the floor.
        q: The first configuration at which they do, float64 [J] in rad (m where a joint is prismatic).
        time_s: The time of that configuration from the schedule's start; None in a box.
        share: Share of the configurations looked at in which they meet.
        depth_m: How far below the floor at worst; 0 for links.
        configuration: `q` by joint, in degrees or millimetres, for a person.
    """

    kind: Kind
    links: tuple[str, ...]
    q: tuple[float, ...]
    time_s: float | None
    share: float
    depth_m: float
    configuration: str

    def __str__(self) -> str:
        when = "" if self.time_s is None else f" {self.time_s:.2f} s from the start,"
        if self.kind == "floor":
            what = f"link '{self.links[0]}' reaches {1000.0 * self.depth_m:.0f} mm below the floor"
        else:
            what = f"links '{self.links[0]}' and '{self.links[1]}' collide"
        return f"{what}: first{when} at {self.configuration}; in {self.share:.1%} of what was looked at"


@dataclass(frozen=True)
class Swept:
    """What is swept, in m in the base link's frame.

    Attributes:
        low, high: Corners of the box around it, float64 [3].
        voxel: Edge of the cells in which it is counted.
        cells: Whether each cell is swept, bool [X, Y, Z], from `low` on.
    """

    low: Array
    high: Array
    voxel: float
    cells: npt.NDArray[np.bool_]

    @property
    def volume(self) -> float:
        """Volume of the cells that are swept, in m^3."""
        return float(self.cells.sum()) * self.voxel**3


class Closest(NamedTuple):
    """The two links that come nearest to each other without touching, and their distance in m."""

    links: tuple[str, str]
    distance: float


@dataclass(frozen=True)
class Examination:
    """What was looked at and found.

    Attributes:
        findings: What is hit; empty if nothing.
        configurations: Number of configurations looked at.
        commanded: Least and greatest position of each joint, float64 [J, 2] in rad (m).
        speeds: Greatest commanded speed of each joint, float64 [J] in rad/s (m/s); None for a box.
        clearance_m: Least height of a moved link over the floor; negative below it; None without shapes.
        lowest: The link that is that low.
        closest: The links that come nearest to each other; None without pairs of shapes.
        swept: What is swept; None without shapes.
        notes: What could not be looked at.
    """

    findings: tuple[Finding, ...]
    configurations: int
    commanded: Array
    speeds: Array | None = None
    clearance_m: float | None = None
    lowest: str = ""
    closest: Closest | None = None
    swept: Swept | None = None
    notes: tuple[str, ...] = field(default=())


def check_schedule(robot: Robot, schedule: Schedule) -> tuple[Finding, ...]:
    """What a robot hits when it follows a schedule; nothing where the tuple is empty.

    It takes some 5 s for 20 minutes of six joints.

    Raises:
        RobotError: A mesh is not there, or the preset's `collision` section is malformed.
        ScheduleError: The schedule was made for another robot.
    """
    return Shapes(robot).findings(*motion_samples(robot, schedule))


def refuse_collisions(robot: Robot, schedule: Schedule) -> None:
    """Refuse a schedule that hits something.

    Raises:
        ScheduleError: It does; the message names the first of the findings.
        RobotError: See `check_schedule`.
    """
    findings = check_schedule(robot, schedule)
    if findings:
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        raise ScheduleError(
            f"the schedule hits something: {findings[0]}{more}: make the half ranges in the preset smaller or move its"
            f" home (ropes robot check shows all that is hit)"
        )


def examine(robot: Robot, schedule: Schedule | None = None) -> Examination:
    """Look at a schedule's motion, or at the whole box: its corners and random poses.

    Raises:
        RobotError, ScheduleError: See `check_schedule`.
    """
    shapes = Shapes(robot)
    q, times = box_samples(robot) if schedule is None else motion_samples(robot, schedule)
    commanded = np.stack([q.min(axis=0), q.max(axis=0)], axis=-1)
    speeds = None
    if schedule is not None and times is not None:
        velocities = Trajectory(robot, schedule).velocities_at(np.round(times * NANOSECONDS).astype(np.int64))
        speeds = np.abs(velocities).max(axis=0)
    if not shapes.clouds:
        note = f"{robot.urdf_path} has no shapes of links that move: nothing was looked at"
        return Examination((), len(q), commanded, speeds, notes=(note,))
    heights = shapes.heights(q)
    lowest = int(heights.min(axis=0).argmin())
    notes = () if shapes.of_collision else ("the URDF has no collision shapes: the visual ones were taken",)
    return Examination(
        shapes.findings(q, times, heights),
        len(q),
        commanded,
        speeds,
        float(heights.min()),
        shapes.clouds[lowest].link,
        shapes.closest(q),
        shapes.swept(q),
        notes,
    )


def box_samples(robot: Robot, seed: int = 0) -> tuple[Array, None]:
    """Configurations float64 [N, J] that stand for the box: home, corners, random poses."""
    rng = np.random.default_rng(seed)
    count = len(robot.joints)
    if 2**count <= MOST_CORNERS:
        corners = np.array(list(itertools.product((-1.0, 1.0), repeat=count)))
    else:
        corners = rng.choice((-1.0, 1.0), (MOST_CORNERS, count))
    units = np.vstack([np.zeros((1, count)), corners, rng.uniform(-1.0, 1.0, (POSES, count))])
    return robot.denormalise(units), None


def motion_samples(robot: Robot, schedule: Schedule) -> tuple[Array, Array]:
    """Configurations float64 [N, J] along a schedule's motion, and their times [N] in s.

    Between two of them no point of the robot within 0.1 m of the line from joint to joint goes farther than `STEP_M`:
    a turn moves a point at most by its angle times the way along that line to the tip.

    Raises:
        ScheduleError: The schedule was made for another robot.
    """
    trajectory = Trajectory(robot, schedule)
    times = np.append(np.arange(0, trajectory.duration_ns, round(_FINE_S * NANOSECONDS)), trajectory.duration_ns)
    q = trajectory.positions_at(times)
    chain = robot.chain()
    arms = [float(np.linalg.norm(place[:3, 3])) for place in (*chain.placements, chain.tip)]
    reach = np.array([1.0 if joint.prismatic else sum(arms[i + 1 :]) + 0.1 for i, joint in enumerate(robot.joints)])
    way = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(q, axis=0)) @ reach)])
    chosen = np.unique(np.append(np.searchsorted(way, np.arange(0.0, way[-1], STEP_M)), len(way) - 1))
    return q[chosen], times[chosen] / NANOSECONDS


class _Cloud(NamedTuple):
    """A shape as points: `points` float64 [P, 3] in m in the frame of the joint numbered `joint`, around it."""

    link: str
    joint: int
    points: Array


class Shapes:
    """A robot's shapes, and the pairs of them that must not touch.

    Raises:
        RobotError: A mesh is not there, or the preset's `collision` section is malformed.
    """

    def __init__(self, robot: Robot) -> None:
        self._robot = robot
        self._model = robot.model
        self._data = self._model.createData()
        self._ignored, self._floor = collision_section(robot)
        self.of_collision = True
        self._exact = _geometry(robot, pinocchio.GeometryType.COLLISION)
        if not any(shape.parentJoint for shape in self._exact.geometryObjects):
            self.of_collision = False
            self._exact = _geometry(robot, pinocchio.GeometryType.VISUAL)
        self._links = [self._model.frames[shape.parentFrame].name for shape in self._exact.geometryObjects]
        for a, b in self._pairs():
            self._exact.addCollisionPair(pinocchio.CollisionPair(a, b))
        self._hulls = self._exact.copy()
        for shape in self._hulls.geometryObjects:
            if isinstance(shape.geometry, coal.BVHModelBase):
                shape.geometry.buildConvexRepresentation(False)
                shape.geometry = shape.geometry.convex
        self.clouds = [
            _Cloud(link, shape.parentJoint, _points(shape))
            for link, shape in zip(self._links, self._hulls.geometryObjects, strict=True)
            if shape.parentJoint
        ]

    def _pairs(self) -> Iterator[tuple[int, int]]:
        """Pairs of shapes that may move towards each other and must not touch."""
        parents = dict(zip(self._robot.links, self._robot.link_parents, strict=True))
        parents[self._model.frames[0].name] = -1  # of what stands in the world of an MJCF file: its floor, a table
        joint = [shape.parentJoint for shape in self._exact.geometryObjects]
        for a, b in itertools.combinations(range(len(self._links)), 2):
            one, other = self._links[a], self._links[b]
            tied = joint[a] == joint[b] or one == self._name(parents[other]) or other == self._name(parents[one])
            if not tied and frozenset((one, other)) not in self._ignored:
                yield a, b

    def _name(self, link: int) -> str:
        return self._robot.links[link] if link >= 0 else ""

    @property
    def pairs(self) -> int:
        """How many pairs of shapes are looked at."""
        return len(self._exact.collisionPairs)

    def findings(
        self, q: Array, times: Array | None = None, heights: Array | None = None
    ) -> tuple[Finding, ...]:
        """What is hit at configurations q, float64 [N, J], at times [N] in s; `heights` may be given."""
        found = [
            self._finding("self-collision", links, touching, 0.0, q, times)
            for links, touching in self._touching(q).items()
        ]
        if heights is None:
            heights = self.heights(q)
        worst: dict[str, Array] = {}
        for cloud, column in zip(self.clouds, heights.T, strict=True):
            worst[cloud.link] = np.minimum(worst.get(cloud.link, column), column)
        for link, column in worst.items():
            if (rows := np.flatnonzero(column < 0.0)).size:
                found.append(self._finding("floor", (link,), rows, -float(column.min()), q, times))
        return tuple(sorted(found, key=lambda finding: -finding.share))

    def always_touching(self, q: Array) -> tuple[tuple[str, str], ...]:
        """Pairs of links that touch in practically every configuration: their shapes overlap by design."""
        return tuple(links for links, rows in self._touching(q).items() if len(rows) >= _ALWAYS * len(q))

    def _finding(
        self, kind: Kind, links: tuple[str, ...], rows: npt.ArrayLike, depth: float, q: Array, times: Array | None
    ) -> Finding:
        rows = np.asarray(rows)
        first = int(rows[0])
        return Finding(
            kind,
            links,
            tuple(float(value) for value in q[first]),
            None if times is None else float(times[first]),
            len(rows) / len(q),
            depth,
            configuration_text(self._robot, q[first]),
        )

    def _touching(self, q: Array) -> dict[tuple[str, str], list[int]]:
        """For each pair of links that touch, the rows of q [N, J] in which they do."""
        hulls, exact = self._hulls.createData(), self._exact.createData()
        touching: dict[tuple[str, str], list[int]] = {}
        if not self.pairs:
            return touching
        for row, configuration in enumerate(self._robot.configurations(q)):
            if not pinocchio.computeCollisions(self._model, self._data, self._hulls, hulls, configuration, False):
                continue
            pinocchio.updateGeometryPlacements(self._model, self._data, self._exact, exact)
            met = set()
            for number, result in enumerate(hulls.collisionResults):
                if result.isCollision() and pinocchio.computeCollision(self._exact, exact, number):
                    pair = self._exact.collisionPairs[number]
                    met.add((self._links[pair.first], self._links[pair.second]))
            for links in met:
                touching.setdefault(links, []).append(row)
        return touching

    def closest(self, q: Array) -> Closest | None:
        """The links that come nearest to each other, as far as some of the configurations [N, J] and hulls tell."""
        if not self.pairs:
            return None
        data = self._hulls.createData()
        some = q[np.linspace(0, len(q) - 1, min(len(q), _PAIRS_LOOKED_AT)).astype(int)]
        least = np.full(self.pairs, np.inf)
        for configuration in self._robot.configurations(some):
            pinocchio.computeDistances(self._model, self._data, self._hulls, data, configuration)
            least = np.minimum(least, [result.min_distance for result in data.distanceResults])
        number = int(least.argmin())
        pair = self._exact.collisionPairs[number]
        return Closest((self._links[pair.first], self._links[pair.second]), max(float(least[number]), 0.0))

    @cached_property
    def _to_base(self) -> Any:
        return pinocchio.SE3(self._robot.base_placement).inverse()

    def _placements(self, q: Array) -> Iterator[tuple[slice, Array]]:
        """Chunks of rows of q [N, J], and the frames of all joints in the base link's, float64 [n, joints, 3, 4]."""
        for begin in range(0, len(q), _CHUNK):
            rows = slice(begin, begin + _CHUNK)
            frames = []
            for configuration in self._robot.configurations(q[rows]):
                pinocchio.forwardKinematics(self._model, self._data, configuration)
                frames.append([(self._to_base * place).homogeneous[:3] for place in self._data.oMi])
            yield rows, np.array(frames)

    def heights(self, q: Array) -> Array:
        """Least height over the floor of each of `clouds` at configurations q [N, J]: float64 [N, clouds] in m."""
        heights = np.empty((len(q), len(self.clouds)))
        for rows, frames in self._placements(q):
            for number, cloud in enumerate(self.clouds):
                up = frames[:, cloud.joint, 2]
                heights[rows, number] = (up[:, :3] @ cloud.points.T).min(axis=1) + up[:, 3] - self._floor
        return heights

    def swept(self, q: Array, seed: int = 0) -> Swept:
        """What the moved links sweep at configurations q [N, J], of which some hundred are looked at."""
        rng = np.random.default_rng(seed)
        some = q[np.unique(np.linspace(0, len(q) - 1, min(len(q), _SWEPT_POSES)).astype(int))]
        fillings = []
        for cloud in self.clouds:
            ends = cloud.points[rng.integers(len(cloud.points), size=(2, _FILLING))]
            share = rng.uniform(size=(_FILLING, 1))
            fillings.append((cloud.joint, share * ends[0] + (1.0 - share) * ends[1]))
        points = np.concatenate(
            [
                (inside @ frames[:, joint, :, :3].transpose(0, 2, 1) + frames[:, None, joint, :, 3]).reshape(-1, 3)
                for _, frames in self._placements(some)
                for joint, inside in fillings
            ]
        ).astype(np.float32)
        low, high = points.min(axis=0).astype(np.float64), points.max(axis=0).astype(np.float64)
        voxel = max(0.02, float((high - low).max()) / 100.0)
        shape = np.floor((high - low) / voxel).astype(int) + 1
        cells = np.zeros(shape, dtype=np.bool_)
        cells[tuple(np.minimum(((points - low) / voxel).astype(int), shape - 1).T)] = True
        return Swept(low, high, voxel, cells)


def collision_section(robot: Robot) -> tuple[set[frozenset[str]], float]:
    """A preset's section `collision`: pairs of links that may touch, and the floor's height.

    Returns:
        The pairs, and the floor's height in m in the base link's frame, that of the root link's origin by default.

    Raises:
        RobotError: The section is malformed or names unknown links.
    """
    entries = robot.preset.get("collision", {})
    where = f"robot '{robot.name}': collision"
    if not isinstance(entries, Mapping) or not set(entries) <= {"ignore", "floor"}:
        raise RobotError(f"{where} must have the keys ignore and floor, or none of them, got {entries!r}")
    base = robot.base_placement
    floor = entries.get("floor", float(-(base[:3, :3].T @ base[:3, 3])[2]))
    if isinstance(floor, bool) or not isinstance(floor, (int, float)) or not np.isfinite(floor):
        raise RobotError(f"{where}.floor must be a height in m, got {floor!r}")
    pairs = entries.get("ignore", [])
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise RobotError(f"{where}.ignore must be a list of pairs of links, got {pairs!r}")
    for link in itertools.chain.from_iterable(pairs):
        if link not in robot.links:
            raise RobotError(f"{where}.ignore: there is no link '{link}'")
    return {frozenset(pair) for pair in pairs}, float(floor)


def configuration_text(robot: Robot, q: Iterable[float]) -> str:
    """A configuration by joint, in degrees, and in millimetres where a joint is prismatic."""
    parts = []
    for joint, value in zip(robot.joints, q, strict=True):
        unit, scale = joint.figures
        parts.append(f"{joint.name} {scale * value:.1f} {unit}")
    return ", ".join(parts)


def _geometry(robot: Robot, kind: Any) -> Any:
    """The shapes of the preset's description, placed on the model of the preset's joints."""
    try:
        if is_mjcf(robot.urdf_path):
            whole = read_model(robot.urdf_path)
            shapes = pinocchio.buildGeomFromMJCF(whole, str(robot.urdf_path), kind)
            locked = [whole.getJointId(name) for name in list(whole.names)[1:] if name not in robot.joint_names]
            if locked:
                _, shapes = pinocchio.buildReducedModel(whole, shapes, locked, pinocchio.neutral(whole))
            for shape in shapes.geometryObjects:
                if shape.parentFrame >= robot.model.nframes:  # the reduction loses what stands in the world
                    shape.parentFrame = 0
            return shapes
        root = robot_element(robot)
        for mesh in root.iter("mesh"):
            mesh.set("filename", unquote(urlsplit(mesh.get("filename", "")).path))
        return pinocchio.buildGeomFromUrdfString(robot.model, ElementTree.tostring(root, encoding="unicode"), kind)
    except (ValueError, RuntimeError) as error:
        raise RobotError(f"{robot.urdf_path}: its shapes cannot be read: {' '.join(str(error).split())}") from None


def _points(shape: Any) -> Array:
    """Points in the joint's frame whose convex hull holds a shape, float64 [P, 3] in m."""
    body = shape.geometry
    if isinstance(body, coal.ConvexBase):
        points = np.array(body.points())
    else:
        body.computeLocalAABB()
        low, high = np.array(body.aabb_local.min_), np.array(body.aabb_local.max_)
        if isinstance(body, (coal.Cylinder, coal.Capsule, coal.Sphere, coal.Cone)):
            points = _round_points(body, low, high)
        else:
            points = np.array(list(itertools.product(*zip(low, high, strict=True))))
    if points.size == 0:
        raise RobotError(f"shape '{shape.name}' holds no points")
    return np.asarray(points @ shape.placement.rotation.T + shape.placement.translation)


def _round_points(body: Any, low: Array, high: Array) -> Array:
    """Points around a shape that is round about its z axis; circles become polygons around them."""
    angles = np.arange(_SEGMENTS) * 2.0 * np.pi / _SEGMENTS
    circle = np.column_stack([np.cos(angles), np.sin(angles), np.zeros(_SEGMENTS)]) / np.cos(np.pi / _SEGMENTS)
    if isinstance(body, (coal.Cylinder, coal.Cone)):
        return np.concatenate([circle * body.radius + [0.0, 0.0, z] for z in (low[2], high[2])])
    tilts = np.linspace(-0.5 * np.pi, 0.5 * np.pi, _SEGMENTS // 2 + 1)
    ball = np.concatenate(
        [circle * np.cos(tilt) + [0.0, 0.0, np.sin(tilt) / np.cos(np.pi / _SEGMENTS)] for tilt in tilts]
    )
    halves = (0.0,) if isinstance(body, coal.Sphere) else (-body.halfLength, body.halfLength)
    return np.concatenate([ball * body.radius + [0.0, 0.0, z] for z in halves])

"""Drawing schedules: randomised, balanced sequences of sweeps, independent between joints.

Every joint runs its own sequence of segments. In a segment the joint sweeps one superlevel interval of its level's
density back and forth at constant speed; intervals are drawn so that over a level's segments the time spent at u
follows the density, as a unimodal density is a mixture of uniforms over its superlevel sets. The speed is drawn from a
range that does not depend on the level: motion blur and lag tell nothing of the level, except near turning points,
which narrow levels have a little more of.

In a dwell design the robot moves from pose to pose and rests in each; only the rests are labelled. Every joint's target
is a draw from the density of a level of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ropes_ros.densities import Density, Levels, Observational
from ropes_ros.errors import ScheduleError
from ropes_ros.kinematics import Array, Sweep, shortest_time, turning_points
from ropes_ros.schedule import (
    DESIGNS,
    LIMIT_SHARE,
    SETTLE_NS,
    JointMotion,
    Schedule,
    Segment,
    smoothing_ns,
    top_speed,
)
from ropes_ros.units import NANOSECONDS

if TYPE_CHECKING:
    from ropes_ros.robot import Joint, Robot

SPEED_RANGE = (0.4, 1.2)
"""Speeds of sweeps in half ranges/s, less where turns would take up more than TURN_LENGTH half ranges."""
TURN_LENGTH = 0.1
WINDOW_S = {"factorial": (1.0, 2.5), "single_joint": (2.0, 5.0), "dwell": (0.4, 0.8)}
"""Lengths of the labelled windows in s."""
BLOCK_S = (10.0, 20.0)
"""Lengths of a single-joint design's blocks in s."""

_STRATA = 16
_TARGET_STRATA = 64
"""Poses of a dwell design are single points where a sweep covers a whole interval: they need finer strata."""


@dataclass(frozen=True)
class _Span:
    """A stretch of a joint's time in s, and its level (None: the joint's own balanced sequence of all levels)."""

    start: float
    end: float
    level: str | None


def _stratified(rng: np.random.Generator, kinds: int, count: int, size: int = _STRATA) -> Array:
    """Shares in (0, 1), float64 [kinds, count or more], each kind stratified over blocks of a size."""
    strata = np.tile(np.arange(size), (kinds, -(-count // size), 1))
    return np.asarray((rng.permuted(strata, axis=2) + rng.random(strata.shape)) / size).reshape(kinds, -1)


class _Draws:
    """Segments of one joint and level: interval, speed, phase, window and inset, stratified over blocks of segments."""

    def __init__(self, density: Density, rng: np.random.Generator, count: int) -> None:
        self.shares = _stratified(rng, 5, count)
        self.lo, self.hi = density.slices(self.shares[0])
        self.next = 0

    def draw(self) -> tuple[float, float, float, float, float, float]:
        """Interval in u, and shares in (0, 1) for speed, phase, window and inset."""
        i = self.next
        self.next += 1
        speed, phase, window, inset = self.shares[1:, i]
        return float(self.lo[i]), float(self.hi[i]), float(speed), float(phase), float(window), float(inset)


def _balanced(items: Sequence[str], rng: np.random.Generator) -> Iterator[str]:
    """All items in random order, again and again."""
    while True:
        for i in rng.permutation(len(items)):
            yield items[i]


def make_schedule(
    robot: Robot,
    *,
    duration_s: float,
    seed: int,
    design: str = "factorial",
    levels: Levels | None = None,
    speed: tuple[float, float] | None = None,
    window_s: tuple[float, float] | None = None,
) -> Schedule:
    """Draw a schedule.

    Args:
        robot: The robot, for its joints' ranges and limits.
        duration_s: Length in s, from and back to rest at home.
        seed: Seed; equal arguments give equal schedules.
        design: `factorial` (every joint switches between all levels independently of the others) or `single_joint`
            (blocks of 10 to 20 s in which at most one joint leaves the observational level), or `dwell` (from pose to
            pose, all joints at the same time, each with a level of its own; labelled only where the robot rests).
        levels: The levels; by default 8 bumps, or for single_joint two tilts and the observational level.
        speed: Range of sweep speeds in half ranges/s; by default 0.4 to 1.2, less where joints need it.
        window_s: Range of the labelled windows' lengths in s; by default 1 to 2.5, 2 to 5 for single_joint, or 0.4 to
            0.8 for dwell.

    Raises:
        ScheduleError: The design is unknown or does not suit the levels, or the robot cannot do what is asked.
    """
    if design not in DESIGNS:
        raise ScheduleError(f"unknown design '{design}': known are {', '.join(DESIGNS)}")
    if levels is None:
        levels = Levels.tilts(observational=True) if design == "single_joint" else Levels.bumps()
    window = window_s or WINDOW_S[design]
    if not 0.1 <= window[0] <= window[1] or (design == "single_joint" and window[1] > BLOCK_S[0] / 2):
        raise ScheduleError(f"window_s must ascend from at least 0.1 s (single_joint: to at most 5 s), got {window}")
    if not 10.0 <= duration_s <= 86_400.0:
        raise ScheduleError(f"duration_s must lie within 10 and 86400 s, got {duration_s}")
    smooth_ns = smoothing_ns(robot)
    joints = tuple(joint_motion(joint, speed, smooth_ns) for joint in robot.joints)
    streams = np.random.SeedSequence(seed).spawn(len(joints) + 1)
    segments: list[Segment] = []
    if design == "dwell":
        segments = _dwells(joints, levels, duration_s, window, smooth_ns, [np.random.default_rng(s) for s in streams])
    else:
        spans = _spans(design, levels, len(joints), duration_s, np.random.default_rng(streams[-1]))
        for j, joint in enumerate(joints):
            rng = np.random.default_rng(streams[j])
            segments += _joint_segments(j, joint, levels, spans[j], duration_s, window, smooth_ns, rng)
    segments.sort(key=lambda segment: (segment.start_ns, segment.joint))
    return Schedule(
        robot.name,
        seed,
        design,
        levels,
        joints,
        tuple(segments),
        round(duration_s * NANOSECONDS),
        smooth_ns=smooth_ns,
    )


def joint_motion(joint: Joint, speed: tuple[float, float] | None = None, smooth_ns: int = 0) -> JointMotion:
    """What a schedule assumes of a joint; `speed` as for `make_schedule`."""
    if speed is None:
        top = min(
            SPEED_RANGE[1],
            LIMIT_SHARE * joint.max_velocity / joint.half_range,
            top_speed(joint, TURN_LENGTH, smooth_ns),
        )
        speed = (min(SPEED_RANGE[0], 0.5 * top), top)
    # Rounded down, so that a speed at the limit stays within it.
    low, high = (math.floor(value * 1e6) / 1e6 for value in speed)
    return JointMotion(
        name=joint.name,
        home=joint.home,
        half_range=joint.half_range,
        max_velocity=joint.max_velocity,
        max_acceleration=joint.max_acceleration,
        min_speed=low,
        max_speed=high,
    )


def _spans(design: str, levels: Levels, joints: int, duration: float, rng: np.random.Generator) -> list[list[_Span]]:
    """Per joint, the stretches of time with their levels."""
    if design == "factorial":
        return [[_Span(0.0, duration, None)]] * joints
    observational = [level for level in levels.ids if isinstance(levels[level], Observational)]
    if len(observational) != 1 or len(levels) < 3:
        raise ScheduleError(
            f"a single_joint schedule needs one observational level and two others or more, got {', '.join(levels.ids)}"
        )
    regimes = [(j, level) for j in range(joints) for level in levels.ids if level != observational[0]]
    regimes.append((-1, observational[0]))
    spans: list[list[_Span]] = [[] for _ in range(joints)]
    order = _balanced([str(i) for i in range(len(regimes))], rng)
    start = 0.0
    while start < duration:
        end = start + rng.uniform(*BLOCK_S)
        end = duration if duration - end < BLOCK_S[0] else end
        intervened, level = regimes[int(next(order))]
        for j, own in enumerate(spans):
            mine = level if j == intervened else observational[0]
            if own and own[-1].level == mine:
                own[-1] = _Span(own[-1].start, end, mine)
            else:
                own.append(_Span(start, end, mine))
        start = end
    return spans


def _dwells(
    joints: Sequence[JointMotion],
    levels: Levels,
    duration: float,
    window: tuple[float, float],
    smooth_ns: int,
    rngs: Sequence[np.random.Generator],
) -> list[Segment]:
    """Segments of a dwell design: from rest at home from pose to pose, early enough to be home again at the end."""
    limits = np.array([(joint.speed_limit, joint.acceleration) for joint in joints]).T
    settle, slack = SETTLE_NS / NANOSECONDS, smooth_ns / NANOSECONDS
    slowest = float(shortest_time(-1.0, 0.0, 1.0, 0.0, *limits).max())
    count = int(duration / (window[0] + settle)) + _STRATA
    orders = [_balanced(levels.ids, rng) for rng in rngs[:-1]]
    each = count // len(levels) + 1
    targets = [
        {level: iter(levels[level].quantile(_stratified(rng, 1, each, _TARGET_STRATA)[0])) for level in levels}
        for rng in rngs[:-1]
    ]
    lengths = iter(_stratified(rngs[-1], 1, count)[0])
    segments: list[Segment] = []
    now, position = 0.0, np.zeros(len(joints))
    while now + 2.0 * (slowest + slack) + settle + window[1] <= duration:
        held = [next(order) for order in orders]
        target = np.array([round(float(next(own[level])), 6) for own, level in zip(targets, held, strict=True)])
        moving = float(shortest_time(position, 0.0, target, 0.0, *limits).max())
        start_ns = math.ceil((now + moving) * NANOSECONDS) + SETTLE_NS + smooth_ns
        end_ns = start_ns + round((window[0] + (window[1] - window[0]) * float(next(lengths))) * NANOSECONDS)
        for j, (level, u) in enumerate(zip(held, target.tolist(), strict=True)):
            segments.append(Segment(j, level, start_ns, end_ns, u, u, 0.0, 0.0, 1))
        now, position = end_ns / NANOSECONDS, target
    return segments


def _joint_segments(
    number: int,
    joint: JointMotion,
    levels: Levels,
    spans: list[_Span],
    duration: float,
    window: tuple[float, float],
    smooth_ns: int,
    rng: np.random.Generator,
) -> list[Segment]:
    """Segments of one joint: from rest at home through all spans, early enough to be home again at the end."""
    limits = (joint.speed_limit, joint.acceleration)
    # The longest that a transition from one end of the box to the other can take, with its turns.
    slowest = float(shortest_time(-1.0, -joint.max_speed, 1.0, -joint.max_speed, *limits)) + joint.max_speed / limits[1]
    smooth = smooth_ns / NANOSECONDS
    settle = SETTLE_NS / NANOSECONDS + smooth
    count = int(duration / (window[0] + settle)) + _STRATA
    order = _balanced(levels.ids, rng)
    draws: dict[str, _Draws] = {}
    for level in levels.ids:
        expected = count if spans[0].level is not None else count // len(levels) + 1
        draws[level] = _Draws(levels[level], rng, expected)
    segments: list[Segment] = []
    now, position, velocity = 0.0, 0.0, 0.0
    for span in spans:
        limit = min(span.end, duration - slowest - settle)
        if span.end < duration and span.start + slowest + settle + window[0] > limit:
            raise ScheduleError(
                f"joint '{joint.name}' is too slow for blocks of {span.end - span.start:.1f} s: a transition can take"
                f" {slowest:.1f} s; take the factorial design"
            )
        while True:
            # Whatever the draw, a window of the shortest length must fit.
            if max(now, span.start) + slowest + settle + window[0] > limit:
                break
            level = span.level or next(order)
            lo, hi, speed_share, phase_share, window_share, inset = draws[level].draw()
            speed = round(joint.min_speed + (joint.max_speed - joint.min_speed) * speed_share, 6)
            low, high = turning_points(
                np.float64(lo), np.float64(hi), np.float64(speed), np.float64(limits[1]), smooth, inset**2
            )
            way = 2.0 * phase_share
            low6, high6, phase = round(float(low), 6), round(float(high), 6), round(way % 1.0, 6)
            direction = 1 if way < 1.0 else -1
            sweep = Sweep(*np.array([low6, high6, speed, phase, direction, limits[1]]))
            met, met_velocity = sweep.state(0.5 * smooth - settle)
            transition = shortest_time(position, velocity, met, met_velocity, *limits)
            start_ns = math.ceil((now + float(transition)) * NANOSECONDS) + SETTLE_NS + smooth_ns
            end = start_ns / NANOSECONDS + window[0] + (window[1] - window[0]) * window_share
            if span.level is not None and limit - end < slowest + settle + window[0]:
                end = limit
            end_ns = round(min(end, limit) * NANOSECONDS)
            segments.append(Segment(number, level, start_ns, end_ns, low6, high6, speed, phase, direction))
            now = end_ns / NANOSECONDS
            end_position, end_velocity = sweep.state((end_ns - start_ns) / NANOSECONDS + 0.5 * smooth)
            position, velocity = float(end_position), float(end_velocity)
    return segments

"""Commanded motions: limits, continuity, and where the joints spend their time."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest

from ropes_ros.errors import ScheduleError
from ropes_ros.kinematics import PiecewiseQuadratic, Sweep, connect, shortest_time, stop, turning_points
from ropes_ros.motion import Trajectory, WaypointMotion
from ropes_ros.regimes import Schedule, make_schedule
from ropes_ros.robot import Robot, load_robot

SECOND = 1_000_000_000
STEP = 2_000_000


@pytest.fixture(scope="module")
def robot() -> Robot:
    return load_robot("arm6")


@pytest.fixture(scope="module", params=["factorial", "single_joint", "dwell"])
def schedule(robot: Robot, request: pytest.FixtureRequest) -> Schedule:
    return make_schedule(robot, duration_s=1200.0, seed=7, design=request.param)


@dataclasses.dataclass
class Motion:
    times: np.ndarray
    q: np.ndarray
    dq: np.ndarray


@pytest.fixture(scope="module")
def motion(robot: Robot, schedule: Schedule) -> Motion:
    trajectory = Trajectory(robot, schedule)
    times = np.arange(-SECOND, schedule.duration_ns + SECOND, STEP)
    return Motion(times, trajectory.positions_at(times), trajectory.velocities_at(times))


def _random_states(count: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(1)
    p0, p1 = rng.uniform(-1, 1, (2, count))
    v0, v1 = rng.uniform(-1, 1, (2, count))
    return p0, v0, p1, v1


def _piecewise(connection: object, i: int) -> PiecewiseQuadratic:
    return PiecewiseQuadratic(*(column[:, i] for column in connection.pieces()))  # type: ignore[attr-defined]


# --- kinematics --------------------------------------------------------------------------------------------------


def test_the_shortest_connection_arrives_and_a_shorter_one_does_not() -> None:
    p0, v0, p1, v1 = _random_states(500)
    shortest = shortest_time(p0, v0, p1, v1, 1.5, 8.0)
    fits = connect(p0, v0, p1, v1, shortest + 1e-9, 1.5, 8.0)
    assert np.abs(fits.error).max() < 1e-7
    assert (np.abs(connect(p0, v0, p1, v1, 0.98 * shortest, 1.5, 8.0).error) > 1e-7).all()
    for i in range(0, 500, 7):
        path = _piecewise(fits, i)
        end = np.array([shortest[i]])
        assert path.positions(end) == pytest.approx(p1[i], abs=1e-6)
        assert path.velocities(end) == pytest.approx(v1[i], abs=1e-6)
        t = np.linspace(0.0, shortest[i], 400)
        assert np.abs(path.velocities(t)).max() <= 1.5 + 1e-9
        assert np.abs(np.diff(path.velocities(t))).max() <= 8.0 * t[1] + 1e-9
        assert np.abs(np.diff(path.positions(t))).max() <= 1.5 * t[1] + 1e-9


def test_slower_connections_take_exactly_their_time() -> None:
    p0, v0, p1, v1 = _random_states(200)
    duration = np.full(200, 7.0)
    slow = connect(p0, v0, p1, v1, duration, 1.5, 8.0)
    assert np.abs(slow.error).max() < 1e-9
    for i in range(0, 200, 11):
        path = _piecewise(slow, i)
        assert path.positions(duration[:1]) == pytest.approx(p1[i], abs=1e-6)
        assert path.velocities(duration[:1]) == pytest.approx(v1[i], abs=1e-6)


def test_connections_stay_where_their_ends_can_stop() -> None:
    p0, v0, p1, v1 = _random_states(300)
    ends = np.stack([p0, p1, stop(p0, v0, 8.0)[1], stop(p1, -v1, 8.0)[1]])
    duration = shortest_time(p0, v0, p1, v1, 1.5, 8.0) + 1e-9
    way = connect(p0, v0, p1, v1, duration, 1.5, 8.0)
    for i in range(300):
        u = _piecewise(way, i).positions(np.linspace(0, duration[i], 200))
        assert ends[:, i].min() - 1e-6 <= u.min() and u.max() <= ends[:, i].max() + 1e-6


def test_sweeps_turn_at_their_turning_points_at_constant_speed() -> None:
    sweep = Sweep(*np.array([-0.2, 0.5, 0.8, 0.3, -1.0, 10.0]))
    t = np.linspace(0.0, 4.0 * float(sweep.half_period), 200001)
    u, v = sweep.state(t)
    assert u.min() == pytest.approx(-0.2, abs=1e-6) and u.max() == pytest.approx(0.5, abs=1e-6)
    assert np.allclose(np.gradient(u, t), v, atol=1e-3)
    assert np.abs(v).max() == pytest.approx(0.8) and v[0] < 0
    inner = np.abs(u - 0.15) < 0.35 - 0.5 * 0.8**2 / 10.0
    assert np.allclose(np.abs(v[inner]), 0.8)
    assert np.abs(np.diff(v)).max() <= 10.0 * t[1] * (1 + 1e-6)


def test_occupancy_is_the_share_of_time_below() -> None:
    sweep = Sweep(*np.array([-0.2, 0.5, 0.8, 0.0, 1.0, 6.0]))
    u, _ = sweep.state(np.linspace(0.0, 2.0 * float(sweep.half_period), 200001))
    for edge in (-0.3, -0.19, -0.1, 0.1, 0.3, 0.47, 0.6):
        assert sweep.occupancy(edge) == pytest.approx((u < edge).mean(), abs=1e-4)


def test_turning_points_fill_the_interval_evenly() -> None:
    speed, acceleration = np.float64(0.8), np.float64(12.0)
    low, high = turning_points(np.float64(-0.3), np.float64(0.4), speed, acceleration)
    sweep = Sweep(low, high, speed, np.float64(0.0), np.float64(1.0), acceleration)
    u, _ = sweep.state(np.linspace(0.0, float(sweep.half_period), 100001))
    assert u.mean() == pytest.approx(0.05, abs=1e-4)
    assert u.var() == pytest.approx(0.7**2 / 12.0, rel=0.03)
    low, high = turning_points(np.array([-1.0, 0.9, 0.1]), np.array([0.2, 1.0, 0.1]), speed, acceleration)
    assert low[0] == -1.0 and high[1] == 1.0
    assert (high - low >= speed**2 / acceleration).all()
    assert 0.5 * (low[2] + high[2]) == pytest.approx(0.1)


# --- trajectories ------------------------------------------------------------------------------------------------


def test_trajectories_rest_at_home_before_and_after(robot: Robot, schedule: Schedule, motion: Motion) -> None:
    outside = (motion.times <= 0) | (motion.times >= schedule.duration_ns)
    assert np.allclose(motion.q[outside], robot.home, atol=1e-12)
    assert np.abs(motion.dq[outside]).max() < 1e-9


def test_trajectories_stay_in_the_box(robot: Robot, motion: Motion) -> None:
    assert np.abs(robot.normalise(motion.q)).max() <= 1.0 + 1e-9


def test_trajectories_keep_to_speed_and_acceleration_limits(robot: Robot, motion: Motion) -> None:
    seconds = STEP / SECOND
    assert (np.abs(motion.dq) <= 0.8 * robot.max_velocity + 1e-9).all()
    assert (np.abs(np.diff(motion.q, axis=0)) <= 0.8 * robot.max_velocity * seconds + 1e-6).all()
    assert (np.abs(np.diff(motion.dq, axis=0)) <= 0.8 * robot.max_acceleration * seconds + 1e-4).all()


def test_trajectories_keep_to_the_jerk_limit(robot: Robot, schedule: Schedule) -> None:
    """Also where the acceleration goes from one limit to the other."""
    trajectory = Trajectory(robot, schedule)
    step = 1_000_000
    highest = np.zeros(6)
    for begin in range(0, schedule.duration_ns, schedule.duration_ns // 40):
        times = begin + np.arange(0, 4 * SECOND, step)
        jerk = np.diff(trajectory.velocities_at(times), n=2, axis=0) / (step / SECOND) ** 2
        highest = np.maximum(highest, np.abs(jerk).max(0))
    assert (highest <= 0.8 * robot.max_jerk * (1 + 1e-6)).all()
    assert (highest >= 0.35 * robot.max_jerk).all(), "the limit is used: a change from 0 takes half of it"


def test_a_low_jerk_limit_is_kept_and_one_too_low_is_refused(robot: Robot) -> None:
    gentle = _with_jerk(robot, 8.0)
    schedule = make_schedule(gentle, duration_s=60.0, seed=3)
    times = np.arange(0, 60 * SECOND, STEP)
    trajectory = Trajectory(gentle, schedule)
    jerk = np.diff(trajectory.velocities_at(times), n=2, axis=0) / (STEP / SECOND) ** 2
    assert (np.abs(jerk) <= 0.8 * gentle.max_jerk * (1 + 1e-6)).all()
    with pytest.raises(ScheduleError, match="max_jerk"):
        make_schedule(_with_jerk(robot, 2.0), duration_s=60.0, seed=3)


def _with_jerk(robot: Robot, per_acceleration: float) -> Robot:
    gentle = copy.copy(robot)
    gentle.joints = tuple(
        dataclasses.replace(joint, max_jerk=per_acceleration * joint.max_acceleration) for joint in robot.joints
    )
    gentle.max_jerk = per_acceleration * robot.max_acceleration
    return gentle


def test_velocities_are_the_positions_slope(motion: Motion) -> None:
    seconds = STEP / SECOND
    mean = 0.5 * (motion.dq[1:] + motion.dq[:-1])
    # A change of acceleration within a step bounds the difference by acceleration * step.
    assert np.abs(np.diff(motion.q, axis=0) / seconds - mean).max() < 12.0 * seconds


def test_positions_are_continuous_to_the_nanosecond(robot: Robot, schedule: Schedule) -> None:
    trajectory = Trajectory(robot, schedule)
    edges = np.array([[s.start_ns - schedule.settle_ns, s.start_ns, s.end_ns] for s in schedule.segments])
    for offset in (0, 1):
        around = (edges + offset).ravel()
        assert np.abs(trajectory.positions_at(around) - trajectory.positions_at(around - 1)).max() < 1e-5


def test_sweeps_run_as_the_segments_say(robot: Robot, schedule: Schedule) -> None:
    trajectory = Trajectory(robot, schedule)
    for segment in schedule.segments[::97]:
        if schedule.design == "dwell":
            continue
        times = np.arange(segment.start_ns - schedule.settle_ns, segment.end_ns, STEP)
        u = robot.normalise(trajectory.positions_at(times))[:, segment.joint]
        v = trajectory.velocities_at(times)[:, segment.joint] / robot.half_range[segment.joint]
        assert segment.lo - 1e-9 <= u.min() and u.max() <= segment.hi + 1e-9
        assert np.abs(v).max() <= segment.speed + 1e-9
        acceleration = schedule.joints[segment.joint].acceleration
        turn = segment.speed**2 / acceleration + segment.speed * schedule.smooth_ns / SECOND
        inner = (u > segment.lo + turn) & (u < segment.hi - turn)
        assert np.allclose(np.abs(v[inner]), segment.speed)


def _labelled(robot: Robot, schedule: Schedule, motion: Motion) -> tuple[np.ndarray, np.ndarray]:
    return robot.normalise(motion.q), schedule.labels_at(motion.times)


def test_time_spent_follows_the_commanded_density(robot: Robot, schedule: Schedule, motion: Motion) -> None:
    u, labels = _labelled(robot, schedule, motion)
    grid = schedule.grid
    cells = np.concatenate([[-1.0], 0.5 * (grid[1:] + grid[:-1]), [1.0]])
    bins = np.linspace(-1.0, 1.0, 33)
    distances = []
    for j in range(6):
        for k, _ in enumerate(schedule.levels.ids):
            mass = np.concatenate([[0.0], np.cumsum(schedule.commanded[j, k] * np.diff(cells))])
            expected = np.diff(np.interp(bins, cells, mass))
            held = u[labels[:, j] == k, j]
            counted = np.histogram(held.clip(-1, 1), bins)[0] / len(held)
            distances.append(0.5 * np.abs(counted - expected).sum())
    # In 20 minutes a joint holds each of 8 levels for 2 minutes (the tilts of a single-joint design for 1.2), or in a
    # hundred poses, ten to a bin.
    mean, highest = (0.09, 0.16) if schedule.design == "dwell" else (0.05, 0.13)
    assert np.mean(distances) < mean and max(distances) < highest


def test_a_robot_dwells_where_its_segments_say(robot: Robot) -> None:
    schedule = make_schedule(robot, duration_s=300.0, seed=4, design="dwell")
    times = np.arange(0, schedule.duration_ns, STEP)
    trajectory = Trajectory(robot, schedule)
    u, dq = robot.normalise(trajectory.positions_at(times)), trajectory.velocities_at(times)
    ids = schedule.segment_ids_at(times)
    held = ids[:, 0] >= 0
    assert (held == (ids >= 0).all(axis=1)).all(), "all joints dwell at the same time"
    assert 0.2 < held.mean() < 0.9
    targets = np.array([segment.lo for segment in schedule.segments])
    assert np.abs(u[held] - targets[ids[held]]).max() < 1e-9
    assert np.abs(dq[held]).max() < 1e-9
    assert np.abs(dq[~held]).max() > 1.0


def test_levels_are_balanced_in_number_and_time_and_in_random_order(robot: Robot, schedule: Schedule) -> None:
    if schedule.design == "single_joint":
        pytest.skip("its levels are balanced over blocks")
    for j in range(6):
        own = [s for s in schedule.segments if s.joint == j]
        counts = [sum(s.level == level for s in own) for level in schedule.levels.ids]
        assert max(counts) - min(counts) <= 1
        time = [sum(s.end_ns - s.start_ns for s in own if s.level == level) for level in schedule.levels.ids]
        assert max(time) < 1.12 * min(time)
        orders = {tuple(s.level for s in own[i : i + 8]) for i in range(0, len(own) - 8, 8)}
        assert len(orders) > len(own) / 8 - 3


def test_joints_move_independently(robot: Robot, schedule: Schedule, motion: Motion) -> None:
    u, _ = _labelled(robot, schedule, motion)
    correlation = np.corrcoef(u[::10].T) - np.eye(6)
    assert np.abs(correlation).max() < 0.15


def test_speed_does_not_tell_the_level(robot: Robot) -> None:
    schedule = make_schedule(robot, duration_s=1200.0, seed=7)
    for j, joint in enumerate(schedule.joints):
        speeds = {k: [s.speed for s in schedule.segments if s.joint == j and s.level == k] for k in schedule.levels.ids}
        means = np.array([np.mean(values) for values in speeds.values()])
        spread = (joint.max_speed - joint.min_speed) / np.sqrt(12.0)
        # Strata keep the means of some 65 segments within a tenth of what chance alone would allow them.
        assert np.abs(means - 0.5 * (joint.min_speed + joint.max_speed)).max() < 0.1 * spread
        for values in speeds.values():
            assert joint.min_speed <= min(values) and max(values) <= joint.max_speed
    times = np.arange(0, schedule.duration_ns, STEP)
    speed = np.abs(Trajectory(robot, schedule).velocities_at(times)) / robot.half_range
    labels = schedule.labels_at(times)
    for j in range(6):
        level_means = np.array([speed[labels[:, j] == k, j].mean() for k in range(8)])
        # Turns slow all levels down about alike; the end bumps turn a little more often.
        assert np.ptp(level_means) < 0.15 * level_means.mean()


def test_a_schedule_whose_times_were_changed_is_refused(robot: Robot) -> None:
    schedule = make_schedule(robot, duration_s=30.0, seed=1)
    one = next(s for s in schedule.segments[6:] if s.joint == 0)
    before = max(s.end_ns for s in schedule.segments if s.joint == 0 and s.end_ns < one.start_ns)
    rushed = dataclasses.replace(one, start_ns=before + schedule.settle_ns + schedule.smooth_ns + 20_000_000)
    segments = tuple(rushed if s == one else s for s in schedule.segments)
    with pytest.raises(ScheduleError, match=r"joint 'joint1'.*do not suffice"):
        Trajectory(robot, dataclasses.replace(schedule, segments=segments))


def test_a_schedule_without_segments_rests(robot: Robot) -> None:
    schedule = dataclasses.replace(make_schedule(robot, duration_s=30.0, seed=1), segments=())
    times = np.arange(0, 30 * SECOND, SECOND)
    assert np.allclose(Trajectory(robot, schedule).positions_at(times), robot.home)
    assert (schedule.labels_at(times) == -1).all()


# --- waypoints ---------------------------------------------------------------------------------------------------


def test_waypoint_motion_covers_the_box_within_the_limits(robot: Robot) -> None:
    motion = WaypointMotion(robot, seed=2, duration_s=120.0)
    times = np.arange(-SECOND, 121 * SECOND, STEP)
    q, dq = motion.positions_at(times), motion.velocities_at(times)
    u = robot.normalise(q)
    assert np.abs(u).max() <= 1.0
    assert (u.min(0) < -0.8).all() and (u.max(0) > 0.8).all()
    seconds = STEP / SECOND
    assert (np.abs(dq) <= 0.8 * robot.max_velocity + 1e-6).all()
    assert (np.abs(np.diff(dq, axis=0)) <= robot.max_acceleration * seconds).all()
    assert np.allclose(np.diff(q, axis=0) / seconds, 0.5 * (dq[1:] + dq[:-1]), atol=1e-4)
    outside = (times <= 0) | (times >= motion.duration_ns)
    assert np.allclose(q[outside], robot.home) and not dq[outside].any()


def test_waypoint_motion_depends_on_the_seed_alone(robot: Robot) -> None:
    times = np.arange(0, 30 * SECOND, SECOND)
    first, again, other = (WaypointMotion(robot, seed, 30.0).positions_at(times) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.allclose(first, other)


def test_waypoint_motion_needs_time(robot: Robot) -> None:
    with pytest.raises(ScheduleError, match="too short"):
        WaypointMotion(robot, 0, 0.1)

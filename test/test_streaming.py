"""What a commander says when, without any ROS."""

from __future__ import annotations

import numpy as np
import pytest

from ropes_ros.errors import ScheduleError
from ropes_ros.motion import Trajectory, WaypointMotion
from ropes_ros.regimes import NONE, RegimeState, RegimeTimeline, Schedule, make_schedule
from ropes_ros.robot import Robot, load_robot
from ropes_ros.streaming import CommandStream, Update
from ropes_ros.trajectory import TrajectoryBuffer

SECOND = 1_000_000_000
MS = 1_000_000
NOW = 1_700_000_000 * SECOND + 7_654_321
CHUNK = SECOND // 2


@pytest.fixture(scope="module")
def robot() -> Robot:
    return load_robot("arm6")


@pytest.fixture(scope="module", params=["factorial", "single_joint"])
def schedule(robot: Robot, request: pytest.FixtureRequest) -> Schedule:
    return make_schedule(robot, duration_s=40.0, seed=5, design=request.param)


class Controller:
    """A robot that follows trajectory messages to the letter, and what was said about regimes."""

    def __init__(self, robot: Robot, home: np.ndarray) -> None:
        self.buffer = TrajectoryBuffer(home, robot.lower, robot.upper)
        self.times: list[int] = []
        self.positions: list[np.ndarray] = []
        self.states: list[RegimeState] = []

    def run(self, since: int, until: int, step: int = 10 * MS) -> None:
        for time in range(since, until, step):
            self.times.append(time)
            self.positions.append(self.buffer.sample(time))

    def take(self, update: Update, now: int) -> None:
        points = update.points
        self.buffer.add(points.times_ns.tolist(), points.positions, points.velocities, now)
        self.states += update.regimes


def _stream(robot: Robot, schedule: Schedule, **options: object) -> CommandStream:
    values = {"horizon_ns": 3 * SECOND, "point_ns": 20 * MS, **options}
    return CommandStream(robot, Trajectory(robot, schedule), schedule, **values)  # type: ignore[arg-type]


def _play(
    robot: Robot,
    schedule: Schedule,
    stream: CommandStream,
    *,
    silence: tuple[int, int] = (0, 0),
    start: np.ndarray | None = None,
) -> Controller:
    """Run a robot to the end of the stream; no update gets through between the two times of `silence`."""
    controller = Controller(robot, robot.home if start is None else start)
    stream.start(NOW, start)
    now = NOW
    while not stream.done(now):
        if not silence[0] <= now - NOW < silence[1]:
            update = stream.update(now)
            if update is not None:
                controller.take(update, now)
        controller.run(now, now + CHUNK)
        now += CHUNK
    return controller


def _labels(controller: Controller, schedule: Schedule, times: np.ndarray) -> np.ndarray:
    return RegimeTimeline(controller.states, schedule.joint_names, schedule.levels.ids).labels_at(times)


def test_a_robot_follows_the_motion_and_the_labels_are_the_schedules(robot: Robot, schedule: Schedule) -> None:
    stream = _stream(robot, schedule)
    controller = _play(robot, schedule, stream)
    times, positions = np.array(controller.times), np.array(controller.positions)
    expected = Trajectory(robot, schedule).positions_at(times - stream.start_ns)
    assert np.abs(positions - expected).max() < 2e-3
    assert np.array_equal(_labels(controller, schedule, times), schedule.labels_at(times - stream.start_ns))
    assert (schedule.labels_at(times - stream.start_ns) >= 0).mean() > 0.5
    assert stream.late == 0
    assert controller.states[-1].levels == (NONE,) * 6


def test_regimes_are_numbered_ordered_ahead_of_time_and_of_the_schedule(robot: Robot, schedule: Schedule) -> None:
    stream = _stream(robot, schedule)
    stream.start(NOW)
    states: list[RegimeState] = []
    for now in range(NOW, NOW + 30 * SECOND, CHUNK):
        update = stream.update(now)
        assert update is not None
        if states:
            assert all(state.stamp_ns >= now + 2 * SECOND for state in update.regimes)
        # No label reaches beyond what the robot has been sent.
        assert all(until <= now + 3 * SECOND for state in update.regimes for until in state.until_ns)
        states += update.regimes
    assert [state.seq for state in states] == list(range(len(states)))
    stamps = [state.stamp_ns for state in states]
    assert stamps == sorted(stamps)
    assert {state.schedule_hash for state in states} == {schedule.hash}


def test_every_message_ends_in_a_stop_within_the_limits(robot: Robot, schedule: Schedule) -> None:
    stream = _stream(robot, schedule)
    stream.start(NOW)
    for now in range(NOW, NOW + 45 * SECOND, CHUNK):
        update = stream.update(now)
        if update is None:
            continue
        points = update.points
        assert points.times_ns[0] <= now < points.times_ns[1]
        assert (np.diff(points.times_ns) > 0).all()
        assert points.times_ns[-1] >= min(now + 3 * SECOND, stream.end_ns)
        assert not points.velocities[-1].any()
        seconds = np.diff(points.times_ns)[:, None] / SECOND
        assert (np.abs(np.diff(points.velocities, axis=0)) <= robot.max_acceleration * seconds + 1e-6).all()
        assert (np.abs(np.diff(points.positions, axis=0)) <= robot.max_velocity * seconds + 1e-6).all()
        assert np.abs(robot.normalise(points.positions)).max() <= 1 + 1e-6


def test_a_dead_commander_leaves_a_robot_at_rest_without_labels(robot: Robot, schedule: Schedule) -> None:
    stream = _stream(robot, schedule)
    stream.start(NOW)
    controller = Controller(robot, robot.home)
    for now in range(NOW, NOW + 10 * SECOND, CHUNK):
        update = stream.update(now)
        assert update is not None
        controller.take(update, now)
    end = now + 3 * SECOND
    times = np.arange(end, end + 5 * SECOND, 10 * MS)
    assert (_labels(controller, schedule, times) == -1).all()
    later = np.array([controller.buffer.sample(int(time)) for time in times[50:]])
    assert np.allclose(later, later[0])


@pytest.mark.parametrize("silence_s", [(8.0, 10.0), (8.0, 16.3), (8.0, 60.0), (0.6, 5.0)])
def test_after_a_silence_the_robot_is_led_back_and_labels_stay_true(
    robot: Robot, schedule: Schedule, silence_s: tuple[float, float]
) -> None:
    stream = _stream(robot, schedule)
    silence = (round(silence_s[0] * SECOND), round(silence_s[1] * SECOND))
    controller = _play(robot, schedule, stream, silence=silence)
    assert stream.late == (0 if silence_s[1] == 10.0 else 1)
    times, positions = np.array(controller.times), np.array(controller.positions)
    expected = Trajectory(robot, schedule).positions_at(times - stream.start_ns)
    labels = _labels(controller, schedule, times)
    truth = schedule.labels_at(times - stream.start_ns)
    held = labels >= 0
    assert (labels[held] == truth[held]).all()
    assert np.abs((positions - expected)[held]).max() < 2e-3
    speeds = np.abs(np.diff(positions, axis=0)) / 0.01
    assert (speeds <= robot.max_velocity + 1e-6).all()
    assert np.abs(robot.normalise(positions)).max() <= 1.0 + 1e-6
    resumed = times > NOW + silence[1] + 3 * SECOND
    assert np.array_equal(labels[resumed], truth[resumed])
    assert np.abs((positions - expected)[resumed]).max(initial=0.0) < 2e-3
    stopped = (times > NOW + silence[0] + 4 * SECOND) & (times < NOW + silence[1])
    assert (labels[stopped] == -1).all()


def test_single_targets_after_a_silence(robot: Robot, schedule: Schedule) -> None:
    """The robot stands at the last target it was sent; labels announced for the silence are taken back."""
    stream = _stream(robot, schedule, horizon_ns=SECOND // 2, streamed=True)
    motion = Trajectory(robot, schedule)
    stream.start(NOW)
    times, positions, states = [], [], []
    target = robot.home
    for now in range(NOW, NOW + 45 * SECOND, 20 * MS):
        if not 12 * SECOND <= now - NOW < 14 * SECOND:
            update = stream.update(now)
            states += update.regimes if update is not None else ()
            (target,), _ = stream.states_at(np.array([now]))
        times.append(now)
        positions.append(target)
    assert stream.late == 1
    assert len(states) < 45 * 20
    labels = RegimeTimeline(states, schedule.joint_names, schedule.levels.ids).labels_at(np.array(times))
    elapsed = np.array(times) - stream.start_ns
    held = labels >= 0
    assert np.abs((np.array(positions) - motion.positions_at(elapsed))[held]).max() < 1e-9
    assert (labels[held] == schedule.labels_at(elapsed)[held]).all()
    silent = np.flatnonzero(
        (elapsed + stream.start_ns - NOW >= 12 * SECOND) & (elapsed + stream.start_ns - NOW < 14 * SECOND)
    )
    assert (labels[silent] == -1).all()
    undisturbed = np.array(times) - NOW > 17 * SECOND
    assert np.array_equal(labels[undisturbed], schedule.labels_at(elapsed)[undisturbed])
    steps = np.abs(np.diff(np.array(positions), axis=0)) / 0.02
    assert (steps <= robot.max_velocity + 1e-6).all()


def test_the_robot_is_first_moved_slowly_from_where_it_is(robot: Robot, schedule: Schedule) -> None:
    start = robot.denormalise(np.array([0.9, -0.7, 0.3, 0.0, -1.0, 0.5]))
    stream = _stream(robot, schedule)
    controller = _play(robot, schedule, stream, start=start)
    times, positions = np.array(controller.times), np.array(controller.positions)
    approach = times < stream.start_ns
    assert np.allclose(positions[0], start)
    assert approach.sum() > 100
    assert (np.abs(np.diff(positions[approach], axis=0)) / 0.01 <= 0.21 * robot.max_velocity).all()
    assert np.allclose(positions[approach][-1], robot.home, atol=1e-2)
    assert (_labels(controller, schedule, times[approach]) == -1).all()


def test_a_position_that_is_not_a_number_is_refused(robot: Robot, schedule: Schedule) -> None:
    for wrong in (np.nan, np.inf):
        position = robot.home.copy()
        position[2] = wrong
        with pytest.raises(ScheduleError, match=f"not a number for joint {robot.joint_names[2]}"):
            _stream(robot, schedule).start(NOW, position)


def test_halting_brakes_and_takes_labels_back(robot: Robot, schedule: Schedule) -> None:
    stream = _stream(robot, schedule)
    stream.start(NOW)
    controller = Controller(robot, robot.home)
    for now in range(NOW, NOW + 10 * SECOND, CHUNK):
        update = stream.update(now)
        assert update is not None
        controller.take(update, now)
    halt = now + 123 * MS
    controller.run(now, halt)
    controller.take(stream.halt(halt), halt)
    controller.run(halt, halt + 5 * SECOND)
    positions, times = np.array(controller.positions), np.array(controller.times)
    assert (np.abs(np.diff(positions, axis=0)) / 0.01 <= robot.max_velocity).all()
    still = positions[times > halt + SECOND]
    assert np.allclose(still, still[0])
    assert (_labels(controller, schedule, times[times >= halt]) == -1).all()
    assert stream.done(halt)
    assert stream.update(halt + SECOND) is None


def test_waypoints_carry_no_regime(robot: Robot) -> None:
    stream = CommandStream(robot, WaypointMotion(robot, 1, 20.0), None, horizon_ns=3 * SECOND, point_ns=20 * MS)
    stream.start(NOW)
    states: list[RegimeState] = []
    now = NOW
    while not stream.done(now):
        update = stream.update(now)
        states += update.regimes if update is not None else ()
        now += CHUNK
    assert [(state.levels, state.seq) for state in states] == [((NONE,) * 6, 0)]
    assert 0.0 <= stream.progress(NOW) < stream.progress(NOW + 10 * SECOND) < 1.0 == stream.progress(now)

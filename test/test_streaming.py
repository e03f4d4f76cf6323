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
    followed = stream.followed_at(times)
    expected = Trajectory(robot, schedule).positions_at(followed)
    labels = _labels(controller, schedule, times)
    truth = schedule.labels_at(followed)
    held = labels >= 0
    assert (labels[held] == truth[held]).all()
    assert np.abs((positions - expected)[held]).max() < 2e-3
    speeds = np.abs(np.diff(positions, axis=0)) / 0.01
    assert (speeds <= robot.max_velocity + 1e-6).all()
    assert np.abs(robot.normalise(positions)).max() <= 1.0 + 1e-6
    resumed = times > NOW + silence[1] + 4 * SECOND
    assert np.array_equal(labels[resumed], truth[resumed])
    assert np.abs((positions - expected)[resumed & (followed >= 0)]).max(initial=0.0) < 2e-3
    for j in range(6):
        shown = held[:, j].sum() * 0.01 / (schedule.labelled_fractions[j] * 40.0)
        assert shown == pytest.approx(1.0, abs=0.02), "no part of the schedule is left out, or shown twice"
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
    elapsed = stream.followed_at(np.array(times))
    held = labels >= 0
    assert np.abs((np.array(positions) - motion.positions_at(elapsed))[held]).max() < 1e-9
    assert (labels[held] == schedule.labels_at(elapsed)[held]).all()
    silent = (np.array(times) - NOW >= 12 * SECOND) & (np.array(times) - NOW < 14 * SECOND)
    assert (labels[silent] == -1).all()
    undisturbed = np.array(times) - NOW > 17 * SECOND
    assert np.array_equal(labels[undisturbed], schedule.labels_at(elapsed)[undisturbed])
    steps = np.abs(np.diff(np.array(positions), axis=0)) / 0.02
    assert (steps <= robot.max_velocity + 1e-6).all()


class Follower:
    """A robot that follows single targets to the letter, two milliseconds apart, and what was said about regimes."""

    STEP = 2 * MS

    def __init__(self, robot: Robot, schedule: Schedule, **start: object) -> None:
        self.schedule, self.stream = schedule, _stream(robot, schedule, horizon_ns=SECOND // 2, streamed=True)
        self.stream.start(NOW, **start)  # type: ignore[arg-type]
        self.now = NOW
        self.times: list[int] = []
        self.positions: list[np.ndarray] = []
        self.states: list[RegimeState] = []

    def take(self, update: Update | None) -> None:
        self.states += update.regimes if update is not None else ()

    def run(self, seconds: float) -> None:
        end = self.now + round(seconds * SECOND / (20 * MS)) * 20 * MS
        for now in range(self.now, end, 20 * MS):
            self.take(self.stream.update(now))
            times = np.arange(now, now + 20 * MS, self.STEP)
            self.times += times.tolist()
            self.positions += list(self.stream.states_at(times)[0])
        self.now = end

    def check(self, robot: Robot) -> np.ndarray:
        """Hold motion and labels against limits and schedule; the labels."""
        q, times = np.array(self.positions), np.array(self.times)
        seconds = self.STEP / SECOND
        limits = (robot.max_velocity, robot.max_acceleration, robot.max_jerk)
        for order, limit in enumerate(limits, start=1):
            largest = np.abs(np.diff(q, n=order, axis=0)).max(0) / seconds**order
            assert (largest <= 0.8 * limit * 1.001 + 1e-9 / seconds**order).all(), f"derivative {order}"
        assert np.abs(robot.normalise(q)).max() <= 1.0 + 1e-9
        timeline = RegimeTimeline(self.states, self.schedule.joint_names, self.schedule.levels.ids)
        labels, ids = timeline.labels_at(times), timeline.segment_ids_at(times)
        followed = self.stream.followed_at(times)
        assert np.array_equal(labels, self.schedule.labels_at(followed))
        assert np.array_equal(ids, self.schedule.segment_ids_at(followed))
        expected = Trajectory(robot, self.schedule).positions_at(followed)
        assert np.abs((q - expected)[labels >= 0]).max() < 1e-9
        return labels


@pytest.mark.parametrize("at_s", [0.3, 0.96, 5.38])
def test_a_pause_brakes_and_holds_and_the_rest_follows_later(robot: Robot, schedule: Schedule, at_s: float) -> None:
    follower = Follower(robot, schedule)
    follower.run(at_s)
    follower.take(follower.stream.pause(follower.now))
    paused = follower.now
    follower.run(6.0)
    resumed = follower.now
    follower.take(follower.stream.resume(follower.now))
    follower.run(46.0 - at_s)
    assert follower.stream.done(follower.now)
    labels, times, q = follower.check(robot), np.array(follower.times), np.array(follower.positions)
    assert (labels[(times >= paused) & (times < resumed)] == -1).all()
    held = q[(times > paused + SECOND) & (times < resumed)]
    assert np.ptp(held, axis=0).max() < 1e-9
    shown = (labels >= 0).sum(axis=0) * Follower.STEP / SECOND
    assert shown == pytest.approx(schedule.labelled_fractions * 40.0, abs=0.01), "nothing is left out or shown twice"


def test_a_skip_leaves_out_the_segments_that_are_held(robot: Robot, schedule: Schedule) -> None:
    follower = Follower(robot, schedule)
    follower.run(6.0)
    reached = follower.stream.reached(follower.now)
    held = [i for i in schedule.segment_ids_at(np.array([reached]))[0].tolist() if i >= 0]
    assert held
    goal = max(schedule.segments[i].end_ns for i in held)
    follower.take(follower.stream.skip(follower.now))
    skipped = follower.now
    assert follower.stream.reached(follower.now) == goal
    follower.run(4.0)
    follower.take(follower.stream.pause(follower.now))
    follower.run(1.0)
    follower.take(follower.stream.skip(follower.now))
    follower.run(1.0)
    assert follower.stream.paused
    later = follower.stream.reached(follower.now)
    assert later > goal
    follower.take(follower.stream.resume(follower.now))
    follower.run(40.0)
    assert follower.stream.done(follower.now)
    labels = follower.check(robot)
    after = np.array(follower.times) >= skipped
    ids = follower.stream.followed_at(np.array(follower.times))
    assert not np.isin(schedule.segment_ids_at(ids)[after], held).any()
    assert (labels[after] >= 0).any()
    with pytest.raises(ScheduleError, match="no segment to skip"):
        follower.stream.skip(follower.now)


def test_an_interrupted_schedule_goes_on_where_it_stopped(robot: Robot, schedule: Schedule) -> None:
    """Both parts in one bag, by two commanders, are the whole schedule, and no segment is taken for another."""
    first = Follower(robot, schedule)
    first.run(12.0)
    first.take(first.stream.halt(first.now))
    reached = first.stream.reached(first.now)
    second = Follower(robot, schedule, begin_ns=reached)
    second.run(40.0)
    assert second.stream.done(second.now)
    second.check(robot)
    shown = [schedule.labels_at(follower.stream.followed_at(np.array(follower.times))) for follower in (first, second)]
    time = sum((labels >= 0).sum(axis=0) for labels in shown) * Follower.STEP / SECOND
    assert time == pytest.approx(schedule.labelled_fractions * 40.0, abs=0.01)
    with pytest.raises(ScheduleError, match=r"cannot go on at 40\.0 s"):
        Follower(robot, schedule, begin_ns=40 * SECOND)


def test_a_stop_says_why_in_the_regimes(robot: Robot, schedule: Schedule) -> None:
    follower = Follower(robot, schedule)
    follower.run(8.0)
    update = follower.stream.halt(follower.now, reason="joint2 does not follow")
    assert [regime.stop_reason for regime in update.regimes] == ["joint2 does not follow"]


def test_a_stop_after_the_clock_was_set_begins_where_the_robot_is(robot: Robot, schedule: Schedule) -> None:
    stream = _stream(robot, schedule)
    stream.start(NOW)
    now = NOW
    while not np.abs(stream.states_at(np.array([now]))[1]).max() > 0.5:
        stream.update(now)
        now += 20 * MS
    back = now - 100 * SECOND
    update = stream.halt(back, state_ns=now)
    points = update.points
    assert points.times_ns[0] == back and points.times_ns[-1] < back + SECOND
    assert np.allclose(points.positions[0], stream.states_at(np.array([now]))[0][0])
    assert not points.velocities[-1].any()
    assert update.regimes[0].stamp_ns == back


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

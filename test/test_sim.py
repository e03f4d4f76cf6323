"""The simulated arm: collisions, kinematics, tracking, camera; and what it makes of commands."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("mujoco")

from ropes_ros.command_messages import apply_command
from ropes_ros.errors import RobotError, RuntimeSetupError
from ropes_ros.motion import Trajectory
from ropes_ros.regimes import make_schedule
from ropes_ros.robot import Robot, load_robot
from ropes_ros.sim.agenda import Agenda
from ropes_ros.sim.arm import SimArm
from ropes_ros.sim.following import Faults, follow
from ropes_ros.sim.look import PLAIN, Look, Patch, Solid
from ropes_ros.sim.scene import mujoco
from ropes_ros.trajectory import MOST_POINTS, TrajectoryBuffer

SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def robot() -> Robot:
    return load_robot("arm6")


@pytest.fixture(scope="module")
def rendering(robot):
    try:
        arm = SimArm(robot)
    except RuntimeSetupError as error:
        pytest.skip(f"no rendering backend: {error}")
    yield arm
    arm.close()


# Physics


def test_the_whole_box_keeps_clear_of_itself_and_of_the_table(robot):
    arm = SimArm(robot, render=False)
    margin = 0.02
    arm._model.geom_margin[:] = margin  # contacts are reported from this distance on
    corners = np.array(list(itertools.product([-1.0, 1.0], repeat=6)))
    samples = np.random.default_rng(0).uniform(-1.0, 1.0, (500, 6))
    for u in np.vstack([corners, corners * [1, 1, 1, 1, 0, 1], samples]):
        arm.set_positions(robot.denormalise(u))
        mujoco.mj_kinematics(arm._model, arm._data)
        mujoco.mj_comPos(arm._model, arm._data)
        mujoco.mj_collision(arm._model, arm._data)
        assert arm._data.ncon == 0, f"u = {u}"


def test_a_continuous_joint_turns_past_where_a_revolute_one_stops(robot, tmp_path):
    urdf = robot.urdf_path.read_text()
    before, found, after = urdf.partition('<joint name="joint6" type="revolute">')
    assert found
    (tmp_path / "arm6.urdf").write_text(before + found.replace("revolute", "continuous") + after)
    preset = {**robot.preset, "urdf": "arm6.urdf"}
    turning = Robot(preset, tmp_path / "robot.yaml")
    assert turning.continuous.tolist() == [False] * 5 + [True]
    arm = SimArm(turning, render=False)
    goal = turning.home + np.array([0.0, 0.0, 0.0, 0.0, 0.0, 3.1])
    assert goal[5] > robot.upper[5]
    arm.step_to(3.0, lambda t: turning.home + min(t / 2.0, 1.0) * (goal - turning.home))
    np.testing.assert_allclose(arm.positions(), goal, atol=0.01)


def test_beyond_the_box_the_arm_does_touch(robot):
    # So that the test above can fail: bent all the way down, the arm meets the table.
    arm = SimArm(robot, render=False)
    arm.set_positions([0.0, 1.6, 1.2, 1.0, 0.0, 0.0])
    mujoco.mj_kinematics(arm._model, arm._data)
    mujoco.mj_comPos(arm._model, arm._data)
    mujoco.mj_collision(arm._model, arm._data)
    assert arm._data.ncon > 0


def test_both_engines_read_the_same_kinematics(robot):
    arm = SimArm(robot, render=False)
    for u in np.random.default_rng(1).uniform(-1, 1, (20, 6)):
        q = robot.denormalise(u)
        arm.set_positions(q)
        mujoco.mj_kinematics(arm._model, arm._data)
        for link in robot.links:
            position, quaternion = robot.fk(q, link)
            body = arm._data.body(link)
            np.testing.assert_allclose(body.xpos, position, atol=1e-6)
            assert abs(np.roll(body.xquat, -1) @ quaternion) == pytest.approx(1.0, abs=1e-6)


def test_it_follows_sweeps_of_one_radian_per_second(robot):
    arm = SimArm(robot, render=False)
    amplitude = 0.9 * robot.half_range

    def command(t):
        return robot.home + amplitude * np.sin(t / amplitude)

    errors = []
    for i in range(1, 240):
        arm.step_to(i / 30, command)
        errors.append(arm.positions() - command(arm.time))
    assert np.degrees(np.abs(errors)).max() < 1.5


def test_it_holds_still_against_gravity_and_reports_motion(robot):
    arm = SimArm(robot, render=False)
    goal = robot.denormalise([0.5, -0.5, 0.5, -0.5, 0.5, -0.5])
    arm.step_to(0.05, lambda t: goal)
    assert np.abs(arm.velocities()).min() > 0.1
    arm.step_to(3.0, lambda t: goal)
    np.testing.assert_allclose(arm.positions(), goal, atol=1e-3)
    np.testing.assert_allclose(arm.velocities(), 0.0, atol=1e-3)


def test_steps_land_on_the_time_asked_for(robot):
    arm = SimArm(robot, render=False)
    asked = []
    arm.step_to(1 / 30, lambda t: (asked.append(t), robot.home)[1])
    assert arm.time == 1 / 30
    assert asked[-1] == pytest.approx(1 / 30)
    assert np.diff([0.0, *asked]).max() <= 0.002 + 1e-12
    arm.step_to(0.01, lambda t: pytest.fail("time does not run backwards"))
    assert arm.time == 1 / 30


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.pop("sim"), "no section sim.camera"),
        (lambda p: p["sim"]["camera"].update(zoom=2), "must have the keys position, look_at, fovy"),
        (lambda p: p["sim"]["camera"].update(position=[1, 2]), "sim.camera.position must be 3 finite"),
        (lambda p: p["sim"]["actuators"].update(damping="much"), "sim.actuators.damping must be 6 finite"),
    ],
)
def test_a_preset_that_cannot_be_simulated_says_why(robot, change, message):
    preset = {**robot.preset, "sim": {key: dict(value) for key, value in robot.preset["sim"].items()}}
    change(preset)
    with pytest.raises(RobotError, match=message):
        SimArm(Robot(preset, robot.urdf_path.parent / "robot.yaml"), render=False)


# Camera


def project(arm: SimArm, points: np.ndarray) -> np.ndarray:
    """Pixel coordinates (N, 2) of points (N, 3) in the base frame."""
    position, (x, y, z, w) = arm.camera_pose()
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    image = (points - position) @ rotation @ arm.intrinsics().T
    return image[:, :2] / image[:, 2:]


def test_the_camera_is_the_pinhole_that_it_says(robot, rendering):
    # The orange tool is drawn around the point where forward kinematics, pose and intrinsics put it.
    checked = 0
    for u in np.random.default_rng(4).uniform(-1, 1, (40, 6)):
        q = robot.denormalise(u)
        rendering.set_positions(q)
        image = rendering.render().astype(int)
        red, green, blue = image[..., 0], image[..., 1], image[..., 2]
        tool = (red > 110) & (blue < 20) & (green > 0.35 * red) & (green < 0.65 * red)
        if tool.sum() < 60:
            continue  # hidden
        position, quaternion = robot.fk(q)
        axis = 2 * np.array(
            [
                quaternion[0] * quaternion[2] + quaternion[3] * quaternion[1],
                quaternion[1] * quaternion[2] - quaternion[3] * quaternion[0],
                0.5 - quaternion[0] ** 2 - quaternion[1] ** 2,
            ]
        )
        middle = project(rendering, (position - 0.03 * axis)[None])[0]
        rows, columns = np.nonzero(tool)
        seen = np.array([columns.mean(), rows.mean()])
        assert np.linalg.norm(seen - middle) < 4.0, f"u = {u}"
        checked += 1
    assert checked >= 15


def test_the_tool_stays_in_view(robot, rendering):
    u = np.random.default_rng(5).uniform(-1, 1, (1000, 6))
    pixels = project(rendering, robot.fk(robot.denormalise(u))[0])
    assert (pixels >= 0).all() and (pixels <= [319, 239]).all()


def test_every_joint_shows(robot, rendering):
    rng, step = np.random.default_rng(6), np.radians(5.0)
    change = np.zeros(6)
    for u in rng.uniform(-0.9, 0.9, (15, 6)):
        rendering.set_positions(robot.denormalise(u))
        before = rendering.render().astype(float)
        for j in range(6):
            rendering.set_positions(robot.denormalise(u) + step * np.eye(6)[j])
            change[j] += np.abs(rendering.render() - before).mean() / 15
    assert change.min() > 0.4  # grey levels of 255, averaged over all pixels
    assert change.max() < 8 * change.min()


def test_pictures_are_new_rgb_arrays_of_the_size_asked_for(robot, rendering):
    arm = SimArm(robot, 96, 64)
    first = arm.render()
    assert first.shape == (64, 96, 3) and first.dtype == np.uint8 and first.flags.c_contiguous
    arm.set_positions(robot.denormalise(np.ones(6)))
    assert not np.array_equal(first, arm.render())
    assert np.array_equal(first, SimArm(robot, 96, 64).render())
    arm.close()


def test_the_seed_changes_the_surroundings_only_a_little(robot, rendering):
    plain, other = rendering_of(robot, 0), rendering_of(robot, 1)
    difference = np.abs(plain.astype(int) - other.astype(int))
    assert 0 < difference.mean() < 12


def rendering_of(robot: Robot, seed: int) -> np.ndarray:
    arm = SimArm(robot, 80, 60, seed=seed)
    image = arm.render()
    arm.close()
    return image


def test_rendering_must_have_been_asked_for(robot):
    with pytest.raises(RuntimeSetupError, match="render=False"):
        SimArm(robot, render=False).render()


# Surroundings of one picture


def test_a_look_lasts_for_one_picture(robot, rendering):
    rendering.set_positions(robot.home)
    plain, place = rendering.render(), rendering.camera_pose()
    everything = Look(
        lamp_direction=np.array([1.0, 0.0, -1.0]),
        lamp_rgb=np.array([0.6, 0.3, 0.1]),
        ambient_rgb=np.full(3, 0.3),
        bulb_position=np.array([0.0, -1.5, 1.0]),
        bulb_rgb=np.array([0.1, 0.2, 0.4]),
        table_rgb=np.array([0.1, 0.5, 0.1]),
        camera_shift=np.array([0.02, 0.0, 0.0]),
        camera_turn=np.array([0.0, 0.0, 0.02]),
        solids=(Solid("box", np.full(3, 0.1), np.array([0.5, -0.3, 0.4]), np.eye(3), np.ones(3)),),
        patches=(Patch(0, 0, np.full((8, 8, 3), 200, np.uint8), np.ones((8, 8), bool)),),
    )
    single = {name: getattr(everything, name) for name in Look._fields if name not in ("bulb_position", "bulb_rgb")}
    single["bulb"] = None
    for name, value in single.items():
        bulb = {"bulb_position": everything.bulb_position, "bulb_rgb": everything.bulb_rgb}
        changed = rendering.render(Look(**(bulb if name == "bulb" else {name: value})))
        assert not np.array_equal(changed, plain), name
        np.testing.assert_array_equal(rendering.render(), plain, err_msg=name)
    for now, before in zip(rendering.camera_pose(), place, strict=True):
        np.testing.assert_array_equal(now, before)


def test_a_moved_camera_sees_what_a_camera_at_that_place_would(robot, rendering):
    def middle(look: Look) -> np.ndarray:
        """Mean row and column of the arm's coloured pixels."""
        image = rendering.render(look).astype(int)
        return np.argwhere(np.ptp(image, axis=-1) > 60).mean(axis=0)

    rendering.set_positions(robot.home)
    focal, angle = rendering.intrinsics()[0, 0], 0.02
    plain = middle(PLAIN)
    # Turned to the left about its upward axis, it sees everything f tan(angle) = 8.3 pixels further right.
    turned = middle(Look(camera_turn=np.array([0.0, angle, 0.0])))
    np.testing.assert_allclose(turned - plain, [0.0, focal * np.tan(angle)], atol=1.0)
    # Moved up by 5 cm, it sees the arm, 1.6 to 2.4 m away, 9 to 13 pixels lower.
    row, column = middle(Look(camera_shift=np.array([0.0, 0.05, 0.0]))) - plain
    assert 8.7 < row < 13.0 and abs(column) < 1.0


@pytest.mark.parametrize(
    ("left", "top", "rows", "columns"),
    [
        (1, 1, (1, 3), (1, 4)),
        (-2, -1, (0, 1), (0, 1)),
        (5, 3, (3, 4), (5, 6)),
        (9, 9, (0, 0), (0, 0)),
        (-5, 0, (0, 0), (0, 0)),
    ],
)
def test_patches_are_cut_off_at_the_pictures_edge(left, top, rows, columns):
    picture = np.zeros((4, 6, 3), np.uint8)
    mask = np.ones((2, 3), bool)
    Patch(left, top, np.full((2, 3, 3), 9, np.uint8), mask).lay_over(picture)
    expected = np.zeros((4, 6), bool)
    expected[slice(*rows), slice(*columns)] = True
    np.testing.assert_array_equal(picture[..., 0] == 9, expected)


def test_a_patch_covers_only_its_mask():
    picture = np.zeros((4, 4, 3), np.uint8)
    Patch(-1, 0, np.full((2, 3, 3), 9, np.uint8), np.array([[1, 0, 1], [1, 1, 0]], bool)).lay_over(picture)
    np.testing.assert_array_equal(picture[:2, :3, 0], [[0, 9, 0], [9, 0, 0]])


# Following a schedule


@pytest.fixture(scope="module")
def schedule(robot):
    return make_schedule(robot, duration_s=12.0, seed=1)


def followed(robot, schedule, **faults) -> np.ndarray:
    return follow(robot, schedule, frames=360, rate=30, faults=Faults(**{"sag": 0.0, **faults}), seed=0)


def test_the_arm_lags_behind_its_schedule(robot, schedule):
    reached = followed(robot, schedule)
    times = np.arange(1, 361) / 30

    def error(lag: float) -> float:
        commanded = Trajectory(robot, schedule).positions_at(((times - lag) * SECOND).astype(np.int64))
        return np.abs(reached - commanded).mean()

    # Damping over stiffness is 15 ms for all joints, which is the lag behind a steady motion.
    assert error(0.015) < 0.3 * error(0.0)
    assert np.degrees(error(0.0)) < 1.0


def test_sag_is_as_large_as_it_says_and_pulls_down(robot, schedule):
    exact, sagging = (followed(robot, schedule, sag=sag) for sag in (0.0, 0.1))
    deflection = sagging - exact
    assert 0.05 < np.abs(deflection).max() <= 0.1 * 1.05  # the worst pose is found by sampling
    assert np.abs(deflection[:, 0]).max() < 1e-9  # the first axis is upright
    lower = robot.fk(sagging)[0][:, 2] < robot.fk(exact)[0][:, 2]
    assert lower.mean() > 0.95


def test_backlash_is_a_play_of_its_width(robot, schedule):
    exact, loose = (followed(robot, schedule, backlash_rad=width) for width in (0.0, 0.04))
    gap = loose - exact
    assert np.abs(gap).max() <= 0.02 + 1e-12
    moving = np.abs(np.diff(exact, axis=0)) > 0.012
    assert (np.abs(np.abs(gap[1:][moving]) - 0.02) < 1e-9).mean() > 0.5  # dragged at the end of the play
    still = (np.diff(loose, axis=0) == 0).mean()
    assert still > 0.02  # and standing while the motor turns round


def test_commands_left_out_leave_the_joint_where_it_was(robot, schedule):
    exact, faulty = followed(robot, schedule), followed(robot, schedule, unexecuted=0.2)
    segments = schedule.segment_ids_at((np.arange(1, 361) * SECOND / 30).astype(np.int64))
    still, differing = set(), set()
    for joint in range(6):
        for segment in set(segments[:, joint].tolist()) - {-1}:
            inside = np.flatnonzero(segments[:, joint] == segment)[-10:]
            if np.ptp(faulty[inside, joint]) < 5e-3 < np.ptp(exact[inside, joint]):
                still.add(segment)
            if np.abs(faulty[inside, joint] - exact[inside, joint]).max() > 5e-3:  # other joints shake it a little
                differing.add(segment)
    assert len(still) == round(0.2 * len(schedule.segments)) == 5
    assert differing == still  # by the end of the next segment, the joint has caught up
    speed = np.abs(np.diff(faulty, axis=0)) * 30
    assert (speed.max(axis=0) < 1.2 * robot.max_velocity).all()


# Agenda


def test_images_fall_together_with_joint_states_and_never_drift():
    agenda = Agenda(image_rate=30.0, state_rate=60.0)
    entries = [entry for until in range(0, 10 * SECOND + 1, SECOND // 7) for entry in agenda.due(until)]
    entries += agenda.due(10 * SECOND)
    assert len(entries) == 600
    assert [time for time, image in entries if image] == [round(i * SECOND / 30) for i in range(1, 301)]


def test_rates_that_do_not_divide_keep_their_own_times():
    entries = list(Agenda(image_rate=4.0, state_rate=10.0).due(SECOND))
    assert [time for time, image in entries if image] == [SECOND // 4, SECOND // 2, 3 * SECOND // 4, SECOND]
    assert [time // 1_000_000 for time, _ in entries] == [100, 200, 250, 300, 400, 500, 600, 700, 750, 800, 900, 1000]


def test_of_late_images_only_the_newest_is_taken():
    agenda = Agenda(image_rate=10.0, state_rate=1.0)
    assert agenda.skip_late_images(SECOND // 20) == 0
    assert agenda.skip_late_images(SECOND) == 9
    assert list(agenda.due(SECOND)) == [(SECOND, True)]
    assert agenda.next_ns == agenda.next_image_ns == SECOND + SECOND // 10


# Trajectory buffer


def buffer() -> TrajectoryBuffer:
    return TrajectoryBuffer(np.array([0.5]), np.array([-2.0]), np.array([2.0]))


def column(*values: float) -> np.ndarray:
    return np.array(values)[:, None]


def test_the_start_holds_until_the_first_command_which_is_approached_from_now():
    commands = buffer()
    assert commands.end_ns is None
    assert commands.sample(5 * SECOND) == 0.5
    commands.add([3 * SECOND, 4 * SECOND], column(1.5, 1.0), None, now_ns=1 * SECOND)
    assert commands.sample(1 * SECOND) == 0.5
    assert commands.sample(2 * SECOND) == pytest.approx(1.0)
    assert commands.sample(3 * SECOND + SECOND // 2) == pytest.approx(1.25)
    assert commands.sample(9 * SECOND) == 1.0
    assert commands.end_ns == 4 * SECOND


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_velocity_that_is_no_number_is_not_known():
    """Velocities are checked for being finite, and may overflow all the same."""
    commands = buffer()
    commands.add([SECOND, 2 * SECOND], column(0.0, 0.0), column(1e308, 1e308), now_ns=SECOND)
    for time_ns in range(SECOND, 2 * SECOND + 10**7, 10**6):
        velocity = commands.velocity(time_ns)
        assert velocity is None or np.isfinite(velocity).all()


def test_with_velocities_a_cubic_is_followed_exactly():
    def cubic(t):
        return 0.2 * t**3 - 0.5 * t**2 + 0.3 * t - 0.1

    def slope(t):
        return 0.6 * t**2 - t + 0.3

    times = np.array([0.0, 0.4, 1.3, 2.0])
    commands = buffer()
    commands.add(
        (times * SECOND).astype(int).tolist(), cubic(times)[:, None], slope(times)[:, None], now_ns=0
    )
    for t in np.linspace(0, 2, 41):
        assert commands.sample(round(t * SECOND)) == pytest.approx(cubic(t), abs=1e-7)


def test_a_new_chunk_replaces_what_follows_its_first_point_and_nothing_before():
    commands = buffer()
    commands.add([0, SECOND, 2 * SECOND, 3 * SECOND], column(0.0, 1.0, 2.0, -1.0), None, now_ns=0)
    commands.add([2 * SECOND, 4 * SECOND], column(0.0, 2.0), None, now_ns=SECOND // 2)
    assert commands.sample(SECOND // 2) == pytest.approx(0.5)
    assert commands.sample(SECOND) == 1.0
    assert commands.sample(3 * SECOND // 2) == pytest.approx(0.5)
    assert commands.sample(3 * SECOND) == pytest.approx(1.0)
    assert commands.end_ns == 4 * SECOND


def test_points_ahead_of_the_clock_do_not_pile_up_without_end():
    """A publisher whose stamps run ahead: what is known stays, and memory does not grow."""
    commands = buffer()
    each = MOST_POINTS // 4
    for chunk in range(4):
        commands.add([chunk * SECOND + i for i in range(each)], column(*[chunk] * each), None, now_ns=0)
    with pytest.raises(RobotError, match="ahead of the present time"):
        commands.add([5 * SECOND, 6 * SECOND], column(1.0, 1.0), None, now_ns=0)
    assert commands.sample(7 * SECOND) == 2.0  # 3 rad, clipped: the last chunk that was taken
    commands.add([5 * SECOND, 6 * SECOND], column(1.0, 1.0), None, now_ns=2 * SECOND)
    assert commands.sample(7 * SECOND) == 1.0


def test_a_chunk_that_comes_after_the_end_starts_from_where_the_arm_was_told_to_be():
    commands = buffer()
    commands.add([0, SECOND], column(0.0, 1.0), None, now_ns=0)
    commands.add([6 * SECOND], column(-1.0), None, now_ns=4 * SECOND)
    assert commands.sample(4 * SECOND) == 1.0
    assert commands.sample(5 * SECOND) == pytest.approx(0.0)


def test_a_replan_in_the_middle_of_a_move_does_not_jump():
    commands = buffer()
    commands.add([0, 2 * SECOND], column(0.0, 2.0), None, now_ns=0)
    commands.add([3 * SECOND // 2], column(0.0), None, now_ns=SECOND)
    assert commands.sample(SECOND) == pytest.approx(1.0)
    assert commands.sample(5 * SECOND // 4) == pytest.approx(0.5)
    assert commands.sample(2 * SECOND) == 0.0


def test_commands_are_clipped_and_the_past_is_forgotten():
    commands = buffer()
    for i in range(1000):
        commands.add([i * SECOND, (i + 1) * SECOND], column(9.0, -9.0), None, now_ns=i * SECOND)
    assert len(commands._times) < 5
    assert commands.sample(999 * SECOND) == 2.0
    assert commands.sample(1000 * SECOND) == -2.0


# Command messages


def duration(seconds: float) -> SimpleNamespace:
    return SimpleNamespace(sec=int(seconds), nanosec=round((seconds % 1) * SECOND))


def trajectory(robot: Robot, points, names=None, stamp: float = 0.0, velocities=None) -> SimpleNamespace:
    """A JointTrajectory of (seconds, positions) points."""
    return SimpleNamespace(
        header=SimpleNamespace(stamp=duration(stamp)),
        joint_names=list(names or robot.joint_names),
        points=[
            SimpleNamespace(
                positions=positions, velocities=velocities[i] if velocities else [], time_from_start=duration(t)
            )
            for i, (t, positions) in enumerate(points)
        ],
    )


@pytest.fixture
def commands(robot) -> TrajectoryBuffer:
    return TrajectoryBuffer(robot.home, robot.lower, robot.upper)


def test_a_trajectory_counts_from_its_stamp_and_is_put_in_the_robots_order(robot, commands):
    values = np.linspace(-0.3, 0.6, 6)
    message = trajectory(
        robot, [(0.0, list(robot.home[::-1])), (1.0, list(values[::-1]))], robot.joint_names[::-1], stamp=10.0
    )
    assert apply_command(message, "JointTrajectory", robot, commands, now_ns=5 * SECOND)
    np.testing.assert_allclose(commands.sample(11 * SECOND), values)
    np.testing.assert_allclose(commands.sample(10 * SECOND + SECOND // 2), (robot.home + values) / 2)


def test_without_a_stamp_a_trajectory_counts_from_now(robot, commands):
    apply_command(trajectory(robot, [(2.0, [0.1] * 6)]), "JointTrajectory", robot, commands, now_ns=7 * SECOND)
    assert commands.end_ns == 9 * SECOND


def test_velocities_reach_the_buffer(robot, commands):
    message = trajectory(robot, [(1.0, [0.0] * 6), (2.0, [0.0] * 6)], velocities=[[1.0] * 6, [1.0] * 6])
    apply_command(message, "JointTrajectory", robot, commands, now_ns=SECOND)
    assert commands.sample(2 * SECOND + SECOND // 4)[0] == pytest.approx(0.25 * 0.75**2 - 0.25**2 * 0.75)


@pytest.mark.parametrize(
    ("command_type", "message"),
    [
        ("Float64MultiArray", SimpleNamespace(data=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6])),
        (
            "JointState",
            SimpleNamespace(
                name=[f"joint{i}" for i in (6, 5, 4, 3, 2, 1)], position=[0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
            ),
        ),
    ],
)
def test_position_commands_hold_from_now_on(robot, commands, command_type, message):
    assert apply_command(message, command_type, robot, commands, now_ns=3 * SECOND)
    np.testing.assert_allclose(commands.sample(3 * SECOND), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    np.testing.assert_allclose(commands.sample(8 * SECOND), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])


def test_a_command_beyond_the_limits_is_clipped_and_reported(robot, commands):
    message = SimpleNamespace(data=[9.0, 0.2, 0.3, 0.4, 0.5, -9.0])
    assert not apply_command(message, "Float64MultiArray", robot, commands, now_ns=0)
    command = commands.sample(0)
    assert (command[0], command[5]) == (robot.upper[0], robot.lower[5])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda r: trajectory(r, [(1, [0.0] * 6)], [*r.joint_names[:5], "gripper"]), "joint 'gripper' is not one of"),
        (lambda r: trajectory(r, [(1, [0.0] * 5)], r.joint_names[:5]), "joint 'joint6'.*exactly once"),
        (lambda r: trajectory(r, [(1, [0.0] * 6)], [*r.joint_names[:5], "joint1"]), "'joint1'.*exactly once"),
        (lambda r: trajectory(r, [(1, [0.0] * 5 + [float("nan")])]), "positions holds a value that is not finite"),
        (lambda r: trajectory(r, [(1, [0.0] * 6)], velocities=[[np.inf] * 6]), "velocities holds a value"),
        (lambda r: trajectory(r, [(1, [0.0] * 5)]), "positions must hold 6 values"),
        (lambda r: trajectory(r, [(1, [0.0] * 6), (1, [0.0] * 6)]), "must increase"),
        (lambda r: trajectory(r, []), "without points"),
    ],
)
def test_a_senseless_trajectory_is_refused_and_changes_nothing(robot, commands, make, message):
    with pytest.raises(RobotError, match=message):
        apply_command(make(robot), "JointTrajectory", robot, commands, now_ns=0)
    assert commands.end_ns is None

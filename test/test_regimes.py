"""Densities, level sets, schedules, and what is said about regimes on the wire."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from rosbags.typesys import Stores, get_typestore

from ropes_ros.densities import Density, density_from_mapping
from ropes_ros.errors import BagError, ScheduleError
from ropes_ros.regimes import (
    NONE,
    REACH_NS,
    Bump,
    Levels,
    Observational,
    RegimeState,
    RegimeTimeline,
    Schedule,
    Tilt,
    make_schedule,
    regime_from_msg,
)
from ropes_ros.robot import Robot, load_robot

DENSITIES = [
    Tilt(2.0),
    Tilt(-3.0, 0.1),
    Bump(0.2, 0.15),
    Bump(-0.9375, 0.15),
    Bump(1.0, 0.4, 0.2),
    Observational(),
]
SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def robot() -> Robot:
    return load_robot("arm6")


@pytest.fixture(scope="module")
def schedule(robot: Robot) -> Schedule:
    return make_schedule(robot, duration_s=1200.0, seed=3)


# --- densities ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("density", DENSITIES, ids=repr)
def test_pdf_integrates_to_the_cdf(density: Density) -> None:
    u = np.linspace(-1.0, 1.0, 20001)
    steps = 0.5 * (density.pdf(u)[1:] + density.pdf(u)[:-1]) * np.diff(u)
    assert np.allclose(np.cumsum(steps), density.cdf(u)[1:], atol=1e-6)
    assert density.cdf(1.0) == pytest.approx(1.0, abs=1e-12)
    assert density.cdf(-1.0) == pytest.approx(0.0, abs=1e-12)
    assert density.pdf([-1.0001, 1.0001]).tolist() == [0.0, 0.0]
    assert np.isneginf(density.log_pdf(2.0))


@pytest.mark.parametrize("density", DENSITIES, ids=repr)
def test_quantile_inverts_the_cdf(density: Density) -> None:
    p = np.linspace(0.0, 1.0, 501)
    assert np.allclose(density.cdf(density.quantile(p)), p, atol=1e-12)


@pytest.mark.parametrize("density", DENSITIES, ids=repr)
def test_score_is_the_slope_of_the_log_density(density: Density) -> None:
    u = np.linspace(-0.99, 0.99, 101)
    slope = (density.log_pdf(u + 1e-6) - density.log_pdf(u - 1e-6)) / 2e-6
    assert np.allclose(density.score(u), slope, atol=1e-5)


def _kolmogorov(density: Density, sample: np.ndarray) -> float:
    """Kolmogorov-Smirnov distance times sqrt(n); above 1.95 with probability 0.001 if the sample follows."""
    n = sample.size
    c = density.cdf(np.sort(sample.ravel()))
    return float(np.sqrt(n) * max((np.arange(1, n + 1) / n - c).max(), (c - np.arange(n) / n).max()))


@pytest.mark.parametrize("density", DENSITIES, ids=repr)
def test_samples_follow_the_density(density: Density) -> None:
    sample = density.sample(np.random.default_rng(5), (40, 1000))
    assert sample.shape == (40, 1000)
    assert _kolmogorov(density, sample) < 1.95


@pytest.mark.parametrize("density", DENSITIES, ids=repr)
def test_uniform_points_of_random_slices_follow_the_density(density: Density) -> None:
    rng = np.random.default_rng(6)
    lo, hi = density.slices(rng.random(20000))
    assert _kolmogorov(density, rng.uniform(lo, hi)) < 1.95


@pytest.mark.parametrize("density", DENSITIES[:-1], ids=repr)
def test_superlevel_sets_end_where_the_density_crosses_the_height(density: Density) -> None:
    top = float(density.pdf(density.mode))
    heights = np.linspace(0.01, 0.99, 50) * top
    lo, hi = density.superlevel(heights)
    for end, inside in ((lo, 1.0), (hi, -1.0)):
        open_ = np.abs(end) < 1.0
        assert np.allclose(density.pdf(end[open_]), heights[open_], rtol=1e-6)
        cut = ~open_
        assert (density.pdf(end[cut]) >= heights[cut] * (1 - 1e-9)).all()
        assert (np.sign(inside * (density.mode - end)) >= 0).all()


def test_log_density_ratio_of_opposite_tilts_is_linear_up_to_the_floor() -> None:
    u = np.linspace(-1.0, 1.0, 101)
    almost = Tilt(2.0, 1e-9).log_pdf(u) - Tilt(-2.0, 1e-9).log_pdf(u)
    assert np.allclose(almost, 4.0 * u, atol=1e-6)
    floored = Tilt(2.0).log_pdf(u) - Tilt(-2.0).log_pdf(u)
    assert np.abs(floored - 4.0 * u).max() < 0.6
    assert (np.diff(floored) > 0).all()


@pytest.mark.parametrize(
    ("levels", "noise"),
    [(Levels.bumps(8, 0.15), 0.167), (Levels.bumps(4, 0.25), 0.296), (Levels.tilts(2.0), 0.881)],
)
def test_label_noise(levels: Levels, noise: float) -> None:
    assert levels.label_noise() == pytest.approx(noise, abs=0.001)


@pytest.mark.parametrize("levels", [Levels.bumps(8, 0.15), Levels.tilts(2.0)])
def test_a_schedules_label_noise_is_that_of_the_commanded_densities(robot: Robot, levels: Levels) -> None:
    """Against the information from many frames: the variance of the score of the level that was drawn."""
    schedule = make_schedule(robot, duration_s=60.0, seed=0, levels=levels)
    rng = np.random.default_rng(0)
    law, grid = schedule.commanded[0], schedule.grid
    information = []
    for level in rng.integers(len(levels), size=len(levels) * 300):
        weights = law[level] / law[level].sum()
        u = rng.choice(grid, size=20, p=weights)
        h = grid[1] - grid[0]
        logs = np.stack([np.log([np.interp(u + d, grid, row) for row in law]) for d in (-h, h)])
        posterior = logs - np.log(np.exp(logs).sum(axis=1, keepdims=True))
        information.append((((posterior[1] - posterior[0])[level] / (2 * h)) ** 2).mean())
    assert schedule.label_noise == pytest.approx(1.0 / np.sqrt(np.mean(information)), rel=0.05)
    # Turns near the ends of the box shape the commanded densities there.
    assert schedule.label_noise == pytest.approx(levels.label_noise(), rel=0.08)


def test_fisher_information_is_the_curvature_of_the_expected_log_likelihood() -> None:
    levels, u, step = Levels.bumps(), 0.37, 1e-3
    expected = [(levels.posterior(u) * np.log(levels.posterior(u + offset))).sum() for offset in (-step, 0.0, step)]
    curvature = -(expected[0] - 2 * expected[1] + expected[2]) / step**2
    assert levels.fisher_information(u) == pytest.approx(curvature, rel=1e-3)


def test_default_bumps_cover_the_box_and_stay_informative_at_its_ends() -> None:
    levels = Levels.bumps()
    u = np.linspace(-1.0, 1.0, 401)
    mixture = levels.pdf(u).mean(0)
    assert mixture.min() > 0.45 and mixture.max() < 0.6
    assert (levels.fisher_information(u) ** -0.5 < 0.4).all()


@pytest.mark.parametrize(
    "densities",
    [
        {"narrow": Bump(0.0, 0.25), "wide": Bump(0.0, 1.0)},
        {"narrow": Bump(0.3, 0.25), "wide": Bump(0.3, 1.0)},
        {"a": Bump(-0.6, 0.03), "b": Bump(0.6, 0.03)},
        {"a": Tilt(2.0), "b": Tilt(2.0)},
    ],
)
def test_level_sets_that_do_not_tell_u_are_refused(densities: dict[str, Density]) -> None:
    with pytest.raises(ScheduleError, match="same posterior"):
        Levels(densities)


def test_different_widths_about_different_centres_are_accepted() -> None:
    assert len(Levels({"a": Bump(-0.8, 0.5), "b": Bump(0.1, 0.6), "c": Bump(0.9, 0.5)})) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Levels({"a": Tilt(1.0)}), "at least two"),
        (lambda: Levels({NONE: Tilt(1.0), "b": Tilt(-1.0)}), "level id 'none'"),
        (lambda: Bump(0.0, 0.0), "sigma"),
        (lambda: Bump(1.5, 0.1), "center"),
        (lambda: Tilt(0.0), "t must"),
        (lambda: Tilt(2.0, 0.0), "floor"),
        (lambda: density_from_mapping({"type": "bump", "center": 0.0}), "'sigma' is missing"),
        (lambda: density_from_mapping({"type": "tilt", "t": 1.0, "u": 2}), "unknown parameter 'u'"),
        (lambda: density_from_mapping({"type": "tilt", "t": "steep"}), "t must be a number"),
        (lambda: density_from_mapping({"type": "observational", "floor": 0.1}), "unknown parameter 'floor'"),
        (lambda: density_from_mapping({"type": "cauchy"}), "tilt, bump, observational"),
    ],
)
def test_unusable_densities_and_levels_are_named(make: object, message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        make()  # type: ignore[operator]


# --- schedules ---------------------------------------------------------------------------------------------------


def test_yaml_round_trip_is_exact(schedule: Schedule) -> None:
    text = schedule.to_yaml()
    again = Schedule.from_yaml(text)
    assert again == schedule
    assert again.hash == schedule.hash
    assert np.array_equal(again.commanded, schedule.commanded)
    assert len(text) < 110 * len(schedule.segments)


def test_hash_depends_on_content_not_on_formatting(robot: Robot, schedule: Schedule) -> None:
    spaced = "# a comment\n" + schedule.to_yaml().replace(", ", ",  ")
    assert Schedule.from_yaml(spaced).hash == schedule.hash
    assert make_schedule(robot, duration_s=1200.0, seed=3).hash == schedule.hash
    assert make_schedule(robot, duration_s=1200.0, seed=4).hash != schedule.hash


def test_most_of_the_time_is_labelled(schedule: Schedule) -> None:
    assert schedule.labelled_fractions.mean() >= 0.65
    times = np.arange(0, schedule.duration_ns, 10_000_000)
    labels = schedule.labels_at(times)
    assert labels.dtype == np.int16
    assert (labels >= 0).mean(axis=0) == pytest.approx(schedule.labelled_fractions, abs=1e-3)


def test_windows_are_half_open(schedule: Schedule) -> None:
    for number in (0, 17, len(schedule.segments) - 1):
        segment = schedule.segments[number]
        edges = np.array([segment.start_ns - 1, segment.start_ns, segment.end_ns - 1, segment.end_ns])
        level = schedule.levels.ids.index(segment.level)
        assert schedule.labels_at(edges)[:, segment.joint].tolist() == [-1, level, level, -1]
        assert schedule.segment_ids_at(edges)[:, segment.joint].tolist() == [-1, number, number, -1]
    assert (schedule.labels_at(np.array([-1, 0, schedule.duration_ns])) == -1).all()


def test_levels_are_balanced_in_every_joint(schedule: Schedule) -> None:
    counts = np.zeros((6, 8))
    for segment in schedule.segments:
        counts[segment.joint, schedule.levels.ids.index(segment.level)] += 1
    assert (counts.max(1) - counts.min(1) <= 1).all()
    assert (counts > 50).all()


def test_joints_hold_their_levels_independently(schedule: Schedule) -> None:
    labels = schedule.labels_at(np.arange(0, schedule.duration_ns, 20_000_000))
    distances = []
    for a in range(6):
        for b in range(a):
            both = labels[(labels[:, a] >= 0) & (labels[:, b] >= 0)]
            table = np.zeros((8, 8))
            np.add.at(table, (both[:, a], both[:, b]), 1.0 / len(both))
            product = table.sum(1, keepdims=True) * table.sum(0)
            distances.append(0.5 * np.abs(table - product).sum())
    # Segments that overlap at random give 0.12 +- 0.02 over 20 minutes; two joints in step would give 0.87.
    assert max(distances) < 0.2
    orders = [[s.level for s in schedule.segments if s.joint == j][:40] for j in range(6)]
    assert len({tuple(order) for order in orders}) == 6


def test_commanded_densities_are_normalised_finite_and_near_the_designed(schedule: Schedule) -> None:
    grid, commanded = schedule.grid, schedule.commanded
    assert commanded.shape == (6, 8, 257) and grid[0] == -1.0 and grid[-1] == 1.0
    weights = np.full(257, grid[1] - grid[0])
    weights[[0, -1]] *= 0.5
    assert np.allclose((commanded * weights).sum(-1), 1.0, atol=1e-12)
    assert np.isfinite(schedule.log_commanded).all()
    edges = np.concatenate([[-1.0], 0.5 * (grid[1:] + grid[:-1]), [1.0]])
    designed = np.stack([np.diff(density.cdf(edges)) for density in schedule.levels.densities])
    distance = 0.5 * np.abs(commanded * weights - designed).sum(-1)
    assert distance.mean() < 0.03 and distance.max() < 0.08


def test_single_joint_design_intervenes_on_one_joint_at_a_time(robot: Robot) -> None:
    schedule = make_schedule(robot, duration_s=600.0, seed=1, design="single_joint")
    observational = schedule.levels.ids.index("obs")
    labels = schedule.labels_at(np.arange(0, schedule.duration_ns, 10_000_000))
    intervened = (labels >= 0) & (labels != observational)
    assert intervened.sum(1).max() == 1
    assert schedule.labelled_fractions.mean() > 0.8
    for j in range(6):
        for level in ("minus", "plus"):
            held = np.flatnonzero(labels[:, j] == schedule.levels.ids.index(level))
            assert len(held) > 0
            blocks = np.split(held, np.flatnonzero(np.diff(held) > 500) + 1)
            assert all(len(block) * 0.01 < 40.0 for block in blocks)
    windows = [s.end_ns - s.start_ns for s in schedule.segments]
    assert min(windows) >= 2 * SECOND


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"design": "latin"}, "unknown design 'latin'"),
        ({"speed": (0.4, 9.0)}, "sweep speeds 0.4 to 9.0"),
        ({"speed": (0.0, 0.5)}, "min_speed must be above 0"),
        ({"duration_s": 2.0}, "duration_s"),
        ({"window_s": (3.0, 1.0)}, "window_s"),
        ({"design": "single_joint", "levels": Levels.bumps()}, "observational"),
    ],
)
def test_impossible_schedules_are_refused(robot: Robot, options: dict[str, object], message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        make_schedule(robot, **{"duration_s": 60.0, "seed": 0, **options})  # type: ignore[arg-type]


def test_malformed_yaml_is_refused_with_file_and_key(robot: Robot) -> None:
    text = make_schedule(robot, duration_s=20.0, seed=0).to_yaml()
    first = next(line for line in text.splitlines() if line.startswith("- ["))
    fields = first[3:-1].split(", ")

    def row(**changes: str) -> str:
        names = ("joint", "level", "start_ns", "end_ns", "lo", "hi", "speed", "phase", "direction")
        values = [changes.get(name, value) for name, value in zip(names, fields, strict=True)]
        return text.replace(first, f"- [{', '.join(values)}]")

    cases = {
        "not YAML": "a: [",
        "mapping": "- 1",
        "key 'schema' is 99": text.replace("schema: 1", "schema: 99"),
        "key 'schema' is missing": text.replace("schema: 1", ""),
        "key 'seed' must be int": text.replace("seed: 0", "seed: zero"),
        "unknown key 'sead'": text.replace("seed: 0", "sead: 0"),
        "unknown design": text.replace("design: factorial", "design: chaos"),
        "levels: 'b0': bump: parameter 'sigma' is missing": text.replace(", sigma: 0.15", "", 1),
        "joints: 'joint1': needs exactly": text.replace("home: 0.0, ", "", 1),
        "unknown joint 'elbow'": row(joint="elbow"),
        "unknown joint '[1]'": row(joint="[1]"),
        "unknown joint '{'a': 1}'": row(joint="{a: 1}"),
        "unknown level 'b9'": row(level="b9"),
        "start_ns, end_ns and direction must be integers": row(start_ns="1.5"),
        "lo, hi, speed and phase must be numbers": row(lo="low"),
        "must not be empty": row(end_ns=fields[2]),
        "entry 0: needs": text.replace(first, "- [joint1, b0]"),
        "-1 <= lo < hi <= 1": row(lo="-1.2"),
        "speed 5.0 is outside": row(speed="5.0"),
        "too narrow": row(lo="0.1", hi="0.1001"),
    }
    for message, broken in cases.items():
        with pytest.raises(ScheduleError) as caught:
            Schedule.from_yaml(broken, "plan.yaml")
        assert str(caught.value).startswith("plan.yaml: ") and message in str(caught.value), message
        assert "\n" not in str(caught.value)


def test_overlapping_segments_are_refused(schedule: Schedule) -> None:
    one, other = [s for s in schedule.segments if s.joint == 2][:2]
    moved = dataclasses.replace(other, start_ns=one.end_ns + 1)
    segments = tuple(moved if s == other else s for s in schedule.segments)
    with pytest.raises(ScheduleError, match=r"joint 'joint3'.*at least 140000000 ns after"):
        dataclasses.replace(schedule, segments=segments)


def test_files_that_cannot_be_read_are_named(tmp_path: object) -> None:
    with pytest.raises(ScheduleError, match=r"absent\.yaml cannot be read"):
        Schedule.load(f"{tmp_path}/absent.yaml")
    with pytest.raises(ScheduleError, match="cannot be written"):
        make_schedule(load_robot("arm6"), duration_s=10.0, seed=0).save(f"{tmp_path}/no/such/folder.yaml")


def test_a_schedule_knows_its_robot(schedule: Schedule) -> None:
    other = dataclasses.replace(schedule, robot="arm7")
    with pytest.raises(ScheduleError, match="robot 'arm7'"):
        other.check_robot(load_robot("arm6"))
    joints = (dataclasses.replace(schedule.joints[0], home=0.3), *schedule.joints[1:])
    with pytest.raises(ScheduleError, match="joint 'joint1': home"):
        dataclasses.replace(schedule, joints=joints).check_robot(load_robot("arm6"))


# --- messages and timeline ---------------------------------------------------------------------------------------

JOINTS = ("shoulder", "elbow")


def _state(seq: int, stamp: int, levels: tuple[str, str], until: tuple[int, int] = (0, 0)) -> RegimeState:
    segments = tuple(-1 if level == NONE else 10 * seq + j for j, level in enumerate(levels))
    return RegimeState("abc", stamp, seq, levels, segments, until)


def _message(state: RegimeState, pairs: dict[str, str]) -> object:
    """The message of a state as rosbags reads it from CDR bytes."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    kinds = store.types
    make = {kind.rsplit("/", 1)[1]: cls for kind, cls in kinds.items()}
    message = make["DiagnosticArray"](
        header=make["Header"](
            stamp=make["Time"](sec=state.stamp_ns // SECOND, nanosec=state.stamp_ns % SECOND), frame_id=""
        ),
        status=[
            make["DiagnosticStatus"](
                level=0,
                name="ropes/regime",
                message="",
                hardware_id=state.schedule_hash,
                values=[make["KeyValue"](key=key, value=value) for key, value in pairs.items()],
            )
        ],
    )
    data = store.serialize_cdr(message, "diagnostic_msgs/msg/DiagnosticArray")
    return store.deserialize_cdr(data, "diagnostic_msgs/msg/DiagnosticArray")


STATE = RegimeState("f" * 64, 1_700_000_000_123_456_789, 7, ("b3", NONE), (12, -1), (1_700_000_001_000_000_001, 0))
PAIRS = {
    "seq": "7",
    "shoulder": "b3",
    "shoulder/segment": "12",
    "shoulder/until": "1700000001000000001",
    "elbow": "none",
    "elbow/segment": "-1",
    "elbow/until": "0",
}


def test_regime_survives_cdr() -> None:
    message = _message(STATE, PAIRS)
    assert regime_from_msg(message) == STATE
    swapped = regime_from_msg(message, ["elbow", "shoulder"])
    assert swapped.levels == (NONE, "b3") and swapped.segments == (-1, 12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seq": None}, "'seq' is missing"),
        ({"seq": "seven"}, "must be integers"),
        ({"elbow/until": None}, "'elbow/until' is missing"),
        ({"elbow/segment": None}, "joints shoulder, expected"),
    ],
)
def test_malformed_regimes_are_refused(changes: dict[str, str | None], message: str) -> None:
    pairs = {key: value for key, value in {**PAIRS, **changes}.items() if value is not None}
    with pytest.raises(BagError, match=message):
        regime_from_msg(_message(STATE, pairs), JOINTS)


def test_other_diagnostics_are_no_regimes() -> None:
    message = _message(STATE, PAIRS)
    message.status[0].name = "motor"  # type: ignore[attr-defined]
    with pytest.raises(BagError, match="exactly one status"):
        regime_from_msg(message)


def _labels(states: list[RegimeState], *times: int) -> list[list[int]]:
    timeline = RegimeTimeline(states, JOINTS, ("a", "b"))
    labels = timeline.labels_at(np.array(times))
    segments = timeline.segment_ids_at(np.array(times))
    assert ((segments >= 0) == (labels >= 0)).all()
    return labels.tolist()


def test_labels_hold_from_the_stamp_to_until_half_open() -> None:
    states = [_state(0, 100, ("a", NONE), (150, 0)), _state(1, 120, ("a", "b"), (150, 200))]
    assert _labels(states, 99, 100, 119, 120, 149, 150, 199, 200, 10**18) == [
        [-1, -1], [0, -1], [0, -1], [0, 1], [0, 1], [-1, 1], [-1, 1], [-1, -1], [-1, -1],
    ]  # fmt: skip


def test_a_lost_message_leaves_no_label_that_it_may_have_corrected() -> None:
    states = [
        _state(0, 100, ("a", "a"), (REACH_NS, REACH_NS)),
        _state(1, REACH_NS + 120, ("a", "b"), (REACH_NS + 300, REACH_NS + 300)),
        _state(3, REACH_NS + 200, ("b", "b"), (REACH_NS + 300, REACH_NS + 300)),
    ]
    assert _labels(states, 119, 120, REACH_NS + 120, REACH_NS + 199, REACH_NS + 200) == [
        [0, 0], [-1, -1], [-1, -1], [-1, -1], [1, 1],
    ]  # fmt: skip


def test_a_lost_correction_leaves_none_of_the_labels_that_it_took_back() -> None:
    states = [
        _state(1, 1 * SECOND, ("a", "a"), (5 * SECOND, 5 * SECOND)),
        _state(2, 5 * SECOND, ("b", "b"), (9 * SECOND, 9 * SECOND)),
        _state(4, 8 * SECOND, ("a", "b"), (9 * SECOND, 9 * SECOND)),  # 3 was a correction from 2 s on
    ]
    times = [round(t * SECOND) for t in (2.0, 4.9, 5.0, 7.9, 8.0)]
    assert _labels(states, *times) == [[-1, -1]] * 4 + [[0, 1]]


def test_a_restarted_commander_is_a_gap_too() -> None:
    states = [_state(5, 100, ("a", "a"), (300, 300)), _state(0, 200, ("b", "b"), (300, 300))]
    assert _labels(states, 150, 250) == [[-1, -1], [1, 1]]


def test_segments_of_a_restarted_commander_are_none_of_those_before() -> None:
    later = 2 * REACH_NS
    states = [
        RegimeState("abc", 100, 5, ("a", "a"), (7, 8), (300, 300)),
        RegimeState("abc", later, 0, ("a", "b"), (0, 7), (later + 300, later + 300)),
        RegimeState("abc", later + 50, 1, ("b", NONE), (1, -1), (later + 300, 0)),
    ]
    timeline = RegimeTimeline(states, JOINTS, ("a", "b"))
    assert timeline.labels_at(np.array([later, later + 60])).tolist() == [[0, 1], [1, -1]]
    ids = timeline.segment_ids_at(np.array([later, later + 60]))
    assert ids.tolist() == [[9, 16], [10, -1]]


def test_a_correction_replaces_what_was_announced_from_its_stamp_on() -> None:
    states = [
        _state(0, 100, ("a", "a"), (300, 300)),
        _state(1, 200, ("b", "b"), (400, 400)),
        _state(2, 150, (NONE, NONE)),
        _state(3, 350, ("b", NONE), (400, 0)),
    ]
    assert _labels(states, 149, 150, 250, 350) == [[0, 0], [-1, -1], [-1, -1], [1, -1]]


def test_latched_repetitions_are_taken_once() -> None:
    states = [_state(0, 100, ("a", "a"), (300, 300))] * 2 + [_state(1, 200, ("b", "b"), (300, 300))]
    assert _labels(states, 150, 250) == [[0, 0], [1, 1]]


def test_no_states_give_no_labels() -> None:
    assert _labels([], 5) == [[-1, -1]]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (RegimeState("other", 200, 1, ("a", "a"), (1, 1), (300, 300)), "two schedules"),
        (RegimeState("abc", 200, 1, ("a",), (1,), (300,)), "1 joints"),
        (RegimeState("abc", 200, 1, ("a", "z"), (1, 1), (300, 300)), "unknown level 'z'"),
    ],
)
def test_states_that_do_not_belong_are_refused(state: RegimeState, message: str) -> None:
    with pytest.raises(BagError, match=message):
        RegimeTimeline([_state(0, 100, ("a", "a"), (300, 300)), state], JOINTS, ("a", "b"))

"""The simulator's canonical data sets: what they hold, that they are what they say, and their nuisances."""

from __future__ import annotations

import ast
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("mujoco")

from ropes_ros.dataset import split_spans
from ropes_ros.densities import Bump, Levels, Observational
from ropes_ros.errors import RopesError, RuntimeSetupError, ScheduleError, TrainingError
from ropes_ros.pixels import PixelStore, write_pixels
from ropes_ros.regimes import make_schedule
from ropes_ros.robot import Robot, load_robot
from ropes_ros.sim import evaluation_nuisances, recordings, training_nuisances
from ropes_ros.sim.arm import SimArm
from ropes_ros.sim.canonical import (
    CAMERA_SIZE,
    CONDITIONS,
    START_NS,
    Faults,
    Recording,
    fresh_poses,
    fresh_positions,
    iid_poses,
    sweeps,
)
from ropes_ros.sim.evaluation_nuisances import evaluation_looks
from ropes_ros.sim.look import PLAIN
from ropes_ros.sim.novelty import KINDS, novelty_frames
from ropes_ros.sim.nuisances import SHIFT, TURN
from ropes_ros.sim.recordings import draw
from ropes_ros.sim.training_nuisances import training_looks

SIZE = (44, 40)


@pytest.fixture(scope="module")
def robot() -> Robot:
    return load_robot("arm6")


@pytest.fixture(scope="module")
def cache(tmp_path_factory, robot) -> Path:
    try:
        SimArm(robot, 32, 24).close()
    except RuntimeSetupError as error:
        pytest.skip(f"no rendering backend: {error}")
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def poses(robot, cache) -> Recording:
    return iid_poses(robot, 200, seed=3, size=SIZE, cache_dir=cache)


@pytest.fixture(scope="module")
def video(robot, cache) -> Recording:
    return sweeps(robot, 1 / 6, seed=3, size=SIZE, cache_dir=cache)


def render(robot: Robot, position: np.ndarray) -> np.ndarray:
    arm = SimArm(robot, *CAMERA_SIZE)
    arm.set_positions(position)
    picture = arm.render()
    arm.close()
    return picture


# Independent poses


def test_a_frame_shows_the_pose_that_is_told(robot, poses):
    frames = poses.frames
    expected = frames.region.cut(render(robot, poses.positions[77]))
    assert frames.details is not None
    np.testing.assert_array_equal(frames.details.read(np.array([77]))[0], expected)
    np.testing.assert_array_equal(frames.images[77], cv2.resize(expected, SIZE, interpolation=cv2.INTER_AREA))
    np.testing.assert_array_equal(poses.commanded, poses.positions)
    assert len(split_spans(frames).validation) > 0


def test_angles_follow_the_levels_that_frames_are_labelled_with(robot, poses):
    frames, u = poses.frames, robot.normalise(poses.positions)
    assert np.abs(u).max() <= 1.0
    log_pdf = [
        np.interp(u[frame, joint], frames.grid, frames.log_density[joint, frames.labels[frame, joint]])
        for frame, joint in np.ndindex(u.shape)
    ]
    # 8 bumps of sigma 0.15 have an entropy of about -0.4 nats; of another level the mean would be below -2.
    assert np.mean(log_pdf) > 0.0
    assert len(np.unique(frames.labels, axis=0)) > 190  # each joint has its own level
    density = np.exp(frames.log_density)
    area = (0.5 * (density[..., 1:] + density[..., :-1]) * np.diff(frames.grid)).sum(axis=-1)
    np.testing.assert_allclose(area, 1.0, atol=1e-3)


def test_a_recording_is_drawn_once_for_all_sizes(robot, cache, poses, monkeypatch):
    monkeypatch.setattr(recordings, "draw", lambda *_: pytest.fail("it is in the cache"))
    again = iid_poses(robot, 200, seed=3, size=SIZE, cache_dir=cache)
    np.testing.assert_array_equal(again.frames.images, poses.frames.images)
    np.testing.assert_array_equal(again.frames.labels, poses.frames.labels)
    larger = iid_poses(robot, 200, seed=3, size=(88, 80), cache_dir=cache)
    assert larger.frames.images.shape == (200, 80, 88, 3)
    assert larger.frames.bag_hash == poses.frames.bag_hash
    with pytest.raises(TrainingError, match=r"320x240 were asked for.*ask for less"):
        iid_poses(robot, 200, seed=3, size=(320, 240), cache_dir=cache)


def test_a_damaged_entry_is_made_anew(robot, tmp_path, cache):
    first = iid_poses(robot, 12, seed=1, size=SIZE, cache_dir=tmp_path)
    (folder,) = tmp_path.iterdir()
    with (folder / "pixels.zst").open("r+b") as stream:
        stream.truncate(1000)
    again = iid_poses(robot, 12, seed=1, size=SIZE, cache_dir=tmp_path)
    np.testing.assert_array_equal(first.frames.images, again.frames.images)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_the_single_joint_design_has_equally_many_frames_of_each_regime(robot, cache):
    recording = iid_poses(robot, 39, seed=0, size=SIZE, cache_dir=cache, design="single_joint")
    labels, names = recording.frames.labels, recording.frames.level_ids
    rest = names.index("obs")
    assert ((labels != rest).sum(axis=1) <= 1).all()
    counts = np.unique(labels, axis=0, return_counts=True)[1]
    np.testing.assert_array_equal(counts, np.full(13, 3))


def test_levels_need_not_tell_every_angle_from_every_other(robot, cache):
    # Variances of x0.25 and x4, which the published method uses.
    levels = {"narrow": Bump(0.0, 0.15), "obs": Bump(0.0, 0.3), "wide": Bump(0.0, 0.6)}
    given = {"seed": 0, "size": SIZE, "cache_dir": cache, "design": "single_joint"}
    recording = iid_poses(robot, 130, levels=levels, **given)
    u, labels = robot.normalise(recording.positions), recording.frames.labels
    assert [np.abs(u[labels == k]).mean() for k in range(3)] == sorted(np.abs(u[labels == k]).mean() for k in range(3))
    with pytest.raises(TrainingError, match="needs a level 'obs', got narrow, flat"):
        iid_poses(robot, 13, levels={"narrow": Bump(0.0, 0.15), "flat": Observational()}, **given)


# Sweeps


def test_sweeps_are_labelled_as_the_schedule_says(robot, video):
    frames = video.frames
    schedule = make_schedule(robot, duration_s=10.0, seed=3)
    assert frames.schedule_hash == schedule.hash and len(frames) == 300
    np.testing.assert_array_equal(frames.labels, schedule.labels_at(frames.stamps_ns - START_NS))
    np.testing.assert_array_equal(frames.segments, schedule.segment_ids_at(frames.stamps_ns - START_NS))
    np.testing.assert_array_equal(frames.log_density, schedule.log_commanded)
    picture = frames.region.cut(render(robot, video.positions[200]))
    assert frames.details is not None
    np.testing.assert_array_equal(frames.details.read(np.array([200]))[0], picture)


def test_a_delayed_camera_stamps_pictures_with_what_is_commanded_later(robot, cache, video):
    late = sweeps(robot, 1 / 6, seed=3, size=SIZE, cache_dir=cache, faults=Faults(camera_delay_s=0.2))
    np.testing.assert_array_equal(late.positions, video.positions)
    np.testing.assert_array_equal(late.frames.images, video.frames.images)
    np.testing.assert_array_equal(late.frames.stamps_ns, video.frames.stamps_ns + 200_000_000)
    np.testing.assert_array_equal(late.frames.labels[:-6], video.frames.labels[6:])  # 6 frames are 0.2 s
    np.testing.assert_allclose(late.commanded[:-6], video.commanded[6:], atol=1e-6)


@pytest.mark.parametrize(
    ("fault", "message"), [({"sag": -1.0}, "sag must be a finite number"), ({"unexecuted": 1.5}, "share")]
)
def test_senseless_faults_are_refused(fault, message):
    with pytest.raises(ScheduleError, match=message):
        Faults(**fault)


# Fresh poses


def test_fresh_poses_are_those_told_and_fresh(robot, cache):
    images, positions = fresh_poses(robot, 5, seed=3)
    assert images.shape == (5, 240, 320, 3) and positions.shape == (5, 6)
    np.testing.assert_array_equal(images[4], render(robot, positions[4]))
    again, _ = fresh_poses(robot, 5, seed=3)
    np.testing.assert_array_equal(images, again)
    assert not np.array_equal(positions, fresh_positions(robot, 5, seed=4))


@pytest.mark.parametrize("poses", ["uniform", "observational"])
def test_fresh_poses_follow_their_law(robot, poses):
    u = np.sort(robot.normalise(fresh_positions(robot, 5000, seed=0, poses=poses)).ravel())
    laws = {
        "uniform": 0.5 * (u + 1.0),
        "observational": np.mean([density.cdf(u) for density in Levels.bumps().densities], axis=0),
    }
    distance = {name: np.abs(law - (np.arange(len(u)) + 0.5) / len(u)).max() for name, law in laws.items()}
    assert distance.pop(poses) < 0.01  # 1.63 / sqrt(30,000), the 1 % point of Kolmogorov and Smirnov's test
    assert distance.popitem()[1] > 0.012


def test_extrapolation_leaves_the_box_and_not_the_limits(robot):
    positions = fresh_positions(robot, 200, seed=0, poses="extrapolation")
    u = np.abs(robot.normalise(positions))
    assert ((u > 1.0).sum(axis=1) >= 1).all() and u.max() <= 1.2
    assert ((positions >= robot.lower) & (positions <= robot.upper)).all()
    arm = SimArm(robot, render=False)
    assert not any(arm.collides(position) for position in positions)
    assert arm.collides([0.0, 1.6, 1.2, 1.0, 0.0, 0.0])


def test_unknown_names_are_refused(robot, tmp_path):
    with pytest.raises(RopesError, match="unknown poses 'lying': known are uniform, observational, extrapolation"):
        fresh_positions(robot, 1, seed=0, poses="lying")
    with pytest.raises(RopesError, match="unknown condition 'fog': known are clean, drift"):
        fresh_poses(robot, 1, seed=0, condition="fog")
    with pytest.raises(RopesError, match="unknown condition 'fog'"):
        sweeps(robot, 1.0, seed=0, size=SIZE, cache_dir=tmp_path, condition="fog")
    with pytest.raises(TrainingError, match="unknown design 'latin'"):
        iid_poses(robot, 1, seed=0, size=SIZE, cache_dir=tmp_path, design="latin")
    with pytest.raises(RopesError, match="unknown kind of novelty 'fog'"):
        novelty_frames(robot, "fog", 1, 0)


# Nuisances


def looks_of(robot: Robot, purpose: str, condition: str, *, video: bool = False):
    if purpose == "evaluation":
        return evaluation_looks(condition, robot, seed=0, size=CAMERA_SIZE)
    return training_looks(condition, robot, seed=0, count=18_000, rate=30, video=video, size=CAMERA_SIZE)


@pytest.mark.parametrize("purpose", ["training", "evaluation"])
@pytest.mark.parametrize(("condition", "frames"), [("occlusion", 0.2), ("heavy_occlusion", 1.0)])
def test_occluders_cover_what_they_say_in_as_many_frames(robot, cache, purpose, condition, frames):
    looks = looks_of(robot, purpose, condition)
    occluded = [n for n in range(1000) if looks(n) is not PLAIN]
    assert abs(len(occluded) / 1000 - frames) < 0.04
    chosen = occluded[:30]
    still = np.tile(robot.home, (len(chosen), 1))
    clean = render(robot, robot.home)
    covered = [(picture != clean).any(axis=-1).mean() for picture in draw(robot, still, lambda i: looks(chosen[i]))]
    assert abs(np.mean(covered) - 0.2) < 0.05


def test_training_and_evaluation_share_no_generator():
    modules = {module.__name__: module for module in (training_nuisances, evaluation_nuisances)}
    for module in modules.values():
        tree = ast.parse(Path(module.__file__).read_text())
        imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not imported & set(modules)


def test_training_and_evaluation_show_different_things(robot):
    def shapes(purpose: str, condition: str) -> set[str]:
        looks = looks_of(robot, purpose, condition)
        return {solid.shape for n in range(50) for solid in looks(n).solids}

    assert shapes("training", "second_object") == {"box", "sphere"}
    assert shapes("evaluation", "second_object") == {"cylinder", "ellipsoid"}
    assert not shapes("training", "heavy_occlusion") and shapes("evaluation", "heavy_occlusion")
    of_evaluation, of_training = (looks_of(robot, name, "heavy_occlusion") for name in ("evaluation", "training"))
    textures = [of_evaluation(n).patches for n in range(40)]
    assert all(len(np.unique(p.pixels.reshape(-1, 3), axis=0)) == 2 and not p.mask.all() for t in textures for p in t)
    flat = [of_training(n).patches for n in range(40)]
    assert all(len(np.unique(p.pixels.reshape(-1, 3), axis=0)) == 1 and p.mask.all() for t in flat for p in t)


def test_light_drifts_slowly_and_far(robot):
    looks = looks_of(robot, "training", "drift")
    values = np.array([np.concatenate([looks(n).lamp_rgb, looks(n).table_rgb]) for n in range(0, 18_000, 30)])
    assert np.abs(np.diff(values, axis=0)).max() < 0.1 * np.ptp(values, axis=0).max()  # from one second to the next
    assert (np.ptp(values, axis=0) > 0.1).all()


@pytest.mark.parametrize(("purpose", "video"), [("training", False), ("training", True), ("evaluation", False)])
def test_the_camera_jitters_within_its_bounds(robot, purpose, video):
    of_frame = looks_of(robot, purpose, "jitter", video=video)
    looks = [of_frame(n) for n in range(600)]
    shift, turn = (np.array([getattr(look, name) for look in looks]) for name in ("camera_shift", "camera_turn"))
    assert (np.abs(shift).max(axis=0) <= SHIFT).all() and (np.abs(turn).max(axis=0) <= TURN).all()
    assert (np.ptp(shift, axis=0) > 0.4 * SHIFT).all() and (np.ptp(turn, axis=0) > 0.4 * TURN).all()
    steps = np.abs(np.diff(shift, axis=0)).max()
    assert steps < 0.1 * SHIFT if video else steps > SHIFT


@pytest.mark.parametrize("condition", CONDITIONS[1:])
def test_a_condition_changes_the_pictures_and_not_the_poses(robot, cache, condition):
    given = {"seed": 1, "size": (24, 24), "cache_dir": cache}
    made, clean = (iid_poses(robot, 40, condition=name, **given) for name in (condition, "clean"))
    np.testing.assert_array_equal(made.positions, clean.positions)
    assert made.frames.bag_hash != clean.frames.bag_hash
    assert (np.abs(made.frames.images.astype(int) - clean.frames.images).mean(axis=(1, 2, 3)) > 0.5).mean() > 0.1


def test_things_stay_for_a_while_in_videos(robot):
    looks = looks_of(robot, "training", "second_object", video=True)
    assert looks(0).solids[0].shape == looks(1799).solids[0].shape
    np.testing.assert_array_equal(looks(0).solids[0].rgb, looks(1799).solids[0].rgb)
    step, way = (np.linalg.norm(looks(n).solids[0].position - looks(0).solids[0].position) for n in (1, 60))
    assert 0 < step < 0.02 < way
    looks = looks_of(robot, "training", "occlusion", video=True)
    occluded = np.array([bool(looks(n).patches) for n in range(9000)])
    assert abs(occluded.mean() - 0.2) < 0.08 and np.abs(np.diff(occluded.astype(int))).sum() < 9000 / 45


def test_a_recorded_frame_shows_the_surroundings_of_its_number(robot, cache):
    for video in (False, True):
        given = {"seed": 1, "size": (24, 24), "cache_dir": cache, "condition": "jitter"}
        made = sweeps(robot, 1 / 6, **given) if video else iid_poses(robot, 40, **given)
        frames = made.frames
        looks = training_looks(
            "jitter", robot, seed=1, count=len(frames), rate=30, video=video, size=CAMERA_SIZE
        )
        (picture,) = draw(robot, made.positions[30:31], lambda _, looks=looks: looks(30))
        assert frames.details is not None
        np.testing.assert_array_equal(frames.details.read(np.array([30]))[0], frames.region.cut(picture))


@pytest.mark.parametrize("kind", KINDS)
def test_novel_pictures_differ_from_those_of_their_poses(robot, cache, kind):
    novel, (clean, _) = novelty_frames(robot, kind, 8, 5), fresh_poses(robot, 8, seed=5)
    differing = (novel != clean).any(axis=-1).mean(axis=(1, 2))
    assert differing.min() > {"covered": 0.99, "object": 0.002, "moved": 0.02}[kind]
    if kind == "covered":
        assert novel.reshape(8, -1, 3).std(axis=1).max() < 40  # nearly one colour


# Stored pixels


def test_pixels_come_back_in_any_order(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (7, 5, 9, 3)).astype(np.uint8)
    write_pixels(tmp_path, frames)
    store = PixelStore(tmp_path)
    assert len(store) == 7 and store.size == (9, 5)
    np.testing.assert_array_equal(store.read(np.array([6, 0, 0, 3])), frames[[6, 0, 0, 3]])
    assert store.read(np.array([], dtype=np.int64)).shape == (0, 5, 9, 3)


def test_pixels_that_cannot_be_stored_or_read_are_told(tmp_path):
    with pytest.raises(RopesError, match="no frames"):
        write_pixels(tmp_path, [])
    frames = [np.zeros((4, 4, 3), np.uint8), np.zeros((5, 4, 3), np.uint8)]
    with pytest.raises(RopesError, match=r"frame 1 is \(5, 4, 3\)"):
        write_pixels(tmp_path, frames)
    with pytest.raises(RopesError, match="no stored pixels"):
        PixelStore(tmp_path / "nowhere")
    write_pixels(tmp_path, frames[:1] * 3)
    data = bytearray((tmp_path / "pixels.zst").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4] = b"\0\0\0\0"
    (tmp_path / "pixels.zst").write_bytes(data)
    with pytest.raises(RopesError, match="frame 1 is damaged"):
        PixelStore(tmp_path).read(np.arange(3))
    (tmp_path / "pixels.zst").write_bytes(data[:-1])
    with pytest.raises(RopesError, match="bytes instead of"):
        PixelStore(tmp_path)

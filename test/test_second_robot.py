"""The demo's path on a robot with real meshes from a package: simulate, record, load, learn, export, estimate."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from staging import has_rclpy, isolate

from ropes_ros.bags import open_bag
from ropes_ros.collision import box_samples, check_schedule
from ropes_ros.demo import DemoConfig, Monitor, _prepare, _record
from ropes_ros.errors import RobotError, RuntimeSetupError
from ropes_ros.regimes import make_schedule
from ropes_ros.robot import Robot, load_robot

SIZE = (160, 120)


@pytest.fixture(scope="module")
def ur5e() -> Robot:
    for module in ("mujoco", "trimesh"):
        pytest.importorskip(module)
    try:
        return load_robot("ur5e")
    except RobotError as error:
        pytest.skip(f"the extra robots is not installed: {error}")


def test_mujoco_and_pinocchio_agree_on_it(ur5e: Robot) -> None:
    from ropes_ros.sim.arm import SimArm
    from ropes_ros.sim.scene import mujoco

    arm = SimArm(ur5e, render=False)
    drawn = set(arm._model.geom_bodyid[arm._model.geom_dataid >= 0])
    assert {arm._model.body(link).id for link in ("shoulder_link", "forearm_link", "wrist_3_link")} <= drawn
    assert len({tuple(rgba) for rgba in arm._model.geom_rgba.round(2)}) > 4  # its materials' colours
    for q in ur5e.denormalise(np.random.default_rng(0).uniform(-1, 1, (10, 6))):
        arm.set_positions(q)
        mujoco.mj_kinematics(arm._model, arm._data)
        for link in ur5e.links:
            np.testing.assert_allclose(arm._data.body(link).xpos, ur5e.fk(q, link)[0], atol=1e-6)


def test_neither_engine_finds_a_collision_in_its_box(ur5e: Robot) -> None:
    from ropes_ros.sim.arm import SimArm

    arm = SimArm(ur5e, render=False)
    q, _ = box_samples(ur5e)
    assert not any(arm.collides(row) for row in q[::10])
    assert check_schedule(ur5e, make_schedule(ur5e, duration_s=60.0, seed=0)) == ()
    assert arm.collides(ur5e.home + np.array([0.0, 0.0, 1.3, 0.0, 0.0, 0.0]))  # so that the above can fail


def test_all_of_it_stays_in_the_picture(ur5e: Robot) -> None:
    from ropes_ros.sim.arm import SimArm

    try:
        arm = SimArm(ur5e, *SIZE)
    except RuntimeSetupError as error:
        pytest.skip(f"no rendering here: {error}")
    rng = np.random.default_rng(3)
    pictures = []
    for u in np.vstack([rng.choice((-1.0, 1.0), (64, 6)), rng.uniform(-1.0, 1.0, (36, 6))]):
        arm.set_positions(ur5e.denormalise(u))
        pictures.append(arm.render().astype(int))
    arm.close()
    moved = (np.abs(np.array(pictures) - np.median(pictures, axis=0)).max(axis=-1) > 12).any(axis=0)
    assert not (moved[0].any() or moved[-1].any() or moved[:, 0].any() or moved[:, -1].any())
    assert np.ptp(np.nonzero(moved)[0]) > 0.7 * SIZE[1]


def test_demo_path_on_a_robot_with_real_meshes(ur5e: Robot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("torch") is None or not has_rclpy():
        pytest.skip("torch, or rclpy and cyclonedds, are not installed")
    try:
        from ropes_ros.sim.arm import SimArm

        SimArm(ur5e, 16, 16).close()
    except RuntimeSetupError as error:
        pytest.skip(f"no rendering here: {error}")
    from ropes_ros.bag_images import sample_images
    from ropes_ros.dataset import load_frames
    from ropes_ros.encoder import MAX_FRAMES, load_encoder
    from ropes_ros.evaluation import compare, estimate_bag
    from ropes_ros.export import export
    from ropes_ros.learning.pipeline import learn
    from ropes_ros.learning.train import TrainConfig

    isolate(monkeypatch)
    config = DemoConfig(robot="ur5e", out=tmp_path, record_s=60.0, camera=SIZE, camera_rate=10.0)
    _prepare(config.out)
    make_schedule(ur5e, duration_s=config.record_s, seed=0).save(config.out / "schedule.yaml")
    with Monitor() as monitor:
        _record(config, monitor, Console(file=io.StringIO()))
    with open_bag(tmp_path / "record") as bag:
        assert bag.header is not None and (bag.header.robot, bag.header.state) == ("ur5e", "complete")
        assert bag.topics[bag.topic("image")].count >= 600
    frames = load_frames(tmp_path / "record", size=(32, 24), cache_dir=tmp_path / "cache")
    assert tuple(frames.joint_names) == ur5e.joint_names
    assert ((frames.labels >= 0).mean(axis=0) > 0.4).all()
    settings = TrainConfig(image_size=(32, 24), epochs=1, batch_size=64, shift=0, occlusion=0.1)
    learned = learn(frames, tmp_path / "training", robot=ur5e, config=settings)
    model = export(
        learned.result.checkpoint, tmp_path / "model", frames=sample_images(tmp_path / "record", MAX_FRAMES)
    )
    encoder = load_encoder(model, robot="ur5e")
    estimates = estimate_bag(encoder, tmp_path / "record")
    assert estimates.position.shape == (len(estimates.stamps_ns), 6) and len(estimates.stamps_ns) >= 600
    assert (np.abs(ur5e.normalise(estimates.position)) <= 1.0 + 1e-3).all()
    evaluation = compare(ur5e, estimates, tmp_path / "record")
    # After ten steps it need not know much; the joints' spread alone would be 20 to 33 degrees.
    assert np.isfinite(evaluation.metrics.mae_deg).all() and evaluation.metrics.mean_mae_deg < 40.0

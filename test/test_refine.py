"""The second look: the camera is found without labels, glimpses are cut where it says, the cascade exports."""

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("mujoco")

from ropes_ros.errors import TrainingError
from ropes_ros.learning.camera import find_camera
from ropes_ros.learning.checkpoint import load_checkpoint, save_checkpoint
from ropes_ros.learning.glimpse import SIDE, Aim, CascadeNet, cut, sample
from ropes_ros.learning.kinematics import Kinematics
from ropes_ros.learning.networks import AngleNet, build
from ropes_ros.robot import load_robot
from ropes_ros.sim.arm import SimArm
from ropes_ros.sim.canonical import iid_poses


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return iid_poses(load_robot("arm6"), 900, seed=3, size=(64, 56), cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def camera(recording):
    """Found from angles that are off by 0.08 half ranges, as a first network's are."""
    robot, frames = recording.robot, recording.frames
    rng = np.random.default_rng(0)
    guess = robot.normalise(recording.positions) + rng.normal(0.0, 0.08, recording.positions.shape)
    (width, height), region = frames.camera_size, frames.region
    centre = (0.5 * (width - 1) - region.left, 0.5 * (height - 1) - region.top)
    pixels = frames.details.read(np.arange(400))
    return find_camera(Kinematics.of(robot), guess[:400], pixels, width=width, centre=centre)


def _seen(robot, region, u):
    """Pixels of the joints and the tip in the region by the simulator's own camera, float [N, J + 1, 2]."""
    arm = SimArm(robot, render=False)
    position, (x, y, z, w) = arm.camera_pose()
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    points = Kinematics.of(robot)(torch.from_numpy(u).float()).numpy()
    seen = (points - position) @ rotation @ arm.intrinsics().T
    return seen[..., :2] / seen[..., 2:] - [region.left, region.top]


def test_the_camera_is_found_from_moving_pixels_and_noisy_angles(recording, camera):
    u = np.random.default_rng(1).uniform(-1.0, 1.0, (200, 6))
    found = camera(Kinematics.of(recording.robot)(torch.from_numpy(u).float())).numpy()
    error = np.linalg.norm(found - _seen(recording.robot, recording.frames.region, u), axis=-1).mean(axis=0)
    assert error[2:6].max() < 8.0  # of the joints that move, in a region 240 pixels high
    assert error[-1] < 14.0


def test_glimpses_of_training_and_of_the_exported_graph_are_the_same(recording):
    rng = np.random.default_rng(2)
    pixels = recording.frames.details.read(np.arange(3))
    pixels = np.stack([cv2.GaussianBlur(picture, (0, 0), 1.5) for picture in pixels])
    centres = rng.uniform(20.0, 200.0, (3, 2, 2)).astype(np.float32)
    centres[0, 0] = (-5.3, 4.0)  # partly outside
    region = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    graph = sample(region, torch.from_numpy(centres), torch.tensor([0.9, 0.9])).permute(0, 1, 3, 4, 2).numpy()
    out = np.empty((SIDE, SIDE, 3), dtype=np.uint8)
    for frame in range(3):
        for number in range(2):
            cut(pixels[frame], centres[frame, number], 0.9, SIDE, out)
            assert np.abs(out - graph[frame, number]).max() < 4.0


@pytest.mark.parametrize("second", [1.36, 2.5])
@pytest.mark.parametrize("size", [(240, 256), (50, 90)])
def test_glimpses_are_bilinear_and_repeat_the_edge(size, second):
    """Also where a glimpse is larger than the region, and for each frame of a batch its own."""
    rng = torch.Generator().manual_seed(3)
    region = 255.0 * torch.rand((5, 3, *size), generator=rng)
    centres = torch.rand((5, 2, 2), generator=rng) * torch.tensor([size[1] + 60.0, size[0] + 60.0]) - 30.0
    centres[0, 0], centres[0, 1] = torch.tensor([-500.0, 5000.0]), torch.tensor([31.5, 31.5])
    spacing = torch.tensor([0.97, second])
    found = sample(region, centres, spacing)
    place = torch.arange(SIDE) - 0.5 * (SIDE - 1)
    for number in range(2):
        x, y = (centres[:, number, axis, None] + place * spacing[number] for axis in (0, 1))
        where = torch.stack([x[:, None, :].expand(-1, SIDE, -1), y[:, :, None].expand(-1, -1, SIDE)], dim=-1)
        grid = (where + 0.5) / torch.tensor([size[1], size[0]]) * 2.0 - 1.0
        wanted = torch.nn.functional.grid_sample(region, grid, padding_mode="border", align_corners=False)
        torch.testing.assert_close(found[:, number], wanted, atol=0.1, rtol=0.0)


def test_the_aim_follows_the_arm(recording, camera):
    aim = Aim.at(Kinematics.of(recording.robot), camera)
    moved = aim(torch.tensor([[-0.8, 0, 0, 0, 0, 0], [0.8, 0, 0, 0, 0, 0]]))
    assert float((moved[0, 1] - moved[1, 1]).norm()) > 40.0  # the tool swings with the base joint
    assert 0.5 < float(aim.spacing.min()) < float(aim.spacing.max()) < 2.0


def test_a_cascade_is_rebuilt_from_its_description(recording, camera):
    aim = Aim.at(Kinematics.of(recording.robot), camera)
    made = CascadeNet.of(AngleNet((64, 56), 6), aim).eval()
    again = build(made.architecture()).eval()
    again.load_state_dict(made.state_dict())
    images, region = torch.rand(2, 3, 56, 64), torch.rand(2, 3, recording.frames.region.height, 256)
    for one, other in zip(made(images, region), again(images, region), strict=True):
        assert torch.equal(one, other)


def test_refinement_without_pixels_is_refused(recording, tmp_path):
    from dataclasses import replace

    from ropes_ros.learning.refine import refine

    with pytest.raises(TrainingError, match="needs the camera's pixels"):
        refine(replace(recording.frames, details=None), tmp_path / "none.pt", tmp_path, robot=recording.robot)


def test_guesses_are_changed_by_more_the_more_was_memorised():
    from ropes_ros.learning.refine import changed_by

    loss = np.array([[1.0, np.nan], [1.2, 1.1]])
    assert changed_by(0.05, 0.164, loss, loss) == pytest.approx(0.05)
    assert changed_by(0.05, 0.164, loss, loss - 0.3) == pytest.approx(0.05)
    # 0.15 nats: 0.05^2 + 1.5 * 2 * 0.15 * 0.164^2 = 0.0146
    assert changed_by(0.05, 0.164, loss, loss + 0.15) == pytest.approx(0.12084, abs=1e-4)


def test_refining_lowers_the_held_out_loss_and_exports(recording, tmp_path):
    from ropes_ros.encoder import load_encoder
    from ropes_ros.export import export
    from ropes_ros.learning.refine import RefineConfig, refine
    from ropes_ros.learning.train import TrainConfig, train
    from ropes_ros.sim.canonical import fresh_poses

    config = TrainConfig(image_size=(64, 56), epochs=4, span_s=2.0)
    first = train(recording.frames, tmp_path / "first", config=config)
    content = load_checkpoint(first.checkpoint)
    content["progress"][2] = -9.0  # as of a first network that was trained by another loss than the second one
    save_checkpoint(first.checkpoint, {key: value for key, value in content.items() if key != "version"})
    result = refine(
        recording.frames, first.checkpoint, tmp_path, robot=recording.robot, config=RefineConfig(epochs=3)
    )
    before = min(entry.validation_loss for entry in first.history)
    content = load_checkpoint(result.checkpoint)
    assert content["refined"] and content["progress"][3] == result.best_epoch > 4
    after = [entry.validation_loss for entry in result.history if entry.task == "refinement"]
    assert len(after) == 3
    assert min(after) < before
    export(result.checkpoint, tmp_path / "model")
    images, _ = fresh_poses(recording.robot, 4, seed=0)
    found = load_encoder(tmp_path / "model").run(images)
    assert found.position.shape == (4, 6)
    assert np.isfinite(found.position).all()
    assert not list(tmp_path.glob("glimpses-*"))  # what was cut for training is gone


def test_steps_without_a_bar_are_told_before_they_begin(recording, tmp_path):
    from ropes_ros.learning.pipeline import learn
    from ropes_ros.learning.refine import RefineConfig
    from ropes_ros.learning.train import TrainConfig

    told = []
    learn(
        recording.frames,
        tmp_path,
        robot=recording.robot,
        config=TrainConfig(image_size=(64, 56), epochs=1, span_s=2.0),
        refinement=RefineConfig(epochs=1),
        on_epoch=lambda entry, floor: told.append(entry.task),
        on_phase=told.append,
    )
    assert [entry.split(" ")[0] for entry in told] == ["mechanism", "finding", "refinement", "calibrating", "checking"]

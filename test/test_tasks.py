"""The tasks: each keeps what it says of a picture, learns it in few steps, and finds no trivial answer."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import draw

torch = pytest.importorskip("torch")

from ropes_ros.dataset import FrameSet
from ropes_ros.errors import TrainingError
from ropes_ros.framing import Region
from ropes_ros.learning.augmentation import Augmentation, to_input
from ropes_ros.learning.mechanism import MechanismLikelihood
from ropes_ros.learning.networks import AngleNet
from ropes_ros.learning.tasks import TASKS, Batch, MaskedTask, info_nce, make_task

SIZE = (32, 24)
GRID = np.linspace(-1.0, 1.0, 257)
CENTRES = np.array([-0.7, 0.0, 0.7])


def bumps(sigma: float = 0.35, joints: int = 2) -> np.ndarray:
    """log of three truncated Gaussian bumps with 5 % uniform for each joint, [J, 3, G]."""
    density = np.exp(-0.5 * ((GRID[None] - CENTRES[:, None]) / sigma) ** 2)
    density /= density.mean(axis=1, keepdims=True) * 2.0
    return np.repeat(np.log(0.95 * density + 0.025)[None], joints, axis=0)


def draw_levels(rng: np.random.Generator, count: int, log_density: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Levels [N, J] and angles [N, J], each drawn from its level's density."""
    joints, levels, _ = log_density.shape
    labels = rng.integers(0, levels, (count, joints)).astype(np.int16)
    u = np.empty((count, joints))
    for joint in range(joints):
        for level in range(levels):
            weights = np.exp(log_density[joint, level])
            rows = labels[:, joint] == level
            u[rows, joint] = rng.choice(GRID, size=int(rows.sum()), p=weights / weights.sum())
    return labels, u


def frame_set(count: int, *, seed: int = 0, log_density: np.ndarray | None = None) -> FrameSet:
    """Frames of two sticks in independent poses, a segment each; the true angles are in `angles_of`."""
    log_density = bumps() if log_density is None else log_density
    labels, u = draw_levels(np.random.default_rng(seed), count, log_density)
    pictures = np.stack([draw(1.2 * row, SIZE) for row in u])
    return FrameSet(
        images=pictures,
        stamps_ns=np.arange(count, dtype=np.int64) * 10**9,
        labels=labels,
        segments=np.repeat(np.arange(count, dtype=np.int32)[:, None], 2, axis=1),
        joint_names=("shoulder", "elbow"),
        level_ids=tuple(f"level{number}" for number in range(log_density.shape[1])),
        grid=GRID,
        log_density=log_density,
        level_label_noise=0.3,
        robot="stick",
        schedule_hash="0" * 64,
        camera_size=SIZE,
        region=Region(0, 0, *SIZE),
        bag_hash="0" * 64,
        duplicates=0,
    )


def angles_of(count: int, *, seed: int = 0) -> np.ndarray:
    """The angles behind `frame_set`, half ranges [N, 2]."""
    return draw_levels(np.random.default_rng(seed), count, bumps())[1]


def batch_of(frames: FrameSet, count: int, *, seed: int = 0, augmentation: Augmentation | None = None) -> Batch:
    rng = np.random.default_rng(seed)
    index = np.sort(rng.choice(len(frames), count, replace=False))
    augmentation = augmentation or Augmentation(shift=1, occlusion=0.0, noise=0.01)
    return Batch(
        augmentation(frames.images[index], rng),
        augmentation(frames.images[index], rng),
        augmentation(frames.images[np.minimum(index + 1, len(frames) - 1)], rng),
        torch.from_numpy(frames.labels[index].astype(np.int64)),
        torch.from_numpy(index),
    )


SHARES = np.full((2, 3), 1 / 3)


@pytest.fixture(scope="module")
def frames() -> FrameSet:
    return frame_set(1024)


def fitted(name: str, frames: FrameSet, steps: int) -> tuple[AngleNet, torch.nn.Module, list[float]]:
    torch.manual_seed(0)
    net = AngleNet(SIZE, 2)
    task = make_task(name, frames, SHARES, net)
    modules = torch.nn.ModuleList([net, task]).train()
    optimiser = torch.optim.AdamW([p for p in modules.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for step in range(steps):
        loss, _ = task(net, batch_of(frames, 48, seed=step))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    modules.eval()
    return net, task, losses


@torch.no_grad()
def explained(features: torch.Tensor, target: np.ndarray) -> np.ndarray:
    """Share of the variance [J] on the second half of what a ridge on the first half explains of the target."""
    values = features.double().numpy()
    values = (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-6)
    values = np.concatenate([values, np.ones((len(values), 1))], axis=1)
    half = len(values) // 2
    known = values[:half]
    weights = np.linalg.solve(known.T @ known + 3.0 * np.eye(values.shape[1]), known.T @ target[:half])
    error = ((values[half:] @ weights - target[half:]) ** 2).mean(axis=0)
    share: np.ndarray = 1.0 - error / target[half:].var(axis=0)
    return share


def test_mechanism_is_the_likelihood(frames: FrameSet) -> None:
    net = AngleNet(SIZE, 2).eval()
    task = make_task("mechanism", frames, SHARES, net)
    batch = batch_of(frames, 16)
    loss, prediction = task(net, batch)
    objective = MechanismLikelihood(frames.log_density, SHARES)
    assert torch.equal(loss, objective(*net(batch.images)[:2], batch.labels))
    assert torch.equal(prediction.angle, net(batch.images).angle)


def test_reconstruction_explains_the_picture_and_keeps_the_pose(frames: FrameSet) -> None:
    net, task, losses = fitted("reconstruction", frames, 70)
    assert losses[0] > 0.8, "at first nothing is explained"
    batch = batch_of(frames, 256, seed=999)
    with torch.no_grad():
        held, prediction = task(net, batch)
        features = net.embed(to_input(frames.images))
    assert float(held) < 0.5
    assert (explained(features, angles_of(1024)) > 0.6).all()
    assert float(explained(prediction.angle, angles_of(1024)[batch.index]).max()) > 0.3, "the latent is used, too"


def test_reconstruction_wants_the_recorded_picture(frames: FrameSet) -> None:
    """The same loss whatever view of a frame the net is shown, when the net does not look."""
    net = AngleNet(SIZE, 2).eval()
    with torch.no_grad():
        net.head.weight.zero_()
    task = make_task("reconstruction", frames, SHARES, net).eval()
    torch.nn.init.zeros_(task.code.weight)
    batch = batch_of(frames, 16)
    assert torch.equal(task(net, batch)[0], task(net, batch._replace(images=torch.rand_like(batch.images)))[0])


def test_info_nce_by_hand() -> None:
    """Two frames, similarities 0.1 on and 0 off the diagonal, temperature 0.1: log(1 + exp(-1)) each way."""
    assert float(info_nce(0.1 * torch.eye(2))) == pytest.approx(np.log1p(np.exp(-1.0)), abs=1e-6)
    assert float(info_nce(torch.zeros(8, 8))) == pytest.approx(np.log(8.0), abs=1e-6)


def test_contrastive_knows_frames_by_their_pose(frames: FrameSet) -> None:
    net, _, losses = fitted("contrastive", frames, 40)
    assert losses[-1] < 0.6 * losses[0]
    batch = batch_of(frames, 64, seed=999)
    with torch.no_grad():
        both = [net(images).angle for images in (batch.images, batch.other)]
        latents = net(to_input(frames.images)).angle
    distance = torch.cdist(*both, p=1.0)
    nearer = (distance.diagonal()[:, None] <= distance).float().mean()
    assert float(nearer) > 0.85, "another view of a frame is nearer than other frames"
    assert (latents.std(dim=0) > 0.1).all(), "the latent has not collapsed"


def test_contrastive_over_time_compares_with_the_next_frame(frames: FrameSet) -> None:
    net = AngleNet(SIZE, 2).eval()
    task = make_task("contrastive-time", frames, SHARES, net).eval()
    assert task.neighbours and task.views == 1
    batch = batch_of(frames, 16)
    loss = task(net, batch._replace(other=None))[0]
    assert not torch.equal(loss, task(net, batch._replace(neighbour=batch.images))[0])
    with pytest.raises(TrainingError, match="second view"):
        task(net, batch._replace(neighbour=None))


def test_masked_predicts_what_is_hidden(frames: FrameSet) -> None:
    """An untrained net's latent explains 0.3 of the shoulder's variance, and its targets spread by 0.003."""
    net, task, losses = fitted("masked", frames, 50)
    assert losses[0] > 0.9 and losses[-1] < 0.7
    with torch.no_grad():
        targets = task.target.trunk(to_input(frames.images[:64]))
        latents = net(to_input(frames.images)).angle
    assert float(targets.std(dim=0).mean()) > 0.01, "the targets have not collapsed"
    assert explained(latents, angles_of(1024))[0] > 0.6


def test_masked_counts_hidden_cells_only_and_hides_them(frames: FrameSet) -> None:
    torch.manual_seed(0)
    net = AngleNet((64, 64), 2).eval()
    task = MaskedTask(net).eval()
    hidden = task._hidden_cells(500, torch.device("cpu"))
    assert hidden.shape == (500, 1, 4, 4) and set(hidden.unique().tolist()) == {0.0, 1.0}
    assert 0.3 < float(hidden.mean()) < 0.65
    assert (hidden.mean(dim=0) > 0.1).all(), "every cell is hidden at times"
    assert torch.equal(hidden, task._hidden_cells(500, torch.device("cpu"))), "the same out of training"


def test_masked_leaves_the_statistics_of_whole_pictures(frames: FrameSet) -> None:
    torch.manual_seed(0)
    net = AngleNet(SIZE, 2).train()
    task = MaskedTask(net).train()
    batch = batch_of(frames, 32)
    twin = AngleNet(SIZE, 2)
    twin.load_state_dict(net.state_dict())
    twin.train()(batch.images)
    task(net, batch)
    assert torch.allclose(net.stem[1].running_mean, twin.stem[1].running_mean, atol=1e-6)
    assert net.stem[1].momentum == 0.1


def test_masked_targets_follow_slowly(frames: FrameSet) -> None:
    net = AngleNet(SIZE, 2)
    task = MaskedTask(net).train()
    before = task.target.stem[0].weight.clone()
    with torch.no_grad():
        net.stem[0].weight.add_(1.0)
    task(net, batch_of(frames, 8))
    assert torch.allclose(task.target.stem[0].weight - before, torch.tensor(0.01), atol=1e-6)
    task.eval()
    task(net, batch_of(frames, 8))
    assert torch.allclose(task.target.stem[0].weight - before, torch.tensor(0.01), atol=1e-6)
    assert not any(p.requires_grad for p in task.target.parameters())


def test_unknown_tasks_are_refused(frames: FrameSet) -> None:
    with pytest.raises(TrainingError, match="task 'sleep' is unknown: choose one of mechanism"):
        make_task("sleep", frames, SHARES, AngleNet(SIZE, 2))


@pytest.mark.parametrize("name", TASKS)
def test_held_out_losses_repeat(name: str, frames: FrameSet) -> None:
    torch.manual_seed(0)
    net = AngleNet(SIZE, 2).eval()
    task = make_task(name, frames, SHARES, net).eval()
    batch = batch_of(frames, 8)
    with torch.no_grad():
        first, second = float(task(net, batch)[0]), float(task(net, batch)[0])
    assert first == second


PLAIN = {"shift": 0, "light": 0.0, "noise": 0.0, "occlusion": 0.0, "colour": 0.0}


def augmented(images: np.ndarray, seed: int = 0, **changes: object) -> np.ndarray:
    result = Augmentation(**{**PLAIN, **changes})(images, np.random.default_rng(seed))
    assert result.is_contiguous(memory_format=torch.channels_last) and result.dtype == torch.float32
    return result.permute(0, 2, 3, 1).numpy() * 255.0


def test_augmentation_without_changes_is_the_image(frames: FrameSet) -> None:
    images = frames.images[:8]
    np.testing.assert_allclose(augmented(images), images, atol=1e-3)
    kept = images.copy()
    Augmentation(shift=2, occlusion=1.0)(images, np.random.default_rng(0))
    np.testing.assert_array_equal(images, kept)


def test_augmentation_repeats_by_its_source_alone(frames: FrameSet) -> None:
    images = frames.images[:8]
    settings = {"shift": 2, "occlusion": 1.0}
    first, second = Augmentation(**settings), Augmentation(**settings)
    second(images, np.random.default_rng(5))
    ours, theirs = first(images, np.random.default_rng(3)), second(images, np.random.default_rng(3))
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, first(images, np.random.default_rng(4)))


def test_shifts_are_whole_pixels_with_the_edge_repeated() -> None:
    image = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(1, 6, 8, 3)
    padded = np.pad(image[0], ((1, 1), (1, 1), (0, 0)), mode="edge")
    views = {padded[i : i + 6, j : j + 8].tobytes() for i in range(3) for j in range(3)}
    seen = {augmented(image, seed, shift=1).round().astype(np.uint8).tobytes() for seed in range(200)}
    assert seen == views


def test_grey_stays_grey_under_mixing_and_colours_do_not() -> None:
    grey = np.full((4, 24, 32, 3), 90, dtype=np.uint8)
    np.testing.assert_allclose(augmented(grey, colour=0.2), 90.0, atol=1.0)
    red = grey.copy()
    red[..., 0] = 200
    assert (np.ptp(augmented(red, colour=0.2)[:, 0, 0, 0]) > 5.0).all()


def test_light_is_smooth_over_the_picture() -> None:
    grey = np.full((64, 24, 32, 3), 90, dtype=np.uint8)
    lit = augmented(grey, light=0.2)
    corners = lit[:, [0, 0, -1, -1], [0, -1, 0, -1]].mean(axis=2)
    assert (np.ptp(corners, axis=1) > 3.0).mean() > 0.8, "corners differ"
    assert np.abs(np.diff(lit, n=2, axis=1)).max() < 0.01, "linear along each axis"
    assert np.abs(np.diff(lit, n=2, axis=2)).max() < 0.01


def test_occluders_are_of_several_shapes_and_sizes() -> None:
    """Every picture is covered a little, none by much more than 30 % (smooth edges come on top)."""
    black = np.zeros((200, 80, 88, 3), dtype=np.uint8)
    pictures = augmented(black, occlusion=1.0).round().astype(np.int64)
    covered = (pictures > 0).any(axis=-1)
    share = covered.mean(axis=(1, 2))
    assert share.max() < 0.34 and share.max() > 0.2 and share.min() < 0.03 and (share > 0).mean() > 0.95
    colours = [np.unique(picture @ [1, 256, 65536], return_counts=True)[1] for picture in pictures[:60]]
    assert {int((count >= 30).sum()) for count in colours} >= {2, 3, 4}, "one to three shapes, and the picture"
    half = (augmented(black, occlusion=0.5) > 0).any(axis=(1, 2, 3)).mean()
    assert 0.4 < half < 0.6

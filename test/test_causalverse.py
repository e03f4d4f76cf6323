"""The loader of CausalVerse's robotic scenes, on tiny scenes written in its layout."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from ropes_ros.causalverse import load_causalverse
from ropes_ros.errors import RopesError

FRAMES = 6


def write_video(path: Path, frames: int) -> None:
    """Frame t is 20 t + 30 in red, 0 in green and blue."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 20, (64, 48))
    for number in range(frames):
        writer.write(np.full((48, 64, 3), (0, 0, 20 * number + 30), dtype=np.uint8))
    writer.release()


def write_episode(scene: Path, name: str, *, frames: int = FRAMES, objects: int = 2, first: float = 0.0) -> None:
    """Joint j at frame t is first + t + j / 10; object k's number d at frame t is 100 k + 10 d + t."""
    for part in ("meta", "video"):
        (scene / part).mkdir(parents=True, exist_ok=True)
    t = np.arange(FRAMES)
    np.savez(
        scene / "meta" / f"{name}.npz",
        joint_pos=first + t[:, None] + np.arange(7) / 10,
        eef_pos=np.zeros((FRAMES, 3)),
        pos_objects=100 * np.arange(objects)[:, None, None] + 10 * np.arange(3) + t[None, :, None],
    )
    (scene / "meta" / f"{name}_meta.json").write_text(json.dumps({"Global": {}}))
    write_video(scene / "video" / f"{name}_frontview.mp4", frames)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    write_episode(tmp_path / "kitchen", "b", first=50.0)
    write_episode(tmp_path / "kitchen", "a")
    return tmp_path / "kitchen"


def test_every_frame_meets_its_row(scene: Path) -> None:
    data = load_causalverse(scene, size=(16, 12), every=2)
    assert data.episodes == ("a", "b")
    assert data.images.shape == (6, 12, 16, 3) and data.images.dtype == np.uint8
    assert data.names == tuple(f"joint_pos[{joint}]" for joint in range(7))
    np.testing.assert_array_equal(data.frame, [0, 2, 4, 0, 2, 4])
    np.testing.assert_array_equal(data.episode, [0, 0, 0, 1, 1, 1])
    np.testing.assert_allclose(data.factors[:, 1], [0.1, 2.1, 4.1, 50.1, 52.1, 54.1])
    np.testing.assert_allclose(data.images[..., 0].mean(axis=(1, 2)), 20 * data.frame + 30, atol=8)  # red comes first
    assert data.images[..., 2].max() < 20
    assert data.unpaired == 0


def test_objects_become_columns_of_their_own(scene: Path) -> None:
    data = load_causalverse(scene, size=(8, 6), factors=("eef_pos", "pos_objects"), max_episodes=1)
    assert data.episodes == ("a",)
    assert data.names[:4] == ("eef_pos[0]", "eef_pos[1]", "eef_pos[2]", "pos_objects[0][0]")
    np.testing.assert_allclose(data.factors[3, data.names.index("pos_objects[1][2]")], 100 + 20 + 3)


@pytest.mark.parametrize(("frames", "kept", "unpaired"), [(4, 4, 2), (8, 6, 2)])
def test_unequal_lengths_keep_what_is_paired(tmp_path: Path, frames: int, kept: int, unpaired: int) -> None:
    write_episode(tmp_path, "a", frames=frames)
    data = load_causalverse(tmp_path, size=(8, 6))
    assert len(data.images) == len(data.factors) == kept
    assert data.unpaired == unpaired


def test_bad_scenes_say_what_is_wrong(scene: Path, tmp_path: Path) -> None:
    with pytest.raises(RopesError, match="no folder 'meta'"):
        load_causalverse(tmp_path)
    with pytest.raises(RopesError, match=r"no view 'top'.*frontview"):
        load_causalverse(scene, view="top")
    with pytest.raises(RopesError, match=r"a_sideview\.mp4 does not exist"):
        load_causalverse(scene, view="sideview")
    with pytest.raises(RopesError, match="colour"):
        load_causalverse(scene, factors=("colour",))
    with pytest.raises(RopesError, match="no array 'joint_vel': it has eef_pos"):
        load_causalverse(scene, factors=("joint_vel",))
    with pytest.raises(RopesError, match="at least 1"):
        load_causalverse(scene, every=0)
    (tmp_path / "empty" / "meta").mkdir(parents=True)
    (tmp_path / "empty" / "video").mkdir()
    with pytest.raises(RopesError, match="holds no episode"):
        load_causalverse(tmp_path / "empty")


def test_damaged_files_are_named(scene: Path) -> None:
    video, table = scene / "video" / "b_frontview.mp4", scene / "meta" / "b.npz"
    whole = table.read_bytes()
    video.write_bytes(video.read_bytes()[:100])
    with pytest.raises(RopesError, match=r"b_frontview\.mp4 holds no frame"):
        load_causalverse(scene)
    for damaged in (b"", b"not a table", whole[:200]):
        table.write_bytes(damaged)
        with pytest.raises(RopesError, match=r"b\.npz cannot be read"):
            load_causalverse(scene)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"joint_pos": np.full((FRAMES, 7), np.nan)}, "not a finite number"),
        ({"joint_pos": np.zeros(FRAMES)}, r"shape \(6,\)"),
        ({"joint_pos": np.array([[None] * 7] * FRAMES)}, "cannot be read"),
        ({"joint_pos": np.zeros((FRAMES, 7)), "eef_pos": np.zeros((2, 3))}, "joint_pos 6, eef_pos 2"),
        ({"joint_pos": np.zeros((FRAMES, 6)), "eef_pos": np.zeros((FRAMES, 3))}, "b.npz has 9 numbers.* a.npz has 10"),
    ],
)
def test_bad_arrays_are_named(scene: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(scene / "meta" / "b.npz", **arrays)
    with pytest.raises(RopesError, match=message):
        load_causalverse(scene, factors=("joint_pos", "eef_pos"))

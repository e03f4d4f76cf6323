"""Batches: the same whatever the threads, every frame once an epoch, blocks where a disk must follow."""

from __future__ import annotations

import time

import numpy as np
import pytest
from stick_frames import stick_frames

torch = pytest.importorskip("torch")

from ropes_ros.learning import loader
from ropes_ros.learning.augmentation import Augmentation
from ropes_ros.learning.loader import Loader, batches, block_length, shuffled

FRAMES = stick_frames(320)
CPU = torch.device("cpu")


class Dawdling(Augmentation):
    """Takes its time over even batches, so that threads finish out of order."""

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        time.sleep(0.02 * (int(images.sum()) % 2))
        return super().__call__(images, rng)


def drawn(threads: int, monkeypatch: pytest.MonkeyPatch, epoch: int = 0) -> list[loader.Batch]:
    made = Loader(FRAMES.images, FRAMES.labels, device=CPU, augmentation=Dawdling(), views=2, neighbours=True, seed=5)
    monkeypatch.setattr(made, "_threads", threads)
    return list(made(batches(np.arange(320), 40), epoch))


def test_what_is_drawn_does_not_depend_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    for one, four in zip(drawn(1, monkeypatch), drawn(4, monkeypatch), strict=True):
        for first, second in zip(one, four, strict=True):
            assert torch.equal(first, second)


def test_epochs_and_views_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = drawn(1, monkeypatch)[0], drawn(1, monkeypatch, epoch=1)[0]
    assert not torch.equal(first.images, second.images)
    assert not torch.equal(first.images, first.other)


def test_neighbours_are_the_frames_next_in_time() -> None:
    made = Loader(FRAMES.images, FRAMES.labels, device=CPU, neighbours=True)
    (batch,) = made([np.array([3, 7, 319])])
    expected = torch.from_numpy(FRAMES.images[[4, 8, 319]]).permute(0, 3, 1, 2).float() / 255.0
    assert torch.equal(batch.neighbour, expected)
    assert batch.other is None and batch.index.tolist() == [3, 7, 319]
    assert torch.equal(batch.labels, torch.from_numpy(FRAMES.labels[[3, 7, 319]].astype(np.int64)))


def test_an_error_in_a_thread_reaches_the_loop() -> None:
    made = Loader(FRAMES.images, FRAMES.labels, device=CPU)
    with pytest.raises(IndexError):
        list(made([np.array([1]), np.array([320])]))


@pytest.mark.parametrize("block", [1, 16])
def test_an_epoch_shows_every_frame_once(block: int) -> None:
    indices = np.sort(np.random.default_rng(1).choice(5000, 1234, replace=False))
    order = shuffled(indices, np.random.default_rng(2), block=block, pool=256)
    assert (np.sort(order) == indices).all()
    assert not (order == shuffled(indices, np.random.default_rng(3), block=block, pool=256)).all()


def test_blocks_keep_reads_together_and_batches_mixed() -> None:
    """Within a pool lie whole blocks; a batch of it is spread over most of them."""
    block, pool = 16, 256
    order = shuffled(np.arange(65536), np.random.default_rng(0), block=block, pool=pool)
    touched = [len(np.unique(order[start : start + pool] // block)) for start in range(0, len(order), pool)]
    assert np.median(touched) <= 2 * pool // block + 2
    spread = [len(np.unique(order[start : start + 64] // block)) for start in range(0, len(order), pool)]
    assert np.median(spread) >= 12
    plain = np.random.default_rng(0).permutation(65536)[:pool]
    assert len(np.unique(plain // block)) > 200


def test_only_images_beyond_memory_are_read_in_blocks() -> None:
    class Large:
        nbytes = 1 << 60

    assert block_length(FRAMES.images) == 1
    assert block_length(Large()) == loader.BLOCK  # type: ignore[arg-type]

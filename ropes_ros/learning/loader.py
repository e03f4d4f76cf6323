"""Batches from memory-mapped frames, read and augmented by threads ahead of the training step.

Every batch has a random source of its own, so that what is drawn does not depend on the number of threads or on the
order in which they finish.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ropes_ros.learning.augmentation import Augmentation, to_input
from ropes_ros.learning.tasks import Batch

BLOCK = 32
"""Neighbouring frames that are read together when the images do not fit into memory."""
POOL = 16384
"""Frames among which the order is random then."""
MEMORY_SHARE = 0.6
"""Images up to this share of the machine's memory are drawn in any order: the page cache holds them."""
AHEAD = 2
"""Batches that each thread may be ahead."""
GPU_THREADS = 8


class Loader:
    """Makes batches of frames.

    Args:
        images: uint8 [N, h, w, 3] RGB, may be memory-mapped.
        labels: int16 [N, J], -1 none.
        device: Where the batches go.
        augmentation: Applied to every view; None leaves images as they are.
        views: 2 draws `other` as well.
        neighbours: Whether to draw `neighbour`.
        seed: Source of all randomness, together with the numbers given with each pass.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        labels: NDArray[np.int16],
        *,
        device: torch.device,
        augmentation: Augmentation | None = None,
        views: int = 1,
        neighbours: bool = False,
        seed: int = 0,
    ) -> None:
        self._images = images
        self._labels = labels
        self._device = device
        self._augmentation = augmentation
        self._views = views
        self._neighbours = neighbours
        self._seed = seed
        self._threads = min(GPU_THREADS, os.cpu_count() or 1) if device.type == "cuda" else 1
        if augmentation is not None:  # what it keeps for later batches must not depend on which thread comes first
            augmentation(images[:1], np.random.default_rng(seed))

    def __call__(self, chosen: Sequence[NDArray[np.int64]], *numbers: int) -> Iterator[Batch]:
        """The batches of one pass, in order.

        Args:
            chosen: Increasing frame numbers, int64 [n], of each batch.
            numbers: What tells this pass from others (epoch, process), for the random draws.
        """
        pending: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(self._threads, thread_name_prefix="loader") as pool:
            try:
                for position, index in enumerate(chosen):
                    pending.append(pool.submit(self._make, index, [self._seed, *numbers, position]))
                    if len(pending) > AHEAD * self._threads:
                        yield self._moved(pending.popleft().result())
                while pending:
                    yield self._moved(pending.popleft().result())
            finally:
                for future in pending:
                    future.cancel()

    def _make(self, index: NDArray[np.int64], source: list[int]) -> Batch:
        rng = np.random.default_rng(source)
        images = np.asarray(self._images[index])
        following = np.minimum(index + 1, len(self._images) - 1)
        return Batch(
            self._view(images, rng),
            self._view(images, rng) if self._views > 1 else None,
            self._view(np.asarray(self._images[following]), rng) if self._neighbours else None,
            self._pinned(torch.from_numpy(self._labels[index].astype(np.int64))),
            self._pinned(torch.from_numpy(index)),
        )

    def _view(self, images: NDArray[np.uint8], rng: np.random.Generator) -> Tensor:
        return self._pinned(to_input(images) if self._augmentation is None else self._augmentation(images, rng))

    def _pinned(self, values: Tensor) -> Tensor:
        return values.pin_memory() if self._device.type == "cuda" else values

    def _moved(self, batch: Batch) -> Batch:
        moved: list[Any] = [part if part is None else part.to(self._device, non_blocking=True) for part in batch]
        return Batch(*moved)


def block_length(images: NDArray[np.uint8]) -> int:
    """Frames to read together: 1 where the images fit into memory, else `BLOCK`."""
    with suppress(ValueError, OSError):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if images.nbytes > MEMORY_SHARE * memory:
            return BLOCK
    return 1


def shuffled(
    indices: NDArray[np.int64], rng: np.random.Generator, *, block: int = 1, pool: int = POOL
) -> NDArray[np.int64]:
    """A random order of frames that a disk can follow.

    Blocks of neighbours come in random order, and frames are mixed within each run of `pool` of them; with a block of
    one frame it is a plain random permutation.

    Args:
        indices: int64 [n], increasing.
        rng: Source of randomness.
        block: Frames in a block.
        pool: Frames that are mixed.

    Returns:
        int64 [n], a permutation of the indices.
    """
    if block == 1:
        return rng.permutation(indices)
    blocks = np.split(indices, range(int(rng.integers(1, block + 1)), len(indices), block))
    order = np.concatenate([blocks[number] for number in rng.permutation(len(blocks))])
    for start in range(0, len(order), pool):
        rng.shuffle(order[start : start + pool])
    return order


def batches(indices: NDArray[np.int64], size: int = 512) -> list[NDArray[np.int64]]:
    """Consecutive pieces of an index array."""
    return [indices[start : start + size] for start in range(0, len(indices), size)]

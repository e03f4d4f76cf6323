"""One process or many: the place of this process among those that `torchrun` started, and its device."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ropes_ros.errors import TrainingError

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """The processes that train together.

    Attributes:
        rank: Number of this process; the one with 0 writes and reports.
        size: Number of processes.
        device: Where this process computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Sum over all processes; on the CPU, of the same shape."""
        if self.size > 1:
            values = values.to(self.device)
            dist.all_reduce(values)
        return values.cpu()

    def share(self, value: T) -> T:
        """The first process's value, a plain object, in every process."""
        if self.size == 1:
            return value
        holder: list[Any] = [value]
        dist.broadcast_object_list(holder, src=0, device=self.device)
        shared: T = holder[0]
        return shared

    def wrap(self, module: nn.Module) -> nn.Module:
        """A module whose gradients are averaged over all processes; the module itself when there is only one.

        Batch normalisation sees the batch of all processes on GPUs (SyncBatchNorm has no CPU form); on CPUs each
        process normalises by its own share of the batch, and the running statistics are the first process's.
        """
        if self.size == 1:
            return module
        if self.device.type == "cuda":
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return nn.parallel.DistributedDataParallel(module, find_unused_parameters=True)


@contextmanager
def joined() -> Iterator[World]:
    """Join the processes that `torchrun` started, over nccl on GPUs and gloo on CPUs, and leave them at the end.

    A process that was not started by it is alone.

    Raises:
        TrainingError: There are fewer GPUs than processes on this machine.
    """
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        if local >= torch.cuda.device_count():
            raise TrainingError(
                f"process {local + 1} of this machine has no GPU of its own ({torch.cuda.device_count()} there): "
                "start as many processes as GPUs (torchrun --nproc-per-node)"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World(0, 1, device)
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()

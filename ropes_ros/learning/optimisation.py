"""What both stages of training share of optimisation: precision, learning rate, averaged weights."""

from __future__ import annotations

import math
import os
import shutil

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ropes_ros.errors import TrainingError

PRECISIONS = ("auto", "float32", "bfloat16")


def check_compiler(device: torch.device) -> None:
    """Refuse to compile networks for a CPU where nothing compiles C++.

    Raises:
        TrainingError: There is no compiler.
    """
    compiler = os.environ.get("CXX", "g++")  # the one that torch takes
    if device.type == "cpu" and shutil.which(compiler) is None:
        named = " (the variable CXX names it)" if "CXX" in os.environ else ""
        raise TrainingError(
            f"compiling the network needs a C++ compiler, and there is no {compiler}{named}: install g++, or leave out "
            "--compile"
        )


def takes_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether products are taken in bfloat16: as asked for, or where the hardware has instructions for them."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return any(torch.cpu.get_capabilities().get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def one_cycle(progress: float) -> float:
    """Learning rate as a share of its peak: a short linear rise, then half a cosine down to 1 %."""
    if progress < 0.08:
        return 0.05 + 0.95 * progress / 0.08
    return 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * (progress - 0.08) / 0.92))


@torch.no_grad()
def follow(average: nn.Module, net: nn.Module, decay: float) -> None:
    """Move the average's weights and statistics towards the net's."""
    followed, current = average.state_dict(), net.state_dict()
    floats = [name for name, value in followed.items() if value.dtype.is_floating_point]
    follow = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    follow([followed[name] for name in floats], [current[name] for name in floats], 0)
    for name in followed.keys() - set(floats):
        followed[name].copy_(current[name])

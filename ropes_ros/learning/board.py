"""Figures of a training run for TensorBoard, which is optional."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ropes_ros.errors import RuntimeSetupError

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter


class Board:
    """Writes scalars to TensorBoard's event files; without a folder it writes nothing.

    Args:
        folder: Folder for the event files.

    Raises:
        RuntimeSetupError: A folder is given and the package is missing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None
        if folder is not None:
            try:
                import torch.utils.tensorboard  # noqa: F401
            except ImportError:
                raise RuntimeSetupError(
                    "tensorboard is not installed, so no logs can be written for it; run "
                    "`pip install 'ropes_ros[log]'`"
                ) from None

    def open(self, step: int) -> None:
        """Begin to write; what an earlier run wrote for later steps than this is hidden."""
        if self._folder is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=step)

    def write(self, step: int, figures: dict[str, float]) -> None:
        """Note figures at a step."""
        if self._writer is not None:
            for name, value in figures.items():
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the file."""
        if self._writer is not None:
            self._writer.close()

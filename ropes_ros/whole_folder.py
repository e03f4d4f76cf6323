"""Folders that are there whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ropes_ros.errors import RopesError


@contextmanager
def whole_folder(path: Path) -> Iterator[None]:
    """Where a folder is written that does not exist yet: what is there of it is removed when an exception passes.

    Args:
        path: The folder; made in the block.

    Raises:
        RopesError: It exists already.
    """
    if os.path.lexists(path):
        raise RopesError(f"{path} exists already and is not overwritten: choose another path")
    try:
        yield
    except BaseException:  # an interrupt too: half a bag or data set would be taken for a whole one
        shutil.rmtree(path, ignore_errors=True)
        raise

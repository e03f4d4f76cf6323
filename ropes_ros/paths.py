"""Where the package's data files (config/, models/, launch/) are: a source checkout or an installation."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ropes_ros.errors import RopesError


def share_dir() -> Path:
    """The folder that holds config/, models/ and launch/, that of the copy of the package that is running first.

    Looked at in this order: the source checkout (as with an editable or a symlinked install); `share/ropes_ros` below
    each folder above the package, nearest first (a wheel in an environment, `pip install --user`, --prefix or --target,
    a colcon install); `<sys.prefix>/share/ropes_ros`; the same below the prefixes in AMENT_PREFIX_PATH.

    Raises:
        RopesError: None of these has config/robots.
    """
    checkout = Path(__file__).resolve().parent.parent
    prefixes = [*(Path(__file__).absolute().parents[1:]), Path(sys.prefix)]
    prefixes += [Path(prefix) for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    candidates = [checkout, *(prefix / "share" / "ropes_ros" for prefix in prefixes)]
    for candidate in candidates:
        if (candidate / "config" / "robots").is_dir():
            return candidate
    looked = ", ".join(str(candidate) for candidate in dict.fromkeys(candidates))
    raise RopesError(f"config/robots is in none of {looked}: install ropes_ros or source its workspace")

"""Where the package's data files (config/, models/, launch/) are: a source checkout or an installation."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ropes_ros.errors import RopesError


def share_dir() -> Path:
    """The folder that holds config/, models/ and launch/.

    The source checkout comes first, then `<sys.prefix>/share/ropes_ros`, then the same below the prefixes
    in AMENT_PREFIX_PATH.

    Raises:
        RopesError: None of these has config/robots.
    """
    prefixes = [sys.prefix, *os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)]
    candidates = [Path(__file__).resolve().parent.parent]
    candidates += [Path(prefix) / "share" / "ropes_ros" for prefix in prefixes if prefix]
    for candidate in candidates:
        if (candidate / "config" / "robots").is_dir():
            return candidate
    looked = ", ".join(str(candidate) for candidate in candidates)
    raise RopesError(f"config/robots is in none of {looked}: install ropes_ros or source its workspace")

"""Installed ROS packages, found as the ament index defines it, without importing ROS."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ropes_ros.errors import RuntimeSetupError

NO_DISTRO = "DISTRO"
"""Stands in names of system packages where no distribution is sourced."""


def package_share(package: str) -> Path | None:
    """The share folder of an installed ROS package; None where AMENT_PREFIX_PATH leads to no such package."""
    for prefix in filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)):
        if (Path(prefix) / "share" / "ament_index" / "resource_index" / "packages" / package).is_file():
            return Path(prefix) / "share" / package
    return None


def require_packages(packages: Iterable[str], purpose: str) -> None:
    """Check that ROS packages are installed.

    Args:
        packages: Names of packages.
        purpose: What they are needed for, as the beginning of a sentence.

    Raises:
        RuntimeSetupError: Some are missing; the message names them and how to install them.
    """
    missing = [package for package in packages if package_share(package) is None]
    if missing:
        distro = os.environ.get("ROS_DISTRO", NO_DISTRO)
        names = " ".join(f"ros-{distro}-{package.replace('_', '-')}" for package in missing)
        raise RuntimeSetupError(
            f"{purpose} needs the ROS package(s) {', '.join(missing)}, which AMENT_PREFIX_PATH does not lead to:"
            f" sudo apt-get install {names} (rosdep resolve PACKAGE names them on other systems),"
            " or source the workspace that has them"
        )

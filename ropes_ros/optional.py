"""Packages that only some of what this one does needs: refused with advice where they are missing."""

from __future__ import annotations

from importlib.util import find_spec

from ropes_ros.errors import RuntimeSetupError


def need(*packages: str, extra: str) -> None:
    """Refuse to go on where a package is missing.

    Args:
        packages: Their names, as they are imported.
        extra: The extra of this package that brings them.

    Raises:
        RuntimeSetupError: One of them is not installed.
    """
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        are = "are" if len(missing) > 1 else "is"
        raise RuntimeSetupError(
            f"{' and '.join(missing)} {are} not installed; run `pip install 'ropes_ros[{extra}]'`"
        )

"""Run the conformance suite and the documentation checks, and write out/verify/ros.json: `make verify-ros`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from outcomes import Outcomes

from ropes_ros.processes import has_ros

HERE = Path(__file__).parent
CHECKS = ("conformance", "test_interface.py", "test_docs_site.py")
"""What is run, below this folder."""
UNDOCUMENTED = "undocumented"
"""The property under which a test of the documentation notes the names that it misses there."""
RESULT = HERE.parent / "out" / "verify" / "ros.json"


def summary(results: Outcomes) -> dict[str, Any]:
    """What is written: tests that ran, tests that passed, tests that were skipped, and what no document names."""
    return {
        "runtime": "rclpy" if has_ros() else "standalone",
        "tests": results.ran,
        "passed": results.count("passed"),
        "skipped": results.count("skipped"),
        "undocumented": sorted({name for names in results.noted.get(UNDOCUMENTED, ()) for name in names}),
    }


def main() -> int:
    """Exit status 0 where all that ran passed."""
    results = Outcomes()
    status = pytest.main(["-q", "-p", "no:cacheprovider", *(str(HERE / name) for name in CHECKS)], plugins=[results])
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(summary(results), indent=1) + "\n", encoding="utf-8")
    print(f"{RESULT}: {summary(results)}")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())

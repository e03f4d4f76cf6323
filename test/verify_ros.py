"""Run the conformance suite and the documentation checks, and write out/verify/ros.json: `make verify-ros`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from ropes_ros.processes import has_ros

HERE = Path(__file__).parent
CHECKS = ("conformance", "test_interface.py", "test_docs_site.py")
"""What is run, below this folder."""
UNDOCUMENTED = "undocumented"
"""The property under which a test of the documentation notes the names that it misses there."""
RESULT = HERE.parent / "out" / "verify" / "ros.json"


class Results:
    """A pytest plugin that counts tests and gathers what they note."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}
        self.undocumented: set[str] = set()

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Keep a test's outcome: that of its call, or of the setup or teardown that did not pass."""
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.nodeid] = report.outcome
        for name, value in report.user_properties if report.when == "call" else ():
            if name == UNDOCUMENTED:
                self.undocumented.update(value)

    def pytest_collectreport(self, report: Any) -> None:
        """A file that cannot be read is a test that failed."""
        if report.failed:
            self.outcomes[report.nodeid] = "failed"

    def summary(self) -> dict[str, Any]:
        """What is written: tests that ran, tests that passed, tests that were skipped, and what no document names."""
        outcomes = list(self.outcomes.values())
        return {
            "runtime": "rclpy" if has_ros() else "standalone",
            "tests": len(outcomes) - outcomes.count("skipped"),
            "passed": outcomes.count("passed"),
            "skipped": outcomes.count("skipped"),
            "undocumented": sorted(self.undocumented),
        }


def main() -> int:
    """Exit status 0 where all that ran passed."""
    results = Results()
    status = pytest.main(["-q", "-p", "no:cacheprovider", *(str(HERE / name) for name in CHECKS)], plugins=[results])
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(results.summary(), indent=1) + "\n", encoding="utf-8")
    print(f"{RESULT}: {results.summary()}")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())

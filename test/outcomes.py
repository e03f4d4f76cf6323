"""A pytest plugin that counts outcomes, for the programs that run tests and write down what came of them."""

from __future__ import annotations

from typing import Any


class Outcomes:
    """Outcomes by test, and the properties that tests record by name."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}
        self.noted: dict[str, list[Any]] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Keep a test's outcome: that of its call, or of the setup or teardown that did not pass."""
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.nodeid] = report.outcome
        for name, value in report.user_properties if report.when == "call" else ():
            self.noted.setdefault(name, []).append(value)

    def pytest_collectreport(self, report: Any) -> None:
        """A file that cannot be read is a test that failed."""
        if report.failed:
            self.outcomes[report.nodeid] = "failed"

    def count(self, outcome: str) -> int:
        """Tests with an outcome."""
        return list(self.outcomes.values()).count(outcome)

    @property
    def ran(self) -> int:
        """Tests that were not skipped."""
        return len(self.outcomes) - self.count("skipped")

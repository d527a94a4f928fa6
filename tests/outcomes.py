"""A pytest plugin that writes each test's outcome to a file as soon as it is known, for `tools/test_busy.py`.

It is loaded with `-p tests.outcomes`; ROLLFORWARD_TEST_OUTCOMES names the file. A line is "passed" or "failed" and the
test's id.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest


class Outcomes:
    """Notes a test as failed when one of its phases is, else as passed, also when it is skipped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._failed: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test once its last phase is over."""
        if report.failed:
            self._failed.add(report.nodeid)
        if report.when == "teardown":
            outcome = "failed" if report.nodeid in self._failed else "passed"
            with self._path.open("a") as file:
                file.write(f"{outcome} {report.nodeid}\n")


def pytest_configure(config: pytest.Config) -> None:
    """Register the plugin, once: workers report to the process that started them."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Outcomes(Path(os.environ["ROLLFORWARD_TEST_OUTCOMES"])))

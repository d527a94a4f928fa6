"""The benchmarks run: each kind of start once, with minimal load."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.systems import ours
from tests.e2e.program import ROOT
from tests.timeouts import scaled

SMALL = {
    "watchers": ["--events", "400", "--models", "50", "--watchers", "4", "--back", "4", "--behind", "50"],
    "writers": ["--callers", "4", "--each", "2"],
}


@pytest.mark.parametrize("what", SMALL)
def test_load_benchmarks_run(what: str) -> None:
    command = [sys.executable, "-m", "benchmarks.under_load", what, *SMALL[what], "--seconds", "0.2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=scaled(120), check=False)
    assert done.returncode == 0, done.stderr
    expected = {"watchers": ("4 of 4 caught up", 2), "writers": ("0 of 8 failed", 1)}
    text, times = expected[what]
    assert done.stdout.count(text) == times, done.stdout
    assert "no move was made" not in done.stdout


def test_system_starts_and_answers() -> None:
    with ours.running() as endpoint:
        client = ours.SdkClient(endpoint, "bench")
        client.prepare("model", 2)
        client.move("model", "champion", 2)
        client.resolve("model", "champion")

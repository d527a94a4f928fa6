"""`make test-busy`: what it counts, and that its busy loops end."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from tests.e2e.program import ROOT, gone, until
from tools import test_busy as busy

TESTS = ["tests/a.py::test_one", "tests/a.py::test_mail[x@y]"]


@pytest.fixture(autouse=True)
def outcomes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where outcomes are kept here."""
    path = tmp_path / "outcomes"
    monkeypatch.setattr(busy, "OUTCOMES", path)
    return path


def test_loops_run_until_the_block_ends_and_no_longer() -> None:
    ids: list[int] = []

    def be_interrupted() -> None:
        with busy.busy_loops(2) as loops:
            ids.extend(loops)
            assert all(psutil.pid_exists(pid) for pid in ids)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        be_interrupted()
    assert len(ids) == 2
    assert not any(psutil.pid_exists(pid) for pid in ids)


def test_loops_end_with_a_program_that_is_killed() -> None:
    program = "from tools.test_busy import *\nwith busy_loops(1) as ids: print(*ids, flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        loop = int(process.stdout.readline())
        process.kill()
    until(lambda: gone(loop), "the loop has ended")


def test_passes_count_from_the_last_failure(outcomes: Path) -> None:
    one, mail = TESTS
    outcomes.write_text(f"passed {one}\nfailed {one}\npassed {one}\npassed {mail}@group\n")
    assert busy.read_outcomes(TESTS, 0) == (Counter({one: 1, mail: 1}), {one})
    assert busy.read_outcomes(TESTS, outcomes.stat().st_size).failed == set()


def test_each_runs_until_it_has_passed_often_enough_or_failed(outcomes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, mail = TESTS
    outcomes.write_text(f"passed {one}\n")
    rounds: list[Sequence[str]] = []

    def run(tests: Sequence[str], scale: float) -> int:
        rounds.append(tests)
        with outcomes.open("a") as file:
            file.writelines(f"{'failed' if test == mail else 'passed'} {test}\n" for test in tests)
        return 1

    monkeypatch.setattr(busy, "run", run)
    assert busy.repeat(TESTS, 3, 1.0) == {mail}
    assert rounds == [TESTS, [one]]


def test_a_round_without_an_outcome_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(busy, "run", lambda _tests, _scale: 1)
    with pytest.raises(SystemExit):
        busy.repeat(TESTS, 3, 1.0)

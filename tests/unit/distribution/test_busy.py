"""`make test-busy`: its counts, and the end of its busy loops."""

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
    """Return the path of the outcomes file."""
    path = tmp_path / "outcomes"
    monkeypatch.setattr(busy, "OUTCOMES", path)
    return path


def test_loops_run_until_block_ends() -> None:
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


def test_loops_end_when_their_program_is_killed() -> None:
    program = "from tools.test_busy import *\nwith busy_loops(1) as ids: print(*ids, flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        loop = int(process.stdout.readline())
        process.kill()
    until(lambda: gone(loop), "the loop has ended")


def test_passes_count_from_last_failure(outcomes: Path) -> None:
    first, mail = TESTS
    outcomes.write_text(f"passed {first}\nfailed {first}\npassed {first}\npassed {mail}@group\n")
    assert busy.read_outcomes(TESTS, 0) == (Counter({first: 1, mail: 1}), {first})
    assert busy.read_outcomes(TESTS, outcomes.stat().st_size).failed == set()


def test_each_test_runs_until_it_passed_often_enough_or_failed(outcomes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, mail = TESTS
    outcomes.write_text(f"passed {first}\n")
    rounds: list[Sequence[str]] = []

    def run(tests: Sequence[str], scale: float) -> int:
        rounds.append(tests)
        with outcomes.open("a") as file:
            file.writelines(f"{'failed' if test == mail else 'passed'} {test}\n" for test in tests)
        return 1

    monkeypatch.setattr(busy, "run", run)
    assert busy.repeat(TESTS, 3, 1.0) == {mail}
    assert rounds == [TESTS, [first]]


def test_round_without_outcomes_stops_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(busy, "run", lambda _tests, _scale: 1)
    with pytest.raises(SystemExit):
        busy.repeat(TESTS, 3, 1.0)

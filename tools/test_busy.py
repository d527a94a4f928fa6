"""Runs the tests that race, kill or wait beside busy loops, until each has passed many times.

What has passed is kept in `.busy_cache/`, so that the same command continues after an interruption. A test that fails
is named, loses its passes and is left out until the next run. Unknown options are passed to pytest.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".busy_cache"
OUTCOMES = CACHE / "outcomes"
SELECTED = CACHE / "selected"

# A loop ends with the process that started it, however that ends.
LOOP = """
import os, sys
while os.getppid() == int(sys.argv[1]):
    for _ in range(1_000_000):
        pass
"""
NO_TESTS = 5


class Progress(NamedTuple):
    """How often tests have passed since they last failed, and the tests that failed in this run."""

    passes: Counter[str]
    failed: set[str]


@contextmanager
def busy_loops(count: int) -> Iterator[list[int]]:
    """Keep so many processes busy; give their ids, and end each of them by its id."""
    loops: list[subprocess.Popen[bytes]] = []
    try:
        loops += (subprocess.Popen([sys.executable, "-c", LOOP, str(os.getpid())]) for _ in range(count))
        yield [loop.pid for loop in loops]
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def read_outcomes(tests: Collection[str], after: int) -> Progress:
    """Read what is kept of tests; failures are those after a position of the file."""
    passes, failed = Counter[str](), set[str]()
    if not OUTCOMES.exists():
        return Progress(passes, failed)
    position = 0
    for line in OUTCOMES.read_text().splitlines(keepends=True):
        position += len(line.encode())
        outcome, _, test = line.rstrip("\n").partition(" ")
        if test not in tests:  # a test that runs with others of a group is reported as "test@group"
            test = test.rpartition("@")[0]
        if outcome == "passed":
            passes[test] += 1
        else:
            del passes[test]
            failed |= {test} if position > after else set()
    return Progress(passes, failed)


def collect(options: Sequence[str]) -> list[str]:
    """Return the ids of the tests that options of pytest select."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *options]
    found = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if found.returncode not in {0, NO_TESTS}:
        raise SystemExit(f"pytest cannot collect the tests: {found.stdout}")
    return [line for line in found.stdout.splitlines() if "::" in line]


def run(tests: Sequence[str], scale: float) -> int:
    """Run tests once; return pytest's exit status."""
    SELECTED.write_text("".join(f"{test}\n" for test in tests))
    command = [sys.executable, "-m", "pytest", "-p", "tests.outcomes", "-q", "-n", "2", "--dist", "loadgroup"]
    variables = {"ROLLFORWARD_TEST_OUTCOMES": str(OUTCOMES), "ROLLFORWARD_TEST_TIMEOUT_SCALE": str(scale)}
    with subprocess.Popen([*command, f"@{SELECTED}"], cwd=ROOT, env=os.environ | variables) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:  # pytest has received it too, and ends what it has started
            process.wait()
            raise


def repeat(tests: Sequence[str], times: int, scale: float) -> set[str]:
    """Run tests until each has passed so often or failed; return those that failed."""
    began = OUTCOMES.stat().st_size if OUTCOMES.exists() else 0
    known = frozenset(tests)
    while True:
        progress = read_outcomes(known, began)
        left = [test for test in tests if test not in progress.failed and progress.passes[test] < times]
        passes = sum(min(progress.passes[test], times) for test in tests)
        print(f"{passes} of {times * len(tests)} passes; {len(left)} tests left, {len(progress.failed)} failed")
        if not left:
            return progress.failed
        if run(left, scale) > 1 or read_outcomes(known, began) == progress:  # interrupted, or pytest itself failed
            raise SystemExit("stopped; the same command continues")


def main() -> None:
    """Run as the command line says; the exit status is 1 when a test failed."""
    parser = argparse.ArgumentParser(prog="make test-busy", description=__doc__)
    parser.add_argument("--times", type=int, default=20, help="how often each test has to pass")
    parser.add_argument("--all", action="store_true", help="run every test, not only those marked as busy")
    parser.add_argument("--loops", type=int, default=6, help="how many busy loops run beside the tests")
    parser.add_argument("--scale", type=float, default=6.0, help="how many times longer tests may wait")
    parser.add_argument("--reset", action="store_true", help="forget what has passed before")
    arguments, options = parser.parse_known_args()
    CACHE.mkdir(exist_ok=True)
    if arguments.reset:
        OUTCOMES.unlink(missing_ok=True)
    tests = collect([*([] if arguments.all else ["-m", "busy"]), *options])
    if not tests:
        raise SystemExit("no tests are selected")
    with busy_loops(arguments.loops):
        failed = repeat(tests, arguments.times, arguments.scale)
    for test in sorted(failed):
        print(f"FAILED {test}")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("interrupted; the same command continues") from None

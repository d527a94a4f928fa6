"""Records and checks hundreds of histories, or checks recorded ones again: `python -m tests.histories --seeds 300`."""

from __future__ import annotations

import argparse
import itertools
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.histories.bugs import BUGS
from tests.histories.checker import check
from tests.histories.recording import History, read
from tests.histories.rules import Violation
from tests.histories.run import Recorder
from tests.histories.system import SHAPES

LIFE = 50
"""So many histories share a system; then it is started anew."""


def main() -> int:
    """Zero when no history breaks a promise."""
    parser = argparse.ArgumentParser(prog="python -m tests.histories", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="how many histories are recorded")
    parser.add_argument("--first", type=int, help="the first seed; by default one that nobody had before")
    parser.add_argument("--shape", choices=SHAPES, help="one shape only; by default each has its turn")
    parser.add_argument("--bug", choices=BUGS, default="none", help="a bug to be put in")
    parser.add_argument("--keep", type=Path, help="a directory for every history; broken ones are kept anyway")
    parser.add_argument("recorded", nargs="*", type=Path, help="recorded histories to be checked again")
    options = parser.parse_args()
    console = Console()
    if options.recorded:
        broken = [_report(console, path.name, check(read(path))) for path in options.recorded]
    else:
        broken = _record(console, options)
    console.print(f"{len(broken)} histories, {sum(broken)} broken")
    return 1 if any(broken) else 0


def _record(console: Console, options: argparse.Namespace) -> list[bool]:
    first = options.first if options.first is not None else random.SystemRandom().randrange(10**9)
    shapes = [options.shape] if options.shape else list(SHAPES)
    kept = options.keep or Path(tempfile.mkdtemp(prefix="histories-"))
    kept.mkdir(exist_ok=True)
    broken, counts = [], [0, 0, 0]
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(f"from seed {first}", total=options.seeds)
        for shape, history in _histories(shapes, options.bug, range(first, first + options.seeds), kept):
            path = kept / f"{history.name}.jsonl"
            history.write(path)
            violations = check(history)
            broken.append(_report(bar.console, f"{path}, {shape}, {history.faults}", violations))
            steps = sum(len(stream.steps) for stream in history.streams)
            sizes = [len(history.operations), len(history.events), steps]
            counts = [count + size for count, size in zip(counts, sizes, strict=True)]
            if not violations and not options.keep:
                path.unlink()
            bar.advance(task)
    if not options.keep and not any(broken):
        shutil.rmtree(kept)
    console.print("{} operations, {} events, {} steps of watches".format(*counts))
    return broken


def _histories(shapes: Sequence[str], bug: str, seeds: Sequence[int], kept: Path) -> Iterator[tuple[str, History]]:
    turns = itertools.cycle(shapes)
    for start in range(0, len(seeds), LIFE):
        shape = next(turns)
        with ExitStack() as stack:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="histories-")))
            recorder = Recorder(stack.enter_context(SHAPES[shape](home, bug)))
            try:
                for seed in seeds[start : start + LIFE]:
                    yield shape, recorder.record(seed)
            finally:
                for log in home.glob("*.log"):
                    shutil.copy(log, kept / f"{seeds[start]}-{log.name}")


def _report(console: Console, name: str, violations: Sequence[Violation]) -> bool:
    if violations:
        console.print(f"[bold red]broken[/]: {name}", highlight=False)
        for violation in violations[:5]:
            console.print(f"  {violation}", markup=False, highlight=False)
        if len(violations) > 5:
            console.print(f"  and {len(violations) - 5} more", highlight=False)
    return bool(violations)


if __name__ == "__main__":
    begun = time.monotonic()
    status = main()
    print(f"{time.monotonic() - begun:.0f} s", file=sys.stderr)
    sys.exit(status)

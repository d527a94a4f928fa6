"""Record and check histories: `make histories ARGS="--seeds 300 --faults all"`; cut off, it continues where it was."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.histories.bugs.catalogue import BUGS
from tests.histories.bugs.hunt import hunt
from tests.histories.campaign import Campaign, Plan, summary
from tests.histories.checks.checker import check
from tests.histories.recorded.storage import read
from tests.histories.systems.faults import BASIC, FAULTS
from tests.histories.systems.shapes import SHAPES

HOME = Path(__file__).parents[2] / ".histories"


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when no history breaks a promise, or every planted bug is caught."""
    options = _parser().parse_args(arguments)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    if options.replay:
        return _replay(console, options.replay)
    if options.bugs is not None:
        return hunt(console, options.bugs or list(BUGS), options.seeds or 8)
    return _record(console, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.histories", description=__doc__)
    parser.add_argument("--seeds", type=int, help="how many histories to record (default 20; 8 for each bug)")
    parser.add_argument("--first", type=int, default=-1, help="the first seed (default: a random one)")
    parser.add_argument("--shape", choices=SHAPES, action="append", help="only this shape (default: all take turns)")
    parser.add_argument("--faults", default="all", help="all, basic, or names separated by commas (default all)")
    parser.add_argument("--fresh", action="store_true", help="start over instead of resuming")
    parser.add_argument("--home", type=Path, default=HOME, help="where verdicts and broken histories are kept")
    parser.add_argument("--replay", nargs="+", type=Path, metavar="FILE", help="check recorded histories again")
    parser.add_argument(
        "--bugs", nargs="*", choices=BUGS, metavar="BUG", help="plant bugs and count the histories that catch each"
    )
    return parser


def _replay(console: Console, files: Sequence[Path]) -> int:
    broken = 0
    for file in files:
        violations = check(read(file))
        broken += bool(violations)
        console.print(f"{'broken' if violations else 'valid'}: {file}")
        for violation in violations:
            console.print(f"  {violation}")
    console.print(f"{len(files)} histories, {broken} broken")
    return 1 if broken else 0


def _record(console: Console, options: argparse.Namespace) -> int:
    shapes = tuple(options.shape or SHAPES)
    seeds = max(options.seeds or 20, 1 if options.shape else len(shapes))  # each shape in every run
    campaign = Campaign(options.home, Plan(options.first, seeds, shapes, _faults(options.faults)), fresh=options.fresh)
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=console) as progress:
        about = f"from seed {campaign.plan.first}"
        task = progress.add_task(about, total=campaign.plan.seeds, completed=len(campaign.verdicts))

        def report(line: str) -> None:
            progress.advance(task)
            if not line.startswith("good") or not console.is_terminal:
                progress.console.print(line)

        campaign.run(report)
    for line in (*campaign.lacks, *summary(campaign.verdicts)):
        console.print(line)
    return 1 if campaign.broken else 0


def _faults(names: str) -> tuple[str, ...]:
    if names == "all":
        return tuple(FAULTS)
    if names == "basic":
        return BASIC
    chosen = tuple(name.strip() for name in names.split(","))
    if unknown := [name for name in chosen if name not in FAULTS]:
        sys.exit(f"unknown fault {unknown[0]!r}: expected one of {', '.join(FAULTS)}")
    return chosen


if __name__ == "__main__":
    # What a client or the checker's own reader cannot reach for a while is in the histories. Here, and not in `main`,
    # which tests call: it is for the whole process.
    logging.disable(logging.WARNING)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    sys.exit(main())

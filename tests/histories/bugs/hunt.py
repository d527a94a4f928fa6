"""Planted bugs: at least half of the histories must catch each, by a rule that it breaks."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.histories.bugs.catalogue import BUGS
from tests.histories.checks.checker import check
from tests.histories.checks.rules import Rule
from tests.histories.run import Recorder
from tests.histories.systems.shapes import SHAPES


@dataclass(frozen=True, slots=True)
class Catch:
    """How often a bug was caught in the planned histories, and the rules that it broke."""

    bug: str
    planned: int
    histories: int
    caught: int
    rules: dict[str, int]

    @property
    def is_enough(self) -> bool:
        """Return whether at least half of the histories caught the bug, or none broke for a change that is no bug."""
        return self.caught * 2 >= self.planned if BUGS[self.bug].breaks else not self.rules


def hunt(console: Console, names: Sequence[str], seeds: int) -> int:
    """Record histories with each bug; print who was caught; return 0 when all were."""
    table = Table("bug", "promise", "caught", "as")
    missed = 0
    for name in names:
        catch = chase(name, range(1, seeds + 1))
        missed += not catch.is_enough
        rules = ", ".join(f"{rule} {count}" for rule, count in catch.rules.items())
        row = name, BUGS[name].promise, f"{catch.caught} of {catch.histories}", rules
        console.print("  ".join(row))
        table.add_row(*row)
    console.print(table)
    console.print(f"{len(names)} bugs, {missed} missed")
    return 1 if missed else 0


def chase(name: str, seeds: Sequence[int]) -> Catch:
    """Record histories with one bug in the services, until half of those planned have caught it or cannot any more."""
    caught, rules, left = 0, Counter[str](), list(seeds)
    while left and not _is_decided(name, caught, len(left), len(seeds)):
        for broken in _broken(name, left):
            caught += bool(broken & BUGS[name].breaks)
            rules.update(sorted(rule.name for rule in broken))
            if _is_decided(name, caught, len(left), len(seeds)):
                break
    return Catch(name, len(seeds), len(seeds) - len(left), caught, dict(rules.most_common()))


def _is_decided(name: str, caught: int, left: int, planned: int) -> bool:
    return bool(BUGS[name].breaks) and (caught * 2 >= planned or (caught + left) * 2 < planned)


def _broken(name: str, left: list[int]) -> Iterator[set[Rule]]:
    """Yield the rules that each seed breaks, until none is `left` or the system fails."""
    bug = BUGS[name]
    with tempfile.TemporaryDirectory(prefix="histories-") as home, SHAPES[bug.shape](Path(home), name) as system:
        recorder = Recorder(system)
        while left:
            broken = {violation.rule for violation in check(recorder.record(left.pop(0), bug.faults))}
            yield broken
            if recorder.is_spent:
                return

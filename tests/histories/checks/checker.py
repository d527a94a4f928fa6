"""Check a recorded history against the log, and name every rule that it breaks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.histories.checks.deliveries import check_deliveries
from tests.histories.checks.gates import check_gates
from tests.histories.checks.linearizable import check_linearizable
from tests.histories.checks.listings import check_listings
from tests.histories.checks.losses import check_losses
from tests.histories.checks.moves import check_moves
from tests.histories.checks.names import check_names
from tests.histories.checks.points import check_points
from tests.histories.checks.reads import check_reads
from tests.histories.checks.rebuilds import check_rebuilds
from tests.histories.checks.rules import Rule, Violation
from tests.histories.checks.times import check_times
from tests.histories.checks.truth import Truth
from tests.histories.checks.watches import check_watches
from tests.histories.recorded.recording import History


def check(history: History) -> Sequence[Violation]:
    """Return what a history breaks; empty for a good one."""
    failures = [Violation(Rule.NO_FAILURE, f"{failure.where}: {failure.text}") for failure in history.failures]
    return [*failures, *(_check_all(history) if history.is_whole else ())]


def _check_all(history: History) -> Iterator[Violation]:
    truth = Truth(history)
    yield from check_moves(truth)
    yield from check_linearizable(truth)
    yield from check_reads(truth)
    yield from check_watches(truth)
    yield from check_names(history)
    yield from check_times(truth)
    yield from check_points(history)
    yield from check_deliveries(history)
    yield from check_gates(history)
    yield from check_listings(history)
    yield from check_rebuilds(history)
    yield from check_losses(history)

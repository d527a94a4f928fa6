"""Check a recorded history against the log: every promise that it breaks, by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.histories.deliveries import check_deliveries
from tests.histories.gates import check_gates
from tests.histories.linearizable import check_linearizable
from tests.histories.listings import check_listings
from tests.histories.losses import check_losses
from tests.histories.moves import check_moves
from tests.histories.names import check_names
from tests.histories.points import check_points
from tests.histories.reads import check_reads
from tests.histories.rebuilds import check_rebuilds
from tests.histories.recording import History
from tests.histories.rules import Rule, Violation
from tests.histories.times import check_times
from tests.histories.truth import Truth
from tests.histories.watches import check_watches


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

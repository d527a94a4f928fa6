"""Checks a recorded history against the log: every promise that it breaks, by name."""

from __future__ import annotations

from collections.abc import Sequence

from tests.histories.linearizable import check_linearizable
from tests.histories.moves import check_moves
from tests.histories.names import check_names
from tests.histories.reads import check_reads
from tests.histories.recording import History
from tests.histories.rules import Violation
from tests.histories.truth import Truth
from tests.histories.watches import check_watches


def check(history: History) -> Sequence[Violation]:
    """What a history breaks; empty for a good one."""
    truth = Truth(history)
    return [
        *check_moves(truth),
        *check_linearizable(truth),
        *check_reads(truth),
        *check_watches(truth),
        *check_names(history),
    ]

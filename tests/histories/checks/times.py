"""The checks of times: events have the log server's time, and results return it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from tests.histories.checks.rules import Rule, Violation
from tests.histories.checks.truth import Truth
from tests.histories.recorded.recording import OK, History

SLACK = 1_000_000_000  # nanoseconds: clocks may be slewed while a history is recorded; they jump by five seconds


def check_times(truth: Truth) -> Iterator[Violation]:
    """Check the times of all events, and of the answers that show them."""
    history = truth.history
    if history.clock:
        yield from _check_events(truth)
        yield from _check_answers(history)


def _check_events(truth: Truth) -> Iterator[Violation]:
    history = truth.history
    for before, after in pairwise(history.events):
        if after.time < before.time - SLACK:
            yield Violation(Rule.TIME_IS_SERVERS, f"{after} after {before}")
    for event in history.events:
        earliest, latest = truth.asked(event) + history.clock - SLACK, truth.done(event) + history.clock + SLACK
        if not earliest <= event.time <= latest:
            yield Violation(Rule.TIME_IS_SERVERS, f"{event} was made between {earliest} and {latest}")


def _check_answers(history: History) -> Iterator[Violation]:
    times = {(event.target, event.revision): event.time for event in history.events}
    for operation in history.operations:
        if operation.outcome != OK or not operation.time or not operation.told:
            continue
        assigned = operation.told[0]
        if operation.time != times.get((assigned.target, assigned.revision), operation.time):
            yield Violation(Rule.TIME_IS_SERVERS, f"{operation} has another time than its event")

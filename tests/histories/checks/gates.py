"""The checks of gates: moves pass exactly when their gate does, and evidence recomputes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.histories.checks.rules import Rule, Violation
from tests.histories.recorded.recording import OK, REFUSED, History
from tests.histories.recorded.subjects import GateEvent, GateMove, Threshold

REASONS = {"GATE_FAILED", "STREAM_BUSY", "EVIDENCE_STALE", "GATE_CHANGED"}


def check_gates(history: History) -> Iterator[Violation]:
    """Check every gated move, its answers and its evidence."""
    asked: dict[str, list[GateMove]] = {}
    for move in history.gate_moves:
        asked.setdefault(move.request_id, []).append(move)
    events: dict[str, list[GateEvent]] = {}
    for event in history.gate_events:
        events.setdefault(event.request_id, []).append(event)
        yield from _check_event(event, asked.get(event.request_id, []), history.thresholds)
    for request_id, moves in asked.items():
        yield from _check_answers(moves, events.get(request_id, []))
    for check in history.evidence_checks:
        if check.unfounded or check.evidence < sum(len(event.passed) for event in history.gate_events):
            yield Violation(Rule.EVIDENCE_RECOMPUTES, f"{check}")


def _check_event(event: GateEvent, moves: Sequence[GateMove], thresholds: Sequence[Threshold]) -> Iterator[Violation]:
    if not moves:
        yield Violation(Rule.ASKED_FOR, f"{event}")
        return
    in_force = [one for one in thresholds if one.revision <= event.policy_revision]
    min_score = in_force[-1].score if in_force else None
    passes = min_score is None or moves[0].score >= min_score
    if passes == event.is_refused:
        yield Violation(Rule.GATE_DECIDES, f"{event} of {moves[0]}, expected a minimum of {min_score}")
    expected = () if min_score is None else (moves[0].score,)
    if event.seen != expected or any(passed != passes for passed in event.passed):
        yield Violation(Rule.EVIDENCE_IS_TRUE, f"{event} of {moves[0]}, expected a minimum of {min_score}")
    if event.policy_revision < min(move.seen for move in moves):
        yield Violation(Rule.GATE_DECIDES, f"{event} by a client that had seen the policy of revision {moves[0].seen}")


def _check_answers(moves: Sequence[GateMove], events: Sequence[GateEvent]) -> Iterator[Violation]:
    if len(events) > 1:
        yield Violation(Rule.ONCE, f"{moves[0]} has {events}")
    for move in moves:
        if move.outcome == REFUSED and move.reason not in REASONS:
            yield Violation(Rule.REASON_FITS, f"{move}")
        is_refused = [event for event in events if event.is_refused]
        if move.reason == "GATE_FAILED" and not is_refused:
            yield Violation(Rule.REFUSAL_STAYS, f"{move} has {events}")
        if move.outcome == OK and (is_refused or (move.position and not events)):
            yield Violation(Rule.REFUSAL_STAYS, f"{move} has {events}")
        if move.position and events and move.position != events[0].position:
            yield Violation(Rule.ANSWER_IS_EVENT, f"{move} has {events}")

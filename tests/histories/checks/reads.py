"""The checks of resolves: correct at their position, and never older than what the client has seen."""

from __future__ import annotations

from collections.abc import Iterator

from tests.histories.checks.rules import Rule, Violation
from tests.histories.checks.truth import Truth
from tests.histories.recorded.recording import OK, REFUSED, UNKNOWN, Assignment, Operation, Target


def check_reads(truth: Truth) -> Iterator[Violation]:
    """Run all checks of resolves."""
    for client in dict.fromkeys(operation.client for operation in truth.history.operations):
        yield from _check_session(truth, [one for one in truth.history.operations if one.client == client])


def _check_session(truth: Truth, operations: list[Operation]) -> Iterator[Violation]:
    """Check one client's operations in the order in which it made them."""
    seen = 0
    for operation in sorted(operations, key=lambda one: one.called):
        if operation.outcome == UNKNOWN:
            continue
        if operation.kind == "resolve":
            yield from _check_resolve(operation, truth, seen)
        elif operation.kind == "resolve as of":
            yield from _check_as_of(operation, truth)
        elif operation.kind == "resolve at time":
            yield from _check_at_time(operation, truth)
        seen = max(seen, operation.position)


def _check_resolve(operation: Operation, truth: Truth, seen: int) -> Iterator[Violation]:
    if operation.outcome == REFUSED:
        yield from _check_unset(operation, truth, seen)
        return
    (assigned,) = operation.told
    if operation.position < seen:
        yield Violation(Rule.READ_OWN_PAST, f"{operation} by a client that had seen position {seen}")
    if assigned != truth.timeline(assigned.target).at(operation.position):
        stood = truth.timeline(assigned.target).at(operation.position)
        yield Violation(Rule.READ_IS_TRUE, f"{operation}: expected {stood}")
        if assigned.revision < truth.timeline(assigned.target).at(seen).revision:
            yield Violation(Rule.READ_OWN_PAST, f"{operation} by a client that had seen position {seen}")
    yield from _check_no_future(operation, assigned, truth)


def _check_unset(operation: Operation, truth: Truth, seen: int) -> Iterator[Violation]:
    """Check a "not set", which names no position: some unset state was not older than the client's last position."""
    assert operation.returned is not None
    target = operation.wanted[0].target
    states = [assigned for assigned, _, _ in _states_since(truth, target, seen) if not assigned.version]
    if not states:
        yield Violation(Rule.READ_OWN_PAST, f"{operation} by a client that had seen position {seen}")
    elif all(_made_after(truth, assigned, operation.returned) for assigned in states):
        yield Violation(Rule.READ_NO_FUTURE, f"{operation}")


def _states_since(truth: Truth, target: Target, position: int) -> list[tuple[Assignment, object, object]]:
    timeline = truth.timeline(target)
    return [state for state in timeline.states() if state[0].revision >= timeline.at(position).revision]


def _check_no_future(operation: Operation, assigned: Assignment, truth: Truth) -> Iterator[Violation]:
    assert operation.returned is not None
    if _made_after(truth, assigned, operation.returned):
        yield Violation(Rule.READ_NO_FUTURE, f"{operation}")


def _made_after(truth: Truth, assigned: Assignment, moment: float) -> bool:
    states = truth.timeline(assigned.target).states()
    return any(truth.asked(made_by) > moment for state, made_by, _ in states if state == assigned)


def _check_as_of(operation: Operation, truth: Truth) -> Iterator[Violation]:
    assert operation.at is not None
    stood = truth.timeline(operation.wanted[0].target).at(operation.at)
    if operation.outcome == OK and (operation.told != (stood,) or operation.position > operation.at):
        yield Violation(Rule.READ_IS_TRUE, f"{operation}: expected {stood}")
    if operation.outcome == REFUSED and stood.version:
        yield Violation(Rule.READ_IS_TRUE, f"{operation}: expected {stood}")


def _check_at_time(operation: Operation, truth: Truth) -> Iterator[Violation]:
    """Check that a time resolves to the last position recorded up to it."""
    assert operation.at_time is not None
    target, events = operation.wanted[0].target, truth.history.events
    before = [event for event in events if event.append_time <= operation.at_time]
    after = [event for event in events if event.append_time > operation.at_time]
    own = [event for event in before if event.target == target]
    if operation.outcome == REFUSED:
        if own and own[-1].to_version:
            yield Violation(Rule.READ_IS_TRUE, f"{operation}: expected {own[-1]}")
        return
    covers = all(event.position <= operation.position for event in before)
    if not covers or any(event.revision <= operation.position for event in after):
        yield Violation(Rule.READ_IS_TRUE, f"{operation}: its time has another position")
    if operation.told != (truth.timeline(target).at(operation.position),):
        yield Violation(Rule.READ_IS_TRUE, f"{operation}: expected {truth.timeline(target).at(operation.position)}")

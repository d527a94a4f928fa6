"""The direct checks of moves: each command against the log, by revision."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

from tests.histories.checks.rules import Rule, Violation
from tests.histories.checks.truth import Command, Truth
from tests.histories.recorded.recording import OK, REFUSED, UNKNOWN, Assignment, Event, Intent, Operation, Target

REASONS = {
    "move": {"WRONG_REVISION", "STREAM_BUSY"},
    "remove": {"WRONG_REVISION", "STREAM_BUSY", "ALIAS_NOT_FOUND"},
    "schedule": {"STREAM_BUSY", "INVALID_TIME"},
    "release set": {"WRONG_REVISION", "STREAM_BUSY"},
    "rollback": {"WRONG_REVISION", "STREAM_BUSY", "CHANGED_SINCE", "ALIAS_NOT_FOUND", "NOTHING_TO_RESTORE"},
    "resolve": {"ALIAS_NOT_FOUND"},
    "resolve as of": {"ALIAS_NOT_FOUND"},
    "resolve at time": {"ALIAS_NOT_FOUND"},
}


def check_moves(truth: Truth) -> Iterator[Violation]:
    """Run all direct checks of commands."""
    for operation in truth.history.operations:
        if operation.outcome == REFUSED and operation.reason not in REASONS[operation.kind]:
            yield Violation(Rule.REASON_FITS, f"{operation}")
        if operation.outcome == OK and any(assigned.revision > operation.position for assigned in operation.told):
            yield Violation(Rule.POSITION_COVERS, f"{operation}")
    for request_id, command in truth.commands.items():
        events = truth.events_of.get(request_id, [])
        yield from _check_command(command, events)
        yield from _check_whole(command.operations[0], events, truth)
        for operation in command.operations:
            # A retry returns the first result.
            yield from _check_state_shown(operation, command.called if operation.moved else operation.called, truth)
    for request_id, endings in truth.history.schedules.items():
        # A request without a response may have been appended after everything had ended.
        asked = truth.commands.get(request_id)
        unanswered = asked is not None and all(one.outcome == UNKNOWN for one in asked.operations)
        if len(endings) > 1 or not (endings or unanswered):
            yield Violation(Rule.SCHEDULED_ENDS_ONCE, f"{truth.commands.get(request_id)} ended as {endings}")
    yield from _check_chains(truth)
    yield from _check_real_time(truth)


def _check_command(command: Command, events: list[Event]) -> Iterator[Violation]:
    if len({event.revision for event in events}) > 1:
        yield Violation(Rule.ONCE, f"{command.operations[0]} has {events}")
    if events and not command.may_be_done:
        yield Violation(Rule.REFUSED_IS_NOT_WRITTEN, f"{command.operations} has {events}")
    done = [one for one in command.operations if one.outcome == OK and one.moved]
    if len({(one.told, one.position) for one in done}) > 1:
        yield Violation(Rule.REPEATED_ALIKE, f"{done}")
    for operation in done:
        if not events:
            yield Violation(Rule.ACKNOWLEDGED_IS_WRITTEN, f"{operation}")
        elif broken := _differs(operation, events):
            yield Violation(Rule.ANSWER_IS_EVENT, f"{operation} has {events}: {broken}")


def _check_whole(operation: Operation, events: list[Event], truth: Truth) -> Iterator[Violation]:
    """Check that all targets of a request are as requested once it is appended, unchanged ones included."""
    for revision in {event.revision for event in events}:
        for wanted in operation.wanted:
            stands = truth.timeline(wanted.target).at(revision)
            if wanted.version not in (None, stands.version):
                yield Violation(Rule.WHOLE, f"{operation} has {events}, and the state is {stands}")
            elif stands.revision != revision and not fits(wanted.expected, stands):
                yield Violation(Rule.EXPECTED_REVISION, f"{operation} has {events}, and the state is {stands}")


def _differs(operation: Operation, events: list[Event]) -> str:
    """Return how a response differs from its events; empty when it does not."""
    returned = {assigned.target: assigned for assigned in operation.told}
    asked = {wanted.target: wanted.version for wanted in operation.wanted}
    for event in events:
        if returned.get(event.target) != Assignment(*event.target, event.to_version, event.revision):
            return f"returned {returned.get(event.target)}"
        if event.revision != operation.position:
            return f"returned position {operation.position}"
        if asked.get(event.target, -1) not in (None, event.to_version):
            return f"requested {asked.get(event.target)}"
    changed = {event.target for event in events}
    if any(assigned.revision == operation.position and assigned.target not in changed for assigned in operation.told):
        return "has a change without an event"
    return ""


def _check_chains(truth: Truth) -> Iterator[Violation]:
    for target in truth.targets:
        for before, event, _ in _links(truth, target):
            if event.from_version != before.version or event.to_version == before.version:
                yield Violation(Rule.CHAIN, f"{event} after {before}")
            command = truth.commands.get(event.request_id)
            if command is None:
                yield Violation(Rule.ASKED_FOR, f"{event}")
                continue
            yield from _check_expected(command.operations[0], event, before)
            yield from _check_restored(command.operations[0], event, truth)


def _links(truth: Truth, target: Target) -> Iterator[tuple[Assignment, Event, Assignment]]:
    states = [(assigned, made_by) for assigned, made_by, _ in truth.timeline(target).states()]
    for (before, _), (after, event) in pairwise(states):
        assert event is not None
        yield before, event, after


def _check_expected(operation: Operation, event: Event, before: Assignment) -> Iterator[Violation]:
    if not fits(_expected(operation).get(event.target), before):
        yield Violation(Rule.EXPECTED_REVISION, f"{operation} made {event} after {before}")
    if operation.since is not None and before.revision > operation.since:
        yield Violation(Rule.EXPECTED_REVISION, f"{operation} made {event} after {before}")


def _expected(operation: Operation) -> dict[Target, int | None]:
    return {wanted.target: wanted.expected for wanted in operation.wanted}


def fits(expected: int | None, assigned: Assignment) -> bool:
    """Return whether a state has the expected revision; 0 stands for any unset state, None for every state."""
    return expected in (None, assigned.revision) or (expected == 0 and assigned.version == 0)


def _check_restored(operation: Operation, event: Event, truth: Truth) -> Iterator[Violation]:
    timeline = truth.timeline(event.target)
    restored = timeline.at(event.restored_revision)
    if event.restored_revision and (
        event.restored_revision >= event.revision
        or (restored.revision, restored.version) != (event.restored_revision, event.to_version)
    ):
        yield Violation(Rule.RESTORES, f"{event}: expected {restored}")
    if (
        operation.kind == "rollback"
        and operation.at is not None
        and timeline.at(operation.at).version != event.to_version
    ):
        yield Violation(Rule.RESTORES, f"{operation} made {event}: expected {timeline.at(operation.at)}")


def _check_real_time(truth: Truth) -> Iterator[Violation]:
    """Check that a command has a higher revision than every command that returned before it was called."""
    made = [(truth.commands[key], events[0]) for key, events in truth.events_of.items() if key in truth.commands]
    answers = sorted((command.returned, event.revision) for command, event in made)
    newest = answered = 0
    for command, event in sorted(made, key=lambda one: one[0].called):
        while answered < len(answers) and answers[answered][0] < command.called:
            newest = max(newest, answers[answered][1])
            answered += 1
        if event.revision < newest:
            yield Violation(Rule.REAL_TIME, f"{event} was requested after revision {newest} had returned")


def _check_state_shown(operation: Operation, begun: float, truth: Truth) -> Iterator[Violation]:
    """Check that a state returned without an event was current during the call."""
    ended = math.inf if operation.returned is None else operation.returned
    expected = _expected(operation)
    for assigned in observed(operation):
        if not truth.could_be_seen(assigned, begun, ended):
            yield Violation(Rule.STATE_WAS_CURRENT, f"{operation} shows {assigned}, {_rejection(assigned, truth)}")
    for wanted, assigned in _unmoved(operation):
        if wanted.version != assigned.version:
            yield Violation(Rule.WHOLE, f"{operation}: unchanged for {wanted}, at {assigned}")
        if not fits(wanted.expected, assigned):
            yield Violation(Rule.EXPECTED_REVISION, f"{operation}: unchanged for {wanted}, at {assigned}")
    if operation.kind == "remove" and operation.reason == "ALIAS_NOT_FOUND":
        yield from _check_unset(operation, truth, ended)
    if operation.reason == "WRONG_REVISION" and all(
        fits(expected.get(assigned.target), assigned) for assigned in operation.told
    ):
        yield Violation(Rule.STATE_WAS_CURRENT, f"{operation} was rejected at the expected revision")


def _unmoved(operation: Operation) -> Iterator[tuple[Intent, Assignment]]:
    """Yield the targets of a request that changed nothing."""
    if operation.outcome == OK and not operation.moved and operation.kind in {"move", "release set"}:
        returned = {assigned.target: assigned for assigned in operation.told}
        yield from ((wanted, returned[wanted.target]) for wanted in operation.wanted)


def _check_unset(operation: Operation, truth: Truth, ended: float) -> Iterator[Violation]:
    states = [assigned for assigned, _, _ in truth.timeline(operation.wanted[0].target).states()]
    if not any(truth.could_be_seen(assigned, operation.called, ended) for assigned in states if not assigned.version):
        yield Violation(Rule.STATE_WAS_CURRENT, f"{operation} while the alias was set")


def observed(operation: Operation) -> tuple[Assignment, ...]:
    """Return the states that a command's response shows without having made them."""
    if operation.outcome == OK:
        return tuple(
            assigned for assigned in operation.told if not operation.moved or assigned.revision != operation.position
        )
    return operation.told if operation.reason == "WRONG_REVISION" else ()


def _rejection(assigned: Assignment, truth: Truth) -> str:
    states = [(state.version, state.revision) for state, _, _ in truth.timeline(assigned.target).states()]
    return f"of these states: {states}"

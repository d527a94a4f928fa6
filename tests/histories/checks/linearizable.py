"""Search for an order of commands and results that explains them all (linearizability).

The method of Wing and Gong, with Lowe's memory of what was tried: a call may come next in the order when no other
remaining call returned before it was made. The object is a register with a revision for each alias, and the revision
of the log over them all. Of the log only the effects of commands without a response are used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from tests.histories.checks.moves import fits, observed
from tests.histories.checks.rules import Rule, Violation
from tests.histories.checks.truth import Command, Truth
from tests.histories.recorded.recording import OK, UNKNOWN, Assignment, Event, Operation, Target

MAX_CONFIGURATIONS = 500_000


class State(NamedTuple):
    """All aliases, and the minimum position of the log."""

    aliases: tuple[Assignment, ...]
    log: int = 0


Step = Callable[[State], State | None]


@dataclass(frozen=True, slots=True)
class Call:
    """A command between its call and its return; `step` gives the state after it, None where it cannot come."""

    about: str
    called: float
    returned: float
    step: Step


def check_linearizable(truth: Truth) -> Iterator[Violation]:
    """Yield at most one violation: the calls that no order explains."""
    operations = [one for command in truth.commands.values() for one in command.operations]
    targets = sorted({wanted.target for operation in operations for wanted in operation.wanted})
    numbers = {target: number for number, target in enumerate(targets)}
    calls = [
        call
        for request_id, command in truth.commands.items()
        for call in _calls(command, truth.events_of.get(request_id, []), numbers)
    ]
    stuck = unexplained(calls, State(tuple(Assignment(*target, 0, 0) for target in targets)))
    if stuck:
        yield Violation(
            Rule.LINEARIZABLE, "no order continues with one of these: " + "; ".join(call.about for call in stuck)
        )


def unexplained(calls: Sequence[Call], initial: State) -> list[Call]:
    """Return the calls at which the longest valid order ends, or none when there is an order of all.

    A search over the limit counts as one without a result: valid histories take a few hundred steps.
    """
    ordered = sorted(calls, key=lambda call: call.called)
    tried, pending = {(0, initial)}, [(0, initial)]
    max_length, stuck = -1, list[Call]()
    while pending and len(tried) < MAX_CONFIGURATIONS:
        done, state = pending.pop()
        if (length := done.bit_count()) == len(ordered):
            return []
        candidates = _candidates(ordered, done)
        if length > max_length:
            max_length, stuck = length, [ordered[number] for number in candidates]
        # The last pushed is tried first: the call that returned first.
        for number in sorted(candidates, key=lambda one: -ordered[one].returned):
            after = ordered[number].step(state)
            if after is not None and (key := (done | 1 << number, after)) not in tried:
                tried.add(key)
                pending.append(key)
    return stuck


def _candidates(ordered: Sequence[Call], done: int) -> list[int]:
    """Return the calls that may come next: no other open call returned before they were made."""
    found, horizon = [], math.inf
    first = (~done & (done + 1)).bit_length() - 1
    for number in range(first, len(ordered)):
        call = ordered[number]
        if call.called > horizon:
            break
        if not done >> number & 1:
            found.append(number)
            horizon = min(horizon, call.returned)
    return found


def _calls(command: Command, events: Sequence[Event], numbers: Mapping[Target, int]) -> Iterator[Call]:
    """Yield the register calls of a command: its change, and the states that its response shows."""
    operations = command.operations
    done = next((one for one in operations if one.outcome == OK and one.moved), None)
    if done is None and events and any(one.outcome == UNKNOWN for one in operations):
        returned = tuple(Assignment(*event.target, event.to_version, event.revision) for event in events)
        done = replace(operations[0], told=returned, position=events[-1].revision, moved=True)
    if done is not None:
        yield Call(f"{done}", command.called, command.returned, _step_of(done, numbers))
    for operation in operations:
        if not operation.moved and operation.outcome != UNKNOWN and operation.returned is not None:
            seen = _seen(observed(operation), numbers)
            yield Call(f"{operation}", operation.called, operation.returned, seen)


def _step_of(operation: Operation, numbers: Mapping[Target, int]) -> Step:
    made = {
        numbers[assigned.target]: assigned for assigned in operation.told if assigned.revision == operation.position
    }
    seen = _seen(observed(operation), numbers)
    expected = {numbers[wanted.target]: wanted.expected for wanted in operation.wanted}

    def step(state: State) -> State | None:
        after = seen(state)
        if after is None or operation.position <= after.log:
            return None
        aliases = list(after.aliases)
        if not all(fits(revision, aliases[number]) for number, revision in expected.items()):
            return None
        for number, assigned in made.items():
            if aliases[number].version == assigned.version:
                return None
            aliases[number] = assigned
        return State(tuple(aliases), operation.position)

    return step


def _seen(shown: Sequence[Assignment], numbers: Mapping[Target, int]) -> Step:
    def step(state: State) -> State | None:
        return state if all(state.aliases[numbers[assigned.target]] == assigned for assigned in shown) else None

    return step

"""Whether commands and their answers have an order that explains them all, found by search without a look at the log.

The method of Wing and Gong, with Lowe's memory of what was tried: a call may come next in the order when no other
call that is still to come returned before it was made. The object is a register with a revision for each alias, and
the revision of the log over them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tests.histories.moves import fits, observed
from tests.histories.recording import OK, REFUSED, UNKNOWN, Held, Operation, Target, Wanted
from tests.histories.rules import Rule, Violation
from tests.histories.truth import Command, Truth

MOST_CONFIGURATIONS = 500_000


class Register(NamedTuple):
    """An alias: its version (None: not known) and its revision, or, while that is not `known`, one below it."""

    version: int | None = 0
    revision: int = 0
    known: bool = True

    def seen_as(self, held: Held) -> Register | None:
        """What it is once someone saw this; None when nobody can have."""
        if self.version not in (None, held.version):
            return None
        if (held.revision != self.revision) if self.known else (held.revision <= self.revision):
            return None
        return Register(held.version, held.revision)

    def allows(self, expected: int | None) -> bool:
        """Whether a change that expects this revision can be made."""
        if expected is not None and not self.known:
            return expected > self.revision or (expected == 0 and self.version in (None, 0))
        return fits(expected, Held("", "", -1 if self.version is None else self.version, self.revision))


class State(NamedTuple):
    """All aliases, and how far the log is at least."""

    aliases: tuple[Register, ...]
    log: int = 0


Step = Callable[[State], State | None]


@dataclass(frozen=True, slots=True)
class Call:
    """A command between its call and its return; `step` is the state after it, None where it cannot come."""

    about: str
    called: float
    returned: float
    step: Step
    optional: bool


def check_linearizable(truth: Truth) -> Iterator[Violation]:
    """At most one violation: what could not be explained."""
    operations = [one for command in truth.commands.values() for one in command.operations]
    targets = sorted({wanted.target for operation in operations for wanted in operation.wanted})
    numbers = {target: number for number, target in enumerate(targets)}
    calls = [call for command in truth.commands.values() for call in _calls(command, numbers)]
    stuck = unexplained(calls, State((Register(),) * len(targets)))
    if stuck:
        yield Violation(
            Rule.LINEARIZABLE, "no order goes on with one of these: " + "; ".join(call.about for call in stuck)
        )


def unexplained(calls: Sequence[Call], initial: State) -> list[Call]:
    """The calls at which the longest order ends; empty when there is an order of all.

    A search that does not end in time counts as one that found none: good histories take a few thousand steps.
    """
    ordered = sorted(calls, key=lambda call: call.called)
    needed = sum(1 << number for number, call in enumerate(ordered) if not call.optional)
    tried, pending = {(0, initial)}, [(0, initial)]
    longest, stuck = -1, list[Call]()
    while pending:
        done, state = pending.pop()
        if done & needed == needed:
            return []
        candidates = _candidates(ordered, done)
        if (length := (done & needed).bit_count()) > longest:
            longest, stuck = length, [ordered[number] for number in candidates]
        # What is pushed last is tried first: that which returned first, and the unknown only where nothing else fits.
        for number in sorted(candidates, key=lambda one: -ordered[one].returned):
            after = ordered[number].step(state)
            if after is not None and (key := (done | 1 << number, after)) not in tried:
                tried.add(key)
                pending.append(key)
        if len(tried) > MOST_CONFIGURATIONS:
            break
    return stuck


def _candidates(ordered: Sequence[Call], done: int) -> list[int]:
    """The calls that may come next: no other that is still to come returned before they were made."""
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


def _calls(command: Command, numbers: Mapping[Target, int]) -> Iterator[Call]:
    """What a command means for the registers: one call that was done or may have been, and what its answers showed."""
    operations = command.operations
    done = next((one for one in operations if one.outcome == OK and one.moved), None)
    if done is not None:
        step = _step_of(done, numbers)
        yield Call(_about(done), command.called, command.returned, step, optional=False)
    elif any(one.outcome == UNKNOWN for one in operations):
        first = operations[0]
        yield Call(_about(first), command.called, math.inf, _unknown(first.wanted, numbers), optional=True)
    for operation in operations:
        if not operation.moved and operation.outcome in (OK, REFUSED) and operation.returned is not None:
            seen = _seen(observed(operation), numbers)
            yield Call(_about(operation), operation.called, operation.returned, seen, optional=False)


def _about(operation: Operation) -> str:
    return f"{operation}"


def _step_of(operation: Operation, numbers: Mapping[Target, int]) -> Step:
    made = {numbers[held.target]: held for held in operation.told if held.revision == operation.position}
    seen = _seen(observed(operation), numbers)
    expected = {numbers[wanted.target]: wanted.expected for wanted in operation.wanted}

    def step(state: State) -> State | None:
        after = seen(state)
        if after is None or operation.position <= after.log:
            return None
        if not all(state.aliases[number].allows(revision) for number, revision in expected.items()):
            return None
        aliases = list(after.aliases)
        for number, held in made.items():
            if aliases[number].version == held.version:
                return None
            aliases[number] = Register(held.version, held.revision)
        return State(tuple(aliases), operation.position)

    return step


def _seen(shown: Sequence[Held], numbers: Mapping[Target, int]) -> Step:
    def step(state: State) -> State | None:
        aliases, log = list(state.aliases), state.log
        for held in shown:
            register = aliases[numbers[held.target]].seen_as(held)
            if register is None:
                return None
            aliases[numbers[held.target]] = register
            log = max(log, held.revision)
        return State(tuple(aliases), log)

    return step


def _unknown(wanted: Sequence[Wanted], numbers: Mapping[Target, int]) -> Step:
    def step(state: State) -> State | None:
        aliases = list(state.aliases)
        for one in wanted:
            if not aliases[numbers[one.target]].allows(one.expected):
                return None
            if one.version is None or aliases[numbers[one.target]].version != one.version:
                aliases[numbers[one.target]] = Register(one.version, state.log, known=False)
        return State(tuple(aliases), state.log + 1)

    return step

"""Given, when, then: how the rules of a decider are stated in tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

from eventstore.decider import Decider
from eventstore.errors import Conflict, Rejected
from eventstore.event import Metadata, RecordedEvent

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Given(Generic[S]):
    """A stream's past. Its events stand at positions 1, 2, 3 and so on."""

    decider: Decider[S]
    state: S

    def when(self, command: object) -> When:
        """Decide a command two times: this detects a decider that is not pure."""
        first, second = (_decide(self.decider, command, self.state) for _ in range(2))
        same = first.events == second.events and str(first.refusal) == str(second.refusal)
        _insist(same, f"deciding twice gave two answers: {first} and {second}")
        return first


@dataclass(frozen=True, slots=True)
class When:
    """What a command came to."""

    events: Sequence[Message]
    refusal: Rejected | Conflict | None = None

    def then(self, *events: Message) -> None:
        """Check that it made exactly these events."""
        _insist(self.refusal is None, f"refused: {self.refusal!r}")
        _insist(list(self.events) == list(events), f"made {self.events}, not {events}")

    def then_rejected(self, reason: str) -> Rejected | Conflict:
        """Check that it was refused, for this reason."""
        if self.refusal is None:
            raise AssertionError(f"not refused: {self.events}")
        _insist(self.refusal.reason == reason, f"refused for {self.refusal.reason}, not {reason}")
        return self.refusal


def given(decider: Decider[S], *events: Message) -> Given[S]:
    """Return a stream with these events."""
    state = decider.initial
    for position, event in enumerate(events, 1):
        recorded = RecordedEvent("", position, position, str(position), event, Metadata("given"), position)
        state = decider.evolve(state, recorded)
    return Given(decider, state)


def _decide(decider: Decider[S], command: object, state: S) -> When:
    try:
        return When(list(decider.decide(command, state)))
    except (Rejected, Conflict) as refusal:
        return When((), refusal)


def _insist(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)

"""Deciders: the rules of one kind of stream as pure functions, and what handling a command comes to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from google.protobuf.message import Message

from eventstore.errors import Rejected
from eventstore.event import RecordedEvent

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Decider(Generic[S]):
    """The rules of one kind of stream, as pure functions.

    Attributes:
        initial: The state of a stream without events.
        decide: Returns the events of a command in a state; none if there is nothing to do. Raises `Rejected` or
            `Conflict`.
        evolve: Returns the state after an event.
        stream_of: Returns the stream that an event belongs to; without it, that of the command.
        refusal: Returns the error that an event stands for, if it records that a command was refused: it is appended
            like every event, and then raised.
    """

    initial: S
    decide: Callable[[object, S], Sequence[Message]]
    evolve: Callable[[S, RecordedEvent], S]
    stream_of: Callable[[Message], str] | None = None
    refusal: Callable[[Message], Rejected | None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Request:
    """An earlier request with the same id.

    Attributes:
        digest: The sha256 of its command, in hex.
        first: The position of its first event.
        last: The position of its last event.
    """

    digest: str
    first: int
    last: int


class RequestIndex(Protocol):
    """The index of which request wrote which events; rebuilt from the log like every other projection."""

    async def find_request(self, actor: str, request_id: str, at_least: int) -> Request | None:
        """Return what a request wrote, judged by an index at position `at_least` or later; None for a new one."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome(Generic[S]):
    """The outcome of a command.

    Attributes:
        state: The stream's state after it.
        events: The events that it wrote, in order; empty when there was nothing to do. A repeated request has those
            of the first.
        position: The position to read from to see it: its last event's position, or the stream's revision.
    """

    state: S
    events: tuple[RecordedEvent, ...]
    position: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a command over several streams is to append.

    Attributes:
        events: Each with its stream, in order; none if there is nothing to do.
        expected: By stream, the revision that the plan rests on: the append is refused when a stream that it writes
            to is at another.
    """

    events: Sequence[tuple[str, Message]]
    expected: Mapping[str, int]

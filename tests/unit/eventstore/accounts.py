"""Accounts, the streams that the decider's tests use.

An event "a:5" adds 5 to account a. No balance goes below 0.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from eventstore.codec import EventTypes
from eventstore.decider import Decider
from eventstore.errors import Conflict, Kind, Rejected
from eventstore.event import Metadata, NewEvent, RecordedEvent
from eventstore.memory import MemoryStore

TYPES = EventTypes([StringValue, Int64Value])


@dataclass(frozen=True)
class Move:
    """A command that adds an amount to each account; an amount of 0 makes no event."""

    amounts: Mapping[str, int]
    if_balance: int | None = None


def stream_of(event: Message) -> str:
    assert isinstance(event, StringValue)
    return event.value.partition(":")[0]


def evolve(balance: int, event: RecordedEvent) -> int:
    assert isinstance(event.data, StringValue)
    return balance + int(event.data.value.partition(":")[2])


def decide(command: object, balance: int) -> Sequence[Message]:
    assert isinstance(command, Move)
    first = next(iter(command.amounts.values()))
    if command.if_balance not in (None, balance):
        raise Conflict("BALANCE_CHANGED", "the balance has changed")
    if balance + first < 0:
        raise Rejected(Kind.PRECONDITION, "TOO_LITTLE", "insufficient balance")
    return [StringValue(value=f"{account}:{amount}") for account, amount in command.amounts.items() if amount]


ACCOUNT = Decider(0, decide, evolve, stream_of)


class EmptyProjection:
    """A projection without tables of its own."""

    name = "nothing"
    version = 1
    tables = sa.MetaData()

    def apply(self, connection: sa.Connection, events: Sequence[RecordedEvent]) -> None:
        """Do nothing: the kernel keeps the index of requests itself."""


class NoRequests:
    """An empty index of requests."""

    async def find_request(self, actor: str, request_id: str, at_least: int) -> None:
        """Find no request."""


NO_REQUESTS = NoRequests()


class SlowMemory(MemoryStore):
    """A log that yields to other writers before each append, as a real one does."""

    def __init__(self) -> None:
        super().__init__("test", TYPES)
        self.before_append: Callable[[], object] | None = None
        self.after_append: Callable[[], object] | None = None

    async def append(self, events: Sequence[NewEvent], expected: Mapping[str, int] | None = None) -> tuple[int, ...]:
        if self.before_append:
            hook, self.before_append = self.before_append, None
            await hook()  # type: ignore[misc]
        await asyncio.sleep(0)
        positions = await super().append(events, expected)
        if self.after_append:
            hook, self.after_append = self.after_append, None
            await hook()  # type: ignore[misc]
        return positions

    async def read(self, stream: str, after: int = 0) -> AsyncGenerator[RecordedEvent, None]:
        await asyncio.sleep(0)
        async for event in super().read(stream, after):
            yield event


def by(request_id: str = "", digest: str = "d", actor: str = "alice") -> Metadata:
    return Metadata(actor, request_id=request_id, request_digest=digest)


def add(amount: int, account: str = "a", if_balance: int | None = None) -> Move:
    return Move({account: amount}, if_balance)


async def balance(store: MemoryStore, account: str = "a") -> int:
    return sum([evolve(0, event) async for event in store.read(account)])

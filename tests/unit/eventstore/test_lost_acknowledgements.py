"""A request that was written but never acknowledged: a retry returns its outcome, whatever has changed since."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import pytest
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import StringValue

from eventstore.commands.handler import CommandHandler
from eventstore.decider import Decider, Plan, Request
from eventstore.errors import (
    Conflict,
    EventTooLarge,
    Kind,
    Rejected,
    StoreUnavailable,
    TooManyEvents,
    WrongExpectedRevision,
)
from eventstore.event import NewEvent, RecordedEvent
from eventstore.recent_requests import RecentRequests
from tests.unit.eventstore.accounts import SlowMemory, by, evolve, stream_of

Events = tuple[RecordedEvent, ...]
Write = Callable[[], Awaitable[Events]]

REFUSALS: Mapping[str, Exception | None] = {
    "rejected": Rejected(Kind.PRECONDITION, "TOO_LATE", "not any more"),
    "conflict": Conflict("CHANGED", "changed since"),
    "event too large": EventTooLarge(2, 1),
    "too many events": TooManyEvents(2, 1),
    "nothing to do": None,
}
LOST: Mapping[str, BaseException] = {
    "unavailable": StoreUnavailable("lost"),
    "timeout": TimeoutError(),
    "cancelled": asyncio.CancelledError(),
}


class ExactIndex:
    """An index of requests that knows the log exactly up to the position it is queried at."""

    def __init__(self, store: SlowMemory) -> None:
        self._store = store

    async def find_request(self, actor: str, request_id: str, at_least: int) -> Request | None:
        known = RecentRequests()
        known.note([event for event in self._store._events if event.position <= at_least])
        return known.find(actor, request_id)


class Writer:
    """A process that handles a command on stream "a", which writes an event to stream "b".

    Attributes:
        willing: Whether the command has an effect.
        refusal: The error that the command is rejected with, if any.
    """

    def __init__(self, store: SlowMemory) -> None:
        self.willing = True
        self.refusal: Exception | None = None
        self._handler = CommandHandler(store, Decider(0, self._decide, evolve, stream_of), ExactIndex(store))

    def _decide(self, _: object, __: int) -> Sequence[Message]:
        if self.refusal:
            raise self.refusal
        return [StringValue(value="b:5")] if self.willing else []

    async def _plan(self) -> Plan:
        return Plan([("b", event) for event in self._decide(None, 0)], {})

    async def handle(self) -> Events:
        return (await self._handler.handle("a", None, by("r"))).events

    async def handle_across(self) -> Events:
        return (await self._handler.handle_across(self._plan, by("r")))[0]

    async def handle_concurrently(self) -> Events:
        return (await self._handler.handle_concurrently("a", None, by("r"))).events


@pytest.fixture(params=["handle", "handle_across", "handle_concurrently"])
def method(request: pytest.FixtureRequest) -> str:
    """Return the name of the handler's method under test."""
    return str(request.param)


async def lose(store: SlowMemory, write: Write, lost: BaseException) -> None:
    """Write a command whose acknowledgement is lost."""

    async def after() -> None:
        raise lost

    store.after_append = after
    with pytest.raises(type(lost)):
        await write()
    assert await store.head() == 1


@pytest.mark.parametrize("lost", LOST.values(), ids=LOST.keys())
@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS.keys())
@pytest.mark.parametrize("in_other_process", [False, True], ids=["same process", "another process"])
async def test_retry_of_written_request_returns_its_outcome(
    store: SlowMemory, method: str, refusal: Exception | None, lost: BaseException, in_other_process: bool
) -> None:
    writer = Writer(store)
    await lose(store, getattr(writer, method), lost)
    again = Writer(store) if in_other_process else writer
    again.willing, again.refusal = False, refusal
    assert [event.position for event in await getattr(again, method)()] == [1]
    assert await store.head() == 1


class LateMemory(SlowMemory):
    """A log whose server queues the first append without an answer, until `settle` is called."""

    def __init__(self, lost: BaseException) -> None:
        super().__init__()
        self._lost: BaseException | None = lost
        self._queued: tuple[Sequence[NewEvent], Mapping[str, int] | None] | None = None

    async def append(self, events: Sequence[NewEvent], expected: Mapping[str, int] | None = None) -> tuple[int, ...]:
        if lost := self._lost:
            self._lost, self._queued = None, (events, expected)
            raise lost
        return await super().append(events, expected)

    async def settle(self) -> None:
        if queued := self._queued:
            self._queued = None
            await super().append(*queued)


@pytest.mark.parametrize("lost", LOST.values(), ids=LOST.keys())
@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS.keys())
async def test_retry_of_request_that_may_yet_be_written_waits_for_it(
    method: str, refusal: Exception | None, lost: BaseException
) -> None:
    store = LateMemory(lost)
    writer = Writer(store)
    with pytest.raises(type(lost)):
        await getattr(writer, method)()
    assert await store.head() == 0
    writer.willing, writer.refusal = False, refusal
    assert [event.position for event in await getattr(writer, method)()] == [1]


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS.keys())
async def test_concurrent_repetition_is_not_rejected(store: SlowMemory, method: str, refusal: Exception | None) -> None:
    writer = Writer(store)
    reached, answered = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        reached.set()
        await answered.wait()

    store.before_append = wait
    first = asyncio.create_task(getattr(writer, method)())
    await reached.wait()
    writer.willing, writer.refusal = False, refusal
    second = asyncio.create_task(getattr(writer, method)())
    await asyncio.wait({second}, timeout=0.01)  # long enough for a request that does not wait for the first
    answered.set()
    assert [event.position for event in await first] == [1]
    answer: Any = (await asyncio.gather(second, return_exceptions=True))[0]
    assert getattr(answer, "reason", "") == "REQUEST_IN_FLIGHT" or [event.position for event in answer] == [1]


@pytest.mark.parametrize("in_other_process", [False, True], ids=["same process", "another process"])
async def test_retry_of_written_request_does_not_fail_as_busy(
    store: SlowMemory, method: str, in_other_process: bool
) -> None:
    writer = Writer(store)
    await lose(store, getattr(writer, method), StoreUnavailable("lost"))
    real = store.append

    async def overtaken(events: Sequence[NewEvent], expected: Mapping[str, int] | None = None) -> tuple[int, ...]:
        if events[0].metadata.request_id == "r" and method != "handle_concurrently":
            raise WrongExpectedRevision("b", 0)
        return await real(events, expected)

    store.append = overtaken  # type: ignore[method-assign]
    again = Writer(store) if in_other_process else writer
    assert [event.position for event in await getattr(again, method)()] == [1]
    assert await store.head() == 1


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS.keys())
async def test_request_that_was_not_written_is_rejected(
    store: SlowMemory, method: str, refusal: Exception | None
) -> None:
    writer = Writer(store)
    writer.willing, writer.refusal = False, refusal
    if refusal is None:
        assert await getattr(writer, method)() == ()
    else:
        with pytest.raises(type(refusal)):
            await getattr(writer, method)()
    assert await store.head() == 0

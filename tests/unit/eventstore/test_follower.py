"""The follow loop: every event is received, whatever fails in between, until the tail ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from eventstore.concurrency import backoff
from eventstore.errors import StoreUnavailable
from eventstore.event import RecordedEvent
from eventstore.follower import run_follower
from eventstore.memory import MemoryStore
from eventstore.tail import Tail
from tests.contract.store.events import TYPES, new
from tests.servers.nats import until


class Follower:
    """Keeps the ids of all events, and fails as it is told to.

    Attributes:
        errors: What the next batches and reloads fail with; None for one that succeeds.
    """

    def __init__(self, log: MemoryStore, *errors: Exception | None) -> None:
        self.log = log
        self.ids: list[str] = []
        self.errors = list(errors)
        self.caught: list[Exception] = []

    def _fail(self) -> None:
        if self.errors and (error := self.errors.pop(0)):
            raise error

    async def receive(self, events: Sequence[RecordedEvent], position: int) -> None:  # noqa: ARG002
        self.ids.append(events[0].id)  # half of the batch
        self._fail()
        self.ids.extend(event.id for event in events[1:])

    async def reload(self, error: Exception) -> int:
        self.caught.append(error)
        self._fail()
        events = [event async for page in self.log.past(0, await self.log.head()) for event in page]
        self.ids = [event.id for event in events]
        return len(events)


@pytest.fixture
def log() -> MemoryStore:
    return MemoryStore("t", TYPES)


@pytest.fixture
async def tail(log: MemoryStore) -> AsyncIterator[Tail]:
    tail = Tail(log, kept_bytes=1)
    await tail.start()
    yield tail
    await tail.stop()


async def appended(log: MemoryStore, count: int) -> list[str]:
    """Append single events, and return the ids of all events of the log."""
    for _ in range(count):
        await log.append([new("s"), new("s")])
        await asyncio.sleep(0)
    return [event.id async for page in log.past(0, await log.head()) for event in page]


@pytest.mark.parametrize(
    "errors",
    [
        [],
        [None, ArithmeticError("a bug")],
        [StoreUnavailable("the rows are behind")],
        [ArithmeticError("a bug"), StoreUnavailable("the rows are behind"), ArithmeticError("another"), None],
    ],
    ids=["none", "of a batch", "out of reach", "of a batch and of reloads"],
)
async def test_every_event_is_received_despite_errors(
    log: MemoryStore, tail: Tail, errors: list[Exception | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "MAX_SECONDS", 0.01)
    follower = Follower(log, *errors)
    running = asyncio.create_task(run_follower("test", tail, 0, follower.receive, follower.reload))
    expected = await appended(log, 5)
    await until(lambda: follower.ids == expected and not follower.errors)
    expected = await appended(log, 1)
    await until(lambda: follower.ids == expected)
    assert follower.caught == [error for error in errors if error]
    running.cancel()
    await asyncio.wait({running})


async def test_slow_follower_continues_from_the_log_without_a_reload(log: MemoryStore, tail: Tail) -> None:
    received, resume = asyncio.Event(), asyncio.Event()
    follower = Follower(log)

    async def receive(events: Sequence[RecordedEvent], position: int) -> None:
        received.set()
        await resume.wait()
        await follower.receive(events, position)

    running = asyncio.create_task(run_follower("test", tail, 0, receive, follower.reload))
    await appended(log, 1)
    await received.wait()
    expected = await appended(log, 5)
    await tail.wait_for(len(expected))
    assert tail.kept_after > 2, "more than is kept has been appended"
    resume.set()
    await until(lambda: follower.ids == expected)
    assert not follower.caught
    running.cancel()
    await asyncio.wait({running})


@pytest.mark.parametrize("dismissible", [True, False])
async def test_ends_with_the_tail_or_with_the_watches(log: MemoryStore, tail: Tail, *, dismissible: bool) -> None:
    follower = Follower(log)
    running = asyncio.create_task(
        run_follower("test", tail, 0, follower.receive, follower.reload, dismissible=dismissible)
    )
    tail.dismiss(StoreUnavailable("the service stops"))
    expected = await appended(log, 1)
    if not dismissible:
        await until(lambda: follower.ids == expected)
        await tail.stop()
    with pytest.raises(StoreUnavailable, match="stops" if dismissible else "no longer followed"):
        await running

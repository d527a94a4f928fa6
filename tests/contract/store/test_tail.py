"""The contract of a tail: followers see no gap, no repetition and no split append, and learn of its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import pytest

from eventstore.errors import LogRewritten, Rejected, StoreUnavailable
from eventstore.event import EVENT_BYTES, RecordedEvent
from eventstore.jetstream import JetStreamStore
from eventstore.memory import MemoryStore
from eventstore.store import EventStore
from eventstore.tail import KEPT_BYTES, FollowerTooSlow, Tail
from tests.contract.store.events import TYPES, following, new
from tests.timeouts import scaled

pytestmark = pytest.mark.busy

LONG = 60.0  # seconds, so that no bookmark arrives

Steps = AsyncGenerator[tuple[Sequence[RecordedEvent], int]]


async def write(log: EventStore, count: int, size: int = 1) -> int:
    """Append `size` events `count` times; return the last position."""
    last = 0
    for _ in range(count):
        last = (await log.append([new("s") for _ in range(size)]))[-1]
    return last


async def collect(steps: Steps, until_position: int) -> tuple[list[RecordedEvent], list[int]]:
    """Return the events of the steps up to a position, and the position of each step."""
    seen: list[RecordedEvent] = []
    positions: list[int] = []
    async with asyncio.timeout(scaled(30)), aclosing(steps):
        async for batch, position in steps:
            assert batch[-1].closes_append
            seen += batch
            positions.append(position)
            if position >= until_position:
                return seen, positions
    raise AssertionError("a follower has no end")


@pytest.mark.parametrize("kept_bytes", [KEPT_BYTES, 20 * EVENT_BYTES], ids=["all cached", "few cached"])
async def test_followers_see_no_gap_and_no_repetition(log: JetStreamStore, kept_bytes: int) -> None:
    last = 450
    await write(log, 50)
    async with following(log, kept_bytes) as tail:
        writing = asyncio.create_task(write(log, 100, size=4))
        afters = [0, 10, 50]
        collecting = [asyncio.create_task(collect(tail.follow(after, LONG), last)) for after in afters]
        for joined in (70, 200, 330):
            await tail.wait_for(joined)
            for after in (joined - 65, joined - 1, joined):
                afters += [after, after]
                steps = (tail.follow(after, LONG), tail.events(after))
                collecting += [asyncio.create_task(collect(follower, last)) for follower in steps]
        await writing
        for after, (seen, positions) in zip(afters, await asyncio.gather(*collecting), strict=True):
            assert [event.position for event in seen] == list(range(after + 1, last + 1))
            assert positions == sorted(set(positions))


async def test_cached_events_are_not_read_again(log: JetStreamStore) -> None:
    async with following(log) as tail:
        head = await write(log, 10)
        await tail.wait_for(head)
        (first, _), (second, _) = [await collect(tail.follow(4, LONG), head) for _ in range(2)]
        assert len(first) == 6
        assert all(event is other for event, other in zip(first, second, strict=True))


async def test_cached_event_is_found_by_position(log: JetStreamStore) -> None:
    await write(log, 1)
    async with following(log, kept_bytes=20 * EVENT_BYTES) as tail:
        last = await write(log, 30, size=2)
        await tail.wait_for(last)
        kept = range(tail.kept_after + 1, last + 1)
        assert len(kept) > 5
        assert [getattr(tail.kept_at(position), "position", 0) for position in kept] == [*kept]
        assert [tail.kept_at(position) for position in (1, 2, tail.kept_after, last + 1)] == [None] * 4
        assert tail.kept_at(last) == await log.event_at(last)


async def test_events_that_arrive_meanwhile_are_one_step(log: JetStreamStore) -> None:
    async with following(log) as tail, aclosing(tail.events(0)) as steps:
        await write(log, 1)
        assert (await anext(steps))[1] == 1
        for _ in range(3):
            await tail.wait_for(await write(log, 1, size=2))
        batch, position = await anext(steps)
        assert ([event.position for event in batch], position) == ([2, 3, 4, 5, 6, 7], 7)


async def test_idle_follower_receives_bookmarks(log: JetStreamStore) -> None:
    head = await write(log, 3)
    async with following(log) as tail, aclosing(tail.follow(head, 0.02)) as follower:
        assert await anext(follower) == ((), head)
        head = await write(log, 1)
        while not (step := await anext(follower))[0]:
            continue
        assert ([event.position for event in step[0]], step[1]) == ([head], head)
        assert await anext(follower) == ((), head)


async def test_position_ahead_of_log_is_rejected(log: JetStreamStore) -> None:
    head = await write(log, 3)
    async with following(log) as tail:
        with pytest.raises(Rejected) as caught:
            await anext(tail.follow(head + 1, LONG))
        assert caught.value.reason == "POSITION_AHEAD"


async def test_position_ahead_of_tail_is_followed(log: JetStreamStore) -> None:
    tail = Tail(log)
    async with aclosing(tail.follow(2, LONG)) as follower:
        await write(log, 2)
        joining = asyncio.ensure_future(anext(follower))
        await asyncio.wait({joining}, timeout=0.05)
        await tail.start()
        head = await write(log, 1)
        assert ([event.position for event in (await joining)[0]]) == [head]
        await tail.stop()


@pytest.mark.parametrize("kept", [1, 5])
async def test_slow_follower_fails_and_can_resume(log: JetStreamStore, kept: int) -> None:
    async with following(log, kept_bytes=(kept + 1) * EVENT_BYTES - 1) as tail, aclosing(tail.follow(0, LONG)) as slow:
        await tail.wait_for(await write(log, 1))
        assert (await anext(slow))[1] == 1
        for _ in range(kept):
            await tail.wait_for(await write(log, 1))
        batch, after = await anext(slow)
        assert [event.position for event in batch] == list(range(2, kept + 2))
        for _ in range(kept + 1):
            await tail.wait_for(await write(log, 1))
        with pytest.raises(FollowerTooSlow):
            await anext(slow)
        seen, _ = await collect(tail.follow(after, LONG), tail.position)
        assert [event.position for event in seen] == list(range(after + 1, tail.position + 1))


# The end of a tail.


async def test_stop_fails_waiters_and_followers(log: JetStreamStore) -> None:
    async with following(log) as tail:
        steps = [tail.follow(0, LONG), tail.events(0)]
        waiting = [asyncio.create_task(tail.wait_for(1)), *(asyncio.ensure_future(anext(step)) for step in steps)]
        await asyncio.wait(waiting, timeout=0.05)
    for failing in (*waiting, tail.wait_for(1), anext(tail.follow(0, LONG))):
        with pytest.raises(StoreUnavailable) as caught:
            await failing
        assert caught.value.reason == "LOG_UNAVAILABLE"


async def test_dismissal_ends_watchers_but_not_projections(log: JetStreamStore) -> None:
    async with following(log) as tail, aclosing(tail.events(0)) as steps:
        watching = asyncio.ensure_future(anext(tail.follow(0, LONG)))
        await asyncio.wait({watching}, timeout=0.05)
        tail.dismiss(StoreUnavailable("it stops", "SHUTTING_DOWN"))
        for failing in (watching, anext(tail.follow(0, LONG))):
            with pytest.raises(StoreUnavailable) as caught:
                await failing
            assert caught.value.reason == "SHUTTING_DOWN"
        head = await write(log, 1)
        assert (await anext(steps))[1] == head
        # Past events are delivered before the dismissal.
        seen, _ = await collect(tail.follow(0, LONG), head)
        assert len(seen) == 1


class RewrittenLog(MemoryStore):
    """A log that turns out to be another than the one followed."""

    async def subscribe(self, after: int = 0) -> AsyncGenerator[Sequence[RecordedEvent], None]:
        async for batch in super().subscribe(after):
            yield batch
            if batch[-1].position > 1:
                raise LogRewritten("another log")


async def test_rewritten_log_ends_tail() -> None:
    rewritten = RewrittenLog("rewritten", TYPES)
    async with following(rewritten) as tail:
        await write(rewritten, 1)
        await collect(tail.follow(0, LONG), 1)
        waiting = [asyncio.create_task(tail.wait_for(3)), asyncio.ensure_future(anext(tail.follow(2, LONG)))]
        await write(rewritten, 1)
        with pytest.raises(LogRewritten):
            await tail.failed()
        for failing in (*waiting, tail.wait_for(3), anext(tail.follow(2, LONG)), anext(tail.events(2))):
            with pytest.raises(StoreUnavailable) as caught:
                await failing
            assert caught.value.reason == "LOG_UNAVAILABLE"

"""Group commit: concurrent appends share batches, each gets its own result, and each is sent once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from nats.js import api
from nats.js.errors import BadRequestError

from eventstore.errors import DuplicateAppend, StoreUnavailable, WrongExpectedRevision
from eventstore.event import NewEvent
from eventstore.jetstream import JetStreamStore
from eventstore.jetstream.appending import publishing
from eventstore.jetstream.appending.group_commit import WRONG_LAST_SEQUENCE, GroupCommit
from eventstore.store import NO_STREAM, EventStore
from services.nats.server import EmbeddedNats
from tests.contract.store.events import TYPES, new
from tests.contract.store.stores import flat, take
from tests.servers.nats import open_log, until
from tests.timeouts import scaled

pytestmark = pytest.mark.busy


def pair(name: str, key: str = "") -> list[NewEvent]:
    return [new(name, key=key), new(f"{name}-too")]


async def logged(log: EventStore) -> list[tuple[int, int, str]]:
    """Return position, end of append and id of every event."""
    events = flat(await take(log, await log.head()))
    return [(event.position, event.append_end, event.id) for event in events]


class PublishCounter:
    """Counts what is published to the server."""

    def __init__(self, log: JetStreamStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.published = 0
        self.lost = 0
        self.probes = 0
        self._publish = log._js.publish
        self.is_answered = log._publisher.is_answered
        monkeypatch.setattr(log._js, "publish", self.publish)
        monkeypatch.setattr(log._publisher, "is_answered", self.probe_answered)

    async def publish(self, *arguments: Any, **options: Any) -> api.PubAck:
        self.published += 1
        ack = await self._publish(*arguments, **options)
        if self.published <= self.lost:
            await asyncio.Event().wait()  # its acknowledgement never arrives
        return ack

    async def probe_answered(self) -> bool:
        self.probes += 1
        return await self.is_answered()


async def test_waiting_appends_are_published_together(log: JetStreamStore, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = PublishCounter(log, monkeypatch)
    appends = [pair(f"s{number}") for number in range(200)]
    positions = await asyncio.gather(
        *(log.append(events, {events[0].stream: NO_STREAM, events[1].stream: NO_STREAM}) for events in appends)
    )
    assert sent.published <= 10
    # The events of each append are adjacent in the log, and only they belong to it.
    expected = [
        (position, both[1], event.id)
        for events, both in zip(appends, positions, strict=True)
        for event, position in zip(events, both, strict=True)
    ]
    assert sorted(expected) == await logged(log)


async def test_rejected_append_rejects_no_other(store: EventStore) -> None:
    (taken,) = await store.append([new("taken-7")])
    await store.append(pair("known", key="k"))
    appends = [(pair(f"taken-{number}"), {f"taken-{number}": NO_STREAM}) for number in range(20)]
    appends.insert(11, (pair("another", key="k"), {"another": NO_STREAM}))
    results = await asyncio.gather(*(store.append(*each) for each in appends), return_exceptions=True)
    refused = {number: result for number, result in enumerate(results) if isinstance(result, BaseException)}
    assert {number: type(error) for number, error in refused.items()} == {
        7: WrongExpectedRevision,
        11: DuplicateAppend,
    }
    ids = {event_id for _, _, event_id in await logged(store)}
    for number, (events, _) in enumerate(appends):
        assert {event.id in ids for event in events} == {number not in refused}
    assert await store.head() == taken + 2 + 2 * 19


async def test_one_of_appends_with_same_revision_wins(log: JetStreamStore) -> None:
    appends = [pair("s") for _ in range(30)]
    results = await asyncio.gather(
        *(log.append(events, {"s": NO_STREAM}) for events in appends), return_exceptions=True
    )
    assert [result for result in results if not isinstance(result, WrongExpectedRevision)] == [(1, 2)]
    assert await log.head() == 2


async def test_commuting_appends_are_all_written(log: JetStreamStore) -> None:
    positions = await asyncio.gather(*(log.append(pair("s")) for _ in range(30)))
    assert sorted(chain.from_iterable(positions)) == list(range(1, 61))


async def test_appends_beyond_one_batch_use_several(log: JetStreamStore) -> None:
    appends: Sequence[list[NewEvent]] = [[new(f"s{number}") for _ in range(400)] for number in range(4)]
    positions = await asyncio.gather(*(log.append(events) for events in appends))
    assert sorted(chain.from_iterable(positions)) == list(range(1, 1601))


@pytest.mark.parametrize("events", [1, 2])
async def test_append_in_flight_is_awaited_not_resent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: int
) -> None:
    monkeypatch.setattr(publishing, "PROBE_SECONDS", 0.1)
    monkeypatch.setattr(publishing, "GRACE_SECONDS", scaled(60.0))  # even if the disk is slow
    async with EmbeddedNats(tmp_path) as server, open_log(server.address, TYPES, "t") as log:
        sent = PublishCounter(log, monkeypatch)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)
        async with asyncio.TaskGroup() as tasks:
            appending = tasks.create_task(log.append([new("s") for _ in range(events)], {"s": NO_STREAM}))
            try:
                await until(lambda: sent.probes > 3)
            finally:
                os.kill(server.pid, signal.SIGCONT)
        assert appending.result() == tuple(range(1, events + 1))
        assert sent.published == 1
        assert await log.head() == events


@pytest.mark.parametrize("events", [1, 2])
async def test_append_without_acknowledgement_is_resent(
    log: JetStreamStore, monkeypatch: pytest.MonkeyPatch, events: int
) -> None:
    monkeypatch.setattr(publishing, "PROBE_SECONDS", 0.1)
    monkeypatch.setattr(publishing, "GRACE_SECONDS", 0.1)
    sent = PublishCounter(log, monkeypatch)
    sent.lost = 1
    assert await log.append([new("s") for _ in range(events)], {"s": NO_STREAM}) == tuple(range(1, events + 1))
    assert sent.published == 2
    assert await log.head() == events


@pytest.mark.parametrize("events", [1, 2])
async def test_refusal_during_unsettled_append_is_not_a_conflict(
    log: JetStreamStore, monkeypatch: pytest.MonkeyPatch, events: int
) -> None:
    real, refusals = log._js.publish, [WRONG_LAST_SEQUENCE, 10164]

    async def refuse_first(*arguments: Any, **options: Any) -> api.PubAck:
        if refusals:
            raise BadRequestError(code=400, description="wrong last sequence", err_code=refusals.pop())
        return await real(*arguments, **options)

    monkeypatch.setattr(log._js, "publish", refuse_first)
    # As after a pause of a cluster: the stream is at the expected revision, so no other writer won.
    assert await log.append([new("s") for _ in range(events)], {"s": NO_STREAM}) == tuple(range(1, events + 1))
    with pytest.raises(WrongExpectedRevision):
        await log.append([new("s") for _ in range(events)], {"s": NO_STREAM})


async def test_append_that_is_never_sent_times_out_unwritten() -> None:
    async def publish(_: object) -> api.PubAck:
        await asyncio.Event().wait()
        raise AssertionError

    group = GroupCommit(publish, timeout=0.05)
    first = asyncio.create_task(group.append([("s", b"", {}), ("s", b"", {})]))
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable) as caught:
        await group.append([("s", b"", {}), ("s", b"", {})])
    assert caught.value.reason == "LOG_UNAVAILABLE"
    assert not group._waiting[0].sent
    first.cancel()
    await asyncio.wait({first})


async def test_cancelled_appends_leave_others_intact(log: JetStreamStore) -> None:
    cancelled = [asyncio.create_task(log.append(pair(f"l{number}"))) for number in range(20)]
    staying = [asyncio.create_task(log.append(pair(f"s{number}"))) for number in range(20)]
    await asyncio.sleep(0)
    for task in cancelled:
        task.cancel()
    positions = await asyncio.gather(*staying)
    assert len(set(chain.from_iterable(positions))) == 40
    # Cancelled appends that were not sent are dropped, and none is written in part.
    assert await log.head() % 2 == 0
    assert {end - position for position, end, _ in await logged(log)} == {0, 1}

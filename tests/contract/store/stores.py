"""Helpers that read a stream or a subscription."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import aclosing

from eventstore.event import RecordedEvent
from eventstore.store import EventStore
from tests.timeouts import scaled


async def read_all(store: EventStore, stream: str, after: int = 0) -> list[RecordedEvent]:
    return [event async for event in store.read(stream, after)]


async def take(
    store: EventStore, count: int, after: int = 0, seconds: float = scaled(20)
) -> list[Sequence[RecordedEvent]]:
    """Return the first batches of a subscription, with at least `count` events."""
    batches: list[Sequence[RecordedEvent]] = []
    async with asyncio.timeout(seconds), aclosing(store.subscribe(after)) as subscription:
        async for batch in subscription:
            batches.append(batch)
            if sum(map(len, batches)) >= count:
                return batches
    raise AssertionError("a subscription has no end")


def flat(batches: Sequence[Sequence[RecordedEvent]]) -> list[RecordedEvent]:
    return list(itertools.chain.from_iterable(batches))

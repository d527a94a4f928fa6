"""Read pages of a stream's past by direct gets: nothing is kept on the server for a reader, and it cannot be outrun."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from nats.aio.client import Client as NatsClient

from eventstore.event import EVENT_BYTES, RecordedEvent
from eventstore.jetstream.reading.direct_get import Stored, direct_get
from eventstore.jetstream.reading.shared_pages import PAGE_BYTES, PAGE_EVENTS, Page

PAUSE_SECONDS = 0.05
DECODED_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Stretch:
    """All that the log holds after a position, up to another; what is torn in it, too."""

    after: int
    end: int
    events: Sequence[RecordedEvent]

    def page(self, whole: Sequence[RecordedEvent]) -> Page:
        """Return a page of the events that are of whole appends."""
        return Page(self.after, self.end, whole, sum(map(_size, whole)))


class HistoryReader:
    """Reads stretches of a stream.

    Args:
        client: The connection: not that of appends, whose acknowledgements would wait behind pages.
        stream: The name of the stream.
        decode: The event in an answer.
        last_stored: Asks the stream's leader for the position of the last event that is there.
    """

    def __init__(
        self,
        client: NatsClient,
        stream: str,
        decode: Callable[[Stored], RecordedEvent],
        last_stored: Callable[[], Awaitable[int]],
    ) -> None:
        self._client = client
        self._stream = stream
        self._decode = decode
        self._last_stored = last_stored

    async def read(self, after: int, is_mark: bool, until: int) -> Stretch:
        """Read what a page is made of; see `eventstore.jetstream.reading.shared_pages.Load`.

        Raises:
            AnswerLost, nats.errors.Error: The server does not answer.
        """
        inside_append = is_mark and after > 0
        events, ends_log = await self._events(after + (not inside_append), min(until, _page_end(after)))
        if inside_append:
            first = next((number for number, event in enumerate(events) if event.closes_append), None)
            if first is None:
                return Stretch(until, until, ())
            after, events = events[first].position, events[first + 1 :]
        end = max(until, after) if ends_log or not events else events[-1].position
        return Stretch(after, end, events)

    async def _events(self, first: int, goal: int) -> tuple[list[RecordedEvent], bool]:
        """Return the events from a position on, to the end of an append at `goal` or later or of a page.

        Returns: The events, and whether the log ends with them.
        """
        events: list[RecordedEvent] = []
        size, position = 0, first - 1
        while not events or not events[-1].closes_append or (position < goal and size < PAGE_BYTES):
            end = max(goal, events[-1].append_end if events else 0)
            if part := await self._decoded(await self._messages(position + 1, end - position)):
                events += part
                size, position = size + sum(map(_size, part)), part[-1].position
            elif await self._last_stored() <= position:
                return events, True
            else:
                await asyncio.sleep(PAUSE_SECONDS)  # a replica that is behind has answered
        return events, False

    async def _decoded(self, messages: Sequence[Stored]) -> list[RecordedEvent]:
        events: list[RecordedEvent] = []
        for first in range(0, len(messages), DECODED_AT_ONCE):
            events += map(self._decode, messages[first : first + DECODED_AT_ONCE])
            await asyncio.sleep(0)  # a command must not wait for a whole page
        return events

    async def _messages(self, first: int, count: int) -> Sequence[Stored]:
        query = {"seq": first, "batch": min(max(count, 1), PAGE_EVENTS)}
        return (await direct_get(self._client, self._stream, query))[0]


def _page_end(after: int) -> int:
    return (after // PAGE_EVENTS + 1) * PAGE_EVENTS


def _size(event: RecordedEvent) -> int:
    return event.data.ByteSize() + EVENT_BYTES

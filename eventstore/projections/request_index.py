"""The index of requests: which request wrote which events, from the tail's memory or from the rows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
import structlog

from eventstore.concurrency.tasks import end
from eventstore.decider import Request
from eventstore.errors import StoreUnavailable
from eventstore.projections.progress import Progress
from eventstore.projections.reader import Reader
from eventstore.projections.tables import events, position_of
from eventstore.tail import Tail

INDEX_SECONDS = 10.0
"""For how long a request waits for the index to come to a position."""

PAGE_REQUESTS = 1000

_REQUEST = sa.select(
    sa.func.min(events.c.position), sa.func.max(events.c.position), sa.func.max(events.c.request_digest)
).where(events.c.request_id == sa.bindparam("request"), events.c.actor == sa.bindparam("actor"))

_REQUESTS_AFTER = (
    sa.select(events.c.position, events.c.actor, events.c.request_id)
    .where(events.c.position > sa.bindparam("after"), events.c.request_id != "")
    .order_by(events.c.position)
    .limit(sa.bindparam("count"))
)

_logger = structlog.get_logger(__name__)


class RequestIndex:
    """Finds what earlier requests wrote.

    Recent requests are known from the tail, before the rows have them, so that a command need not wait for the one
    before it. Once all older requests have been read from the rows, a new request is known for new without a look-up.

    Args:
        tail: The log's tail.
        reader: Reads the rows, which have an index of the log's requests.
        progress: How far the rows are.
    """

    def __init__(self, tail: Tail, reader: Reader, progress: Progress) -> None:
        self._tail = tail
        self._reader = reader
        self._progress = progress
        self._reading: asyncio.Task[None] | None = None

    async def find(self, actor: str, request_id: str, at_least: int) -> Request | None:
        """Return what a request wrote, judged by an index at position `at_least` or later; None for a new request.

        Raises:
            StoreUnavailable: The index cannot come to the position, or the database does not answer.
        """
        self._progress.check()
        await self._wait_for(at_least)
        requests = self._tail.requests
        if recent := requests.find(actor, request_id):
            return recent
        if requests.is_new(actor, request_id):
            return None
        self._read_older()
        first, last, digest = await self._reader.look_up(_REQUEST, {"actor": actor, "request": request_id})
        return Request(digest, first, last) if first is not None else None

    async def stop(self) -> None:
        """Stop reading older requests."""
        await end(self._reading)

    async def _wait_for(self, at_least: int) -> None:
        """Wait until rows and tail together know all requests until a position."""
        tail, progress = self._tail, self._progress
        while tail.position < at_least or progress.position < tail.kept_after:
            await tail.wait_for(at_least, INDEX_SECONDS)
            await progress.wait_for(tail.kept_after, INDEX_SECONDS)

    def _read_older(self) -> None:
        """Begin to read the requests from before the tail began, unless that is done or under way."""
        if not self._tail.requests.complete and (self._reading is None or self._reading.done()):
            self._reading = asyncio.create_task(self._note_older(), name=f"requests-{self._progress.name}")

    async def _note_older(self) -> None:
        requests = self._tail.requests
        after = 0
        try:
            while not requests.complete:
                page, position = await self._reader.query(lambda connection, after=after: _page(connection, after))  # type: ignore[misc]
                for _, actor, request_id in page:
                    requests.note_older(actor, request_id)
                if page:
                    after = page[-1][0]
                else:
                    await self._progress.wait_for(self._tail.began)
                    requests.complete = position >= self._tail.began
        except StoreUnavailable as error:
            _logger.info(
                "request index unavailable, looking up requests one by one",
                projection=self._progress.name,
                error=str(error),
            )


def _page(connection: sa.Connection, after: int) -> tuple[Sequence[Any], int]:
    """Return the next requests after a position, and the position of the rows."""
    return connection.execute(_REQUESTS_AFTER, {"after": after, "count": PAGE_REQUESTS}).all(), position_of(connection)

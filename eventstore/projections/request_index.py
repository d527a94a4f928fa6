"""Recalls all requests of a log from its rows, once, so that a new request need not be looked up in them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa
import structlog

from eventstore.concurrency.tasks import end
from eventstore.errors import StoreUnavailable
from eventstore.projections.tables import checkpoint, events
from eventstore.tail import Tail

T = TypeVar("T")

AT_ONCE = 1000

_BEHIND = (
    sa.select(events.c.position, events.c.actor, events.c.request_id)
    .where(events.c.position > sa.bindparam("after"), events.c.request_id != "")
    .order_by(events.c.position)
    .limit(sa.bindparam("most"))
)
_POSITION = sa.select(checkpoint.c.position)

_logger = structlog.get_logger(__name__)


class Indexed(Protocol):
    """Rows that say which request made which event."""

    @property
    def name(self) -> str: ...
    @property
    def tail(self) -> Tail: ...
    async def query(self, statement: Callable[[sa.Connection], T]) -> T: ...
    async def wait_for(self, position: int) -> None: ...


class Recall:
    """Tells a tail of the requests that came before it began; it sees the others itself.

    Args:
        rows: Of the tail's log.
    """

    def __init__(self, rows: Indexed) -> None:
        self._rows = rows
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Begins, unless it is done or under way."""
        if not self._rows.tail.requests.seen.whole and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._recall(), name=f"recall-{self._rows.name}")

    async def stop(self) -> None:
        """Ends what is under way."""
        await end(self._task)

    async def _recall(self) -> None:
        tail = self._rows.tail
        after = 0
        try:
            while not tail.requests.seen.whole:
                found, position = await self._rows.query(lambda rows, after=after: _behind(rows, after))  # type: ignore[misc]
                for _, actor, request_id in found:
                    tail.requests.seen.add(actor, request_id)
                if found:
                    after = found[-1][0]
                else:
                    await self._rows.wait_for(tail.began)
                    tail.requests.seen.whole = position >= tail.began
        except StoreUnavailable as error:
            _logger.info("requests are looked up one by one", projection=self._rows.name, why=str(error))


def _behind(connection: sa.Connection, after: int) -> tuple[Sequence[Any], int]:
    """The next requests behind a position, and how far the rows are."""
    return connection.execute(_BEHIND, {"after": after, "most": AT_ONCE}).all(), connection.scalar(_POSITION) or 0

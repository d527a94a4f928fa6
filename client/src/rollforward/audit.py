"""Audit: the recorded events, by filter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rollforward import v1
from rollforward.connection import Connection, current
from rollforward.pages import collect
from rollforward.references import timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

# An event may be large: a thousand of them may not fit into one message.
_EVENTS_PER_PAGE = 100


def list_events(
    *,
    log: str = "",
    type: str = "",  # noqa: A002 - the contract's word
    stream: str = "",
    actor: str = "",
    request_id: str = "",
    correlation_id: str = "",
    since: datetime | str | None = None,
    until: datetime | str | None = None,
    limit: int | None = 100,
    connection: Connection | None = None,
) -> list[v1.RecordedEvent]:
    """Events that meet all conditions given, newest first; `limit` None for all.

    `log` is "tracking", "registry" or "serving"; `type` such as "AliasMoved"; `stream` such as
    "model/fraud-detector"; recorded at `since` or later and before `until`, aware datetimes or RFC 3339 times.
    Raises InvalidRequest (UNKNOWN_LOG, INVALID_TIME), Unavailable.
    """
    link = current(connection)
    query = v1.ListEventsRequest(
        log=log,
        type=type,
        stream=stream,
        actor=actor,
        request_id=request_id,
        correlation_id=correlation_id,
        since=timestamp(since),
        until=timestamp(until),
    )

    def fetch(size: int, token: str) -> tuple[Iterable[v1.RecordedEvent], str]:
        query.page_size, query.page_token = size, token
        page = link.call(link.audit.ListEvents, query)
        return page.events, page.next_page_token

    return collect(fetch, limit, page=_EVENTS_PER_PAGE)

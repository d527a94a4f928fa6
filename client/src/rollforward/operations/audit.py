"""Audit: the recorded events, by filter, and all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from rollforward import v1
from rollforward._transport.backoff import Backoff
from rollforward._transport.connection import CONNECT_SECONDS, Connection
from rollforward._transport.default import default_client_function
from rollforward._transport.paging import collect
from rollforward._transport.resource import Resource
from rollforward.errors import Unavailable
from rollforward.references import timestamp
from rollforward.registry.history import alias_cause

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterable, Iterator
    from datetime import datetime
    from typing import Unpack

# An event may be large: a thousand of them may not fit into one message.
_EVENTS_PER_PAGE = 100


class Conditions(TypedDict, total=False):
    """A filter of events; a condition that is left out matches all of them."""

    log: str
    """"tracking", "registry", "serving" or "webhooks"."""
    type: str
    """Such as "AliasMoved"."""
    stream: str
    """Such as "model/fraud-detector"."""
    model: str
    """About this model, whatever it is or was called."""
    alias: str
    """About this alias."""
    cause: str
    """Changes of aliases by "request", "rollback", "schedule" or "expiry"."""
    actor: str
    request_id: str
    correlation_id: str
    since: datetime | str | None
    """Recorded then or later: an aware datetime or an RFC 3339 time."""
    until: datetime | str | None
    """Recorded before then."""


class Audit(Resource):
    """Recorded events of all logs."""

    def list(self, *, limit: int | None = 100, **conditions: Unpack[Conditions]) -> builtins.list[v1.RecordedEvent]:
        """List events that meet all conditions, newest first; `limit` None for all.

        Raises:
            InvalidRequest: UNKNOWN_LOG, INVALID_CAUSE, INVALID_TIME.
            NotFound: MODEL_NOT_FOUND.
            Unavailable: No result within the timeout.
        """
        query = _query(conditions)

        def fetch(size: int, token: str) -> tuple[Iterable[v1.RecordedEvent], str]:
            query.page_size, query.page_token = size, token
            page = self._connection.call(self._connection.audit.ListEvents, query)
            return page.events, page.next_page_token

        return collect(fetch, limit, page=_EVENTS_PER_PAGE)

    def export(self, **conditions: Unpack[Conditions]) -> Iterator[v1.RecordedEvent]:
        """All events that meet all conditions given, log by log, oldest first, as they are read: never all in memory.

        Of each log, what it held when the export began. A lost connection is made again, with pauses that grow, and the
        export goes on behind the last event received, as a watch does: each is given once, however long the service is
        away. To end it meanwhile, close the connection.

        Raises, as it is read, as list_events; Unavailable when there is no answer at all.
        """
        return _exported(self._connection, v1.ExportEventsRequest(filter=_query(conditions)))


def _exported(connection: Connection, request: v1.ExportEventsRequest) -> Iterator[v1.RecordedEvent]:
    # The first answer must come in time; after that the export lasts, whatever happens to the service.
    backoff, connecting = Backoff(connection.timeout), Backoff(CONNECT_SECONDS)
    whole = False
    while not whole:
        try:
            for part in connection.stream(connection.audit.ExportEvents, request):
                backoff = Backoff()
                request.resume_token = part.resume_token
                yield from part.events
            whole = True
        except Unavailable:
            if not (connecting if connection.refused else backoff).pause():
                raise


def _query(conditions: Conditions) -> v1.ListEventsRequest:
    return v1.ListEventsRequest(
        log=conditions.get("log", ""),
        type=conditions.get("type", ""),
        stream=conditions.get("stream", ""),
        model=conditions.get("model", ""),
        alias=conditions.get("alias", ""),
        cause=alias_cause(conditions.get("cause", "")),
        actor=conditions.get("actor", ""),
        request_id=conditions.get("request_id", ""),
        correlation_id=conditions.get("correlation_id", ""),
        since=timestamp(conditions.get("since")),
        until=timestamp(conditions.get("until")),
    )


list_events = default_client_function("list_events", Audit, Audit.list)
export_events = default_client_function("export_events", Audit, Audit.export)

"""The audit log: recorded events, by filter or all of them."""

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

# Events may be large: a thousand of them may not fit into one message.
_EVENTS_PER_PAGE = 100


class Conditions(TypedDict, total=False):
    """A filter of events; an omitted condition matches all events."""

    log: str
    """"tracking", "registry", "serving" or "webhooks"."""
    type: str
    """For example "AliasMoved"."""
    stream: str
    """For example "model/fraud-detector"."""
    model: str
    """The model's name, current or former."""
    alias: str
    """The alias's name."""
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
        """Yield all events that meet all conditions, log by log, oldest first.

        Each log is exported up to its end when the export starts. Events are streamed, never all in memory. When the
        connection is lost, the export reconnects, with growing pauses, and continues after the last event: each event
        is returned once. To end it early, close the connection.

        Raises, during iteration, as list_events; Unavailable without any response.
        """
        return _exported(self._connection, v1.ExportEventsRequest(filter=_query(conditions)))


def _exported(connection: Connection, request: v1.ExportEventsRequest) -> Iterator[v1.RecordedEvent]:
    # The first response must come within the timeout; after that, retries never end.
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

"""The gRPC methods of audit."""

from __future__ import annotations

from collections.abc import Mapping

from eventstore.errors import Kind, Rejected
from eventstore.projection import Projector
from rollforward import v1
from services.audit.queries import Key, matching
from services.pages import cut, key_of, page_size
from services.rpc import Context


class AuditServicer(v1.AuditServiceServicer):
    """Events by filter.

    Args:
        projectors: By the log's name, the rows of its events.
    """

    def __init__(self, projectors: Mapping[str, Projector]) -> None:
        self._projectors = projectors

    async def ListEvents(self, request: v1.ListEventsRequest, context: Context) -> v1.ListEventsResponse:
        """Events that match, newest first."""
        if request.log and request.log not in self._projectors:
            words = f"no log {request.log!r}; there are {', '.join(self._projectors)}"
            raise Rejected(Kind.INVALID, "UNKNOWN_LOG", words, log=request.log)
        size = page_size(request.page_size)
        before: Key | None = key_of(request.page_token, int, str, int)  # type: ignore[assignment]
        found: list[tuple[Key, v1.RecordedEvent]] = []
        for log in [request.log] if request.log else self._projectors:
            found += await self._projectors[log].query(
                lambda rows, log=log: matching(rows, log, request, before, size + 1)  # type: ignore[misc]
            )
        found.sort(key=lambda one: one[0], reverse=True)
        page, token = cut(found, size, lambda one: one[0])
        return v1.ListEventsResponse(events=[event for _, event in page], next_page_token=token)

"""The gRPC methods of audit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

from eventstore import Kind, Projector, Rejected
from rollforward import v1
from services.audit.queries import Conditions, Key, chunk, conditions, full_type, has_model, has_type, names_of, newest
from services.listings.pages import cut, key_of, page_size, token_of
from services.rpc.context import Context
from services.rpc.positions import wait_for


class Watermark(NamedTuple):
    """The progress of an export: the last event sent, and the last position of each log when the export began."""

    log: str
    position: int
    heads: Sequence[int]


class AuditServicer(v1.AuditServiceServicer):
    """The recorded events, by filter.

    Args:
        projectors: The projectors of the events, by log.
        types: The full names of all event types that this program knows.
    """

    def __init__(self, projectors: Mapping[str, Projector], types: Collection[str]) -> None:
        self._projectors = projectors
        self._types = types

    async def ListEvents(self, request: v1.ListEventsRequest, context: Context) -> v1.ListEventsResponse:
        """Return a page of matching events, newest first."""
        logs, wanted = self._logs(request), await self._conditions(request)
        size = page_size(request.page_size)
        before: Key | None = key_of(request.page_token, int, str, int)  # type: ignore[assignment]
        matches: list[tuple[Key, v1.RecordedEvent]] = []
        for log in logs:
            newer = await self._projectors[log].query(
                lambda rows, log=log: newest(rows, log, wanted, before, size + 1)  # type: ignore[misc]
            )
            await self._complete([event for _, event in newer])
            matches += newer
        matches.sort(key=lambda match: match[0], reverse=True)
        page, token = cut(matches, size, lambda match: match[0], lambda shown: [event for _, event in shown])
        return v1.ListEventsResponse(events=page, next_page_token=token)

    async def ExportEvents(
        self, request: v1.ExportEventsRequest, context: Context
    ) -> AsyncIterator[v1.ExportEventsResponse]:
        """Yield all matching events up to each log's end at the start, log by log, oldest first."""
        logs = self._logs(request.filter)
        reached = _reached(request.resume_token, logs)
        heads = reached.heads if reached else [await self._projectors[log].store.head() for log in logs]
        for log, head in zip(logs, heads, strict=True):
            await wait_for(self._projectors[log], head, context)
        wanted = await self._conditions(request.filter)
        for log, head in zip(logs, heads, strict=True):
            if reached and log < reached.log:
                continue
            after = reached.position if reached and log == reached.log else 0
            async for events in self._export(log, wanted, after, head):
                token = token_of([log, events[-1].position, *heads])
                yield v1.ExportEventsResponse(events=events, resume_token=token)

    async def _export(
        self, log: str, wanted: Conditions, after: int, until: int
    ) -> AsyncIterator[Sequence[v1.RecordedEvent]]:
        while events := await self._projectors[log].query(lambda connection: chunk(connection, wanted, after, until)):  # noqa: B023
            await self._complete(events)
            yield events
            after = events[-1].position

    async def _complete(self, events: Sequence[v1.RecordedEvent]) -> None:
        """Fill in the metric points from the log; rows leave them out because they are many."""
        for event in events:
            if event.data.Is(v1.MetricsLogged.DESCRIPTOR):
                recorded = await self._projectors[event.log].store.event_at(event.position)
                if recorded is not None:
                    event.data.Pack(recorded.data, deterministic=True)

    def _logs(self, request: v1.ListEventsRequest) -> Sequence[str]:
        if not request.log:
            return sorted(self._projectors)
        if request.log not in self._projectors:
            message = f"no log {request.log!r}: expected one of {', '.join(self._projectors)}"
            raise Rejected(Kind.INVALID, "UNKNOWN_LOG", message, log=request.log)
        return [request.log]

    async def _conditions(self, request: v1.ListEventsRequest) -> Conditions:
        names: Sequence[str] = ()
        if request.type and full_type(request.type) not in self._types:
            await self._check_type(request.type)
        if request.model:
            # Names of models come from the registry, whichever log is queried.
            names = await self._projectors["registry"].query(lambda connection: names_of(connection, request.model))
            names = names or await self._name_alone(request.model)
        return conditions(request, names)

    async def _name_alone(self, name: str) -> Sequence[str]:
        """Return a name that no model ever had if events have it, such as those of a pod that follows it.

        Raises:
            Rejected: MODEL_NOT_FOUND.
        """
        for projector in self._projectors.values():
            if await projector.query(lambda connection: has_model(connection, name)):
                return [name]
        raise Rejected(
            Kind.NOT_FOUND, "MODEL_NOT_FOUND", f"no model or event has the name {name[:300]!r}", model=name[:300]
        )

    async def _check_type(self, name: str) -> None:
        """Reject an unknown event type, unless a newer release has written an event of it."""
        full = full_type(name)
        for projector in self._projectors.values():
            if await projector.query(lambda connection: has_type(connection, full)):
                return
        known = sorted(full_name.rpartition(".")[2] for full_name in self._types)
        near = get_close_matches(name, known, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else "Expected a name such as AliasMoved"
        fault = f"unknown event type {name[:200]!r}. {hint}"
        raise Rejected(Kind.INVALID, "UNKNOWN_EVENT_TYPE", fault, type=name[:200], near=",".join(near))


def _reached(token: str, logs: Sequence[str]) -> Watermark | None:
    """Return the positions in an export's resume token; None without a token. Raises `Rejected` INVALID_PAGE."""
    key: tuple[Any, ...] | None = key_of(token, str, int, *(int for _ in logs))
    if key and key[0] not in logs:
        raise Rejected(
            Kind.INVALID,
            "INVALID_PAGE",
            "invalid resume token: it is from another export. Use the filter that it was returned for",
            resume_token=token[:200],
        )
    return Watermark(key[0], key[1], key[2:]) if key else None

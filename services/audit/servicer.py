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
    """How far an export has come: behind an event of a log; and what each log's last position was when it began."""

    log: str
    position: int
    heads: Sequence[int]


class AuditServicer(v1.AuditServiceServicer):
    """Events by filter.

    Args:
        projectors: By the log's name, the rows of its events.
        types: The full names of all event types that this program knows.
    """

    def __init__(self, projectors: Mapping[str, Projector], types: Collection[str]) -> None:
        self._projectors = projectors
        self._types = types

    async def ListEvents(self, request: v1.ListEventsRequest, context: Context) -> v1.ListEventsResponse:
        """Events that match, newest first."""
        logs, wanted = self._logs(request), await self._conditions(request)
        size = page_size(request.page_size)
        before: Key | None = key_of(request.page_token, int, str, int)  # type: ignore[assignment]
        found: list[tuple[Key, v1.RecordedEvent]] = []
        for log in logs:
            newer = await self._projectors[log].query(
                lambda rows, log=log: newest(rows, log, wanted, before, size + 1)  # type: ignore[misc]
            )
            await self._complete([event for _, event in newer])
            found += newer
        found.sort(key=lambda one: one[0], reverse=True)
        page, token = cut(found, size, lambda one: one[0], lambda ones: [event for _, event in ones])
        return v1.ListEventsResponse(events=page, next_page_token=token)

    async def ExportEvents(
        self, request: v1.ExportEventsRequest, context: Context
    ) -> AsyncIterator[v1.ExportEventsResponse]:
        """All events that match and that the logs held when it began, log by log, oldest first."""
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
        """Fill in what the rows leave out: metric points are many, and stand in the log."""
        for event in events:
            if event.data.Is(v1.MetricsLogged.DESCRIPTOR):
                held = await self._projectors[event.log].store.event_at(event.position)
                if held is not None:
                    event.data.Pack(held.data, deterministic=True)

    def _logs(self, request: v1.ListEventsRequest) -> Sequence[str]:
        if not request.log:
            return sorted(self._projectors)
        if request.log not in self._projectors:
            message = f"no log {request.log!r}; there are {', '.join(self._projectors)}"
            raise Rejected(Kind.INVALID, "UNKNOWN_LOG", message, log=request.log)
        return [request.log]

    async def _conditions(self, request: v1.ListEventsRequest) -> Conditions:
        names: Sequence[str] = ()
        if request.type and full_type(request.type) not in self._types:
            await self._check_type(request.type)
        if request.model:
            # What a model is called is the registry's affair, whichever log is asked.
            names = await self._projectors["registry"].query(lambda connection: names_of(connection, request.model))
            names = names or await self._name_alone(request.model)
        return conditions(request, names)

    async def _name_alone(self, name: str) -> Sequence[str]:
        """Return a name that no model ever had if events are about it, as of a pod that followed it.

        Raises:
            Rejected: MODEL_NOT_FOUND.
        """
        for projector in self._projectors.values():
            if await projector.query(lambda connection: has_model(connection, name)):
                return [name]
        raise Rejected(Kind.NOT_FOUND, "MODEL_NOT_FOUND", f"no model {name[:300]!r}", model=name[:300])

    async def _check_type(self, name: str) -> None:
        """Refuse a type that this program does not know, unless a newer one wrote an event of it."""
        full = full_type(name)
        for projector in self._projectors.values():
            if await projector.query(lambda connection: has_type(connection, full)):
                return
        known = sorted(one.rpartition(".")[2] for one in self._types)
        near = get_close_matches(name, known, cutoff=0.5)
        hint = f": did you mean {' or '.join(near)}?" if near else ""
        fault = f"no event type {name[:200]!r}{hint}"
        raise Rejected(Kind.INVALID, "UNKNOWN_EVENT_TYPE", fault, type=name[:200], near=",".join(near))


def _reached(token: str, logs: Sequence[str]) -> Watermark | None:
    """Return the positions in an export's resume token; None without a token. Raises `Rejected` INVALID_PAGE."""
    key: tuple[Any, ...] | None = key_of(token, str, int, *(int for _ in logs))
    if key and key[0] not in logs:
        raise Rejected(Kind.INVALID, "INVALID_PAGE", "this token is from another export", resume_token=token[:200])
    return Watermark(key[0], key[1], key[2:]) if key else None

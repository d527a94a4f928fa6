"""The watch of aliases: a snapshot, then every append's changes, whole, in order, each once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing

from google.protobuf.message import Message

from eventstore.epochs import check_epoch, on_wire
from eventstore.event import RecordedEvent
from eventstore.projection import Projector
from eventstore.tail import Tail
from rollforward import v1
from services.following import between_appends, with_bookmarks
from services.pages import fitting
from services.registry import alias_queries, origin_of
from services.registry.live import Live
from services.registry.projection import change_of

BOOKMARK_SECONDS = 5.0

_CHANGES = (v1.AliasMoved, v1.AliasRemoved)


class Shared:
    """The steps that the last batch of events means to each filter: made once for all watches that have it."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._batch: Sequence[RecordedEvent] = ()
        self._steps: dict[bytes, list[v1.WatchAliasesResponse]] = {}

    def steps(self, events: Sequence[RecordedEvent], wanted: v1.WatchAliasesRequest) -> list[v1.WatchAliasesResponse]:
        """A step for each append that changes a wanted alias."""
        if events is not self._batch:
            self._batch, self._steps = events, {}
        epoch = on_wire(self._live.store.epochs[-1])
        key = wanted.SerializeToString(deterministic=True)
        if key not in self._steps:
            self._steps[key] = [
                v1.WatchAliasesResponse(changes=changes, position=changes.changes[-1].revision, epoch=epoch)
                for changes in _changes_by_append(events, self._live, wanted)
            ]
        return self._steps[key]


async def steps(
    rows: Projector, tail: Tail, live: Live, shared: Shared, request: v1.WatchAliasesRequest
) -> AsyncIterator[v1.WatchAliasesResponse]:
    """The steps of a watch; every step's position is where to resume.

    Raises:
        Conflict: LOG_EPOCH_CHANGED when `from_revision` was read in another epoch.
        Rejected: POSITION_AHEAD when the log has not come to `from_revision`.
        FollowerTooSlow: The watcher did not keep up.
        StoreUnavailable: The service stops.
    """
    epoch = rows.store.epochs[-1]
    if request.HasField("from_revision"):
        check_epoch("registry", request.epoch, epoch)
        after = await between_appends(rows.store, request.from_revision)
    else:
        tags = dict(request.tags)
        await rows.wait_for(tail.position)  # what was answered before this watch is in its snapshot
        aliases, after = await rows.query(lambda rows: alias_queries.snapshot(rows, request.model, request.alias, tags))
        for step in _snapshot(aliases, after, on_wire(epoch)):
            yield step
    wanted = v1.WatchAliasesRequest(model=request.model, alias=request.alias, tags=request.tags)

    async def told(events: Sequence[RecordedEvent], position: int) -> Sequence[v1.WatchAliasesResponse]:
        await live.wait_for(position)  # it knows the names and tags that the events are matched with
        if wanted.tags:
            await live.recall_tags(event for event in events if isinstance(event.data, _CHANGES))
        return shared.steps(events, wanted)

    def bookmark(position: int) -> v1.WatchAliasesResponse:
        return v1.WatchAliasesResponse(bookmark=v1.Bookmark(), position=position, epoch=on_wire(epoch))

    heard = tail.follow(after, BOOKMARK_SECONDS)
    async with aclosing(with_bookmarks(heard, BOOKMARK_SECONDS, told, bookmark)) as watched:
        async for step in watched:
            yield step


def _snapshot(aliases: Sequence[v1.Alias], position: int, epoch: int) -> Iterator[v1.WatchAliasesResponse]:
    continues = True
    while continues:
        part = fitting(aliases, lambda some: some)
        aliases = aliases[len(part) :]
        continues = bool(aliases)
        snapshot = v1.AliasSnapshot(aliases=part, continues=continues)
        yield v1.WatchAliasesResponse(snapshot=snapshot, position=0 if continues else position, epoch=epoch)


def _changes_by_append(
    events: Sequence[RecordedEvent], live: Live, request: v1.WatchAliasesRequest
) -> Iterator[v1.AliasChanges]:
    changes = v1.AliasChanges()
    for event in events:
        if _matches(event, event.data, live, request):
            changes.changes.append(change_of(event))
        if event.closes_append and changes.changes:
            yield changes
            changes = v1.AliasChanges()


def _matches(event: RecordedEvent, fact: Message, live: Live, request: v1.WatchAliasesRequest) -> bool:
    if not isinstance(fact, _CHANGES) or request.alias not in ("", fact.alias):
        return False
    origin = origin_of(event.stream)
    if request.model and not live.was_called(request.model, origin, event.position):
        return False
    return live.had_tags(origin, request.tags, event.position)

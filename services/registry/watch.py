"""The watch of aliases: a snapshot, then every append's changes, whole, in order, each once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import aclosing

from cachetools import LRUCache
from google.protobuf.message import Message

from eventstore import Projector, RecordedEvent, Tail, check_epoch, on_wire
from rollforward import v1
from services.listings.pages import fitting
from services.registry import origin_of
from services.registry.live_view import LiveView
from services.registry.projection.views import change_of
from services.registry.queries import aliases as alias_queries
from services.rpc.watches import between_appends, with_bookmarks

BOOKMARK_SECONDS = 5.0
SHARED_BATCHES = 8
SHARED_BEGINS = 1_000
STEP_BYTES = 256_000
"""The approximate maximum size of a step with several appends."""

Steps = Sequence[v1.WatchAliasesResponse]

_CHANGES = (v1.AliasMoved, v1.AliasRemoved)


class Shared:
    """The steps of the last batches for each filter, created once for all watches that share the filter."""

    def __init__(self, live: LiveView) -> None:
        self._live = live
        self._begins: LRUCache[int, int] = LRUCache(SHARED_BEGINS)
        self._batches: LRUCache[int, tuple[Sequence[RecordedEvent], dict[bytes, Steps]]] = LRUCache(SHARED_BATCHES)

    def steps(self, events: Sequence[RecordedEvent], wanted: v1.WatchAliasesRequest) -> Steps:
        """Return a step for each append that changes a wanted alias, or for several appends if the watch allows it."""
        known = self._steps_of(events)
        key = wanted.SerializeToString(deterministic=True)
        if key not in known:
            appends = _changes_by_append(events, self._live, wanted)
            groups = _grouped(appends) if wanted.several_appends else ([append] for append in appends)
            known[key] = [_step(group, on_wire(self._live.store.epochs[-1])) for group in groups]
        return known[key]

    async def begin(self, tail: Tail, revision: int) -> int:
        """Return the position where a watch from a revision starts; cached, because many watches resume at once."""
        if (known := self._begins.get(revision)) is not None:
            return known
        async with tail.turns.turn():
            after = await between_appends(tail.store, revision)
        if after <= tail.position:  # what the log has not reached may change
            self._begins[revision] = after
        return after

    def _steps_of(self, events: Sequence[RecordedEvent]) -> dict[bytes, Steps]:
        """Return the steps of a batch by filter; a batch is known by its identity, unique while it is kept."""
        if id(events) not in self._batches:
            self._batches[id(events)] = events, {}
        return self._batches[id(events)][1]


async def steps(
    projector: Projector, tail: Tail, live: LiveView, shared: Shared, request: v1.WatchAliasesRequest
) -> AsyncIterator[v1.WatchAliasesResponse]:
    """Yield the steps of a watch; every step's position is where to resume.

    Raises:
        Conflict: LOG_EPOCH_CHANGED when `from_revision` was read in another epoch.
        Rejected: POSITION_AHEAD if `from_revision` is after the end of the log.
        FollowerTooSlow: The watcher did not keep up.
        StoreUnavailable: The service stops.
    """
    epoch = projector.store.epochs[-1]
    if request.HasField("from_revision"):
        check_epoch("registry", request.epoch, epoch)
        after = await shared.begin(tail, request.from_revision)
    else:
        tags = dict(request.tags)
        await projector.wait_for(tail.position)  # the snapshot includes all earlier results
        aliases, after = await projector.query(
            lambda connection: alias_queries.snapshot(connection, request.model, request.alias, tags)
        )
        for step in _snapshot(aliases, after, on_wire(epoch)):
            yield step
    wanted = v1.WatchAliasesRequest()
    wanted.CopyFrom(request)
    for name in ("from_revision", "epoch"):
        wanted.ClearField(name)

    async def steps_of(events: Sequence[RecordedEvent], position: int) -> Steps:
        await live.wait_for(position)  # it knows the names and tags that the events are matched with
        if wanted.tags:
            await live.recall_tags(event for event in events if isinstance(event.data, _CHANGES))
        return shared.steps(events, wanted)

    def bookmark(position: int) -> v1.WatchAliasesResponse:
        return v1.WatchAliasesResponse(bookmark=v1.Bookmark(), position=position, epoch=on_wire(epoch))

    received = tail.follow(after, BOOKMARK_SECONDS)
    async with aclosing(with_bookmarks(received, BOOKMARK_SECONDS, steps_of, bookmark)) as watched:
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


def _step(appends: Sequence[v1.AliasChanges], epoch: int) -> v1.WatchAliasesResponse:
    position = appends[-1].changes[-1].revision
    if len(appends) == 1:
        return v1.WatchAliasesResponse(changes=appends[0], position=position, epoch=epoch)
    return v1.WatchAliasesResponse(appends=v1.AliasAppends(appends=appends), position=position, epoch=epoch)


def _grouped(appends: Iterable[v1.AliasChanges]) -> Iterator[Sequence[v1.AliasChanges]]:
    group: list[v1.AliasChanges] = []
    size = 0
    for append in appends:
        if group and size + append.ByteSize() > STEP_BYTES:
            yield group
            group, size = [], 0
        group.append(append)
        size += append.ByteSize()
    if group:
        yield group


def _changes_by_append(
    events: Sequence[RecordedEvent], live: LiveView, request: v1.WatchAliasesRequest
) -> Iterator[v1.AliasChanges]:
    changes = v1.AliasChanges()
    for event in events:
        if _matches(event, event.data, live, request):
            changes.changes.append(change_of(event))
        if event.closes_append and changes.changes:
            yield changes
            changes = v1.AliasChanges()


def _matches(event: RecordedEvent, payload: Message, live: LiveView, request: v1.WatchAliasesRequest) -> bool:
    if not isinstance(payload, _CHANGES) or request.alias not in ("", payload.alias):
        return False
    origin = origin_of(event.stream)
    if request.model and not live.was_called(request.model, origin, event.position):
        return False
    return live.had_tags(origin, request.tags, event.position)

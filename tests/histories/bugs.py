"""Bugs that are put into the services on purpose, by name, each at one place of theirs that lasts."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import services.registry.decider as deciding
import services.registry.servicer as registry
from eventstore.event import Metadata, NewEvent, RecordedEvent
from eventstore.jetstream import JetStreamStore
from rollforward import v1
from services import rpc

SLOW_SECONDS = 0.05

_Steps = AsyncIterator[v1.WatchAliasesResponse]


def append_without_expected_revision() -> None:
    """Whoever writes last wins."""
    append = JetStreamStore.append

    async def unconditional(
        store: JetStreamStore, events: Sequence[NewEvent], expected: Mapping[str, int] | None = None
    ) -> tuple[int, ...]:
        return await append(store, events, None)

    _replace(JetStreamStore, "append", unconditional)


def watch_loses_a_change_on_resume() -> None:
    """The first change behind the position where a watch resumes is left out."""

    async def forgetful(steps: _Steps, request: v1.WatchAliasesRequest) -> _Steps:
        to_lose = request.HasField("from_revision")
        async for step in steps:
            if to_lose and step.HasField("changes"):
                to_lose = False
            else:
                yield step

    _filter_watches(forgetful)


def watch_repeats_after_reconnect() -> None:
    """A watch that resumes begins a little before its position."""
    watch = registry.RegistryServicer.WatchAliases

    def from_earlier(servicer: Any, request: v1.WatchAliasesRequest, context: Any) -> Any:
        if request.HasField("from_revision"):
            request.from_revision = max(0, request.from_revision - 3)
        return watch(servicer, request, context)

    _replace(registry.RegistryServicer, "WatchAliases", from_earlier)


def slow_subscriptions() -> None:
    """Events are heard late: no bug, as long as answers wait for what their caller has seen."""
    subscribe = JetStreamStore.subscribe

    async def late(store: JetStreamStore, after: int = 0) -> AsyncGenerator[Sequence[RecordedEvent]]:
        async for batch in subscribe(store, after):
            await asyncio.sleep(SLOW_SECONDS)
            yield batch

    _replace(JetStreamStore, "subscribe", late)


def read_ignores_min_position() -> None:
    """Answers come from rows that may be behind what their caller has seen."""
    slow_subscriptions()

    async def at_once(edge: rpc.Edge, service: str, method: str, context: Any) -> None:
        return None

    _replace(rpc.Edge, "_wait", at_once)


def read_answers_stale_state() -> None:
    """A resolve now and then says what stood before, as a cache would that nobody told."""
    resolve = registry.RegistryServicer.ResolveAlias
    before: dict[tuple[str, str], v1.Alias] = {}

    async def cached(servicer: Any, request: v1.ResolveAliasRequest, context: Any) -> v1.ResolveAliasResponse:
        response = await resolve(servicer, request, context)
        key = (request.model, request.alias)
        if not request.HasField("at") and (old := before.get(key)):
            before[key] = v1.Alias.FromString(response.alias.SerializeToString())
            response.alias.CopyFrom(old)
        else:
            before[key] = v1.Alias.FromString(response.alias.SerializeToString())
        return response

    _replace(registry.RegistryServicer, "ResolveAlias", cached)


def request_id_is_ignored() -> None:
    """Every repetition of a request is done as if it were new; the log names the request as ever."""
    append = JetStreamStore.append

    def as_new(request: Any, context: Any) -> Metadata:
        found = rpc.metadata(request, context)
        return replace(found, request_id=f"{found.request_id} {uuid.uuid4().hex}")

    async def as_asked(
        store: JetStreamStore, events: Sequence[NewEvent], expected: Mapping[str, int] | None = None
    ) -> tuple[int, ...]:
        named = [
            replace(event, metadata=replace(event.metadata, request_id=event.metadata.request_id.partition(" ")[0]))
            for event in events
        ]
        return await append(store, named, expected)

    _replace(registry, "metadata", as_new)
    _replace(JetStreamStore, "append", as_asked)


def watch_splits_an_append() -> None:
    """The changes of one append come one by one."""

    async def one_by_one(steps: _Steps, request: v1.WatchAliasesRequest) -> _Steps:
        async for step in steps:
            if not step.HasField("changes"):
                yield step
            for change in step.changes.changes:
                yield v1.WatchAliasesResponse(changes=v1.AliasChanges(changes=[change]), position=step.position)

    _filter_watches(one_by_one)


def names_are_taken_twice() -> None:
    """A model may be created in the stream of a name that another model was given meanwhile."""

    def anyway(model: str, state: Any) -> None:
        return None

    _replace(deciding, "check_free", anyway)


def _filter_watches(changed: Callable[[_Steps, v1.WatchAliasesRequest], _Steps]) -> None:
    watch = registry.RegistryServicer.WatchAliases

    def filtered(servicer: Any, request: v1.WatchAliasesRequest, context: Any) -> Any:
        return changed(watch(servicer, request, context), request)

    _replace(registry.RegistryServicer, "WatchAliases", filtered)


def _replace(owner: Any, name: str, by: Any) -> None:
    """Puts something in the place of what must be there."""
    assert hasattr(owner, name), f"{owner} has no {name} any more"
    setattr(owner, name, by)


BUGS: Mapping[str, Callable[[], None]] = {
    bug.__name__: bug
    for bug in (
        append_without_expected_revision,
        watch_loses_a_change_on_resume,
        watch_repeats_after_reconnect,
        slow_subscriptions,
        read_ignores_min_position,
        read_answers_stale_state,
        request_id_is_ignored,
        watch_splits_an_append,
        names_are_taken_twice,
    )
}

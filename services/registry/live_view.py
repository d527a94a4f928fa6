"""The live view of the registry, in memory: names, aliases, models' tags and policies."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from eventstore import Projector, RecordedEvent, StoreUnavailable, Tail, Watermark, end, run_follower
from rollforward import v1
from services.registry import origin_of
from services.registry.deciders import policies
from services.registry.deciders.preconditions import alias_not_found, model_not_found, renamed
from services.registry.projection.views import alias_of, change_of
from services.registry.queries.live_rows import live_rows
from services.registry.tag_history import TagHistory, changes_tags, tags_after
from services.timestamps import timestamp


class LiveView:
    """The current state of the registry: loaded from the rows, then kept up with every event before the rows have it.

    Aliases are few and asked for all the time: queries of the present are answered from here, of the past from rows.

    Args:
        projector: The registry's rows.
        tail: The registry log's tail.

    Attributes:
        failure: The error that left the state half updated, until it is reloaded: queries are refused meanwhile.
    """

    def __init__(self, projector: Projector, tail: Tail) -> None:
        self.name = "registry-live"
        self.store = projector.store
        self.failure: Exception | None = None
        self.policies = policies.State()
        self._projector = projector
        self._tail = tail
        self._origins: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._all_names: dict[str, list[str]] = {}
        self._changes: dict[tuple[str, str], v1.AliasChange] = {}
        self._taken: dict[str, int] = {}
        self._tags: dict[str, dict[str, str]] = {}
        self._tagged: dict[str, int] = {}
        self._tagged_by = 0
        self._history = TagHistory(projector.store)
        self._time = 0
        self._opens = True
        self._reached = Watermark(self.name)
        self._task: asyncio.Task[None] | None = None

    @property
    def position(self) -> int:
        """The position of the last event received."""
        return self._reached.position

    async def wait_for(self, position: int, seconds: float | None = None) -> None:
        """Wait until an event has been received; see `Watermark.wait_for`."""
        await self._reached.wait_for(position, seconds)

    async def start(self) -> None:
        """Load from the rows, whose projector must be running, and follow the log from there."""
        await self._load()
        self._task = asyncio.create_task(self._follow(), name=self.name)
        await self.wait_for(self._tail.position)

    async def stop(self) -> None:
        """Stop."""
        await end(self._task)
        self._reached.fail(StoreUnavailable("the registry service is stopping", "PROJECTION_BEHIND"))

    async def _load(self) -> None:
        at = await self._projector.query(live_rows)
        self.policies = policies.from_rows(at.policies, at.policy_revision)
        self._origins, self._names, self._changes, self._tags = at.names, at.current, at.changes, at.tags
        self._all_names, self._opens, self._taken = {}, True, at.taken
        self._tagged, self._tagged_by, self._history = {}, at.position, TagHistory(self.store)
        for name, origin in at.names.items():
            self._all_names.setdefault(origin, []).append(name)
        self._time = at.time
        self._reached.advance(at.position)

    async def _follow(self) -> None:
        try:
            await run_follower(self.name, self._tail, self.position, self._receive, self._reload)
        except StoreUnavailable as error:
            self._reached.fail(error)
            self.failure = error

    async def _receive(self, events: Sequence[RecordedEvent], position: int) -> None:
        for event in events:
            self._apply(event)
        self._reached.advance(position)

    async def _reload(self, error: Exception) -> int:
        """Reload the state from the rows, including the event that could not be applied."""
        self.failure = error
        await self._projector.wait_for(self._tail.position)
        await self._load()
        self.failure = None
        return self.position

    def _apply(self, event: RecordedEvent) -> None:
        self._time = max(self._time, event.time) if self._opens else self._time
        self._opens = event.closes_append
        origin = origin_of(event.stream)
        match event.data:
            case v1.AliasMoved() | v1.AliasRemoved() as payload:
                self._changes[origin, payload.alias] = change_of(event)
            case v1.ModelCreated() as payload:
                self._origins[payload.model] = origin
                self._all_names[origin] = [payload.model]
                self._names[origin] = payload.model
                self._taken[payload.model] = event.position
            case v1.ModelRenamed() as payload:
                self._names[origin] = payload.to_name
            case v1.ModelNameTaken() as payload:
                self._origins[payload.name] = payload.origin
                self._all_names.setdefault(payload.origin, []).append(payload.name)
                self._taken[payload.name] = event.position
            case v1.PolicySet() | v1.PolicyRemoved():
                self.policies = policies.evolve(self.policies, event)
            case _:
                pass
        if changes_tags(event):
            self._tags[origin] = tags_after(self._tags.get(origin, {}), event)
            self._tagged[origin] = event.position
            self._history.add(origin, event)

    def origin(self, name: str) -> str:
        """Return the name that a model was created with, by any name that it ever had; else the name itself."""
        return self._origins.get(name, name)

    def names(self, model: str) -> Sequence[str]:
        """Return all names that a model ever had, by any of them; the name itself when there is no such model."""
        return self._all_names.get(self.origin(model), (model,))

    def is_model(self, name: str) -> bool:
        """Return whether a model has or had this name."""
        return name in self._origins

    def check_name(self, model: str) -> None:
        """Raise `Rejected` MODEL_RENAMED when this is a name that a model had before."""
        if (origin := self._origins.get(model)) and (name := self._names[origin]) != model:
            raise renamed(model, name)

    def was_called(self, name: str, origin: str, position: int) -> bool:
        """Return whether a model had a name at a position, or before it."""
        return self._origins.get(name) == origin and self._taken[name] <= position

    async def recall_tags(self, events: Iterable[RecordedEvent]) -> None:
        """Read the tags that models had at events from the log, unless they are known."""
        for event in events:
            origin = origin_of(event.stream)
            while not self._knows_tags(origin, event.position):
                changes = await self._history.read(origin)
                last = changes[-1][0] if changes else 0
                if last >= self._tagged.get(origin, 0):  # else a newer change was received meanwhile
                    self._history.keep(origin, changes)
                    self._tagged[origin] = last

    def _knows_tags(self, origin: str, position: int) -> bool:
        return position >= self._tagged.get(origin, self._tagged_by) or origin in self._history

    def had_tags(self, origin: str, wanted: Mapping[str, str], position: int) -> bool:
        """Return whether a model had all of these tags at the position of a recalled event, or has them now."""
        if not wanted:
            return True  # nobody has recalled the event then
        if position >= self._tagged.get(origin, self._tagged_by):
            tags: Mapping[str, str] = self._tags.get(origin, {})
        else:
            tags = self._history.at(origin, position)
        return wanted.items() <= tags.items()

    def assignment(self, model: str, alias: str) -> v1.Alias:
        """Return an alias's current assignment; version 0 if it is not set."""
        change = self._changes.get((self.origin(model), alias))
        return alias_of(change, model) if change else v1.Alias(model=model, alias=alias)

    def resolve(self, model: str, alias: str) -> v1.ResolveAliasResponse:
        """Return the version that an alias names.

        Raises:
            Rejected: MODEL_NOT_FOUND, MODEL_RENAMED, ALIAS_NOT_FOUND.
            StoreUnavailable: PROJECTION_FAILED while the view is reloaded after an error.
        """
        if self.failure:
            raise StoreUnavailable(
                "the registry's live view failed and is reloading. Retry", "PROJECTION_FAILED"
            ) from self.failure
        if model not in self._origins:
            raise model_not_found(model)
        self.check_name(model)
        change = self._changes.get((self._origins[model], alias))
        if change is None or not change.to_version:
            raise alias_not_found(model, alias)
        assignment = alias_of(change, model)
        return v1.ResolveAliasResponse(alias=assignment, position=self.position, time=timestamp(self._time))

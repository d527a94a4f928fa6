"""The watch of a pod: its assignments as they stand, then every change of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import aclosing, contextmanager

from eventstore import Projector, RecordedEvent, on_wire
from rollforward import v1
from services.model_streams import origin_of
from services.serving.assignments import assignment_of, origins, snapshot

BOOKMARK_SECONDS = 5.0


class ConnectedPods:
    """The pods that hold a watch here; there is one in every serving process."""

    def __init__(self) -> None:
        self._watches: Counter[str] = Counter()

    @contextmanager
    def connected(self, pod_id: str) -> Iterator[None]:
        """Count a pod while it watches."""
        self._watches[pod_id] += 1
        try:
            yield
        finally:
            self._watches[pod_id] -= 1
            if not self._watches[pod_id]:
                del self._watches[pod_id]

    def ids(self) -> Collection[str]:
        """Return the ids of the pods that are connected now."""
        return self._watches.keys()


class _Followed:
    """What a pod follows, by the models that its names stand for: events in the pod's own words."""

    def __init__(self, projector: Projector, wanted: Sequence[v1.Target]) -> None:
        self._projector = projector
        self._targets = {(one.model, one.alias): one for one in wanted}
        self._origins: dict[str, str] = {}
        self._told: dict[tuple[str, str], int] = {}
        self._epoch = on_wire(projector.store.epochs[-1])

    async def look(self, wanted: Sequence[v1.Target]) -> tuple[list[v1.Assignment], int]:
        """Return the current assignments, and their position."""
        (found, position), known = await self._projector.query(
            lambda connection: (snapshot(connection, wanted), origins(connection, [one.model for one in wanted]))
        )
        self._origins |= known
        self._told |= {(one.model, one.alias): position for one in wanted}
        for assignment in found:
            assignment.epoch = self._epoch
        return found, position

    async def batches(self, events: Sequence[RecordedEvent]) -> list[v1.Assignment]:
        """Return the assignments that events change, in their order."""
        taken = {event.data.name for event in events if isinstance(event.data, v1.ModelNameTaken)}
        renamed = [one for one in self._targets.values() if one.model in taken]
        standing: list[v1.Assignment] = []
        if renamed:
            # From now on the name stands for a model that may have had the alias for long.
            await self._projector.wait_for(events[-1].append_end)
            standing = [one for one in (await self.look(renamed))[0] if one.revision]
        return [made for event in events for made in self._made_by(event)] + standing

    def _made_by(self, event: RecordedEvent) -> Iterator[v1.Assignment]:
        if not isinstance(payload := event.data, (v1.AliasMoved, v1.AliasRemoved)):
            return
        origin = origin_of(event.stream)
        for (name, alias), target in self._targets.items():
            if alias == payload.alias and self._origins[name] == origin and event.position > self._told[name, alias]:
                assignment = assignment_of(event, target)
                assignment.epoch = self._epoch
                yield assignment


async def watch(projector: Projector, wanted: Sequence[v1.Target]) -> AsyncIterator[v1.WatchAssignmentsResponse]:
    """All assignments first, then each append's changes, whole; a bookmark when it is quiet."""
    followed = _Followed(projector, wanted)
    assignments, position = await followed.look(wanted)
    yield v1.WatchAssignmentsResponse(assignments=assignments, snapshot=True, position=position)
    told = time.monotonic()
    async with aclosing(projector.follow(position, BOOKMARK_SECONDS)) as batches:
        async for events, until in batches:
            changes = await followed.batches(events)
            # Others' changes alone must not leave a pod without a sign of life.
            if changes or not events or time.monotonic() - told > BOOKMARK_SECONDS:
                yield v1.WatchAssignmentsResponse(assignments=changes, position=until)
                told = time.monotonic()

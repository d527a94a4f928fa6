"""The watch of a pod: its current assignments, then every change."""

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
    """The pods that watch this process; each serving process has one such set."""

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
    """The targets of a pod, resolved to models: assignments carry the names that the pod uses."""

    def __init__(self, projector: Projector, targets: Sequence[v1.Target]) -> None:
        self._projector = projector
        self._targets = {(target.model, target.alias): target for target in targets}
        self._origins: dict[str, str] = {}
        self._sent: dict[tuple[str, str], int] = {}
        self._epoch = on_wire(projector.store.epochs[-1])

    async def look(self, targets: Sequence[v1.Target]) -> tuple[list[v1.Assignment], int]:
        """Return the current assignments, and their position."""
        (assignments, position), names = await self._projector.query(
            lambda connection: (
                snapshot(connection, targets),
                origins(connection, [target.model for target in targets]),
            )
        )
        self._origins |= names
        self._sent |= {(target.model, target.alias): position for target in targets}
        for assignment in assignments:
            assignment.epoch = self._epoch
        return assignments, position

    async def batches(self, events: Sequence[RecordedEvent]) -> list[v1.Assignment]:
        """Return the assignments that events change, in their order."""
        new_names = {event.data.name for event in events if isinstance(event.data, v1.ModelNameTaken)}
        renamed = [target for target in self._targets.values() if target.model in new_names]
        current: list[v1.Assignment] = []
        if renamed:
            # The name now belongs to a model that may have had the alias for long.
            await self._projector.wait_for(events[-1].append_end)
            current = [assignment for assignment in (await self.look(renamed))[0] if assignment.revision]
        return [assignment for event in events for assignment in self._made_by(event)] + current

    def _made_by(self, event: RecordedEvent) -> Iterator[v1.Assignment]:
        if not isinstance(payload := event.data, (v1.AliasMoved, v1.AliasRemoved)):
            return
        origin = origin_of(event.stream)
        for (name, alias), target in self._targets.items():
            if alias == payload.alias and self._origins[name] == origin and event.position > self._sent[name, alias]:
                assignment = assignment_of(event, target)
                assignment.epoch = self._epoch
                yield assignment


async def watch(projector: Projector, targets: Sequence[v1.Target]) -> AsyncIterator[v1.WatchAssignmentsResponse]:
    """Yield all assignments, then the changes of each append together; a bookmark after a quiet period."""
    followed = _Followed(projector, targets)
    assignments, position = await followed.look(targets)
    yield v1.WatchAssignmentsResponse(assignments=assignments, snapshot=True, position=position)
    sent_at = time.monotonic()
    async with aclosing(projector.follow(position, BOOKMARK_SECONDS)) as batches:
        async for events, until in batches:
            changes = await followed.batches(events)
            # Changes of other aliases alone must not leave a pod without a heartbeat.
            if changes or not events or time.monotonic() - sent_at > BOOKMARK_SECONDS:
                yield v1.WatchAssignmentsResponse(assignments=changes, position=until)
                sent_at = time.monotonic()

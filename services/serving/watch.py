"""The watch of a pod: its assignments as they stand, then every change of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import contextmanager

from eventstore.projection import Projector
from rollforward import v1
from services.serving.assignments import assignment_of, snapshot

BOOKMARK_SECONDS = 5.0


class ConnectedPods:
    """The pods that hold a watch here; there is one in every serving process."""

    def __init__(self) -> None:
        self._watches: Counter[str] = Counter()

    @contextmanager
    def connected(self, pod_id: str) -> Iterator[None]:
        """Counts a pod in while it watches."""
        self._watches[pod_id] += 1
        try:
            yield
        finally:
            self._watches[pod_id] -= 1
            if not self._watches[pod_id]:
                del self._watches[pod_id]

    def ids(self) -> Collection[str]:
        """The ids of the pods that are connected now."""
        return self._watches.keys()


async def watch(projector: Projector, wanted: Sequence[v1.Target]) -> AsyncIterator[v1.WatchAssignmentsResponse]:
    """All assignments first, then each append's changes, whole; a bookmark when it is quiet."""
    assignments, position = await projector.query(lambda rows: snapshot(rows, wanted))
    yield v1.WatchAssignmentsResponse(assignments=assignments, snapshot=True, position=position)
    names = {(target.model, target.alias) for target in wanted}
    told = time.monotonic()
    async for events, upto in projector.follow(position, BOOKMARK_SECONDS):
        made = [made for event in events if (made := assignment_of(event))]
        changes = [one for one in made if (one.target.model, one.target.alias) in names]
        # Others' changes alone must not leave a pod without a sign of life.
        if changes or not events or time.monotonic() - told > BOOKMARK_SECONDS:
            yield v1.WatchAssignmentsResponse(assignments=changes, position=upto)
            told = time.monotonic()

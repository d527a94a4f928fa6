"""Requests that came lately: which of them made which events, told from memory before any rows have it."""

from __future__ import annotations

from collections.abc import Sequence

from eventstore.decider import Request
from eventstore.event import RecordedEvent
from eventstore.projections.request_filter import SeenRequests


class RecentRequests:
    """The requests behind the events that a tail keeps.

    Attributes:
        seen: All that were ever noted.
    """

    def __init__(self) -> None:
        self.seen = SeenRequests()
        self._by_id: dict[tuple[str, str], Request] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def find(self, actor: str, request_id: str) -> Request | None:
        """What a request did, if it came lately."""
        return self._by_id.get((actor, request_id))

    def add(self, batch: Sequence[RecordedEvent]) -> None:
        """Notes who asked for these events."""
        for event in batch:
            meta = event.metadata
            if meta.request_id:
                key = meta.actor, meta.request_id
                known = self._by_id.get(key)
                if known is None:
                    self.seen.add(*key)
                first = known.first if known else event.position
                self._by_id[key] = Request(meta.request_digest, first, event.position)

    def forget(self, batch: Sequence[RecordedEvent]) -> None:
        """Drops what `add` noted."""
        for event in batch:
            self._by_id.pop((event.metadata.actor, event.metadata.request_id), None)

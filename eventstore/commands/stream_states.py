"""The states of streams: folded from their events, and kept until newer events are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from cachetools import LRUCache

from eventstore.decider import Decider
from eventstore.errors import StreamUnreadable
from eventstore.event import RecordedEvent
from eventstore.store import EventStore

S = TypeVar("S")

CACHED_STREAMS = 1000


@dataclass(frozen=True, slots=True)
class StreamState(Generic[S]):
    """The state of a stream.

    Attributes:
        state: The fold of its events.
        revision: The position of its last event.
        end: The last position of the append that wrote that event.
    """

    state: S
    revision: int
    end: int


class StreamStates(Generic[S]):
    """The states of a decider's streams.

    Args:
        store: The log.
        decider: The fold.
    """

    def __init__(self, store: EventStore, decider: Decider[S]) -> None:
        self._store = store
        self._decider = decider
        self._cache: LRUCache[str, StreamState[S]] = LRUCache(CACHED_STREAMS)

    async def cached(self, stream: str) -> StreamState[S]:
        """Return the last known state of a stream; other processes may have written since."""
        return self._cache.get(stream) or await self.newest(stream)

    async def newest(self, stream: str) -> StreamState[S]:
        """Return the state of a stream after all its events.

        Raises:
            StreamUnreadable: The stream holds an event that this program cannot read.
            StoreUnavailable: The log does not answer.
        """
        state = self._cache.get(stream) or self._initial()
        async for event in self._store.read(stream, state.revision):
            state = self.after(state, event)
        self.keep(stream, state)
        return state

    async def at(self, stream: str, position: int) -> StreamState[S]:
        """Return the state of a stream as of a position."""
        state = self._initial()
        async for event in self._store.read(stream):
            if event.position > position:
                break
            state = self.after(state, event)
        return state

    def after(self, state: StreamState[S], event: RecordedEvent) -> StreamState[S]:
        """Return the state after one more event.

        Raises:
            StreamUnreadable: The event cannot be read, or does not follow from those before it.
        """
        check_readable(event)
        try:
            folded = self._decider.evolve(state.state, event)
        except Exception as error:
            # A fold is pure and calls nothing that may fail: whatever it raises is about this event.
            raise StreamUnreadable(event, f"{event.type_name} does not follow from the events before it") from error
        return StreamState(folded, event.position, event.append_end)

    def keep(self, stream: str, state: StreamState[S]) -> None:
        """Keep a state, unless a newer one is kept."""
        known = self._cache.get(stream)
        if known is None or known.revision <= state.revision:
            self._cache[stream] = state

    def _initial(self) -> StreamState[S]:
        return StreamState(self._decider.initial, 0, 0)


def check_readable(event: RecordedEvent) -> None:
    """Raise `StreamUnreadable` when this program cannot read an event."""
    if event.unreadable:
        raise StreamUnreadable(event, event.unreadable)

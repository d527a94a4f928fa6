"""The tail: one subscription of a log for a whole process, which everything in it that follows the log shares."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from itertools import takewhile

import structlog

from eventstore.concurrency.activity_signal import ActivitySignal
from eventstore.concurrency.tasks import end
from eventstore.concurrency.turns import Turns
from eventstore.concurrency.watermark import Watermark
from eventstore.epochs import begins_epoch, epoch_of
from eventstore.error_messages import error_text
from eventstore.errors import Kind, LogRewritten, Rejected, StoreUnavailable
from eventstore.event import EVENT_BYTES, RecordedEvent
from eventstore.recent_requests import RecentRequests
from eventstore.store import EventStore

Batch = Sequence[RecordedEvent]

RETRY_SECONDS = 0.5
KEPT_BYTES = 32_000_000
GATHERED_EVENTS = 1_000
REPLAYS_AT_ONCE = 1
LIVE_AT_ONCE = 16
"""How many watchers are served at a time: a command takes a dozen steps of the event loop, and each step waits for all
watchers that are served in it (0.1 ms each)."""

_logger = structlog.get_logger(__name__)


def replay_turns() -> Turns:
    """Return turns for followers that begin or read the past, of one log or of several."""
    return Turns(REPLAYS_AT_ONCE, rests=True)


class FollowerTooSlow(Exception):
    """A follower did not take its events in time; it may start again from where it was."""


class Tail:
    """Receives each event of a log once, keeps the last of them, and passes them on to all followers.

    A follower is no more than a place among the events that are kept: a thousand of them cost no more memory than one.
    What is not kept is read from the log. All calls are made on one event loop.

    Args:
        store: The log.
        kept_bytes: How much of the log's end is kept, about; one batch always is.
        turns: What followers that begin, or read the past, take in turn; by default those of this tail alone.

    Attributes:
        began: What is after this position was heard.
        turns: As given: with turns, many followers do not hold up everything else.
    """

    def __init__(self, store: EventStore, kept_bytes: int = KEPT_BYTES, turns: Turns | None = None) -> None:
        self.store = store
        self.failure: Exception | None = None
        self.requests = RecentRequests()
        self.began = 0
        self._kept_bytes = kept_bytes
        self._kept: deque[tuple[Batch, int]] = deque()
        self._size = 0
        self._kept_after = 0
        self._signals: dict[float | None, ActivitySignal] = {}
        self.turns = turns or replay_turns()
        self._live_turns = Turns(LIVE_AT_ONCE)
        self._late: tuple[int, int, Batch] = (0, 0, ())
        self._ended = asyncio.Event()
        self._end: StoreUnavailable | None = None
        self._dismissal: StoreUnavailable | None = None
        self._reached = Watermark(f"the tail of the {store.log} log")
        self._task: asyncio.Task[None] | None = None

    @property
    def kept_after(self) -> int:
        """What is after this position is kept."""
        return self._kept_after

    @property
    def last(self) -> RecordedEvent | None:
        """The last event heard; None when nothing was heard since the start."""
        return self._kept[-1][0][-1] if self._kept else None

    def kept_at(self, position: int) -> RecordedEvent | None:
        """Return the event at a position; None when it was not heard yet, or is not kept any more."""
        for batch, _ in reversed(self._kept):
            if batch[0].position <= position:
                return next((event for event in batch if event.position == position), None)
        return None

    @property
    def position(self) -> int:
        """The position of the last event heard, or that the log was at when it started."""
        return self._reached.position

    async def start(self) -> None:
        """Begin to listen at the log's head."""
        self.began = self._kept_after = await self.store.head()
        self._reached.advance(self._kept_after)
        self._task = asyncio.create_task(self._run(), name=f"tail-{self.store.log}")

    async def stop(self) -> None:
        """Stop; followers and waiters get an error."""
        await end(self._task)
        self._end_with(StoreUnavailable(f"the {self.store.log} log is no longer followed"))

    async def wait_for(self, position: int, seconds: float | None = None) -> None:
        """Wait until the event at `position` has been received, for so many seconds at most.

        Raises:
            StoreUnavailable: The tail has ended, or the time is over.
        """
        await self._reached.wait_for(position, seconds)

    async def failed(self) -> None:
        """Wait for the tail to fail, and raise its error: what was computed from the log may be void."""
        await self._ended.wait()
        if self.failure:
            raise self.failure

    def dismiss(self, error: StoreUnavailable) -> None:
        """End all watches, and those to come, with this error."""
        self._dismissal = error
        self._wake()

    def check(self, *, dismissible: bool = False) -> None:
        """Raise `StoreUnavailable` when the tail has ended, or the watches were dismissed."""
        if error := self._end or (self._dismissal if dismissible else None):
            # A new one each time: a traceback belongs to one call.
            raise StoreUnavailable(str(error), error.reason) from self.failure

    def follow(self, after: int, quiet_seconds: float | None) -> AsyncGenerator[tuple[Batch, int]]:
        """Yield the events after a position to a watcher, in order, each once; with each step the position after it.

        What one append wrote is never split. After `quiet_seconds` without an event, unless that is None, comes a step
        without events: a bookmark.

        Raises:
            Rejected: POSITION_AHEAD if `after` is after the end of the log.
            FollowerTooSlow: More was heard than is kept before the follower took it.
            StoreUnavailable: The tail has ended, or it was dismissed.
        """
        return self._steps(after, quiet_seconds, dismissible=True)

    def events(self, after: int) -> AsyncGenerator[tuple[Batch, int]]:
        """Yield events to what is computed from the log: as `follow`, but without bookmarks, and never dismissed.

        What came while the last step was worked on comes as one.
        """
        return self._steps(after, None, dismissible=False)

    async def _steps(
        self, after: int, quiet_seconds: float | None, *, dismissible: bool
    ) -> AsyncGenerator[tuple[Batch, int]]:
        if after > self.position and after > (head := await self.store.head()):
            message = f"position {after} is after the end of the {self.store.log} log: expected at most {head}"
            raise Rejected(Kind.INVALID, "POSITION_AHEAD", message, position=str(after))
        while after < self._kept_after:
            until = self.position
            past = self._watched_past(after, until) if dismissible else self._computed_past(after, until)
            async with aclosing(past):
                async for batch in past:
                    after = batch[-1].position
                    yield batch, after
            if after < until:
                after = until
                yield (), after
        while True:
            batch = await self._next(after, quiet_seconds, dismissible=dismissible)
            # Without an event: all that was heard has been handed on.
            after = batch[-1].position if batch else max(after, self.position)
            if batch and dismissible:
                async with self._live_turns.turn():
                    yield batch, after
            else:
                yield batch, after

    async def _watched_past(self, after: int, until: int) -> AsyncGenerator[Batch]:
        async with aclosing(replay(self.store, after, until, shared=True)) as past:
            async for batch in past:
                async with self.turns.turn():
                    yield batch

    def _computed_past(self, after: int, until: int) -> AsyncGenerator[Batch]:
        # Not from shared pages: what was erased meanwhile must not come into rows.
        return replay(self.store, after, until, gathered=GATHERED_EVENTS)

    async def _next(self, after: int, quiet_seconds: float | None, *, dismissible: bool) -> Batch:
        """Return the next events; none after a quiet time."""
        while not (batch := self._behind(after)):
            self.check(dismissible=dismissible)
            signal = self._signals.get(quiet_seconds)
            if signal is None or signal.quiet:
                signal = self._signals[quiet_seconds] = ActivitySignal(quiet_seconds)
            if not await signal.wait():
                return self._behind(after)
        return batch

    def _behind(self, after: int) -> Batch:
        """Return the kept events after a position, up to about `GATHERED_EVENTS`."""
        if after >= self.position:
            return ()
        if after < self._kept_after:
            raise FollowerTooSlow
        newest = self._kept[-1][0]
        if newest[0].position == after + 1:
            return newest  # as almost always
        if self._late[:2] == (after, self.position):
            return self._late[2]
        late = [batch for batch, _ in takewhile(lambda kept: kept[0][-1].position > after, reversed(self._kept))]
        gathered: list[RecordedEvent] = []
        while late and len(gathered) < GATHERED_EVENTS:
            gathered += (event for event in late.pop() if event.position > after)
        self._late = after, self.position, gathered  # those that are behind are often so together
        return gathered

    def _hear(self, batch: Batch) -> None:
        if began := [event for event in batch if begins_epoch(event)]:
            raise LogRewritten(f"the {self.store.log} log began epoch {epoch_of(began[-1])}. Restart to follow it")
        size = sum(event.data.ByteSize() for event in batch) + len(batch) * EVENT_BYTES
        self._kept.append((batch, size))
        self._size += size
        self.requests.note(batch)
        while self._size > self._kept_bytes and len(self._kept) > 1:
            dropped, size = self._kept.popleft()
            self._size -= size
            self.requests.forget(dropped)
            self._kept_after = dropped[-1].position
        self._reached.advance(batch[-1].position)
        self._wake()

    def _wake(self) -> None:
        signals, self._signals = self._signals, {}
        for signal in signals.values():
            signal.set()

    async def _run(self) -> None:
        while True:
            try:
                async with aclosing(self.store.subscribe(self.position)) as subscription:
                    async for batch in subscription:
                        self._hear(batch)
            except StoreUnavailable as error:
                _logger.warning("log unavailable, retrying", log=self.store.log, error=str(error))
                await asyncio.sleep(RETRY_SECONDS)
            except Exception as error:
                _logger.exception("cannot follow the log", log=self.store.log, position=self.position)
                self.failure = error
                self._end_with(StoreUnavailable(f"cannot follow the {self.store.log} log: {error_text(error)}"))
                return

    def _end_with(self, error: StoreUnavailable) -> None:
        self._end = self._end or error
        self._ended.set()
        self._reached.fail(error)
        self._wake()


async def replay(
    store: EventStore, after: int, until: int, *, shared: bool = False, gathered: int = 1
) -> AsyncGenerator[Batch]:
    """Yield the log's events after a position, up to another that it has reached.

    When what stood there was erased, they end with the last that is left.

    Args:
        store: The log.
        after: A position between two appends.
        until: Where to end.
        shared: See `EventStore.past`.
        gathered: How many events a batch has, at least, except the last.
    """
    if not shared:  # shared pages end where the log does
        until = min(until, await store.last())
    pages: list[Batch] = []
    async with aclosing(store.past(after, until, shared=shared)) as past:
        async for page in past:
            pages.append(page if page[-1].position <= until else [event for event in page if event.position <= until])
            if sum(map(len, pages)) >= gathered:
                yield _joined(pages)
                pages = []
    if any(pages):
        yield _joined(pages)


def _joined(pages: Sequence[Batch]) -> Batch:
    return pages[0] if len(pages) == 1 else [event for page in pages for event in page]

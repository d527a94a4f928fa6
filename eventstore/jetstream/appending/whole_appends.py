"""Which events of a log belong to a whole append: of an append that the log has only a part of, nothing happened.

An append of several events is one atomic batch, so that a part of one was never acknowledged. It is left behind by a
log that was cut (a copy of files in use, a damaged disk), or by hand. As in every write-ahead log, a torn end is not
there: the log is taken as ending before it, and what is appended next never continues it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog

from eventstore.event import MAX_APPEND_EVENTS, RecordedEvent
from eventstore.jetstream.appending.group_commit import EVENTS_BEHIND

LOOK_SECONDS = 3.0
LOOK_PAUSE_SECONDS = 0.05
CACHED_APPENDS = 10_000

BATCH_ID = "Nats-Batch-Id"
_UNNAMED = "-"  # an append of several events that was not written as a batch

_logger = structlog.get_logger(__name__)


def append_of(headers: Mapping[str, str], position: int) -> tuple[int, str]:
    """Return the position of the last event of an event's append, and the append's id (empty: it has one event)."""
    behind = headers.get(EVENTS_BEHIND)
    if behind is None:
        return position, ""
    # A number that nobody writes says nothing of what follows.
    more = int(behind) if behind.isascii() and behind.isdecimal() and len(behind) <= 4 else 0
    return position + (more if more < MAX_APPEND_EVENTS else 0), headers.get(BATCH_ID) or _UNNAMED


class Assembler:
    """Puts appends together as their events come, in order, and leaves out those that are torn."""

    def __init__(self) -> None:
        self.open: list[RecordedEvent] = []
        self.torn: list[RecordedEvent] = []

    def add(self, events: Sequence[RecordedEvent]) -> list[RecordedEvent]:
        """Return the events of all appends that are whole now; what was torn is added to `torn`."""
        whole: list[RecordedEvent] = []
        for event in events:
            if self.open and not same_append(self.open[-1], event):
                whole += self._ended_by(event)
            self.open.append(event)
            if event.closes_append:
                whole += self.take()
        return whole

    def take(self) -> list[RecordedEvent]:
        """Return the events of the open append, which is whole as it is."""
        events, self.open = self.open, []
        return events

    def _ended_by(self, event: RecordedEvent) -> list[RecordedEvent]:
        if event.position > self.open[-1].append_end:
            return self.take()  # the rest of it was erased
        self.torn += self.take()
        return []


def same_append(first: RecordedEvent, other: RecordedEvent) -> bool:
    """Return whether two events are of the same append."""
    return (first.append_end, first.append_id) == (other.append_end, other.append_id)


def torn_message(event: RecordedEvent) -> str:
    """Return the message about a torn append."""
    return f"the append at position {event.position} is incomplete: its events are left out"


def open_message(event: RecordedEvent) -> str:
    """Return the message about a log that ends inside an append."""
    return (
        f"the log ends inside an append at position {event.position}: events up to {event.append_end} are missing, "
        "so the append is left out. Was a backup copied while NATS ran?"
    )


class AppendChecker:
    """A check which events of a log are of whole appends, for readers that do not see all events.

    Args:
        log: The log's name.
        event_at: Returns the event at a position, of a torn append too; None when it was erased.
        last_position: Returns the position of the log's last event, even if it was erased.

    Attributes:
        end: Where the log ended, inside an append, when a reader left the start of that append out; 0 for nowhere.
            Who decides by such a read must append only if the log still ends there.
    """

    def __init__(
        self,
        log: str,
        event_at: Callable[[int], Awaitable[RecordedEvent | None]],
        last_position: Callable[[], Awaitable[int]],
    ) -> None:
        self.end = 0
        self._log = log
        self._event_at = event_at
        self._last_position = last_position
        self._whole: dict[tuple[int, str], None] = {}
        self._left_out: dict[str, tuple[int, int]] = {}
        self._settled = 0
        self._messages: dict[int, str] = {}

    @property
    def warnings(self) -> Sequence[str]:
        """The messages about appends that were left out."""
        return tuple(self._messages.values())

    def note_torn(self, event: RecordedEvent, message: str) -> None:
        """Log once that an event is left out."""
        if self._messages.get(event.position) != message:
            _logger.error("incomplete append left out", log=self._log, position=event.position, why=message)
        self._messages[event.position] = message

    async def is_whole(self, event: RecordedEvent) -> bool:
        """Return whether the log has all of an event's append; one that is being written is waited for."""
        if event.closes_append or (event.append_end, event.append_id) in self._whole:
            return True
        deadline = time.monotonic() + LOOK_SECONDS
        while (whole := await self._look(event)) is None:
            last = await self._last_position()
            if last == self.end or time.monotonic() > deadline:
                self.end = last
                self.note_torn(event, open_message(event))
                return False
            await asyncio.sleep(LOOK_PAUSE_SECONDS)
        if whole:
            self._messages.pop(event.position, None)
            self._whole[event.append_end, event.append_id] = None
            if len(self._whole) > CACHED_APPENDS:
                del self._whole[next(iter(self._whole))]
        else:
            self.note_torn(event, torn_message(event))
        return whole

    async def _look(self, event: RecordedEvent) -> bool | None:
        """Return whether an event's append is whole; None as long as the log ends inside it."""
        last = await self._last_position()
        if last >= event.append_end:
            end = await self._event_at(event.append_end)
            return end is None or (
                same_append(end, event) and (event.append_id != _UNNAMED or await self._runs_on(event))
            )
        newest = await self._event_at(last)
        return None if newest is None or same_append(newest, event) else False

    async def _runs_on(self, event: RecordedEvent) -> bool:
        """Return whether all that stands up to the append's end is of it; only for appends without an id."""
        for position in range(event.position + 1, event.append_end):
            between = await self._event_at(position)
            if between is not None and not same_append(between, event):
                return False
        return True

    async def whole_until(self, position: int, *, erased: bool = True) -> int:
        """Return the last position, up to a last one, that ends an append; an erased one counts if `erased`."""
        if position == self._settled:
            return position
        at = position
        while at > 0:
            event = await self._event_at(at)
            if (event is None and erased) or (event and await self._ends_append(event)):
                break
            at -= 1
        if at == position and erased:
            self._settled = position
        return at

    async def _ends_append(self, event: RecordedEvent) -> bool:
        """Return whether an event is the last of its append, or what came behind it was erased."""
        if event.closes_append:
            return True
        return event.append_end <= await self._last_position() and await self._event_at(event.append_end) is None

    def left_out(self, stream: str, revision: int, event: RecordedEvent) -> None:
        """Note that a reader of a stream at a revision was not given an event that stands after it."""
        self._left_out[stream] = revision, event.position

    def sequence(self, stream: str, revision: int) -> int:
        """Return the position of a stream's last event, left out or not, for the revision that its reader saw."""
        before, position = self._left_out.get(stream, (-1, 0))
        return position if revision == before else revision

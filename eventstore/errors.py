"""The errors of the kernel: a small closed set, each with a stable reason."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import Message

from eventstore.event import KnownPosition, RecordedEvent


class Kind(enum.Enum):
    """The kinds of rejection; the edge maps each to a status code of its own."""

    INVALID = "invalid"
    NOT_FOUND = "not_found"
    EXISTS = "exists"
    PRECONDITION = "precondition"


class Rejected(Exception):
    """A command or question that the domain refuses.

    Args:
        kind: What kind of refusal it is.
        reason: A stable upper-case word, such as ``VERSION_NOT_FOUND``: what callers branch on.
        message: The message for people.
        detail: A message for the caller to read on, such as the evidence of a gate.
        metadata: What it is about, by name.

    Attributes:
        judged_at: The log and the position in it that a command was judged at: who reads from there on sees what
            refused it.
    """

    def __init__(
        self, kind: Kind, reason: str, message: str, *, detail: Message | None = None, **metadata: str
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.reason = reason
        self.message = message
        self.detail = detail
        self.metadata = metadata
        self.evaluated_at: tuple[str, int] | None = None


class Conflict(Exception):
    """A caller's expectation no longer holds; `current` is what it should look at before it decides again.

    `evaluated_at` is as in `Rejected`.
    """

    def __init__(self, reason: str, message: str, *, current: Message | None = None, **metadata: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.current = current
        self.metadata = metadata
        self.evaluated_at: tuple[str, int] | None = None


class WrongExpectedRevision(Exception):
    """An append met a stream at another revision than it expected; nothing was appended."""

    def __init__(self, stream: str, expected: int) -> None:
        super().__init__(f"stream {stream} is not at revision {expected}")
        self.stream = stream
        self.expected = expected


class DuplicateAppend(Exception):
    """An event with this deduplication key is in the log already, at `position`; nothing was appended."""

    def __init__(self, position: int) -> None:
        super().__init__(f"appended before, at position {position}")
        self.position = position


class EventTooLarge(Exception):
    """An event, what goes with it, or all that is to be appended has too many bytes; nothing was appended."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"{size} bytes are to be appended, the log takes at most {limit}")
        self.size = size
        self.limit = limit


class TooManyEvents(Exception):
    """More events than one append may have; nothing was appended."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"{size} events are to be appended at once, the log takes at most {limit}")
        self.size = size
        self.limit = limit


class UnknownEventType(Exception):
    """The log holds an event that this program was not told of: it is older than the one that wrote it."""


class CannotApply(Exception):
    """A projection cannot take an append in, whose positions are `first` to `last`."""

    def __init__(self, projection: str, append: Sequence[RecordedEvent]) -> None:
        self.first, self.last = append[0].position, append[-1].position
        where = f"position {self.first}" if self.first == self.last else f"positions {self.first} to {self.last}"
        types = ", ".join(event.type_name.rpartition(".")[2] for event in append[:10])
        about = f"{types} in {append[0].stream}, event {append[0].id}"
        unreadable = "".join(f": {event.unreadable}" for event in append if event.unreadable)
        super().__init__(f"projection {projection} cannot apply {where}: {about}{unreadable[:500]}")


class LogRewritten(Exception):
    """The log no longer holds an event that it gave: it lost its tail, and what was computed from that is void."""


@dataclass(frozen=True, slots=True)
class Loss:
    """The known events that a log lacks.

    Attributes:
        log: The log's name.
        head: The log's last position.
        known: What is known; a log that reaches its position holds another event there.
        kept: The last position that the log has in common with what is known; None when that cannot be told.
    """

    log: str
    head: int
    known: KnownPosition
    kept: int | None = None

    def rank(self) -> tuple[int, bool]:
        """Return the rank of a loss: the greatest of a log is shown."""
        return self.known.position, self.known.index is not None

    def __str__(self) -> str:
        source, position = self.known.source, self.known.position
        missing = "" if self.kept is None else f": positions {self.kept + 1} to {position} are missing"
        if self.head < position:
            return f"the {self.log} log ends at position {self.head}, but {source} know position {position}{missing}"
        other = "it is another log, or lost events and has new ones"
        return f"the {self.log} log has another event at position {position} than {source} know: {other}{missing}"


class LogLost(Exception):
    """A log lacks or differs from events that its derived state knows; nothing was changed.

    Attributes:
        losses: The losses, one entry for each source that knows the events.
    """

    reason = "LOG_LOST"

    def __init__(self, losses: Sequence[Loss]) -> None:
        furthest = {loss.log: loss for loss in sorted(losses, key=Loss.rank)}
        accept = " ".join(f"--accept-log-loss {log}" for log in furthest)
        way_out = f"restore the log (docs/backup.md, Restore a backup), or start with {accept} to continue without them"
        super().__init__(f"{self.reason}: {'; '.join(map(str, furthest.values()))}. Nothing was changed: {way_out}")
        self.losses = tuple(losses)


class StoreUnavailable(Exception):
    """The log or a projection is out of reach or behind; the same call may succeed later."""

    def __init__(self, message: str, reason: str = "LOG_UNAVAILABLE") -> None:
        super().__init__(message)
        self.reason = reason


class StreamUnreadable(StoreUnavailable):
    """A stream holds an event that this program cannot read or fold; one that knows it may."""

    def __init__(self, event: RecordedEvent, why: str) -> None:
        message = f"stream {event.stream}: position {event.position} cannot be read: {why}"
        super().__init__(f"{message}. Run the release that wrote it", "EVENT_UNREADABLE")
        self.position = event.position


class UnsafeStore(Exception):
    """The store cannot keep its promises (too old, or set up to lose events) and is refused at start-up."""

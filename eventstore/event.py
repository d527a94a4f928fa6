"""Events: what is appended, what is read back, and what is known about both besides the fact itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

MAX_EVENT_BYTES = 1_000_000
"""The most that one encoded event may have, headers left out."""

MAX_HEADER_BYTES = 60_000
"""The most that an event's metadata, its ids and its stream's name may have together, in their encoded form."""

MAX_MESSAGE_BYTES = 1_047_000
"""The most that both may have together: with what NATS adds, 1 MiB, which is the most that it takes by default."""

MAX_APPEND_EVENTS = 1_000
"""The most events that one append may have."""

MAX_APPEND_BYTES = 4_000_000
"""The most that the events of one append may have together: whoever follows the log hands them on in one message."""

EVENT_BYTES = 2_000
"""The memory that a recorded event takes besides its payload, about."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """Who caused an event, why, and what it belongs to.

    `request_id` is the caller's, `request_digest` the sha256 (hex) of the command that came with it: the pair tells a
    repetition from a reuse. `traceparent` is in the form of W3C Trace Context.
    """

    actor: str
    reason: str = ""
    request_id: str = ""
    request_digest: str = ""
    correlation_id: str = ""
    causation_id: str = ""
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event on its way into the log.

    `id` is unique. `deduplication_key` is the same for every attempt to append this very event.
    """

    stream: str
    data: Message
    metadata: Metadata
    id: str
    deduplication_key: str


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """An event as the log holds it.

    `position` is its place in the log and its stream's revision from then on. `time` is when the log recorded it, in
    nanoseconds since 1970-01-01 UTC. `append_end` is the position of the last event of its append: what one append
    wrote is applied and shown whole. `append_id` is the same for the events of one append, and empty when it has one.

    `unreadable` says why this program cannot read the event (empty: it can); `data` is then a `google.protobuf.Any`
    with the type's name and the bytes as they stand in the log.
    """

    stream: str
    position: int
    time: int
    id: str
    data: Message
    metadata: Metadata
    append_end: int
    append_id: str = field(default="", compare=False)
    unreadable: str = ""

    @property
    def type_name(self) -> str:
        """The full protobuf name of its type."""
        if self.unreadable and isinstance(self.data, Any):
            return self.data.TypeName()
        return str(self.data.DESCRIPTOR.full_name)

    @property
    def closes_append(self) -> bool:
        """Whether it is the last event of its append."""
        return self.position == self.append_end


def appends_of(batch: Sequence[RecordedEvent]) -> list[Sequence[RecordedEvent]]:
    """Return the appends of a batch; the first and the last may be parts of one."""
    ends = [number for number, event in enumerate(batch, start=1) if event.closes_append or number == len(batch)]
    return [batch[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@dataclass(frozen=True, slots=True)
class IndexedEvent:
    """What the rows of every projection know of an event: when its append was recorded, and which request made it."""

    time: int
    actor: str
    request_id: str
    request_digest: str


@dataclass(frozen=True, slots=True)
class KnownPosition:
    """The event at a position of a log, as something outside the log knows it.

    Attributes:
        source: What knows it, for people: rows, a snapshot, a file.
        epoch: The epoch of the log that it was computed in.
        position: The position.
        mark: The short hash of the event's id there; see `eventstore.epochs.mark_of`.
        index: What it knows of any event, by position, None when it has none there; it blocks. None: nothing.
    """

    source: str
    epoch: int
    position: int
    mark: str
    index: Callable[[int], IndexedEvent | None] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class LogCondition:
    """How a log is kept: `storage` in words, and what could lose an acknowledged event (empty: nothing known)."""

    storage: str
    warnings: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

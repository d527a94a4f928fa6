"""One recorded history: requests and results, what watchers received, and the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.histories.recorded.subjects import (
    Delivery,
    Endpoint,
    EvidenceCheck,
    Failure,
    GateEvent,
    GateMove,
    IndexScan,
    Loss,
    PointBatch,
    PointRead,
    Rebuild,
    Run,
    Threshold,
)

OK, REFUSED, UNKNOWN = "ok", "refused", "unknown"


class Target(NamedTuple):
    """One alias of one model."""

    model: str
    alias: str


@dataclass(frozen=True, slots=True)
class Assignment:
    """An assignment as a result showed it: version 0 is unset, revision 0 never set."""

    model: str
    alias: str
    version: int
    revision: int

    @property
    def target(self) -> Target:
        """Return the alias that is assigned."""
        return Target(self.model, self.alias)


@dataclass(frozen=True, slots=True)
class Intent:
    """A requested change: the version (0: remove; None: what a rollback finds), and the expected revision."""

    model: str
    alias: str
    version: int | None = None
    expected: int | None = None

    @property
    def target(self) -> Target:
        """Return the alias to change."""
        return Target(self.model, self.alias)


@dataclass(frozen=True, slots=True)
class Operation:
    """One request of a client, with all its retries, and its result.

    `called` and `returned` are nanoseconds of one monotonic clock; `returned` is None for an unknown outcome. `at` is
    the position that a resolve or a rollback names, `since` the one after which a rollback expects no change,
    `position` the one of the result. `at_time` is the time that a resolve names, `time` the one at which the
    assignment in the result was made; both in nanoseconds since 1970.
    """

    client: str
    kind: str
    wanted: tuple[Intent, ...]
    called: int
    returned: int | None
    outcome: str
    request_id: str = ""
    at: int | None = None
    since: int | None = None
    reason: str = ""
    moved: bool = False
    told: tuple[Assignment, ...] = ()
    position: int = 0
    at_time: int | None = None
    time: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """A change of an alias as a watcher received it."""

    revision: int
    event_id: str
    model: str
    alias: str
    from_version: int
    to_version: int

    @property
    def target(self) -> Target:
        """Return the alias that changed."""
        return Target(self.model, self.alias)


@dataclass(frozen=True, slots=True)
class Event:
    """A change of an alias in the log; its revision is the position of the last event of its append.

    The request of a scheduled move is the one that scheduled it. `time` is the log server's, in nanoseconds since 1970,
    `append_time` that of the first event of the append.
    """

    position: int
    revision: int
    event_id: str
    model: str
    alias: str
    from_version: int
    to_version: int
    actor: str
    request_id: str
    restored_revision: int = 0
    time: int = 0
    append_time: int = 0

    @property
    def target(self) -> Target:
        """Return the alias that changed."""
        return Target(self.model, self.alias)

    @property
    def change(self) -> Change:
        """Return the change that a watcher must receive for the event."""
        return Change(self.revision, self.event_id, self.model, self.alias, self.from_version, self.to_version)


@dataclass(frozen=True, slots=True)
class Naming:
    """A request to create, rename or register a model, and its result; times as in `Operation`."""

    client: str
    kind: str
    name: str
    to_name: str
    request_id: str
    called: int = 0
    returned: int | None = None
    outcome: str = UNKNOWN
    reason: str = ""
    version: int = 0
    position: int = 0


@dataclass(frozen=True, slots=True)
class Named:
    """An event about a model's name in the log; its kind is `created`, `renamed`, `taken` or `registered`.

    `name` is the model's after it, `was` the one before; `origin` is what the model was created with, of `taken` too.
    """

    position: int
    revision: int
    kind: str
    origin: str
    name: str
    was: str
    version: int
    request_id: str


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a watch: `snapshot` (with its aliases), `changes` or `bookmark`, and the position it advances to."""

    kind: str
    position: int
    changes: tuple[Change, ...] = ()
    aliases: tuple[Assignment, ...] = ()


@dataclass
class Stream:
    """One connection of a watcher: its filter (empty: all), where it resumed (None: at a snapshot), its steps.

    `by_sdk`: the SDK reconnects by itself and yields single changes, so that its whole life is one stream whose
    steps are single changes; its last step is a bookmark with the position reached.
    """

    watcher: str
    model: str = ""
    alias: str = ""
    resumed_at: int | None = None
    by_sdk: bool = False
    steps: list[Step] = field(default_factory=list)

    def follows(self, event: Event) -> bool:
        """Return whether the stream asked for an event."""
        return self.model in ("", event.model) and self.alias in ("", event.alias)


@dataclass
class History:
    """One recorded history.

    `goal` is the position that every watcher could reach before it was stopped; `schedules` are the events that ended
    each scheduled move, by its request; `stuck` is the error that clients received if the services could not continue.
    `clock` is the offset from the monotonic clock to nanoseconds since 1970. `is_whole` says that the log was read
    after everything had ended: without it only failures are checked.
    """

    name: str
    operations: list[Operation] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    namings: list[Naming] = field(default_factory=list)
    named: list[Named] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    batches: list[PointBatch] = field(default_factory=list)
    point_reads: list[PointRead] = field(default_factory=list)
    endpoints: list[Endpoint] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    thresholds: list[Threshold] = field(default_factory=list)
    gate_moves: list[GateMove] = field(default_factory=list)
    gate_events: list[GateEvent] = field(default_factory=list)
    evidence_checks: list[EvidenceCheck] = field(default_factory=list)
    walks: list[IndexScan] = field(default_factory=list)
    rebuilds: list[Rebuild] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    schedules: dict[str, list[str]] = field(default_factory=dict)
    goal: int = 0
    stuck: str = ""
    shape: str = ""
    clock: int = 0
    is_whole: bool = True


def by_target(events: Sequence[Event]) -> dict[Target, list[Event]]:
    """Return the events of each alias, in the order of the log."""
    found: dict[Target, list[Event]] = {}
    for event in events:
        found.setdefault(event.target, []).append(event)
    return found

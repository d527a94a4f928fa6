"""The rules that a history must keep, with the text to print when one is broken."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Rule(StrEnum):
    """A rule that a history may break."""

    ACKNOWLEDGED_IS_WRITTEN = "an acknowledged move has its event"
    ONCE = "a request has at most one append"
    REFUSED_IS_NOT_WRITTEN = "a refused move has no event"
    WHOLE = "with a request's append, or without a needed one, everything is as requested"
    SCHEDULED_ENDS_ONCE = "a scheduled move is made, rejected or cancelled, once"
    ASKED_FOR = "every event has a request"
    ANSWER_IS_EVENT = "the result of a command equals its event"
    REPEATED_ALIKE = "a retried request has the same result"
    CHAIN = "every event starts from the version before it"
    EXPECTED_REVISION = "a conditional move succeeds only at the expected revision"
    GOES_ON = "the services can apply everything they have written"
    NAME_IS_ONES = "a name belongs to one model permanently"
    REAL_TIME = "a move that returned before another was called has the lower revision"
    LINEARIZABLE = "moves and their results have an order that explains them all"
    STATE_WAS_CURRENT = "a rejection or unchanged move returns a state that was current between call and return"
    POSITION_COVERS = "the position of a result is not older than the state in it"
    RESTORES = "a rollback restores a past assignment"
    REASON_FITS = "a rejection has a reason that the request can have"
    READ_IS_TRUE = "a resolve returns the assignment at its position"
    READ_OWN_PAST = "a client's resolves are never older than what it has seen or done"
    READ_NO_FUTURE = "a resolve returns nothing requested after it"
    WATCH_ORDERED = "watch: ordered"
    WATCH_UNIQUE = "watch: unique"
    WATCH_RELIABLE = "watch: reliable"
    WATCH_RESUMABLE = "watch: resumable"
    WATCH_ATOMIC = "watch: atomic"
    WATCH_BOOKMARKABLE = "watch: bookmarkable"
    WATCH_SNAPSHOT = "watch: a snapshot is the fold at its position"
    WATCH_TRUE = "watch: a change equals its event"
    WATCH_COMES_THROUGH = "watch: reaches the end of the log"
    NO_FAILURE = "services and clients have no unexpected error"
    TIME_IS_SERVERS = "the time of an event is the log server's, whatever the clocks of services and clients show"
    POINTS_COMPLETE = "points: acknowledged points are read"
    POINTS_ONCE_IN_ORDER = "points: each is read once, in order"
    POINTS_ATOMIC = "points: a batch is complete or absent"
    POINTS_ARE_TRUE = "points: every point read was logged, and summaries count it"
    RUN_IS_ALIVE = "a run whose job lives is running"
    WEBHOOK_COMPLETE = "webhook: no change is missing"
    WEBHOOK_ORDERED = "webhook: in order, and only the last may repeat"
    WEBHOOK_TRUE = "webhook: a delivery equals its event"
    WEBHOOK_SIGNED = "webhook: the signature verifies"
    GATE_DECIDES = "a gated move is made when the gate of its policy revision passes, else rejected"
    REFUSAL_STAYS = "a move rejected by a gate stays rejected"
    EVIDENCE_IS_TRUE = "evidence has the values that the gate evaluated"
    EVIDENCE_RECOMPUTES = "evidence recomputes to the same result"
    LISTING_COMPLETE = "listing: no entry that existed throughout is missing"
    LISTING_UNIQUE = "listing: no entry is repeated"
    LISTING_TRUE = "listing: no entry is invented"
    LISTING_ORDERED = "listing: entries are in order"
    ROWS_EQUAL_REBUILD = "rows equal those rebuilt from the log"
    LOSS_IS_REFUSED = "a log that lost events is not opened silently, and rows are kept"
    EPOCH_IS_NEW = "positions of an abandoned epoch are rejected"


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken rule, and the records that break it."""

    rule: Rule
    about: str

    def __str__(self) -> str:
        return f"{self.rule.name}: {self.rule.value}\n    {self.about}"

"""The promises that a history is held to, by name, and what is said when one is broken."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Rule(StrEnum):
    """What a history may break."""

    ACKNOWLEDGED_IS_WRITTEN = "an acknowledged move has its event"
    ONCE = "a request has at most one append"
    REFUSED_IS_NOT_WRITTEN = "a refused move has no event"
    WHOLE = "with a request's append, or where none was needed, all stands as it asks for"
    SCHEDULED_ENDS_ONCE = "a scheduled move is made, refused or called off, once"
    ASKED_FOR = "every event was asked for"
    ANSWER_IS_EVENT = "the answer to a move says what its event says"
    REPEATED_ALIKE = "a repeated request is answered as it was before"
    CHAIN = "every event starts from what stood before it"
    EXPECTED_REVISION = "a conditional move succeeds only at the revision that it expects"
    GOES_ON = "the services can take in whatever they have written"
    NAME_IS_ONES = "a name is one model's for ever"
    REAL_TIME = "a move that was answered before another was asked for has the lower revision"
    LINEARIZABLE = "moves and their answers have an order that explains them all"
    STATE_WAS_CURRENT = "a refusal or a move to where it is shows a state that was current between call and return"
    POSITION_COVERS = "the position that an answer names is not before what it shows"
    RESTORES = "a rollback restores an assignment that there was"
    REASON_FITS = "a refusal has a reason that this request can have"
    READ_IS_TRUE = "a resolve says what stood at the position that it names"
    READ_OWN_PAST = "a client's resolves never go back behind what it has seen or done"
    READ_NO_FUTURE = "a resolve shows nothing that was asked for after it"
    WATCH_ORDERED = "watch: ordered"
    WATCH_UNIQUE = "watch: unique"
    WATCH_RELIABLE = "watch: reliable"
    WATCH_RESUMABLE = "watch: resumable"
    WATCH_ATOMIC = "watch: atomic"
    WATCH_BOOKMARKABLE = "watch: bookmarkable"
    WATCH_SNAPSHOT = "watch: a snapshot is the fold at its position"
    WATCH_TRUE = "watch: a change says what its event says"
    WATCH_COMES_THROUGH = "watch: comes to the log's end"
    NO_FAILURE = "services and clients meet no error that nothing promises"
    TIME_IS_SERVERS = "the time of an event is the log server's, whatever the clocks of services and clients say"
    POINTS_COMPLETE = "points: what was acknowledged is read"
    POINTS_ONCE_IN_ORDER = "points: each is read once, in order"
    POINTS_ATOMIC = "points: a batch is there as a whole or not at all"
    POINTS_ARE_TRUE = "points: what is read was logged, and summaries count it"
    RUN_IS_ALIVE = "a run whose job lives is running"
    WEBHOOK_COMPLETE = "webhook: no change is left out"
    WEBHOOK_ORDERED = "webhook: in order, and only the last may come again"
    WEBHOOK_TRUE = "webhook: a delivery says what its event says"
    WEBHOOK_SIGNED = "webhook: the signature verifies"
    GATE_DECIDES = "a gated move is made when the gate of its policy revision passes, else refused"
    REFUSAL_STAYS = "a move that a gate refused stays refused"
    EVIDENCE_IS_TRUE = "evidence says what the gate was asked about"
    EVIDENCE_RECOMPUTES = "evidence recomputes to what it says"
    LISTING_COMPLETE = "listing: a walk misses nothing that stood throughout"
    LISTING_UNIQUE = "listing: a walk gives nothing twice"
    LISTING_TRUE = "listing: a walk gives nothing that never was"
    LISTING_ORDERED = "listing: a walk keeps its order"
    ROWS_EQUAL_REBUILD = "rows equal those computed again from the log"
    LOSS_IS_REFUSED = "a log that lost events is not opened silently, and rows are kept"
    EPOCH_IS_NEW = "positions of an epoch that was given up are refused"


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken, and by what."""

    rule: Rule
    about: str

    def __str__(self) -> str:
        return f"{self.rule.name}: {self.rule.value}\n    {self.about}"

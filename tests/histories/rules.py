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


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken, and by what."""

    rule: Rule
    about: str

    def __str__(self) -> str:
        return f"{self.rule.name}: {self.rule.value}\n    {self.about}"

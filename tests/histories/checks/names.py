"""The checks of models' names: each name belongs to one model permanently, however clients race for it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.histories.checks.rules import Rule, Violation
from tests.histories.recorded.recording import OK, REFUSED, UNKNOWN, History, Named, Naming

REASONS = {
    "create": {"MODEL_EXISTS", "MODEL_RENAMED", "STREAM_BUSY"},
    "rename": {"MODEL_EXISTS", "MODEL_RENAMED", "MODEL_NOT_FOUND", "STREAM_BUSY"},
    "register": {"MODEL_RENAMED", "STREAM_BUSY"},
}
MADE_BY = {"created": {"create", "register"}, "renamed": {"rename"}, "taken": {"rename"}, "registered": {"register"}}


def check_names(history: History) -> Iterator[Violation]:
    """Run all checks of names, and check that none has stopped the services."""
    namings = {naming.request_id: naming for naming in history.namings}
    events: dict[str, list[Named]] = {}
    for event in history.named:
        events.setdefault(event.request_id, []).append(event)
    if history.stuck:
        yield Violation(Rule.GOES_ON, history.stuck)
    yield from _check_owners(history.named)
    yield from _check_versions(history.named)
    for event in history.named:
        asked = namings.get(event.request_id)
        if asked is None or asked.kind not in MADE_BY[event.kind]:
            yield Violation(Rule.ASKED_FOR, f"{event} by {asked}")
    claims = _Claims(history.named, namings)
    for naming in history.namings:
        yield from _check_naming(naming, events.get(naming.request_id, []))
        yield from claims.check_refusal(naming)


def _check_owners(named: Sequence[Named]) -> Iterator[Violation]:
    """Check that a name belongs to the model created with it or given it, and that its stream has no other events."""
    owners: dict[str, str] = {}
    current: dict[str, str] = {}
    for event in named:
        if event.kind in ("created", "taken"):
            if event.name in owners:
                yield Violation(Rule.NAME_IS_ONES, f"{event}: the name belongs to {owners[event.name]}")
            owners.setdefault(event.name, event.origin)
        elif owners.get(event.name, event.origin) != event.origin or current.get(event.origin) != event.was:
            yield Violation(Rule.NAME_IS_ONES, f"{event}, expected the name {current.get(event.origin)}")
        if event.kind != "taken":
            current[event.origin] = event.name


def _check_versions(named: Sequence[Named]) -> Iterator[Violation]:
    numbers: dict[str, int] = {}
    for event in named:
        if event.kind == "registered":
            numbers[event.origin] = numbers.get(event.origin, 0) + 1
            if event.version != numbers[event.origin]:
                yield Violation(Rule.CHAIN, f"{event} after version {numbers[event.origin] - 1}")


def _check_naming(naming: Naming, events: Sequence[Named]) -> Iterator[Violation]:
    if len({event.revision for event in events}) > 1:
        yield Violation(Rule.ONCE, f"{naming} has {events}")
    if events and naming.outcome == REFUSED:
        yield Violation(Rule.REFUSED_IS_NOT_WRITTEN, f"{naming} has {events}")
    if naming.outcome == OK and not (events or naming.name == naming.to_name):
        yield Violation(Rule.ACKNOWLEDGED_IS_WRITTEN, f"{naming}")
    names = {event.name for event in events}
    versions = {event.version for event in events if event.kind == "registered"}
    if events and (
        names != {naming.to_name or naming.name}
        or (naming.outcome == OK and naming.position != events[-1].revision)
        or (naming.outcome == OK and versions != ({naming.version} if naming.version else set()))
    ):
        yield Violation(Rule.ANSWER_IS_EVENT, f"{naming} has {events}")


@dataclass(frozen=True, slots=True)
class _Claims:
    """Which names were given, from when at the earliest to when at the latest."""

    named: Sequence[Named]
    namings: dict[str, Naming]

    def check_refusal(self, naming: Naming) -> Iterator[Violation]:
        """Check that a rejection was valid at some moment between call and return."""
        if naming.outcome != REFUSED:
            return
        assert naming.returned is not None
        wanted = naming.to_name or naming.name
        due = {
            "MODEL_EXISTS": self._asked(wanted, "created", "taken") < naming.returned,
            "MODEL_RENAMED": self._left(naming.name) < naming.returned,
            "MODEL_NOT_FOUND": self._done(naming.name) > naming.called,
        }
        if naming.reason not in REASONS[naming.kind] or not due.get(naming.reason, True):
            yield Violation(Rule.REASON_FITS, f"{naming}")

    def _asked(self, name: str, *kinds: str) -> float:
        return min(
            (self._called(one) for one in self.named if one.name == name and one.kind in kinds), default=math.inf
        )

    def _left(self, name: str) -> float:
        left = (self._called(one) for one in self.named if one.was == name and one.kind == "renamed")
        return min(left, default=math.inf)

    def _done(self, name: str) -> float:
        """Return the latest moment at which the name can have been given."""
        given = [self.namings.get(one.request_id) for one in self.named if one.name == name and one.kind != "renamed"]
        if not given or given[0] is None or given[0].outcome == UNKNOWN or given[0].returned is None:
            return math.inf
        return given[0].returned

    def _called(self, event: Named) -> float:
        asked = self.namings.get(event.request_id)
        return asked.called if asked else -math.inf

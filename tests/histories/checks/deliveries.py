"""The checks of webhooks: every change is delivered in order, at least once, unchanged, and signed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.histories.checks.rules import Rule, Violation
from tests.histories.recorded.recording import Event, History
from tests.histories.recorded.subjects import Delivery, Endpoint

MAX_REPEATED = 100
"""The number of deliveries that may repeat after a crash of the service."""


def check_deliveries(history: History) -> Iterator[Violation]:
    """Check what every endpoint acknowledged."""
    for endpoint in history.endpoints:
        taken = [one for one in history.deliveries if one.webhook_id == endpoint.webhook_id]
        due = [one for one in history.events if one.model == endpoint.model and one.position > endpoint.since]
        yield from _check_content(taken, due)
        yield from _check_order(endpoint, taken, due)


def _check_content(taken: Sequence[Delivery], due: Sequence[Event]) -> Iterator[Violation]:
    events = {event.event_id: event for event in due}
    for delivery in taken:
        if not delivery.is_signed:
            yield Violation(Rule.WEBHOOK_SIGNED, f"{delivery}")
        event = events.get(delivery.event_id)
        if event is None or _content(delivery) != _expected(event):
            yield Violation(Rule.WEBHOOK_TRUE, f"{delivery} of {event}")


def _content(delivery: Delivery) -> tuple[object, ...]:
    place = delivery.sequence, delivery.revision, delivery.time
    return *place, delivery.model, delivery.alias, delivery.from_version, delivery.to_version


def _expected(event: Event) -> tuple[object, ...]:
    return event.position, event.revision, event.time, event.model, event.alias, event.from_version, event.to_version


def _check_order(endpoint: Endpoint, taken: Sequence[Delivery], due: Sequence[Event]) -> Iterator[Violation]:
    """Check that deliveries are in order; only a tail of them may repeat, in order too."""
    places = {event.event_id: number for number, event in enumerate(due)}
    reached, last = -1, -1
    for delivery in taken:
        place = places.get(delivery.event_id, -1)
        if place > reached + 1:
            missed = [event.event_id for event in due[reached + 1 : place]]
            yield Violation(Rule.WEBHOOK_COMPLETE, f"{delivery} before {missed[:5]}")
        elif place <= reached and (place < reached + 1 - MAX_REPEATED or not _is_repetition(place, last, reached)):
            yield Violation(Rule.WEBHOOK_ORDERED, f"{delivery} after {due[last]}")
        reached, last = max(reached, place), place
    if missing := due[reached + 1 :]:
        yield Violation(
            Rule.WEBHOOK_COMPLETE, f"{endpoint} did not receive {[event.event_id for event in missing[:5]]}"
        )


def _is_repetition(place: int, last: int, reached: int) -> bool:
    """Return whether a delivery that came before follows the last one, or begins a repetition."""
    return place == last + 1 or place <= last

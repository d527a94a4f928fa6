"""The bugs that are planted in the services, by name, with the rule that each breaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.histories.bugs import registry_bugs as registry
from tests.histories.bugs import service_bugs as services
from tests.histories.bugs import watch_bugs as watches
from tests.histories.checks.rules import Rule

_FAULTS = ("pause service", "nothing")


@dataclass(frozen=True, slots=True)
class Bug:
    """A bug, the promise that it breaks, and the rules that catch it; no rules for a change that breaks nothing.

    It is looked for in histories of a shape with these faults.
    """

    plant: Callable[[], None]
    promise: str
    breaks: frozenset[Rule]
    shape: str = "two writers"
    faults: tuple[str, ...] = _FAULTS


def _bug(plant: Callable[[], None], promise: str, *breaks: Rule, **more: object) -> Bug:
    return Bug(plant, promise, frozenset(breaks), **more)  # type: ignore[arg-type]


_BUGS = (
    _bug(registry.append_without_expected_revision, "conditional", Rule.CHAIN, Rule.EXPECTED_REVISION),
    _bug(registry.release_set_ignores_expected_revisions, "conditional release set", Rule.EXPECTED_REVISION),
    _bug(registry.release_set_in_two_appends, "atomic release set", Rule.ONCE, Rule.WHOLE),
    _bug(registry.rollback_is_one_too_early, "rollback restores", Rule.RESTORES),
    _bug(registry.rejected_after_append, "refused is not written", Rule.REFUSED_IS_NOT_WRITTEN),
    _bug(registry.request_id_is_ignored, "idempotent request id", Rule.ONCE),
    _bug(watches.watch_swaps_steps, "sequenced watch", Rule.WATCH_ORDERED, Rule.WATCH_RELIABLE, Rule.WATCH_RESUMABLE),
    _bug(watches.watch_loses_a_change_on_resume, "resumable watch", Rule.WATCH_RESUMABLE),
    _bug(watches.watch_repeats_after_reconnect, "unique watch", Rule.WATCH_UNIQUE),
    _bug(watches.watch_splits_an_append, "atomic watch", Rule.WATCH_ATOMIC),
    _bug(registry.read_ignores_min_position, "read your writes", Rule.READ_OWN_PAST),
    _bug(registry.read_answers_stale_state, "true reads", Rule.READ_IS_TRUE),
    _bug(registry.past_is_one_position_off, "as of", Rule.READ_IS_TRUE),
    _bug(registry.duplicate_names_are_accepted, "one owner of a name", Rule.NAME_IS_ONES, Rule.GOES_ON),
    _bug(registry.rows_miss_changes, "rows equal a rebuild", Rule.ROWS_EQUAL_REBUILD),
    _bug(registry.pages_miss_an_entry, "complete listings", Rule.LISTING_COMPLETE),
    _bug(registry.gates_are_skipped, "gates decide", Rule.GATE_DECIDES, Rule.EVIDENCE_IS_TRUE),
    _bug(registry.evidence_differs, "gate evidence", Rule.EVIDENCE_IS_TRUE),
    _bug(registry.rejected_moves_are_decided_again, "refused stays refused", Rule.REFUSAL_STAYS),
    _bug(
        registry.times_are_of_the_writer,
        "time of the log",
        Rule.TIME_IS_SERVERS,
        Rule.WEBHOOK_TRUE,
        faults=("jump service clock", "nothing"),
        shape="one process",
    ),
    _bug(
        services.lost_events_are_not_missed,
        "lost logs",
        Rule.LOSS_IS_REFUSED,
        faults=("nothing", "restored copy"),
        shape="one process",
    ),
    _bug(services.batches_are_forgotten, "complete points", Rule.POINTS_COMPLETE),
    _bug(services.batches_are_duplicated, "points once", Rule.POINTS_ONCE_IN_ORDER),
    _bug(services.webhook_skips_a_change, "complete webhooks", Rule.WEBHOOK_COMPLETE),
    _bug(services.webhook_ignores_rejections, "acknowledged webhooks", Rule.WEBHOOK_COMPLETE),
    _bug(services.webhook_is_signed_for_another_message, "signed webhooks", Rule.WEBHOOK_SIGNED),
    _bug(registry.slow_subscriptions, "none: late is no bug"),
)

BUGS: Mapping[str, Bug] = {bug.plant.__name__: bug for bug in _BUGS}

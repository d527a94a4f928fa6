"""Tests of the checker: it accepts valid histories and reports every broken rule."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.histories.checks.checker import check
from tests.histories.checks.rules import Rule
from tests.histories.recorded.recording import OK, REFUSED, UNKNOWN, Assignment, Event, History, Intent
from tests.histories.recorded.scenario import CANARY, CHAMPION, OTHER, START, Scenario, broken
from tests.histories.recorded.storage import read, write

FIRST = START + 1


def test_checker_accepts_valid_history(scenario: Scenario) -> None:
    assert check(scenario.history) == []


def test_unknown_outcome_may_be_written_or_not() -> None:
    for written in (True, False):
        scenario = Scenario()
        scenario.move(1)
        scenario.move_unanswered(2, written=written)
        scenario.resolve()
        assert check(scenario.history) == []


def test_history_survives_write_and_read(scenario: Scenario, tmp_path: Path) -> None:
    path = tmp_path / "story.jsonl"
    scenario.history.faults = ["kill nats"]
    write(scenario.history, path)
    assert read(path) == scenario.history


class TestMoves:
    def test_checker_reports_acknowledged_move_without_event(self, scenario: Scenario) -> None:
        scenario.history.events.pop()
        assert Rule.ACKNOWLEDGED_IS_WRITTEN in broken(scenario)

    def test_checker_reports_request_with_two_appends(self) -> None:
        scenario = Scenario()
        scenario.move(1)
        scenario.move(2)
        scenario.change_event(1, request_id="r0")
        assert Rule.ONCE in broken(scenario)

    @pytest.mark.parametrize("outcome", [REFUSED, OK])
    def test_checker_reports_event_of_request_without_effect(self, outcome: str) -> None:
        scenario = Scenario()
        scenario.move(1)
        scenario.move(2)
        reason = "WRONG_REVISION" if outcome == REFUSED else ""
        assigned = (Assignment(*CHAMPION, 1, FIRST),)
        scenario.change_last(outcome=outcome, reason=reason, told=assigned, position=FIRST, moved=False)
        assert Rule.REFUSED_IS_NOT_WRITTEN in broken(scenario)

    def test_checker_reports_event_without_request(self, scenario: Scenario) -> None:
        last = scenario.history.events[-1]
        stray = Event(last.position + 1, last.position + 1, "e", *CANARY, 1, 2, "eve", "another")
        scenario.history.events.append(stray)
        assert Rule.ASKED_FOR in broken(scenario)

    @pytest.mark.parametrize(
        "fields",
        [
            {"told": (Assignment(*CHAMPION, 1, FIRST),)},
            {"told": (Assignment(*CHAMPION, 2, FIRST + 2),)},
            {"position": FIRST + 5},
            {"wanted": (Intent(*CHAMPION, 3),)},
        ],
    )
    def test_checker_reports_response_that_differs_from_event(self, fields: dict[str, object]) -> None:
        scenario = Scenario()
        scenario.move(1)
        scenario.move(2)
        scenario.change_last(**fields)
        assert Rule.ANSWER_IS_EVENT in broken(scenario)

    def test_checker_reports_partly_written_release_set(self) -> None:
        scenario = Scenario()
        scenario.release(1, 2)
        scenario.history.events.pop()
        assert Rule.ANSWER_IS_EVENT in broken(scenario)

    def test_checker_reports_partly_written_release_set_of_unknown_outcome(self) -> None:
        scenario = Scenario()
        scenario.release(1, 2)
        scenario.history.events.pop()
        scenario.change_last(outcome=UNKNOWN, returned=None, told=(), position=0, moved=False)
        assert broken(scenario) == {Rule.WHOLE}

    def test_checker_reports_release_set_whose_other_target_moved_before(self) -> None:
        scenario = Scenario()
        kept = Intent(*OTHER, 1, scenario.move_other(1))
        scenario.move_other(2)
        scenario.move(3)
        returned = (*scenario.history.operations[-1].told, scenario.assigned(OTHER))
        scenario.change_last(kind="release set", wanted=(Intent(*CHAMPION, 3), kept), told=returned)
        assert {Rule.WHOLE, Rule.LINEARIZABLE} <= broken(scenario)

    def test_checker_reports_release_set_with_stale_expected_revision(self) -> None:
        scenario = Scenario()
        expected = scenario.move_other(1)
        scenario.move_other(2)
        scenario.move_other(1)
        scenario.move(3)
        returned = (*scenario.history.operations[-1].told, scenario.assigned(OTHER))
        scenario.change_last(
            kind="release set", wanted=(Intent(*CHAMPION, 3), Intent(*OTHER, 1, expected)), told=returned
        )
        assert {Rule.EXPECTED_REVISION, Rule.LINEARIZABLE} <= broken(scenario)

    def test_checker_reports_release_set_wrongly_acknowledged_as_unchanged(self) -> None:
        scenario = Scenario()
        scenario.move(1)
        scenario.move_unchanged()
        scenario.change_last(kind="release set", wanted=(Intent(*CHAMPION, 2),))
        assert broken(scenario) == {Rule.WHOLE}

    def test_checker_reports_retry_with_different_response(self) -> None:
        scenario = Scenario()
        scenario.move(1)
        scenario.repeat_last()
        scenario.change_last(position=FIRST + 1)
        assert Rule.REPEATED_ALIKE in broken(scenario)

    def test_checker_reports_event_from_wrong_version(self) -> None:
        scenario = Scenario()
        scenario.move(1)
        scenario.move(2)
        scenario.change_event(1, from_version=0)
        assert Rule.CHAIN in broken(scenario)

    def test_checker_reports_event_without_change(self) -> None:
        scenario = Scenario()
        scenario.move(1)
        scenario.move(1)
        assert Rule.CHAIN in broken(scenario)

    def test_checker_reports_two_conditional_moves_from_same_revision(self) -> None:
        scenario = Scenario()
        first = scenario.move(1)
        scenario.move(2, expected=first)
        scenario.move(3, expected=first, client="bob")
        assert {Rule.EXPECTED_REVISION, Rule.LINEARIZABLE} <= broken(scenario)

    def test_checker_reports_unchanged_conditional_move_at_wrong_revision(self) -> None:
        scenario = Scenario()
        first = scenario.move(1)
        scenario.move_unchanged()
        scenario.change_last(wanted=(Intent(*CHAMPION, 1, first - 1),))
        assert Rule.EXPECTED_REVISION in broken(scenario)

    def test_checker_reports_rollback_despite_later_change(self) -> None:
        scenario = Scenario()
        first = scenario.move(1)
        scenario.move(2)
        scenario.roll_back(first)
        scenario.change_last(since=first)
        assert Rule.EXPECTED_REVISION in broken(scenario)

    def test_checker_accepts_conditional_move_of_unset_alias(self) -> None:
        scenario = Scenario()
        scenario.move(1, expected=0)
        scenario.remove()
        scenario.move(2, expected=0)
        assert check(scenario.history) == []

    def test_checker_reports_revisions_against_real_time(self) -> None:
        scenario = Scenario()
        scenario.move(1)
        scenario.move(2)
        scenario.history.operations[0] = replace(scenario.history.operations[0], called=100, returned=105)
        assert {Rule.REAL_TIME, Rule.LINEARIZABLE} <= broken(scenario)

    def test_checker_reports_rejection_with_outdated_state(self) -> None:
        scenario = Scenario()
        first = scenario.move(1)
        second = scenario.move(2)
        scenario.move(3)
        scenario.move_rejected(expected=first)
        scenario.change_last(told=(Assignment(*CHAMPION, 2, second),))
        assert {Rule.STATE_WAS_CURRENT, Rule.LINEARIZABLE} <= broken(scenario)

    def test_checker_reports_rejection_with_invented_state(self) -> None:
        scenario = Scenario()
        first = scenario.move(1)
        scenario.move_rejected(expected=first - 1)
        scenario.change_last(told=(Assignment(*CHAMPION, 2, first),))
        assert Rule.STATE_WAS_CURRENT in broken(scenario)

    def test_checker_reports_rejection_of_correct_expected_revision(self) -> None:
        scenario = Scenario()
        scenario.move_rejected(expected=scenario.move(1))
        assert Rule.STATE_WAS_CURRENT in broken(scenario)

    def test_checker_reports_unchanged_move_to_previous_version(self) -> None:
        scenario = Scenario()
        scenario.move(1)
        scenario.move_unchanged()
        assigned = scenario.history.operations[-1].told
        scenario.move(2)
        scenario.move_unchanged()
        scenario.change_last(told=assigned)
        assert {Rule.STATE_WAS_CURRENT, Rule.LINEARIZABLE} <= broken(scenario)

    def test_checker_reports_rejected_removal_of_set_alias(self) -> None:
        scenario = Scenario()
        scenario.move(1)
        scenario.remove()
        scenario.change_last(outcome=REFUSED, reason="ALIAS_NOT_FOUND", told=(), moved=False, position=0)
        scenario.history.events.pop()
        assert Rule.STATE_WAS_CURRENT in broken(scenario)

    def test_checker_reports_rollback_that_restores_wrong_version(self) -> None:
        scenario = Scenario()
        first, second = scenario.move(1), scenario.move(2)
        scenario.move(3)
        scenario.roll_back(first)
        scenario.change_event(-1, restored_revision=second)
        assert Rule.RESTORES in broken(scenario)

    def test_checker_reports_rollback_to_wrong_position(self) -> None:
        scenario = Scenario()
        first, second = scenario.move(1), scenario.move(2)
        scenario.move(3)
        scenario.roll_back(first)
        scenario.change_last(at=second)
        assert Rule.RESTORES in broken(scenario)

    @pytest.mark.parametrize("endings", [[], ["AliasMoved", "AliasScheduleRefused"]])
    def test_checker_reports_scheduled_move_without_single_end(self, scenario: Scenario, endings: list[str]) -> None:
        scenario.history.schedules["r0"] = endings
        assert broken(scenario) == {Rule.SCHEDULED_ENDS_ONCE}

    def test_checker_reports_position_older_than_returned_state(self) -> None:
        scenario = Scenario()
        scenario.move(1)
        scenario.move_unchanged()
        scenario.change_last(position=FIRST - 1)
        assert broken(scenario) == {Rule.POSITION_COVERS}

    def test_checker_reports_rejection_with_unexpected_reason(self, scenario: Scenario) -> None:
        scenario.change_last(outcome=REFUSED, reason="INTERNAL")
        assert Rule.REASON_FITS in broken(scenario)


class TestLinearizable:
    def test_checker_accepts_any_order_of_concurrent_calls(self) -> None:
        scenario = Scenario()
        scenario.move(1)
        scenario.move(2, client="bob")
        scenario.move_rejected(expected=0, client="cyd")
        for number in range(3):
            scenario.change(number, called=10 + number, returned=90)
        assert check(scenario.history) == []

    def test_checker_accepts_read_of_move_with_unknown_outcome(self) -> None:
        scenario = Scenario()
        scenario.move(1)
        scenario.move_unanswered(2, written=True)
        scenario.move_unchanged("bob")
        assert check(scenario.history) == []

    def test_checker_reports_read_before_unknown_move_was_called(self) -> None:
        scenario = Scenario()
        scenario.move(1)
        scenario.move_unanswered(2, written=True)
        scenario.move_unchanged("bob")
        scenario.change(1, called=100)
        assert Rule.LINEARIZABLE in broken(scenario)


class TestReads:
    def test_checker_reports_read_of_wrong_version(self) -> None:
        scenario = Scenario()
        first = scenario.move(1)
        scenario.resolve()
        scenario.change_last(told=(Assignment(*CHAMPION, 2, first),))
        assert Rule.READ_IS_TRUE in broken(scenario)

    @pytest.mark.parametrize("at", [FIRST, FIRST + 1])
    def test_checker_reports_wrong_version_in_the_past(self, at: int) -> None:
        scenario = Scenario()
        scenario.move(1)
        scenario.move(2)
        scenario.resolve(at=at)
        scenario.change_last(at=2 * FIRST + 1 - at)
        assert Rule.READ_IS_TRUE in broken(scenario)

    def test_checker_reports_not_found_while_alias_was_set(self) -> None:
        scenario = Scenario()
        first = scenario.move(1)
        scenario.resolve(at=first)
        scenario.change_last(outcome=REFUSED, reason="ALIAS_NOT_FOUND", told=(), position=0)
        assert Rule.READ_IS_TRUE in broken(scenario)

    def test_checker_reports_read_older_than_own_write(self) -> None:
        scenario = Scenario()
        assigned = scenario.assigned(CHAMPION, scenario.move(1))
        scenario.move(2)
        scenario.resolve("ann")
        scenario.change_last(told=(assigned,), position=assigned.revision)
        assert broken(scenario) == {Rule.READ_OWN_PAST}

    def test_checker_accepts_read_older_than_write_of_other_client(self) -> None:
        scenario = Scenario()
        assigned = scenario.assigned(CHAMPION, scenario.move(1))
        scenario.move(2)
        scenario.resolve("bob")
        scenario.change_last(told=(assigned,), position=assigned.revision)
        assert check(scenario.history) == []

    def test_checker_reports_not_found_after_own_write(self) -> None:
        scenario = Scenario()
        scenario.move(1)
        scenario.resolve("ann")
        scenario.change_last(outcome=REFUSED, reason="ALIAS_NOT_FOUND", told=(), position=0)
        assert Rule.READ_OWN_PAST in broken(scenario)

    def test_checker_reports_read_of_later_write(self) -> None:
        scenario = Scenario()
        scenario.move(1)
        scenario.resolve()
        scenario.change(0, called=50, returned=60)
        assert Rule.READ_NO_FUTURE in broken(scenario)

    def test_checker_reports_not_found_before_removal_was_called(self) -> None:
        scenario = Scenario()
        scenario.move(1)
        scenario.remove()
        scenario.resolve()
        scenario.change(1, called=50, returned=60)
        scenario.change_last(client="ann", called=20, returned=25)
        assert Rule.READ_NO_FUTURE in broken(scenario)


def test_every_rule_has_test_that_breaks_it() -> None:
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_checker*.py"))
    assert [rule.name for rule in Rule if f"Rule.{rule.name}" not in text] == []


def test_checker_accepts_empty_history() -> None:
    assert check(History("nothing")) == []

"""The checker itself: it passes what keeps every promise, and names each promise that is broken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.histories.checks.checker import check
from tests.histories.checks.rules import Rule
from tests.histories.recorded.recording import OK, REFUSED, UNKNOWN, Event, Held, History, Wanted
from tests.histories.recorded.storage import read, write
from tests.histories.recorded.story import CANARY, CHAMPION, OTHER, START, Story, broken

FIRST = START + 1


def test_checker_accepts_valid_history(story: Story) -> None:
    assert check(story.history) == []


def test_unknown_outcome_may_be_written_or_not() -> None:
    for written in (True, False):
        story = Story()
        story.move(1)
        story.lose(2, written=written)
        story.resolve()
        assert check(story.history) == []


def test_history_survives_write_and_read(story: Story, tmp_path: Path) -> None:
    path = tmp_path / "story.jsonl"
    story.history.faults = ["kill nats"]
    write(story.history, path)
    assert read(path) == story.history


class TestMoves:
    def test_checker_reports_acknowledged_move_without_event(self, story: Story) -> None:
        story.history.events.pop()
        assert Rule.ACKNOWLEDGED_IS_WRITTEN in broken(story)

    def test_checker_reports_request_with_two_appends(self) -> None:
        story = Story()
        story.move(1)
        story.move(2)
        story.change_event(1, request_id="r0")
        assert Rule.ONCE in broken(story)

    @pytest.mark.parametrize("outcome", [REFUSED, OK])
    def test_checker_reports_event_of_request_without_effect(self, outcome: str) -> None:
        story = Story()
        story.move(1)
        story.move(2)
        reason = "WRONG_REVISION" if outcome == REFUSED else ""
        held = (Held(*CHAMPION, 1, FIRST),)
        story.change_last(outcome=outcome, reason=reason, told=held, position=FIRST, moved=False)
        assert Rule.REFUSED_IS_NOT_WRITTEN in broken(story)

    def test_checker_reports_event_without_request(self, story: Story) -> None:
        last = story.history.events[-1]
        stray = Event(last.position + 1, last.position + 1, "e", *CANARY, 1, 2, "eve", "another")
        story.history.events.append(stray)
        assert Rule.ASKED_FOR in broken(story)

    @pytest.mark.parametrize(
        "fields",
        [
            {"told": (Held(*CHAMPION, 1, FIRST),)},
            {"told": (Held(*CHAMPION, 2, FIRST + 2),)},
            {"position": FIRST + 5},
            {"wanted": (Wanted(*CHAMPION, 3),)},
        ],
    )
    def test_checker_reports_response_that_differs_from_event(self, fields: dict[str, object]) -> None:
        story = Story()
        story.move(1)
        story.move(2)
        story.change_last(**fields)
        assert Rule.ANSWER_IS_EVENT in broken(story)

    def test_checker_reports_partly_written_release_set(self) -> None:
        story = Story()
        story.release(1, 2)
        story.history.events.pop()
        assert Rule.ANSWER_IS_EVENT in broken(story)

    def test_checker_reports_partly_written_release_set_of_unknown_outcome(self) -> None:
        story = Story()
        story.release(1, 2)
        story.history.events.pop()
        story.change_last(outcome=UNKNOWN, returned=None, told=(), position=0, moved=False)
        assert broken(story) == {Rule.WHOLE}

    def test_checker_reports_release_set_whose_other_target_moved_before(self) -> None:
        story = Story()
        kept = Wanted(*OTHER, 1, story.move_other(1))
        story.move_other(2)
        story.move(3)
        told = (*story.history.operations[-1].told, story.held(OTHER))
        story.change_last(kind="release set", wanted=(Wanted(*CHAMPION, 3), kept), told=told)
        assert {Rule.WHOLE, Rule.LINEARIZABLE} <= broken(story)

    def test_checker_reports_release_set_with_stale_expected_revision(self) -> None:
        story = Story()
        expected = story.move_other(1)
        story.move_other(2)
        story.move_other(1)
        story.move(3)
        told = (*story.history.operations[-1].told, story.held(OTHER))
        story.change_last(kind="release set", wanted=(Wanted(*CHAMPION, 3), Wanted(*OTHER, 1, expected)), told=told)
        assert {Rule.EXPECTED_REVISION, Rule.LINEARIZABLE} <= broken(story)

    def test_checker_reports_release_set_wrongly_acknowledged_as_unchanged(self) -> None:
        story = Story()
        story.move(1)
        story.is_there()
        story.change_last(kind="release set", wanted=(Wanted(*CHAMPION, 2),))
        assert broken(story) == {Rule.WHOLE}

    def test_checker_reports_retry_with_different_response(self) -> None:
        story = Story()
        story.move(1)
        story.repeat_last()
        story.change_last(position=FIRST + 1)
        assert Rule.REPEATED_ALIKE in broken(story)

    def test_checker_reports_event_from_wrong_version(self) -> None:
        story = Story()
        story.move(1)
        story.move(2)
        story.change_event(1, from_version=0)
        assert Rule.CHAIN in broken(story)

    def test_checker_reports_event_without_change(self) -> None:
        story = Story()
        story.move(1)
        story.move(1)
        assert Rule.CHAIN in broken(story)

    def test_checker_reports_two_conditional_moves_from_same_revision(self) -> None:
        story = Story()
        first = story.move(1)
        story.move(2, expected=first)
        story.move(3, expected=first, client="bob")
        assert {Rule.EXPECTED_REVISION, Rule.LINEARIZABLE} <= broken(story)

    def test_checker_reports_unchanged_conditional_move_at_wrong_revision(self) -> None:
        story = Story()
        first = story.move(1)
        story.is_there()
        story.change_last(wanted=(Wanted(*CHAMPION, 1, first - 1),))
        assert Rule.EXPECTED_REVISION in broken(story)

    def test_checker_reports_rollback_despite_later_change(self) -> None:
        story = Story()
        first = story.move(1)
        story.move(2)
        story.roll_back(first)
        story.change_last(since=first)
        assert Rule.EXPECTED_REVISION in broken(story)

    def test_checker_accepts_conditional_move_of_unset_alias(self) -> None:
        story = Story()
        story.move(1, expected=0)
        story.remove()
        story.move(2, expected=0)
        assert check(story.history) == []

    def test_checker_reports_revisions_against_real_time(self) -> None:
        story = Story()
        story.move(1)
        story.move(2)
        story.history.operations[0] = replace(story.history.operations[0], called=100, returned=105)
        assert {Rule.REAL_TIME, Rule.LINEARIZABLE} <= broken(story)

    def test_checker_reports_rejection_with_outdated_state(self) -> None:
        story = Story()
        first = story.move(1)
        second = story.move(2)
        story.move(3)
        story.refuse(expected=first)
        story.change_last(told=(Held(*CHAMPION, 2, second),))
        assert {Rule.STATE_WAS_CURRENT, Rule.LINEARIZABLE} <= broken(story)

    def test_checker_reports_rejection_with_invented_state(self) -> None:
        story = Story()
        first = story.move(1)
        story.refuse(expected=first - 1)
        story.change_last(told=(Held(*CHAMPION, 2, first),))
        assert Rule.STATE_WAS_CURRENT in broken(story)

    def test_checker_reports_rejection_of_correct_expected_revision(self) -> None:
        story = Story()
        story.refuse(expected=story.move(1))
        assert Rule.STATE_WAS_CURRENT in broken(story)

    def test_checker_reports_unchanged_move_to_previous_version(self) -> None:
        story = Story()
        story.move(1)
        story.is_there()
        held = story.history.operations[-1].told
        story.move(2)
        story.is_there()
        story.change_last(told=held)
        assert {Rule.STATE_WAS_CURRENT, Rule.LINEARIZABLE} <= broken(story)

    def test_checker_reports_rejected_removal_of_set_alias(self) -> None:
        story = Story()
        story.move(1)
        story.remove()
        story.change_last(outcome=REFUSED, reason="ALIAS_NOT_FOUND", told=(), moved=False, position=0)
        story.history.events.pop()
        assert Rule.STATE_WAS_CURRENT in broken(story)

    def test_checker_reports_rollback_that_restores_wrong_version(self) -> None:
        story = Story()
        first, second = story.move(1), story.move(2)
        story.move(3)
        story.roll_back(first)
        story.change_event(-1, restored_revision=second)
        assert Rule.RESTORES in broken(story)

    def test_checker_reports_rollback_to_wrong_position(self) -> None:
        story = Story()
        first, second = story.move(1), story.move(2)
        story.move(3)
        story.roll_back(first)
        story.change_last(at=second)
        assert Rule.RESTORES in broken(story)

    @pytest.mark.parametrize("endings", [[], ["AliasMoved", "AliasScheduleRefused"]])
    def test_checker_reports_scheduled_move_without_single_end(self, story: Story, endings: list[str]) -> None:
        story.history.schedules["r0"] = endings
        assert broken(story) == {Rule.SCHEDULED_ENDS_ONCE}

    def test_checker_reports_position_older_than_returned_state(self) -> None:
        story = Story()
        story.move(1)
        story.is_there()
        story.change_last(position=FIRST - 1)
        assert broken(story) == {Rule.POSITION_COVERS}

    def test_checker_reports_rejection_with_unexpected_reason(self, story: Story) -> None:
        story.change_last(outcome=REFUSED, reason="INTERNAL")
        assert Rule.REASON_FITS in broken(story)


class TestLinearizable:
    def test_checker_accepts_any_order_of_concurrent_calls(self) -> None:
        story = Story()
        story.move(1)
        story.move(2, client="bob")
        story.refuse(expected=0, client="cyd")
        for number in range(3):
            story.change(number, called=10 + number, returned=90)
        assert check(story.history) == []

    def test_checker_accepts_read_of_move_with_unknown_outcome(self) -> None:
        story = Story()
        story.move(1)
        story.lose(2, written=True)
        story.is_there("bob")
        assert check(story.history) == []

    def test_checker_reports_read_before_unknown_move_was_called(self) -> None:
        story = Story()
        story.move(1)
        story.lose(2, written=True)
        story.is_there("bob")
        story.change(1, called=100)
        assert Rule.LINEARIZABLE in broken(story)


class TestReads:
    def test_checker_reports_read_of_wrong_version(self) -> None:
        story = Story()
        first = story.move(1)
        story.resolve()
        story.change_last(told=(Held(*CHAMPION, 2, first),))
        assert Rule.READ_IS_TRUE in broken(story)

    @pytest.mark.parametrize("at", [FIRST, FIRST + 1])
    def test_checker_reports_wrong_version_in_the_past(self, at: int) -> None:
        story = Story()
        story.move(1)
        story.move(2)
        story.resolve(at=at)
        story.change_last(at=2 * FIRST + 1 - at)
        assert Rule.READ_IS_TRUE in broken(story)

    def test_checker_reports_not_found_while_alias_was_set(self) -> None:
        story = Story()
        first = story.move(1)
        story.resolve(at=first)
        story.change_last(outcome=REFUSED, reason="ALIAS_NOT_FOUND", told=(), position=0)
        assert Rule.READ_IS_TRUE in broken(story)

    def test_checker_reports_read_older_than_own_write(self) -> None:
        story = Story()
        held = story.held(CHAMPION, story.move(1))
        story.move(2)
        story.resolve("ann")
        story.change_last(told=(held,), position=held.revision)
        assert broken(story) == {Rule.READ_OWN_PAST}

    def test_checker_accepts_read_older_than_write_of_other_client(self) -> None:
        story = Story()
        held = story.held(CHAMPION, story.move(1))
        story.move(2)
        story.resolve("bob")
        story.change_last(told=(held,), position=held.revision)
        assert check(story.history) == []

    def test_checker_reports_not_found_after_own_write(self) -> None:
        story = Story()
        story.move(1)
        story.resolve("ann")
        story.change_last(outcome=REFUSED, reason="ALIAS_NOT_FOUND", told=(), position=0)
        assert Rule.READ_OWN_PAST in broken(story)

    def test_checker_reports_read_of_later_write(self) -> None:
        story = Story()
        story.move(1)
        story.resolve()
        story.change(0, called=50, returned=60)
        assert Rule.READ_NO_FUTURE in broken(story)

    def test_checker_reports_not_found_before_removal_was_called(self) -> None:
        story = Story()
        story.move(1)
        story.remove()
        story.resolve()
        story.change(1, called=50, returned=60)
        story.change_last(client="ann", called=20, returned=25)
        assert Rule.READ_NO_FUTURE in broken(story)


def test_every_rule_has_test_that_breaks_it() -> None:
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_checker*.py"))
    assert [rule.name for rule in Rule if f"Rule.{rule.name}" not in text] == []


def test_checker_accepts_empty_history() -> None:
    assert check(History("nothing")) == []

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


def test_a_good_history_breaks_nothing(story: Story) -> None:
    assert check(story.history) == []


def test_an_unknown_outcome_may_be_written_or_not() -> None:
    for written in (True, False):
        story = Story()
        story.move(1)
        story.lose(2, written=written)
        story.resolve()
        assert check(story.history) == []


def test_a_recorded_history_is_read_as_it_was_written(story: Story, tmp_path: Path) -> None:
    path = tmp_path / "story.jsonl"
    story.history.faults = ["kill nats"]
    write(story.history, path)
    assert read(path) == story.history


class TestMoves:
    def test_an_acknowledged_move_without_an_event(self, story: Story) -> None:
        story.history.events.pop()
        assert Rule.ACKNOWLEDGED_IS_WRITTEN in broken(story)

    def test_a_request_with_two_appends(self) -> None:
        story = Story()
        story.move(1)
        story.move(2)
        story.change_event(1, request_id="r0")
        assert Rule.ONCE in broken(story)

    @pytest.mark.parametrize("outcome", [REFUSED, OK])
    def test_a_request_that_was_not_done_with_an_event(self, outcome: str) -> None:
        story = Story()
        story.move(1)
        story.move(2)
        reason = "WRONG_REVISION" if outcome == REFUSED else ""
        held = (Held(*CHAMPION, 1, FIRST),)
        story.change_last(outcome=outcome, reason=reason, told=held, position=FIRST, moved=False)
        assert Rule.REFUSED_IS_NOT_WRITTEN in broken(story)

    def test_an_event_that_nobody_asked_for(self, story: Story) -> None:
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
    def test_an_answer_that_is_not_the_event(self, fields: dict[str, object]) -> None:
        story = Story()
        story.move(1)
        story.move(2)
        story.change_last(**fields)
        assert Rule.ANSWER_IS_EVENT in broken(story)

    def test_a_release_set_of_which_a_part_was_not_written(self) -> None:
        story = Story()
        story.release(1, 2)
        story.history.events.pop()
        assert Rule.ANSWER_IS_EVENT in broken(story)

    def test_an_unknown_release_set_of_which_a_part_was_not_written(self) -> None:
        story = Story()
        story.release(1, 2)
        story.history.events.pop()
        story.change_last(outcome=UNKNOWN, returned=None, told=(), position=0, moved=False)
        assert broken(story) == {Rule.WHOLE}

    def test_a_release_set_whose_other_target_was_moved_away_just_before(self) -> None:
        story = Story()
        kept = Wanted(*OTHER, 1, story.move_other(1))
        story.move_other(2)
        story.move(3)
        told = (*story.history.operations[-1].told, story.held(OTHER))
        story.change_last(kind="release set", wanted=(Wanted(*CHAMPION, 3), kept), told=told)
        assert {Rule.WHOLE, Rule.LINEARIZABLE} <= broken(story)

    def test_a_release_set_whose_other_target_is_at_another_revision(self) -> None:
        story = Story()
        expected = story.move_other(1)
        story.move_other(2)
        story.move_other(1)
        story.move(3)
        told = (*story.history.operations[-1].told, story.held(OTHER))
        story.change_last(kind="release set", wanted=(Wanted(*CHAMPION, 3), Wanted(*OTHER, 1, expected)), told=told)
        assert {Rule.EXPECTED_REVISION, Rule.LINEARIZABLE} <= broken(story)

    def test_a_release_set_that_had_nothing_to_do_though_it_had(self) -> None:
        story = Story()
        story.move(1)
        story.is_there()
        story.change_last(kind="release set", wanted=(Wanted(*CHAMPION, 2),))
        assert broken(story) == {Rule.WHOLE}

    def test_a_repetition_that_is_answered_otherwise(self) -> None:
        story = Story()
        story.move(1)
        story.repeat_last()
        story.change_last(position=FIRST + 1)
        assert Rule.REPEATED_ALIKE in broken(story)

    def test_an_event_that_starts_from_what_did_not_stand(self) -> None:
        story = Story()
        story.move(1)
        story.move(2)
        story.change_event(1, from_version=0)
        assert Rule.CHAIN in broken(story)

    def test_an_event_that_changes_nothing(self) -> None:
        story = Story()
        story.move(1)
        story.move(1)
        assert Rule.CHAIN in broken(story)

    def test_two_conditional_moves_from_one_revision(self) -> None:
        story = Story()
        first = story.move(1)
        story.move(2, expected=first)
        story.move(3, expected=first, client="bob")
        assert {Rule.EXPECTED_REVISION, Rule.LINEARIZABLE} <= broken(story)

    def test_a_conditional_move_that_had_nothing_to_do_at_another_revision(self) -> None:
        story = Story()
        first = story.move(1)
        story.is_there()
        story.change_last(wanted=(Wanted(*CHAMPION, 1, first - 1),))
        assert Rule.EXPECTED_REVISION in broken(story)

    def test_a_rollback_of_what_was_changed_since(self) -> None:
        story = Story()
        first = story.move(1)
        story.move(2)
        story.roll_back(first)
        story.change_last(since=first)
        assert Rule.EXPECTED_REVISION in broken(story)

    def test_a_conditional_move_of_what_was_never_set(self) -> None:
        story = Story()
        story.move(1, expected=0)
        story.remove()
        story.move(2, expected=0)
        assert check(story.history) == []

    def test_revisions_against_real_time(self) -> None:
        story = Story()
        story.move(1)
        story.move(2)
        story.history.operations[0] = replace(story.history.operations[0], called=100, returned=105)
        assert {Rule.REAL_TIME, Rule.LINEARIZABLE} <= broken(story)

    def test_a_refusal_that_shows_what_was_over(self) -> None:
        story = Story()
        first = story.move(1)
        second = story.move(2)
        story.move(3)
        story.refuse(expected=first)
        story.change_last(told=(Held(*CHAMPION, 2, second),))
        assert {Rule.STATE_WAS_CURRENT, Rule.LINEARIZABLE} <= broken(story)

    def test_a_refusal_that_shows_what_never_was(self) -> None:
        story = Story()
        first = story.move(1)
        story.refuse(expected=first - 1)
        story.change_last(told=(Held(*CHAMPION, 2, first),))
        assert Rule.STATE_WAS_CURRENT in broken(story)

    def test_a_refusal_of_what_was_expected_rightly(self) -> None:
        story = Story()
        story.refuse(expected=story.move(1))
        assert Rule.STATE_WAS_CURRENT in broken(story)

    def test_a_move_to_where_it_was_before(self) -> None:
        story = Story()
        story.move(1)
        story.is_there()
        held = story.history.operations[-1].told
        story.move(2)
        story.is_there()
        story.change_last(told=held)
        assert {Rule.STATE_WAS_CURRENT, Rule.LINEARIZABLE} <= broken(story)

    def test_a_removal_refused_when_there_was_something(self) -> None:
        story = Story()
        story.move(1)
        story.remove()
        story.change_last(outcome=REFUSED, reason="ALIAS_NOT_FOUND", told=(), moved=False, position=0)
        story.history.events.pop()
        assert Rule.STATE_WAS_CURRENT in broken(story)

    def test_a_rollback_to_what_did_not_stand_there(self) -> None:
        story = Story()
        first, second = story.move(1), story.move(2)
        story.move(3)
        story.roll_back(first)
        story.change_event(-1, restored_revision=second)
        assert Rule.RESTORES in broken(story)

    def test_a_rollback_to_another_position_than_asked_for(self) -> None:
        story = Story()
        first, second = story.move(1), story.move(2)
        story.move(3)
        story.roll_back(first)
        story.change_last(at=second)
        assert Rule.RESTORES in broken(story)

    @pytest.mark.parametrize("endings", [[], ["AliasMoved", "AliasScheduleRefused"]])
    def test_a_scheduled_move_that_does_not_end_once(self, story: Story, endings: list[str]) -> None:
        story.history.schedules["r0"] = endings
        assert broken(story) == {Rule.SCHEDULED_ENDS_ONCE}

    def test_a_position_before_what_is_shown(self) -> None:
        story = Story()
        story.move(1)
        story.is_there()
        story.change_last(position=FIRST - 1)
        assert broken(story) == {Rule.POSITION_COVERS}

    def test_a_refusal_for_a_strange_reason(self, story: Story) -> None:
        story.change_last(outcome=REFUSED, reason="INTERNAL")
        assert Rule.REASON_FITS in broken(story)


class TestLinearizable:
    def test_calls_at_once_may_come_in_any_order(self) -> None:
        story = Story()
        story.move(1)
        story.move(2, client="bob")
        story.refuse(expected=0, client="cyd")
        for number in range(3):
            story.change(number, called=10 + number, returned=90)
        assert check(story.history) == []

    def test_an_unknown_move_explains_what_others_saw(self) -> None:
        story = Story()
        story.move(1)
        story.lose(2, written=True)
        story.is_there("bob")
        assert check(story.history) == []

    def test_an_unknown_move_explains_nothing_before_it_was_asked_for(self) -> None:
        story = Story()
        story.move(1)
        story.lose(2, written=True)
        story.is_there("bob")
        story.change(1, called=100)
        assert Rule.LINEARIZABLE in broken(story)


class TestReads:
    def test_another_version_than_stood(self) -> None:
        story = Story()
        first = story.move(1)
        story.resolve()
        story.change_last(told=(Held(*CHAMPION, 2, first),))
        assert Rule.READ_IS_TRUE in broken(story)

    @pytest.mark.parametrize("at", [FIRST, FIRST + 1])
    def test_another_version_than_stood_in_the_past(self, at: int) -> None:
        story = Story()
        story.move(1)
        story.move(2)
        story.resolve(at=at)
        story.change_last(at=2 * FIRST + 1 - at)
        assert Rule.READ_IS_TRUE in broken(story)

    def test_not_set_where_it_was(self) -> None:
        story = Story()
        first = story.move(1)
        story.resolve(at=first)
        story.change_last(outcome=REFUSED, reason="ALIAS_NOT_FOUND", told=(), position=0)
        assert Rule.READ_IS_TRUE in broken(story)

    def test_behind_ones_own_write(self) -> None:
        story = Story()
        held = story.held(CHAMPION, story.move(1))
        story.move(2)
        story.resolve("ann")
        story.change_last(told=(held,), position=held.revision)
        assert broken(story) == {Rule.READ_OWN_PAST}

    def test_behind_anothers_write_is_allowed(self) -> None:
        story = Story()
        held = story.held(CHAMPION, story.move(1))
        story.move(2)
        story.resolve("bob")
        story.change_last(told=(held,), position=held.revision)
        assert check(story.history) == []

    def test_not_set_behind_ones_own_write(self) -> None:
        story = Story()
        story.move(1)
        story.resolve("ann")
        story.change_last(outcome=REFUSED, reason="ALIAS_NOT_FOUND", told=(), position=0)
        assert Rule.READ_OWN_PAST in broken(story)

    def test_what_was_asked_for_later(self) -> None:
        story = Story()
        story.move(1)
        story.resolve()
        story.change(0, called=50, returned=60)
        assert Rule.READ_NO_FUTURE in broken(story)

    def test_not_set_before_the_removal_was_asked_for(self) -> None:
        story = Story()
        story.move(1)
        story.remove()
        story.resolve()
        story.change(1, called=50, returned=60)
        story.change_last(client="ann", called=20, returned=25)
        assert Rule.READ_NO_FUTURE in broken(story)


def test_every_rule_has_a_test_that_breaks_it() -> None:
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_checker*.py"))
    assert [rule.name for rule in Rule if f"Rule.{rule.name}" not in text] == []


def test_an_empty_history_is_good() -> None:
    assert check(History("nothing")) == []

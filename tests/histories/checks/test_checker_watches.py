"""Tests of the checks of watches: every broken guarantee is reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.histories.checks.rules import Rule
from tests.histories.recorded.recording import Step
from tests.histories.recorded.scenario import START, Scenario, altered, broken

FIRST = START + 1


def drop(number: int) -> Callable[[list[Step]], None]:
    return lambda steps: steps.__delitem__(number)


def swap(steps: list[Step]) -> None:
    steps[0], steps[1] = steps[1], steps[0]


class TestWatches:
    """Streams 0 to 2 are a watcher's: one change, the next two appends, the rest; 3 is the SDK's, 4 a snapshot."""

    def test_checker_reports_gap(self, scenario: Scenario) -> None:
        scenario.edit_steps(2, drop(1))
        assert Rule.WATCH_RELIABLE in broken(scenario)

    def test_checker_reports_gap_at_resumption(self, scenario: Scenario) -> None:
        scenario.edit_steps(1, drop(0))
        assert Rule.WATCH_RESUMABLE in broken(scenario)

    def test_checker_reports_change_before_resumed_position(self, scenario: Scenario) -> None:
        scenario.edit_steps(0, drop(1))
        scenario.edit_steps(1, lambda steps: steps.insert(0, scenario.steps(START, FIRST)[0]))
        scenario.edit_steps(0, drop(0))
        assert Rule.WATCH_RESUMABLE in broken(scenario)

    def test_checker_reports_change_repeated_after_resumption(self, scenario: Scenario) -> None:
        scenario.edit_steps(1, lambda steps: steps.insert(0, scenario.steps(START, FIRST)[0]))
        assert Rule.WATCH_UNIQUE in broken(scenario)

    def test_checker_reports_changes_out_of_order(self, scenario: Scenario) -> None:
        scenario.edit_steps(2, swap)
        assert Rule.WATCH_ORDERED in broken(scenario)

    def test_checker_reports_append_split_into_two_steps(self, scenario: Scenario) -> None:
        def split(steps: list[Step]) -> None:
            whole = steps[0]
            assert len(whole.changes) == 2
            steps[:1] = [replace(whole, changes=(change,)) for change in whole.changes]

        scenario.edit_steps(1, split)
        assert Rule.WATCH_ATOMIC in broken(scenario)

    def test_checker_reports_incomplete_append(self, scenario: Scenario) -> None:
        scenario.edit_steps(1, lambda steps: steps.__setitem__(0, replace(steps[0], changes=steps[0].changes[1:])))
        assert Rule.WATCH_ATOMIC in broken(scenario)

    def test_checker_reports_two_appends_in_one_step(self, scenario: Scenario) -> None:
        def join(steps: list[Step]) -> None:
            steps[:2] = [replace(steps[1], changes=steps[0].changes + steps[1].changes)]

        scenario.edit_steps(2, join)
        assert Rule.WATCH_ATOMIC in broken(scenario)

    def test_checker_reports_early_bookmark(self, scenario: Scenario) -> None:
        scenario.edit_steps(2, lambda steps: steps.insert(0, steps[-1]))
        assert {Rule.WATCH_RESUMABLE, Rule.WATCH_BOOKMARKABLE} <= broken(scenario)

    def test_checker_reports_snapshot_of_other_position(self, scenario: Scenario) -> None:
        scenario.edit_steps(4, lambda steps: steps.__setitem__(0, replace(steps[0], position=FIRST)))
        assert Rule.WATCH_SNAPSHOT in broken(scenario)

    def test_checker_reports_missing_snapshot(self, scenario: Scenario) -> None:
        scenario.edit_steps(4, drop(0))
        scenario.edit_steps(4, lambda steps: steps.append(Step("bookmark", scenario.history.goal)))
        assert Rule.WATCH_SNAPSHOT in broken(scenario)

    def test_checker_reports_change_that_differs_from_event(self, scenario: Scenario) -> None:
        def alter(steps: list[Step]) -> None:
            steps[0] = replace(steps[0], changes=(altered(steps[0].changes[0], to_version=9),))

        scenario.edit_steps(0, alter)
        assert broken(scenario) == {Rule.WATCH_TRUE}

    def test_checker_reports_watch_that_does_not_catch_up(self, scenario: Scenario) -> None:
        scenario.edit_steps(2, lambda steps: steps.clear())
        assert broken(scenario) == {Rule.WATCH_COMES_THROUGH}

    def test_checker_reports_gap_of_sdk_watch(self, scenario: Scenario) -> None:
        scenario.edit_steps(3, drop(1))
        assert broken(scenario) == {Rule.WATCH_RELIABLE}

    def test_checker_reports_repeated_change_of_sdk_watch(self, scenario: Scenario) -> None:
        scenario.edit_steps(3, lambda steps: steps.insert(0, steps[0]))
        assert broken(scenario) == {Rule.WATCH_UNIQUE}

    def test_checker_reports_wrong_order_of_sdk_watch(self, scenario: Scenario) -> None:
        scenario.edit_steps(3, swap)
        assert broken(scenario) == {Rule.WATCH_ORDERED}

    def test_checker_reports_altered_change_of_sdk_watch(self, scenario: Scenario) -> None:
        def alter(steps: list[Step]) -> None:
            steps[0] = replace(steps[0], changes=(altered(steps[0].changes[0], to_version=9),))

        scenario.edit_steps(3, alter)
        assert broken(scenario) == {Rule.WATCH_TRUE}

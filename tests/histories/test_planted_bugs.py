"""The histories find bugs: each that is put in on purpose is caught, under the name of the promise that it breaks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.histories import bugs
from tests.histories.checker import check
from tests.histories.rules import Rule
from tests.histories.run import Recorder
from tests.histories.system import two_writers

SEEDS = range(1, 7)
FAULTS = ["pause service", "nothing"]

CAUGHT_AS: Mapping[str, set[Rule]] = {
    bugs.append_without_expected_revision.__name__: {Rule.CHAIN, Rule.EXPECTED_REVISION, Rule.LINEARIZABLE},
    bugs.watch_loses_a_change_on_resume.__name__: {Rule.WATCH_RESUMABLE},
    bugs.watch_repeats_after_reconnect.__name__: {Rule.WATCH_UNIQUE},
    bugs.read_ignores_min_position.__name__: {Rule.READ_OWN_PAST},
    bugs.read_answers_stale_state.__name__: {Rule.READ_IS_TRUE},
    bugs.request_id_is_ignored.__name__: {Rule.ONCE},
    bugs.watch_splits_an_append.__name__: {Rule.WATCH_ATOMIC},
    bugs.names_are_taken_twice.__name__: {Rule.NAME_IS_ONES, Rule.GOES_ON},
}


@pytest.mark.parametrize("bug", CAUGHT_AS)
def test_a_bug_is_caught(bug: str, tmp_path: Path) -> None:
    missing = set(CAUGHT_AS[bug])
    with two_writers(tmp_path, bug) as system:
        recorder = Recorder(system)
        for seed in SEEDS:
            missing -= {violation.rule for violation in check(recorder.record(seed, FAULTS))}
            if not missing:
                return
    pytest.fail(f"{len(SEEDS)} histories did not show that {bug} breaks {missing}")


def test_events_that_are_heard_late_break_nothing(tmp_path: Path) -> None:
    with two_writers(tmp_path, bugs.slow_subscriptions.__name__) as system:
        recorder = Recorder(system)
        assert [check(recorder.record(seed, FAULTS)) for seed in SEEDS[:2]] == [[], []]


def test_every_bug_is_looked_for() -> None:
    assert bugs.BUGS.keys() == CAUGHT_AS.keys() | {bugs.slow_subscriptions.__name__}

"""The histories catch planted bugs: some here, all with `make histories ARGS=--bugs`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.histories.bugs.catalogue import BUGS
from tests.histories.checks.checker import check
from tests.histories.run import Recorder
from tests.histories.systems.shapes import SHAPES

pytestmark = pytest.mark.busy

HISTORIES = 6
SOME = (
    "release_set_in_two_appends",
    "request_id_is_ignored",
    "rows_miss_changes",
    "batches_are_forgotten",
    "webhook_skips_a_change",
    "gates_are_skipped",
)


@pytest.mark.parametrize("name", SOME)
def test_checker_catches_planted_bug(name: str, tmp_path: Path) -> None:
    bug = BUGS[name]
    with SHAPES[bug.shape](tmp_path, name) as system:
        recorder = Recorder(system)
        for seed in range(1, HISTORIES + 1):
            if {violation.rule for violation in check(recorder.record(seed, bug.faults))} & bug.breaks:
                return
    pytest.fail(f"{HISTORIES} histories did not show that {name} breaks {sorted(bug.breaks)}")


def test_delayed_events_break_no_rule(tmp_path: Path) -> None:
    bug = BUGS["slow_subscriptions"]
    with SHAPES[bug.shape](tmp_path, "slow_subscriptions") as system:
        assert check(Recorder(system).record(1, bug.faults)) == []


def test_every_rule_has_planted_bug() -> None:
    assert len({bug.promise for bug in BUGS.values()}) == len(BUGS)
    assert [name for name, bug in BUGS.items() if not bug.breaks] == ["slow_subscriptions"]

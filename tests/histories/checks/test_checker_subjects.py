"""Tests of the checks of tracking, webhooks, gates, listings, times and losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.histories.checks.checker import check
from tests.histories.checks.rules import Rule
from tests.histories.recorded.recording import (
    OK,
    REFUSED,
    UNKNOWN,
    Assignment,
    Event,
    History,
    Intent,
    Named,
    Naming,
    Operation,
)
from tests.histories.recorded.subjects import (
    Delivery,
    Endpoint,
    EvidenceCheck,
    Failure,
    GateEvent,
    GateMove,
    IndexScan,
    Loss,
    PointBatch,
    PointRead,
    Rebuild,
    Run,
    Threshold,
)

CLOCK = 1_000_000_000_000_000
SECOND = 1_000_000_000
EPOCH = {"epochs begun": "1", "old position": "LOG_EPOCH_CHANGED", "watched": "True"}
WHOLE = {"revision before": "9", "revision after it was put back": "9", "watched": "True"}


def valid_history() -> History:
    """Return a history in which each subject did something right."""
    history = History("h", clock=CLOCK)
    _add_moves(history)
    _add_points(history)
    _add_deliveries(history)
    _add_gates(history)
    _add_listings(history)
    history.rebuilds = [Rebuild("registry", "a", "a")]
    history.losses = [
        Loss("lost tail", 9, refused=True, reason="LOG_LOST", kept_rows=True, accepted=True, steps=EPOCH),
        Loss("lost log", 9, refused=True, reason="LOG_LOST", kept_rows=True, accepted=False, steps=WHOLE),
    ]
    return history


def _add_moves(history: History) -> None:
    for number, version in enumerate((1, 2, 3), 1):
        called, assigned = number * 10 * SECOND, Assignment("h-a", "champion", version, number)
        wanted, time = (Intent("h-a", "champion", version),), CLOCK + called + 1
        answer: dict[str, Any] = {"moved": True, "told": (assigned,), "position": number, "time": time}
        move = Operation("ann", "move", wanted, called, called + 2, OK, f"r{number}", **answer)
        history.operations.append(move)
        before = version - 1
        event = Event(number, number, f"e{number}", "h-a", "champion", before, version, "ann", f"r{number}")
        history.events.append(replace(event, time=time, append_time=time))
    second = history.events[1]
    resolve = Operation("bob", "resolve at time", (Intent("h-a", "champion"),), 50 * SECOND, 51 * SECOND, OK)
    seen = replace(
        resolve, told=(Assignment("h-a", "champion", 2, 2),), position=2, at_time=second.time, time=second.time
    )
    history.operations.append(seen)


def _add_points(history: History) -> None:
    history.batches = [
        PointBatch("run", "loss", 0, 3, "b1", 10, 20, OK),
        PointBatch("run", "loss", 3, 2, "b2", 30, None, UNKNOWN),
        PointBatch("run", "loss", 5, 1, "b3", 40, 50, OK),
        PointBatch("job", "loss", 0, 2, "b4", 10, 20, OK),
    ]
    history.point_reads = [
        PointRead("run", "loss", (0, 1, 2, 5), (0.0, 1.0, 2.0, 5.0), 60, 70, is_last=True),
        PointRead("job", "loss", (0, 1), (0.0, 1.0), 60, 70, is_last=True),
    ]
    running = "RUN_STATUS_RUNNING"
    history.runs = [
        Run("run", running, {"loss": 4}),
        Run("job", running, {"loss": 2}, by_sdk=True, is_delivered=True),
    ]


def _add_deliveries(history: History) -> None:
    history.endpoints = [Endpoint("w", "h-a", 0)]
    history.deliveries = [
        Delivery("w", one.event_id, one.position, one.revision, one.model, one.alias, one.from_version, one.to_version,
                 one.time, is_signed=True)
        for one in (history.events[0], history.events[1], history.events[0], history.events[1], history.events[2])
    ]  # fmt: skip


def _add_gates(history: History) -> None:
    history.thresholds = [Threshold(10, 0.5), Threshold(13, None)]
    history.gate_moves = [
        GateMove("gus", "g1", 1, 0.2, 10, 10, 20, REFUSED, "GATE_FAILED"),
        GateMove("gus", "g1", 1, 0.2, 10, 30, 40, REFUSED, "GATE_FAILED"),
        GateMove("gus", "g2", 2, 0.9, 10, 50, 60, OK, position=12),
        GateMove("gus", "g3", 1, 0.2, 13, 70, 80, OK, position=14),
    ]
    history.gate_events = [
        GateEvent(11, "g1", 1, is_refused=True, policy_revision=10, seen=(0.2,), passed=(False,)),
        GateEvent(12, "g2", 2, is_refused=False, policy_revision=10, seen=(0.9,), passed=(True,)),
        GateEvent(14, "g3", 1, is_refused=False, policy_revision=13),
    ]
    history.evidence_checks = [EvidenceCheck(2)]


def _add_listings(history: History) -> None:
    history.named = [
        Named(1, 1, "created", "h-n0", "h-n0", "", 0, "n0"),
        Named(2, 3, "renamed", "h-n0", "h-n1", "h-n0", 0, "n1"),
        Named(3, 3, "taken", "h-n0", "h-n1", "", 0, "n1"),
    ]
    history.namings = [
        Naming("nan", "create", "h-n0", "", "n0", 10, 20, OK, position=1),
        Naming("nan", "rename", "h-n0", "h-n1", "n1", 30, 40, OK, position=3),
    ]
    history.walks = [
        IndexScan("models", 22, 25, ("h-n0",), ("h-n0",)),
        IndexScan("models", 50, 60, ("h-n1",), ("h-n0", "h-n1")),
        IndexScan("runs", 50, 60, ("x", "y"), ("x",)),
        IndexScan("history", 50, 60, ("3@champion", "2@champion", "1@champion"), ("1@champion",)),
    ]


def broken(history: History) -> set[Rule]:
    """Return the rules that a history breaks."""
    return {violation.rule for violation in check(history)}


def test_checker_accepts_valid_records() -> None:
    assert check(valid_history()) == []


def _edit(name: str, number: int, **fields: Any) -> Callable[[History], None]:
    def edit(history: History) -> None:
        records = getattr(history, name)
        records[number] = replace(records[number], **fields)

    return edit


def _remove(name: str, number: int) -> Callable[[History], None]:
    return lambda history: getattr(history, name).pop(number)


def _swap_deliveries(history: History) -> None:
    history.deliveries = [*history.deliveries, history.deliveries[2], history.deliveries[4]]


BREAKS: Mapping[str, tuple[Callable[[History], object], Rule]] = {
    "an unexpected error": (lambda history: history.failures.append(Failure("x", "y")), Rule.NO_FAILURE),
    "a time before the call": (_edit("events", 0, time=CLOCK), Rule.TIME_IS_SERVERS),
    "a time that goes back": (_edit("events", 2, time=CLOCK + 5 * SECOND), Rule.TIME_IS_SERVERS),
    "another time in the answer": (_edit("operations", 0, time=7), Rule.TIME_IS_SERVERS),
    "another position for a time": (_edit("operations", 3, position=3), Rule.READ_IS_TRUE),
    "an acknowledged batch lost": (
        _edit("point_reads", 0, steps=(0, 1, 2), values=(0.0, 1.0, 2.0)),
        Rule.POINTS_COMPLETE,
    ),
    "a journal not delivered": (_edit("runs", 1, is_delivered=False), Rule.POINTS_COMPLETE),
    "a point twice": (_edit("point_reads", 1, steps=(0, 1, 1), values=(0.0, 1.0, 1.0)), Rule.POINTS_ONCE_IN_ORDER),
    "points out of order": (_edit("point_reads", 1, steps=(1, 0), values=(1.0, 0.0)), Rule.POINTS_ONCE_IN_ORDER),
    "a part of a batch": (
        _edit("point_reads", 0, steps=(0, 1, 2, 3, 5), values=(0.0, 1.0, 2.0, 3.0, 5.0)),
        Rule.POINTS_ATOMIC,
    ),
    "another value": (_edit("point_reads", 1, values=(0.0, 7.0)), Rule.POINTS_ARE_TRUE),
    "a point that nobody logged": (
        _edit("point_reads", 0, steps=(0, 1, 2, 5, 9), values=(0.0, 1.0, 2.0, 5.0, 9.0)),
        Rule.POINTS_ARE_TRUE,
    ),
    "a wrong summary": (_edit("runs", 0, counts={"loss": 5}), Rule.POINTS_ARE_TRUE),
    "a run that is lost": (_edit("runs", 0, status="RUN_STATUS_LOST"), Rule.RUN_IS_ALIVE),
    "a delivery missing at the end": (_remove("deliveries", 4), Rule.WEBHOOK_COMPLETE),
    "a delivery missing in between": (
        lambda history: setattr(history, "deliveries", [history.deliveries[0], history.deliveries[4]]),
        Rule.WEBHOOK_COMPLETE,
    ),
    "deliveries out of order": (_swap_deliveries, Rule.WEBHOOK_ORDERED),
    "a delivery with another version": (_edit("deliveries", 0, to_version=9), Rule.WEBHOOK_TRUE),
    "a delivery that is not signed": (_edit("deliveries", 0, is_signed=False), Rule.WEBHOOK_SIGNED),
    "a move past its gate": (_edit("thresholds", 0, score=0.95), Rule.GATE_DECIDES),
    "a policy that the client knew": (_edit("gate_moves", 2, seen=11), Rule.GATE_DECIDES),
    "a refused move that is made": (_edit("gate_moves", 1, outcome=OK, reason=""), Rule.REFUSAL_STAYS),
    "a refusal without its event": (_remove("gate_events", 0), Rule.REFUSAL_STAYS),
    "other evidence": (_edit("gate_events", 1, seen=(0.8,)), Rule.EVIDENCE_IS_TRUE),
    "evidence that does not recompute": (_edit("evidence_checks", 0, unfounded=(12,)), Rule.EVIDENCE_RECOMPUTES),
    "evidence that is not looked at": (_edit("evidence_checks", 0, evidence=1), Rule.EVIDENCE_RECOMPUTES),
    "an entry that is missing": (_edit("walks", 2, entries=("y",)), Rule.LISTING_COMPLETE),
    "an entry twice": (_edit("walks", 2, entries=("x", "x")), Rule.LISTING_UNIQUE),
    "an entry that never was": (_edit("walks", 0, entries=("h-n0", "h-n7")), Rule.LISTING_TRUE),
    "a walk out of order": (
        _edit("walks", 3, entries=("1@champion", "2@champion", "3@champion")),
        Rule.LISTING_ORDERED,
    ),
    "a rebuild that differs": (_edit("rebuilds", 0, rebuilt="b"), Rule.ROWS_EQUAL_REBUILD),
    "a loss that is not refused": (_edit("losses", 0, refused=False), Rule.LOSS_IS_REFUSED),
    "a loss that costs the rows": (_edit("losses", 1, kept_rows=False), Rule.LOSS_IS_REFUSED),
    "an old position that counts": (_edit("losses", 0, steps={**EPOCH, "old position": ""}), Rule.EPOCH_IS_NEW),
    "two epochs": (_edit("losses", 0, steps={**EPOCH, "epochs begun": "2"}), Rule.EPOCH_IS_NEW),
    "a watch that stays in the old epoch": (
        _edit("losses", 0, steps={**EPOCH, "watched": "False"}),
        Rule.WATCH_COMES_THROUGH,
    ),
    "a move lost with the whole log": (
        _edit("losses", 1, steps={**WHOLE, "revision after it was put back": "8"}),
        Rule.ACKNOWLEDGED_IS_WRITTEN,
    ),
    "a rebuild that fails": (_edit("rebuilds", 0, reason="REBUILD_DIFFERS"), Rule.ROWS_EQUAL_REBUILD),
}


@pytest.mark.parametrize("name", BREAKS)
def test_checker_reports_broken_rule(name: str) -> None:
    edit, rule = BREAKS[name]
    history = valid_history()
    edit(history)
    assert rule in broken(history)


def test_checker_reports_only_failures_of_incomplete_history() -> None:
    history = valid_history()
    history.is_whole = False
    history.failures.append(Failure("recorder", "AssertionError"))
    history.deliveries = []
    assert broken(history) == {Rule.NO_FAILURE}

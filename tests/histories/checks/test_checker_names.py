"""Tests of the checks of names: they accept valid histories and report every broken rule."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.histories.checks.checker import check
from tests.histories.checks.rules import Rule
from tests.histories.recorded.recording import OK, REFUSED, UNKNOWN, History, Named, Naming
from tests.histories.recorded.storage import read, write


def named(position: int, kind: str, origin: str, name: str, was: str = "", **more: object) -> Named:
    """Return an event, by default in an append of its own."""
    about = {"revision": position, "version": 0, "request_id": f"r{position}", **more}
    return Named(position=position, kind=kind, origin=origin, name=name, was=was, **about)  # type: ignore[arg-type]


def naming(number: int, kind: str, name: str, to_name: str = "", outcome: str = OK, **more: object) -> Naming:
    """Return a request that was answered at once, before the next one."""
    times = {"called": number * 10, "returned": number * 10 + 5 if outcome != UNKNOWN else None}
    position = number if outcome == OK else 0
    about = {"position": position, **times, **more}
    return Naming("ann", kind, name, to_name, f"r{about.pop('key', number)}", outcome=outcome, **about)  # type: ignore[arg-type]


@pytest.fixture
def history() -> History:
    """Return a history: a is created and becomes b, c is registered; late requests are rejected."""
    made = [
        named(1, "created", "a", "a"),
        named(2, "renamed", "a", "b", "a", revision=3, request_id="r3"),
        named(3, "taken", "a", "b"),
        named(4, "created", "c", "c", revision=5, request_id="r5"),
        named(5, "registered", "c", "c", "c", version=1),
        named(6, "registered", "a", "b", "b", version=1),
    ]
    asked = [
        naming(1, "create", "a"),
        naming(2, "rename", "x", "y", REFUSED, reason="MODEL_NOT_FOUND"),
        naming(3, "rename", "a", "b"),
        naming(5, "register", "c", version=1),
        naming(6, "register", "b", version=1),
        naming(7, "create", "b", outcome=REFUSED, reason="MODEL_EXISTS"),
        naming(8, "rename", "c", "b", REFUSED, reason="MODEL_EXISTS"),
        naming(9, "register", "a", outcome=REFUSED, reason="MODEL_RENAMED"),
        naming(10, "create", "z", outcome=UNKNOWN),
    ]
    return History("names", namings=asked, named=made)


def broken(history: History) -> set[Rule]:
    """Return the rules that a history breaks."""
    return {violation.rule for violation in check(history)}


def test_checker_accepts_valid_names(history: History) -> None:
    assert check(history) == []


def test_names_survive_write_and_read(history: History, tmp_path: Path) -> None:
    history.stuck = "projection registry failed"
    write(history, tmp_path / "names.jsonl")
    assert read(tmp_path / "names.jsonl") == history


@pytest.mark.parametrize(
    "stray",
    [
        named(7, "created", "b", "b"),
        named(7, "taken", "c", "b"),
        named(7, "registered", "b", "b", "b", version=1),
        named(7, "renamed", "c", "b", "c"),
        named(7, "renamed", "a", "d", "a"),
    ],
    ids=str,
)
def test_checker_reports_name_of_two_models(history: History, stray: Named) -> None:
    history.named.append(stray)
    assert Rule.NAME_IS_ONES in broken(history)


def test_checker_reports_stuck_services(history: History) -> None:
    history.stuck = "projection registry failed"
    assert broken(history) == {Rule.GOES_ON}


def test_checker_reports_event_without_request(history: History) -> None:
    history.named.append(named(11, "created", "e", "e"))
    assert broken(history) == {Rule.ASKED_FOR}


def test_checker_reports_skipped_version_number(history: History) -> None:
    history.named[-1] = replace(history.named[-1], version=2)
    assert Rule.CHAIN in broken(history)


@pytest.mark.parametrize(
    ("number", "changes", "rule"),
    [
        (0, {"request_id": "another"}, Rule.ACKNOWLEDGED_IS_WRITTEN),
        (0, {"outcome": REFUSED, "reason": "MODEL_EXISTS", "position": 0}, Rule.REFUSED_IS_NOT_WRITTEN),
        (0, {"position": 2}, Rule.ANSWER_IS_EVENT),
        (0, {"name": "b"}, Rule.ANSWER_IS_EVENT),
        (3, {"version": 2}, Rule.ANSWER_IS_EVENT),
        (5, {"name": "free"}, Rule.REASON_FITS),
        (5, {"reason": "NAME_TAKEN"}, Rule.REASON_FITS),
        (1, {"name": "a"}, Rule.REASON_FITS),
        (7, {"name": "b"}, Rule.REASON_FITS),
    ],
    ids=str,
)
def test_checker_reports_response_that_does_not_match(
    history: History, number: int, changes: dict[str, object], rule: Rule
) -> None:
    history.namings[number] = replace(history.namings[number], **changes)  # type: ignore[arg-type]
    assert rule in broken(history)


def test_checker_reports_request_with_two_appends(history: History) -> None:
    history.named[-1] = replace(history.named[-1], request_id="r5")
    assert Rule.ONCE in broken(history)

"""Times as people type them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from rollforward.cli.times import read_duration, read_point, read_time

NOW = datetime(2026, 11, 30, 18, 30, 15, 500_000, tzinfo=UTC)


@pytest.fixture(params=["UTC", "Europe/Berlin", "America/St_Johns"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The zone of the machine."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield str(request.param)
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("now", "2026-11-30T18:30:15.500000Z"),
        ("2h", "2026-11-30T16:30:15.500000Z"),
        ("2h ago", "2026-11-30T16:30:15.500000Z"),
        ("-90s", "2026-11-30T18:28:45.500000Z"),
        ("1d12h", "2026-11-29T06:30:15.500000Z"),
        ("2w", "2026-11-16T18:30:15.500000Z"),
        ("in 30m", "2026-11-30T19:00:15.500000Z"),
        ("+30m", "2026-11-30T19:00:15.500000Z"),
        ("1700000000000", "2023-11-14T22:13:20.000000Z"),
    ],
)
def test_durations_and_milliseconds(text: str, read: str) -> None:
    assert read_time(text, now=NOW) == read


def test_a_duration_of_what_is_to_come_lies_ahead() -> None:
    assert read_time("2h", future=True, now=NOW) == "2026-11-30T20:30:15.500000Z"
    assert read_time("2h ago", future=True, now=NOW) == "2026-11-30T16:30:15.500000Z"


@pytest.mark.parametrize("text", ["2026-11-03T14:00Z", "2026-11-03T14:00:00.5+02:00"])
def test_a_time_with_its_zone_stays_as_it_is(text: str) -> None:
    assert read_time(text) == text


@pytest.mark.parametrize("text", ["2026-11-03", "2026-11-03T14:00", "2026-11-03 14:00:30", "yesterday", "tomorrow"])
def test_what_has_no_zone_is_in_the_zone_of_the_machine(text: str, zone: str) -> None:
    read = datetime.fromisoformat(read_time(text, now=NOW))
    local = read.astimezone()
    days = {"yesterday": -1, "tomorrow": 1}
    if text in days:
        day = (NOW.astimezone() + timedelta(days=days[text])).date()
        assert (local.date(), local.hour, local.minute) == (day, 0, 0)
    else:
        assert local.replace(tzinfo=None) == datetime.fromisoformat(text)


@pytest.mark.parametrize(
    "text", ["someday", "2h30", "h", "", "2026-13-01", "99999999999999d", "12", "2026-11-03T25:00"]
)
def test_what_is_no_time_is_left_for_the_sdk_to_refuse(text: str) -> None:
    assert read_time(text, now=NOW) == text


def test_a_point_may_be_a_revision() -> None:
    assert read_point("17") == "17"
    assert read_point("1700000000000") == "1700000000000"
    assert read_point("2026-11-03T14:00Z") == "2026-11-03T14:00Z"


def test_a_span_has_units() -> None:
    assert read_duration("1h30m") == timedelta(hours=1, minutes=30)
    assert read_duration("1h30") is None

"""Times on the command line."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from rollforward.cli.times import read_duration, read_point, read_time

NOW = datetime(2026, 11, 30, 18, 30, 15, 500_000, tzinfo=UTC)


@pytest.fixture(params=["UTC", "Europe/Berlin", "America/St_Johns"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Set the machine's time zone."""
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
def test_durations_and_milliseconds_are_parsed(text: str, read: str) -> None:
    assert read_time(text, now=NOW) == read


def test_duration_of_a_future_time_counts_forward() -> None:
    assert read_time("2h", future=True, now=NOW) == "2026-11-30T20:30:15.500000Z"
    assert read_time("2h ago", future=True, now=NOW) == "2026-11-30T16:30:15.500000Z"


@pytest.mark.parametrize("text", ["2026-11-03T14:00Z", "2026-11-03T14:00:00.5+02:00"])
def test_time_with_a_zone_is_unchanged(text: str) -> None:
    assert read_time(text) == text


@pytest.mark.parametrize("text", ["2026-11-03", "2026-11-03T14:00", "2026-11-03 14:00:30", "yesterday", "tomorrow"])
def test_time_without_a_zone_is_in_the_machines_zone(text: str, zone: str) -> None:
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
def test_invalid_time_is_passed_to_the_sdk(text: str) -> None:
    assert read_time(text, now=NOW) == text


def test_point_may_be_a_revision() -> None:
    assert read_point("17") == "17"
    assert read_point("1700000000000") == "1700000000000"
    assert read_point("2026-11-03T14:00Z") == "2026-11-03T14:00Z"


def test_duration_is_parsed_by_its_units() -> None:
    assert read_duration("1h30m") == timedelta(hours=1, minutes=30)
    assert read_duration("1h30") is None

"""How long is waited between two requests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from services.webhooks.receiver import _seconds, pause_after


def test_pauses_begin_short_double_and_end_at_a_minute() -> None:
    for attempts, longest in [(1, 0.5), (2, 1.0), (3, 2.0), (7, 32.0), (8, 60.0), (100_000, 60.0)]:
        pauses = [pause_after(attempts, None) for _ in range(100)]
        assert 0.75 * longest <= min(pauses) < max(pauses) <= longest


def test_an_endpoint_may_ask_for_up_to_an_hour() -> None:
    assert [pause_after(1, asked) for asked in (0.0, 7.0, 3600.0, 1e6)] == [0.5, 7.0, 3600.0, 3600.0]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("", None), ("120", 120.0), ("0", 0.0), ("-1", None), ("soon", None), ("9" * 30, 999_999_999.0), ("²", None)],
)
def test_seconds_are_read_and_what_is_none_is_ignored(header: str, seconds: float | None) -> None:
    assert _seconds(header) == seconds


def test_a_date_is_read() -> None:
    soon = _seconds(format_datetime(datetime.now(UTC) + timedelta(minutes=2), usegmt=True))
    assert soon is not None
    assert 110 < soon <= 120
    assert _seconds(format_datetime(datetime.now(UTC) - timedelta(minutes=2), usegmt=True)) == 0.0

"""Parsers of times: RFC 3339, a date, a duration, "yesterday", or milliseconds since 1970."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_LOCAL: Final = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?", re.ASCII)
_MILLISECONDS: Final = re.compile(r"-?\d{9,14}", re.ASCII)
_DURATION: Final = re.compile(r"(?:\d+[smhdw])+", re.ASCII)
_PART: Final = re.compile(r"(\d+)([smhdw])", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DAYS: Final = {"yesterday": -1, "today": 0, "tomorrow": 1}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def read_time(text: str, *, future: bool = False, now: datetime | None = None) -> str:
    """Return a time as RFC 3339.

    A time or date without a zone is in this machine's zone; a date means its start. A duration such as "2h" or "1d12h"
    is before now, or after now with `future`; "2h ago" and "in 2h" are explicit. Any other text is returned unchanged,
    for the SDK to parse or reject.
    """
    moment = _moment(text.strip(), future, now or datetime.now(UTC))
    return text.strip() if moment is None else _rfc3339(moment)


def read_point(text: str) -> str:
    """Return a revision unchanged, or a time as `read_time` does."""
    return text if text.isascii() and text.isdigit() else read_time(text)


def read_duration(text: str) -> timedelta | None:
    """Parse a duration such as "90s", "1d12h" or "2w"; return None if it is invalid or out of range."""
    if not _DURATION.fullmatch(text):
        return None
    try:
        return timedelta(seconds=sum(int(number) * _SECONDS[unit] for number, unit in _PART.findall(text)))
    except OverflowError:
        return None


def _moment(text: str, future: bool, now: datetime) -> datetime | None:
    lowered = text.lower()
    try:
        if lowered == "now":
            return now
        if lowered in _DAYS:
            return _midnight(now.astimezone() + timedelta(days=_DAYS[lowered]))
        if _DATE.fullmatch(text) or _LOCAL.fullmatch(text):
            return datetime.fromisoformat(text).astimezone()
        if _MILLISECONDS.fullmatch(text):
            return _EPOCH + timedelta(milliseconds=int(text))
        return _relative(lowered, future, now)
    except (ValueError, OverflowError):
        return None


def _relative(text: str, future: bool, now: datetime) -> datetime | None:
    forward = future
    if text.endswith(" ago") or text.startswith("-"):
        text, forward = text.removesuffix(" ago").removeprefix("-"), False
    elif text.startswith(("in ", "+")):
        text, forward = text.removeprefix("in ").removeprefix("+"), True
    span = read_duration(text)
    return None if span is None else now + span if forward else now - span


def _midnight(moment: datetime) -> datetime:
    # The zone's offset may change within a day, so compute it again for midnight.
    return moment.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None).astimezone()


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")

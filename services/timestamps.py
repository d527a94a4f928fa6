"""Times: nanoseconds since 1970 in logs and rows, protobuf timestamps in the contract."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from eventstore import Kind, Rejected

_SECOND = 1_000_000_000
_EARLIEST, _LATEST = -(2**63), 2**63 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# RFC 3339, the seconds optional.
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(?::\d\d)?)(?:(?<=:\d\d:\d\d)\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)


def timestamp(time_ns: int) -> Timestamp:
    """Return nanoseconds since 1970 as a protobuf timestamp."""
    result = Timestamp()
    result.FromNanoseconds(time_ns)
    return result


def nanoseconds(time: Timestamp) -> int:
    """Return a protobuf timestamp as nanoseconds since 1970.

    Raises:
        Rejected: INVALID_TIME when they are more than 64 bits hold (the years 1677 to 2262), or it is no timestamp.
    """
    result = time.seconds * _SECOND + time.nanos
    if not (0 <= time.nanos < _SECOND and _EARLIEST <= result <= _LATEST):
        message = f"invalid time {time.seconds} s and {time.nanos} ns: expected a year from 1677 to 2262"
        raise Rejected(Kind.INVALID, "INVALID_TIME", message)
    return result


def parse_time(text: str) -> int | None:
    """Return the nanoseconds since 1970 of a time in RFC 3339, whose seconds may be left out; None for another text."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    clock, fraction, zone = match.groups()
    try:
        moment = datetime.fromisoformat(f"{clock}{zone.upper()}")
    except ValueError:
        return None
    return (moment - _EPOCH) // timedelta(seconds=1) * _SECOND + int((fraction or "").ljust(9, "0"))

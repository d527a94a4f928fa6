"""Decode stored messages in the form in which this program writes them, in one match of their headers.

A rebuild spends most of its time on headers. Whatever does not have this form is left to `eventstore.cloudevents`,
which reads headers in any order: both give the same event.
"""

from __future__ import annotations

import re
from datetime import datetime
from functools import lru_cache
from urllib.parse import unquote

from eventstore.codec import EventTypes
from eventstore.errors import UnknownEventType
from eventstore.event import Metadata, RecordedEvent
from eventstore.jetstream.appending.whole_appends import append_of
from eventstore.jetstream.subjects import stream_of

_SECOND = 1_000_000_000
_EXTENSIONS = ("actor", "reason", "requestid", "requestdigest", "correlationid", "causationid", "traceparent")
_VALUE = r"[!-~]{1,500}"


def _header(name: str, value: str = r"[ -~]*") -> str:
    return rf"{name}: {value}\r\n"


def _optional(*headers: str) -> str:
    return "".join(f"(?:{header})?" for header in headers)


_STORED = re.compile(
    r"NATS/1\.0\r\n"
    + _header("ce-specversion", r"1\.0")
    + _header("ce-id", rf"({_VALUE})")
    + _header("ce-type", r"([\w.]+)")
    + _header("ce-source")
    + _header("ce-subject", r"([!-~]*)")
    + _header("ce-time")
    + _header("ce-dataschema")
    + _header("content-type")
    + _optional(*(_header(f"ce-{name}", r"([!-~]+)" if name == "reason" else f"({_VALUE})") for name in _EXTENSIONS))
    + _header("Nats-Msg-Id")
    + _optional(_header("Nats-Expected-Last-Subject-Sequence"), _header("Nats-Expected-Last-Sequence"))
    + _optional(_header("Nats-Batch-Id", r"([!-~]+)"), _header("Rf-Events-Behind", r"(\d+)"))
    + _optional(_header("Nats-Batch-Sequence"), _header("Nats-Batch-Commit"))
    + _header("Nats-Stream")
    + _header("Nats-Subject", r"([!-~]+)")
    + _header("Nats-Sequence", r"(\d+)")
    + _header("Nats-Time-Stamp", r"([\d-]{10}T[\d:]{8})(?:\.(\d{1,9}))?Z")
    + _optional(_header("Nats-Num-Pending"), _header("Nats-Last-Sequence"))
    + r"\r\n"
)


def decode_stored(block: bytes, payload: bytes, log: str, types: EventTypes) -> RecordedEvent | None:
    """Return the event of a direct get's answer; None when its headers do not have the form that is written.

    Args:
        block: The headers as they came, with the line before and the empty line behind them.
        payload: The event's bytes.
        log: The log's name.
        types: What the log may hold.
    """
    match = _STORED.fullmatch(block.decode("latin-1"))
    if match is None:
        return None
    event_id, name, written, *values, batch_id, behind, subject, position, seconds, fraction = match.groups("")
    if "%" in event_id or "%" in "".join(values):
        event_id, *values = [unquote(value) for value in (event_id, *values)]
        if "\0" in event_id or any("\0" in value for value in values):
            return None
    stream = _stream(log, subject, written)
    if stream is None:
        return None
    try:
        data = types.decode(name, payload)
    except UnknownEventType:
        return None
    place = int(position)
    end, append_id = (
        append_of({"Rf-Events-Behind": behind, "Nats-Batch-Id": batch_id}, place) if behind else (place, "")
    )
    time = _seconds(seconds) * _SECOND + int(fraction.ljust(9, "0"))
    return RecordedEvent(stream, place, time, event_id, data, Metadata(*values), end, append_id)


@lru_cache(maxsize=4096)
def _stream(log: str, subject: str, written: str) -> str | None:
    """Return the stream of a subject, None when the event's own subject names another, or none that rows take."""
    stream = stream_of(log, subject)
    return None if unquote(written) != stream or "\0" in stream else stream


@lru_cache(maxsize=64)
def _seconds(text: str) -> int:
    return int(datetime.fromisoformat(f"{text}+00:00").timestamp())

"""The envelope on the wire: CloudEvents 1.0 attributes as NATS headers, in binary content mode.

Source: https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/nats-protocol-binding.md
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, unquote

from google.protobuf.any_pb2 import Any
from google.protobuf.timestamp_pb2 import Timestamp

from eventstore.codec import EventTypes
from eventstore.errors import EventTooLarge, UnknownEventType
from eventstore.event import (
    MAX_APPEND_BYTES,
    MAX_EVENT_BYTES,
    MAX_HEADER_BYTES,
    MAX_MESSAGE_BYTES,
    Metadata,
    NewEvent,
    RecordedEvent,
)

_MAX_INDEXED = 500  # characters of what rows are looked up by: PostgreSQL indexes values of at most 2,704 bytes

_PRINTABLE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
_PLAIN = re.compile(r"[!#$&-~]*")  # nothing but these

_EXTENSIONS = {
    "actor": "ce-actor",
    "reason": "ce-reason",
    "request_id": "ce-requestid",
    "request_digest": "ce-requestdigest",
    "correlation_id": "ce-correlationid",
    "causation_id": "ce-causationid",
    "traceparent": "ce-traceparent",
}


Encoded = tuple[dict[str, str], bytes]
"""The headers and the payload of an event."""


def encode_append(log: str, events: Sequence[NewEvent], types: EventTypes, time_ns: int) -> list[Encoded]:
    """Return the headers and payload of each event of an append; `time_ns` is the writer's clock.

    Raises:
        EventTooLarge, UnknownEventType, ValueError: As `EventStore.append`.
    """
    time = Timestamp()
    time.FromNanoseconds(time_ns)
    written = time.ToJsonString()
    encoded = [_encode(log, event, types, written) for event in events]
    size = sum(len(payload) + _size(headers) for headers, payload in encoded)
    if size > MAX_APPEND_BYTES:
        raise EventTooLarge(size, MAX_APPEND_BYTES)
    return encoded


def _size(headers: Mapping[str, str]) -> int:
    return sum(len(name) + len(value) for name, value in headers.items())


def _check_readable(event: NewEvent) -> None:
    """Raise ValueError for what `decode` would take for unreadable."""
    values = [event.id, *(getattr(event.metadata, field) for field in _EXTENSIONS if field != "reason")]
    if not event.id or max(map(len, values)) > _MAX_INDEXED:
        raise ValueError(f"invalid event: expected an id and metadata of at most {_MAX_INDEXED} characters each")
    if any("\0" in text for text in (event.stream, event.metadata.reason, *values)):
        raise ValueError("invalid event: its stream, id and metadata must not contain the character NUL")


def _encode(log: str, event: NewEvent, types: EventTypes, time: str) -> Encoded:
    _check_readable(event)
    type_name, payload = types.encode(event.data)
    headers = {
        "ce-specversion": "1.0",
        "ce-id": _quoted(event.id),
        "ce-type": type_name,
        "ce-source": f"/rollforward/{log}",
        "ce-subject": _quoted(event.stream),
        "ce-time": time,
        "ce-dataschema": f"proto:{type_name}",
        "content-type": "application/protobuf",
    }
    headers |= _headers_of(event.metadata)
    around = _size(headers) + len(event.deduplication_key)
    sizes = {MAX_EVENT_BYTES: len(payload), MAX_HEADER_BYTES: around, MAX_MESSAGE_BYTES: len(payload) + around}
    for limit, size in sizes.items():
        if size > limit:
            raise EventTooLarge(size, limit)
    return headers, payload


# The events of one append are neighbours and have the same metadata.
@lru_cache(maxsize=8)
def _headers_of(metadata: Metadata) -> Mapping[str, str]:
    values = {header: getattr(metadata, field) for field, header in _EXTENSIONS.items()}
    return {header: _quoted(value) for header, value in values.items() if value}


@lru_cache(maxsize=8)
def _metadata(*values: str) -> Metadata:
    texts = {field: unquote(value) for field, value in zip(_EXTENSIONS, values, strict=True)}
    for field, text in texts.items():
        if "\0" in text or (field != "reason" and len(text) > _MAX_INDEXED):
            raise UnknownEventType(f"its {_EXTENSIONS[field]} is too long or holds a NUL")
    return Metadata(**texts)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an event stands: its stream, position, time (ns since 1970), and the end and the id of its append."""

    stream: str
    position: int
    time_ns: int
    append_end: int
    append_id: str = ""


def decode(headers: Mapping[str, str], payload: bytes, types: EventTypes, place: Place) -> RecordedEvent:
    """Return the event that stands at a place in the log; what cannot be read is returned as `unreadable`."""
    values = [headers.get(header, "") for header in _EXTENSIONS.values()]
    event_id = unquote(headers.get("ce-id", ""))
    try:
        data = types.decode(headers.get("ce-type", ""), payload)
        metadata = _metadata(*values)
        _check_identity(headers, place, event_id)
    except UnknownEventType as error:
        return _unreadable(headers, payload, place, str(error))
    return RecordedEvent(
        place.stream, place.position, place.time_ns, event_id, data, metadata, place.append_end, place.append_id
    )


def _check_identity(headers: Mapping[str, str], place: Place, event_id: str) -> None:
    """Check that the id and the subject are those of a writer: folds use the subject, projections the stream."""
    if not event_id or len(event_id) > _MAX_INDEXED or "\0" in event_id:
        raise UnknownEventType("its ce-id is missing, too long or holds a NUL")
    if unquote(headers.get("ce-subject", "")) != place.stream or "\0" in place.stream:
        raise UnknownEventType(f"its ce-subject does not name the stream of its subject, {place.stream[:200]!r}")


def _unreadable(headers: Mapping[str, str], payload: bytes, place: Place, why: str) -> RecordedEvent:
    """Return an event as far as it can be read, cut to what every database takes."""
    known = sorted((name, value) for name, value in headers.items() if name.startswith("ce-"))
    digest = hashlib.sha256(repr(known).encode() + b"\0" + payload).hexdigest()
    event_id = _clean(unquote(headers.get("ce-id", ""))) or digest[:32]
    values = [_clean(unquote(headers.get(header, ""))) for header in _EXTENSIONS.values()]
    name = _clean(headers.get("ce-type", ""))
    return RecordedEvent(
        stream=_clean(place.stream),
        position=place.position,
        time=place.time_ns,
        id=event_id,
        data=Any(type_url=f"type.googleapis.com/{name}", value=payload),
        metadata=Metadata(**dict(zip(_EXTENSIONS, values, strict=True))),
        append_end=place.append_end,
        append_id=place.append_id,
        unreadable=_clean(why),
    )


def _clean(text: str) -> str:
    return text.replace("\0", "\ufffd")[:_MAX_INDEXED]


def _quoted(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else quote(text, safe=_PRINTABLE)

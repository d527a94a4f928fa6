"""The envelope on the wire: CloudEvents 1.0 attributes as NATS headers, in binary content mode.

Source: https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/nats-protocol-binding.md
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from urllib.parse import quote, unquote

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
    """The events of one append on their way into the log; `time_ns` is the writer's clock.

    Raises:
        EventTooLarge, UnknownEventType: As `EventStore.append`.
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


def _encode(log: str, event: NewEvent, types: EventTypes, time: str) -> Encoded:
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
    return Metadata(**{field: unquote(value) for field, value in zip(_EXTENSIONS, values, strict=True)})


def decode(
    headers: Mapping[str, str], payload: bytes, types: EventTypes, *, position: int, time_ns: int, append_end: int
) -> RecordedEvent:
    """The event that stands in the log at a position since `time_ns`.

    Raises:
        UnknownEventType: It is of a type that the program was not told of, or not an event at all.
    """
    try:
        data = types.decode(headers.get("ce-type", ""), payload)
    except UnknownEventType as error:
        raise UnknownEventType(f"position {position} cannot be read: {error}") from error
    return RecordedEvent(
        stream=unquote(headers.get("ce-subject", "")),
        position=position,
        time=time_ns,
        id=unquote(headers.get("ce-id", "")),
        data=data,
        metadata=_metadata(*[headers.get(header, "") for header in _EXTENSIONS.values()]),
        append_end=append_end,
    )


def _quoted(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else quote(text, safe=_PRINTABLE)

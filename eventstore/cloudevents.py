"""The envelope on the wire: CloudEvents 1.0 attributes as NATS headers, in binary content mode.

Source: the CloudEvents NATS protocol binding, https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/nats-protocol-binding.md
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, unquote

from google.protobuf.timestamp_pb2 import Timestamp

from eventstore.event import Metadata, NewEvent

_PRINTABLE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')

_EXTENSIONS = {
    "actor": "ce-actor",
    "reason": "ce-reason",
    "request_id": "ce-requestid",
    "request_digest": "ce-requestdigest",
    "correlation_id": "ce-correlationid",
    "causation_id": "ce-causationid",
    "traceparent": "ce-traceparent",
}


def to_headers(log: str, event: NewEvent, type_name: str, time_ns: int) -> dict[str, str]:
    """The headers of an event that is being appended; `time_ns` is the writer's clock, for readers outside."""
    time = Timestamp()
    time.FromNanoseconds(time_ns)
    headers = {
        "ce-specversion": "1.0",
        "ce-id": event.id,
        "ce-type": type_name,
        "ce-source": f"/rollforward/{log}",
        "ce-subject": quote(event.stream, safe=_PRINTABLE),
        "ce-time": time.ToJsonString(),
        "ce-dataschema": f"proto:{type_name}",
        "content-type": "application/protobuf",
    }
    for field, header in _EXTENSIONS.items():
        if value := getattr(event.metadata, field):
            headers[header] = quote(value, safe=_PRINTABLE)
    return headers


def stream_of(headers: Mapping[str, str]) -> str:
    """The stream that an event belongs to."""
    return unquote(headers["ce-subject"])


def metadata_of(headers: Mapping[str, str]) -> Metadata:
    """What the headers say about an event besides the fact itself."""
    return Metadata(**{field: unquote(headers.get(header, "")) for field, header in _EXTENSIONS.items()})

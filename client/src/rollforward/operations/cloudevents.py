"""Recorded events as CloudEvents 1.0 in JSON, with the attributes that they have on the wire."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pool, json_format, message_factory

if TYPE_CHECKING:
    from google.protobuf.any_pb2 import Any as Packed

    from rollforward import v1


def to_cloudevent(event: v1.RecordedEvent) -> dict[str, Any]:
    """Return the event in CloudEvents' structured JSON mode, ready for json.dumps.

    `data` is the event in protobuf's JSON with the contract's field names; if this client or the service does not know
    the event's type, it is `data_base64`. Extensions: `position` (decimal digits) and, if set, `actor`, `reason`,
    `requestid`, `correlationid`, `causationid` and `traceparent`.
    """
    attributes = {
        "specversion": "1.0",
        "id": event.event_id,
        "source": f"/rollforward/{event.log}",
        "type": event.type,
        "subject": event.stream,
        "time": event.time.ToJsonString(),
        "dataschema": f"proto:{event.type}",
        # CloudEvents integers have 32 bits, positions 64.
        "position": str(event.position),
    }
    extensions = {
        "actor": event.actor,
        "reason": event.reason,
        "requestid": event.request_id,
        "correlationid": event.correlation_id,
        "causationid": event.causation_id,
        "traceparent": event.traceparent,
    }
    return attributes | {name: value for name, value in extensions.items() if value} | _content(event)


def _content(event: v1.RecordedEvent) -> dict[str, Any]:
    if event.undecodable:
        return {
            "datacontenttype": "application/octet-stream",
            "data_base64": base64.b64encode(event.payload).decode(),
        }
    return _known_content(event.data)


def _known_content(packed: Packed) -> dict[str, Any]:
    try:
        descriptor = descriptor_pool.Default().FindMessageTypeByName(packed.TypeName())
    except KeyError:
        return {
            "datacontenttype": "application/protobuf",
            "data_base64": base64.b64encode(packed.value).decode(),
        }
    message = message_factory.GetMessageClass(descriptor)()
    message.ParseFromString(packed.value)
    data = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return {"datacontenttype": "application/json", "data": data}

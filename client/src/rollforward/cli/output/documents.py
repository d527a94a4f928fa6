"""Results as JSON, with one form for statuses and times, and null for missing values."""

from __future__ import annotations

import base64
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from rollforward._printable import printable_json

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

    from rollforward import v1

# New names for the contract's times, which all end in "_at"; `time` is an event's own.
_RENAMED: Final[Mapping[str, str]] = {
    "start_time": "started_at",
    "end_time": "ended_at",
    "last_heard": "last_heard_at",
    "last_timestamp": "last_logged_at",
    "at": "due_at",
}
# Fields in milliseconds since 1970.
_MILLISECONDS: Final = frozenset(
    {"rollforward.v1.MetricSummary.last_timestamp", "rollforward.v1.LoggedModelMetric.timestamp"}
)
# Numbers for which 0 means none.
_ZERO_IS_NONE: Final = frozenset({"version", "from_version", "to_version", "latest_version", "restored_revision"})
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def plain(message: Message) -> Any:
    """Return a message as JSON: field names of the contract, numbers as numbers, times in RFC 3339.

    Statuses are lower-case, and missing values null. Numbers that JSON lacks are "NaN", "Infinity" and "-Infinity";
    bytes are base64.
    """
    if isinstance(message, Timestamp | Duration):
        return message.ToJsonString()
    if isinstance(message, Packed):
        return {"@type": message.type_url, **_unpacked(message)}
    fields = cast("Descriptor", message.DESCRIPTOR).fields
    return {_name(field): _field(message, field) for field in fields if _shown(message, field)}


def plain_run(run: v1.Run, experiment: str | None = None, *, packages: bool = False) -> dict[str, Any]:
    """Return a run as JSON, with its experiment's name; the list of installed packages only with `packages`."""
    fields = plain(run)
    if not packages and fields["source"]:
        del fields["source"]["packages"]
    return fields if experiment is None else {"run_id": run.run_id, "experiment": experiment, **fields}


def document(value: Any) -> Any:
    """Return messages, named tuples, lists, mappings and plain values as JSON."""
    if isinstance(value, Message):
        return plain(value)
    if isinstance(value, float):
        return _number(value)
    if hasattr(value, "_asdict"):
        return document(value._asdict())
    if isinstance(value, Mapping):
        return {key: document(part) for key, part in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return [document(part) for part in value]
    return value


def print_json(value: Any) -> None:
    """Print messages, named tuples, lists, mappings and plain values as one JSON document."""
    print(dumps(document(value), indent=2))


def print_json_line(fields: Mapping[str, Any]) -> None:
    """Print one line of JSON Lines, without buffering."""
    print(dumps(document(fields)), flush=True)


def dumps(value: Any, indent: int | None = None) -> str:
    """Return JSON that this process's output can encode."""
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    return printable_json(json.dumps(value, indent=indent, ensure_ascii=not unicode, allow_nan=False))


def enum_name(descriptor: EnumDescriptor, number: int) -> str | None:
    """Return an enumeration's value : POD_STATE_CURRENT is "current", unspecified is None."""
    value = descriptor.values_by_number.get(number)
    if value is None:
        return str(number)  # a newer server's
    prefix = f"{_upper_snake_case(descriptor.name)}_"
    bare = value.name.removeprefix(prefix).lower()
    return None if bare == "unspecified" else bare


def milliseconds(value: int) -> str | int:
    """Return milliseconds since 1970 as an RFC 3339 time, or unchanged if they are out of range."""
    try:
        moment = _EPOCH + timedelta(milliseconds=value)
    except OverflowError:
        return value
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _name(field: FieldDescriptor) -> str:
    if field.name == "at" and not _is_time(field):
        return field.name
    return _RENAMED.get(field.name, field.name)


def _is_time(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name == "google.protobuf.Timestamp"


def _unpacked(packed: Packed) -> dict[str, Any]:
    try:
        descriptor = descriptor_pool.Default().FindMessageTypeByName(packed.TypeName())
    except KeyError:
        # An event of a newer server: show its bytes.
        return {"value": base64.b64encode(packed.value).decode()}
    inner = message_factory.GetMessageClass(descriptor)()
    inner.ParseFromString(packed.value)
    return dict(plain(inner))


def _shown(message: Message, field: FieldDescriptor) -> bool:
    # Of a oneof, only the field that is set; an `optional` field is a oneof of one, and always shown.
    oneof = field.containing_oneof
    return oneof is None or len(oneof.fields) == 1 or message.HasField(field.name)


def _field(message: Message, field: FieldDescriptor) -> Any:
    if field.has_presence and not message.HasField(field.name):
        return None
    value = getattr(message, field.name)
    if isinstance(value, Mapping):
        return {str(key): _value(field, value[key]) for key in sorted(value)}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_value(field, part) for part in value]
    if (isinstance(value, str | bytes) or field.name in _ZERO_IS_NONE) and not value:
        return None
    return _value(field, value)


def _value(field: FieldDescriptor, value: Any) -> Any:
    if isinstance(value, Message):
        return plain(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float):
        return _number(value)
    if field.enum_type is not None:
        return enum_name(field.enum_type, value)
    return milliseconds(value) if field.full_name in _MILLISECONDS else value


def _number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _upper_snake_case(name: str) -> str:
    """Return "PodState" as "POD_STATE"."""
    return "".join(f"_{char}" if char.isupper() and at else char for at, char in enumerate(name)).upper()

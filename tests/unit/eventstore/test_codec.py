"""The codec: types by name, upcasting of old types, rejection of unknown ones."""

from __future__ import annotations

import pytest
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.wrappers_pb2 import BoolValue, Int64Value, StringValue

from eventstore.codec import EventTypes
from eventstore.errors import UnknownEventType


def to_number(old: Message) -> Message:
    assert isinstance(old, BoolValue)
    return Int64Value(value=int(old.value))


def to_text(old: Message) -> Message:
    assert isinstance(old, Int64Value)
    return StringValue(value=str(old.value))


def test_event_survives_encoding_and_decoding() -> None:
    types = EventTypes([StringValue, Struct])
    assert types.names == {"google.protobuf.StringValue", "google.protobuf.Struct"}
    for event in (StringValue(value="é"), StringValue()):
        assert types.decode(*types.encode(event)) == event


def test_equal_events_have_equal_bytes() -> None:
    struct, other = Struct(), Struct()
    keys = [f"k{number}" for number in range(20)]
    for key, mirrored in zip(keys, reversed(keys), strict=True):
        struct[key] = 1
        other[mirrored] = 1
    types = EventTypes([Struct])
    assert types.encode(struct) == types.encode(other)


def test_upcasters_are_chained() -> None:
    types = EventTypes([BoolValue, Int64Value, StringValue], {BoolValue: to_number, Int64Value: to_text})
    assert types.decode(*types.encode(BoolValue(value=True))) == StringValue(value="1")
    assert types.decode(*types.encode(Int64Value(value=7))) == StringValue(value="7")
    assert types.decode(*types.encode(StringValue(value="x"))) == StringValue(value="x")


def test_unregistered_type_is_rejected() -> None:
    types = EventTypes([StringValue])
    with pytest.raises(UnknownEventType):
        types.encode(Int64Value())
    with pytest.raises(UnknownEventType):
        types.decode("google.protobuf.Int64Value", b"")
    with pytest.raises(UnknownEventType):
        types.decode("google.protobuf.StringValue", b"\xff")


def test_duplicate_type_or_upcaster_to_unknown_type_is_rejected() -> None:
    with pytest.raises(ValueError):
        EventTypes([StringValue, StringValue])
    with pytest.raises(ValueError):
        EventTypes([StringValue], {BoolValue: to_number})

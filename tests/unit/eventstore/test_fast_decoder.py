"""The fast decoder of stored messages: it returns what the general decoder returns, or nothing."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import StringValue
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client as NatsClient

from eventstore.cloudevents import Place, decode, encode_append
from eventstore.event import Metadata, NewEvent, RecordedEvent
from eventstore.jetstream import subject_of
from eventstore.jetstream.appending.whole_appends import append_of
from eventstore.jetstream.reading.message_decoding import decode_stored
from eventstore.jetstream.subjects import stream_of
from tests.contract.store.events import TYPES

LOG = "log"
texts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0") | st.sampled_from("a%\r\n :/."), max_size=12
)
times = st.integers(0, 4_000_000_000) | st.sampled_from([1_700_000_000 * 10**9, 1_700_000_000_120_000_000])
metadata = st.builds(Metadata, *[texts] * 7)
positions = st.integers(1, 2**40)


def block(event: NewEvent, position: int, time_ns: int, extra: dict[str, str]) -> tuple[bytes, bytes]:
    """Return the headers and payload of a direct get."""
    ((headers, payload),) = encode_append(LOG, [event], TYPES, 0)
    stamp = Timestamp()
    stamp.FromNanoseconds(time_ns)
    stored = {
        **headers,
        "Nats-Msg-Id": quote(event.deduplication_key),
        **extra,
        "Nats-Stream": f"rf-{LOG}",
        "Nats-Subject": subject_of(LOG, event.stream),
        "Nats-Sequence": str(position),
        "Nats-Time-Stamp": stamp.ToJsonString().replace("000Z", "Z").replace(".Z", "Z"),
        "Nats-Num-Pending": "3",
        "Nats-Last-Sequence": "1",
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in stored.items())
    return f"NATS/1.0\r\n{lines}\r\n".encode(), payload


def decode_by_name(raw: bytes, payload: bytes) -> RecordedEvent:
    """Decode a message with the general decoder, which parses headers by name."""
    headers = NatsClient._parse_header_lines(raw.removeprefix(b"NATS/1.0\r\n"))
    position = int(headers["Nats-Sequence"])
    stamp = Timestamp()
    stamp.FromJsonString(headers["Nats-Time-Stamp"])
    end, append_id = append_of(headers, position)
    stream = stream_of(LOG, headers["Nats-Subject"])
    return decode(headers, payload, TYPES, Place(stream, position, stamp.ToNanoseconds(), end, append_id))


@given(texts, texts.filter(bool), metadata, positions, times)
def test_fast_decoder_agrees_with_general_decoder(
    stream: str, event_id: str, command_metadata: Metadata, position: int, time_ns: int
) -> None:
    event = NewEvent(stream, StringValue(value="x"), command_metadata, event_id, event_id)
    raw, payload = block(event, position, time_ns, {})
    expected, event_read = decode_by_name(raw, payload), decode_stored(raw, payload, LOG, TYPES)
    assert event_read is not None
    assert (event_read, event_read.append_id) == (expected, expected.append_id)


@pytest.mark.parametrize(
    "extra",
    [
        {"Nats-Expected-Last-Subject-Sequence": "4"},
        {"Nats-Batch-Id": "b", "Rf-Events-Behind": "2", "Nats-Batch-Sequence": "1"},
        {"Nats-Batch-Id": "b", "Rf-Events-Behind": "0", "Nats-Batch-Sequence": "3", "Nats-Batch-Commit": "1"},
    ],
)
def test_events_of_appends_are_decoded(extra: dict[str, str]) -> None:
    event = NewEvent("a/b c", StringValue(value="x"), Metadata("Zo\u00eb", reason="why not"), "id", "id")
    raw, payload = block(event, 7, 1_700_000_000_123_456_789, extra)
    expected, event_read = decode_by_name(raw, payload), decode_stored(raw, payload, LOG, TYPES)
    assert event_read is not None
    assert (event_read, event_read.append_id) == (expected, expected.append_id)


@pytest.mark.parametrize(
    "change",
    [
        (b"ce-specversion: 1.0\r\n", b""),
        (b"ce-id: id\r\n", b"ce-id: \r\n"),
        (b"ce-subject: a\r\n", b"ce-subject: b\r\n"),
        (b"ce-type: google.protobuf.StringValue", b"ce-type: other"),
        (b"ce-actor: x", b"ce-actor: " + b"x" * 501),
        (b"ce-actor: x", b"ce-actor: \xc3\xab"),
        (b"ce-actor: x", b"ce-actor: %00"),
        (b"Nats-Sequence: 7", b"Nats-Sequence: 7\r\nunknown: 1"),
    ],
)
def test_unusual_headers_are_left_to_general_decoder(change: tuple[bytes, bytes]) -> None:
    event = NewEvent("a", StringValue(value="x"), Metadata("x"), "id", "id")
    raw, payload = block(event, 7, 0, {})
    assert decode_stored(raw, payload, LOG, TYPES) is not None
    assert change[0] in raw
    assert decode_stored(raw.replace(*change), payload, LOG, TYPES) is None

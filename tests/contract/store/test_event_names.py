"""Names of streams, events and actors: no name is mistaken for another."""

from __future__ import annotations

import uuid
from dataclasses import fields, replace

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from eventstore.errors import DuplicateAppend
from eventstore.event import Metadata, NewEvent
from eventstore.jetstream import subject_of
from eventstore.store import EventStore
from tests.contract.store.events import new
from tests.contract.store.stores import flat, read_all, take

# Names are encoded and decoded in this program; a cluster treats them like one server.
one_server = pytest.mark.parametrize("store", ["memory", "jetstream"], indirect=True)
many_examples = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])

names = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("./*>% \0\n\r\t$~"), max_size=40)
stored_names = names.map(lambda name: name.replace("\0", ""))


@one_server
@pytest.mark.parametrize(
    "event",
    [
        NewEvent("a\0", StringValue(), Metadata("a"), "id", "key"),
        NewEvent("a", StringValue(), Metadata("a"), "i\0d", "key"),
        NewEvent("a", StringValue(), Metadata("a"), "", "key"),
        NewEvent("a", StringValue(), Metadata("a"), "i" * 501, "key"),
        *[
            NewEvent("a", StringValue(), Metadata(**{"actor": "a", field.name: "\0"}), "id", "key")
            for field in fields(Metadata)
        ],
        *[
            NewEvent("a", StringValue(), Metadata(**{"actor": "a", field.name: "x" * 501}), "id", "key")
            for field in fields(Metadata)
            if field.name != "reason"
        ],
    ],
)
async def test_event_that_could_not_be_read_is_not_appended(store: EventStore, event: NewEvent) -> None:
    head = await store.head()
    with pytest.raises(ValueError, match="event"):
        await store.append([new("a"), event])
    assert await store.head() == head


@one_server
@many_examples
@given(stream=stored_names, other=stored_names)
@example("a/b", "a.b")
@example("a//b", "a/b")
@example("", "/")
@example("a/%", "a/")
@example("*", "x")
@example(">", "*/>")
async def test_stream_names_do_not_collide(store: EventStore, stream: str, other: str) -> None:
    (position,) = await store.append([new(stream, "mine")])
    if other != stream:
        await store.append([new(other, "theirs")])
    last = (await read_all(store, stream))[-1]
    assert (last.position, last.stream) == (position, stream)
    await store.append([new(stream)], {stream: position})


@given(names, names)
def test_different_streams_have_different_subjects(stream: str, other: str) -> None:
    subject, tokens = subject_of("log", stream), subject_of("log", stream).split(".")
    assert (subject == subject_of("log", other)) == (stream == other)
    assert tokens[:2] == ["rf", "log"]
    assert len(tokens) == 3 + stream.count("/")
    assert subject.isascii()
    assert subject.isprintable()
    assert all(token and not set(token) & set("*> \t") for token in tokens)


@one_server
@pytest.mark.parametrize("name", ["models/" + "🦆" * 255, "x" * 3_000])
async def test_long_stream_name_is_supported(store: EventStore, name: str) -> None:
    await store.append([new(name)])
    await store.append([new(name)], {name: 1})
    assert [event.stream for event in await read_all(store, name)] == [name, name]
    assert [event.stream for event in flat(await take(store, 2))] == [name, name]


@one_server
@many_examples
@given(st.builds(Metadata, **{field.name: stored_names for field in fields(Metadata)}), stored_names, names)
async def test_metadata_and_ids_are_read_unchanged(
    store: EventStore, metadata: Metadata, event_id: str, key: str
) -> None:
    unique = uuid.uuid4().hex
    event = NewEvent("s", StringValue(), metadata, unique + event_id, unique + key)
    (position,) = await store.append([event])
    read = await store.event_at(position)
    assert read
    assert (read.metadata, read.id) == (metadata, unique + event_id)
    with pytest.raises(DuplicateAppend):
        await store.append([replace(event, id="other")])

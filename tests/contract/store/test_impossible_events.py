"""Readable events that no command writes: folds and projections reject them with their own errors only."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

import services
from eventstore.codec import EventTypes
from eventstore.commands.handler import CommandHandler
from eventstore.decider import Decider
from eventstore.errors import CannotApply, StoreUnavailable, StreamUnreadable
from eventstore.event import Metadata, NewEvent
from eventstore.ids import new_id
from eventstore.memory import MemoryStore
from eventstore.projections.database import Database
from eventstore.projections.projector import Projection, Projector
from services.app import SERVICES
from tests.contract.store.events import following

LOGS: Final = ("registry", "serving", "tracking", "webhooks")
VALUES: Final[dict[int, Any]] = {
    FieldDescriptor.CPPTYPE_INT32: -1,
    FieldDescriptor.CPPTYPE_INT64: -1,
    FieldDescriptor.CPPTYPE_UINT32: 2**32 - 1,
    FieldDescriptor.CPPTYPE_UINT64: 2**64 - 1,
    FieldDescriptor.CPPTYPE_DOUBLE: float("nan"),
    FieldDescriptor.CPPTYPE_FLOAT: float("nan"),
    FieldDescriptor.CPPTYPE_BOOL: True,
    FieldDescriptor.CPPTYPE_ENUM: 99,
    FieldDescriptor.CPPTYPE_STRING: "x",
}


class NoRequests:
    """An empty index of requests."""

    async def find_request(self, actor: str, request_id: str, at_least: int) -> None:
        """Return None."""


def types_of(log: str) -> EventTypes:
    """Return the event types of a log."""
    types: EventTypes = importlib.import_module(f"services.{log}").EVENTS
    return types


def filled(kind: type[Message], depth: int = 3) -> Message:
    """Return a message in which every field has a nonsensical value."""
    message = kind()
    for field in message.DESCRIPTOR.fields:
        value: Any = VALUES.get(field.cpp_type)
        if field.type == FieldDescriptor.TYPE_BYTES:
            value = b"\xff"
        if field.message_type and field.message_type.GetOptions().map_entry:
            _ = getattr(message, field.name)["x"]  # sets it
        elif field.message_type and depth:
            nested = filled(GetMessageClass(field.message_type), depth - 1)  # type: ignore[arg-type]
            if field.is_repeated:
                getattr(message, field.name).add().CopyFrom(nested)
            else:
                getattr(message, field.name).CopyFrom(nested)
        elif field.is_repeated and not field.message_type:
            getattr(message, field.name).append(value)
        elif not field.message_type:
            setattr(message, field.name, value)
    return message


def impossible(log: str) -> Iterator[Message]:
    """Yield an empty and a filled event of every type of a log."""
    for name in sorted(types_of(log).names):
        kind = type(types_of(log).decode(name, b""))
        yield kind()
        yield filled(kind)


def deciders() -> dict[str, Decider[Any]]:
    """Return all deciders of the services, by module and name."""
    modules = [
        importlib.import_module(info.name)
        for info in pkgutil.walk_packages(services.__path__, "services.")
        if info.name.split(".")[1] in LOGS
    ]
    return {
        f"{module.__name__}.{name}": value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, Decider) and value.decide.__module__ == module.__name__
    }


DECIDERS: Final = deciders()
PROJECTIONS: Final = {
    projection.name: (spec.log, projection)
    for service in SERVICES.values()
    for spec in service.projections
    for projection in [spec.create()]
}


def new(stream: str, event: Message) -> NewEvent:
    return NewEvent(stream, event, Metadata("eve"), new_id(), new_id())


def test_deciders_and_projections_are_found() -> None:
    assert len(DECIDERS) >= 7
    assert len(PROJECTIONS) >= 11


@pytest.mark.parametrize("name", sorted(DECIDERS))
async def test_stream_with_impossible_event_is_read_or_unreadable(name: str) -> None:
    log = name.split(".")[1]
    store = MemoryStore(log, types_of(log))
    handler = CommandHandler(store, DECIDERS[name], NoRequests())
    unreadable, expected = [], []
    for number, event in enumerate(impossible(log)):
        (position,) = await store.append([new(f"s{number}", event)])
        try:
            await handler.state(f"s{number}")
        except StreamUnreadable as error:
            unreadable.append((error.reason, error.position, event.DESCRIPTOR.full_name in str(error)))
            expected.append(("EVENT_UNREADABLE", position, True))
    assert unreadable == expected != []  # events of the log's other streams are unreadable here


@pytest.mark.parametrize("name", sorted(PROJECTIONS))
async def test_impossible_event_is_applied_or_stops_only_its_projection(name: str, tmp_path: Path) -> None:
    log, projection = PROJECTIONS[name]
    for number, event in enumerate(impossible(log)):
        await check_applied_or_named(log, projection, event, tmp_path / str(number))


async def check_applied_or_named(log: str, projection: Projection, event: Message, location: Path) -> None:
    """Check that a projection applies an event, appended two times, or fails and names it."""
    store = MemoryStore(log, types_of(log))
    async with following(store) as tail:
        projector = Projector(tail, projection, Database(str(location)))
        await projector.start()
        for _ in range(2):
            await store.append([new("s", event)])
        try:
            await projector.wait_for(2)
        except StoreUnavailable as error:
            failure = error.reason, type(projector.failure), event.DESCRIPTOR.name in str(error), tail.failure
            assert failure == ("PROJECTION_FAILED", CannotApply, True, None)
        finally:
            await projector.stop()

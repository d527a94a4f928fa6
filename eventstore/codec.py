"""The codec: events to bytes and back, with old shapes brought up to date on the way in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from google.protobuf.message import DecodeError, Message

from eventstore.errors import UnknownEventType

Upcaster = Callable[[Message], Message]
"""Turns an event of an old type into one of its successor; pure."""


class EventTypes:
    """The event types of one log, by full protobuf name.

    Args:
        types: Every type that the log may hold, old ones too.
        upcasters: For each old type its step to the next; steps follow each other until a type has none.

    Raises:
        ValueError: A type is given twice, or an upcaster is for an unknown type.
    """

    def __init__(
        self, types: Iterable[type[Message]], upcasters: Mapping[type[Message], Upcaster] | None = None
    ) -> None:
        self._types: dict[str, type[Message]] = {}
        for event_type in types:
            name = event_type.DESCRIPTOR.full_name
            if name in self._types:
                raise ValueError(f"duplicate event type {name}")
            self._types[name] = event_type
        self._upcasters: dict[str, Upcaster] = {}
        for event_type, upcaster in (upcasters or {}).items():
            name = event_type.DESCRIPTOR.full_name
            if name not in self._types:
                raise ValueError(f"invalid upcaster: {name} is not an event type of this log")
            self._upcasters[name] = upcaster

    @property
    def names(self) -> frozenset[str]:
        """The full protobuf names of all types."""
        return frozenset(self._types)

    def with_field(self, name: str) -> frozenset[type[Message]]:
        """Return the types that have a field of this name."""
        return frozenset(kind for kind in self._types.values() if name in kind.DESCRIPTOR.fields_by_name)

    def encode(self, event: Message) -> tuple[str, bytes]:
        """Return an event's type name and bytes; the same event always gives the same bytes.

        Raises:
            UnknownEventType: The type is not one of the log's.
        """
        name = event.DESCRIPTOR.full_name
        if name not in self._types:
            raise UnknownEventType(f"{name} is not an event type of this log")
        return name, event.SerializeToString(deterministic=True)

    def decode(self, name: str, payload: bytes) -> Message:
        """Return the event, upcast to its present type.

        Raises:
            UnknownEventType: The type is not known, or the bytes are not of it.
        """
        event_type = self._types.get(name)
        if event_type is None:
            raise UnknownEventType(f"{name} is not an event type of this log")
        try:
            event: Message = event_type.FromString(payload)
        except DecodeError as error:
            raise UnknownEventType(f"these bytes are not a {name}") from error
        while (upcaster := self._upcasters.get(event.DESCRIPTOR.full_name)) is not None:
            event = upcaster(event)
        return event

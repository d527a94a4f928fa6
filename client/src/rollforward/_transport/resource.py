"""The base of the classes that a client's attributes are."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rollforward._transport.connection import Connection


class Resource:
    """The calls about one kind of thing that a service keeps; safe for use by many threads, like its connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

"""The base class of a client's attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rollforward._transport.connection import Connection


class Resource:
    """The calls for one kind of item; safe for use by many threads, like its connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

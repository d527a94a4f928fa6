"""HTTP connections that end when no request comes over them in time."""

from __future__ import annotations

import asyncio

from typing_extensions import override
from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_SECONDS = 10.0
MAX_CONNECTIONS = 4_000


class ImpatientProtocol(H11Protocol):
    """A connection that is closed unless a whole request came within `REQUEST_SECONDS`, and is being answered.

    uvicorn itself waits for the rest of a request for as long as the client keeps the connection.
    """

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def _watch(self) -> None:
        self.loop.call_later(REQUEST_SECONDS, self._end_unless_answering)

    def _end_unless_answering(self) -> None:
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()
        else:
            self._watch()

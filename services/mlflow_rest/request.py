"""A request of MLflow's API: its parameters, and the calls of our services that it makes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote
from weakref import WeakValueDictionary

from cachetools import LRUCache
from google.protobuf.message import Message

from rollforward import v1
from services.mlflow_rest.parameters import Parameters
from services.rpc.local import LocalCalls


@dataclass(slots=True)
class Front:
    """What all requests share.

    Attributes:
        calls: The methods of the services of this process.
        positions: By log, the last position written through this front: reads wait for it, so that a client sees what
            it, or another client of this process, wrote.
        versions: By model and version, a version in MLflow's form, and the registry's position that it was read after:
            it is current as long as nothing was written since.
    """

    calls: LocalCalls
    positions: dict[str, int] = field(default_factory=dict)
    versions: LRUCache[tuple[str, int], tuple[int, dict[str, Any]]] = field(default_factory=lambda: LRUCache(1_000))
    _turns: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    def turn(self, name: str) -> asyncio.Lock:
        """Return the lock of those who change one thing by reading it first."""
        return self._turns.setdefault(name, asyncio.Lock())

    def note(self, request: Message, response: Any) -> None:
        """Note the position that a command has written."""
        log = _LOGS.get(request.DESCRIPTOR.file.name.rpartition("/")[2], "")
        if log and "position" in response.DESCRIPTOR.fields_by_name:
            self.advance(log, response.position)

    def advance(self, log: str, position: int) -> None:
        """Let reads from now on wait for a position of a log."""
        self.positions[log] = max(self.positions.get(log, 0), position)


_LOGS = {
    "tracking_service.proto": "tracking",
    "logged_model_service.proto": "tracking",
    "registry_service.proto": "registry",
}


@dataclass(slots=True)
class Request:
    """A request.

    Attributes:
        parameters: Its parameters.
        path: What the placeholders of its path stand for.
        actor: Who makes it; empty when it does not say.
        reason: Why, from its header.
        expected_revision: The alias's revision that its If-Match header names; None without one.
    """

    front: Front
    parameters: Parameters
    path: Mapping[str, str]
    actor: str = ""
    reason: str = ""
    expected_revision: int | None = None

    async def send(self, message: Message) -> Any:
        """Call the method that takes this message, and return its response.

        Raises:
            CallFailed: The method answers with an error.
        """
        if self.reason and "reason" in message.DESCRIPTOR.fields_by_name:
            message.reason = self.reason  # type: ignore[attr-defined]
        response = await self.front.calls.call(message, self._metadata())
        self.front.note(message, response)
        return response

    async def stream(self, message: Message) -> AsyncGenerator[Any]:
        """Call the method that takes this message, and yield its responses. Raises as `send`."""
        async with aclosing(self.front.calls.stream(message, self._metadata())) as responses:
            async for response in responses:
                yield response

    async def upload(self, parts: AsyncIterator[v1.UploadBlobRequest]) -> None:
        """Send the parts of a blob. Raises as `send`."""
        await self.front.calls.upload(parts, v1.UploadBlobRequest, self._metadata())

    def _metadata(self) -> list[tuple[str, str]]:
        positions = ",".join(f"{log}={position}" for log, position in self.front.positions.items())
        metadata = [("rollforward-min-position", positions)] if positions else []
        if self.actor:
            metadata.append(("rollforward-actor", quote(self.actor)))
        return metadata


Answer = Callable[[Request], Awaitable[dict[str, Any]]]
"""Answers a request with the fields of the JSON response."""

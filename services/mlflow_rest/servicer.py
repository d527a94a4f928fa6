"""MLflow's REST API over gRPC: the same routes, answered in the process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import quote

from starlette.routing import BaseRoute, Router
from typing_extensions import override

from eventstore import Kind, Rejected
from rollforward import v1
from services.rpc.context import Context, headers_of

METHODS = ("GET", "POST", "PATCH", "DELETE")


class MlflowServicer(v1.MlflowServiceServicer):
    """MLflow's REST API over gRPC.

    Args:
        routes: The routes of the API.
    """

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        self._router = Router(routes)

    @override
    async def CallMlflow(self, request: v1.CallMlflowRequest, context: Context) -> AsyncIterator[v1.CallMlflowResponse]:
        """Answer one request.

        Raises:
            Rejected: INVALID_METHOD.
        """
        if request.method not in METHODS:
            message = f"invalid method {request.method[:20]!r}: expected one of {', '.join(METHODS)}"
            raise Rejected(Kind.INVALID, "INVALID_METHOD", message)
        parts: asyncio.Queue[v1.CallMlflowResponse | None] = asyncio.Queue(maxsize=4)
        answering = asyncio.create_task(self._answer(_scope(request, context), request.body, parts))
        try:
            while (part := await parts.get()) is not None:
                yield part
            await answering
        finally:
            answering.cancel()
            await asyncio.wait({answering})

    async def _answer(
        self, scope: dict[str, Any], body: bytes, parts: asyncio.Queue[v1.CallMlflowResponse | None]
    ) -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                await parts.put(v1.CallMlflowResponse(status=message["status"]))
            elif message.get("body"):
                await parts.put(v1.CallMlflowResponse(body=message["body"]))

        try:
            await self._router(scope, receive, send)
        finally:
            await parts.put(None)


def _scope(request: v1.CallMlflowRequest, context: Context) -> dict[str, Any]:
    headers = {"rollforward-actor": headers_of(context).get("rollforward-actor", "")}
    if request.reason:
        headers["rollforward-reason"] = quote(request.reason)
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": request.path,
        "raw_path": quote(request.path).encode(),
        "root_path": "",
        "query_string": request.query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items() if value],
        "client": None,
        "server": None,
    }

"""Calls of gRPC methods from within their process: the same interceptor and handlers, without a connection."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, NoReturn, Protocol

import grpc
import grpc.aio
from google.protobuf import descriptor_pool
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from services.rpc.interceptor import Interceptor


class GrpcService(Protocol):
    """A gRPC service that can be added to a server."""

    @property
    def full_name(self) -> str:
        """Its name with its package."""

    @property
    def add(self) -> Callable[[grpc.aio.Server], None]:
        """Adds its servicer to a server."""


class CallFailed(Exception):
    """A call ended with a status other than OK.

    Attributes:
        code: The status.
        reason: The reason of the error table; empty for none.
    """

    def __init__(self, code: grpc.StatusCode, message: str, reason: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class _Handlers:
    """A server as far as services are added to it."""

    def __init__(self) -> None:
        self.by_path: dict[str, Any] = {}

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Take the handlers of a service."""
        self.by_path |= {f"/{service}/{method}": handler for method, handler in handlers.items()}

    def add_generic_rpc_handlers(self, handlers: Iterable[Any]) -> None:
        """Take nothing: the same handlers are registered by their methods."""


class LocalContext:
    """The context of a call from within the process; its initial and trailing metadata are read afterwards."""

    def __init__(self, metadata: Sequence[tuple[str, str]], seconds: float) -> None:
        self.initial: dict[str, str] = {}
        self._metadata = metadata
        self._deadline = time.monotonic() + seconds

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        """Return the metadata of the call."""
        return self._metadata

    def time_remaining(self) -> float:
        """Return how many seconds are left."""
        return max(self._deadline - time.monotonic(), 0.0)

    async def send_initial_metadata(self, metadata: Iterable[tuple[str, str]]) -> None:
        """Keep the initial metadata."""
        self.initial |= dict(metadata)

    def set_trailing_metadata(self, metadata: Iterable[tuple[str, str]]) -> None:
        """Take nothing: epochs are in the responses, too."""

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Iterable[tuple[str, str | bytes]] = ()
    ) -> NoReturn:
        """End the call. Raises `CallFailed`."""
        packed = dict(trailing_metadata).get("grpc-status-details-bin", b"")
        status, info = Status.FromString(packed if isinstance(packed, bytes) else b""), ErrorInfo()
        for detail in status.details:
            if detail.Is(ErrorInfo.DESCRIPTOR):
                detail.Unpack(info)
        raise CallFailed(code, details, info.reason)


class LocalCalls:
    """The methods of a process's services, by the types of their requests.

    Args:
        interceptor: What runs before every method.
        services: The services.
    """

    def __init__(self, interceptor: Interceptor, services: Iterable[GrpcService]) -> None:
        handlers = _Handlers()
        names = []
        for service in services:
            service.add(handlers)  # type: ignore[arg-type]
            names.append(service.full_name)
        self._methods: dict[str, Any] = {}
        for name in names:
            for method in descriptor_pool.Default().FindServiceByName(name).methods:
                path = f"/{name}/{method.name}"
                self._methods[method.input_type.full_name] = interceptor.wrap(path, handlers.by_path[path])

    async def call(self, request: Message, metadata: Sequence[tuple[str, str]] = (), seconds: float = 60.0) -> Any:
        """Send a request to the method that takes it, and return the response.

        Raises:
            CallFailed: The method answers with an error, or no service of this process takes such a request.
        """
        handler = self._handler(request)
        return await handler.unary_unary(request.SerializeToString(), LocalContext(metadata, seconds))

    async def stream(
        self, request: Message, metadata: Sequence[tuple[str, str]] = (), seconds: float = 60.0
    ) -> AsyncGenerator[Any]:
        """Send a request to the method that takes it, and yield the responses. Raises as `call`."""
        handler = self._handler(request)
        async with aclosing(handler.unary_stream(request.SerializeToString(), LocalContext(metadata, seconds))) as made:
            async for response in made:
                yield response

    async def upload(
        self,
        requests: AsyncIterator[Message],
        kind: type[Message],
        metadata: Sequence[tuple[str, str]] = (),
        seconds: float = 3600.0,
    ) -> Any:
        """Send requests of one kind to the method that takes a stream of them. Raises as `call`."""
        handler = self._handler(kind)
        parts = (request.SerializeToString() async for request in requests)
        async with aclosing(requests), aclosing(parts):  # type: ignore[type-var]
            return await handler.stream_unary(parts, LocalContext(metadata, seconds))

    def _handler(self, request: Message | type[Message]) -> Any:
        name = request.DESCRIPTOR.full_name
        if name not in self._methods:
            message = f"no service of this process takes {name.rpartition('.')[2]}"
            raise CallFailed(grpc.StatusCode.UNIMPLEMENTED, message, "SERVICE_UNKNOWN")
        return self._methods[name]

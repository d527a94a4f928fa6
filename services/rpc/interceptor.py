"""The interceptor before every method: limits, read-your-writes, epochs, metrics, and errors as statuses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from itertools import chain
from types import TracebackType
from typing import Any, cast
from urllib.parse import quote

import grpc
import grpc.aio
import structlog
from prometheus_client import Histogram

from eventstore import FIRST_EPOCH, FollowerTooSlow, StoreUnavailable, Turns, check_epoch
from services.listings.pages import EPOCHS
from services.rpc.context import Context, headers_of
from services.rpc.decoding import decoded, decoded_stream
from services.rpc.limits import CallKind, Limiter
from services.rpc.methods import Method, Sources, method_without_sources, methods_of
from services.rpc.positions import HEAD, head_of, positions_in, refuse_ahead, wait_for
from services.rpc.status import MAX_MESSAGE_BYTES, abort, code_of, status_of
from services.validation import check_texts

METRICS = Histogram(
    "rollforward_rpc_seconds",
    "Duration of calls; a watch counts when it ends",
    ["service", "method", "code"],
    registry=None,
)
UNREAD_SECONDS = 30.0
"""How long a watcher may leave responses unread once its stream is full."""

STALE = "rollforward-stale"
"""The initial metadata of a result that may be old because rows do not follow their log; its value is the problem."""

Decode = Callable[[bytes], Any]


class Interceptor(grpc.aio.ServerInterceptor):
    """The interceptor before every method of every service.

    Args:
        turns: Shared work that waits while a call is answered.
        services: By full service name, the state that its results come from.
        problem_of: Returns what keeps a projection from following its log; results from it are marked as stale.

    Raises:
        TypeError: As `methods_of`.
    """

    def __init__(
        self,
        turns: Turns | None = None,
        services: Mapping[str, Sources] | None = None,
        problem_of: Callable[[str], str] = lambda _: "",
    ) -> None:
        self._turns = turns or Turns(1)
        self._methods = dict(chain.from_iterable(methods_of(*service) for service in (services or {}).items()))
        self._problem_of = problem_of
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        self._limiter = Limiter()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Wrap the method's handler; the wrapped handler is kept."""
        path = handler_call_details.method
        if wrapped := self._wrapped.get(path):
            return wrapped
        handler = cast("Any", await continuation(handler_call_details))
        if handler is None or not path.startswith("/rollforward."):
            return cast("grpc.RpcMethodHandler[Any, Any]", handler)
        return self.wrap(path, handler)

    def wrap(self, path: str, handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
        """Return a method's handler with all that runs before and after it; it takes the bytes of a request."""
        if path not in self._wrapped:
            self._wrapped[path] = self._wrap(self._methods.get(path) or method_without_sources(path), handler)
        return self._wrapped[path]

    def _wrap(self, method: Method, handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
        # Without a deserializer of its own, gRPC passes on the bytes of the request.
        decode, encode = handler.request_deserializer, handler.response_serializer
        if handler.unary_stream:
            call = self._streaming(method, handler.unary_stream, decode)
            return grpc.unary_stream_rpc_method_handler(call, None, _EncodedOnce(encode))
        if handler.stream_unary:
            call = self._uploading(method, handler.stream_unary, decode)
            return grpc.stream_unary_rpc_method_handler(call, None, encode)
        call = self._unary(method, handler.unary_unary, decode)
        return grpc.unary_unary_rpc_method_handler(call, None, encode)

    def _unary(self, method: Method, inner: Callable[[Any, Context], Awaitable[Any]], decode: Decode) -> Any:
        async def call(data: bytes, context: Context) -> Any:
            async with _Guarded(method, context):
                with self._limiter.admitted(CallKind.UNARY), self._turns.urgent():
                    request = decoded(data, decode)
                    check_texts(request)
                    if method.is_command:
                        _check_writable(method.sources)
                    _send_epochs(method.sources, context)
                    await self._wait(method, context)
                    response = await inner(request, context)
                    if method.sources.rows:
                        _stamp(response, method.sources.rows[0].store.epochs[-1])
                    return response

        return call

    def _uploading(self, method: Method, inner: Callable[[Any, Context], Awaitable[Any]], decode: Decode) -> Any:
        async def call(parts: AsyncIterator[bytes], context: Context) -> Any:
            async with _Guarded(method, context):
                with self._limiter.admitted(CallKind.UPLOAD):
                    await self._wait(method, context)
                    async with aclosing(decoded_stream(parts, decode)) as requests:
                        return await inner(requests, context)

        return call

    def _streaming(self, method: Method, inner: Callable[[Any, Context], AsyncGenerator[Any]], decode: Decode) -> Any:
        async def responses(data: bytes, context: Context) -> AsyncGenerator[Any]:
            with self._limiter.admitted(CallKind.STREAM):
                request = decoded(data, decode)
                check_texts(request)
                _send_epochs(method.sources, context)
                await self._wait(method, context)
                async with aclosing(inner(request, context)) as made:
                    async for response in made:
                        yield response

        async def call(data: bytes, context: Context) -> AsyncIterator[Any]:
            async with _Guarded(method, context), aclosing(responses(data, context)) as made:
                async for response in made:
                    yield response

        async def watch(data: bytes, context: Context) -> None:
            async with _Guarded(method, context), aclosing(responses(data, context)) as made:
                async for response in made:
                    await _send(response, context)

        return watch if method.name.startswith("Watch") else call

    async def _wait(self, method: Method, context: Context) -> None:
        """Wait until what a method reads has reached the positions, or the head, that the caller asks for."""
        problems: list[str] = []
        wanted = positions_in(headers_of(context).get("rollforward-min-position", ""))
        for source in method.reads:
            position, epoch = wanted.get(source.store.log, (0, 0))
            if position:
                check_epoch(source.store.log, epoch, source.store.epochs[-1])
            position = await head_of(source, context) if HEAD in wanted else position
            if position > source.position:
                if HEAD not in wanted:
                    await refuse_ahead(source, position, context)
                await wait_for(source, position, context)
            if problem := self._problem_of(source.name):
                problems.append(problem)
        if problems:
            text = quote("; ".join(dict.fromkeys(problems))[:MAX_MESSAGE_BYTES])
            await context.send_initial_metadata(((STALE, text),))


def _send_epochs(sources: Sources, context: Context) -> None:
    """Send the epochs of the logs that a service reads in the trailing metadata, unless all are the first.

    Page tokens hold them too.
    """
    epochs = {source.store.log: source.store.epochs[-1] for source in sources.rows}
    EPOCHS.set(epochs)
    if changed := [f"{log}={epoch}" for log, epoch in epochs.items() if epoch != FIRST_EPOCH]:
        context.set_trailing_metadata((("rollforward-epoch", ",".join(changed)),))


def _check_writable(sources: Sources) -> None:
    """Reject a command if its result could not be read, nor whether it is a repeat."""
    for source in sources.of_commands:
        if source.failure:
            problem = getattr(source, "why_failed", "") or f"{source.name} failed"
            raise StoreUnavailable(
                f"{problem}. Commands are rejected until it recovers", "PROJECTION_FAILED"
            ) from source.failure


def _stamp(response: Any, epoch: int) -> None:
    """Set the epoch of the revisions and positions in a response."""
    if epoch != FIRST_EPOCH and "epoch" in response.DESCRIPTOR.fields_by_name:
        response.epoch = epoch


class _EncodedOnce:
    """An encoder that encodes a response sent to many watchers in turn once; the response must not change meanwhile."""

    __slots__ = ("_encode", "_last")

    def __init__(self, encode: Callable[[Any], bytes]) -> None:
        self._encode = encode
        self._last: tuple[Any, bytes] = (None, b"")

    def __call__(self, response: Any) -> bytes:
        if self._last[0] is not response:
            self._last = response, self._encode(response)
        return self._last[1]


class _Guarded:
    """The frame of one call: names it in the log, counts it, and turns its error into a status."""

    __slots__ = ("_context", "_method", "_started")

    def __init__(self, method: Method, context: Context) -> None:
        self._method = method
        self._context = context
        self._started = time.perf_counter()

    async def __aenter__(self) -> None:
        # Never unbound: each call has a task of its own.
        structlog.contextvars.bind_contextvars(service=self._method.service, method=self._method.name)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self._count("OK")
        elif isinstance(error, grpc.aio.AbortError):
            self._count("ABORTED")
        elif isinstance(error, Exception):
            status = status_of(error)
            self._count(code_of(status).name)
            await abort(self._context, status, getattr(error, "evaluated_at", None))
        else:
            self._count("CANCELLED")

    def _count(self, code: str) -> None:
        seconds = time.perf_counter() - self._started
        METRICS.labels(self._method.service, self._method.name, code).observe(seconds)


async def _send(response: Any, context: Context) -> None:
    """Send a response of a watch; wait while the watcher does not read.

    Raises:
        FollowerTooSlow: It read nothing for `UNREAD_SECONDS`.
    """
    try:
        async with asyncio.timeout(UNREAD_SECONDS):
            await context.write(response)
    except TimeoutError as error:
        raise FollowerTooSlow from error

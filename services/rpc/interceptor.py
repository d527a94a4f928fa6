"""The edge of every service: who calls, what must have been applied before, and how an error becomes a status."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from types import TracebackType
from typing import Any, cast
from urllib.parse import quote

import grpc
import grpc.aio
import structlog
from google.protobuf import descriptor_pool
from prometheus_client import Histogram

from eventstore import FIRST_EPOCH, FollowerTooSlow, StoreUnavailable, Turns, check_epoch
from services.listings.pages import EPOCHS
from services.rpc.context import Context, headers_of
from services.rpc.decoding import decoded, decoded_stream
from services.rpc.limits import CallKind, Limiter
from services.rpc.positions import HEAD, Follows, head_of, positions_in, refuse_ahead, wait_for
from services.rpc.status import LONGEST_MESSAGE, abort, code_of, status_of
from services.validation import check_texts

METRICS = Histogram(
    "rollforward_rpc_seconds",
    "How long calls took; a watch counts when it ends",
    ["service", "method", "code"],
    registry=None,
)
UNREAD_SECONDS = 30.0
"""For how long a watcher may leave unread what its stream can take no more of."""


STALE = "rollforward-stale"
"""The initial metadata of a result that may be old because rows do not follow their log: it says why."""


WITHOUT_ROWS = frozenset(
    {
        *("CreateExperiment", "RenameExperiment", "ChangeExperimentTags", "DeleteExperiment", "RestoreExperiment"),
        *("StartRun", "ResumeRun", "AttendRun", "LogBatch", "LogLineage", "LogArtifact", "FinishRun"),
        *("RenameRun", "DescribeRun", "DeleteRun", "RestoreRun"),
        *("CreateLoggedModel", "LogLoggedModel", "LogLoggedModelArtifact", "FinalizeLoggedModel"),
        *("DeleteLoggedModel", "RestoreLoggedModel", "StartPod", "AcknowledgeAssignment", "StopPod"),
        *("MoveAlias", "MoveAliases", "RemoveAlias", "ScheduleMove", "CancelSchedule", "Rollback", "ResolveAlias"),
        *("RenameModel", "SetDescription", "ChangeTags", "DeleteModel", "RestoreModel", "SetRegistrationGate"),
        *("SetVersionStatus", "DeleteVersion", "RestoreVersion", "SetPolicy", "RemovePolicy"),
    }
)
"""Methods that do not care how far the rows have come: the log or memory answers, or they wait themselves."""

Decode = Callable[[bytes], Any]


class Interceptor(grpc.aio.ServerInterceptor):
    """Stands before every method of every service.

    Args:
        turns: What is done in them is held back while a call is answered.

    Attributes:
        rows: By full service name, the projections that its answers come from; the first is of the log that its
            commands write to.
        memory: By full service name, what methods `WITHOUT_ROWS` answer from.
        problem_of: Says what keeps a projection from following its log; results from it are marked as stale.
    """

    def __init__(self, turns: Turns | None = None) -> None:
        self._turns = turns or Turns(1)
        self.rows: dict[str, list[Follows]] = {}
        self.memory: dict[str, list[Follows]] = {}
        self.problem_of: Callable[[str], str] = lambda _: ""
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        self._limiter = Limiter()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Wraps the method's handler, once."""
        path = handler_call_details.method
        if wrapped := self._wrapped.get(path):
            return wrapped
        handler = cast("Any", await continuation(handler_call_details))
        service, _, method = path.removeprefix("/").partition("/")
        if handler is None or not service.startswith("rollforward."):
            return cast("grpc.RpcMethodHandler[Any, Any]", handler)
        self._wrapped[path] = self._wrap(service, method, handler)
        return self._wrapped[path]

    def _wrap(self, service: str, method: str, handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
        # Without a deserializer of its own, gRPC gives the call the bytes that came.
        decode, encode = handler.request_deserializer, handler.response_serializer
        if handler.unary_stream:
            call = self._streaming(service, method, handler.unary_stream, decode)
            return grpc.unary_stream_rpc_method_handler(call, None, _EncodedOnce(encode))
        if handler.stream_unary:
            call = self._uploading(service, method, handler.stream_unary, decode)
            return grpc.stream_unary_rpc_method_handler(call, None, encode)
        call = self._answering(service, method, handler.unary_unary, decode)
        return grpc.unary_unary_rpc_method_handler(call, None, encode)

    def _answering(
        self, service: str, method: str, inner: Callable[[Any, Context], Awaitable[Any]], decode: Decode
    ) -> Any:
        name = service.rpartition(".")[2]
        writes = is_command(service, method)

        async def call(data: bytes, context: Context) -> Any:
            async with _Guarded(name, method, context):
                with self._limiter.admitted(CallKind.UNARY), self._turns.urgent():
                    request = decoded(data, decode)
                    check_texts(request)
                    if writes:
                        self._check_writable(service)
                    self._tell_epochs(service, context)
                    await self._wait(service, method, context)
                    response = await inner(request, context)
                    if own := self.rows.get(service):
                        _stamp(response, own[0].store.epochs[-1])
                    return response

        return call

    def _uploading(
        self, service: str, method: str, inner: Callable[[Any, Context], Awaitable[Any]], decode: Decode
    ) -> Any:
        name = service.rpartition(".")[2]

        async def call(parts: AsyncIterator[bytes], context: Context) -> Any:
            async with _Guarded(name, method, context):
                with self._limiter.admitted(CallKind.UPLOAD):
                    await self._wait(service, method, context)
                    async with aclosing(decoded_stream(parts, decode)) as requests:
                        return await inner(requests, context)

        return call

    def _streaming(
        self, service: str, method: str, inner: Callable[[Any, Context], AsyncGenerator[Any]], decode: Decode
    ) -> Any:
        name = service.rpartition(".")[2]

        async def responses(data: bytes, context: Context) -> AsyncGenerator[Any]:
            with self._limiter.admitted(CallKind.STREAM):
                request = decoded(data, decode)
                check_texts(request)
                self._tell_epochs(service, context)
                await self._wait(service, method, context)
                async with aclosing(inner(request, context)) as made:
                    async for response in made:
                        yield response

        async def call(data: bytes, context: Context) -> AsyncIterator[Any]:
            async with _Guarded(name, method, context), aclosing(responses(data, context)) as made:
                async for response in made:
                    yield response

        async def watch(data: bytes, context: Context) -> None:
            async with _Guarded(name, method, context), aclosing(responses(data, context)) as made:
                async for response in made:
                    await _send(response, context)

        return watch if method.startswith("Watch") else call

    def _tell_epochs(self, service: str, context: Context) -> None:
        """Send the epochs of the logs that a service answers from along with the answer, unless all are the first.

        Page tokens hold them too.
        """
        stores = {source.store.log: source.store.epochs[-1] for source in self.rows.get(service, ())}
        EPOCHS.set(stores)
        if changed := [f"{log}={epoch}" for log, epoch in stores.items() if epoch != FIRST_EPOCH]:
            context.set_trailing_metadata((("rollforward-epoch", ",".join(changed)),))

    def _check_writable(self, service: str) -> None:
        """Refuses a command when nobody could see what it did, nor whether it was done before."""
        for source in (*self.rows.get(service, ())[:1], *self.memory.get(service, ())):
            if source.failure:
                words = f"{getattr(source, 'why_failed', '') or source.name + ' failed'}; commands are refused"
                raise StoreUnavailable(words, "PROJECTION_FAILED") from source.failure

    async def _wait(self, service: str, method: str, context: Context) -> None:
        """Wait until the result's sources have reached the positions, or the head, that the caller asks for."""
        stale: list[str] = []
        wanted = positions_in(headers_of(context).get("rollforward-min-position", ""))
        for source in (self.memory if method in WITHOUT_ROWS else self.rows).get(service, ()):
            position, epoch = wanted.get(source.store.log, (0, 0))
            if position:
                check_epoch(source.store.log, epoch, source.store.epochs[-1])
            position = await head_of(source, context) if HEAD in wanted else position
            if position > source.position:
                if HEAD not in wanted:
                    await refuse_ahead(source, position, context)
                await wait_for(source, position, context)
            if problem := self.problem_of(source.name):
                stale.append(problem)
        if stale:
            await context.send_initial_metadata(((STALE, quote("; ".join(dict.fromkeys(stale))[:LONGEST_MESSAGE])),))


def _stamp(response: Any, epoch: int) -> None:
    """Set the epoch that the revisions and positions in an answer are of."""
    if epoch != FIRST_EPOCH and "epoch" in response.DESCRIPTOR.fields_by_name:
        response.epoch = epoch


def is_command(service: str, method: str) -> bool:
    """Whether a method writes events: it is given a request id, and tells a position."""
    found = descriptor_pool.Default().FindMethodByName(f"{service}.{method}")
    return "request_id" in found.input_type.fields_by_name and "position" in found.output_type.fields_by_name


class _EncodedOnce:
    """Encodes what many watchers are told in turn only for the first of them; it must not be changed in between."""

    __slots__ = ("_encode", "_last")

    def __init__(self, encode: Callable[[Any], bytes]) -> None:
        self._encode = encode
        self._last: tuple[Any, bytes] = (None, b"")

    def __call__(self, response: Any) -> bytes:
        if self._last[0] is not response:
            self._last = response, self._encode(response)
        return self._last[1]


class _Guarded:
    """Stands around one call: names it in the log, counts it, and turns its error into a status."""

    __slots__ = ("_context", "_method", "_service", "_started")

    def __init__(self, service: str, method: str, context: Context) -> None:
        self._service = service
        self._method = method
        self._context = context
        self._started = time.perf_counter()

    async def __aenter__(self) -> None:
        # Never taken back: each call has a task of its own.
        structlog.contextvars.bind_contextvars(service=self._service, method=self._method)

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
        METRICS.labels(self._service, self._method, code).observe(time.perf_counter() - self._started)


async def _send(response: Any, context: Context) -> None:
    """Send a step of a watch, which waits while the watcher does not read.

    Raises:
        FollowerTooSlow: It read nothing for too long; what is kept for it is let go.
    """
    try:
        async with asyncio.timeout(UNREAD_SECONDS):
            await context.write(response)
    except TimeoutError as error:
        raise FollowerTooSlow from error

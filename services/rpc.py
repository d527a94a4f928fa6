"""The edge of every service: who calls, what must have been applied before, and how an error becomes a status."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Any, Protocol, cast
from urllib.parse import quote, unquote

import grpc
import grpc.aio
import structlog
from google.protobuf import descriptor_pool
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from prometheus_client import Histogram

from eventstore.epochs import FIRST_EPOCH, check_epoch
from eventstore.errors import Conflict, EventTooLarge, Kind, Rejected, StoreUnavailable, TooManyEvents
from eventstore.event import Metadata
from eventstore.store import EventStore
from eventstore.tail import FollowerTooSlow
from eventstore.turns import Turns
from services.actors import check_claimed
from services.decoding import decoded, decoded_stream
from services.limits import CallKind, Limiter
from services.names import check_prose, check_text, check_texts
from services.pages import EPOCHS

DOMAIN = "rollforward"

METRICS = Histogram(
    "rollforward_rpc_seconds",
    "How long calls took; a watch counts when it ends",
    ["service", "method", "code"],
    registry=None,
)
LONGEST_WAIT = 10.0
SOON_SECONDS = 0.05
UNREAD_SECONDS = 30.0
"""For how long a watcher may leave unread what its stream can take no more of."""
HEAD = "head"
"""In place of a position: the head of every log that the result comes from, as it is when the call arrives."""

# What does not fit the 8 KiB that clients take as trailers would reach them as another error.
LONGEST_MESSAGE = 500
LONGEST_METADATA = 600
LARGEST_DETAIL = 3000

STALE = "rollforward-stale"
"""The initial metadata of a result that may be old because rows do not follow their log: it says why."""

_POSITION = re.compile(r"\s*([^=]+)=([0-9]{1,20})(?:@([0-9]{1,20}))?\s*")

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

Context = grpc.aio.ServicerContext[Any, Any]
Decode = Callable[[bytes], Any]

_STATUS = {
    Kind.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Kind.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Kind.EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    Kind.PRECONDITION: grpc.StatusCode.FAILED_PRECONDITION,
}

_logger = structlog.get_logger(__name__)


class Follows(Protocol):
    """What comes to a log's positions one after the other, and can be waited for."""

    @property
    def name(self) -> str: ...
    @property
    def position(self) -> int: ...
    @property
    def store(self) -> EventStore: ...
    @property
    def failure(self) -> BaseException | None: ...
    async def wait_for(self, position: int) -> None: ...


class Command(Protocol):
    """What every command request has; most also have a request id, many a reason."""

    def SerializeToString(self, *, deterministic: bool = ...) -> bytes: ...  # noqa: N802


def metadata(request: Command, context: Context) -> Metadata:
    """What is known about a command besides what it asks for.

    Raises:
        Rejected: INVALID_ACTOR, ACTOR_RESERVED, INVALID_REASON or INVALID_REQUEST_ID.
    """
    headers = _headers(context)
    actor = unquote(headers.get("rollforward-actor", "")) or "anonymous"
    reason, request_id = (str(getattr(request, name, "")) for name in ("reason", "request_id"))
    check_text(actor, "the actor", 255, "INVALID_ACTOR")
    check_claimed(actor)
    check_prose(reason, "the reason", 4000, "INVALID_REASON")
    check_text(request_id, "the request id", 128, "INVALID_REQUEST_ID", shortest=0)
    return Metadata(
        actor=actor,
        reason=reason,
        request_id=request_id,
        request_digest=_digest(request) if request_id else "",
        correlation_id=headers.get("rollforward-correlation-id", "")[:128],
        traceparent=headers.get("traceparent", "")[:128],
    )


def _digest(request: Command) -> str:
    body = f"{type(request).__name__}\0".encode() + request.SerializeToString(deterministic=True)
    return hashlib.sha256(body).hexdigest()


def _headers(context: Context) -> dict[str, str]:
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


def status_of(error: BaseException) -> Status:
    """The one table from errors to statuses."""
    match error:
        case Rejected():
            return _status(_STATUS[error.kind], error.message, error.reason, error.metadata, error.detail)
        case Conflict():
            return _status(grpc.StatusCode.ABORTED, str(error), error.reason, error.metadata, error.current)
        case EventTooLarge() | TooManyEvents():
            reason = "MESSAGE_TOO_LARGE" if isinstance(error, EventTooLarge) else "TOO_MANY_EVENTS"
            limits = {"size": str(error.size), "limit": str(error.limit)}
            return _status(grpc.StatusCode.INVALID_ARGUMENT, str(error), reason, limits)
        case FollowerTooSlow():
            words = "the watcher did not keep up; resume from the last position received"
            return _status(grpc.StatusCode.UNAVAILABLE, words, "WATCHER_TOO_SLOW")
        case StoreUnavailable():
            return _status(grpc.StatusCode.UNAVAILABLE, str(error), error.reason)
        case _:
            error_id = uuid.uuid4().hex
            _logger.error("internal error", error_id=error_id, exc_info=error)
            words = f"internal error {error_id}"
            return _status(grpc.StatusCode.INTERNAL, words, "INTERNAL", {"error_id": error_id})


def _status(
    code: grpc.StatusCode,
    message: str,
    reason: str,
    about: Mapping[str, str] | None = None,
    detail: Message | None = None,
) -> Status:
    status = Status(code=code.value[0], message=_cut(message, LONGEST_MESSAGE))
    short = {key: _cut(value, LONGEST_METADATA // len(about)) for key, value in about.items()} if about else {}
    status.details.add().Pack(ErrorInfo(reason=reason, domain=DOMAIN, metadata=short))
    if detail is not None and detail.ByteSize() <= LARGEST_DETAIL:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _cut(text: str, longest: int) -> str:
    """A text of at most so many bytes in UTF-8."""
    whole = text.encode()
    return text if len(whole) <= longest else whole[: longest - 3].decode(errors="ignore") + "..."


def _code(status: Status) -> grpc.StatusCode:
    return next(code for code in grpc.StatusCode if code.value[0] == status.code)


async def abort(context: Context, status: Status, judged_at: tuple[str, int] | None = None) -> None:
    """End a call with a status, and with the position at which it was judged."""
    trailer: list[tuple[str, str | bytes]] = [("grpc-status-details-bin", status.SerializeToString())]
    if judged_at:
        # Read your refusals: who reads from there on sees what stood in the way.
        trailer.append(("rollforward-position", "{}={}".format(*judged_at)))
    await context.abort(_code(status), status.message, trailing_metadata=tuple(trailer))


class Edge(grpc.aio.ServerInterceptor):
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
        wanted = _positions(_headers(context).get("rollforward-min-position", ""))
        for source in (self.memory if method in WITHOUT_ROWS else self.rows).get(service, ()):
            position, epoch = wanted.get(source.store.log, (0, 0))
            if position:
                check_epoch(source.store.log, epoch, source.store.epochs[-1])
            position = await _head(source, context) if HEAD in wanted else position
            if position > source.position:
                if HEAD not in wanted:
                    await _refuse_ahead(source, position, context)
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
            self._count(_code(status).name)
            await abort(self._context, status, getattr(error, "judged_at", None))
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


async def wait_for(source: Follows, position: int, context: Context) -> None:
    """Wait for a position within the call's deadline.

    Raises:
        StoreUnavailable: PROJECTION_BEHIND when it did not get there in time.
    """
    try:
        async with asyncio.timeout(_patience(context)):
            await source.wait_for(position)
    except TimeoutError as error:
        words = f"projection {source.name} is at {source.position}, not yet at {position}"
        raise StoreUnavailable(words, "PROJECTION_BEHIND") from error


async def _refuse_ahead(source: Follows, position: int, context: Context) -> None:
    """Refuse a position that the log has not reached.

    The log is asked only after a moment: mostly the position is that of a write just made, and the source nearly there.

    Raises:
        Rejected: POSITION_AHEAD.
        StoreUnavailable: The log does not answer within the call's deadline.
    """
    try:
        async with asyncio.timeout(min(SOON_SECONDS, _patience(context))):
            await source.wait_for(position)
    except TimeoutError:
        head = await _within(context, source, source.store.head())
        if position <= head:
            return
        words = f"the {source.store.log} log has not reached position {position}: it is at {head}"
        raise Rejected(Kind.INVALID, "POSITION_AHEAD", words, log=source.store.log, position=str(position)) from None


async def _head(source: Follows, context: Context) -> int:
    """Return the position of the log's last event, asked of the log itself: other processes write to it too.

    Raises:
        StoreUnavailable: The log does not answer within the call's deadline.
    """
    head = await _within(context, source, source.store.head())
    # What was erased at the end is never reached; `last` moves a whole event, so it is asked only then.
    return head if head <= source.position else await _within(context, source, source.store.last())


async def _within(context: Context, source: Follows, position: Awaitable[int]) -> int:
    """Return what a log answers within the call's deadline."""
    try:
        async with asyncio.timeout(_patience(context)):
            return await position
    except TimeoutError as error:
        raise StoreUnavailable(f"the {source.store.log} log does not answer; its head is not known") from error


def _patience(context: Context) -> float:
    remaining = context.time_remaining()
    return min(LONGEST_WAIT, remaining * 0.9) if remaining is not None else LONGEST_WAIT


def _positions(header: str) -> dict[str, tuple[int, int]]:
    """Return the position of each log in a header, and the epoch that it was read in; 0 when none is given."""
    wanted: dict[str, tuple[int, int]] = {}
    for part in header.split(",") if header else ():
        if part.strip() == HEAD:
            wanted[HEAD] = 0, 0
            continue
        named = _POSITION.fullmatch(part)
        if named is None:
            words = f"not a position of a log: {part[:100]!r}"
            raise Rejected(Kind.INVALID, "INVALID_MIN_POSITION", words, header=header[:200])
        wanted[named[1]] = int(named[2]), int(named[3] or 0)
    return wanted

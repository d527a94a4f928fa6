"""The one table from errors to gRPC statuses."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

import grpc
import grpc.aio
import structlog
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from eventstore import Conflict, EventTooLarge, FollowerTooSlow, Kind, Rejected, StoreUnavailable, TooManyEvents
from services.rpc.context import Context

DOMAIN = "rollforward"

# Clients accept 8 KiB of trailers; larger ones would arrive as another error.
MAX_MESSAGE_BYTES = 500

MAX_METADATA_BYTES = 600

LARGEST_DETAIL = 3000

_STATUS = {
    Kind.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Kind.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Kind.EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    Kind.PRECONDITION: grpc.StatusCode.FAILED_PRECONDITION,
}

_logger = structlog.get_logger(__name__)


def status_of(error: BaseException) -> Status:
    """Return the status of an error: the one table from errors to statuses."""
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
            message = "the watcher is too slow. Resume from the last position received"
            return _status(grpc.StatusCode.UNAVAILABLE, message, "WATCHER_TOO_SLOW")
        case StoreUnavailable():
            return _status(grpc.StatusCode.UNAVAILABLE, str(error), error.reason)
        case _:
            error_id = uuid.uuid4().hex
            _logger.error("internal error", error_id=error_id, exc_info=error)
            message = f"internal error {error_id}. Search the server's log for this id"
            return _status(grpc.StatusCode.INTERNAL, message, "INTERNAL", {"error_id": error_id})


def _status(
    code: grpc.StatusCode,
    message: str,
    reason: str,
    fields: Mapping[str, str] | None = None,
    detail: Message | None = None,
) -> Status:
    status = Status(code=code.value[0], message=_cut(message, MAX_MESSAGE_BYTES))
    short = {key: _cut(value, MAX_METADATA_BYTES // len(fields)) for key, value in fields.items()} if fields else {}
    status.details.add().Pack(ErrorInfo(reason=reason, domain=DOMAIN, metadata=short))
    if detail is not None and detail.ByteSize() <= LARGEST_DETAIL:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _cut(text: str, max_bytes: int) -> str:
    """Return a text cut to a maximum number of bytes in UTF-8."""
    whole = text.encode()
    return text if len(whole) <= max_bytes else whole[: max_bytes - 3].decode(errors="ignore") + "..."


def code_of(status: Status) -> grpc.StatusCode:
    """Return the gRPC code of a status."""
    return next(code for code in grpc.StatusCode if code.value[0] == status.code)


async def abort(context: Context, status: Status, evaluated_at: tuple[str, int] | None = None) -> None:
    """End a call with a status, and with the position at which it was evaluated."""
    trailer: list[tuple[str, str | bytes]] = [("grpc-status-details-bin", status.SerializeToString())]
    if evaluated_at:
        # A read from this position shows why the command was rejected.
        trailer.append(("rollforward-position", "{}={}".format(*evaluated_at)))
    await context.abort(code_of(status), status.message, trailing_metadata=tuple(trailer))

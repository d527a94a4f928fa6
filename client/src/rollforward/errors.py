"""The client's exceptions, and the conversion of failed calls."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeVar

import grpc
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import DecodeError, Message

from rollforward import v1

DETAILS_KEY: Final = "grpc-status-details-bin"
POSITION_KEY: Final = "rollforward-position"
EPOCH_KEY: Final = "rollforward-epoch"
EPOCH_CHANGED: Final = "LOG_EPOCH_CHANGED"
DOMAIN: Final = "rollforward"

_M = TypeVar("_M", bound=Message)


class RollforwardError(Exception):
    """The base class of the errors of the client and of the services.

    `reason` is a stable code to decide by ("VERSION_NOT_FOUND"); `metadata` names the items that it is about; `message`
    is for people and may change. If a command's outcome is unknown, `request_id` is the id that it was sent with: to
    repeat it safely, call it again with this `request_id`.
    """

    def __init__(
        self,
        reason: str,
        message: str = "",
        metadata: Mapping[str, str] | None = None,
        details: Sequence[Packed] = (),
    ) -> None:
        # All fields in args, so that the exception can be pickled.
        super().__init__(reason, message, dict(metadata or {}), tuple(details))
        self.reason = reason
        self.message = message
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self.details = tuple(details)
        self.request_id = ""

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), self.args, {"request_id": self.request_id}

    def __str__(self) -> str:
        return f"{self.message} ({self.reason})" if self.message else self.reason

    def _detail(self, kind: type[_M]) -> _M | None:
        for packed in self.details:
            detail = kind()
            if packed.Unpack(detail):
                return detail
        return None


class RollforwardWarning(UserWarning):
    """A warning about a successful command whose outcome may be unintended."""


class InvalidRequest(RollforwardError):
    """An invalid request: a bad name, a wrong type, a message that is too large."""


class NotFound(RollforwardError):
    """An item in the request does not exist."""


class AlreadyExists(RollforwardError):
    """The item to create exists already."""


class PreconditionFailed(RollforwardError):
    """A valid request that the current state forbids: a gate, a policy, a parameter that never changes."""

    @property
    def evidence(self) -> v1.GateEvidence | None:
        """The evidence and result of the gate that failed; None if no gate failed, or it is too large for an error."""
        return self._detail(v1.GateEvidence)


class Conflict(RollforwardError):
    """A concurrent change: read again, then decide again."""

    @property
    def current(self) -> v1.Alias | None:
        """The alias's current assignment, if the expected revision was wrong."""
        return self._detail(v1.Alias)


class Unavailable(RollforwardError):
    """No response within the deadline.

    The outcome of a command is unknown; repeat it safely with its `request_id`.
    """


class Forbidden(RollforwardError):
    """The actor lacks the permission."""


class Unauthenticated(RollforwardError):
    """The actor is unknown."""


class InternalError(RollforwardError):
    """The server failed, or sent damaged data."""


CLASS_OF: Final[Mapping[grpc.StatusCode, type[RollforwardError]]] = MappingProxyType(
    {
        grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
        grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
        grpc.StatusCode.RESOURCE_EXHAUSTED: InvalidRequest,
        grpc.StatusCode.NOT_FOUND: NotFound,
        grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
        grpc.StatusCode.FAILED_PRECONDITION: PreconditionFailed,
        grpc.StatusCode.ABORTED: Conflict,
        grpc.StatusCode.UNAVAILABLE: Unavailable,
        grpc.StatusCode.DEADLINE_EXCEEDED: Unavailable,
        grpc.StatusCode.CANCELLED: Unavailable,
        grpc.StatusCode.PERMISSION_DENIED: Forbidden,
        grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    }
)


def from_rpc_error(error: grpc.RpcError) -> RollforwardError:
    """Return the exception for a failed call; an InternalError for an unknown status."""
    if not isinstance(error, grpc.Call):
        return InternalError("UNKNOWN", str(error))
    code = error.code()
    if _is_response_too_large(error):
        message = f"response too large: {error.details()}. Request less, such as a smaller page"
        return InternalError("ANSWER_TOO_LARGE", message)
    kind = CLASS_OF.get(code, InternalError)
    details = _details(error)
    info = _error_info(details)
    if info is None:
        return _from_grpc_itself(code, error.details() or "", details)
    return kind(info.reason, error.details() or "", info.metadata, details)


def evaluated_at(error: grpc.RpcError) -> tuple[str, int] | None:
    """Return the log and position at which a command was rejected; None if it was not evaluated."""
    if not isinstance(error, grpc.Call):
        return None
    for key, value in error.trailing_metadata() or ():
        log, _, position = str(value).partition("=")
        if key == POSITION_KEY and position.isascii() and position.isdecimal():
            return log, int(position)
    return None


def _is_response_too_large(error: grpc.Call) -> bool:
    # The same status means that a request is too large, which is the caller's fault; only gRPC's text differs.
    return error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and (error.details() or "").startswith("CLIENT: Received")


def epochs_in(trailers: Iterable[tuple[str, str | bytes]] | None) -> Iterator[tuple[str, int]]:
    """Yield the logs of a result with their epochs, except logs in their first epoch."""
    for key, value in trailers or ():
        for part in str(value).split(",") if key == EPOCH_KEY else ():
            log, _, epoch = part.partition("=")
            if epoch.isascii() and epoch.isdecimal():
                yield log, int(epoch)


def _from_grpc_itself(code: grpc.StatusCode, message: str, details: Sequence[Packed]) -> RollforwardError:
    # gRPC's own errors carry no reason. It enforces two limits: the size of messages, and the number of concurrent
    # calls.
    if code is not grpc.StatusCode.RESOURCE_EXHAUSTED:
        return CLASS_OF.get(code, InternalError)(code.name, message, details=details)
    if "concurrent" in message.lower():
        return Unavailable("TOO_MANY_CALLS", message, details=details)
    return InvalidRequest("MESSAGE_TOO_LARGE", message, details=details)


def _details(call: grpc.Call) -> Sequence[Packed]:
    for key, value in call.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                return v1.Status.FromString(value).details
            except DecodeError:
                # Another program's trailer, such as a proxy's: the status code still gives the class.
                return ()
    return ()


def _error_info(details: Sequence[Packed]) -> v1.ErrorInfo | None:
    for packed in details:
        if packed.TypeName() == "google.rpc.ErrorInfo":
            info = v1.ErrorInfo.FromString(packed.value)
            if info.domain == DOMAIN:
                return info
    return None

"""The connection to the services: channels, positions, deadlines and retries."""

from __future__ import annotations

import os
import threading
import uuid
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import unquote

import grpc
from google.protobuf.message import Message

from rollforward._transport.address import DEFAULT_ADDRESS
from rollforward._transport.backoff import Backoff
from rollforward._transport.call_settings import checked_timeout, fixed_metadata, os_user
from rollforward._transport.channel import is_response, is_retryable, refused_connection
from rollforward._transport.epochs import Epochs
from rollforward._transport.response_warnings import warn
from rollforward._transport.stubs import Stubs
from rollforward.errors import (
    EPOCH_CHANGED,
    InternalError,
    RollforwardError,
    Unavailable,
    epochs_in,
    evaluated_at,
    from_rpc_error,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

DEFAULT_TIMEOUT: Final = 30.0
# In place of positions: the result must include everything up to the head of its logs.
_HEAD: Final = "head"
# The initial metadata of a possibly stale result: reason its rows do not follow their log.
_STALE: Final = "rollforward-stale"
# How long a command tries to connect if nothing has ever answered at the address, in seconds.
CONNECT_SECONDS: Final = 0.5
# The log of a result's position, by the file that declares the result.
_LOG_OF_FILE: Final[Mapping[str, str]] = {
    f"rollforward/v1/{log}_service.proto": log for log in ("tracking", "registry", "serving")
} | {
    "rollforward/v1/webhook_service.proto": "webhooks",
    "rollforward/v1/policy_service.proto": "registry",
    "rollforward/v1/logged_model_service.proto": "tracking",
}

_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response", bound=Message)
_T = TypeVar("_T")


def new_request_id() -> str:
    """Return a random id, 32 hex digits, with which a command may be repeated safely."""
    return uuid.uuid4().hex


class Connection(Stubs):
    """Channels to the services; safe for use by many threads.

    Reads see this connection's own writes: it remembers the highest position of each log and sends it along. If
    results may be stale, because a service's rows do not follow their log, it warns once (RollforwardWarning).
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        actor: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        correlation_id: str = "",
        read_at_head: bool = False,
    ) -> None:
        """Prepare a connection without connecting. See Client for the arguments.

        Raises:
            InvalidRequest: INVALID_ADDRESS, INVALID_TIMEOUT, INVALID_CORRELATION_ID.
        """
        super().__init__(address or os.environ.get("ROLLFORWARD_URI") or DEFAULT_ADDRESS)
        self.actor = actor or os.environ.get("ROLLFORWARD_ACTOR") or os_user()
        self.timeout = checked_timeout(timeout)
        self._fixed = fixed_metadata(self.actor, correlation_id)
        self._read_at_head = read_at_head
        self._lock = threading.Lock()
        self._positions: dict[str, int] = {}
        self._epochs = Epochs()
        self._stale_files: set[str] = set()
        self._answered = False
        self.refused = False
        """True if nothing listens at the address: it has never answered, and refused the last call."""

    def call(
        self,
        method: grpc.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        *,
        timeout: float | None = None,
        connect_timeout: float = CONNECT_SECONDS,
    ) -> _Response:
        """Send one request, and retry while the service is unreachable.

        Args:
            method: The stub's method.
            request: The request.
            timeout: Seconds for the call with all its retries; by default the connection's.
            connect_timeout: Seconds to try to connect if nothing has ever answered at the address.

        Raises:
            RollforwardError: The call failed. If a command's outcome is unknown, the error has its `request_id`.
        """
        try:
            return self.retry(
                lambda seconds: self._answer(method, request, seconds), timeout=timeout, connect_timeout=connect_timeout
            )
        except (Unavailable, InternalError) as error:
            error.request_id = getattr(request, "request_id", "")
            raise

    def retry(
        self,
        attempt: Callable[[float | None], _T],
        *,
        timeout: float | None = None,
        connect_timeout: float = CONNECT_SECONDS,
    ) -> _T:
        """Call `attempt` with the seconds left, and retry while the service is unreachable.

        Raises the RollforwardError of the last attempt.
        """
        backoff = Backoff(self.timeout if timeout is None else checked_timeout(timeout))
        connecting = Backoff(connect_timeout, max_pause=0.1)
        while True:
            self.raise_if_closed()
            try:
                answer = attempt(backoff.remaining())
            except grpc.RpcError as error:
                if self.adopts_epoch(error):
                    continue
                pauses = connecting if self.note_failure(error) else backoff
                if not is_retryable(error) or not pauses.pause():
                    if seen := evaluated_at(error):
                        self.note_position(*seen)
                    raise self.failure(error) from error
            except ValueError:
                # gRPC raises it for a channel that another thread has just closed.
                self.raise_if_closed()
                raise
            else:
                self.note_response()
                return answer

    def stream(
        self,
        method: grpc.UnaryStreamMultiCallable[_Request, _Response],
        request: _Request,
        *,
        timeout: float | None = None,
    ) -> Iterator[_Response]:
        """Yield the results of one request, without retries; without a deadline unless a timeout in seconds is given.

        Raises a RollforwardError if the call fails. Leaving the loop cancels the call.
        """
        self.raise_if_closed()
        while True:
            call = method(request, timeout=timeout, metadata=self.metadata())
            try:
                for number, answer in enumerate(call):
                    self.note_response()
                    if number == 0:
                        self._warn_when_stale(call, answer)
                    yield answer
            except grpc.RpcError as error:
                if self.adopts_epoch(error):  # rejected before the first result
                    continue
                self.note_failure(error)
                raise self.failure(error) from error
            finally:
                call.cancel()
            return

    def note_response(self) -> None:
        """Note that a service answered at the address."""
        self._answered, self.refused = True, False

    def note_failure(self, error: grpc.RpcError) -> bool:
        """Note a failed call; return whether nothing seems to listen at the address."""
        refusal = refused_connection(error)
        self._answered = self._answered or is_response(error)
        self.refused = bool(refusal) and not self._answered
        return self.refused

    def failure(self, error: grpc.RpcError) -> RollforwardError:
        """Return the exception for a failed call. If it reports another epoch, the caller now knows that epoch."""
        if not (self.refused and (refusal := refused_connection(error))):
            refused = from_rpc_error(error)
            if refused.reason == EPOCH_CHANGED:
                with self._lock:
                    self._epochs.report(refused.metadata.get("log", ""))
            return refused
        endpoints = sorted(set(self.endpoints.values()))
        hint = "Is the server running? Start it with 'rollforward up'"
        message = f"cannot connect to {', '.join(endpoints)}: {refusal}. {hint}"
        return Unavailable(grpc.StatusCode.UNAVAILABLE.name, message)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata of a call: the actor, and the positions that the result must include."""
        with self._lock:
            seen = sorted(self._positions.items())
            known = [f"{log}={position}{self._epochs.suffix(log)}" for log, position in seen]
        positions = ",".join([_HEAD] * self._read_at_head + known)
        return (*self._fixed, ("rollforward-min-position", positions)) if positions else self._fixed

    def note_position(self, log: str, position: int) -> None:
        """Remember a position of a log, so that later reads are not older."""
        with self._lock:
            if position > self._positions.get(log, 0):
                self._positions[log] = position

    def epoch(self, log: str) -> int:
        """Return the epoch in which this connection read revisions of a log; 0 for the first, or if unknown.

        It changes only after LOG_EPOCH_CHANGED was raised.
        """
        with self._lock:
            return self._epochs.read_in.get(log, 0)

    def assume_epoch(self, epoch: int) -> None:
        """Treat the caller's revisions as read in an epoch, whichever connection read them."""
        with self._lock:
            self._epochs.read_in.update(registry=0 if epoch == 1 else epoch, tracking=0 if epoch == 1 else epoch)

    def note_epoch(self, log: str, epoch: int) -> bool:
        """Note the current epoch of a log, 0 for the first; return whether it changed.

        Positions of the previous epoch are dropped: they may name other events now.
        """
        with self._lock:
            if changed := self._epochs.note(log, epoch):
                self._positions.pop(log, None)
            return changed

    def adopts_epoch(self, error: grpc.RpcError) -> bool:
        """Drop the positions of an ended epoch if a call was rejected for them; return whether to repeat the call."""
        refused = from_rpc_error(error)
        if refused.reason != EPOCH_CHANGED:
            return False
        epoch = int(refused.metadata.get("epoch", "0"))
        return self.note_epoch(refused.metadata.get("log", ""), 0 if epoch == 1 else epoch)

    @property
    def positions(self) -> Mapping[str, int]:
        """The highest position seen, by log."""
        with self._lock:
            return dict(self._positions)

    def __repr__(self) -> str:
        return f"Connection({self.address!r}, actor={self.actor!r})"

    def _answer(
        self, method: grpc.UnaryUnaryMultiCallable[_Request, _Response], request: _Request, seconds: float | None
    ) -> _Response:
        response, call = method.with_call(request, timeout=seconds, metadata=self.metadata())
        log = _LOG_OF_FILE.get(response.DESCRIPTOR.file.name)
        self._note_epochs(call, log)
        self._warn_when_stale(call, response)
        if log is not None and "position" in response.DESCRIPTOR.fields_by_name:
            self.note_position(log, int(getattr(response, "position")))  # noqa: B009 - the field differs by message
        return response

    def _note_epochs(self, call: grpc.Call, log: str | None) -> None:
        epochs = dict(epochs_in(call.trailing_metadata()))
        for named in epochs.keys() | ({log} if log else set()):
            self.note_epoch(named, epochs.get(named, 0))

    def _warn_when_stale(self, call: grpc.Call, response: Message) -> None:
        """Warn once that results come from rows that do not follow their log, until they follow it again."""
        reason = next((str(value) for key, value in call.initial_metadata() or () if key == _STALE), "")
        file = response.DESCRIPTOR.file.name
        with self._lock:
            known = file in self._stale_files
            (self._stale_files.add if reason else self._stale_files.discard)(file)
        if reason and not known:
            warn(f"results may be stale: {unquote(reason)}")

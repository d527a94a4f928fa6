"""gRPC channels as the client needs them, and what gRPC says about a call."""

from collections.abc import Iterator
from typing import Final, Protocol, TypeVar

import grpc

from rollforward._transport.address import is_loopback

_MESSAGE_BYTES: Final = 4 * 1024 * 1024
_OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    ("grpc.max_send_message_length", _MESSAGE_BYTES),
    ("grpc.max_receive_message_length", _MESSAGE_BYTES),
    # A peer that vanished without a word is noticed within 40 s, also by a watch that nothing is sent on.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    # Less than a command tries to connect for, so that every command makes an attempt of its own.
    ("grpc.max_reconnect_backoff_ms", 400),
)

# What gRPC says when there is nobody to connect to; it has no other sign of it.
_REFUSALS: Final = {
    "connection refused": "connection refused",
    "dns resolution failed": "host not found",
    "no such host": "host not found",
    "domain name not found": "host not found",
    "http1.x server": "an HTTP server listens there, and no gRPC server",
    "failed parsing http/2": "another protocol is spoken there, and no gRPC",
    "socket closed": "the connection was closed at once; is it a port for gRPC without TLS?",
    "connection reset": "the connection was closed at once; is it a port for gRPC without TLS?",
    "failed to connect to all addresses": "no gRPC server answers",
}

_Answer_co = TypeVar("_Answer_co", covariant=True)


class AnswerStream(Protocol[_Answer_co]):
    """The answers to one request, as they come."""

    def __iter__(self) -> Iterator[_Answer_co]: ...

    def __next__(self) -> _Answer_co: ...

    def cancel(self) -> bool:
        """End the call; False when it was over."""
        ...


def open_channel(endpoint: str) -> grpc.Channel:
    """Open a channel to "host:port"; nothing is sent before the first call."""
    # A proxy for the outside world must not catch calls to this machine.
    proxy = [("grpc.enable_http_proxy", 0)] if is_loopback(endpoint) else []
    return grpc.insecure_channel(endpoint, options=[*_OPTIONS, *proxy])


def refused_connection(error: grpc.RpcError) -> str:
    """Return why no connection could be made, for what waiting seldom mends; an empty text for any other failure."""
    text = (error.details() or "").lower() if isinstance(error, grpc.Call) else ""
    if not text or error.code() is not grpc.StatusCode.UNAVAILABLE:
        return ""
    return next((why for mark, why in _REFUSALS.items() if mark in text), "")


def is_answer(error: grpc.RpcError) -> bool:
    """Return whether a failed call was answered by a server, for all that its status shows."""
    silence = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED}
    return isinstance(error, grpc.Call) and error.code() not in silence


def is_out_of_reach(error: grpc.RpcError) -> bool:
    """Whether the same request may be answered if it is sent again.

    A server that stops in good order cancels what it has received and not begun. What this side cancels ends in the
    same status: whoever asks knows of that before.
    """
    return isinstance(error, grpc.Call) and error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}

"""gRPC channels with the client's options, and the meaning of gRPC's errors."""

from collections.abc import Iterator
from typing import Final, Protocol, TypeVar

import grpc

from rollforward._transport.address import is_loopback

_MESSAGE_BYTES: Final = 4 * 1024 * 1024
_OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    ("grpc.max_send_message_length", _MESSAGE_BYTES),
    ("grpc.max_receive_message_length", _MESSAGE_BYTES),
    # Notices a silent loss of the peer within 40 s, also on a watch that is idle.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    # Shorter than CONNECT_SECONDS, so that every command makes a connection attempt of its own.
    ("grpc.max_reconnect_backoff_ms", 400),
)

# gRPC reports an unreachable server only in its error text.
_REFUSALS: Final = {
    "connection refused": "connection refused",
    "dns resolution failed": "host not found",
    "no such host": "host not found",
    "domain name not found": "host not found",
    "http1.x server": "an HTTP server listens there, not a gRPC server",
    "failed parsing http/2": "the server there does not speak gRPC",
    "socket closed": "the server closed the connection. Is the port for gRPC without TLS?",
    "connection reset": "the server closed the connection. Is the port for gRPC without TLS?",
    "failed to connect to all addresses": "no gRPC server answers",
}

_Response_co = TypeVar("_Response_co", covariant=True)


class ResponseStream(Protocol[_Response_co]):
    """The results of one request, as they arrive."""

    def __iter__(self) -> Iterator[_Response_co]: ...

    def __next__(self) -> _Response_co: ...

    def cancel(self) -> bool:
        """End the call; return False if it has ended already."""
        ...


def open_channel(endpoint: str) -> grpc.Channel:
    """Open a channel to "host:port"; it connects at the first call."""
    # A proxy must not see calls to this machine.
    proxy = [("grpc.enable_http_proxy", 0)] if is_loopback(endpoint) else []
    return grpc.insecure_channel(endpoint, options=[*_OPTIONS, *proxy])


def refused_connection(error: grpc.RpcError) -> str:
    """Return why no connection could be made, if waiting seldom helps; empty for any other failure."""
    text = (error.details() or "").lower() if isinstance(error, grpc.Call) else ""
    if not text or error.code() is not grpc.StatusCode.UNAVAILABLE:
        return ""
    return next((why for mark, why in _REFUSALS.items() if mark in text), "")


def is_response(error: grpc.RpcError) -> bool:
    """Return whether a server responded to a failed call, as far as its status shows."""
    silence = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED}
    return isinstance(error, grpc.Call) and error.code() not in silence


def is_retryable(error: grpc.RpcError) -> bool:
    """Return whether the same request may succeed if it is sent again.

    A server that shuts down gracefully cancels the calls that it has not begun. A call that this side cancels has the
    same status: the caller must check for that first.
    """
    return isinstance(error, grpc.Call) and error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}

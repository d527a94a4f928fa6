"""The gRPC server of a process: its connections, its address, health checks and reflection."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.rpc.addresses import AddressInUse, address_of, bound_socket, host_and_port
from services.rpc.limits import MAX_CALLS, max_connections

MESSAGE_BYTES = 4 * 1024 * 1024
HANDSHAKE_MS = 10_000
AHEAD_BYTES = 256 * 1024
MAX_PING_MS = 20_000


def bounds() -> list[tuple[str, int]]:
    """Return the options that limit the resources of hostile or broken callers, for all our servers."""
    return [
        # A compressed message is unpacked before its size is checked, so compression is disabled.
        ("grpc.compression_enabled_algorithms_bitset", 1),
        # A connection must start HTTP/2 within this time, so that silent connections do not accumulate.
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
        ("grpc.max_allowed_incoming_connections", max_connections()),
    ]


def open_server(interceptor: grpc.aio.ServerInterceptor, dead_after: int) -> grpc.aio.Server:
    """Create a server that detects within `dead_after` seconds that a client's host is gone."""
    ping_ms = dead_after * 500
    options = [
        *bounds(),
        ("grpc.max_receive_message_length", MESSAGE_BYTES),
        ("grpc.max_send_message_length", MESSAGE_BYTES),
        # Without this a second process could take half of the calls of the first.
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", ping_ms),
        ("grpc.keepalive_timeout_ms", min(ping_ms, MAX_PING_MS)),
        ("grpc.http2.ping_timeout_ms", min(ping_ms, MAX_PING_MS)),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.http2.max_ping_strikes", 0),
        # Limit what gRPC buffers of an upload: by default it buffers far more when the machine is busy.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", AHEAD_BYTES),
    ]
    return grpc.aio.server(interceptors=[interceptor], options=options, maximum_concurrent_rpcs=MAX_CALLS)


def listen(server: grpc.aio.Server, address: str) -> str:
    """Make a server listen on ``host:port``, and return the address. Raises `AddressInUse`."""
    host, port = host_and_port(address)
    with bound_socket(address):  # gRPC would only log why this fails
        pass
    try:
        port = server.add_insecure_port(address_of(host, port))
    except RuntimeError as error:
        raise AddressInUse(f"cannot listen on {address}: it is in use, or not an address of this machine") from error
    return address_of(host, port)


HealthServicer = health.aio.HealthServicer


async def set_serving(checks: HealthServicer, name: str, *, serving: bool) -> None:
    """Set the health of a service, or of the process with an empty name."""
    statuses = health_pb2.HealthCheckResponse
    await checks.set(name, statuses.SERVING if serving else statuses.NOT_SERVING)


async def add_health_and_reflection(server: grpc.aio.Server, names: Sequence[str]) -> health.aio.HealthServicer:
    """Add health checks and reflection for these services."""
    full = [f"rollforward.v1.{name}" for name in names]
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    for name in ["", *full]:
        await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection([*full, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    return checks

"""Addresses to listen on: parsing, checks, and a clear error for one in use."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv6Address, ip_address

from eventstore import Kind, Rejected


class AddressInUse(Exception):
    """The address is in use, or does not belong to this machine."""


def host_and_port(address: str) -> tuple[str, int]:
    """Return the parts of ``host:port``.

    Raises:
        Rejected: INVALID_ADDRESS.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not (port.isascii() and port.isdecimal() and len(port) <= 5) or int(port) > 65535:
        raise Rejected(
            Kind.INVALID, "INVALID_ADDRESS", f"invalid address {address!r}: expected HOST:PORT", address=address
        )
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - that is what ":8080" says


def address_of(host: str, port: int) -> str:
    """Return ``host:port``, with brackets around an IPv6 host."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Return whether all addresses of a host, given as an address or a name, are loopback."""
    try:
        resolved = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return all(_is_loopback_address(str(place[0])) for *_, place in resolved)


def _is_loopback_address(text: str) -> bool:
    address = ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def check_reach(address: str, *, insecure: bool) -> None:
    """Reject addresses that other machines can reach, because calls are neither authenticated nor encrypted.

    Args:
        address: ``host:port``; empty for nowhere.
        insecure: Whether this is explicitly allowed.

    Raises:
        Rejected: INSECURE_ADDRESS, INVALID_ADDRESS.
    """
    if not address:
        return
    host, _ = host_and_port(address)
    if insecure or is_loopback(host):
        return
    fault = (
        f"insecure address {address}: calls are neither authenticated nor encrypted. Listen on 127.0.0.1, "
        "or use --insecure on a private network"
    )
    raise Rejected(Kind.INVALID, "INSECURE_ADDRESS", fault, address=address)


def check_free(addresses: Sequence[str]) -> None:
    """Check that all addresses can be listened on; empty ones are ignored.

    Raises:
        Rejected: INVALID_ADDRESS; also for a duplicate.
        AddressInUse: An address is in use, or does not belong to this machine.
    """
    seen: set[tuple[str, int]] = set()
    for address in filter(None, addresses):
        place = host_and_port(address)
        if place[1] and place in seen:
            fault = f"duplicate address {address}: expected another port, or port 0 for a free one"
            raise Rejected(Kind.INVALID, "INVALID_ADDRESS", fault, address=address)
        seen.add(place)
        with bound_socket(address):
            pass


@contextmanager
def bound_socket(address: str) -> Iterator[socket.socket]:
    """Return a socket bound to an address.

    Raises:
        AddressInUse, Rejected.
    """
    host, port = host_and_port(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, port))
        except OSError as error:
            raise AddressInUse(f"cannot listen on {address}: {error.strerror}") from error
        yield bound

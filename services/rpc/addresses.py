"""Listening: addresses as people write them, and a clear word when one is taken."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv6Address, ip_address

from eventstore import Kind, Rejected


class AddressInUse(Exception):
    """Another program listens there, or it is no address of this machine."""


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
    """``host:port``, with the brackets that an IPv6 host needs."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Return whether a host, as an address or a name, is reached from this machine only: each address that it has."""
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
    """Refuse to listen where other machines can call, since callers are neither known nor encrypted.

    Args:
        address: ``host:port``; empty for nowhere.
        insecure: Whether that was asked for by name.

    Raises:
        Rejected: INSECURE_ADDRESS, INVALID_ADDRESS.
    """
    if not address:
        return
    host, _ = host_and_port(address)
    if insecure or is_loopback(host):
        return
    fault = (
        f"{address} is not on loopback, and callers are neither authenticated nor encrypted: listen on 127.0.0.1, "
        "or give --insecure where nobody else can reach it"
    )
    raise Rejected(Kind.INVALID, "INSECURE_ADDRESS", fault, address=address)


def check_free(addresses: Sequence[str]) -> None:
    """Refuse addresses that cannot be listened on, before anything is started for it; empty ones are nowhere.

    Raises:
        Rejected: INVALID_ADDRESS; two are the same.
        AddressInUse: Another program listens there, or it is no address of this machine.
    """
    seen: set[tuple[str, int]] = set()
    for address in filter(None, addresses):
        place = host_and_port(address)
        if place[1] and place in seen:
            fault = f"two addresses are {address}: expected another port, or port 0 for a free one"
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

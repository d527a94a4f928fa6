"""Listening: addresses as people write them, and a clear word when one is taken."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from eventstore.errors import Kind, Rejected


class AddressInUse(Exception):
    """Another program listens there, or it is no address of this machine."""


def host_and_port(address: str) -> tuple[str, int]:
    """The parts of ``host:port``.

    Raises:
        Rejected: INVALID_ADDRESS.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not (port.isascii() and port.isdecimal() and len(port) <= 5) or int(port) > 65535:
        raise Rejected(Kind.INVALID, "INVALID_ADDRESS", f"an address is host:port, not {address!r}", address=address)
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - that is what ":8080" says


def address_of(host: str, port: int) -> str:
    """``host:port``, with the brackets that an IPv6 host needs."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextmanager
def bound_socket(address: str) -> Iterator[socket.socket]:
    """A socket bound to an address.

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

"""Addresses that webhooks may be sent to: public ones unless private ones are allowed, checked at every connection."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

import httpcore
import httpx
from typing_extensions import override

from eventstore import Kind, Rejected

KEEPALIVE_SECONDS = 30.0
RESOLVE_SECONDS = 5.0

_NAT64 = IPv6Network("64:ff9b::/96")
_HERE = ("localhost", "127.0.0.1", "[::1]")


def is_public(address: str) -> bool:
    """Return whether an IP address is public: not loopback, private, link-local or metadata.

    An IPv6 address that embeds an IPv4 address is public if that is.
    """
    parsed = ip_address(address.partition("%")[0])
    if isinstance(parsed, IPv6Address):
        parsed = _embedded_ipv4(parsed) or parsed
    return parsed.is_global and not parsed.is_multicast


def _embedded_ipv4(address: IPv6Address) -> IPv4Address | None:
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)


async def resolve(host: str, port: int) -> list[str]:
    """Resolve a host to its addresses. Raises OSError."""
    resolved = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[0]) for *_, entry in resolved))


async def check_url(url: str) -> None:
    """Check that all addresses of a URL's host are public; a host that cannot be resolved yet is checked at delivery.

    Raises:
        Rejected: PRIVATE_ADDRESS.
    """
    try:
        host = urlsplit(url).hostname or ""
        async with asyncio.timeout(RESOLVE_SECONDS):
            addresses = await resolve(host, 0) if host else []
    except (OSError, ValueError):  # these include timeouts and names that cannot be encoded
        return
    if private := next((address for address in addresses if not is_public(address)), None):
        raise Rejected(Kind.PRECONDITION, "PRIVATE_ADDRESS", _fault(host, private), url=url[:300])


def _fault(host: str, address: str) -> str:
    return f"{host} has the private address {address}. To allow it, start the service with --webhooks-allow-private"


def open_client(*, allow_private: bool, user_agent: str, timeout: float) -> httpx.AsyncClient:
    """Return a client with an unlimited pool of connections, so that no endpoint waits for another.

    It uses the proxy of the environment. The proxy resolves names itself, so a host is checked here before the request.
    """
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=KEEPALIVE_SECONDS)
    direct = httpx.AsyncHTTPTransport(limits=limits) if allow_private else PublicTransport()
    proxies = _proxies(limits)
    hooks: list[Any] = [_check_request] if proxies and not allow_private else []
    return httpx.AsyncClient(
        headers={"user-agent": user_agent},
        transport=direct,
        mounts=proxies,
        event_hooks={"request": hooks},
        timeout=timeout,
        follow_redirects=False,
    )


async def _check_request(request: httpx.Request) -> None:
    try:
        await check_url(str(request.url))
    except Rejected as refusal:
        raise httpx.ConnectError(refusal.message, request=request) from refusal


def _proxies(limits: httpx.Limits) -> dict[str, httpx.AsyncBaseTransport | None]:
    """Return the proxies of the environment by URL pattern; None connects directly."""
    known = getproxies_environment()
    schemes = {scheme: known[scheme] for scheme in ("http", "https", "all") if scheme in known}
    if not schemes:
        return {}
    direct = [part.strip() for part in known.get("no", "").split(",") if part.strip()]
    if "*" in direct:
        return {}
    mounts: dict[str, httpx.AsyncBaseTransport | None] = {
        f"{scheme}://": httpx.AsyncHTTPTransport(proxy=proxy if "://" in proxy else f"http://{proxy}", limits=limits)
        for scheme, proxy in schemes.items()
    }
    return mounts | {pattern: None for host in (*_HERE, *direct) for pattern in _patterns(host)}


def _patterns(host: str) -> Iterable[str]:
    if ":" in host or host.replace(".", "").isdigit():
        return [f"all://{host}"]
    return [f"all://*{host}"] if host.startswith(".") else [f"all://{host}", f"all://*.{host}"]


class PublicTransport(httpx.AsyncHTTPTransport):
    """A transport that connects to public addresses only."""

    def __init__(self) -> None:
        """Open a separate pool of connections."""
        super().__init__()
        # httpx has no argument for the backend. Without this attribute the start must fail, not connect to any address.
        assert isinstance(self._pool, httpcore.AsyncConnectionPool)  # noqa: S101
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            max_connections=None,
            max_keepalive_connections=None,
            keepalive_expiry=KEEPALIVE_SECONDS,
            network_backend=_PublicBackend(),
        )


class _PublicBackend(httpcore.AsyncNetworkBackend):
    """Connects to the address that it checked, so that a name cannot resolve to another one in between."""

    def __init__(self) -> None:
        self._inner = httpcore.AnyIOBackend()

    @override
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = await self._public_addresses(host, port)
        for number, address in enumerate(addresses, 1):
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if number == len(addresses):
                    raise
        raise httpcore.ConnectError(f"cannot resolve {host}: no address")

    async def _public_addresses(self, host: str, port: int) -> Sequence[str]:
        try:
            addresses = await resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"cannot resolve {host}: {error}") from error
        for address in addresses:
            if not is_public(address):
                raise httpcore.ConnectError(_fault(host, address))
        return addresses

    @override
    async def connect_unix_socket(self, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        raise httpcore.ConnectError("cannot send a webhook to a Unix socket: expected a TCP address")

    @override
    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)

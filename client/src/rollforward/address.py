"""Where the services are: the grammar of an address."""

import ipaddress
import re
import socket
from collections.abc import Mapping
from typing import Final

from rollforward.errors import InvalidRequest

DEFAULT_ADDRESS: Final = "localhost:50051"
# Artifacts live in the tracking process, and the system service is in each.
SERVICES: Final = ("tracking", "registry", "serving", "audit", "webhooks")

_LOCAL_NAMES: Final = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"})
_ENDPOINT: Final = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9_.-]+):([0-9]{1,5})")


def parse_address(address: str) -> Mapping[str, str]:
    """The endpoint "host:port" of each service that the address names.

    "host:port" stands for all services; "tracking=host:port,registry=host:port" names them one by one.
    Raises InvalidRequest (INVALID_ADDRESS).
    """
    if "=" not in address:
        endpoint = _endpoint(address, address)
        return dict.fromkeys(SERVICES, endpoint)
    endpoints: dict[str, str] = {}
    for part in address.split(","):
        service, _, endpoint = part.strip().partition("=")
        if service not in SERVICES or service in endpoints:
            raise _invalid(
                address, f"{service!r} is not a service, or is there twice; the services are {', '.join(SERVICES)}"
            )
        endpoints[service] = _endpoint(endpoint, address)
    return endpoints


def is_loopback(endpoint: str) -> bool:
    """Return whether an endpoint is on this machine, in whatever way its address is written."""
    host = endpoint.rpartition(":")[0].strip("[]").partition("%")[0].rstrip(".").lower()
    if host in _LOCAL_NAMES or host.endswith(".localhost"):
        return True
    ip = _ip_address(host)
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip
    # Connecting to an unspecified address reaches this machine.
    return ip is not None and (ip.is_loopback or ip.is_unspecified)


def _ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        # Short, hexadecimal and other forms that resolvers read: 127.1, 0x7f000001.
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def _endpoint(text: str, address: str) -> str:
    endpoint = text.strip()
    found = _ENDPOINT.fullmatch(endpoint)
    if found is None or not 0 < int(found[1]) < 65536:
        raise _invalid(address, f"{text!r} is not HOST:PORT")
    return endpoint


def _invalid(address: str, why: str) -> InvalidRequest:
    return InvalidRequest("INVALID_ADDRESS", f"the address {address!r} cannot be read: {why}", {"address": address})

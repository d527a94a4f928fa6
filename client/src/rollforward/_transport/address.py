"""The grammar of an address of the services."""

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from socket import inet_aton
from typing import Final

from rollforward.errors import InvalidRequest

DEFAULT_ADDRESS: Final = "localhost:50051"
# The tracking process serves artifacts, and each process has the system service.
SERVICES: Final = ("tracking", "registry", "serving", "audit", "webhooks")

_LOOPBACK_NAMES: Final = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"})
_SHORT: Final = re.compile(r"(0x)?[0-9a-f]+(\.(0x)?[0-9a-f]+){0,3}")
_ENDPOINT: Final = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9_.-]+):([0-9]{1,5})")


def parse_address(address: str) -> Mapping[str, str]:
    """Return the endpoint "host:port" of each service in an address.

    "host:port" is for all services; "tracking=host:port,registry=host:port" lists them.

    Raises:
        InvalidRequest: INVALID_ADDRESS.
    """
    if "=" not in address:
        endpoint = _endpoint(address, address)
        return dict.fromkeys(SERVICES, endpoint)
    endpoints: dict[str, str] = {}
    for part in address.split(","):
        service, _, endpoint = part.strip().partition("=")
        if service not in SERVICES or service in endpoints:
            raise _invalid(address, f"unknown or duplicate service {service!r}; the services are {', '.join(SERVICES)}")
        endpoints[service] = _endpoint(endpoint, address)
    return endpoints


def is_loopback(endpoint: str) -> bool:
    """Return whether an endpoint, with or without a port, is on this machine, in any spelling of its address.

    Names are not resolved: only those that always mean this machine count. A connection to the unspecified address,
    0.0.0.0 or ::, reaches this machine too.
    """
    host = _host(endpoint.rpartition("@")[2]).lower().rstrip(".")
    if host in _LOOPBACK_NAMES or host.endswith(".localhost"):
        return True
    address = _address(host)
    return address is not None and (address.is_loopback or address.is_unspecified)


def _host(endpoint: str) -> str:
    if endpoint.startswith("["):
        return endpoint[1:].partition("]")[0]
    return endpoint if endpoint.count(":") > 1 else endpoint.partition(":")[0]


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return _short_address(host)
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def _short_address(host: str) -> IPv4Address | None:
    # The C library's other spellings: 127.1, 0x7f.1, 2130706433. It ignores what follows a space.
    if not _SHORT.fullmatch(host):
        return None
    try:
        return IPv4Address(inet_aton(host))
    except OSError:
        return None


def _endpoint(text: str, address: str) -> str:
    endpoint = text.strip()
    match = _ENDPOINT.fullmatch(endpoint)
    if match is None or not 0 < int(match[1]) < 65536:
        raise _invalid(address, f"expected HOST:PORT, got {text!r}")
    return endpoint


def _invalid(address: str, fault: str) -> InvalidRequest:
    return InvalidRequest("INVALID_ADDRESS", f"invalid address {address!r}: {fault}", {"address": address})

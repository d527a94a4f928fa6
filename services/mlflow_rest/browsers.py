"""Requests that a browser sends for a page of somebody else: they are refused, because nobody has to log in here.

Any page can make a browser send requests to this machine. Its browser then names the page's origin; or the page comes
from a name that was pointed at this machine later (DNS rebinding), and the browser names that host.
Source: https://fetch.spec.whatwg.org/#origin-header
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from services.mlflow_rest.errors import MlflowError


def check_sender(headers: Mapping[str, str], *, any_host: bool) -> None:
    """Check whom a request is for, and which page it comes from.

    Args:
        headers: The headers of the request.
        any_host: Whether the server may be called by any name.

    Raises:
        MlflowError: PERMISSION_DENIED.
    """
    host = headers.get("host", "")
    if host and not any_host and not _is_own(urlsplit(f"//{host}").hostname or ""):
        message = f"host {host[:100]!r} is not allowed: use an IP address or localhost, or start with --insecure"
        raise MlflowError("PERMISSION_DENIED", message)
    origin = headers.get("origin", "")
    if origin and urlsplit(origin).netloc != host:
        raise MlflowError("PERMISSION_DENIED", f"requests from pages of {origin[:100]!r} are not allowed")


def _is_own(name: str) -> bool:
    """Return whether a host is named so that no foreign name can stand for it."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True

"""One request to an endpoint, and its result."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version

import httpx

from eventstore import error_text

REQUEST_SECONDS = 15.0
FIRST_PAUSE = 0.5
MAX_PAUSE_SECONDS = 60.0
MAX_RETRY_AFTER_SECONDS = 3600.0
MAX_RESPONSE_BYTES = 65_536
MAX_DETAIL_CHARACTERS = 200

_RANDOM = random.SystemRandom()
USER_AGENT = f"rollforward/{version('rollforward-server')}"


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a request.

    Attributes:
        status_code: The HTTP status; 0 without a response.
        detail: Why it was not accepted, for people; empty if it was.
        seconds: The duration.
        retry_after: The seconds of the response's Retry-After, if any.
    """

    status_code: int
    detail: str
    seconds: float
    retry_after: float | None = None

    @property
    def taken(self) -> bool:
        """Whether the endpoint acknowledged it."""
        return 200 <= self.status_code < 300

    @property
    def gone(self) -> bool:
        """Whether the endpoint says that it is gone for good."""
        return self.status_code == httpx.codes.GONE


async def post(
    client: httpx.AsyncClient, url: str, headers: Mapping[str, str], body: str, seconds: float = REQUEST_SECONDS
) -> Answer:
    """Send one request and read its response, with a timeout in seconds."""
    started = time.monotonic()
    try:
        async with asyncio.timeout(seconds):
            return await _post(client, url, headers, body, started)
    except TimeoutError:
        detail = f"no response within {seconds:.3g} s"
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        detail = error_text(error)
    return Answer(0, detail[:MAX_DETAIL_CHARACTERS], time.monotonic() - started)


async def _post(client: httpx.AsyncClient, url: str, headers: Mapping[str, str], body: str, started: float) -> Answer:
    async with client.stream("POST", url, headers=dict(headers), content=body.encode()) as response:
        read = 0
        async for part in response.aiter_raw():
            read += len(part)
            # An endless response loses the connection, not the acknowledgement.
            if read > MAX_RESPONSE_BYTES:
                break
    status = response.status_code
    detail = "" if response.is_success else f"HTTP {status} {response.reason_phrase}".strip()[:MAX_DETAIL_CHARACTERS]
    wait = _seconds(response.headers.get("retry-after", ""))
    return Answer(status, detail, time.monotonic() - started, wait)


def pause_after(attempts: int, retry_after: float | None) -> float:
    """Return the seconds until the next attempt: exponential from 0.5 s to 60 s, with jitter."""
    if retry_after is not None:
        return min(max(retry_after, FIRST_PAUSE), MAX_RETRY_AFTER_SECONDS)
    pause = min(FIRST_PAUSE * 2.0 ** min(attempts - 1, 30), MAX_PAUSE_SECONDS)
    return pause * _RANDOM.uniform(0.75, 1.0)


def _seconds(header: str) -> float | None:
    """Return a Retry-After header in seconds from now; None if it cannot be parsed."""
    if header.isascii() and header.isdigit():
        return float(header[:9])
    try:
        when = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, ((when if when.tzinfo else when.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds())

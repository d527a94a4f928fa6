"""One request to an endpoint, and what its answer means."""

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
ANSWER_BYTES = 65_536
DETAIL_CHARACTERS = 200

_RANDOM = random.SystemRandom()
USER_AGENT = f"rollforward/{version('rollforward-server')}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request.

    Attributes:
        status_code: The HTTP status; 0 when there was no answer.
        detail: Why it was not taken, for people; empty when it was.
        seconds: How long it took.
        retry_after: The seconds after which the endpoint asks to be tried again, if it does.
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
        """Whether the endpoint says that it will never take anything again."""
        return self.status_code == httpx.codes.GONE


async def post(
    client: httpx.AsyncClient, url: str, headers: Mapping[str, str], body: str, seconds: float = REQUEST_SECONDS
) -> Answer:
    """Send one request and reads its answer, within so many seconds."""
    started = time.monotonic()
    try:
        async with asyncio.timeout(seconds):
            return await _post(client, url, headers, body, started)
    except TimeoutError:
        detail = f"no answer within {seconds:.3g} s"
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        detail = error_text(error)
    return Answer(0, detail[:DETAIL_CHARACTERS], time.monotonic() - started)


async def _post(client: httpx.AsyncClient, url: str, headers: Mapping[str, str], body: str, started: float) -> Answer:
    async with client.stream("POST", url, headers=dict(headers), content=body.encode()) as response:
        read = 0
        async for part in response.aiter_raw():
            read += len(part)
            # Whoever goes on and on loses the connection, not the acknowledgement.
            if read > ANSWER_BYTES:
                break
    status = response.status_code
    detail = "" if response.is_success else f"HTTP {status} {response.reason_phrase}".strip()[:DETAIL_CHARACTERS]
    wait = _seconds(response.headers.get("retry-after", ""))
    return Answer(status, detail, time.monotonic() - started, wait)


def pause_after(attempts: int, retry_after: float | None) -> float:
    """Seconds until the next attempt: twice as long each time, with jitter, from half a second up to a minute."""
    if retry_after is not None:
        return min(max(retry_after, FIRST_PAUSE), MAX_RETRY_AFTER_SECONDS)
    longest = min(FIRST_PAUSE * 2.0 ** min(attempts - 1, 30), MAX_PAUSE_SECONDS)
    return longest * _RANDOM.uniform(0.75, 1.0)


def _seconds(header: str) -> float | None:
    """Return what a Retry-After header says, in seconds from now; None when it says nothing that can be read."""
    if header.isascii() and header.isdigit():
        return float(header[:9])
    try:
        when = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, ((when if when.tzinfo else when.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds())

"""A delivery to a real endpoint, whatever it responds, and the pause before the next attempt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from services.webhooks.allowed_addresses import open_client
from services.webhooks.http_client import MAX_RESPONSE_BYTES, Answer, _seconds, pause_after, post
from tests.servers.ports import free_port
from tests.timeouts import scaled

Respond = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(respond: Respond) -> AsyncIterator[str]:
    """Run a server that reads a request and calls `respond`; yield its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        await respond(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def send(url: str, seconds: float = scaled(10.0)) -> Answer:
    """Send a request and return its result."""
    async with open_client(allow_private=True, user_agent="test", timeout=seconds) as client:
        return await post(client, url, {}, "{}", seconds)


@pytest.mark.parametrize(
    ("status", "taken", "gone"),
    [(200, True, False), (204, True, False), (410, False, True), (500, False, False), (301, False, False)],
)
async def test_status_decides_outcome_of_delivery(status: int, taken: bool, gone: bool) -> None:
    async def respond(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status} Word\r\nlocation: /\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n".encode())

    async with listening(respond) as url:
        answer = await send(url)
    assert (answer.status_code, answer.taken, answer.gone, answer.retry_after) == (status, taken, gone, 7.0)
    assert (answer.detail == "") is taken


async def test_endless_response_is_cut_and_accepted() -> None:
    async def respond(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * MAX_RESPONSE_BYTES)
                await writer.drain()
        except ConnectionError:
            return

    async with listening(respond) as url:
        assert (await send(url)).taken


async def test_delivery_without_response_has_no_status() -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async def hang_up(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        return

    async with listening(silent) as url:
        late = await send(url, 0.2)
        assert late.seconds >= 0.2
    async with listening(hang_up) as url:
        hung_up = await send(url)
    refused = await send(f"http://127.0.0.1:{free_port()}/")
    for answer in (late, hung_up, refused):
        assert (answer.status_code, answer.taken, answer.gone) == (0, False, False)
        assert answer.detail
        assert "Error" not in answer.detail


def test_pauses_double_up_to_a_minute() -> None:
    for attempts, max_pause in [(1, 0.5), (2, 1.0), (3, 2.0), (7, 32.0), (8, 60.0), (100_000, 60.0)]:
        pauses = [pause_after(attempts, None) for _ in range(100)]
        assert 0.75 * max_pause <= min(pauses) < max(pauses) <= max_pause


def test_retry_after_is_limited_to_an_hour() -> None:
    assert [pause_after(1, retry_after) for retry_after in (0.0, 7.0, 3600.0, 1e6)] == [0.5, 7.0, 3600.0, 3600.0]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("", None), ("120", 120.0), ("0", 0.0), ("-1", None), ("soon", None), ("9" * 30, 999_999_999.0), ("²", None)],
)
def test_retry_after_in_seconds_is_parsed(header: str, seconds: float | None) -> None:
    assert _seconds(header) == seconds


def test_retry_after_as_date_is_parsed() -> None:
    soon = _seconds(format_datetime(datetime.now(UTC) + timedelta(minutes=2), usegmt=True))
    assert soon is not None
    assert 110 < soon <= 120
    assert _seconds(format_datetime(datetime.now(UTC) - timedelta(minutes=2), usegmt=True)) == 0.0

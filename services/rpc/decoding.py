"""Decoding of requests in the interceptor, so that invalid bytes are counted as the caller's error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, TypeVar

from google.protobuf.message import DecodeError

from eventstore import Kind, Rejected, StoreUnavailable

IDLE_SECONDS = 60.0

M = TypeVar("M")


def decoded(data: bytes, decode: Callable[[bytes], M]) -> M:
    """Return the message that bytes encode.

    gRPC itself returns UNKNOWN if a deserializer raises, without a reason and before the call is counted, so
    handlers receive bytes.

    Raises:
        Rejected: INVALID_MESSAGE.
    """
    try:
        return decode(data)
    except DecodeError as error:
        fault = f"invalid request of {len(data)} bytes: expected the method's protobuf message"
        raise Rejected(Kind.INVALID, "INVALID_MESSAGE", fault) from error


async def decoded_stream(
    parts: AsyncIterator[bytes], decode: Callable[[bytes], Any], idle_seconds: float = IDLE_SECONDS
) -> AsyncGenerator[Any]:
    """Yield the messages of a stream of requests.

    Raises:
        Rejected: INVALID_MESSAGE.
        StoreUnavailable: UPLOAD_STALLED when nothing is received for `idle_seconds`.
    """
    while True:
        try:
            async with asyncio.timeout(idle_seconds):
                data = await anext(parts, None)
        except TimeoutError as error:
            fault = f"upload stalled: no data for {idle_seconds:g} s. Resume it where it stopped"
            raise StoreUnavailable(fault, "UPLOAD_STALLED") from error
        if data is None:
            return
        yield decoded(data, decode)

"""Wait until a call's sources have reached the positions that it asks for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable
from typing import Protocol

from eventstore import EventStore, Kind, Rejected, StoreUnavailable
from services.rpc.context import Context

MAX_WAIT_SECONDS = 10.0

SOON_SECONDS = 0.05

HEAD = "head"
"""In place of a position: the head of every log that the result comes from, as it is when the call arrives."""

_POSITION = re.compile(r"\s*([^=]+)=([0-9]{1,20})(?:@([0-9]{1,20}))?\s*")


class Follows(Protocol):
    """State that follows a log and can be waited for: a projector, or a view in memory."""

    @property
    def name(self) -> str:
        """Its name in messages."""

    @property
    def position(self) -> int:
        """The last position that it has reached."""

    @property
    def store(self) -> EventStore:
        """The log that it follows."""

    @property
    def failure(self) -> BaseException | None:
        """Why it stopped following; None while it follows."""

    async def wait_for(self, position: int, seconds: float | None = None) -> None:
        """Wait until it has reached a position, at most for some seconds; see `Watermark.wait_for`."""


async def wait_for(source: Follows, position: int, context: Context) -> None:
    """Wait for a position within the call's deadline.

    Raises:
        StoreUnavailable: PROJECTION_BEHIND on a timeout.
    """
    await source.wait_for(position, _timeout(context))


async def refuse_ahead(source: Follows, position: int, context: Context) -> None:
    """Reject a position after the end of the log.

    The log is queried only after a moment: usually the position is that of a recent write, which arrives soon.

    Raises:
        Rejected: POSITION_AHEAD.
        StoreUnavailable: The log does not answer within the call's deadline.
    """
    try:
        async with asyncio.timeout(min(SOON_SECONDS, _timeout(context))):
            await source.wait_for(position)
    except TimeoutError:
        head = await _within(context, source, source.store.head())
        if position <= head:
            return
        message = f"position {position} is after the end of the {source.store.log} log: expected at most {head}"
        raise Rejected(Kind.INVALID, "POSITION_AHEAD", message, log=source.store.log, position=str(position)) from None


async def head_of(source: Follows, context: Context) -> int:
    """Return the position of the log's last event, asked of the log itself: other processes write to it too.

    Raises:
        StoreUnavailable: The log does not answer within the call's deadline.
    """
    head = await _within(context, source, source.store.head())
    # Erased positions at the end are never reached; `last` reads a whole event, so it is called only then.
    return head if head <= source.position else await _within(context, source, source.store.last())


async def _within(context: Context, source: Follows, position: Awaitable[int]) -> int:
    """Await a log's position within the call's deadline."""
    try:
        async with asyncio.timeout(_timeout(context)):
            return await position
    except TimeoutError as error:
        raise StoreUnavailable(f"the {source.store.log} log does not respond. Retry") from error


def _timeout(context: Context) -> float:
    remaining = context.time_remaining()
    return min(MAX_WAIT_SECONDS, remaining * 0.9) if remaining is not None else MAX_WAIT_SECONDS


def positions_in(header: str) -> dict[str, tuple[int, int]]:
    """Return the position of each log in a header, and the epoch of the position; 0 when none is given."""
    wanted: dict[str, tuple[int, int]] = {}
    for part in header.split(",") if header else ():
        if part.strip() == HEAD:
            wanted[HEAD] = 0, 0
            continue
        named = _POSITION.fullmatch(part)
        if named is None:
            message = f"invalid minimum position {part[:100]!r}: expected LOG=POSITION, LOG=POSITION@EPOCH or head"
            raise Rejected(Kind.INVALID, "INVALID_MIN_POSITION", message, header=header[:200])
        wanted[named[1]] = int(named[2]), int(named[3] or 0)
    return wanted

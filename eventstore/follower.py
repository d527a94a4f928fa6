"""The follow loop of whatever is kept in memory from a log: it continues where it was, and reloads after a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import NoReturn

import structlog

from eventstore.concurrency.backoff import pause_after
from eventstore.error_messages import error_text
from eventstore.errors import StoreUnavailable
from eventstore.tail import Batch, FollowerTooSlow, Tail

_logger = structlog.get_logger(__name__)


async def run_follower(
    name: str,
    tail: Tail,
    position: int,
    receive: Callable[[Batch, int], Awaitable[None]],
    reload: Callable[[Exception], Awaitable[int]],
    *,
    dismissible: bool = False,
) -> NoReturn:
    """Hand every batch after a position to a follower, until the tail ends.

    A follower that fell behind continues from the log. After any other error of its own it is reloaded, because the
    batch may be half applied; that is repeated with growing pauses until it succeeds.

    Args:
        name: The follower's name in the log lines.
        tail: The log's tail.
        position: What the follower knows already.
        receive: Takes the events of a batch, and the position after it.
        reload: Loads the follower's state after an error, and returns the state's position.
        dismissible: Whether it ends with the watches (`Tail.dismiss`), before the tail itself ends.

    Raises:
        StoreUnavailable: The tail has ended, or it was dismissed.
    """
    error: Exception | None = None
    failures = 0
    while True:
        try:
            if error:
                position, error = await reload(error), None
            batches = tail.follow(position, None) if dismissible else tail.events(position)
            async with aclosing(batches):
                async for events, until in batches:
                    await receive(events, until)
                    position, failures = until, 0
        except FollowerTooSlow:
            _logger.info("follower fell behind, continuing from the log", follower=name, position=position)
        except Exception as caught:
            tail.check(dismissible=dismissible)
            error = caught
            failures += 1
            if isinstance(caught, StoreUnavailable):
                _logger.warning("follower cannot continue, reloading", follower=name, error=error_text(caught))
            else:
                _logger.exception("follower failed, reloading", follower=name, position=position)
            if failures > 1:
                await asyncio.sleep(pause_after(failures))

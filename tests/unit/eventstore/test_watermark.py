"""The watermark: callers wait for a position until it is reached or the watermark fails."""

from __future__ import annotations

import asyncio

import pytest

from eventstore.concurrency.watermark import Watermark
from eventstore.errors import StoreUnavailable


async def test_waiters_resume_when_their_position_is_reached() -> None:
    watermark = Watermark("x")
    waiting = [asyncio.create_task(watermark.wait_for(position)) for position in (3, 1, 2)]
    await asyncio.sleep(0)
    watermark.advance(2)
    await asyncio.gather(*waiting[1:])
    assert not waiting[0].done()
    watermark.advance(3)
    await waiting[0]


async def test_each_waiter_gets_its_own_error() -> None:
    """An error that is raised repeatedly would keep the frames of all its callers alive."""
    watermark = Watermark("x")
    waiting = [asyncio.create_task(watermark.wait_for(5)) for _ in range(2)]
    await asyncio.sleep(0)
    watermark.fail(StoreUnavailable("gone", "PROJECTION_FAILED"))
    errors = await asyncio.gather(*waiting, watermark.wait_for(5), watermark.wait_for(6), return_exceptions=True)
    assert len({id(error) for error in errors}) == 4
    assert {getattr(error, "reason", "") for error in errors} == {"PROJECTION_FAILED"}
    with pytest.raises(StoreUnavailable):
        await watermark.wait_for(5)

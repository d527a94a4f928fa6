"""A position that is waited for: reached, or given up."""

from __future__ import annotations

import asyncio

import pytest

from eventstore.concurrency.watermark import Watermark
from eventstore.errors import StoreUnavailable


async def test_whoever_waits_goes_on_when_it_is_reached() -> None:
    reached = Watermark("x")
    waiting = [asyncio.create_task(reached.wait_for(position)) for position in (3, 1, 2)]
    await asyncio.sleep(0)
    reached.advance(2)
    await asyncio.gather(*waiting[1:])
    assert not waiting[0].done()
    reached.advance(3)
    await waiting[0]


async def test_each_is_refused_with_an_error_of_its_own() -> None:
    """One that is raised again and again keeps the frames of all who ever had it."""
    reached = Watermark("x")
    waiting = [asyncio.create_task(reached.wait_for(5)) for _ in range(2)]
    await asyncio.sleep(0)
    reached.fail(StoreUnavailable("gone", "PROJECTION_FAILED"))
    refusals = await asyncio.gather(*waiting, reached.wait_for(5), reached.wait_for(6), return_exceptions=True)
    assert len({id(refusal) for refusal in refusals}) == 4
    assert {getattr(refusal, "reason", "") for refusal in refusals} == {"PROJECTION_FAILED"}
    with pytest.raises(StoreUnavailable):
        await reached.wait_for(5)

"""Turns: how long the pause after a turn is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from eventstore.concurrency.turns import URGENT_PAUSE_FACTOR, Turns


async def pause_after(turns: Turns, took: float, monkeypatch: pytest.MonkeyPatch) -> float:
    """Return the length of the pause after a turn of `took` seconds."""
    loop, now, pauses = asyncio.get_running_loop(), [0.0], list[float]()

    def call_later(seconds: float, callback: Callable[[], object]) -> asyncio.Handle:
        pauses.append(seconds)
        return loop.call_soon(callback)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "time", lambda: now[0])
        patch.setattr(loop, "call_later", call_later)
        async with turns.turn():
            now[0] += took
    limit, *rest = pauses
    assert limit == turns._max_seconds
    return sum(rest)


async def test_pause_is_as_long_as_turn_and_longer_during_urgent_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = Turns(1, max_seconds=0.01, rests=True)
    assert await pause_after(turns, 0.004, monkeypatch) == pytest.approx(0.004)
    with turns.urgent(), turns.urgent():
        assert await pause_after(turns, 0.004, monkeypatch) == pytest.approx(URGENT_PAUSE_FACTOR * 0.004)
    assert await pause_after(turns, 0.004, monkeypatch) == pytest.approx(0.004)


async def test_pause_is_not_longer_than_max_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns(1, max_seconds=0.01, rests=True)
    assert await pause_after(turns, 3.0, monkeypatch) == pytest.approx(0.01)
    assert await pause_after(Turns(1), 3.0, monkeypatch) == 0

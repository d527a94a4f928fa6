"""How a task of our own is ended."""

from __future__ import annotations

import asyncio
from typing import Any

PATIENCE_SECONDS = 0.2


async def end(task: asyncio.Task[Any] | None) -> None:
    """Cancels a task and waits until it is done; nothing to do when there is none."""
    while task and not task.done():
        # Again and again: where a library waits for an answer by wait_for, Python 3.11 may forget a cancellation.
        task.cancel()
        await asyncio.wait([task], timeout=PATIENCE_SECONDS)

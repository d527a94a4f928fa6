"""How a background task is ended."""

from __future__ import annotations

import asyncio
from typing import Any

CANCEL_SECONDS = 0.2


async def end(task: asyncio.Task[Any] | None) -> None:
    """Cancel a task, if there is one, and wait until it is done."""
    while task and not task.done():
        # Again and again: where a library waits for an answer by wait_for, Python 3.11 may forget a cancellation.
        task.cancel()
        await asyncio.wait([task], timeout=CANCEL_SECONDS)

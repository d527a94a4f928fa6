"""The rows that a projection starts with: those that it had, else those of a snapshot, else none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import aclosing

import sqlalchemy as sa
import structlog

from eventstore.epochs import refuse_losses
from eventstore.error_messages import error_text
from eventstore.errors import StoreUnavailable
from eventstore.projections.damage import RowsDamaged
from eventstore.projections.generation import Generation
from eventstore.projections.generations import Generations
from eventstore.projections.rebuild import catch_up
from eventstore.projections.snapshots.store import Snapshots, SnapshotUnusable, is_marked
from eventstore.store import EventStore

POLL_SECONDS = 0.1
FILL_FROM = 1000
"""How many events a log must have for its rows to be built in large steps before they are live."""

_AWAY = (StoreUnavailable, sa.exc.OperationalError, sa.exc.InterfaceError)
_WRONG = (SnapshotUnusable, StoreUnavailable, LookupError, OSError, RowsDamaged, sa.exc.DBAPIError)

_logger = structlog.get_logger(__name__)


async def opened(
    generations: Generations,
    snapshots: Snapshots | None,
    store: EventStore,
    executor: Executor,
    progress: Callable[[int], None],
) -> Generation:
    """Return the live generation, which matches the log: from there on it follows the tail.

    Of several processes one makes them, and the others wait for it.

    Args:
        generations: Those of the projection.
        snapshots: Where to look for rows when the database has none.
        store: The log.
        executor: The projection's thread.
        progress: Called with each position that new rows come to.

    Raises:
        LogLost: Generation know what the log does not hold; they stay as they are. Without rows, a snapshot knows it.
        StoreUnavailable, sa.exc.OperationalError: The log or the database is out of reach.
    """
    run = asyncio.get_running_loop().run_in_executor
    while not (release := await run(executor, generations.lock)):  # noqa: ASYNC110 - another process has it
        await asyncio.sleep(POLL_SECONDS)
    try:
        # Generation of another log, or of an end that the log lost, are neither added to nor dropped.
        await refuse_losses(store, await run(executor, generations.known))
        rows = await run(executor, generations.live)
        return rows or await _made(generations, snapshots, store, executor, progress)
    finally:
        # Behind what it may be doing for us still.
        executor.submit(release)


async def _made(
    generations: Generations,
    snapshots: Snapshots | None,
    store: EventStore,
    executor: Executor,
    progress: Callable[[int], None],
) -> Generation:
    if snapshots and (restored := await _restored(generations, snapshots, store, executor)):
        return restored
    if await store.head() >= FILL_FROM and (filled := await _filled(generations, store, progress)):
        return filled
    return await asyncio.get_running_loop().run_in_executor(executor, generations.create_live)


async def _filled(generations: Generations, store: EventStore, progress: Callable[[int], None]) -> Generation | None:
    """Return live rows computed from the whole log in large steps; None when an event cannot be applied.

    Empty live rows take their place then: they come as far as they can, and the projection says what stops it.
    """
    head = await store.head()
    rows = await asyncio.to_thread(generations.unfinished)
    try:
        async with aclosing(catch_up(generations, rows, store, lambda: head)) as positions:
            async for position in positions:
                progress(position)
        rows = await asyncio.to_thread(generations.finish, rows)
        await asyncio.to_thread(rows.set_live)
    except BaseException as error:
        await asyncio.to_thread(generations.discard, rows)
        if not isinstance(error, Exception) or isinstance(error, _AWAY):
            raise
        _logger.warning(
            "bulk load failed, applying events in small steps", projection=generations.name, error=error_text(error)
        )
        return None
    return rows


async def _restored(
    generations: Generations, snapshots: Snapshots, store: EventStore, executor: Executor
) -> Generation | None:
    """Return a generation from the newest sound snapshot of this log; without one, the log has everything."""
    run = asyncio.get_running_loop().run_in_executor
    name = generations.name
    try:
        kept = await run(executor, snapshots.kept)
    except (StoreUnavailable, OSError) as error:
        _logger.warning("snapshots unavailable, reading the log instead", projection=name, error=error_text(error))
        return None
    await refuse_losses(store, await run(executor, snapshots.known))
    for snapshot in kept:
        if not await is_marked(store, snapshot.position, snapshot.mark):
            _logger.warning("snapshot is of another log, skipped", projection=name, snapshot=snapshot.name)
            continue
        try:
            rows = await run(executor, snapshots.restore, snapshot)
        except _WRONG as error:
            _logger.warning(
                "snapshot unusable, skipped", projection=name, snapshot=snapshot.name, error=error_text(error)
            )
        else:
            _logger.info("rows restored from a snapshot", projection=name, position=snapshot.position)
            return rows
    return None

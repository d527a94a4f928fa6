"""The scheduler: makes scheduled moves and ends expired assignments in time, each once, also across restarts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress

import structlog

from eventstore import Conflict, Metadata, Projector, RecordedEvent, StoreUnavailable, Tail, end, run_follower
from rollforward import v1
from services.registry import model_stream
from services.registry.commands import Commands
from services.registry.queries.schedules import Due, due
from services.timestamps import timestamp

# A clock that is set, or a machine that slept, is noticed after this long.
MAX_SLEEP_SECONDS = 30.0
RETRY_SECONDS = 1.0

_logger = structlog.get_logger(__name__)


class Scheduler:
    """Sends the commands that are due. Every process of the registry has one; the log lets only one of them act.

    Args:
        commands: The registry's commands.
        projector: The registry's rows, which list what is due.
        tail: The registry log's tail.
    """

    def __init__(self, commands: Commands, projector: Projector, tail: Tail) -> None:
        self._commands = commands
        self._projector = projector
        self._tail = tail
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start, with what the rows list."""
        self._tasks = [
            asyncio.create_task(self._keep(), name="scheduler"),
            asyncio.create_task(self._follow(), name="scheduler-follow"),
        ]

    async def stop(self) -> None:
        """Stop."""
        for task in self._tasks:
            await end(task)

    async def _keep(self) -> None:
        while True:
            self._changed.clear()
            seconds = RETRY_SECONDS
            try:
                seconds = await self._look()
            except StoreUnavailable as error:
                _logger.warning("cannot read due moves, retrying", error=str(error))
            except Exception:
                _logger.exception("scheduler failed, retrying")
            with suppress(TimeoutError):
                async with asyncio.timeout(min(max(seconds, 0.001), MAX_SLEEP_SECONDS)):
                    await self._changed.wait()

    async def _look(self) -> float:
        """Do the due work, and return the seconds until the next check."""
        due_now, next_time = await self._projector.query(lambda connection: due(connection, time.time_ns()))
        done = [await self._act(due_move) for due_move in due_now]
        if not all(done):
            return RETRY_SECONDS
        return MAX_SLEEP_SECONDS if next_time is None else (next_time - time.time_ns()) / 1e9

    async def _act(self, due_move: Due) -> bool:
        """Do one piece of due work in the name of its actor, and return whether it is done.

        What cannot be done now must not hold up what is due after it.
        """
        metadata = Metadata(actor=due_move.actor, reason=due_move.reason, causation_id=due_move.event_id)
        stream = model_stream(due_move.origin)
        try:
            if due_move.schedule_id:
                await self._commands.fire(stream, due_move.schedule_id, metadata)
            else:
                await self._commands.expire(stream, due_move.alias, due_move.revision, metadata)
        except (Conflict, StoreUnavailable) as error:
            _logger.warning("due move failed, retrying", origin=due_move.origin, alias=due_move.alias, error=str(error))
            return False
        except Exception:
            _logger.exception("due move failed, retrying", origin=due_move.origin, alias=due_move.alias)
            return False
        # The rows must have it before they are asked again what is due.
        await self._projector.wait_for(await self._projector.store.head())
        return True

    async def _follow(self) -> None:
        try:
            await run_follower("scheduler", self._tail, self._projector.position, self._receive, self._reload)
        except StoreUnavailable as error:
            # The rows are still asked now and then, as long as they can tell.
            _logger.warning("registry log unavailable, scheduler receives no events", error=str(error))

    async def _receive(self, events: Sequence[RecordedEvent], position: int) -> None:
        if _sets_a_time(events):
            await self._projector.wait_for(position)
            self._changed.set()

    async def _reload(self, error: Exception) -> int:  # noqa: ARG002 - the rows know, whatever the error was
        """Reload from the rows after they have all received events."""
        position = self._tail.position
        await self._projector.wait_for(position)
        self._changed.set()
        return position


def schedule_of(event: RecordedEvent) -> v1.Schedule:
    """Return the schedule that an AliasMoveScheduled made."""
    payload: v1.AliasMoveScheduled = event.data  # type: ignore[assignment]
    return v1.Schedule(
        schedule_id=payload.schedule_id,
        model=payload.model,
        alias=payload.alias,
        version=payload.to_version,
        at=payload.at,
        expected_revision=payload.expected_revision if payload.HasField("expected_revision") else None,
        actor=event.metadata.actor,
        reason=event.metadata.reason,
        created_at=timestamp(event.time),
        revision=event.append_end,
    )


def _sets_a_time(events: Sequence[RecordedEvent]) -> bool:
    return any(
        isinstance(event.data, v1.AliasMoveScheduled)
        or (isinstance(event.data, v1.AliasMoved) and event.data.HasField("expires_at"))
        for event in events
    )

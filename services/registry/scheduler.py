"""What happens at its time, once, also across restarts: scheduled moves are made, assignments that expire are ended."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from contextlib import aclosing

import structlog

from eventstore import Conflict, FollowerTooSlow, Metadata, Projector, RecordedEvent, StoreUnavailable, Tail, end
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
    """Acts when times come. Every process of the registry has one; the log lets only one of them act.

    Args:
        commands: The registry's commands.
        rows: The registry's rows, where what is due stands.
        tail: The registry log's.
    """

    def __init__(self, commands: Commands, projector: Projector, tail: Tail) -> None:
        self._commands = commands
        self._projector = projector
        self._tail = tail
        self._batches = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begins."""
        self._tasks = [asyncio.create_task(self._keep(), name="timekeeper"), asyncio.create_task(self._listen())]

    async def stop(self) -> None:
        """Stop."""
        for task in self._tasks:
            await end(task)

    async def _keep(self) -> None:
        while True:
            self._batches.clear()
            seconds = RETRY_SECONDS
            try:
                seconds = await self._look()
            except StoreUnavailable as error:
                _logger.warning("timekeeper waits", error=str(error))
            except Exception:
                _logger.exception("timekeeper met a defect and looks again")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(max(seconds, 0.001), MAX_SLEEP_SECONDS)):
                    await self._batches.wait()

    async def _look(self) -> float:
        """Do what is due, and return in how many seconds to look again."""
        come, following = await self._projector.query(lambda connection: due(connection, time.time_ns()))
        done = [await self._act(one) for one in come]
        if not all(done):
            return RETRY_SECONDS
        return MAX_SLEEP_SECONDS if following is None else (following - time.time_ns()) / 1e9

    async def _act(self, one: Due) -> bool:
        """Do what is due, in the name of the actor who asked for it, and return whether it is done.

        What cannot be done now must not hold up what is due after it.
        """
        because = Metadata(actor=one.actor, reason=one.reason, causation_id=one.event_id)
        try:
            if one.schedule_id:
                await self._commands.fire(model_stream(one.origin), one.schedule_id, because)
            else:
                await self._commands.expire(model_stream(one.origin), one.alias, one.revision, because)
        except (Conflict, StoreUnavailable) as error:
            _logger.warning("timekeeper tries again", origin=one.origin, alias=one.alias, error=str(error))
            return False
        except Exception:
            _logger.exception("timekeeper met a defect and tries again", origin=one.origin, alias=one.alias)
            return False
        # The rows must have it before they are asked again what is due.
        await self._projector.wait_for(await self._projector.store.head())
        return True

    async def _listen(self) -> None:
        position = self._projector.position
        while True:
            try:
                async with aclosing(self._tail.events(position)) as batches:
                    async for events, reached in batches:
                        position = reached
                        if _sets_a_time(events):
                            await self._projector.wait_for(position)
                            self._batches.set()
            except FollowerTooSlow:
                self._batches.set()
            except StoreUnavailable as error:
                # What is due is still looked for, now and then, as long as the rows can tell.
                _logger.warning("timekeeper hears of nothing new", error=str(error))
                return
            except Exception:
                _logger.exception("timekeeper met a defect and listens again", position=position)
                await asyncio.sleep(RETRY_SECONDS)


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

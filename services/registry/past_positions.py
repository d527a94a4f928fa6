"""The positions of the registry log that requests name: by position, by time, or by an event."""

from __future__ import annotations

from eventstore import Kind, Projector, Rejected, check_past
from rollforward import v1
from services.registry.queries import rollback
from services.rpc.context import Context
from services.rpc.positions import wait_for
from services.timestamps import nanoseconds


class PastPositions:
    """Finds the position that a request means, and waits until the rows have come to it.

    Args:
        projector: The registry's rows.
    """

    def __init__(self, projector: Projector) -> None:
        self._projector = projector

    async def goal(self, request: v1.RollbackRequest, context: Context) -> int | None:
        """Return the position that a rollback goes back to; None for the previous assignment of each alias.

        Raises:
            Rejected: EVENT_NOT_FOUND, POSITION_AHEAD or INVALID_AS_OF.
        """
        match request.WhichOneof("to"):
            case "as_of":
                return await self._position(request.as_of, context)
            case "before_event":
                return await self._event_position(request.before_event, context)
            case _:
                return None

    async def _event_position(self, event_id: str, context: Context) -> int:
        position = await self._projector.query(lambda connection: rollback.event_position(connection, event_id))
        if position is None:
            # The rows may be behind the log: only its head can tell that there is no such event.
            await wait_for(self._projector, await self._projector.store.head(), context)
            position = await self._projector.query(lambda connection: rollback.event_position(connection, event_id))
        if position is None:
            message = f"the registry log has no event with the id {event_id[:100]!r}"
            raise Rejected(Kind.NOT_FOUND, "EVENT_NOT_FOUND", message, event_id=event_id[:100])
        return position

    async def past(self, at: v1.AsOf, context: Context) -> int:
        """Return the position of a moment in the past.

        Raises:
            Rejected: POSITION_AHEAD or INVALID_AS_OF.
            Conflict: LOG_EPOCH_CHANGED when the position is of another epoch.
        """
        if at.HasField("position"):
            await check_past(self._projector.store, at.position, at.epoch)
        return await self._position(at, context)

    async def _position(self, at: v1.AsOf, context: Context) -> int:
        if at.WhichOneof("point") is None:
            raise Rejected(Kind.INVALID, "INVALID_AS_OF", "as_of is empty: expected a position or a time")
        if at.HasField("time"):
            return await self._position_at(nanoseconds(at.time), context)
        if at.position > self._projector.position and at.position > await self._projector.store.head():
            message = f"position {at.position} is after the end of the registry log"
            raise Rejected(Kind.INVALID, "POSITION_AHEAD", message, position=str(at.position))
        await wait_for(self._projector, at.position, context)
        return at.position

    async def _position_at(self, time_ns: int, context: Context) -> int:
        reached = self._projector.position  # read first: what is applied during the query is not in its result
        position, _ = await self._projector.position_at(time_ns)
        if position < reached:
            return position
        # The rows hold nothing later; the log may.
        await wait_for(self._projector, await self._projector.store.head(), context)
        return (await self._projector.position_at(time_ns))[0]


def described(at: v1.AsOf) -> str:
    """Return a moment in the past as text."""
    return at.time.ToJsonString() if at.HasField("time") else f"position {at.position}"

"""Queries on the live rows of a projection: each on rows of one moment, in a thread or at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from eventstore.error_messages import error_text
from eventstore.errors import StoreUnavailable
from eventstore.projections.damage import RowsDamaged, damage_of
from eventstore.projections.database import is_refusal
from eventstore.projections.generation import Generation
from eventstore.projections.live_generation import LiveGeneration
from eventstore.projections.progress import Progress
from eventstore.projections.tables import position_of

T = TypeVar("T")


class Reader:
    """Reads the live generation of a projection.

    Args:
        live: The generation, and what replaces it.
        progress: Whether it may be read.
        repair: Begins to compute damaged rows again; called with the damage.
    """

    def __init__(self, live: LiveGeneration, progress: Progress, repair: Callable[[str], None]) -> None:
        self._live = live
        self._progress = progress
        self._repair = repair

    async def query(self, statement: Callable[[sa.Connection], T], *, small: bool = False) -> T:
        """Return the result of a query on rows of one moment.

        Args:
            statement: The query; it runs in a thread.
            small: Whether it reads a row or two: then it runs at once where readers never wait.

        Raises:
            StoreUnavailable: The database does not answer, or the projection failed.
        """
        self._progress.check_readable()
        generation = self._live.generation
        try:
            try:
                return await self._query(generation, statement, small)
            except sa.exc.DBAPIError:
                if not await self._live.was_replaced(generation):
                    raise
                return await self._query(self._live.generation, statement, small)
        except (sa.exc.DBAPIError, RowsDamaged) as error:
            self._raise_damage(error)
            raise

    async def look_up(self, statement: sa.Select[Any], parameters: Mapping[str, Any]) -> Sequence[Any]:
        """Return the only row of a tiny query, by the cheapest way to ask it.

        Raises:
            StoreUnavailable: As `query`.
        """
        if not self._live.generation.answer_at_once:
            return await self.query(lambda connection: connection.execute(statement, parameters).one())
        try:
            return self._live.generation.look_up(statement, parameters)
        except sa.exc.DBAPIError as error:
            self._raise_damage(error)
            raise

    async def check(self) -> None:
        """Notice rows whose file was deleted or replaced.

        Raises:
            StoreUnavailable: They are computed again; or the database does not answer.
        """
        await self.check_file()
        await self.query(position_of)

    async def check_file(self) -> None:
        """Notice a SQLite file that was deleted or replaced, as `check`."""
        try:
            await asyncio.to_thread(self._live.generation.check_file)
        except RowsDamaged as error:
            self._raise_damage(error)

    def _raise_damage(self, error: Exception) -> None:
        if damage := damage_of(error):
            self._repair(damage)
            message = f"the rows of projection {self._progress.name} are damaged and being recomputed: {damage}"
            raise StoreUnavailable(message, "DATABASE_UNAVAILABLE") from error

    async def _query(self, generation: Generation, statement: Callable[[sa.Connection], T], small: bool) -> T:
        try:
            if small and generation.answer_at_once:
                with generation.at_once() as connection:
                    return statement(connection)
            return await self._query_in_thread(generation, statement)
        except sa.exc.DBAPIError as error:
            if is_refusal(error):
                raise
            message = f"database unavailable: {error_text(error.orig or error)}"
            raise StoreUnavailable(message, "DATABASE_UNAVAILABLE") from error

    async def _query_in_thread(self, generation: Generation, statement: Callable[[sa.Connection], T]) -> T:
        def run() -> T:
            with generation.transaction() as connection:
                return statement(connection)

        def ended(query: asyncio.Task[T]) -> None:
            generation.readers -= 1
            self._live.read.set()
            if not query.cancelled():
                query.exception()  # retrieved here, in case nobody waits for it any more

        generation.readers += 1
        query = asyncio.create_task(asyncio.to_thread(run))
        query.add_done_callback(ended)
        # The caller may go away; the thread and its connection count until they are done.
        return await asyncio.shield(query)

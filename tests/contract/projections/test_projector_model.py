"""A model test: whatever happens to a projector, its rows are those of the log."""

from __future__ import annotations

import asyncio
import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st

from eventstore.errors import StoreUnavailable
from eventstore.memory import MemoryStore
from eventstore.projections.database import Database
from eventstore.projections.projector import Projector
from eventstore.tail import Tail
from tests.contract.projections.notes import Notes, all_notes, fails_at, folded, rebuilt
from tests.contract.store.events import TYPES, new


class Machine:
    """A log, and a projector that is stopped, failed, started and rebuilt."""

    def __init__(self, home: str) -> None:
        self.home = home
        self.log = MemoryStore("model", TYPES)
        self.tail = Tail(self.log)
        self.projector: Projector | None = None

    async def append(self, streams: list[int]) -> None:
        await self.log.append([new(f"s{stream}", str(stream)) for stream in streams])

    async def start(self, fails_after: int | None) -> None:
        await self.stop()
        projection = Notes(hook=fails_at(await self.log.head() - fails_after) if fails_after is not None else None)
        self.tail = Tail(self.log)
        await self.tail.start()
        self.projector = Projector(self.tail, projection, Database(self.home))
        try:
            await self.projector.start()
            projection.hook = None
        except StoreUnavailable:
            await self.stop()

    async def stop(self) -> None:
        if self.projector:
            await self.projector.stop()
            await self.tail.stop()
        self.projector = None

    async def rebuild(self) -> None:
        if self.projector and self.projector.failure is None:
            assert (await rebuilt(self.projector)).done

    async def check(self) -> None:
        if self.projector and self.projector.failure is None:
            await self.projector.wait_for(await self.log.head())
            assert await self.projector.query(all_notes) == await folded(self.log)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(st.integers(0, 3), min_size=1, max_size=4)),
        st.tuples(st.just("start"), st.none() | st.integers(0, 6)),
        st.tuples(st.sampled_from(["stop", "rebuild", "check"])),
    ),
    max_size=14,
)


@settings(max_examples=20, deadline=None)
@given(steps)
def test_rows_equal_log_after_any_steps(sequence: list[tuple[str, object]]) -> None:
    async def run(home: str) -> None:
        machine = Machine(home)
        try:
            for name, *arguments in sequence:
                await getattr(machine, name)(*arguments)
            await machine.start(None)
            await machine.check()
            await machine.rebuild()
            await machine.check()
        finally:
            await machine.stop()

    with tempfile.TemporaryDirectory() as home:
        asyncio.run(run(home))

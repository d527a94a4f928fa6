"""Whatever happens to a log, its rows and its snapshots in whatever order, the rows are what the log says."""

from __future__ import annotations

import asyncio
import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st

from eventstore import snapshots
from eventstore.memory import MemoryStore
from services.objects import open_objects
from tests.contract.events import TYPES, new
from tests.contract.kept import FOLDER, flipped, take
from tests.contract.notes import Notes, all_notes, folded, lose_rows, running


class Machine:
    """A log that loses its tail, rows that are lost, snapshots that are taken and damaged."""

    def __init__(self, home: str) -> None:
        self.rows = f"{home}/rows"
        self.objects = open_objects(f"{home}/objects")
        self.log = MemoryStore("model", TYPES)
        self.version = 1

    async def append(self, streams: list[int]) -> None:
        await self.log.append([new(f"s{stream}", str(stream)) for stream in streams])

    async def lose_tail(self, count: int) -> None:
        kept = self.log._events[: max(len(self.log._events) - count, 0)]
        while kept and not kept[-1].closes_append:
            kept.pop()
        self.log = MemoryStore("model", TYPES)
        self.log._events = kept

    async def lose_rows(self) -> None:
        lose_rows(self.rows)

    async def damage(self, which: int) -> None:
        if names := self.objects.names(FOLDER):
            name = names[which % len(names)]
            self.objects.put(name, iter([flipped(b"".join(self.objects.get(name)))]))

    async def upgrade(self) -> None:
        self.version += 1

    async def run(self, snapshot: bool) -> None:
        async with running(self.log, self.rows, Notes(self.version), self.objects) as projector:
            assert await projector.query(all_notes) == await folded(self.log)
            if snapshot:
                await take(projector)
                assert 1 <= len(self.objects.names(FOLDER)) <= snapshots.KEPT


steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(st.integers(0, 3), min_size=1, max_size=4)),
        st.tuples(st.just("run"), st.booleans()),
        st.tuples(st.just("lose_tail"), st.integers(1, 5)),
        st.tuples(st.just("damage"), st.integers(0, 1)),
        st.tuples(st.sampled_from(["lose_rows", "upgrade"])),
    ),
    max_size=16,
)


@settings(max_examples=25, deadline=None)
@given(steps)
def test_whatever_happens_the_rows_are_what_the_log_says(taken: list[tuple[str, object]]) -> None:
    async def run(home: str) -> None:
        machine = Machine(home)
        for name, *arguments in taken:
            await getattr(machine, name)(*arguments)
        await machine.run(snapshot=True)
        await machine.lose_rows()
        await machine.run(snapshot=False)

    with tempfile.TemporaryDirectory() as home:
        asyncio.run(run(home))

"""A model test: whatever happens to a log, its rows and its snapshots, the rows are those of the log."""

from __future__ import annotations

import asyncio
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstore.epochs import find_loss
from eventstore.errors import LogLost
from eventstore.event import KnownPosition
from eventstore.projections.database import Database
from eventstore.projections.generations import Generations
from eventstore.projections.snapshots import store
from eventstore.projections.snapshots.store import Snapshots
from services.artifacts.objects import open_objects
from tests.contract.projections.notes import Notes, all_notes, folded, lose_rows, running
from tests.contract.projections.snapshots import FOLDER, flipped, take
from tests.contract.store.epochs import accept, new_log, shortened
from tests.contract.store.events import new


class Machine:
    """A log that loses its tail, rows that are lost, and snapshots that are taken and damaged."""

    def __init__(self, home: str) -> None:
        self.rows = f"{home}/rows"
        self.objects = open_objects(f"{home}/objects")
        self.log = new_log()
        self.version = 1
        self.number = 0

    async def append(self, streams: list[int]) -> None:
        await self.log.append([new(f"s{stream}", str(stream)) for stream in streams])

    async def lose_tail(self, count: int) -> None:
        kept = self.log._events[: max(len(self.log._events) - count, 0)]
        while kept and not kept[-1].closes_append:
            kept.pop()
        self.log = shortened(self.log, len(kept))

    async def lose_rows(self) -> None:
        lose_rows(self.rows)

    async def damage(self, which: int) -> None:
        if names := self.objects.names(FOLDER):
            name = names[which % len(names)]
            self.objects.put(name, iter([flipped(b"".join(self.objects.get(name)))]))

    async def upgrade(self) -> None:
        self.version += 1

    async def run(self, snapshot: bool) -> None:
        lost = [known for known in self.known() if await find_loss(self.log, known)]
        rows = [known for known in self.known() if known.source.startswith("rows ")]
        refusing = [known for known in lost if known in rows or not rows]
        if not refusing:
            await self.start(snapshot)
            return
        before = self.known()
        with pytest.raises(LogLost) as refused:
            await self.start(snapshot)
        assert {loss.known for loss in refused.value.losses} == set(refusing)
        assert self.known() == before
        await self.accept(lost)
        await self.start(snapshot)

    def keepers(self) -> tuple[Generations, Snapshots]:
        generations = Generations(Notes(self.version), Database(self.rows))
        return generations, Snapshots(generations, self.objects)

    def known(self) -> list[KnownPosition]:
        generations, store = self.keepers()
        return [*generations.known(), *store.known()]

    async def accept(self, lost: list[KnownPosition]) -> None:
        await accept(self.log)
        for known in lost:
            self.number += 1
            aside = [keeper.put_aside(known, self.number) for keeper in self.keepers()]
            assert any(aside)

    async def start(self, snapshot: bool) -> None:
        async with running(self.log, self.rows, Notes(self.version), self.objects) as projector:
            assert await projector.query(all_notes) == await folded(self.log)
            if snapshot:
                await take(projector)
                lost = [known for known in self.known() if await find_loss(self.log, known)]
                assert 1 <= len(self.objects.names(FOLDER)) - len(lost) <= store.KEPT


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
def test_rows_equal_log_after_any_steps(sequence: list[tuple[str, object]]) -> None:
    async def run(home: str) -> None:
        machine = Machine(home)
        for name, *arguments in sequence:
            await getattr(machine, name)(*arguments)
        await machine.run(snapshot=True)
        await machine.lose_rows()
        await machine.run(snapshot=False)

    with tempfile.TemporaryDirectory() as home:
        asyncio.run(run(home))

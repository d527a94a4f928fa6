"""Several processes keep the same rows: each event is applied once, whichever process is killed."""

from __future__ import annotations

import asyncio
import signal

import pytest

from eventstore.jetstream import JetStreamStore
from eventstore.projections.database import Database
from eventstore.projections.projector import Projector
from services.nats.server import NatsAddress
from tests.contract.projections.notes import Notes, all_notes, folded, running, write
from tests.contract.projections.other_process import finish, process, started
from tests.contract.store.events import following

pytestmark = pytest.mark.busy


async def test_killed_process_leaves_rows_and_checkpoint_consistent(
    nats_address: NatsAddress, log: JetStreamStore, location: str
) -> None:
    await write(log, 20)
    await write(log, 3, size=40)
    for position in (7, 70):
        async with process(nats_address, log, location, dies_at_event=position) as other:
            assert await other.wait() == -signal.SIGKILL
    async with running(log, location) as projector:
        assert await projector.query(all_notes) == await folded(log)


async def test_projectors_may_start_concurrently(log: JetStreamStore, postgres_url: str) -> None:
    await write(log, 20)
    async with following(log) as tail:
        projectors = [Projector(tail, Notes(), Database(postgres_url)) for _ in range(4)]
        await asyncio.gather(*(projector.start() for projector in projectors))
        expected = await folded(log)
        for projector in projectors:
            assert await projector.query(all_notes) == expected
            await projector.stop()


async def test_two_processes_apply_each_event_once(
    nats_address: NatsAddress, log: JetStreamStore, location: str
) -> None:
    await write(log, 10)
    async with process(nats_address, log, location) as other, running(log, location) as projector:
        await started(other)
        load = asyncio.gather(*(write(log, 100, size=1 + number) for number in range(3)))
        head = max(await load)
        await projector.wait_for(head)
        assert await projector.query(all_notes) == await folded(log)
        await finish(other)

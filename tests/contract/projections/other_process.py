"""Other processes that keep the same rows as the test's own; some are killed in the middle of their work."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from eventstore.event import RecordedEvent
from eventstore.jetstream import JetStreamStore
from eventstore.projections.snapshots import dump
from eventstore.projections.snapshots.schedule import SnapshotKeeper
from eventstore.projections.snapshots.store import Snapshots
from services.artifacts.objects import open_objects
from services.nats.server import NatsAddress
from tests.contract.projections.notes import Notes, all_notes, folded, running
from tests.contract.store.events import TYPES
from tests.servers.nats import open_log

ROOT = Path(__file__).parents[3]
Process = asyncio.subprocess.Process


@asynccontextmanager
async def process(address: NatsAddress, log: JetStreamStore, location: str, **how: str | int) -> AsyncIterator[Process]:
    """A process that starts a projector and goes on until it is told to `finish`.

    It may have `objects` (where snapshots are), may `take` a snapshot as soon as it has started, and dies at the event
    at the position `dies_at_event`, or at the piece `dies_at_piece` of a snapshot.
    """
    say = {"url": address.url, "user": address.user, "password": address.password, "log": log.log, "rows": location}
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.contract.projections.other_process"),
        cwd=ROOT,
        env=os.environ | {"PROCESS": json.dumps(say | how)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield child
    finally:
        assert child.stdin
        child.stdin.close()
        await child.wait()


async def started(child: Process) -> None:
    """Returns once a process has started, and has taken its snapshot if it should."""
    assert child.stdout
    assert await child.stdout.readline() == b"started\n"


async def finish(child: Process) -> None:
    """Has a process compare its rows with the log and end."""
    assert child.stdin
    assert child.stdout
    child.stdin.close()
    assert await child.stdout.readline() == b"done\n"
    assert await child.wait() == 0


async def _main(say: Mapping[str, str]) -> None:
    dies_at = int(say.get("dies_at_event", 0))

    def die(event: RecordedEvent) -> None:
        if event.position == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    if piece := int(say.get("dies_at_piece", 0)):
        _die_at(piece)
    address = NatsAddress(say["url"], say["user"], say["password"], "", "")
    objects = open_objects(say["objects"]) if "objects" in say else None
    async with (
        open_log(address, TYPES, say["log"]) as log,
        running(log, say["rows"], Notes(hook=die), objects) as projector,
    ):
        if "take" in say:
            async for _ in SnapshotKeeper(projector, 0, 1).take():
                pass
        print("started", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await projector.wait_for(await log.head())
        assert await projector.query(all_notes) == await folded(log)
        print("done", flush=True)


def _die_at(piece: int) -> None:
    """Has this process killed at so many pieces of a snapshot; there are many."""
    dump.BLOCK = 512
    going_on, left = Snapshots._going_on, [piece]

    def counted(self: Snapshots, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for one in going_on(self, pieces):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            yield one

    Snapshots._going_on = counted  # type: ignore[assignment,method-assign]


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(_main(json.loads(os.environ["PROCESS"])))

"""Other processes that keep the same rows as the test's own; some are killed halfway."""

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
async def process(
    address: NatsAddress, log: JetStreamStore, location: str, **options: str | int
) -> AsyncIterator[Process]:
    """Run a process that starts a projector and runs until `finish`.

    `options` may name `objects` (the URL of the snapshots), `take` (take a snapshot at once), and `dies_at_event` (a
    position) or `dies_at_piece` (of a snapshot), where the process kills itself.
    """
    settings = {
        "url": address.url,
        "user": address.user,
        "password": address.password,
        "log": log.log,
        "rows": location,
    }
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.contract.projections.other_process"),
        cwd=ROOT,
        env=os.environ | {"PROCESS": json.dumps(settings | options)},
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
    """Wait until a process has started and, if requested, has taken its snapshot."""
    assert child.stdout
    assert await child.stdout.readline() == b"started\n"


async def finish(child: Process) -> None:
    """Let a process compare its rows with the log and end."""
    assert child.stdin
    assert child.stdout
    child.stdin.close()
    assert await child.stdout.readline() == b"done\n"
    assert await child.wait() == 0


async def _main(settings: Mapping[str, str]) -> None:
    dies_at = int(settings.get("dies_at_event", 0))

    def die(event: RecordedEvent) -> None:
        if event.position == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    if piece := int(settings.get("dies_at_piece", 0)):
        _die_at(piece)
    address = NatsAddress(settings["url"], settings["user"], settings["password"], "", "")
    objects = open_objects(settings["objects"]) if "objects" in settings else None
    async with (
        open_log(address, TYPES, settings["log"]) as log,
        running(log, settings["rows"], Notes(hook=die), objects) as projector,
    ):
        if "take" in settings:
            async for _ in SnapshotKeeper(projector, 0, 1).take():
                pass
        print("started", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await projector.wait_for(await log.head())
        assert await projector.query(all_notes) == await folded(log)
        print("done", flush=True)


def _die_at(piece: int) -> None:
    """Kill this process at a piece of a snapshot; small blocks make many pieces."""
    dump.BLOCK = 512
    original, left = Snapshots._going_on, [piece]

    def dying(self: Snapshots, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for written in original(self, pieces):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            yield written

    Snapshots._going_on = dying  # type: ignore[assignment,method-assign]


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(_main(json.loads(os.environ["PROCESS"])))

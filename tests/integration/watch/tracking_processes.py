"""Tracking processes over one NATS, each with its own rows, raw watches on them, and the events in the log."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, aclosing, contextmanager
from pathlib import Path
from typing import Any

import grpc

from eventstore.event import RecordedEvent
from eventstore.jetstream import JetStreamStore, connect
from rollforward import v1
from rollforward.errors import from_rpc_error
from services import tracking
from services.nats.server import NatsAddress
from tests.e2e.processes import start_service
from tests.e2e.program import Program
from tests.integration.up import SECONDS, Client, new_id
from tests.servers.nats import running_nats

Steps = list[v1.WatchRunsResponse]


class Tracking(Client):
    """A tracking process, and a client of it."""

    def __init__(self, program: Program, address: str) -> None:
        super().__init__(address)
        self.program = program
        self.address = address

    def head(self) -> int:
        """Return the last position of the tracking log."""
        return self.heads()["tracking"]

    def at_head(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata that makes a read wait for the log's head, whichever process wrote it."""
        return (("rollforward-min-position", f"tracking={self.head()}"),)

    def watch(self, **fields: Any) -> Any:
        """Watch runs."""
        return self.tracking.WatchRuns(v1.WatchRunsRequest(**fields), metadata=self.at_head(), timeout=SECONDS * 2)

    def start(self, experiment_id: str, **fields: Any) -> str:
        """Start a run; return its id."""
        run_id = new_id()
        request = v1.StartRunRequest(run_id=run_id, experiment_id=experiment_id, name=run_id[:8], **fields)
        self.tracking.StartRun(request, timeout=SECONDS)
        return run_id

    def log(self, run_id: str, **fields: Any) -> int:
        """Log a batch; return the position of its end."""
        return self.tracking.LogBatch(v1.LogBatchRequest(run_id=run_id, **fields), timeout=SECONDS).position

    def finish(self, run_id: str) -> int:
        """Finish a run; return the position."""
        request = v1.FinishRunRequest(run_id=run_id, status=v1.RUN_STATUS_FINISHED)
        return self.tracking.FinishRun(request, timeout=SECONDS).position

    def run(self, run_id: str) -> v1.Run:
        """Return a run."""
        request = v1.GetRunRequest(run_id=run_id)
        return self.tracking.GetRun(request, metadata=self.at_head(), timeout=SECONDS).run


class Processes:
    """As many tracking processes as are asked for, over one log."""

    def __init__(self, nats: NatsAddress, home: Path, stack: ExitStack) -> None:
        self._nats = nats
        self._home = home
        self._stack = stack
        self._number = 0

    def start(self) -> Tracking:
        """Start one more process."""
        self._number += 1
        program, address = start_service("tracking", self._home, self._nats, self._number)
        self._stack.callback(program.kill)
        process = Tracking(program, address)
        self._stack.callback(process.channel.close)
        return process

    def events(self, after: int, until: int) -> list[RecordedEvent]:
        """Return the events in the log, read without a service."""
        return asyncio.run(self._read(after, until))

    async def _read(self, after: int, until: int) -> list[RecordedEvent]:
        client = await connect(self._nats.url, self._nats.user, self._nats.password)
        try:
            store = JetStreamStore(client, "tracking", tracking.EVENTS)
            await store.open()
            events: list[RecordedEvent] = []
            async with aclosing(store.subscribe(after)) as batches:
                async for batch in batches:
                    events += batch
                    if batch[-1].position >= until:
                        break
            return events
        finally:
            await client.close()


@contextmanager
def processes(home: Path) -> Iterator[Processes]:
    """Yield tracking processes over a NATS of their own; all end with the `with` block."""
    with running_nats() as nats, ExitStack() as stack:
        yield Processes(nats, home, stack)


def read(watch: Any, until: int) -> Steps:
    """Return the steps of a watch up to the one that reaches a position; the watch continues."""
    steps: Steps = []
    while not steps or steps[-1].position < until:
        steps.append(next(watch))
    return steps


def snapshot(watch: Any) -> tuple[dict[str, v1.Run], int]:
    """Return the runs in a watch's snapshot, by id, and its position."""
    runs: dict[str, v1.Run] = {}
    while True:
        step = next(watch)
        assert step.WhichOneof("step") == "snapshot"
        assert not runs.keys() & {run.run_id for run in step.snapshot.runs}
        runs.update((run.run_id, run) for run in step.snapshot.runs)
        if not step.snapshot.continues:
            return runs, step.position
        assert step.position == 0


def changes_of(steps: Sequence[v1.WatchRunsResponse]) -> list[v1.RunChange]:
    """Return the changes in steps."""
    return [change for step in steps for change in step.changes.changes]


def true_changes(events: Sequence[RecordedEvent], run_ids: Mapping[str, object] | set[str]) -> list[tuple[int, bytes]]:
    """Return the position and the event of each change of some runs."""
    payloads = [event for event in events if event.stream.partition("/")[2] in run_ids]
    return [(event.position, event.data.SerializeToString(deterministic=True)) for event in payloads]


def event_payloads(changes: Sequence[v1.RunChange]) -> list[tuple[int, bytes]]:
    """Return the position and the event of each change."""
    payloads = []
    for change in changes:
        kind = change.WhichOneof("event")
        assert kind
        payloads.append((change.position, getattr(change, kind).SerializeToString(deterministic=True)))
    return payloads


def reason_at_end(watch: Any) -> tuple[Steps, str]:
    """Return all steps of a watch that ends with an error, and the reason."""
    steps: Steps = []
    try:
        for step in watch:
            steps.append(step)
    except grpc.RpcError as error:
        return steps, from_rpc_error(error).reason
    raise AssertionError("not broken off")

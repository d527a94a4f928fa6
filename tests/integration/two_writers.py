"""Two sets of all services over one log, like two processes; appends can be interrupted after they are written."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest

from eventstore.event import NewEvent
from eventstore.jetstream import JetStreamStore
from rollforward import v1
from services.app import SERVICES, running
from services.settings import Settings
from tests.integration.up import SECONDS, Client
from tests.servers.nats import running_nats
from tests.timeouts import scaled

_append = JetStreamStore.append


@dataclass(frozen=True, slots=True)
class Interruption:
    """What happens once an append is written: another client acts, then the acknowledgement arrives or is lost.

    Attributes:
        act: What the other client does.
        error: What the append raises instead of returning, if anything.
        hangs: Whether the append never returns, until its caller disconnects.
    """

    act: Callable[[], object]
    error: Exception | None = None
    hangs: bool = False


@dataclass(slots=True)
class Writers:
    """Two clients, each of its own services over the same log.

    Attributes:
        one: A client of the first services.
        other: A client of the second services.
        address: The address of the first services.
        artifacts: The artifact directory of both.
        interruptions: By request id, what happens to the first append of that request.
    """

    one: Client
    other: Client
    address: str
    artifacts: Path
    interruptions: dict[str, Interruption] = field(default_factory=dict)

    def catch_up(self) -> None:
        """Wait until the first services' rows have reached the head of every log."""
        heads = ",".join(f"{log}={head}" for log, head in self.one.heads().items())
        headers = (("rollforward-min-position", heads),)
        self.one.registry.ListModels(v1.ListModelsRequest(page_size=1), metadata=headers, timeout=SECONDS)
        self.one.webhooks.ListWebhooks(v1.ListWebhooksRequest(page_size=1), metadata=headers, timeout=SECONDS)

    def written(self, request_id: str) -> list[int]:
        """Return the positions of the events that a request wrote."""
        heads = ",".join(f"{log}={head}" for log, head in self.one.heads().items())
        request = v1.ListEventsRequest(request_id=request_id)
        listed = self.one.audit.ListEvents(request, metadata=(("rollforward-min-position", heads),), timeout=SECONDS)
        return sorted(event.position for event in listed.events)


async def _interrupted(
    store: JetStreamStore,
    writers: Writers,
    events: Sequence[NewEvent],
    expected: Mapping[str, int] | None = None,
) -> tuple[int, ...]:
    """Append as the real store does, then interrupt."""
    positions = await _append(store, events, expected)
    interruption = writers.interruptions.pop(events[0].metadata.request_id, None)
    if interruption:
        await asyncio.to_thread(interruption.act)
        if interruption.hangs:
            await asyncio.Event().wait()
        if interruption.error:
            raise interruption.error
    return positions


@contextmanager
def two_writers(home: Path) -> Iterator[Writers]:
    """Run two sets of all services over one log, each with its own rows."""
    with running_nats() as nats, pytest.MonkeyPatch.context() as patch, _Loop() as loop:
        settings = [
            Settings(
                tuple(SERVICES),
                "127.0.0.1:0",
                data=home / name,
                artifacts=str(home / "artifacts"),
                nats=nats.url,
                nats_user=nats.user,
                nats_password=nats.password,
                webhook_key="k" * 32,
                webhooks_allow_private=1,
            )
            for name in ("one", "other")
        ]
        with loop.run(settings) as (one, other):
            writers = Writers(Client(one), Client(other), one, home / "artifacts")
            patch.setattr(JetStreamStore, "append", partialmethod(_interrupted, writers))
            yield writers
            for client in (writers.one, writers.other):
                client.channel.close()


class _Loop:
    """An event loop on its own thread, because the tests' clients block."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="two writers")

    def __enter__(self) -> _Loop:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(scaled(60))

    @contextmanager
    def run(self, settings: Sequence[Settings]) -> Iterator[list[str]]:
        """Run services and yield their addresses."""
        running_all = _all_running(settings)
        yield self._do(running_all.__aenter__())
        self._do(running_all.__aexit__(None, None, None))


@asynccontextmanager
async def _all_running(settings: Sequence[Settings]) -> AsyncIterator[list[str]]:
    async with running(settings[0]) as one, running(settings[1]) as other:
        yield [one.grpc, other.grpc]

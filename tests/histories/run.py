"""Records one history: clients and watchers on models of their own, and harm drawn from a seed."""

from __future__ import annotations

import asyncio
import random
import tempfile
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

from rollforward import Connection, Unavailable, register_model, upload, v1
from tests.e2e.program import until
from tests.histories.clients import FAILED, VERSIONS, Client
from tests.histories.faults import Nemesis
from tests.histories.log import head, read_log, read_names
from tests.histories.namers import Namer, Names
from tests.histories.recording import History, Stream, Target
from tests.histories.system import System
from tests.histories.watchers import SdkWatcher, Watcher

CLIENTS = 4
NAMERS = 2
ROUND = 40


class Recorder:
    """Records histories on a running system, one after the other."""

    def __init__(self, system: System, clients: int = CLIENTS) -> None:
        self._system, self._clients = system, clients

    def record(self, seed: int, faults: Sequence[str] | None = None) -> History:
        """One history; `faults` are done instead of those that the seed draws."""
        dice = random.Random(seed)
        name = f"h{seed}"
        targets = [Target(f"{name}-a", "champion"), Target(f"{name}-a", "canary"), Target(f"{name}-b", "champion")]
        history = History(name)
        began, digest = self._prepare(targets)
        with ExitStack() as stack:
            clients = [self._client(f"{name}-client-{n}", targets, began, dice, stack) for n in range(self._clients)]
            watchers = self._watchers(name, began, dice, stack)
            namers = self._namers(name, digest, dice, stack)
            with _Crew(clients, namers, watchers) as crew:
                nemesis = Nemesis(self._system, dice, crew.progress)
                history.faults = list(faults if faults is not None else nemesis.draw(dice.randint(1, 2)))
                for fault in history.faults:
                    crew.progress(ROUND)
                    nemesis.strike(fault)
                crew.progress(ROUND)
                crew.rest()
                self._system.check_running()
                history.goal = self._quiet_at(dict.fromkeys(target.model for target in targets))
                crew.come_to(history.goal)
                history.stuck = crew.stuck
        history.operations = [one for client in clients for one in client.operations]
        history.streams = [stream for watcher in watchers for stream in watcher.streams]
        models = {target.model for target in targets}
        history.namings = [one for namer in namers for one in namer.namings]
        history.events, history.schedules = asyncio.run(read_log(self._system.nats.address, began, models))
        history.named = asyncio.run(read_names(self._system.nats.address, began, f"{name}-n"))
        return history

    def _quiet_at(self, models: Iterable[str]) -> int:
        """Waits for the scheduled moves to come; the position of the last event then."""
        with Connection(self._system.addresses[0], actor="setup") as link:

            def are_over() -> bool:
                asked = [v1.ListSchedulesRequest(model=model) for model in models]
                try:
                    return not any(link.call(link.registry.ListSchedules, one, timeout=2).schedules for one in asked)
                except Unavailable as error:
                    return error.reason == FAILED  # none will ever come

            with suppress(AssertionError):  # the checker tells of one that never came
                until(are_over, "no move scheduled", 20)
        return asyncio.run(head(self._system.nats.address))

    def _prepare(self, targets: Sequence[Target]) -> tuple[int, str]:
        """Registers the versions; the position that the history begins at, and their digest."""
        with tempfile.TemporaryDirectory() as home, Connection(self._system.addresses[0], actor="setup") as link:
            path = Path(home, "weights")
            path.write_bytes(b"the same for all")
            digest, _ = upload(path, connection=link)
            for model in dict.fromkeys(target.model for target in targets):
                for _ in range(VERSIONS):
                    register_model(model, digest=digest, connection=link)
            return link.positions["registry"], digest

    def _client(
        self, name: str, targets: Sequence[Target], began: int, dice: random.Random, stack: ExitStack
    ) -> Client:
        client = Client(name, self._system.addresses, targets, began, random.Random(dice.random()))
        stack.callback(client.close)
        return client

    def _namers(self, name: str, digest: str, dice: random.Random, stack: ExitStack) -> list[Namer]:
        names = Names(name)
        namers = [
            Namer(f"{name}-namer-{n}", self._system.addresses, names, digest, random.Random(dice.random()))
            for n in range(NAMERS)
        ]
        for namer in namers:
            stack.callback(namer.close)
        return namers

    def _watchers(self, name: str, began: int, dice: random.Random, stack: ExitStack) -> Sequence[Watcher | SdkWatcher]:
        links = [Connection(address, actor=f"{name}-watcher") for address in self._system.addresses]
        for link in links:
            stack.callback(link.close)
        streams = {
            "a": Stream("a", f"{name}-a", "", began),
            "b": Stream("b", f"{name}-b", "champion", began),
            "c": Stream("c", f"{name}-a", "champion", None),
        }
        raw = [
            Watcher(f"{name}-watcher-{key}", links, stream, random.Random(dice.random()))
            for key, stream in streams.items()
        ]
        return [*raw, SdkWatcher(f"{name}-sdk", links[0], Stream("", f"{name}-a", "", began))]


class _Crew:
    """Clients and watchers at work, each on a thread of its own."""

    def __init__(
        self, clients: Sequence[Client], namers: Sequence[Namer], watchers: Sequence[Watcher | SdkWatcher]
    ) -> None:
        self._clients, self._namers, self._watchers = clients, namers, watchers
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(len(clients) + len(namers) + len(watchers))
        self._working: list[Future[None]] = []
        self._following: list[Future[None]] = []

    def __enter__(self) -> _Crew:
        workers: list[Client | Namer] = [*self._clients, *self._namers]
        self._working = [self._pool.submit(worker.work, self._stopping) for worker in workers]
        self._following = [self._pool.submit(watcher.work) for watcher in self._watchers]
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        for watcher in self._watchers:
            watcher.end()
        self._pool.shutdown()

    def progress(self, number: int) -> None:
        """Returns once so many more operations were answered."""
        goal = self._answered() + number
        until(
            lambda: self._is_well() and (bool(self.stuck) or self._answered() >= goal), "more operations answered", 60
        )

    @property
    def stuck(self) -> str:
        """What a client was told if the services cannot go on; empty as long as they can."""
        told = [*(client.stuck for client in self._clients), *(namer.stuck for namer in self._namers)]
        return next(filter(None, told), "")

    def rest(self) -> None:
        """Lets the clients end what they are doing."""
        self._stopping.set()
        for working in self._working:
            working.result()

    def come_to(self, position: int) -> None:
        """Gives every watcher time to come to a position, and ends them; the checker tells of one that did not."""
        with suppress(AssertionError):
            until(lambda: self._is_well() and all(one.position >= position for one in self._watchers), "watched", 20)
        for watcher in self._watchers:
            watcher.end()
        for following in self._following:
            following.result()

    def _answered(self) -> int:
        return sum(len(client.operations) for client in self._clients)

    def _is_well(self) -> bool:
        for future in [*self._working, *self._following]:
            if future.done():
                future.result()
        return True

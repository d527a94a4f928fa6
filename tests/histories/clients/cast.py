"""The participants of one history, created from its seed."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rollforward import Client
from tests.histories.clients.alias_clients import VERSIONS, AliasClient
from tests.histories.clients.crew import Worker
from tests.histories.clients.gaters import Gater
from tests.histories.clients.hooks import Hook
from tests.histories.clients.ledger import Ledger
from tests.histories.clients.namers import Namer, Names
from tests.histories.clients.trackers import SdkTracker, Tracker
from tests.histories.clients.walkers import Walker
from tests.histories.clients.watchers import SdkWatcher, Watcher
from tests.histories.recorded.recording import Stream, Target
from tests.histories.systems.clocks import ClientClock
from tests.histories.systems.system import System

CLIENTS = 4
NAMERS = 2
JOURNAL = "ROLLFORWARD_JOURNAL"


class Closing(Protocol):
    """A participant with something to close."""

    def close(self) -> None:
        """Close it."""


@dataclass
class Cast:
    """The participants; `began` is the position of the registry log before them."""

    targets: Sequence[Target]
    began: int
    clock: ClientClock
    clients: Sequence[AliasClient]
    namers: Sequence[Namer]
    watchers: Sequence[Watcher | SdkWatcher]
    trackers: tuple[Tracker, SdkTracker]
    gater: Gater
    hook: Hook
    walker: Walker

    @property
    def others(self) -> Sequence[Worker]:
        """Return the workers other than the clients and namers."""
        return [*self.trackers, self.gater, self.walker]


def prepared(name: str, system: System, dice: random.Random, stack: ExitStack) -> Cast:
    """Make the participants of a history, and all that they need; `stack` ends them."""
    targets = [Target(f"{name}-a", "champion"), Target(f"{name}-a", "canary"), Target(f"{name}-b", "champion")]
    address, addresses = system.addresses[0], system.addresses
    began, digest = _register(address, targets, stack)
    clock, ledger = ClientClock(), Ledger()
    dices = [random.Random(dice.random()) for _ in range(CLIENTS + NAMERS + 5)]
    clients = [
        AliasClient(f"{name}-client-{number}", addresses, targets, began, (clock, ledger), dices.pop())
        for number in range(CLIENTS)
    ]
    names = Names(name)
    namers = [
        Namer(f"{name}-namer-{number}", addresses, names, digest, ledger, dices.pop()) for number in range(NAMERS)
    ]
    trackers = (
        Tracker(f"{name}-tracker", address, clock, ledger, dices.pop()),
        SdkTracker(f"{name}-job", address, dices.pop()),
    )
    gater = Gater(f"{name}-gate", addresses, dices.pop())
    hook = Hook(f"{name}-hook", address, targets[0].model, began, dices.pop())
    closing: list[Closing] = [*clients, *namers, *trackers, gater, hook]
    for one in closing:
        stack.callback(one.close)
    for tracker in trackers:
        tracker.prepare()
    gater.prepare(digest)
    hook.prepare()
    walker = Walker(name, addresses, ledger, targets[0].model, trackers[0].experiment_id, dices.pop())
    stack.callback(walker.close)
    watchers = _watchers(name, addresses, began, dice, stack)
    return Cast(targets, began, clock, clients, namers, watchers, trackers, gater, hook, walker)


def _register(address: str, targets: Sequence[Target], stack: ExitStack) -> tuple[int, str]:
    """Register the versions; return the position that the history begins at, and their digest."""
    home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="histories-journal-")))
    os.environ[JOURNAL] = str(home)
    with Client(address, actor="setup") as client:
        path = home / "weights"
        path.write_bytes(b"the same for all")
        digest, _ = client.artifacts.upload(path)
        for model in dict.fromkeys(target.model for target in targets):
            for _ in range(VERSIONS):
                client.versions.register(model, digest=digest)
        return client.positions["registry"], digest


def _watchers(
    name: str, addresses: Sequence[str], began: int, dice: random.Random, stack: ExitStack
) -> Sequence[Watcher | SdkWatcher]:
    sdk_clients = [Client(address, actor=f"{name}-watcher") for address in addresses]
    for client in sdk_clients:
        stack.callback(client.close)
    streams = {
        "a": Stream("a", f"{name}-a", "", began),
        "b": Stream("b", f"{name}-b", "champion", began),
        "c": Stream("c", f"{name}-a", "champion", None),
    }
    raw = [
        Watcher(f"{name}-watcher-{key}", sdk_clients, stream, random.Random(dice.random()))
        for key, stream in streams.items()
    ]
    return [*raw, SdkWatcher(f"{name}-sdk", sdk_clients[0], Stream("", f"{name}-a", "", began))]

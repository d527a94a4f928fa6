"""An alias moves 40 times while a webhook receiver, and a watcher, are down for 30 seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator

import rollforward as rf
from benchmarks.harness.clients import connect
from benchmarks.harness.contract import ALIAS, Client, Endpoint
from benchmarks.harness.deliveries import verdict
from benchmarks.harness.figures import Figure
from benchmarks.harness.receiver import Receiver
from benchmarks.harness.scene import Options, Scene
from benchmarks.systems.hooks import moved_to, webhooks
from benchmarks.systems.names import OURS, PEERS

MOVES = 40
DOWN_SECONDS = 30.0
_MODEL = "outage"
_TIMEOUT_SECONDS = {"rollforward": 90.0, "mlflow": 30.0}
"""Seconds after which nothing more is to be expected: a retry pauses for at most 60 s, or for 5 s."""


def measure(system: str, endpoint: Endpoint, options: Options) -> Iterator[Figure]:
    """Measure one outage: deliveries by webhook, and with ours also by a resumed watch."""
    del options
    client = connect(endpoint.quickened())
    client.prepare(_MODEL, MOVES + 1)
    position = _watched_up_to(endpoint) if endpoint.kind == "rollforward" else 0
    with Receiver() as receiver, webhooks(endpoint, _MODEL, receiver):
        receiver.down()
        _move_evenly(client)
        receiver.up()
        back = time.perf_counter()
        receiver.wait_for(MOVES, _TIMEOUT_SECONDS[endpoint.kind])
        taken = receiver.accepted()
    client.close()
    yield from verdict("outage", "webhook", system, MOVES, [moved_to(one.body) for one in taken])
    if len(taken) >= MOVES:
        yield Figure("outage", "webhook", system, "s until all were there", (taken[-1].time - back,))
    if endpoint.kind == "rollforward":
        yield from _resumed(system, endpoint, position)


def _move_evenly(client: Client) -> None:
    """Move to version 1, 2 and so on, evenly over the whole time."""
    begun = time.perf_counter()
    for number in range(1, MOVES + 1):
        client.move(_MODEL, ALIAS, number)
        time.sleep(max(0.0, begun + number * DOWN_SECONDS / MOVES - time.perf_counter()))


def _watched_up_to(endpoint: Endpoint) -> int:
    """Return the position of a watcher of ours that leaves after one move."""
    name = f"{_MODEL}@{ALIAS}"
    with rf.Client(endpoint.address) as connection, connection.aliases.watch(name) as watch:
        connection.aliases.move(name, MOVES + 1)
        next(watch)
        return watch.position


def _resumed(system: str, endpoint: Endpoint, position: int) -> Iterator[Figure]:
    """Measure what a watcher receives when it resumes."""
    begun = time.perf_counter()
    with (
        rf.Client(endpoint.address) as connection,
        connection.aliases.watch(f"{_MODEL}@{ALIAS}", from_revision=position) as watch,
    ):
        received_at = [next(watch).to_version for _ in range(MOVES)]
    yield from verdict("outage", "watch, resumed", system, MOVES, received_at)
    yield Figure("outage", "watch, resumed", system, "s until all were there", (time.perf_counter() - begun,))


SCENE = Scene(
    "outage",
    f"a receiver is down for {DOWN_SECONDS:.0f} s during {MOVES} moves: what it is told",
    (OURS[0], PEERS[0]),
    measure,
)

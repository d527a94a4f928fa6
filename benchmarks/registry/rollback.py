"""Roll a thousand aliases back: in one call, or by as many calls of sixteen clients."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import rollforward as rf
from benchmarks.harness.clients import connect
from benchmarks.harness.contract import Client, Endpoint
from benchmarks.harness.figures import Figure
from benchmarks.harness.scene import Options, Scene
from benchmarks.systems.names import OURS, PEERS

MODELS, ALIASES = 100, 10
CLIENTS = 16
_TARGETS = [(f"bulk-{model}", f"stage-{alias}") for model in range(MODELS) for alias in range(ALIASES)]


def measure(system: str, endpoint: Endpoint, options: Options) -> Iterator[Figure]:
    """Measure the duration in milliseconds."""
    client = connect(endpoint.quickened())
    for model in range(MODELS):
        client.prepare(f"bulk-{model}", 2)
    client.close()
    if endpoint.kind == "rollforward":
        yield Figure("rollback", f"{len(_TARGETS):,} aliases", system, "ms", _by_one_call(endpoint, options.rounds))
    else:
        yield Figure("rollback", f"{len(_TARGETS):,} aliases", system, "ms", _by_many_calls(endpoint))


def _by_one_call(endpoint: Endpoint, rounds: int) -> tuple[float, ...]:
    """Roll all aliases forth and back a number of times; every call changes every alias."""
    with rf.Client(endpoint.address, timeout=60.0) as connection:
        past = [
            connection.aliases.move_many({f"{model}@{alias}": version for model, alias in _TARGETS}).revision
            for version in (1, 2)
        ]
        times = []
        for number in range(rounds):
            begun = time.perf_counter()
            answer = connection.aliases.rollback("bulk-*@stage-*", past[number % 2])
            times.append((time.perf_counter() - begun) * 1e3)
            if len(answer.changes) != len(_TARGETS):
                raise RuntimeError(f"{len(answer.changes)} aliases were rolled back")
    return tuple(times)


def _by_many_calls(endpoint: Endpoint) -> tuple[float, ...]:
    """Set the aliases to remembered versions, one by one."""
    clients = [connect(endpoint) for _ in range(CLIENTS)]
    shares = [_TARGETS[number::CLIENTS] for number in range(CLIENTS)]
    times = []
    with ThreadPoolExecutor(CLIENTS) as pool:
        for version in (2, 1):
            begun = time.perf_counter()
            list(pool.map(_set, clients, shares, [version] * CLIENTS))
            times.append((time.perf_counter() - begun) * 1e3)
    for client in clients:
        client.close()
    return (times[-1],)


def _set(client: Client, targets: Sequence[tuple[str, str]], version: int) -> None:
    for model, alias in targets:
        client.move(model, alias, version)


SCENE = Scene(
    "rollback",
    f"{len(_TARGETS):,} aliases rolled back in one call; a peer without such a call sets each, with {CLIENTS} clients",
    (OURS[0], PEERS[0]),
    measure,
)

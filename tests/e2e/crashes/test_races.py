"""Two programs move one alias at once with the same expected revision: one wins, the other gets the state."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

import rollforward as rf
from tests.e2e.crashes.racer import CHAMPION, GO
from tests.e2e.models import write_constant_model
from tests.e2e.processes import Services, start_service
from tests.e2e.program import Program
from tests.servers.nats import running_nats

pytestmark = pytest.mark.busy

RACES = 50

System = Callable[[Path], AbstractContextManager[list[str]]]


@contextmanager
def one_process(home: Path) -> Iterator[list[str]]:
    """Yield the same process for both clients, as two addresses."""
    with Services(home / "data") as services:
        yield [services.address] * 2


@contextmanager
def two_processes(home: Path) -> Iterator[list[str]]:
    """Yield two registry processes over one log, one for each client."""
    with running_nats() as nats, ExitStack() as stack:
        addresses = []
        for number, service in enumerate(["tracking", "registry", "registry"]):
            program, address = start_service(service, home, nats, number)
            stack.callback(program.kill)
            addresses.append(address)
        tracking, *registries = addresses
        yield [f"tracking={tracking},registry={registry}" for registry in registries]


@pytest.mark.parametrize("system", [one_process, two_processes])
def test_one_writer_wins_and_the_other_receives_current_state(system: System, tmp_path: Path) -> None:
    with system(tmp_path) as addresses, rf.Client(addresses[0], actor="starter") as client:
        for number in (1, 2):
            client.versions.register("m", path=write_constant_model(tmp_path / f"v{number}", number))
        for alias in (CHAMPION, GO):
            client.aliases.move(alias, 1)
        wins = run_races(client, dict(zip(("red", "blue"), addresses, strict=True)), tmp_path)
        client.connection.note_position("registry", wins[-1][1])
        history = [change for change in client.aliases.history(CHAMPION) if change.reason]
    assert [(change.actor, change.revision) for change in reversed(history)] == wins


def run_races(client: rf.Client, addresses: dict[str, str], home: Path) -> list[tuple[str, int]]:
    """Return who won each race, and with which revision."""
    wins = []
    with ExitStack() as stack:
        racers = {}
        for name, address in addresses.items():
            command = [sys.executable, "-m", "tests.e2e.crashes.racer", address, name, str(RACES)]
            racers[name] = Program(command, home / f"{name}.log")
            stack.callback(racers[name].kill)
        for racer in racers.values():
            racer.line("^ready")
        for number in range(RACES):
            client.aliases.move(GO, 2 - number % 2)
            results = {name: racer.line(f"^race {number}: ")[1].split()[2:] for name, racer in racers.items()}
            wins.append(find_winner(results))
        assert [racer.wait() for racer in racers.values()] == [0, 0]
    return wins


def find_winner(results: dict[str, list[str]]) -> tuple[str, int]:
    """Return the winner and its revision from both results: ["won" or a reason, alias revision, version]."""
    (winner,) = [name for name, result in results.items() if result[0] == "won"]
    (loser,) = results.keys() - {winner}
    assert results[loser][0] == "WRONG_REVISION"
    assert results[loser][1:] == results[winner][1:]
    return winner, int(results[winner][1])

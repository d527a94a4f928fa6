"""The check of rebuilds: at the end of a history the rows equal those rebuilt from the log."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from rollforward import Client, RollforwardError, v1
from tests.histories.checks.rules import Rule, Violation
from tests.histories.recorded.recording import History
from tests.histories.recorded.subjects import Rebuild

SECONDS = 60.0


def rebuild(addresses: Sequence[str], dice: random.Random) -> list[Rebuild]:
    """Rebuild the registry's rows in a process that moves aliases, and those of another projection."""
    with Client(dice.choice(addresses), actor="rebuild") as client:
        names = [
            (system, projection.name)
            for system in client.connection.systems
            for projection in client.connection.call(system.GetStatus, v1.GetStatusRequest()).projections
        ]
        registry = next(one for one in reversed(names) if one[1] == "registry")
        other = dice.choice([one for one in names if one != registry])
        return [_rebuilt(client, *registry), _rebuilt(client, *other)]


def _rebuilt(client: Client, system: v1.SystemServiceStub, name: str) -> Rebuild:
    last = v1.RebuildProjectionResponse()
    try:
        for step in client.connection.stream(
            system.RebuildProjection, v1.RebuildProjectionRequest(name=name), timeout=SECONDS
        ):
            last = step
    except RollforwardError as error:
        return Rebuild(name, "", "", error.reason)
    return Rebuild(name, last.live_digest, last.rebuilt_digest)


def check_rebuilds(history: History) -> Iterator[Violation]:
    """Check that every rebuild came to an end, and to the same rows."""
    for one in history.rebuilds:
        if one.reason or not one.live or one.live != one.rebuilt:
            yield Violation(Rule.ROWS_EQUAL_REBUILD, f"{one}")

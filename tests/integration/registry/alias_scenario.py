"""A random scenario of alias changes, applied to rows and kept as a list, so that the two can be compared."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from tests.integration.registry.registry_rows import BEGAN, SECOND, RegistryRows, registry_rows

MODELS = ["a", "b*", "c[1]", "c1"]
ALIASES = ["champion", "prod-eu", "prod-us"]


@dataclass(frozen=True, slots=True)
class Change:
    """A change of an alias."""

    position: int
    revision: int
    time: int
    origin: str
    alias: str
    before: int
    after: int
    actor: str


class AliasScenario:
    """Random moves and removals, one or several per append, of models one of which is renamed."""

    def __init__(self, rows: RegistryRows) -> None:
        self.rows = rows
        self.names = {origin: origin for origin in MODELS}
        self.changes: list[Change] = []
        self._random = random.Random(7)
        for origin in MODELS:
            rows.create(origin, **({"team": "risk"} if origin < "c" else {}))
            for _ in range(3):
                rows.register(origin)
        for step in range(60):
            self._step(step)

    def _step(self, step: int) -> None:
        if step in {20, 40}:
            self.rows.rename(self.names["a"], f"a{step}")
            self.names["a"] = f"a{step}"
            return
        keys = self._random.sample([(origin, alias) for origin in MODELS for alias in ALIASES], step % 3 + 1)
        actor = self._random.choice(["Zoë", "Max"])
        begun, time = self.rows.position, BEGAN + self.rows.appends * SECOND
        payloads = []
        for origin, alias in keys:
            before = self.current(origin, alias)
            after = self._random.choice([version for version in (0, 1, 2, 3) if version != before])
            payloads.append(self.rows.moved(self.names[origin], alias, after))
            at, end = begun + len(payloads), begun + len(keys)
            self.changes.append(Change(at, end, time, origin, alias, before, after, actor))
        self.rows.append(*payloads, actor=actor)

    def current(self, origin: str, alias: str) -> int:
        """Return the current version of an alias; 0 if it is unset."""
        return next((change.after for change in self.of(origin, alias)), 0)

    def of(self, origin: str, alias: str) -> list[Change]:
        """Return the changes of an alias, newest first."""
        return [change for change in reversed(self.changes) if (change.origin, change.alias) == (origin, alias)]

    def aliases(self) -> list[tuple[str, str]]:
        """Return all aliases that were ever set."""
        return sorted({(change.origin, change.alias) for change in self.changes})


def at(time_ns: int) -> Timestamp:
    """Return a timestamp."""
    result = Timestamp()
    result.FromNanoseconds(time_ns)
    return result


@contextmanager
def run_scenario(location: str) -> Iterator[AliasScenario]:
    """Run the scenario on new rows in a directory or a database."""
    with registry_rows(location) as rows:
        yield AliasScenario(rows)

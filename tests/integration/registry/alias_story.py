"""A story of aliases, told to rows and kept as a list, so that the two can be compared."""

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


class Story:
    """Random moves and removals, alone and several in one append, of models of which one gets other names."""

    def __init__(self, rows: RegistryRows) -> None:
        self.rows = rows
        self.names = {origin: origin for origin in MODELS}
        self.changes: list[Change] = []
        self._chance = random.Random(7)
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
        keys = self._chance.sample([(origin, alias) for origin in MODELS for alias in ALIASES], step % 3 + 1)
        actor = self._chance.choice(["Zoë", "Max"])
        begun, time = self.rows.position, BEGAN + self.rows.appends * SECOND
        payloads = []
        for origin, alias in keys:
            before = self.held(origin, alias)
            after = self._chance.choice([version for version in (0, 1, 2, 3) if version != before])
            payloads.append(self.rows.moved(self.names[origin], alias, after))
            at, end = begun + len(payloads), begun + len(keys)
            self.changes.append(Change(at, end, time, origin, alias, before, after, actor))
        self.rows.append(*payloads, actor=actor)

    def held(self, origin: str, alias: str) -> int:
        """The version that holds an alias; 0 for none."""
        return next((one.after for one in self.of(origin, alias)), 0)

    def of(self, origin: str, alias: str) -> list[Change]:
        """The changes of an alias, newest first."""
        return [one for one in reversed(self.changes) if (one.origin, one.alias) == (origin, alias)]

    def aliases(self) -> list[tuple[str, str]]:
        """All aliases that ever were set."""
        return sorted({(one.origin, one.alias) for one in self.changes})


def at(time_ns: int) -> Timestamp:
    """A time."""
    result = Timestamp()
    result.FromNanoseconds(time_ns)
    return result


@contextmanager
def told_story(where: str) -> Iterator[Story]:
    """The story, told to new rows in a directory or a database."""
    with registry_rows(where) as rows:
        yield Story(rows)

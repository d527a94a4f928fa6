"""The registry's rows in a real database, written append by append."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import sqlalchemy as sa
from google.protobuf.message import Message

from eventstore.event import Metadata, RecordedEvent
from eventstore.projections.database import Database
from eventstore.projections.generations import Generations
from rollforward import v1
from services.registry import POLICIES_STREAM, model_stream
from services.registry.projection.apply import RegistryProjection

T = TypeVar("T")

SECOND = 1_000_000_000
"""One second, in nanoseconds."""

BEGAN = 1_700_000_000 * SECOND
"""The time of the first append; each later one is a second after the one before."""


def digest(number: int) -> str:
    """Return a digest."""
    return f"sha256:{number:064x}"


class RegistryRows:
    """Rows, and the log that they are computed from."""

    def __init__(self, location: str) -> None:
        self._generations = Generations(RegistryProjection(), Database(location))
        self._rows = self._generations.create_live()
        self._origins: dict[str, str] = {}
        self._versions: dict[str, int] = {}
        self._current: dict[tuple[str, str], int] = {}
        self.position = 0
        self.appends = 0

    def append(self, *payloads: Message, actor: str = "Zoë", reason: str = "", stream: str = "") -> int:
        """Apply one append; return its revision."""
        end, time = self.position + len(payloads), BEGAN + self.appends * SECOND
        batch = [
            RecordedEvent(
                stream or self.stream_of(payload),
                position,
                time,
                f"event-{position}",
                payload,
                Metadata(actor, reason),
                end,
            )
            for position, payload in enumerate(payloads, self.position + 1)
        ]
        self._generations.apply(self._rows, self.position, batch)
        self.position, self.appends = end, self.appends + 1
        return end

    def stream_of(self, payload: Message) -> str:
        """Return the stream of an event, by the current names of models."""
        match payload:
            case v1.PolicySet() | v1.PolicyRemoved():
                return POLICIES_STREAM
            case v1.ModelNameTaken():
                return model_stream(payload.name)
            case _:
                name: str = payload.model  # type: ignore[attr-defined]
                return model_stream(self._origins.get(name, name))

    def create(self, name: str, description: str = "", **tags: str) -> int:
        """Create a model."""
        return self.append(v1.ModelCreated(model=name, description=description, tags=tags))

    def register(self, name: str, run_id: str = "", **tags: str) -> int:
        """Register a version; return its number."""
        origin = self._origins.get(name, name)
        number = self._versions[origin] = self._versions.get(origin, 0) + 1
        payload = v1.VersionRegistered(model=name, version=number, digest=digest(number), run_id=run_id, tags=tags)
        self.append(payload)
        return number

    def moved(self, name: str, alias: str, version: int) -> Message:
        """Return the event of a moved alias, or of a removed one if the version is 0."""
        key = (self._origins.get(name, name), alias)
        before = self._current.get(key, 0)
        self._current[key] = version
        from_digest = digest(before) if before else ""
        fields = {"model": name, "alias": alias, "from_version": before, "from_digest": from_digest}
        if not version:
            return v1.AliasRemoved(**fields, cause=v1.ALIAS_CAUSE_REQUEST)  # type: ignore[arg-type]
        return v1.AliasMoved(**fields, to_version=version, to_digest=digest(version), cause=v1.ALIAS_CAUSE_REQUEST)  # type: ignore[arg-type]

    def move(self, name: str, alias: str, version: int, actor: str = "Zoë") -> int:
        """Move an alias; return its revision."""
        return self.append(self.moved(name, alias, version), actor=actor)

    def rename(self, name: str, new_name: str) -> int:
        """Rename a model; return its revision."""
        origin = self._origins.get(name, name)
        payloads = (v1.ModelRenamed(model=name, to_name=new_name), v1.ModelNameTaken(name=new_name, origin=origin))
        revision = self.append(*payloads)
        self._origins[new_name] = origin
        return revision

    def query(self, statement: Callable[[sa.Connection], T]) -> T:
        """Run a query on the rows."""
        with self._rows.transaction() as connection:
            return statement(connection)

    def close(self) -> None:
        """Close all connections."""
        self._rows.close()


@contextmanager
def registry_rows(location: str) -> Iterator[RegistryRows]:
    """Yield new rows in a directory or a database."""
    rows = RegistryRows(location)
    try:
        yield rows
    finally:
        rows.close()


def all_pages(query: Callable[[str], tuple[Sequence[T], str]]) -> list[T]:
    """Return the items of all pages; `query` returns the page of a token, and the token of the next page."""
    items, token = query("")
    all_items = list(items)
    while token:
        items, token = query(token)
        all_items += items
    return all_items

"""The cases to test a gate with: current versions, and past moves."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from rollforward import v1
from services.listings.globs import matcher
from services.listings.keyset import Row, asked_by, listing_key
from services.listings.pages import cut, page_size
from services.registry.gates.evaluator import CHAMPION
from services.registry.gates.expression import MOVE, REGISTRATION
from services.registry.projection.tables import alias_changes, version_tags, versions
from services.registry.queries import models
from services.timestamps import nanoseconds, timestamp

MAX_VERSIONS = 1000
_CHUNK = 500

Case = Mapping[str, v1.GateRun]
"""A gate's variables, before what their runs measured is known."""

_MOVES = sa.select(alias_changes).where(alias_changes.c.to_version > 0).order_by(alias_changes.c.position)
_CHAMPION_BEFORE = (
    sa.select(alias_changes.c.to_version)
    .where(
        alias_changes.c.origin == sa.bindparam("of"),
        alias_changes.c.alias == CHAMPION,
        alias_changes.c.revision < sa.bindparam("before"),
    )
    .order_by(alias_changes.c.position.desc())
    .limit(1)
)


def versions_to_try(connection: sa.Connection, request: v1.TestGateRequest) -> list[Case]:
    """Return the versions that a request names, each as it would be registered, or moved to the alias.

    Raises:
        Rejected: MODEL_NOT_FOUND, MODEL_RENAMED or VERSION_NOT_FOUND.
    """
    model = models.model(connection, request.model)
    listed = [] if request.versions else _newest(connection, request.model)
    named = [models.version(connection, request.model, number) for number in dict.fromkeys(request.versions)]
    candidates = [_seen(version) for version in (*named, *listed)]
    if not request.alias:
        return [{REGISTRATION[0]: candidate} for candidate in candidates]
    current = {alias.alias: alias.version for alias in model.aliases}
    numbers = (current.get(alias, 0) for alias in (request.alias, CHAMPION))
    holders = [
        _seen(models.version(connection, request.model, number)) if number else v1.GateRun() for number in numbers
    ]
    return [dict(zip(MOVE, (candidate, *holders), strict=True)) for candidate in candidates]


def _newest(connection: sa.Connection, model: str) -> list[v1.Version]:
    request = v1.ListVersionsRequest(model=model, order_by="version DESC")
    newest: list[v1.Version] = []
    while len(newest) < MAX_VERSIONS:
        request.page_size = MAX_VERSIONS - len(newest)
        page = models.list_versions(connection, request)
        newest += page.versions
        request.page_token = page.next_page_token
        if not request.page_token:
            break
    return newest


def _seen(version: v1.Version) -> v1.GateRun:
    return v1.GateRun(run_id=version.run_id, version=version.version, tags=version.tags)


@dataclass(frozen=True, slots=True)
class PastMove:
    """A move that was made, where in the log, and what a gate would have looked at."""

    position: int
    move: v1.ReplayedMove
    case: Case


def moves_to_try(connection: sa.Connection, request: v1.ReplayGateRequest) -> list[PastMove]:
    """Return the moves that a request asks for, oldest first, and one more when a page does not have them all.

    Raises:
        Rejected: INVALID_PAGE or INVALID_TIME.
    """
    size = page_size(request.page_size)
    rows: list[Row] = []
    for row in _moves(connection, request):
        rows.append(row)
        if len(rows) > size:
            break
    current = [(row.to_version, row.from_version, _champion_before(connection, row)) for row in rows]
    keys = {(row.origin, number) for row, numbers in zip(rows, current, strict=True) for number in numbers if number}
    known = _versions(connection, sorted(keys))
    moves = []
    for row, numbers in zip(rows, current, strict=True):
        seen = (known.get((row.origin, number), v1.GateRun()) for number in numbers)
        moves.append(PastMove(row.position, _replayed(row), dict(zip(MOVE, seen, strict=True))))
    return moves


def page_of(moves: Sequence[PastMove], request: v1.ReplayGateRequest) -> v1.ReplayGateResponse:
    """Return a page of moves that a gate was tried on."""
    asked, size = asked_by(request), page_size(request.page_size)
    page, token = cut(moves, size, lambda past: [asked, past.position], lambda shown: [past.move for past in shown])
    return v1.ReplayGateResponse(moves=page, next_page_token=token)


def _moves(connection: sa.Connection, request: v1.ReplayGateRequest) -> Iterator[Row]:
    of_model, of_alias = matcher(request.models or "*"), matcher(request.aliases or "*")
    statement = _MOVES.limit(_CHUNK)
    if request.HasField("since"):
        statement = statement.where(alias_changes.c.time >= nanoseconds(request.since))
    after = next(iter(listing_key(request, int) or ()), 0)
    while chunk := connection.execute(statement.where(alias_changes.c.position > after)).all():
        for row in chunk:
            if of_alias(row.alias) and of_model(v1.AliasChange.FromString(row.change).model):
                yield row
        after = chunk[-1].position


def _champion_before(connection: sa.Connection, row: Row) -> int:
    return connection.scalar(_CHAMPION_BEFORE, {"of": row.origin, "before": row.revision}) or 0


def _versions(connection: sa.Connection, keys: Sequence[tuple[str, int]]) -> dict[tuple[str, int], v1.GateRun]:
    known: dict[tuple[str, int], v1.GateRun] = {}
    for start in range(0, len(keys), _CHUNK):
        chunk = keys[start : start + _CHUNK]
        for row in connection.execute(sa.select(versions).where(_among(versions, chunk))):
            known[row.origin, row.version] = v1.GateRun(run_id=row.run_id, version=row.version)
        for row in connection.execute(sa.select(version_tags).where(_among(version_tags, chunk))):
            known[row.origin, row.version].tags[row.key] = row.value
    return known


def _among(table: sa.Table, keys: Collection[tuple[str, int]]) -> sa.ColumnElement[bool]:
    return sa.tuple_(table.c.origin, table.c.version).in_(keys)


def _replayed(row: Row) -> v1.ReplayedMove:
    change = v1.AliasChange.FromString(row.change)
    return v1.ReplayedMove(
        revision=change.revision,
        time=timestamp(row.time),
        actor=change.actor,
        model=change.model,
        alias=change.alias,
        from_version=change.from_version,
        to_version=change.to_version,
    )

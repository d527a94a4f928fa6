"""The registry's answers about aliases, now and in the past, each from rows of one moment."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa
from google.protobuf.duration_pb2 import Duration

from eventstore import POSITION, TIME, Kind, Rejected, event_at_or_before, position_of
from rollforward import v1
from services.listings.keyset import Row, Sort, behind, listing_key, listing_page, ordered
from services.listings.pages import page_size
from services.registry.projection.tables import alias_changes, aliases, model_tags, models, schedules
from services.registry.projection.views import alias_of
from services.registry.queries.model_names import get_origin, name_now, origin_ever_called
from services.timestamps import nanoseconds, timestamp

# Made once: to make a statement takes longer than to run it.
_ASKED = sa.and_(models.c.name == sa.bindparam("called"), alias_changes.c.alias == sa.bindparam("named"))
_PRESENT = (
    sa.select(
        alias_changes.c.change,
        POSITION.label("position"),
        TIME.label("time"),
    )
    .join(aliases, aliases.c.position == alias_changes.c.position)
    .join(models, models.c.origin == aliases.c.origin)
    .where(models.c.name == sa.bindparam("called"), aliases.c.alias == sa.bindparam("named"))
)
_AT = sa.bindparam("at", type_=sa.BigInteger)
_LAST_EVENT = event_at_or_before(_AT)
_PAST = (
    sa.select(
        alias_changes.c.change,
        sa.select(_LAST_EVENT.c.position).scalar_subquery().label("position"),
        sa.select(_LAST_EVENT.c.time).scalar_subquery().label("time"),
    )
    .join(models, models.c.origin == alias_changes.c.origin)
    .where(_ASKED, alias_changes.c.position <= _AT, alias_changes.c.revision <= _AT)
    .order_by(alias_changes.c.position.desc())
    .limit(1)
)
_CURRENT = (
    sa.select(aliases.c.origin, models.c.name, alias_changes.c.change)
    .join(alias_changes, alias_changes.c.position == aliases.c.position)
    .join(models, models.c.origin == aliases.c.origin)
)


def aliases_that_are_set(connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> list[tuple[str, v1.Alias]]:
    """Return aliases that name a version, with their models' origins, ordered by model and alias."""
    statement = _CURRENT.where(aliases.c.version > 0, *conditions).order_by(models.c.name, aliases.c.alias)
    return [(row.origin, _alias(row)) for row in connection.execute(statement)]


def _alias(row: Row) -> v1.Alias:
    return alias_of(v1.AliasChange.FromString(row.change), row.name)


def snapshot(
    connection: sa.Connection, model: str = "", alias: str = "", tags: Mapping[str, str] | None = None
) -> tuple[list[v1.Alias], int]:
    """Return the aliases that are set, and the position of the snapshot.

    Args:
        connection: To the rows of the registry.
        model: Any name of the model; empty for all models.
        alias: The alias; empty for all.
        tags: Tags that the models must have.
    """
    conditions = [aliases.c.origin == origin_ever_called(connection, model)] if model else []
    conditions += [aliases.c.alias == alias] if alias else []
    for key, value in (tags or {}).items():
        same = (model_tags.c.origin == models.c.origin, model_tags.c.key == key, model_tags.c.value == value)
        conditions.append(sa.select(sa.literal(1)).select_from(model_tags).where(*same).exists())
    return [current for _, current in aliases_that_are_set(connection, *conditions)], position_of(connection)


def resolve(
    connection: sa.Connection, model: str, alias: str, position: int | None = None, asked_for: str = ""
) -> v1.ResolveAliasResponse:
    """Return the version that an alias names, now or as of an applied position; errors name `asked_for`.

    Raises:
        Rejected: MODEL_NOT_FOUND, MODEL_RENAMED, ALIAS_NOT_FOUND.
    """
    asked: dict[str, object] = {"called": model, "named": alias}
    statement = (
        connection.execute(_PRESENT, asked) if position is None else connection.execute(_PAST, asked | {"at": position})
    )
    row = statement.first()
    change = v1.AliasChange.FromString(row.change) if row is not None else None
    if row is None or change is None or not change.to_version:
        get_origin(connection, model)
        message = f"{model}@{alias} is not set" if position is None else f"{model}@{alias} was not set at {asked_for}"
        raise Rejected(Kind.NOT_FOUND, "ALIAS_NOT_FOUND", message, model=model, alias=alias)
    return v1.ResolveAliasResponse(alias=alias_of(change, model), position=row.position, time=timestamp(row.time))


def assignment(connection: sa.Connection, model: str, alias: str, position: int) -> v1.Alias:
    """Return an alias, by any name of its model, as of an applied position; with version 0 when it was not set."""
    asked: dict[str, object] = {"called": model, "named": alias, "at": position}
    row = connection.execute(_PAST, asked).first()
    if row is None and (name := name_now(connection, model)) not in (None, model):
        row = connection.execute(_PAST, asked | {"called": name}).first()
    return alias_of(v1.AliasChange.FromString(row.change), model) if row else v1.Alias(model=model, alias=alias)


def resolve_aliases(
    connection: sa.Connection, request: v1.ResolveAliasesRequest, position: int | None = None
) -> v1.ResolveAliasesResponse:
    """Return a page of the aliases that are set, of one model or all, now or as of a position that is applied.

    All pages hold at the position of the first. Models come by the names that they were created with, so that none is
    missed when it gets a new one.

    Raises:
        Rejected: MODEL_NOT_FOUND, MODEL_RENAMED, INVALID_PAGE.
    """
    sorts = [Sort(aliases.c.origin, str), Sort(aliases.c.alias, str)]
    key = listing_key(request, int, str, str)
    at = key[0] if key else position_of(connection) if position is None else position
    past = alias_changes.alias()
    last = (
        sa.select(past.c.position)
        .where(past.c.origin == aliases.c.origin, past.c.alias == aliases.c.alias)
        .where(past.c.position <= at, past.c.revision <= at)
        .order_by(past.c.position.desc())
        .limit(1)
        .correlate(aliases)
        .scalar_subquery()
    )
    statement = (
        sa.select(aliases.c.origin, aliases.c.alias, models.c.name, alias_changes.c.change)
        .select_from(aliases)
        .join(alias_changes, alias_changes.c.position == last)
        .join(models, models.c.origin == aliases.c.origin)
        .where(alias_changes.c.to_version > 0)
    )
    if request.model:
        statement = statement.where(aliases.c.origin == get_origin(connection, request.model))
    if key:
        statement = statement.where(behind(sorts, key[1:]))
    rows = connection.execute(ordered(statement, sorts).limit(page_size(request.page_size) + 1)).all()
    page, token = listing_page(request, rows, [sort.column for sort in sorts], _alias, at)
    time = connection.scalar(sa.select(_LAST_EVENT.c.time), {"at": at})
    return v1.ResolveAliasesResponse(
        aliases=page,
        position=at,
        time=timestamp(time) if time is not None else None,
        next_page_token=token,
    )


def list_history(connection: sa.Connection, request: v1.ListAliasHistoryRequest) -> v1.ListAliasHistoryResponse:
    """Return a page of the changes that match, newest first.

    Raises:
        Rejected: MODEL_NOT_FOUND, MODEL_RENAMED, INVALID_PAGE.
    """
    statement = sa.select(alias_changes.c.position, alias_changes.c.change).where(*_history(connection, request))
    if key := listing_key(request, int):
        statement = statement.where(alias_changes.c.position < key[0])
    statement = statement.order_by(alias_changes.c.position.desc()).limit(page_size(request.page_size) + 1)
    page, token = listing_page(request, connection.execute(statement).all(), [alias_changes.c.position], _change)
    return v1.ListAliasHistoryResponse(changes=page, next_page_token=token)


def _change(row: Row) -> v1.AliasChange:
    return v1.AliasChange.FromString(row.change)


def _history(connection: sa.Connection, request: v1.ListAliasHistoryRequest) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if request.model:
        conditions.append(alias_changes.c.origin == get_origin(connection, request.model))
    if request.alias:
        conditions.append(alias_changes.c.alias == request.alias)
    if request.actor:
        conditions.append(alias_changes.c.actor == request.actor)
    if request.HasField("moved"):
        conditions.append(alias_changes.c.to_version > 0 if request.moved else alias_changes.c.to_version == 0)
    if request.cause:
        conditions.append(alias_changes.c.cause == request.cause)
    if request.HasField("since"):
        conditions.append(alias_changes.c.time >= nanoseconds(request.since))
    if request.HasField("until"):
        conditions.append(alias_changes.c.time < nanoseconds(request.until))
    return conditions


def list_intervals(
    connection: sa.Connection, request: v1.ListAliasIntervalsRequest, now_ns: int
) -> v1.ListAliasIntervalsResponse:
    """Return a page of the intervals of an alias's versions, newest first; the current one lasts until `now_ns`.

    Raises:
        Rejected: MODEL_NOT_FOUND, MODEL_RENAMED, ALIAS_NOT_FOUND, INVALID_PAGE.
    """
    origin = get_origin(connection, request.model)
    began, ended, next_one = alias_changes, alias_changes.alias("ended"), alias_changes.alias("next_one")
    same = (next_one.c.origin == origin, next_one.c.alias == request.alias, next_one.c.position > began.c.position)
    after = sa.select(next_one.c.position).where(*same).order_by(next_one.c.position).limit(1).correlate(began)
    statement = (
        sa.select(began.c.position, began.c.change, ended.c.change.label("change_after"))
        .select_from(began)
        .outerjoin(ended, ended.c.position == after.scalar_subquery())
        .where(began.c.origin == origin, began.c.alias == request.alias, began.c.to_version > 0)
    )
    if request.HasField("since"):
        statement = statement.where(sa.or_(ended.c.time.is_(None), ended.c.time >= nanoseconds(request.since)))
    if request.HasField("until"):
        statement = statement.where(began.c.time < nanoseconds(request.until))
    if key := listing_key(request, int):
        statement = statement.where(began.c.position < key[0])
    statement = statement.order_by(began.c.position.desc()).limit(page_size(request.page_size) + 1)
    rows = connection.execute(statement).all()
    if not rows:
        _check_ever_set(connection, origin, request)
    page, token = listing_page(request, rows, [began.c.position], lambda row: _interval(row, now_ns))
    return v1.ListAliasIntervalsResponse(intervals=page, next_page_token=token)


def _check_ever_set(connection: sa.Connection, origin: str, request: v1.ListAliasIntervalsRequest) -> None:
    known = sa.select(aliases.c.position).where(aliases.c.origin == origin, aliases.c.alias == request.alias)
    if connection.scalar(known) is None:
        message = f"{request.model}@{request.alias} was never set"
        raise Rejected(Kind.NOT_FOUND, "ALIAS_NOT_FOUND", message, model=request.model, alias=request.alias)


def _interval(row: Row, now_ns: int) -> v1.AliasInterval:
    interval = v1.AliasInterval(began=v1.AliasChange.FromString(row.change))
    if row.change_after is not None:
        interval.ended.CopyFrom(v1.AliasChange.FromString(row.change_after))
        now_ns = nanoseconds(interval.ended.time)
    duration = Duration()
    # The clock that gave the times may have been set back meanwhile.
    duration.FromNanoseconds(max(0, now_ns - nanoseconds(interval.began.time)))
    interval.duration.CopyFrom(duration)
    return interval


def list_schedules(connection: sa.Connection, request: v1.ListSchedulesRequest) -> v1.ListSchedulesResponse:
    """Return a page of scheduled moves. Raises `Rejected` MODEL_NOT_FOUND, MODEL_RENAMED, INVALID_PAGE."""
    sorts = [Sort(schedules.c.at), Sort(schedules.c.schedule_id, str)]
    statement = sa.select(schedules, models.c.name).join(models, models.c.origin == schedules.c.origin)
    if request.model:
        statement = statement.where(schedules.c.origin == get_origin(connection, request.model))
    if key := listing_key(request, int, str):
        statement = statement.where(behind(sorts, key))
    rows = connection.execute(ordered(statement, sorts).limit(page_size(request.page_size) + 1)).all()
    page, token = listing_page(request, rows, [sort.column for sort in sorts], _schedule)
    return v1.ListSchedulesResponse(schedules=page, next_page_token=token)


def _schedule(row: Row) -> v1.Schedule:
    return v1.Schedule(
        schedule_id=row.schedule_id,
        model=row.name,
        alias=row.alias,
        version=row.version,
        at=timestamp(row.at),
        expected_revision=row.expected_revision,
        actor=row.actor,
        reason=row.reason,
        created_at=timestamp(row.created_at),
        revision=row.revision,
    )

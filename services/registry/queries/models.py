"""The registry's answers about models and versions, each from rows of one moment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from eventstore import Kind, Rejected
from rollforward import v1
from services.listings.filter_grammar import Comparison, Field, Fields, Holds, Order, parse_filter, parse_order
from services.listings.filter_sql import compared, compared_tag, milliseconds
from services.listings.keyset import Row, Sort, walk
from services.listings.pages import MAX_ROW_BYTES, leading
from services.registry.projection.tables import aliases, model_tags, models, version_tags, versions
from services.registry.queries.aliases import aliases_that_are_set
from services.registry.queries.model_names import former_names, get_origin, tags_of_models
from services.timestamps import timestamp

MAX_FORMER_NAMES = 1_000
"""How many former names of a model are shown, the last ones."""

_NAME, _TAGS = Field("name", Holds.TEXT), Field("tags", Holds.TAGS)
_CREATED, _UPDATED = Field("created", Holds.TIME), Field("updated", Holds.TIME)
_VERSION = Field("version", Holds.NUMBER)
_TIMES = {
    "created": _CREATED,
    "updated": _UPDATED,
    "created_at": _CREATED,
    "updated_at": _UPDATED,
    "creation_timestamp": _CREATED,
    "last_updated_timestamp": _UPDATED,
}

_STATUSES = {number: name.removeprefix("VERSION_STATUS_") for name, number in v1.VersionStatus.items()}
MODEL_ORDERS: Fields = {"name": _NAME, **_TIMES}
MODEL_FIELDS: Fields = {**MODEL_ORDERS, "tags": _TAGS, "tag": _TAGS}
VERSION_ORDERS: Fields = {"name": _NAME, "version": _VERSION, "version_number": _VERSION, **_TIMES}
VERSION_FIELDS: Fields = {
    **VERSION_ORDERS,
    "tags": _TAGS,
    "tag": _TAGS,
    **{name: Field(name, Holds.TEXT) for name in ("run_id", "digest", "alias")},
    "status": Field("status", Holds.STATUS, tuple(name for number, name in _STATUSES.items() if number)),
}

_MODEL_COLUMNS = {
    "name": models.c.name,
    "created": milliseconds(models.c.created_at),
    "updated": milliseconds(models.c.updated_at),
}
_VERSION_COLUMNS = {
    "name": models.c.name,
    "version": versions.c.version,
    "run_id": versions.c.run_id,
    "digest": versions.c.digest,
    "status": sa.case(_STATUSES, value=versions.c.status),
    "created": milliseconds(versions.c.created_at),
    "updated": milliseconds(versions.c.updated_at),
}
_VERSIONS = sa.select(versions, models.c.name).join(models, models.c.origin == versions.c.origin)


def model(connection: sa.Connection, name: str) -> v1.Model:
    """Return a model, deleted or not. Raises `Rejected` MODEL_NOT_FOUND or MODEL_RENAMED."""
    return model_of(connection, get_origin(connection, name))


def model_of(connection: sa.Connection, origin: str) -> v1.Model:
    """Return the model of an origin that is applied, whatever it is called now."""
    return _models(connection, connection.execute(sa.select(models).where(models.c.origin == origin)).all())[0]


def list_models(connection: sa.Connection, request: v1.ListModelsRequest) -> v1.ListModelsResponse:
    """Return a page of models. Raises `Rejected` INVALID_FILTER, INVALID_ORDER or INVALID_PAGE."""
    conditions = [_model_condition(connection, comparison) for comparison in parse_filter(request.filter, MODEL_FIELDS)]
    orders = parse_order(request.order_by, MODEL_ORDERS) or (Order("name"),)
    columns = {"name": (models.c.name, str), "created": (models.c.created, int), "updated": (models.c.updated_at, int)}
    statement = sa.select(models).where(*conditions)
    if not request.show_deleted:
        statement = statement.where(models.c.deleted_at.is_(None))
    sorts = [*_sorts(orders, columns), Sort(models.c.origin, str)]
    changed = _if_changes_lead(orders, models.c.revision)
    page, token = walk(connection, statement, request, sorts, lambda some: _models(connection, some), changed)
    return v1.ListModelsResponse(models=page, next_page_token=token)


def _model_condition(connection: sa.Connection, comparison: Comparison) -> sa.ColumnElement[bool]:
    if comparison.field == "tags":
        return compared_tag(connection, model_tags, [model_tags.c.origin == models.c.origin], comparison)
    return compared(connection, _MODEL_COLUMNS[comparison.field], comparison)


def _sorts(orders: Sequence[Order], columns: Mapping[str, tuple[sa.ColumnElement[Any], type]]) -> list[Sort]:
    return [Sort(*columns[order.field], descending=order.descending) for order in orders]


def _if_changes_lead(orders: Sequence[Order], changed: sa.ColumnElement[int]) -> sa.ColumnElement[int] | None:
    """Return the revision of a row's last change, where such a change moves the row to before what was read already."""
    return changed if any(order.field == "updated" and order.descending for order in orders) else None


def _models(connection: sa.Connection, page: Sequence[Row]) -> list[v1.Model]:
    origins = [row.origin for row in page]
    tags, former = tags_of_models(connection, origins), former_names(connection, origins)
    current: defaultdict[str, list[v1.Alias]] = defaultdict(list)
    for origin, alias in aliases_that_are_set(connection, aliases.c.origin.in_(origins)):
        alias.ClearField("reason")  # a thousand long ones would be too much for one message
        current[origin].append(alias)
    return [_model(row, tags.get(row.origin, {}), former.get(row.origin, []), current[row.origin]) for row in page]


def _model(row: Row, tags: Mapping[str, str], former: Sequence[str], current: Sequence[v1.Alias]) -> v1.Model:
    view = v1.Model(
        name=row.name,
        description=row.description,
        tags=tags,
        registration_gate=row.gate,
        latest_version=row.latest_version,
        created_at=timestamp(row.created_at),
        actor=row.actor,
        revision=row.revision,
        updated_at=timestamp(row.updated_at),
        deleted_at=timestamp(row.deleted_at) if row.deleted_at is not None else None,
        former_names=former[-MAX_FORMER_NAMES:],
    )
    view.aliases.extend(leading(current, MAX_ROW_BYTES - view.ByteSize(), lambda alias: alias.ByteSize()))
    view.more_aliases = len(view.aliases) < len(current)
    return view


def version(connection: sa.Connection, name: str, number: int) -> v1.Version:
    """Return a version, deleted or not. Raises `Rejected` MODEL_NOT_FOUND, MODEL_RENAMED or VERSION_NOT_FOUND."""
    rows = _find_version(connection, get_origin(connection, name), number)
    if not rows:
        message = f"model {name!r} has no version {number}"
        raise Rejected(Kind.NOT_FOUND, "VERSION_NOT_FOUND", message, model=name, version=str(number))
    return _versions(connection, rows)[0]


def version_of(connection: sa.Connection, origin: str, number: int) -> v1.Version:
    """Return a version that is applied, by its model's origin, whatever the model is called now."""
    return _versions(connection, _find_version(connection, origin, number))[0]


def _find_version(connection: sa.Connection, origin: str, number: int) -> Sequence[Row]:
    return connection.execute(_VERSIONS.where(versions.c.origin == origin, versions.c.version == number)).all()


def list_versions(connection: sa.Connection, request: v1.ListVersionsRequest) -> v1.ListVersionsResponse:
    """Return a page of the versions of one model or of all, those of deleted models only if that is the one asked for.

    Raises:
        Rejected: MODEL_NOT_FOUND, MODEL_RENAMED, INVALID_FILTER, INVALID_ORDER or INVALID_PAGE.
    """
    conditions = [
        _version_condition(connection, comparison) for comparison in parse_filter(request.filter, VERSION_FIELDS)
    ]
    orders = parse_order(request.order_by, VERSION_ORDERS)
    if request.model:
        conditions.append(versions.c.origin == get_origin(connection, request.model))
    elif not request.show_deleted:
        conditions.append(models.c.deleted_at.is_(None))
    if not request.show_deleted:
        conditions.append(versions.c.deleted_at.is_(None))
    columns = {
        "name": (models.c.name, str),
        "version": (versions.c.version, int),
        "created": (versions.c.revision, int),
        "updated": (versions.c.updated_at, int),
    }
    sorts = [*_sorts(orders, columns), Sort(versions.c.revision, descending=True)]
    statement, changed = _VERSIONS.where(*conditions), _if_changes_lead(orders, versions.c.changed)
    page, token = walk(connection, statement, request, sorts, lambda some: _versions(connection, some), changed)
    return v1.ListVersionsResponse(versions=page, next_page_token=token)


def _version_condition(connection: sa.Connection, comparison: Comparison) -> sa.ColumnElement[bool]:
    if comparison.field == "tags":
        owner = [version_tags.c.origin == versions.c.origin, version_tags.c.version == versions.c.version]
        return compared_tag(connection, version_tags, owner, comparison)
    if comparison.field == "alias":
        return _alias_condition(connection, comparison)
    return compared(connection, _VERSION_COLUMNS[comparison.field], comparison)


def _alias_condition(connection: sa.Connection, comparison: Comparison) -> sa.ColumnElement[bool]:
    """Return a condition on aliases: a version may have several, so != means that none of them is equal."""
    positive = {"!=": "=", "NOT IN": "IN"}.get(comparison.operator, comparison.operator)
    same = [aliases.c.origin == versions.c.origin, aliases.c.version == versions.c.version]
    named = compared(connection, aliases.c.alias, Comparison(comparison.field, positive, comparison.value))
    has_alias = sa.select(sa.literal(1)).select_from(aliases).where(*same, named).exists()
    return has_alias if positive == comparison.operator else ~has_alias


def _versions(connection: sa.Connection, page: Sequence[Row]) -> list[v1.Version]:
    keys = [(row.origin, row.version) for row in page]
    tags: defaultdict[tuple[str, int], dict[str, str]] = defaultdict(dict)
    for row in connection.execute(sa.select(version_tags).where(_among(version_tags, keys))):
        tags[row.origin, row.version][row.key] = row.value
    current: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
    for row in connection.execute(sa.select(aliases).where(_among(aliases, keys)).order_by(aliases.c.alias)):
        current[row.origin, row.version].append(row.alias)
    return [_version(row, tags[row.origin, row.version], current[row.origin, row.version]) for row in page]


def _among(table: sa.Table, keys: Collection[tuple[str, int]]) -> sa.ColumnElement[bool]:
    return sa.tuple_(table.c.origin, table.c.version).in_(keys)


def _version(row: Row, tags: Mapping[str, str], current: Sequence[str]) -> v1.Version:
    version = v1.Version.FromString(row.registered)
    version.model, version.description, version.status = row.name, row.description, row.status
    version.tags.update(tags)
    version.updated_at.CopyFrom(timestamp(row.updated_at))
    if row.deleted_at is not None:
        version.deleted_at.CopyFrom(timestamp(row.deleted_at))
    version.aliases.extend(leading(current, MAX_ROW_BYTES - version.ByteSize(), lambda alias: len(alias.encode())))
    version.more_aliases = len(version.aliases) < len(current)
    return version

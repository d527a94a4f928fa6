"""The registry's answers, each from rows of one moment."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from eventstore.errors import Kind, Rejected
from eventstore.rows import checkpoint, events
from rollforward import v1
from services.pages import cut, key_of, page_size
from services.registry.projection import alias_changes, aliases, models, versions
from services.times import timestamp


def model(rows: sa.Connection, name: str) -> v1.Model:
    """One model. Raises `Rejected` MODEL_NOT_FOUND."""
    row = rows.execute(sa.select(models).where(models.c.name == name)).first()
    if row is None:
        raise Rejected(Kind.NOT_FOUND, "MODEL_NOT_FOUND", f"no model {name!r}", model=name)
    return _model(row, _aliases_of(rows, [name]))


def list_models(rows: sa.Connection, request: v1.ListModelsRequest) -> v1.ListModelsResponse:
    """A page of models, by name."""
    size = page_size(request.page_size)
    question = sa.select(models).order_by(models.c.name).limit(size + 1)
    if key := key_of(request.page_token, str):
        question = question.where(models.c.name > key[0])
    page, token = cut(rows.execute(question).all(), size, lambda row: [row.name])
    held = _aliases_of(rows, [row.name for row in page])
    return v1.ListModelsResponse(models=[_model(row, held) for row in page], next_page_token=token)


def _model(row: sa.Row[tuple[object, ...]], held: Sequence[v1.Alias]) -> v1.Model:
    return v1.Model(
        name=row.name,
        description=row.description,
        tags=row.tags,
        registration_gate=row.gate,
        latest_version=row.latest_version,
        aliases=[alias for alias in held if alias.model == row.name],
        created_at=timestamp(row.created_at),
        actor=row.actor,
        revision=row.revision,
    )


def version(rows: sa.Connection, name: str, number: int) -> v1.Version:
    """One version. Raises `Rejected` MODEL_NOT_FOUND or VERSION_NOT_FOUND."""
    question = sa.select(versions).where(versions.c.model == name, versions.c.version == number)
    row = rows.execute(question).first()
    if row is None:
        _check_model(rows, name)
        words = f"model {name!r} has no version {number}"
        raise Rejected(Kind.NOT_FOUND, "VERSION_NOT_FOUND", words, model=name, version=str(number))
    return _version(row, _aliases_of(rows, [name]))


def list_versions(rows: sa.Connection, request: v1.ListVersionsRequest) -> v1.ListVersionsResponse:
    """A page of a model's versions, newest first."""
    _check_model(rows, request.model)
    size = page_size(request.page_size)
    question = sa.select(versions).where(versions.c.model == request.model)
    question = question.order_by(versions.c.version.desc()).limit(size + 1)
    if key := key_of(request.page_token, int):
        question = question.where(versions.c.version < key[0])
    page, token = cut(rows.execute(question).all(), size, lambda row: [row.version])
    held = _aliases_of(rows, [request.model])
    return v1.ListVersionsResponse(versions=[_version(row, held) for row in page], next_page_token=token)


def _version(row: sa.Row[tuple[object, ...]], held: Sequence[v1.Alias]) -> v1.Version:
    return v1.Version(
        model=row.model,
        version=row.version,
        digest=row.digest,
        run_id=row.run_id,
        artifact_path=row.artifact_path,
        description=row.description,
        tags=row.tags,
        evidence=v1.GateEvidence.FromString(row.evidence) if row.evidence else None,
        aliases=[alias.alias for alias in held if alias.version == row.version],
        created_at=timestamp(row.created_at),
        actor=row.actor,
        revision=row.revision,
    )


def _check_model(rows: sa.Connection, name: str) -> None:
    if rows.scalar(sa.select(models.c.name).where(models.c.name == name)) is None:
        raise Rejected(Kind.NOT_FOUND, "MODEL_NOT_FOUND", f"no model {name!r}", model=name)


def _aliases_of(rows: sa.Connection, names: Sequence[str]) -> list[v1.Alias]:
    return _set_aliases(rows, aliases.c.model.in_(names))


def _set_aliases(rows: sa.Connection, *conditions: sa.ColumnElement[bool]) -> list[v1.Alias]:
    question = sa.select(alias_changes.c.change).join(aliases, aliases.c.revision == alias_changes.c.revision)
    question = question.where(aliases.c.version > 0, *conditions).order_by(aliases.c.model, aliases.c.alias)
    return [alias_of(v1.AliasChange.FromString(body)) for body in rows.scalars(question)]


def snapshot(rows: sa.Connection, name: str, alias: str) -> tuple[list[v1.Alias], int]:
    """The aliases that are set, of one model or all, of one name or all; and the position that this holds at."""
    conditions = [aliases.c.model == name] if name else []
    conditions += [aliases.c.alias == alias] if alias else []
    return _set_aliases(rows, *conditions), rows.scalar(sa.select(checkpoint.c.position)) or 0


def resolve(rows: sa.Connection, name: str, alias: str, position: int | None = None) -> v1.ResolveAliasResponse:
    """Which version an alias names, now or as of a position that is applied.

    Raises:
        Rejected: MODEL_NOT_FOUND, ALIAS_NOT_FOUND.
    """
    change = _last_change(rows, name, alias, position)
    if change is None or not change.to_version:
        _check_model(rows, name)
        when = "" if position is None else f" at position {position}"
        words = f"{name}@{alias} is not set{when}"
        raise Rejected(Kind.NOT_FOUND, "ALIAS_NOT_FOUND", words, model=name, alias=alias)
    upto = sa.select(events.c.position, events.c.time).order_by(events.c.position.desc()).limit(1)
    last = rows.execute(upto if position is None else upto.where(events.c.position <= position)).one()
    return v1.ResolveAliasResponse(alias=alias_of(change), position=last.position, time=timestamp(last.time))


def assignment(rows: sa.Connection, name: str, alias: str, position: int) -> v1.Alias:
    """An alias as of a position that is applied; with version 0 when it was not set."""
    change = _last_change(rows, name, alias, position)
    return alias_of(change) if change else v1.Alias(model=name, alias=alias)


def _last_change(rows: sa.Connection, name: str, alias: str, position: int | None) -> v1.AliasChange | None:
    question = sa.select(alias_changes.c.change).where(alias_changes.c.model == name, alias_changes.c.alias == alias)
    if position is not None:
        question = question.where(alias_changes.c.revision <= position)
    body = rows.scalar(question.order_by(alias_changes.c.revision.desc()).limit(1))
    return v1.AliasChange.FromString(body) if body is not None else None


def alias_of(change: v1.AliasChange) -> v1.Alias:
    """The assignment that a change made."""
    return v1.Alias(
        model=change.model,
        alias=change.alias,
        version=change.to_version,
        digest=change.to_digest,
        revision=change.revision,
        moved_at=change.time,
        actor=change.actor,
        reason=change.reason,
        cause=change.cause,
    )


def list_history(rows: sa.Connection, request: v1.ListAliasHistoryRequest) -> v1.ListAliasHistoryResponse:
    """A page of the changes of a model's aliases, newest first."""
    _check_model(rows, request.model)
    size = page_size(request.page_size)
    question = sa.select(alias_changes).where(alias_changes.c.model == request.model)
    if request.alias:
        question = question.where(alias_changes.c.alias == request.alias)
    if key := key_of(request.page_token, int):
        question = question.where(alias_changes.c.revision < key[0])
    question = question.order_by(alias_changes.c.revision.desc()).limit(size + 1)
    page, token = cut(rows.execute(question).all(), size, lambda row: [row.revision])
    changes = [v1.AliasChange.FromString(row.change) for row in page]
    return v1.ListAliasHistoryResponse(changes=changes, next_page_token=token)

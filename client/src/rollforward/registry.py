"""Models, versions and aliases: register, move, resolve, roll back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rollforward import v1
from rollforward.artifacts import upload
from rollforward.connection import Connection, current, new_request_id
from rollforward.errors import InvalidRequest
from rollforward.pages import collect
from rollforward.references import Past, RunLike, as_of, parse_alias, parse_aliases, revision, run_id_of, version_number
from rollforward.run import Run
from rollforward.values import checked_tags

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from os import PathLike


def create_model(
    name: str,
    *,
    description: str = "",
    tags: Mapping[str, object] | None = None,
    gate: str = "",
    reason: str = "",
    request_id: str | None = None,
    connection: Connection | None = None,
) -> v1.Model:
    """Create a model.

    `name` has 1 to 255 characters, none of "/", ":", "@"; `gate` is a CEL expression that new versions must pass, such
    as "run.metrics.accuracy > 0.95".

    Raises InvalidRequest (INVALID_NAME, INVALID_GATE, REQUEST_ID_REUSED), AlreadyExists (MODEL_EXISTS), Unavailable.
    """
    link = current(connection)
    request = v1.CreateModelRequest(
        name=name,
        description=description,
        tags=checked_tags(tags),
        registration_gate=gate,
        reason=reason,
        request_id=request_id or new_request_id(),
    )
    return link.call(link.registry.CreateModel, request).model


def set_registration_gate(
    model: str,
    expression: str,
    *,
    reason: str = "",
    request_id: str | None = None,
    connection: Connection | None = None,
) -> None:
    """Set, change or (with an empty expression) lift the gate that new versions of a model must pass.

    Raises NotFound (MODEL_NOT_FOUND), InvalidRequest (INVALID_GATE, REQUEST_ID_REUSED), Unavailable.
    """
    link = current(connection)
    request = v1.SetRegistrationGateRequest(
        model=model, expression=expression, reason=reason, request_id=request_id or new_request_id()
    )
    link.call(link.registry.SetRegistrationGate, request)


def get_model(name: str, *, connection: Connection | None = None) -> v1.Model:
    """One model with its aliases. Raises NotFound (MODEL_NOT_FOUND), Unavailable."""
    link = current(connection)
    return link.call(link.registry.GetModel, v1.GetModelRequest(name=name)).model


def list_models(*, limit: int | None = None, connection: Connection | None = None) -> list[v1.Model]:
    """Models by name; `limit` None for all. Raises Unavailable."""
    link = current(connection)

    def fetch(size: int, token: str) -> tuple[Iterable[v1.Model], str]:
        page = link.call(link.registry.ListModels, v1.ListModelsRequest(page_size=size, page_token=token))
        return page.models, page.next_page_token

    return collect(fetch, limit)


def register_model(
    name: str,
    run: RunLike | None = None,
    *,
    artifact: str = "",
    path: str | PathLike[str] | None = None,
    digest: str = "",
    description: str = "",
    tags: Mapping[str, object] | None = None,
    reason: str = "",
    request_id: str | None = None,
    connection: Connection | None = None,
) -> v1.Version:
    """Register a version of a model, which is created when it is new.

    The version's files are one of: `artifact` of a `run` (what a live run logged so far is delivered first, for the
    gate to see), the directory or file at `path`, or what was uploaded as `digest`; a digest beside a run must agree
    with the run's artifact.

    Raises InvalidRequest (INVALID_SOURCE, INVALID_NAME, INVALID_DIGEST, REQUEST_ID_REUSED, and for a path as
    manifests.build_tree), NotFound (RUN_NOT_FOUND, ARTIFACT_NOT_FOUND), PreconditionFailed (GATE_FAILED, with
    `evidence`), Unavailable.
    """
    link = _link_of(run, connection)
    _refuse_unclear_source(run, artifact, path, digest)
    if isinstance(run, Run):
        run.flush()
    request = v1.RegisterVersionRequest(
        model=name,
        run_id="" if run is None else run_id_of(run),
        artifact_path=artifact.strip("/"),
        digest=digest if path is None else upload(path, connection=link)[0],
        description=description,
        tags=checked_tags(tags),
        reason=reason,
        request_id=request_id or new_request_id(),
    )
    return link.call(link.registry.RegisterVersion, request).version


def get_version(model: str, version: int, *, connection: Connection | None = None) -> v1.Version:
    """One version.

    Raises InvalidRequest (INVALID_VERSION), NotFound (MODEL_NOT_FOUND, VERSION_NOT_FOUND), Unavailable.
    """
    link = current(connection)
    request = v1.GetVersionRequest(model=model, version=version_number(model, version))
    return link.call(link.registry.GetVersion, request).version


def list_versions(model: str, *, limit: int | None = None, connection: Connection | None = None) -> list[v1.Version]:
    """A model's versions, newest first; `limit` None for all. Raises NotFound (MODEL_NOT_FOUND), Unavailable."""
    link = current(connection)

    def fetch(size: int, token: str) -> tuple[Iterable[v1.Version], str]:
        request = v1.ListVersionsRequest(model=model, page_size=size, page_token=token)
        page = link.call(link.registry.ListVersions, request)
        return page.versions, page.next_page_token

    return collect(fetch, limit)


def move_alias(
    reference: str,
    version: v1.Version | int,
    *,
    reason: str = "",
    expected_revision: int | None = None,
    request_id: str | None = None,
    connection: Connection | None = None,
) -> v1.Alias:
    """Move "model@alias" to a version and return the alias as it stands; moving it to where it is changes nothing.

    `expected_revision` is the alias's revision that you saw, 0 for "not set"; without it the move is unconditional.
    Raises InvalidRequest (INVALID_REFERENCE, INVALID_VERSION, INVALID_REVISION, INVALID_ALIAS, REQUEST_ID_REUSED),
    NotFound (MODEL_NOT_FOUND, VERSION_NOT_FOUND), Conflict (WRONG_REVISION, with `current`), Unavailable.
    """
    link = current(connection)
    model, alias = parse_alias(reference)
    request = v1.MoveAliasRequest(
        model=model,
        alias=alias,
        version=version_number(model, version),
        expected_revision=revision(expected_revision),
        reason=reason,
        request_id=request_id or new_request_id(),
    )
    return link.call(link.registry.MoveAlias, request).alias


def remove_alias(
    reference: str,
    *,
    reason: str = "",
    expected_revision: int | None = None,
    request_id: str | None = None,
    connection: Connection | None = None,
) -> None:
    """Remove "model@alias".

    Raises InvalidRequest (INVALID_REFERENCE, INVALID_REVISION, REQUEST_ID_REUSED), NotFound (MODEL_NOT_FOUND,
    ALIAS_NOT_FOUND), Conflict (WRONG_REVISION, with `current`), Unavailable.
    """
    link = current(connection)
    model, alias = parse_alias(reference)
    request = v1.RemoveAliasRequest(
        model=model,
        alias=alias,
        expected_revision=revision(expected_revision),
        reason=reason,
        request_id=request_id or new_request_id(),
    )
    link.call(link.registry.RemoveAlias, request)


def rollback(
    reference: str,
    to: Past | None = None,
    *,
    reason: str = "",
    expected_revision: int | None = None,
    request_id: str | None = None,
    connection: Connection | None = None,
) -> v1.Alias:
    """Replay a past assignment of "model@alias" as a new event, and return the alias as it stands: version 0 when it
    was not set then.

    `to` is a revision, an aware datetime or an RFC 3339 time; without it the previous holder comes back. Raises as
    move_alias, and InvalidRequest (INVALID_TIME, POSITION_AHEAD), PreconditionFailed (NOTHING_TO_RESTORE).
    """
    link = current(connection)
    model, alias = parse_alias(reference)
    request = v1.RollbackAliasRequest(
        model=model,
        alias=alias,
        to=as_of(to),
        expected_revision=revision(expected_revision),
        reason=reason,
        request_id=request_id or new_request_id(),
    )
    return link.call(link.registry.RollbackAlias, request).alias


def resolve(reference: str, at: Past | None = None, *, connection: Connection | None = None) -> v1.Alias:
    """Which version "model@alias" names: now, or as of a revision, an aware datetime or an RFC 3339 time.

    Raises InvalidRequest (INVALID_REFERENCE, INVALID_REVISION, INVALID_TIME, POSITION_AHEAD), NotFound
    (MODEL_NOT_FOUND, ALIAS_NOT_FOUND), Unavailable.
    """
    link = current(connection)
    model, alias = parse_alias(reference)
    request = v1.ResolveAliasRequest(model=model, alias=alias, at=as_of(at))
    return link.call(link.registry.ResolveAlias, request).alias


def alias_history(
    reference: str, *, limit: int | None = None, connection: Connection | None = None
) -> list[v1.AliasChange]:
    """The changes of "model@alias", or of all aliases of "model", newest first; `limit` None for all.

    Raises InvalidRequest (INVALID_REFERENCE), NotFound (MODEL_NOT_FOUND), Unavailable.
    """
    link = current(connection)
    model, alias = parse_aliases(reference)

    def fetch(size: int, token: str) -> tuple[Iterable[v1.AliasChange], str]:
        request = v1.ListAliasHistoryRequest(model=model, alias=alias, page_size=size, page_token=token)
        page = link.call(link.registry.ListAliasHistory, request)
        return page.changes, page.next_page_token

    return collect(fetch, limit)


def _link_of(run: RunLike | None, connection: Connection | None) -> Connection:
    return run.connection if connection is None and isinstance(run, Run) else current(connection)


def _refuse_unclear_source(run: RunLike | None, artifact: str, path: str | PathLike[str] | None, digest: str) -> None:
    if (path is not None) + (run is not None or bool(digest)) != 1 or (artifact and run is None):
        message = "a version comes from one source: a run with its artifact, a path, or a digest"
        raise InvalidRequest("INVALID_SOURCE", message)

"""Registered versions: register, copy, list, delete and restore them, and say whether they can be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rollforward import v1
from rollforward._artifacts.trees import upload
from rollforward._transport.connection import Connection, current, new_request_id
from rollforward._transport.paging import collect
from rollforward._transport.response_warnings import notice_scheduled, notice_status
from rollforward._validation import checked_tags
from rollforward.errors import InvalidRequest
from rollforward.references import RunLike, VersionLike, normal_path, run_id_of, version_number
from rollforward.registry.aliases import resolve_all
from rollforward.tracking.live_run.run import Run

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from os import PathLike

# Versions carry what the gates saw of their runs: a thousand of them may not fit into one message.
_VERSIONS_PER_PAGE = 200


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
    gate to see), which may also be a file or directory in an artifact, or a directory that several are below; the
    directory or file at `path`, or what was uploaded as `digest`; a digest beside a run must agree
    with the run's artifact.

    Raises InvalidRequest (INVALID_SOURCE, INVALID_NAME, INVALID_DIGEST, REQUEST_ID_REUSED, and for a path as
    manifests.build_tree), NotFound (RUN_NOT_FOUND, ARTIFACT_NOT_FOUND), PreconditionFailed (REASON_REQUIRED;
    GATE_FAILED, with `evidence`; MODEL_RENAMED, MODEL_DELETED), Conflict (GATE_CHANGED), Unavailable.
    """
    link = _link_of(run, connection)
    _refuse_unclear_source(run, artifact, path, digest)
    if isinstance(run, Run):
        run.flush()
    request = v1.RegisterVersionRequest(
        model=name,
        run_id="" if run is None else run_id_of(run),
        artifact_path=normal_path(artifact.strip("/")),
        digest=digest if path is None else upload(path, connection=link)[0],
        description=description,
        tags=checked_tags(tags),
        reason=reason,
        request_id=request_id or new_request_id(),
    )
    return link.call(link.registry.RegisterVersion, request).version


def copy_version(
    model: str,
    version: VersionLike,
    to_model: str,
    *,
    reason: str = "",
    request_id: str | None = None,
    connection: Connection | None = None,
) -> v1.Version:
    """Register a version again under another model, which is created when it is new; `copied_from` names the original.

    Raises as register_model, and InvalidRequest (INVALID_VERSION), NotFound (MODEL_NOT_FOUND, VERSION_NOT_FOUND),
    PreconditionFailed (VERSION_DELETED, VERSION_NOT_READY: only what can be used is copied).
    """
    link = current(connection)
    request = v1.CopyVersionRequest(
        model=model,
        version=version_number(model, version),
        to_model=to_model,
        reason=reason,
        request_id=request_id or new_request_id(),
    )
    return link.call(link.registry.CopyVersion, request).version


def set_version_status(
    model: str,
    version: VersionLike,
    status: str,
    *,
    reason: str = "",
    request_id: str | None = None,
    connection: Connection | None = None,
) -> v1.SetVersionStatusResponse:
    """Say whether a version can be used: `status` is "ready", "pending" or "failed". Aliases move to ready ones only.

    The answer has the `aliases` that point to the version, and whether its status `changed`. Warns (RollforwardWarning)
    when aliases point to a version that is not ready any more, or are scheduled to.
    Raises InvalidRequest (INVALID_STATUS, INVALID_VERSION, REQUEST_ID_REUSED), NotFound (MODEL_NOT_FOUND,
    VERSION_NOT_FOUND), PreconditionFailed (MODEL_RENAMED, MODEL_DELETED, VERSION_DELETED), Unavailable.
    """
    link = current(connection)
    request = v1.SetVersionStatusRequest(
        model=model,
        version=version_number(model, version),
        status=_status(status),
        reason=reason,
        request_id=request_id or new_request_id(),
    )
    response = link.call(link.registry.SetVersionStatus, request)
    notice_status(model, request.version, status.lower(), response)
    return response


def delete_version(
    model: str,
    version: VersionLike,
    *,
    reason: str = "",
    request_id: str | None = None,
    connection: Connection | None = None,
) -> None:
    """Delete a version that no alias names; its number is never given again, and it can be restored.

    Raises InvalidRequest (INVALID_VERSION, REQUEST_ID_REUSED), NotFound (MODEL_NOT_FOUND, VERSION_NOT_FOUND),
    PreconditionFailed (VERSION_IN_USE, with `aliases`; MODEL_RENAMED, MODEL_DELETED), Unavailable.
    """
    link = current(connection)
    number = version_number(model, version)
    request = v1.DeleteVersionRequest(
        model=model, version=number, reason=reason, request_id=request_id or new_request_id()
    )
    response = link.call(link.registry.DeleteVersion, request)
    notice_scheduled(f"v{number} of {model} is deleted", response.scheduled_aliases)


def restore_version(
    model: str,
    version: VersionLike,
    *,
    reason: str = "",
    request_id: str | None = None,
    connection: Connection | None = None,
) -> None:
    """Restore a deleted version.

    Raises InvalidRequest (INVALID_VERSION, REQUEST_ID_REUSED), NotFound (MODEL_NOT_FOUND, VERSION_NOT_FOUND),
    PreconditionFailed (MODEL_RENAMED, MODEL_DELETED), Unavailable.
    """
    link = current(connection)
    number = version_number(model, version)
    request = v1.RestoreVersionRequest(
        model=model, version=number, reason=reason, request_id=request_id or new_request_id()
    )
    link.call(link.registry.RestoreVersion, request)


def get_version(model: str, version: VersionLike, *, connection: Connection | None = None) -> v1.Version:
    """One version, deleted or not.

    Raises InvalidRequest (INVALID_VERSION), NotFound (MODEL_NOT_FOUND, VERSION_NOT_FOUND), PreconditionFailed
    (MODEL_RENAMED), Unavailable.
    """
    link = current(connection)
    request = v1.GetVersionRequest(model=model, version=version_number(model, version))
    return _complete(link, link.call(link.registry.GetVersion, request).version)


def _complete(link: Connection, version: v1.Version) -> v1.Version:
    """Add the aliases that did not fit an answer."""
    if version.more_aliases:
        found = resolve_all(version.model, connection=link).aliases
        version.aliases[:] = [alias.alias for alias in found if alias.version == version.version]
        version.more_aliases = False
    return version


def list_versions(
    model: str = "",
    *,
    filter: str = "",  # noqa: A002 - the contract's word
    order_by: str = "",
    show_deleted: bool = False,
    limit: int | None = None,
    connection: Connection | None = None,
) -> list[v1.Version]:
    """Versions of a model or of all, the newest first or as `order_by` says ("name ASC"); `limit` None for all.

    `filter` is as of list_models, over name (the model's), version, run_id, digest, status, alias, created, updated
    and tags. Raises InvalidRequest (INVALID_FILTER, INVALID_ORDER), NotFound (MODEL_NOT_FOUND), PreconditionFailed
    (MODEL_RENAMED), Unavailable.
    """
    link = current(connection)
    query = v1.ListVersionsRequest(model=model, filter=filter, order_by=order_by, show_deleted=show_deleted)

    def fetch(size: int, token: str) -> tuple[Iterable[v1.Version], str]:
        query.page_size, query.page_token = size, token
        page = link.call(link.registry.ListVersions, query)
        return (_complete(link, version) for version in page.versions), page.next_page_token

    return collect(fetch, limit, page=_VERSIONS_PER_PAGE)


def _status(word: str) -> v1.VersionStatus.ValueType:
    try:
        return v1.VersionStatus.Value(f"VERSION_STATUS_{word.upper()}")
    except ValueError as error:
        message = f"a version is ready, pending or failed, not {word!r}"
        raise InvalidRequest("INVALID_STATUS", message, {"status": word}) from error


def _link_of(run: RunLike | None, connection: Connection | None) -> Connection:
    return run.connection if connection is None and isinstance(run, Run) else current(connection)


def _refuse_unclear_source(run: RunLike | None, artifact: str, path: str | PathLike[str] | None, digest: str) -> None:
    if (path is not None) + (run is not None or bool(digest)) != 1 or (artifact and run is None):
        message = "a version comes from one source: a run with its artifact, a path, or a digest"
        raise InvalidRequest("INVALID_SOURCE", message)

"""Versions of registered models: register, copy, find, delete and restore them, and set their status."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rollforward import v1
from rollforward._artifacts.trees import ArtifactTrees
from rollforward._transport.connection import Connection, new_request_id
from rollforward._transport.default import default_client_function
from rollforward._transport.paging import collect
from rollforward._transport.resource import Resource
from rollforward._transport.response_warnings import warn_scheduled, warn_status
from rollforward._validation import checked_tags
from rollforward.errors import InvalidRequest
from rollforward.references import RunLike, VersionLike, normal_path, run_id_of, version_number
from rollforward.registry.assignments import Assignments
from rollforward.tracking.live_run.run import Run

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterable, Mapping
    from os import PathLike

# Versions hold gate evidence: a thousand of them may not fit into one message.
_VERSIONS_PER_PAGE = 200


class Versions(Resource):
    """Registered versions: register, find, change and delete them."""

    def register(
        self,
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
    ) -> v1.Version:
        """Register a version of a model, which is created if it is missing.

        The version's files come from one source: an `artifact` of a `run`, a local `path`, or an uploaded `digest`. A
        digest with a run must match the run's artifact. The records of a live run are delivered first, so that gates
        see them.

        Args:
            name: The model's name.
            run: The run that produced the version.
            artifact: The path in the run of an artifact, of a file or directory in one, or of a directory that contains
                several artifacts.
            path: A local directory or file to upload.
            digest: The digest of an uploaded artifact.
            description: The version's description.
            tags: The version's tags.
            reason: Why; recorded in the event.
            request_id: The id of the request, to repeat it safely; random by default.

        Raises:
            InvalidRequest: INVALID_SOURCE, INVALID_NAME, INVALID_DIGEST, REQUEST_ID_REUSED; for a path also those of
                manifests.build_tree.
            NotFound: RUN_NOT_FOUND, ARTIFACT_NOT_FOUND.
            PreconditionFailed: REASON_REQUIRED; GATE_FAILED, with `evidence`; MODEL_RENAMED, MODEL_DELETED.
            Conflict: GATE_CHANGED.
            Unavailable: No result within the timeout.
        """
        _check_source(run, artifact, path, digest)
        if isinstance(run, Run):
            run.flush()
        request = v1.RegisterVersionRequest(
            model=name,
            run_id="" if run is None else run_id_of(run),
            artifact_path=normal_path(artifact.strip("/")),
            digest=digest if path is None else ArtifactTrees(self._connection).upload(path)[0],
            description=description,
            tags=checked_tags(tags),
            reason=reason,
            request_id=request_id or new_request_id(),
        )
        return self._connection.call(self._connection.registry.RegisterVersion, request).version

    def copy(
        self,
        model: str,
        version: VersionLike,
        to_model: str,
        *,
        reason: str = "",
        request_id: str | None = None,
    ) -> v1.Version:
        """Register a version again under another model, which is created if it is missing.

        The copy's `copied_from` names the original.

        Raises as register_model, and InvalidRequest (INVALID_VERSION), NotFound (MODEL_NOT_FOUND, VERSION_NOT_FOUND),
        PreconditionFailed (VERSION_DELETED, VERSION_NOT_READY).
        """
        request = v1.CopyVersionRequest(
            model=model,
            version=version_number(model, version),
            to_model=to_model,
            reason=reason,
            request_id=request_id or new_request_id(),
        )
        return self._connection.call(self._connection.registry.CopyVersion, request).version

    def set_status(
        self,
        model: str,
        version: VersionLike,
        status: str,
        *,
        reason: str = "",
        request_id: str | None = None,
    ) -> v1.SetVersionStatusResponse:
        """Change a version's status to "ready", "pending" or "failed"; aliases can only move to ready versions.

        The response has the `aliases` that point to the version, and whether its status `changed`. Warns
        (RollforwardWarning) if aliases point to a version that is no longer ready, or are scheduled to.

        Raises:
            InvalidRequest: INVALID_STATUS, INVALID_VERSION, REQUEST_ID_REUSED.
            NotFound: MODEL_NOT_FOUND, VERSION_NOT_FOUND.
            PreconditionFailed: MODEL_RENAMED, MODEL_DELETED, VERSION_DELETED.
            Unavailable: No result within the timeout.
        """
        request = v1.SetVersionStatusRequest(
            model=model,
            version=version_number(model, version),
            status=_status(status),
            reason=reason,
            request_id=request_id or new_request_id(),
        )
        response = self._connection.call(self._connection.registry.SetVersionStatus, request)
        warn_status(model, request.version, status.lower(), response)
        return response

    def delete(
        self,
        model: str,
        version: VersionLike,
        *,
        reason: str = "",
        request_id: str | None = None,
    ) -> None:
        """Delete a version without aliases; its number is never reused, and it can be restored.

        Raises:
            InvalidRequest: INVALID_VERSION, REQUEST_ID_REUSED.
            NotFound: MODEL_NOT_FOUND, VERSION_NOT_FOUND.
            PreconditionFailed: VERSION_IN_USE, with `aliases`; MODEL_RENAMED, MODEL_DELETED.
            Unavailable: No result within the timeout.
        """
        number = version_number(model, version)
        request = v1.DeleteVersionRequest(
            model=model, version=number, reason=reason, request_id=request_id or new_request_id()
        )
        response = self._connection.call(self._connection.registry.DeleteVersion, request)
        warn_scheduled(f"v{number} of {model} is deleted", response.scheduled_aliases)

    def restore(
        self,
        model: str,
        version: VersionLike,
        *,
        reason: str = "",
        request_id: str | None = None,
    ) -> None:
        """Restore a deleted version.

        Raises:
            InvalidRequest: INVALID_VERSION, REQUEST_ID_REUSED.
            NotFound: MODEL_NOT_FOUND, VERSION_NOT_FOUND.
            PreconditionFailed: MODEL_RENAMED, MODEL_DELETED.
            Unavailable: No result within the timeout.
        """
        number = version_number(model, version)
        request = v1.RestoreVersionRequest(
            model=model, version=number, reason=reason, request_id=request_id or new_request_id()
        )
        self._connection.call(self._connection.registry.RestoreVersion, request)

    def get(self, model: str, version: VersionLike) -> v1.Version:
        """Return one version, deleted or not.

        Raises:
            InvalidRequest: INVALID_VERSION.
            NotFound: MODEL_NOT_FOUND, VERSION_NOT_FOUND.
            PreconditionFailed: MODEL_RENAMED.
            Unavailable: No result within the timeout.
        """
        request = v1.GetVersionRequest(model=model, version=version_number(model, version))
        return _complete(self._connection, self._connection.call(self._connection.registry.GetVersion, request).version)

    def list(
        self,
        model: str = "",
        *,
        filter: str = "",  # noqa: A002 - the contract's name
        order_by: str = "",
        show_deleted: bool = False,
        limit: int | None = None,
    ) -> builtins.list[v1.Version]:
        """List versions of a model, or of all, newest first or in the order of `order_by` ("name ASC").

        `filter` is as in list_models, over name (the model's), version, run_id, digest, status, alias, created, updated
        and tags. `limit` None returns all.

        Raises:
            InvalidRequest: INVALID_FILTER, INVALID_ORDER.
            NotFound: MODEL_NOT_FOUND.
            PreconditionFailed: MODEL_RENAMED.
            Unavailable: No result within the timeout.
        """
        query = v1.ListVersionsRequest(model=model, filter=filter, order_by=order_by, show_deleted=show_deleted)

        def fetch(size: int, token: str) -> tuple[Iterable[v1.Version], str]:
            query.page_size, query.page_token = size, token
            page = self._connection.call(self._connection.registry.ListVersions, query)
            return (_complete(self._connection, version) for version in page.versions), page.next_page_token

        return collect(fetch, limit, page=_VERSIONS_PER_PAGE)


def _complete(connection: Connection, version: v1.Version) -> v1.Version:
    """Add the aliases that did not fit into the response."""
    if version.more_aliases:
        aliases = Assignments(connection).resolve_all(version.model).aliases
        version.aliases[:] = [alias.alias for alias in aliases if alias.version == version.version]
        version.more_aliases = False
    return version


def _status(name: str) -> v1.VersionStatus.ValueType:
    try:
        return v1.VersionStatus.Value(f"VERSION_STATUS_{name.upper()}")
    except ValueError as error:
        message = f"invalid status {name!r}: expected ready, pending or failed"
        raise InvalidRequest("INVALID_STATUS", message, {"status": name}) from error


def _connection_of_run(_name: str, run: RunLike | None = None, **_: object) -> Connection | None:
    """Return the connection of a live run; None for any other run."""
    return run.connection if isinstance(run, Run) else None


def _check_source(run: RunLike | None, artifact: str, path: str | PathLike[str] | None, digest: str) -> None:
    if (path is not None) + (run is not None or bool(digest)) != 1 or (artifact and run is None):
        message = "expected one source: a run with its artifact, a path, or a digest"
        raise InvalidRequest("INVALID_SOURCE", message)


register_model = default_client_function(
    "register_model", Versions, Versions.register, connection_of=_connection_of_run
)
copy_version = default_client_function("copy_version", Versions, Versions.copy)
set_version_status = default_client_function("set_version_status", Versions, Versions.set_status)
delete_version = default_client_function("delete_version", Versions, Versions.delete)
restore_version = default_client_function("restore_version", Versions, Versions.restore)
get_version = default_client_function("get_version", Versions, Versions.get)
list_versions = default_client_function("list_versions", Versions, Versions.list)

"""Assignments of aliases: move, remove and resolve aliases, now or in the past."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rollforward import v1
from rollforward._transport.connection import Connection, new_request_id
from rollforward._transport.default import default_client_function
from rollforward._transport.paging import collect
from rollforward._transport.resource import Resource
from rollforward._transport.response_warnings import warn, warn_new_aliases, warn_unchanged
from rollforward.references import Past, VersionLike, as_of, parse_alias, revision, timestamp, version_number

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime


class Assignments(Resource):
    """Assignments of aliases to versions: change and resolve them."""

    def move(
        self,
        reference: str,
        version: VersionLike,
        *,
        reason: str = "",
        expected_revision: int | None = None,
        epoch: int | None = None,
        expires_at: datetime | str | None = None,
        request_id: str | None = None,
    ) -> v1.Alias:
        """Move "model@alias" to a version and return its assignment; if it points there already, change nothing.

        Warns (RollforwardWarning) if the alias is new and its name is similar to another, or if nothing changed
        although a reason was given.

        Args:
            reference: The alias, "model@alias".
            version: The version to move to.
            reason: Why; recorded in the event.
            expected_revision: The alias's revision that you saw, 0 for "not set"; None moves it unconditionally.
            epoch: The registry log's epoch when you saw the revision, if not by this connection.
            expires_at: When to remove the alias, unless it changes before: an aware datetime or an RFC 3339 time.
            request_id: The id of the request, to repeat it safely; random by default.

        Raises:
            InvalidRequest: INVALID_REFERENCE, INVALID_VERSION, INVALID_REVISION, INVALID_ALIAS, INVALID_TIME,
                REQUEST_ID_REUSED.
            NotFound: MODEL_NOT_FOUND, VERSION_NOT_FOUND.
            PreconditionFailed: REASON_REQUIRED, with `policy`; GATE_FAILED, with `evidence`; VERSION_DELETED,
                VERSION_NOT_READY, MODEL_RENAMED, MODEL_DELETED.
            Conflict: WRONG_REVISION, with `current`; LOG_EPOCH_CHANGED.
            Unavailable: No result within the timeout.
        """
        return self.move_response(
            reference,
            version,
            reason=reason,
            expected_revision=expected_revision,
            epoch=epoch,
            expires_at=expires_at,
            request_id=request_id,
        ).alias

    def move_response(
        self,
        reference: str,
        version: VersionLike,
        *,
        reason: str = "",
        expected_revision: int | None = None,
        epoch: int | None = None,
        expires_at: datetime | str | None = None,
        request_id: str | None = None,
    ) -> v1.MoveAliasResponse:
        """Move an alias as `move` does, and return the full response, with `moved` and `created`."""
        model, alias = parse_alias(reference)
        request = v1.MoveAliasRequest(
            model=model,
            alias=alias,
            version=version_number(model, version),
            expected_revision=revision(expected_revision),
            reason=reason,
            request_id=request_id or new_request_id(),
            expires_at=timestamp(expires_at),
            epoch=_epoch(self._connection, epoch),
        )
        response = self._connection.call(self._connection.registry.MoveAlias, request)
        if response.HasField("created"):
            warn_new_aliases([response.created])
        if not response.moved:
            warn_unchanged(response.alias, reason)
        return response

    def move_many(
        self,
        targets: Mapping[str, VersionLike] | Iterable[v1.AliasTarget],
        *,
        reason: str = "",
        epoch: int | None = None,
        request_id: str | None = None,
    ) -> v1.MoveAliasesResponse:
        """Move several aliases at one revision, all or none: {"fraud@champion": 3, "limits@champion": 7}.

        To give an `expected_revision`, pass v1.AliasTarget messages. The response has the aliases in the given order,
        the `revision` of those that moved (0 if none did), and the new aliases as `created`. Raises as move_alias, and
        InvalidRequest (INVALID_RELEASE_SET, TOO_MANY_EVENTS).
        """
        request = v1.MoveAliasesRequest(
            targets=[_target(*item) for item in targets.items()] if isinstance(targets, Mapping) else targets,
            reason=reason,
            epoch=_epoch(self._connection, epoch),
            request_id=request_id or new_request_id(),
        )
        response = self._connection.call(self._connection.registry.MoveAliases, request)
        warn_new_aliases(response.created)
        if not response.revision and reason:
            warn("unchanged: all aliases already point there, so the reason was not recorded")
        return response

    def remove(
        self,
        reference: str,
        *,
        reason: str = "",
        expected_revision: int | None = None,
        epoch: int | None = None,
        request_id: str | None = None,
    ) -> None:
        """Remove "model@alias".

        Raises:
            InvalidRequest: INVALID_REFERENCE, INVALID_REVISION, REQUEST_ID_REUSED.
            NotFound: MODEL_NOT_FOUND, ALIAS_NOT_FOUND.
            PreconditionFailed: REASON_REQUIRED, with `policy`; MODEL_RENAMED.
            Conflict: WRONG_REVISION, with `current`; LOG_EPOCH_CHANGED.
            Unavailable: No result within the timeout.
        """
        model, alias = parse_alias(reference)
        request = v1.RemoveAliasRequest(
            model=model,
            alias=alias,
            expected_revision=revision(expected_revision),
            reason=reason,
            request_id=request_id or new_request_id(),
            epoch=_epoch(self._connection, epoch),
        )
        self._connection.call(self._connection.registry.RemoveAlias, request)

    def resolve(self, reference: str, at: Past | None = None) -> v1.Alias:
        """Return the assignment of "model@alias", now or at a revision, an aware datetime or an RFC 3339 time.

        Raises:
            InvalidRequest: INVALID_REFERENCE, INVALID_REVISION, INVALID_TIME, POSITION_AHEAD.
            NotFound: MODEL_NOT_FOUND, ALIAS_NOT_FOUND.
            PreconditionFailed: MODEL_RENAMED, with `renamed_to`.
            Unavailable: No result within the timeout.
        """
        return self.resolve_response(reference, at).alias

    def resolve_response(self, reference: str, at: Past | None = None) -> v1.ResolveAliasResponse:
        """Resolve an alias as `resolve` does, and return the full response, with its `position` and `time`."""
        model, alias = parse_alias(reference)
        past = as_of(at, self._connection.epoch("registry"))
        return self._connection.call(
            self._connection.registry.ResolveAlias, v1.ResolveAliasRequest(model=model, alias=alias, at=past)
        )

    def resolve_all(
        self, model: str = "", at: Past | None = None, *, limit: int | None = None
    ) -> v1.ResolveAliasesResponse:
        """Return the assignments of a model's aliases, or with "" of all models, now or in the past.

        They are sorted by model and alias, and all as of the response's `position` and `time`. `limit` None returns
        all.

        Raises:
            InvalidRequest: INVALID_REVISION, INVALID_TIME, POSITION_AHEAD.
            NotFound: MODEL_NOT_FOUND.
            PreconditionFailed: MODEL_RENAMED.
            Unavailable: No result within the timeout.
        """
        query = v1.ResolveAliasesRequest(model=model, at=as_of(at, self._connection.epoch("registry")))
        whole = v1.ResolveAliasesResponse()

        def fetch(size: int, token: str) -> tuple[Iterable[v1.Alias], str]:
            query.page_size, query.page_token = size, token
            page = self._connection.call(self._connection.registry.ResolveAliases, query)
            whole.position, whole.epoch = page.position, page.epoch
            whole.time.CopyFrom(page.time)
            return page.aliases, page.next_page_token

        whole.aliases.extend(collect(fetch, limit))
        return whole


def _epoch(connection: Connection, given: int | None) -> int:
    return connection.epoch("registry") if given is None else given


def _target(reference: str, version: VersionLike) -> v1.AliasTarget:
    model, alias = parse_alias(reference)
    return v1.AliasTarget(model=model, alias=alias, version=version_number(model, version))


move_alias = default_client_function("move_alias", Assignments, Assignments.move)
move_alias_response = default_client_function("move_alias_response", Assignments, Assignments.move_response)
move_aliases = default_client_function("move_aliases", Assignments, Assignments.move_many)
remove_alias = default_client_function("remove_alias", Assignments, Assignments.remove)
resolve = default_client_function("resolve", Assignments, Assignments.resolve)
resolve_alias = default_client_function("resolve_alias", Assignments, Assignments.resolve_response)
resolve_all = default_client_function("resolve_all", Assignments, Assignments.resolve_all)

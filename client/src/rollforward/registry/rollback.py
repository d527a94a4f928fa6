"""Rollback: past assignments of one alias, a model, a pattern or everything come back as new events."""

from __future__ import annotations

from rollforward import v1
from rollforward._transport.connection import new_request_id
from rollforward._transport.default import default_client_function
from rollforward._transport.resource import Resource
from rollforward.errors import InvalidRequest
from rollforward.references import Past, as_of, parse_scope, revision


class Rollbacks(Resource):
    """Rollbacks of aliases to past assignments."""

    def rollback(
        self,
        scope: str,
        to: Past | None = None,
        *,
        before_event: str = "",
        dry_run: bool = False,
        skip_missing: bool = False,
        expected_position: int | None = None,
        expected_revision: int | None = None,
        epoch: int | None = None,
        reason: str = "",
        request_id: str | None = None,
    ) -> v1.RollbackResponse:
        """Replay past assignments as new events, at most one an alias, all at one revision or none.

        `scope` is "model@alias", "model" for all of its aliases, or either with "*" and "?" in it: "fraud-*@champion",
        "*" for everything; "fraud[*]" is the model "fraud*" alone. `to` is a revision, an aware datetime or an RFC 3339
        time; `before_event` is the id of an event, to go back to just before it; without both, each alias goes back to
        its previous holder.

        The answer has the `changes`, one for each alias that is not there already, and their `revision`. With `dry_run`
        nothing is changed: send the answer's `computed_at` as `expected_position` to do exactly what it showed.
        `expected_revision` is for a scope of one alias, as of move_alias. Aliases whose past version was deleted refuse
        the rollback, or with `skip_missing` stay as they are and come with `skipped`.

        Raises:
            InvalidRequest: INVALID_REFERENCE, INVALID_TIME, INVALID_REVISION, INVALID_AS_OF, INVALID_SCOPE,
                POSITION_AHEAD, TOO_MANY_EVENTS, REQUEST_ID_REUSED.
            NotFound: ALIAS_NOT_FOUND, EVENT_NOT_FOUND.
            PreconditionFailed: NOTHING_TO_RESTORE, VERSION_DELETED, REASON_REQUIRED, GATE_FAILED, MODEL_RENAMED.
            Conflict: CHANGED_SINCE; WRONG_REVISION, with `current`.
            Unavailable: No result within the timeout.
        """
        if to is not None and before_event:
            raise InvalidRequest(
                "INVALID_AS_OF", "a rollback goes to a point in the past or to before an event, not both"
            )
        models, aliases = parse_scope(scope)
        request = v1.RollbackRequest(
            models=models,
            aliases=aliases,
            as_of=as_of(to),
            dry_run=dry_run,
            expected_position=revision(expected_position, "expected_position"),
            expected_revision=revision(expected_revision),
            epoch=self._connection.epoch("registry") if epoch is None else epoch,
            skip_missing=skip_missing,
            reason=reason,
            request_id=request_id or new_request_id(),
        )
        if before_event:
            request.before_event = before_event
        return self._connection.call(self._connection.registry.Rollback, request)


rollback = default_client_function("rollback", Rollbacks, Rollbacks.rollback)

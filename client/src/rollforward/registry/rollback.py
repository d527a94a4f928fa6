"""Rollback of one alias, a model's, those that match a pattern, or all, by new events."""

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
        """Restore past assignments with new events, all at one revision or none.

        The response has the `changes`, one for each alias that points elsewhere now, and their `revision`.

        Args:
            scope: "model@alias", "model" for all of its aliases, or either with "*" and "?": "fraud-*@champion", "*"
                for everything; "fraud[*]" is only the model "fraud*".
            to: A revision, an aware datetime or an RFC 3339 time. Without it and `before_event`, each alias goes back
            to the
                version that it pointed to before.
            before_event: The id of an event, to go back to just before it.
            dry_run: Whether to only compute the changes. To apply exactly these, pass the response's `computed_at` as
                `expected_position`.
            skip_missing: Whether to leave aliases unchanged whose past version is deleted, marked as `skipped` in the
                response; by default they fail the rollback.
            expected_position: The position at which a dry run computed the changes.
            expected_revision: For a scope of one alias, as in move_alias.
            epoch: The registry log's epoch when you read the position or revision, if not by this connection.
            reason: Why; recorded in the events.
            request_id: The id of the request, to repeat it safely; random by default.

        Raises:
            InvalidRequest: INVALID_REFERENCE, INVALID_TIME, INVALID_REVISION, INVALID_AS_OF, INVALID_SCOPE,
                POSITION_AHEAD, TOO_MANY_EVENTS, REQUEST_ID_REUSED.
            NotFound: ALIAS_NOT_FOUND, EVENT_NOT_FOUND.
            PreconditionFailed: NOTHING_TO_RESTORE, VERSION_DELETED, REASON_REQUIRED, GATE_FAILED, MODEL_RENAMED.
            Conflict: CHANGED_SINCE; WRONG_REVISION, with `current`.
            Unavailable: No result within the timeout.
        """
        if to is not None and before_event:
            raise InvalidRequest("INVALID_AS_OF", "expected either a point in the past or before_event, not both")
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

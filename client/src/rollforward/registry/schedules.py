"""Scheduled moves of aliases: create, list and cancel them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rollforward import v1
from rollforward._transport.connection import new_request_id
from rollforward._transport.default import default_client_function
from rollforward._transport.paging import collect
from rollforward._transport.resource import Resource
from rollforward._transport.response_warnings import warn_new_aliases
from rollforward.references import VersionLike, parse_alias, revision, timestamp, version_number

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterable
    from datetime import datetime


class Schedules(Resource):
    """Scheduled moves of aliases."""

    def create(
        self,
        reference: str,
        version: VersionLike,
        at: datetime | str,
        *,
        reason: str = "",
        expected_revision: int | None = None,
        epoch: int | None = None,
        request_id: str | None = None,
    ) -> v1.Schedule:
        """Schedule a move of "model@alias" to a version at a time: an aware datetime or an RFC 3339 time.

        With `expected_revision`, the alias moves only if it still has that revision then. Gates are evaluated at that
        time; a rejected move leaves an event with the reason. Raises as move_alias, except GATE_FAILED; INVALID_TIME if
        the time is in the past by the service's clock.
        """
        model, alias = parse_alias(reference)
        request = v1.ScheduleMoveRequest(
            model=model,
            alias=alias,
            version=version_number(model, version),
            at=timestamp(at),
            expected_revision=revision(expected_revision),
            epoch=self._connection.epoch("registry") if epoch is None else epoch,
            reason=reason,
            request_id=request_id or new_request_id(),
        )
        response = self._connection.call(self._connection.registry.ScheduleMove, request)
        if response.HasField("creates"):
            warn_new_aliases([response.creates])
        return response.schedule

    def cancel(
        self,
        model: str,
        schedule_id: str,
        *,
        reason: str = "",
        request_id: str | None = None,
    ) -> None:
        """Cancel a scheduled move.

        Raises:
            NotFound: MODEL_NOT_FOUND, SCHEDULE_NOT_FOUND.
            InvalidRequest: REQUEST_ID_REUSED.
            PreconditionFailed: MODEL_RENAMED.
            Unavailable: No result within the timeout.
        """
        request = v1.CancelScheduleRequest(
            model=model, schedule_id=schedule_id, reason=reason, request_id=request_id or new_request_id()
        )
        self._connection.call(self._connection.registry.CancelSchedule, request)

    def list(self, model: str = "", *, limit: int | None = None) -> builtins.list[v1.Schedule]:
        """List the pending moves of a model's aliases, or with "" of all models, the next one first.

        `limit` None returns all.

        Raises:
            NotFound: MODEL_NOT_FOUND.
            PreconditionFailed: MODEL_RENAMED.
            Unavailable: No result within the timeout.
        """

        def fetch(size: int, token: str) -> tuple[Iterable[v1.Schedule], str]:
            request = v1.ListSchedulesRequest(model=model, page_size=size, page_token=token)
            page = self._connection.call(self._connection.registry.ListSchedules, request)
            return page.schedules, page.next_page_token

        return collect(fetch, limit)


schedule_move = default_client_function("schedule_move", Schedules, Schedules.create)
cancel_schedule = default_client_function("cancel_schedule", Schedules, Schedules.cancel)
list_schedules = default_client_function("list_schedules", Schedules, Schedules.list)

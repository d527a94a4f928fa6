"""Moves that are made at a time: schedule them, list them, call them off."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rollforward import v1
from rollforward._transport.connection import Connection, current, new_request_id
from rollforward._transport.paging import collect
from rollforward._transport.response_warnings import notice_new
from rollforward.references import VersionLike, parse_alias, revision, timestamp, version_number

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime


def schedule_move(
    reference: str,
    version: VersionLike,
    at: datetime | str,
    *,
    reason: str = "",
    expected_revision: int | None = None,
    epoch: int | None = None,
    request_id: str | None = None,
    connection: Connection | None = None,
) -> v1.Schedule:
    """Have "model@alias" moved to a version `at` a time, once: an aware datetime or an RFC 3339 time.

    With `expected_revision` it is moved then only if it still has that revision. The gates are asked when the time
    comes; a move that is refused then leaves an event that says why.
    Raises as move_alias, except GATE_FAILED; INVALID_TIME when the time has passed, by the clock of the service.
    """
    link = current(connection)
    model, alias = parse_alias(reference)
    request = v1.ScheduleMoveRequest(
        model=model,
        alias=alias,
        version=version_number(model, version),
        at=timestamp(at),
        expected_revision=revision(expected_revision),
        epoch=link.epoch("registry") if epoch is None else epoch,
        reason=reason,
        request_id=request_id or new_request_id(),
    )
    response = link.call(link.registry.ScheduleMove, request)
    if response.HasField("creates"):
        notice_new([response.creates])
    return response.schedule


def cancel_schedule(
    model: str,
    schedule_id: str,
    *,
    reason: str = "",
    request_id: str | None = None,
    connection: Connection | None = None,
) -> None:
    """Call a scheduled move off.

    Raises NotFound (MODEL_NOT_FOUND, SCHEDULE_NOT_FOUND), InvalidRequest (REQUEST_ID_REUSED), PreconditionFailed
    (MODEL_RENAMED), Unavailable.
    """
    link = current(connection)
    request = v1.CancelScheduleRequest(
        model=model, schedule_id=schedule_id, reason=reason, request_id=request_id or new_request_id()
    )
    link.call(link.registry.CancelSchedule, request)


def list_schedules(
    model: str = "", *, limit: int | None = None, connection: Connection | None = None
) -> list[v1.Schedule]:
    """The moves of a model's aliases, or with "" of all, that are still to come, the next one first.

    `limit` None for all. Raises NotFound (MODEL_NOT_FOUND), PreconditionFailed (MODEL_RENAMED), Unavailable.
    """
    link = current(connection)

    def fetch(size: int, token: str) -> tuple[Iterable[v1.Schedule], str]:
        request = v1.ListSchedulesRequest(model=model, page_size=size, page_token=token)
        page = link.call(link.registry.ListSchedules, request)
        return page.schedules, page.next_page_token

    return collect(fetch, limit)

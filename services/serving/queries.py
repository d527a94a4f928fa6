"""The answers of serving: who serves what."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import sqlalchemy as sa

from rollforward import v1
from services.serving.projection import pods, targets
from services.times import timestamp

Alias = tuple[str, str]
"""A model's name and an alias."""

PodRow = sa.Row[tuple[object, ...]]


def pods_by_alias(rows: sa.Connection, request: v1.ListDeploymentsRequest) -> dict[Alias, list[PodRow]]:
    """What each pod said, for every alias that is followed, in order of their names."""
    question = sa.select(pods, targets).join(targets, targets.c.pod_id == pods.c.pod_id)
    question = question.order_by(targets.c.model, targets.c.alias, targets.c.updated_at.desc(), pods.c.pod_id)
    if request.model:
        question = question.where(targets.c.model == request.model)
    if not request.include_stopped:
        question = question.where(sa.not_(pods.c.stopped))
    found: dict[Alias, list[PodRow]] = defaultdict(list)
    for row in rows.execute(question):
        found[row.model, row.alias].append(row)
    return found


def deployments(
    said: Mapping[Alias, Sequence[PodRow]], desired: Sequence[v1.Assignment], connected: Collection[str]
) -> v1.ListDeploymentsResponse:
    """Every alias that is followed, with what it should be and what each pod serves."""
    return v1.ListDeploymentsResponse(
        deployments=[
            v1.Deployment(
                desired=one,
                pods=[_status(row, one, connected) for row in said[one.target.model, one.target.alias]],
            )
            for one in desired
        ]
    )


def _status(row: PodRow, desired: v1.Assignment, connected: Collection[str]) -> v1.PodStatus:
    return v1.PodStatus(
        pod_id=row.pod_id,
        host=row.host,
        endpoint=row.endpoint,
        state=_state(row, desired, connected),
        version=row.version,
        revision=row.revision,
        error=row.error,
        updated_at=timestamp(row.updated_at),
    )


def _state(row: PodRow, desired: v1.Assignment, connected: Collection[str]) -> v1.PodState.ValueType:
    if row.stopped:
        return v1.POD_STATE_STOPPED
    if row.pod_id not in connected:
        return v1.POD_STATE_DISCONNECTED
    if row.error and row.failed_revision == desired.revision:
        return v1.POD_STATE_FAILED
    # In another epoch the same revision may be another assignment.
    current = (row.revision, row.version) == (desired.revision, desired.version)
    return v1.POD_STATE_CURRENT if current else v1.POD_STATE_UPDATING

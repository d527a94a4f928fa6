"""The answers of serving: who serves what."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby, islice

import sqlalchemy as sa

from rollforward import v1
from services.listings.pages import cut, key_of
from services.serving.projection import pods, targets
from services.timestamps import timestamp

Alias = tuple[str, str]
"""A model's name and an alias."""

MAX_PODS = 1_000
"""The maximum number of pods on a page."""

PodRow = sa.Row[tuple[object, ...]]


def pods_by_alias(
    connection: sa.Connection, models: Collection[str] | None, *, include_stopped: bool
) -> dict[Alias, list[PodRow]]:
    """Return the last report of each pod, for every alias that is followed, ordered by name.

    Args:
        connection: To the rows of serving.
        models: The names that pods follow a model by; None for all models.
        include_stopped: Whether to include pods that have stopped.
    """
    statement = sa.select(pods, targets).join(targets, targets.c.pod_id == pods.c.pod_id)
    statement = statement.order_by(targets.c.model, targets.c.alias, targets.c.updated_at.desc(), pods.c.pod_id)
    if models is not None:
        statement = statement.where(targets.c.model.in_(models))
    if not include_stopped:
        statement = statement.where(sa.not_(pods.c.stopped))
    pods_by_name: dict[Alias, list[PodRow]] = defaultdict(list)
    for row in connection.execute(statement):
        pods_by_name[row.model, row.alias].append(row)
    return pods_by_name


def by_shown_name(reports: Mapping[Alias, Sequence[PodRow]], shown: Mapping[str, str]) -> dict[Alias, list[PodRow]]:
    """Merge the reports under one name of each model: pods may follow a model by several names."""
    merged: dict[Alias, dict[str, PodRow]] = defaultdict(dict)
    for row in sorted((row for rows in reports.values() for row in rows), key=lambda row: row.updated_at):
        merged[shown[row.model], row.alias][row.pod_id] = row
    return {alias: list(merged[alias].values()) for alias in sorted(merged)}


def deployments(
    reports: Mapping[Alias, Sequence[PodRow]],
    desired: Sequence[v1.Assignment],
    connected: Collection[str],
    request: v1.ListDeploymentsRequest,
) -> v1.ListDeploymentsResponse:
    """Return a page of the followed aliases, with the assignment of each and what its pods serve.

    Raises:
        Rejected: INVALID_PAGE.
    """
    size = min(request.page_size or MAX_PODS, MAX_PODS)
    pod_rows = list(islice(_pods_after(reports, key_of(request.page_token, str, str, str)), size + 1))
    wanted = {(assignment.target.model, assignment.target.alias): assignment for assignment in desired}
    page, token = cut(
        pod_rows, size, _key, lambda page_rows: [_status(row, wanted[alias], connected) for alias, row in page_rows]
    )
    response = v1.ListDeploymentsResponse(next_page_token=token)
    shown = zip((alias for alias, _ in pod_rows), page, strict=False)
    for alias, pods_of in groupby(shown, lambda pair: pair[0]):
        newest_first = sorted((pod for _, pod in pods_of), key=_by_time)
        response.deployments.add(desired=wanted[alias], pods=newest_first)
    return response


def _by_time(pod: v1.PodStatus) -> tuple[int, str]:
    return -pod.updated_at.ToNanoseconds(), pod.pod_id


def _pods_after(
    reports: Mapping[Alias, Sequence[PodRow]], key: tuple[object, ...] | None
) -> Iterator[tuple[Alias, PodRow]]:
    """Yield the pods after a key, by alias and id: a pod's reports in between do not move it to another page."""
    for alias in sorted(reports):
        for row in sorted(reports[alias], key=lambda row: row.pod_id):
            if key is None or _key((alias, row)) > key:
                yield alias, row


def _key(pod: tuple[Alias, PodRow]) -> tuple[str, str, str]:
    (model, alias), row = pod
    return model, alias, row.pod_id


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

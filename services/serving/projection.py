"""The rows of serving: the pods, and the last report of each on the aliases that it follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import sqlalchemy as sa

from eventstore import EPOCH_STREAM, RecordedEvent
from rollforward import v1
from services.serving.events import pod_event

tables = sa.MetaData()

pods = sa.Table(
    "pods",
    tables,
    sa.Column("pod_id", sa.Text, primary_key=True),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("endpoint", sa.Text, nullable=False),
    sa.Column("stopped", sa.Boolean, nullable=False),
)

targets = sa.Table(
    "pod_targets",
    tables,
    sa.Column("pod_id", sa.Text, primary_key=True),
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("alias", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("failed_revision", sa.BigInteger, nullable=False),
    sa.Column("error", sa.Text, nullable=False),
    sa.Column("updated_at", sa.BigInteger, nullable=False),
    sa.Index("pod_targets_by_alias", "model", "alias"),
)


class ServingProjection:
    """The projection of the pods and their reports."""

    name = "serving"
    version = 1
    tables = tables

    def apply(self, connection: sa.Connection, events: Sequence[RecordedEvent]) -> None:
        """Apply events to the rows."""
        for event in events:
            if event.stream != EPOCH_STREAM:
                self._write(connection, event)

    def _write(self, connection: sa.Connection, event: RecordedEvent) -> None:
        payload = pod_event(event.data)
        match payload:
            case v1.PodStarted():
                _start(connection, event, payload)
            case v1.AssignmentApplied():
                served: dict[str, int | str] = {
                    "version": payload.version,
                    "revision": payload.revision,
                    "failed_revision": 0,
                    "error": "",
                }
                _update_target(connection, event, payload.pod_id, payload.target, served)
            case v1.AssignmentFailed():
                failed: dict[str, int | str] = {"failed_revision": payload.revision, "error": payload.detail}
                _update_target(connection, event, payload.pod_id, payload.target, failed)
            case v1.PodStopped():
                connection.execute(sa.update(pods).where(pods.c.pod_id == payload.pod_id).values(stopped=True))
            case _:
                assert_never(payload)


def _start(connection: sa.Connection, event: RecordedEvent, payload: v1.PodStarted) -> None:
    pod = {"pod_id": payload.pod_id, "host": payload.host, "endpoint": payload.endpoint, "stopped": False}
    connection.execute(sa.insert(pods), pod)
    unreported = {"version": 0, "revision": 0, "failed_revision": 0, "error": "", "updated_at": event.time}
    for model, alias in sorted({(target.model, target.alias) for target in payload.targets}):
        connection.execute(sa.insert(targets), {"pod_id": payload.pod_id, "model": model, "alias": alias} | unreported)


def _update_target(
    connection: sa.Connection, event: RecordedEvent, pod_id: str, target: v1.Target, values: dict[str, int | str]
) -> None:
    same = sa.and_(targets.c.pod_id == pod_id, targets.c.model == target.model, targets.c.alias == target.alias)
    connection.execute(sa.update(targets).where(same).values(updated_at=event.time, **values))

"""Which artifacts something names: every version ever registered, every artifact of a run or a logged model."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from eventstore.event import RecordedEvent
from eventstore.projection import Projector
from rollforward import v1
from services.tracking.tables import artifacts as run_artifacts
from services.tracking.tables import models as logged_models

tables = sa.MetaData()

artifacts = sa.Table("artifacts", tables, sa.Column("digest", sa.Text, primary_key=True))


class NamedArtifactsProjection:
    """Keeps the digest of every version that was ever registered: a deleted one can be restored, and rolled back to."""

    name = "named-artifacts"
    version = 1
    tables = tables

    def apply(self, rows: sa.Connection, events: Sequence[RecordedEvent]) -> None:
        """Writes what events of the registry log name."""
        named = {event.data.digest for event in events if isinstance(event.data, v1.VersionRegistered)}
        if named:
            known = set(rows.scalars(sa.select(artifacts.c.digest).where(artifacts.c.digest.in_(named))))
            if new := sorted(named - known):
                rows.execute(sa.insert(artifacts), [{"digest": digest} for digest in new])


class Named:
    """What both logs name.

    Args:
        tracking: The rows of tracking.
        registry: The rows of `NamedArtifactsProjection`.
    """

    def __init__(self, tracking: Projector, registry: Projector) -> None:
        self._tracking = tracking
        self._registry = registry

    async def digests(self) -> set[str]:
        """The digest of every artifact that was named before this was asked.

        Raises `StoreUnavailable` if a log or its rows are out of reach.
        """
        for projector in (self._tracking, self._registry):
            await projector.wait_for(await projector.store.head())
        of_versions = await self._registry.query(lambda rows: set(rows.scalars(sa.select(artifacts.c.digest))))
        return of_versions | await self._tracking.query(_of_runs_and_models)


def _of_runs_and_models(rows: sa.Connection) -> set[str]:
    of_runs = rows.scalars(sa.select(run_artifacts.c.digest).distinct())
    of_models = rows.scalars(sa.select(logged_models.c.digest).where(logged_models.c.digest != "").distinct())
    return {*of_runs, *of_models}

"""The artifacts that something names: registered versions, runs and logged models."""

from __future__ import annotations

import sqlalchemy as sa

from eventstore import Projector
from services.artifacts.registered_digests import artifacts
from services.tracking.projection.tables import artifacts as run_artifacts
from services.tracking.projection.tables import models as logged_models


class LiveDigests:
    """The digests that both logs use.

    Args:
        tracking: The rows of tracking.
        registry: The rows of `NamedArtifactsProjection`.
    """

    def __init__(self, tracking: Projector, registry: Projector) -> None:
        self._tracking = tracking
        self._registry = registry

    async def digests(self) -> set[str]:
        """Return the digest of every artifact that was in use when this was called.

        Raises `StoreUnavailable` if a log or its rows are out of reach.
        """
        for projector in (self._tracking, self._registry):
            await projector.wait_for(await projector.store.head())
        of_versions = await self._registry.query(
            lambda connection: set(connection.scalars(sa.select(artifacts.c.digest)))
        )
        return of_versions | await self._tracking.query(of_runs_and_models)


def of_runs_and_models(connection: sa.Connection) -> set[str]:
    """Return the digests of the artifacts of runs and logged models."""
    of_runs = connection.scalars(sa.select(run_artifacts.c.digest).distinct())
    of_models = connection.scalars(sa.select(logged_models.c.digest).where(logged_models.c.digest != "").distinct())
    return {*of_runs, *of_models}

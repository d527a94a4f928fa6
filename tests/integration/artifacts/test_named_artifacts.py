"""Which artifacts the rows of both databases reference, so that garbage collection keeps them."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from eventstore.event import Metadata, RecordedEvent
from eventstore.projections.database import Database
from eventstore.projections.generations import Generations
from rollforward import v1
from services.artifacts import registered_digests
from services.tracking.queries import live_digests
from tests.integration.tracking.tracking_rows import BEGAN, TrackingRows

A, B, C, D, E = (f"sha256:{letter * 64}" for letter in "abcde")


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the location of the rows."""
    location: str = request.getfixturevalue("postgres_url") if request.param == "postgresql" else str(tmp_path)
    return location


def test_every_version_ever_registered_references_its_artifact(location: str) -> None:
    registered = [[A, B, A], [B], [C, A, C]]
    generations = Generations(registered_digests.NamedArtifactsProjection(), Database(location))
    rows = generations.create_live()
    position = 0
    for digests in registered:
        end = position + len(digests) + 1
        payloads = [
            *(v1.VersionRegistered(model="m", version=1, digest=digest) for digest in digests),
            v1.VersionDeleted(model="m", version=1),
        ]
        events = [
            RecordedEvent("a stream", at, BEGAN, f"event-{at}", payload, Metadata("Zoë", ""), end)
            for at, payload in enumerate(payloads, position + 1)
        ]
        generations.apply(rows, position, events)
        position = end
    with rows.transaction() as connection:
        assert sorted(connection.scalars(sa.select(registered_digests.artifacts.c.digest))) == [A, B, C]
    rows.close()


def test_runs_and_logged_models_reference_current_artifacts(location: str) -> None:
    rows = TrackingRows(location)
    experiment = rows.experiment("e")
    run, other = rows.run(experiment), rows.run(experiment)
    model, without = rows.model(experiment, "net"), rows.model(experiment, "none")
    rows.append(v1.ArtifactLogged(run_id=run, path="model", digest=A))
    rows.append(v1.ArtifactLogged(run_id=run, path="model", digest=B))  # replaces the first
    rows.append(v1.ArtifactLogged(run_id=other, path="", digest=B), v1.ArtifactLogged(run_id=other, path="x", digest=C))
    rows.append(v1.LoggedModelArtifactLogged(model_id=model, digest=D))
    rows.append(v1.LoggedModelArtifactLogged(model_id=model, digest=E))
    rows.append(v1.RunDeleted(run_id=other), v1.LoggedModelDeleted(model_id=model))
    rows.append(v1.ExperimentDeleted(experiment_id=experiment))
    assert without
    assert rows.query(live_digests.of_runs_and_models) == {B, C, E}
    rows.close()

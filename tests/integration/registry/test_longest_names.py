"""Every accepted event can be applied: the longest names, of the widest characters, fit PostgreSQL's rows."""

from __future__ import annotations

import random
import string
from array import array
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from rollforward import v1
from rollforward._series import pack
from tests.e2e.program import until
from tests.integration.up import SECONDS, Up, new_id, up
from tests.servers.postgres import PostgresServer

LATER = Timestamp(seconds=4_000_000_000)
rng = random.Random(1)


def wide(count: int) -> str:
    """Return characters of four bytes each, which no database can compress."""
    return "".join(map(chr, rng.choices(range(0x20000, 0x2A000), k=count)))


def narrow(count: int) -> str:
    return "".join(rng.choices(string.ascii_letters, k=count))


HEADERS = (("rollforward-actor", quote(wide(255))), ("rollforward-correlation-id", narrow(128)))


@pytest.fixture(scope="module")
def services(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with (
        postgres.database() as url,
        up(tmp_path_factory.mktemp("longest") / "data", "--database", url) as running,
    ):
        yield running


def call(method: Any, request: Any) -> Any:
    request.request_id = wide(128)
    return method(request, metadata=HEADERS, timeout=SECONDS)


def check_applied(services: Up) -> None:
    """Wait until every projection has reached its log's head."""

    def projections_behind() -> list[str]:
        status = services.system.GetStatus(v1.GetStatusRequest(), timeout=SECONDS)
        assert [projection.failure for projection in status.projections if projection.failure] == []
        heads = {log.name: log.head for log in status.logs}
        return [projection.name for projection in status.projections if projection.position < heads[projection.log]]

    until(lambda: not projections_behind(), "every projection is at its log's head")


def test_maximum_length_names_of_runs_and_logged_models_are_applied(services: Up) -> None:
    tracking, models = services.tracking, services.logged_models
    run, model = new_id(), f"m-{new_id()}"
    experiment = call(
        tracking.CreateExperiment, v1.CreateExperimentRequest(name=wide(500), tags={wide(250): wide(8_000)})
    ).experiment_id
    call(
        tracking.StartRun,
        v1.StartRunRequest(
            run_id=run,
            experiment_id=experiment,
            name=wide(500),
            tags={wide(250): wide(8_000)},
            description=wide(20_000),
        ),
    )
    call(
        models.CreateLoggedModel,
        v1.CreateLoggedModelRequest(
            experiment_id=experiment,
            name=wide(255),
            model_id=model,
            model_type=wide(500),
            source_run_id=run,
            params={wide(250): wide(6_000)},
            tags={wide(250): wide(8_000)},
        ),
    )
    series = pack(wide(250), array("q", [1]), array("q", [1]), array("d", [1.0]))
    series.model_id, series.dataset_name, series.dataset_digest = model, wide(375), wide(36)
    call(
        tracking.LogBatch,
        v1.LogBatchRequest(run_id=run, series=[series], params={wide(250): wide(6_000)}, tags={wide(250): wide(8_000)}),
    )
    dataset = v1.Dataset(name=wide(375), digest=wide(36), source_type=wide(100), source=wide(9_000))
    read = v1.DatasetInput(dataset=dataset, tags={wide(250): wide(500)})
    call(tracking.LogLineage, v1.LogLineageRequest(run_id=run, inputs=[read]))
    path = "/".join(wide(50) for _ in range(5))
    call(tracking.LogArtifact, v1.LogArtifactRequest(run_id=run, path=path, digest=services.upload()))
    check_applied(services)


def test_too_long_dataset_name_is_rejected(services: Up) -> None:
    run = services.new_run()
    series = pack("loss", array("q", [1]), array("q", [1]), array("d", [1.0]))
    series.dataset_name, series.dataset_digest = wide(376), "d"
    request = v1.LogBatchRequest(run_id=run, series=[series])
    assert services.refused(services.tracking.LogBatch, request).reason == "INVALID_DATASET"


def test_maximum_length_names_of_models_and_aliases_are_applied(services: Up) -> None:
    registry, model, alias = services.registry, wide(255), narrow(255)
    register = v1.RegisterVersionRequest(model=model, digest=services.upload(), description=wide(1_250))
    register.tags[wide(250)] = wide(1_250)
    call(registry.RegisterVersion, register)
    call(registry.ChangeTags, v1.ChangeTagsRequest(model=model, set={wide(250): wide(1_250)}))
    call(registry.MoveAlias, v1.MoveAliasRequest(model=model, alias=alias, version=1, reason=wide(1_000)))
    call(registry.ScheduleMove, v1.ScheduleMoveRequest(model=model, alias=narrow(255), version=1, at=LATER))
    policy = v1.Policy(name=narrow(255), models=wide(255), aliases=narrow(255), reason_required=True)
    call(services.policies.SetPolicy, v1.SetPolicyRequest(policy=policy))
    targets = [v1.Target(model=model, alias=alias)]
    call(
        services.serving.StartPod,
        v1.StartPodRequest(pod_id=new_id(), host=wide(255), endpoint=wide(255), targets=targets),
    )
    call(registry.RenameModel, v1.RenameModelRequest(model=model, new_name=wide(255)))
    check_applied(services)

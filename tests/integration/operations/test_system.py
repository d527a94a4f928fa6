"""The system service and HTTP endpoints of a running system: status, rebuilds, health, reflection and metrics."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from rollforward import v1
from rollforward.errors import NotFound
from tests.integration.up import SECONDS, Up

SERVICES = ["ArtifactService", "AuditService", "RegistryService", "ServingService", "SystemService", "TrackingService"]
PROJECTIONS = {
    "tracking": "tracking",
    "registry": "registry",
    "registry-runs": "tracking",
    "named-artifacts": "registry",
    "serving": "serving",
    "serving-assignments": "registry",
    "audit-tracking": "tracking",
    "audit-registry": "registry",
    "audit-serving": "serving",
    "audit-webhooks": "webhooks",
    "webhooks": "webhooks",
}


def fetch(system: Up, path: str) -> tuple[int, str]:
    """Return the status and body of a page."""
    try:
        with urllib.request.urlopen(system.http + path, timeout=SECONDS) as answer:  # noqa: S310
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def rebuild(system: Up, name: str) -> list[v1.RebuildProjectionResponse]:
    """Rebuild a projection, and return the steps of the rebuild."""
    request = v1.RebuildProjectionRequest(name=name)
    return list(system.system.RebuildProjection(request, timeout=SECONDS))


def status(system: Up) -> v1.GetStatusResponse:
    """Return the status of the system."""
    return system.system.GetStatus(v1.GetStatusRequest(), timeout=SECONDS)


def test_status_lists_services_logs_and_projections(system: Up, model: str) -> None:
    system.move(model, 1)
    current = status(system)
    assert list(current.services) == ["tracking", "registry", "serving", "audit", "webhooks"]
    assert {log.name for log in current.logs} == {"tracking", "registry", "serving", "webhooks"}
    assert all(log.storage for log in current.logs)
    assert {projection.name: projection.log for projection in current.projections} == PROJECTIONS
    heads = {log.name: log.head for log in current.logs}
    assert all(projection.position <= heads[projection.log] for projection in current.projections)
    assert all(
        projection.generation >= 1 and re.fullmatch("[0-9a-f]{10}", projection.fingerprint)
        for projection in current.projections
    )
    assert re.fullmatch(r"2\.\d+\.\d+", current.nats_version)
    assert current.version == version("rollforward-server")


@pytest.mark.parametrize("name", PROJECTIONS)
def test_rebuild_gives_equal_rows(system: Up, model: str, name: str) -> None:
    system.move(model, 1)
    tags = {letter: letter for letter in "zyxwvutsrqponmlk"}
    created = v1.CreateModelRequest(name=f"{model}-{name}", tags=tags)
    system.registry.CreateModel(created, timeout=SECONDS)
    before = {projection.name: projection.generation for projection in status(system).projections}
    *steps, last = rebuild(system, name)
    assert not any(step.done for step in steps)
    assert last.done
    assert last.live_digest == last.rebuilt_digest != ""
    assert last.position <= last.head <= system.heads()[PROJECTIONS[name]]
    after = {projection.name: projection.generation for projection in status(system).projections}
    assert after == before | {name: before[name] + 1}
    assert system.move(model, 2).moved


def test_rebuild_during_writes_and_reads_gives_equal_rows(system: Up, model: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        writing = pool.submit(lambda: [system.move(model, version).position for version in (1, 2) * 20])
        rebuilt = [rebuild(system, "registry")[-1] for _ in range(2)]
        positions = writing.result()
    assert all(item.live_digest == item.rebuilt_digest for item in rebuilt)
    changes = system.registry.ListAliasHistory(v1.ListAliasHistoryRequest(model=model), timeout=SECONDS).changes
    assert [item.revision for item in changes] == positions[::-1]


def test_unknown_projection_is_rejected(system: Up) -> None:
    error = system.refused(
        lambda request, **options: next(iter(system.system.RebuildProjection(request, **options))),  # type: ignore[arg-type]
        v1.RebuildProjectionRequest(name="nothing"),
    )
    assert (type(error), error.reason) == (NotFound, "PROJECTION_NOT_FOUND")


def test_every_service_is_healthy(system: Up) -> None:
    health: Any = health_pb2_grpc.HealthStub(system.channel)
    for name in ["", *(f"rollforward.v1.{service}" for service in SERVICES)]:
        response = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=SECONDS)
        assert response.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_lists_and_describes_every_service(system: Up) -> None:
    known = ProtoReflectionDescriptorDatabase(system.channel)
    names = {f"rollforward.v1.{service}" for service in SERVICES}
    assert names | {"grpc.health.v1.Health"} <= set(known.get_services())
    for name in names:
        file = known.FindFileContainingSymbol(name)
        assert name.rpartition(".")[2] in {service.name for service in file.service}


def test_http_has_liveness_readiness_and_metrics(system: Up) -> None:
    assert fetch(system, "/livez")[0] == 200
    code, body = fetch(system, "/readyz")
    assert (code, json.loads(body)) == (200, {"ready": True, "failed_projections": []})
    code, body = fetch(system, "/metrics")
    assert code == 200
    heads = system.heads()
    positions = dict(re.findall(r'rollforward_projection_position\{projection="([a-z-]+)"\} (\S+)', body))
    assert {name: float(position) <= heads[PROJECTIONS[name]] for name, position in positions.items()} == dict.fromkeys(
        PROJECTIONS, True
    )
    assert re.search(r'rollforward_rpc_seconds_count\{code="OK",method="GetStatus",service="SystemService"\} \d', body)
    assert fetch(system, "/nothing")[0] == 404

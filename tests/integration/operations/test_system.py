"""The system service and the HTTP side of a real system: what runs, how far it is, and rebuilding."""

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
    """The status and body of a page."""
    try:
        with urllib.request.urlopen(system.http + path, timeout=SECONDS) as answer:  # noqa: S310
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def rebuild(system: Up, name: str) -> list[v1.RebuildProjectionResponse]:
    """The steps of a rebuild."""
    request = v1.RebuildProjectionRequest(name=name)
    return list(system.system.RebuildProjection(request, timeout=SECONDS))


def status(system: Up) -> v1.GetStatusResponse:
    """The state of the system."""
    return system.system.GetStatus(v1.GetStatusRequest(), timeout=SECONDS)


def test_the_state_of_the_system(system: Up, model: str) -> None:
    system.move(model, 1)
    now = status(system)
    assert list(now.services) == ["tracking", "registry", "serving", "audit", "webhooks"]
    assert {log.name for log in now.logs} == {"tracking", "registry", "serving", "webhooks"}
    assert all(log.storage for log in now.logs)
    assert {one.name: one.log for one in now.projections} == PROJECTIONS
    heads = {log.name: log.head for log in now.logs}
    assert all(one.position <= heads[one.log] for one in now.projections)
    assert all(one.generation >= 1 and re.fullmatch("[0-9a-f]{10}", one.fingerprint) for one in now.projections)
    assert re.fullmatch(r"2\.\d+\.\d+", now.nats_version)
    assert now.version == version("rollforward-server")


@pytest.mark.parametrize("name", PROJECTIONS)
def test_a_rebuild_gives_equal_rows(system: Up, model: str, name: str) -> None:
    system.move(model, 1)
    tags = {letter: letter for letter in "zyxwvutsrqponmlk"}
    created = v1.CreateModelRequest(name=f"{model}-{name}", tags=tags)
    system.registry.CreateModel(created, timeout=SECONDS)
    before = {one.name: one.generation for one in status(system).projections}
    *steps, last = rebuild(system, name)
    assert not any(step.done for step in steps)
    assert last.done
    assert last.live_digest == last.rebuilt_digest != ""
    assert last.position <= last.head <= system.heads()[PROJECTIONS[name]]
    after = {one.name: one.generation for one in status(system).projections}
    assert after == before | {name: before[name] + 1}
    assert system.move(model, 2).moved


def test_a_rebuild_while_others_write_and_read(system: Up, model: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        writing = pool.submit(lambda: [system.move(model, version).position for version in (1, 2) * 20])
        rebuilt = [rebuild(system, "registry")[-1] for _ in range(2)]
        positions = writing.result()
    assert all(one.live_digest == one.rebuilt_digest for one in rebuilt)
    changes = system.registry.ListAliasHistory(v1.ListAliasHistoryRequest(model=model), timeout=SECONDS).changes
    assert [one.revision for one in changes] == positions[::-1]


def test_there_is_no_such_projection(system: Up) -> None:
    error = system.refused(
        lambda request, **options: next(iter(system.system.RebuildProjection(request, **options))),  # type: ignore[arg-type]
        v1.RebuildProjectionRequest(name="nothing"),
    )
    assert (type(error), error.reason) == (NotFound, "PROJECTION_NOT_FOUND")


def test_health_of_every_service(system: Up) -> None:
    health: Any = health_pb2_grpc.HealthStub(system.channel)
    for name in ["", *(f"rollforward.v1.{service}" for service in SERVICES)]:
        answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=SECONDS)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_lists_and_describes_every_service(system: Up) -> None:
    known = ProtoReflectionDescriptorDatabase(system.channel)
    names = {f"rollforward.v1.{service}" for service in SERVICES}
    assert names | {"grpc.health.v1.Health"} <= set(known.get_services())
    for name in names:
        file = known.FindFileContainingSymbol(name)
        assert name.rpartition(".")[2] in {service.name for service in file.service}


def test_http_tells_of_life_readiness_and_numbers(system: Up) -> None:
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

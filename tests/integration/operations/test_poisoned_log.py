"""An event that the registry's projection cannot apply: what still works, what is rejected, what an operator sees."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import grpc
import pytest

from eventstore.event import Metadata, NewEvent
from eventstore.jetstream import connect
from rollforward import v1
from rollforward.errors import Unavailable, from_rpc_error
from services import registry
from services.nats.server import NatsAddress
from tests.e2e.program import until
from tests.integration.up import ACTOR, SECONDS, Up, new_id, up
from tests.servers.nats import open_log
from tests.servers.ports import free_port

POISON = v1.ModelCreated(model="given")


@pytest.fixture
def poisoned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Up, str, int]]:
    """Yield services, a model whose champion is version 1, and the position of an event that takes a name twice."""
    port = free_port()
    monkeypatch.setenv("ROLLFORWARD_NATS_PORT", str(port))
    with up(tmp_path / "data") as services:
        model, other = services.new_model(), services.new_model()
        services.registry.RenameModel(v1.RenameModelRequest(model=other, new_name="given"), timeout=SECONDS)
        services.move(model, 1)
        yield services, model, asyncio.run(append_event(address(services, port), POISON))


def address(services: Up, port: int) -> NatsAddress:
    """Return the address of the services' embedded NATS server."""
    text = (services.data / "nats" / "nats-server.conf").read_text()
    ((user, password),) = re.findall(r'users: \[\{ user: "([^"]*)", password: "([^"]*)" \}\] \}\naccounts', text)
    return NatsAddress(f"nats://127.0.0.1:{port}", user, password, "", "")


async def publish(nats: NatsAddress, subject: str, headers: dict[str, str] | None = None, payload: bytes = b"") -> int:
    """Write a message that this release cannot decode to a log, and return its position."""
    client = await connect(nats.url, nats.user, nats.password)
    try:
        return (await client.jetstream().publish(subject, payload, headers=headers)).seq
    finally:
        await client.close()


async def append_event(nats: NatsAddress, data: v1.ModelCreated) -> int:
    """Write an event that no command would to the registry log, and return its position."""
    async with open_log(nats, registry.EVENTS, "registry") as store:
        event = NewEvent(registry.model_stream(data.model), data, Metadata("eve"), new_id(), new_id())
        return (await store.append([event]))[-1]


def test_failed_projection_rejects_writes_but_not_reads_and_is_reported(poisoned: tuple[Up, str, int]) -> None:
    services, model, position = poisoned
    until(lambda: not is_ready(services), "not ready")
    commands: list[tuple[Any, Any]] = [
        (services.registry.MoveAlias, v1.MoveAliasRequest(model=model, alias="champion", version=2)),
        (services.registry.CreateModel, v1.CreateModelRequest(name="another")),
        (
            services.policies.SetPolicy,
            v1.SetPolicyRequest(policy=v1.Policy(name="p", models="*", reason_required=True)),
        ),
    ]
    for method, command in commands:
        for request_id in ("", new_id()):
            command.request_id = request_id
            error = services.refused(method, command, ACTOR)
            assert isinstance(error, Unavailable)
            assert error.reason == "PROJECTION_FAILED"
    resolved = services.registry.ResolveAlias(v1.ResolveAliasRequest(model=model, alias="champion"), timeout=SECONDS)
    assert resolved.alias.version == 1
    assert services.new_run()  # other services still work
    status = services.system.GetStatus(v1.GetStatusRequest(), timeout=SECONDS)
    assert {
        projection.name: f"position {position}" in projection.failure
        for projection in status.projections
        if projection.failure
    } == {"registry": True}
    rebuild = services.system.RebuildProjection(v1.RebuildProjectionRequest(name="registry"), timeout=SECONDS)
    assert list(rebuild)[-1].position == position - 1  # the rows are not the cause
    assert f"cannot apply position {position}: ModelCreated in model/given" in services.program.errors
    assert services.program.terminate() == 0


def is_ready(services: Up) -> bool:
    """Return whether the services are ready."""
    try:
        with urlopen(f"{services.http}/readyz", timeout=SECONDS) as answer:  # noqa: S310 - a loopback address
            return bool(answer.status == 200)
    except HTTPError:
        return False


def test_start_names_poison_event_and_other_services_start_without_registry(poisoned: tuple[Up, str, int]) -> None:
    services, _, position = poisoned
    until(lambda: not is_ready(services), "not ready")
    assert services.program.terminate() == 0
    command = [sys.executable, "-m", "services", "up", "--data", str(services.data), "--grpc", "127.0.0.1:0"]
    restart = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert restart.returncode == 1
    assert f"position {position}" in restart.stderr.splitlines()[-1]
    with up(services.data, "--without", "registry") as others:
        assert others.new_run()
        events = v1.ListEventsRequest(log="registry", type="ModelCreated")
        assert others.audit.ListEvents(events, timeout=SECONDS).events[0].position == position
        with pytest.raises(grpc.RpcError) as caught:
            others.registry.ListModels(v1.ListModelsRequest(), timeout=SECONDS)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


UNKNOWN_EVENT = {"ce-id": "f", "ce-type": "rollforward.v1.ModelMerged", "ce-actor": "eve"}


@pytest.fixture
def services_and_nats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Up, NatsAddress]]:
    """Yield services and the address of their NATS server."""
    port = free_port()
    monkeypatch.setenv("ROLLFORWARD_NATS_PORT", str(port))
    with up(tmp_path / "data") as services:
        yield services, address(services, port)


def failures(services: Up) -> dict[str, str]:
    """Return the failure of each failed projection."""
    status = services.system.GetStatus(v1.GetStatusRequest(), timeout=SECONDS)
    return {projection.name: projection.failure for projection in status.projections if projection.failure}


@pytest.mark.parametrize("headers", [UNKNOWN_EVENT, None])
def test_undecodable_event_stops_only_projections_that_need_it(
    services_and_nats: tuple[Up, NatsAddress], headers: dict[str, str] | None
) -> None:
    services, nats = services_and_nats
    model = services.new_model()
    services.move(model, 1)
    event_headers = headers and headers | {"ce-subject": f"model/{model}"}
    position = asyncio.run(publish(nats, f"rf.registry.model.{model}", event_headers, b"payload"))
    until(lambda: "registry" in failures(services), "the projection stops")
    assert all(f"position {position}" in failure for failure in failures(services).values())
    assert not {"audit-registry", "tracking", "registry-runs", "serving", "webhooks"} & failures(services).keys()
    move = v1.MoveAliasRequest(model=model, alias="champion", version=2)
    with pytest.raises(grpc.RpcError) as caught:
        services.registry.MoveAlias(move, timeout=SECONDS)
    error = from_rpc_error(caught.value)
    assert error.reason == "PROJECTION_FAILED"
    assert f"position {position}" in str(error)
    resolved = services.registry.ResolveAlias(v1.ResolveAliasRequest(model=model, alias="champion"), timeout=SECONDS)
    assert resolved.alias.version == 1
    assert services.new_run()
    (newest, *_) = services.audit.ListEvents(v1.ListEventsRequest(log="registry"), timeout=SECONDS).events
    assert (newest.position, newest.payload, newest.stream) == (position, b"payload", f"model/{model}")
    assert newest.undecodable
    assert not newest.HasField("data")
    assert services.program.terminate() == 0
    with up(services.data, "--without", "registry") as others:
        assert others.new_run()
        events = v1.ListEventsRequest(log="registry")
        assert others.audit.ListEvents(events, timeout=SECONDS).events[0].undecodable
        assert "serving-assignments" in failures(others)
        assert others.program.terminate() == 0


def test_undecodable_run_event_does_not_stop_registry(services_and_nats: tuple[Up, NatsAddress]) -> None:
    services, nats = services_and_nats
    model, run = services.new_model(), services.new_run()
    position = asyncio.run(publish(nats, f"rf.tracking.run.{run}", UNKNOWN_EVENT | {"ce-subject": f"run/{run}"}))
    until(lambda: "tracking" in failures(services), "the projection stops")
    assert services.move(model, 2).position
    with pytest.raises(grpc.RpcError) as caught:
        services.new_run()
    assert f"position {position}" in str(from_rpc_error(caught.value))
    assert services.program.terminate() == 0
    with up(services.data, "--without", "tracking") as others:
        assert others.move(model, 1).position
        assert others.program.terminate() == 0


def test_log_that_ends_inside_append_stops_nothing(services_and_nats: tuple[Up, NatsAddress]) -> None:
    services, nats = services_and_nats
    model = services.new_model()
    services.move(model, 1)
    partial_append = UNKNOWN_EVENT | {"ce-subject": f"model/{model}", "Rf-Events-Behind": "5"}
    position = asyncio.run(publish(nats, f"rf.registry.model.{model}", partial_append))
    warning = f"ends inside an append at position {position}"
    until(lambda: warning in services.program.errors, "it says so")
    assert services.move(model, 2).position == position + 1
    assert services.program.terminate() == 0
    with up(services.data) as again:
        alias = v1.ResolveAliasRequest(model=model, alias="champion")
        assert again.registry.ResolveAlias(alias, timeout=SECONDS).alias.version == 2
        assert not failures(again)
        asyncio.run(
            publish(address(again, int(nats.url.rpartition(":")[2])), f"rf.registry.model.{model}", partial_append)
        )
        assert again.program.terminate() == 0
    with up(services.data) as again:
        assert again.move(model, 1).position == position + 3
        assert again.program.terminate() == 0

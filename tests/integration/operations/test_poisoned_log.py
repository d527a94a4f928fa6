"""An event that the registry's rows cannot take in: what goes on, what is refused, and what an operator is told."""

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
    """Services, a model whose champion is version 1, and the position of an event that takes a name once more."""
    port = free_port()
    monkeypatch.setenv("ROLLFORWARD_NATS_PORT", str(port))
    with up(tmp_path / "data") as services:
        model, other = services.new_model(), services.new_model()
        services.registry.RenameModel(v1.RenameModelRequest(model=other, new_name="given"), timeout=SECONDS)
        services.move(model, 1)
        yield services, model, asyncio.run(append(address(services, port), POISON))


def address(services: Up, port: int) -> NatsAddress:
    """How to connect to the services' own NATS server."""
    text = (services.data / "nats" / "nats-server.conf").read_text()
    ((user, password),) = re.findall(r'users: \[\{ user: "([^"]*)", password: "([^"]*)" \}\] \}\naccounts', text)
    return NatsAddress(f"nats://127.0.0.1:{port}", user, password, "", "")


async def publish(nats: NatsAddress, subject: str, headers: dict[str, str] | None = None, payload: bytes = b"") -> int:
    """Writes to a log what is no event to this release; its position."""
    client = await connect(nats.url, nats.user, nats.password)
    try:
        return (await client.jetstream().publish(subject, payload, headers=headers)).seq
    finally:
        await client.close()


async def append(nats: NatsAddress, fact: v1.ModelCreated) -> int:
    """Writes to the registry log what no command would; its position."""
    async with open_log(nats, registry.EVENTS, "registry") as store:
        event = NewEvent(registry.model_stream(fact.model), fact, Metadata("eve"), new_id(), new_id())
        return (await store.append([event]))[-1]


def test_what_goes_on_what_is_refused_and_what_is_told(poisoned: tuple[Up, str, int]) -> None:
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
            refused = services.refused(method, command, ACTOR)
            assert isinstance(refused, Unavailable)
            assert refused.reason == "PROJECTION_FAILED"
    resolved = services.registry.ResolveAlias(v1.ResolveAliasRequest(model=model, alias="champion"), timeout=SECONDS)
    assert resolved.alias.version == 1
    assert services.new_run()  # other services go on
    status = services.system.GetStatus(v1.GetStatusRequest(), timeout=SECONDS)
    assert {one.name: f"position {position}" in one.failure for one in status.projections if one.failure} == {
        "registry": True
    }
    rebuild = services.system.RebuildProjection(v1.RebuildProjectionRequest(name="registry"), timeout=SECONDS)
    assert list(rebuild)[-1].position == position - 1  # the rows are not to blame
    assert f"cannot apply position {position}: ModelCreated in model/given" in services.program.errors
    assert services.program.terminate() == 0


def is_ready(services: Up) -> bool:
    """Whether all projections can go on."""
    try:
        with urlopen(f"{services.http}/readyz", timeout=SECONDS) as answer:  # noqa: S310 - a loopback address
            return bool(answer.status == 200)
    except HTTPError:
        return False


def test_a_start_says_which_event_it_is_and_the_other_services_start_without(poisoned: tuple[Up, str, int]) -> None:
    services, _, position = poisoned
    until(lambda: not is_ready(services), "not ready")
    assert services.program.terminate() == 0
    command = [sys.executable, "-m", "services", "up", "--data", str(services.data), "--grpc", "127.0.0.1:0"]
    again = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert again.returncode == 1
    assert f"position {position}" in again.stderr.splitlines()[-1]
    with up(services.data, "--without", "registry") as others:
        assert others.new_run()
        events = v1.ListEventsRequest(log="registry", type="ModelCreated")
        assert others.audit.ListEvents(events, timeout=SECONDS).events[0].position == position
        with pytest.raises(grpc.RpcError) as refused:
            others.registry.ListModels(v1.ListModelsRequest(), timeout=SECONDS)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


FROM_THE_FUTURE = {"ce-id": "f", "ce-type": "rollforward.v1.ModelMerged", "ce-actor": "eve"}


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Up, NatsAddress]]:
    """Services, and how to write to their logs past them."""
    port = free_port()
    monkeypatch.setenv("ROLLFORWARD_NATS_PORT", str(port))
    with up(tmp_path / "data") as services:
        yield services, address(services, port)


def failed(services: Up) -> dict[str, str]:
    """By projection, why it failed."""
    status = services.system.GetStatus(v1.GetStatusRequest(), timeout=SECONDS)
    return {one.name: one.failure for one in status.projections if one.failure}


@pytest.mark.parametrize("headers", [FROM_THE_FUTURE, None])
def test_an_unreadable_event_stops_only_what_needs_its_meaning(
    whole: tuple[Up, NatsAddress], headers: dict[str, str] | None
) -> None:
    services, nats = whole
    model = services.new_model()
    services.move(model, 1)
    named = headers and headers | {"ce-subject": f"model/{model}"}
    position = asyncio.run(publish(nats, f"rf.registry.model.{model}", named, b"payload"))
    until(lambda: "registry" in failed(services), "the projection stops")
    assert all(f"position {position}" in why for why in failed(services).values())
    assert not {"audit-registry", "tracking", "registry-runs", "serving", "webhooks"} & failed(services).keys()
    move = v1.MoveAliasRequest(model=model, alias="champion", version=2)
    with pytest.raises(grpc.RpcError) as refused:
        services.registry.MoveAlias(move, timeout=SECONDS)
    error = from_rpc_error(refused.value)
    assert error.reason == "PROJECTION_FAILED"
    assert f"position {position}" in str(error)
    resolved = services.registry.ResolveAlias(v1.ResolveAliasRequest(model=model, alias="champion"), timeout=SECONDS)
    assert resolved.alias.version == 1
    assert services.new_run()
    (shown, *_) = services.audit.ListEvents(v1.ListEventsRequest(log="registry"), timeout=SECONDS).events
    assert (shown.position, shown.payload, shown.stream) == (position, b"payload", f"model/{model}")
    assert shown.undecodable
    assert not shown.HasField("data")
    assert services.program.terminate() == 0
    with up(services.data, "--without", "registry") as others:
        assert others.new_run()
        events = v1.ListEventsRequest(log="registry")
        assert others.audit.ListEvents(events, timeout=SECONDS).events[0].undecodable
        assert "serving-assignments" in failed(others)
        assert others.program.terminate() == 0


def test_an_unreadable_event_of_a_run_leaves_the_registry_alone(whole: tuple[Up, NatsAddress]) -> None:
    services, nats = whole
    model, run = services.new_model(), services.new_run()
    position = asyncio.run(publish(nats, f"rf.tracking.run.{run}", FROM_THE_FUTURE | {"ce-subject": f"run/{run}"}))
    until(lambda: "tracking" in failed(services), "the projection stops")
    assert services.move(model, 2).position
    with pytest.raises(grpc.RpcError) as refused:
        services.new_run()
    assert f"position {position}" in str(from_rpc_error(refused.value))
    assert services.program.terminate() == 0
    with up(services.data, "--without", "tracking") as others:
        assert others.move(model, 1).position
        assert others.program.terminate() == 0


def test_a_log_that_ends_inside_an_append_stops_nobody(whole: tuple[Up, NatsAddress]) -> None:
    services, nats = whole
    model = services.new_model()
    services.move(model, 1)
    half = FROM_THE_FUTURE | {"ce-subject": f"model/{model}", "Rf-Events-Behind": "5"}
    position = asyncio.run(publish(nats, f"rf.registry.model.{model}", half))
    told = f"ends inside an append at position {position}"
    until(lambda: told in services.program.errors, "it says so")
    assert services.move(model, 2).position == position + 1
    assert services.program.terminate() == 0
    with up(services.data) as again:
        alias = v1.ResolveAliasRequest(model=model, alias="champion")
        assert again.registry.ResolveAlias(alias, timeout=SECONDS).alias.version == 2
        assert not failed(again)
        asyncio.run(publish(address(again, int(nats.url.rpartition(":")[2])), f"rf.registry.model.{model}", half))
        assert again.program.terminate() == 0
    with up(services.data) as again:
        assert again.move(model, 1).position == position + 3
        assert again.program.terminate() == 0

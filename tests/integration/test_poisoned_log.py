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
from rollforward import v1
from rollforward.errors import Unavailable
from services import registry
from services.nats_server import NatsAddress
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

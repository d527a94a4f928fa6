"""Reads at the head see every earlier command, whoever sent it: raw calls, the SDK and the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator

import grpc
import pytest

import rollforward as rf
from rollforward import v1
from rollforward.cli.app import run
from rollforward.errors import from_rpc_error
from tests.integration.up import Up
from tests.timeouts import scaled

pytestmark = pytest.mark.busy

HEAD = (("rollforward-min-position", "head"),)
SECONDS = scaled(30)
# A stale read shows up within few rounds: rows lag by up to 0.2 s behind commands that no caller waits for.
ROUNDS = 10


@pytest.fixture
def other_channel(system: Up) -> Iterator[grpc.Channel]:
    """Open a channel that has not seen the writes of others."""
    with grpc.insecure_channel(system.address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        yield channel


def test_raw_call_sees_earlier_moves(system: Up, model: str, other_channel: grpc.Channel) -> None:
    registry = v1.RegistryServiceStub(other_channel)
    for number in range(ROUNDS):
        moved = system.move(model, number % 2 + 1)
        aliases = registry.ResolveAliases(v1.ResolveAliasesRequest(model=model), metadata=HEAD, timeout=SECONDS)
        assert [alias.revision for alias in aliases.aliases] == [moved.alias.revision]
        history = registry.ListAliasHistory(v1.ListAliasHistoryRequest(model=model), metadata=HEAD, timeout=SECONDS)
        assert history.changes[0].revision == moved.alias.revision
        resolved = registry.ResolveAlias(
            v1.ResolveAliasRequest(model=model, alias="champion"), metadata=HEAD, timeout=SECONDS
        )
        assert resolved.alias.revision == moved.alias.revision


def test_every_log_is_read_at_head(system: Up, model: str, other_channel: grpc.Channel) -> None:
    audit = v1.AuditServiceStub(other_channel)
    for number in range(ROUNDS):
        moved = system.move(model, number % 2 + 1)
        run_id = system.new_run()
        request = v1.ListEventsRequest(log="registry", page_size=1)
        events = audit.ListEvents(request, metadata=HEAD, timeout=SECONDS).events
        assert [event.position for event in events] == [moved.alias.revision]
        response = v1.TrackingServiceStub(other_channel).GetRun(
            v1.GetRunRequest(run_id=run_id), metadata=HEAD, timeout=SECONDS
        )
        assert response.run.run_id == run_id


def test_head_may_be_combined_with_positions(system: Up, model: str, other_channel: grpc.Channel) -> None:
    moved = system.move(model, 1)
    both = (("rollforward-min-position", f"registry={moved.alias.revision}, head"),)
    request = v1.ResolveAliasesRequest(model=model)
    response = v1.RegistryServiceStub(other_channel).ResolveAliases(request, metadata=both, timeout=SECONDS)
    assert response.aliases[0].version == 1


def test_head_has_one_spelling(other_channel: grpc.Channel) -> None:
    wrong = (("rollforward-min-position", "HEAD"),)
    with pytest.raises(grpc.RpcError) as refusal:
        v1.RegistryServiceStub(other_channel).ListModels(v1.ListModelsRequest(), metadata=wrong, timeout=SECONDS)
    assert from_rpc_error(refusal.value).reason == "INVALID_MIN_POSITION"


def test_connection_reads_at_head_on_request(system: Up, model: str) -> None:
    with rf.Client(system.address, read_at_head=True) as client:
        for number in range(ROUNDS):
            moved = system.move(model, number % 2 + 1)
            assert client.aliases.history(model, limit=1)[0].revision == moved.alias.revision


@pytest.mark.parametrize(
    "command", [("aliases", "list"), ("aliases", "history"), ("models", "show"), ("aliases", "intervals")]
)
def test_command_line_sees_earlier_commands(
    command: tuple[str, ...], system: Up, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(ROUNDS):
        moved = system.move(model, number % 2 + 1)
        subject = f"{model}@champion" if command[-1] == "intervals" else model
        assert run([*command, subject, "-o", "json", "--server", system.address]) == 0
        shown = json.loads(capsys.readouterr().out)
        if command[0] == "models":
            seen = shown["aliases"][0]["revision"]
        else:
            seen = shown[0].get("revision", shown[0].get("began_revision"))
        assert seen == moved.alias.revision

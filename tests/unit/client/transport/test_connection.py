"""Retries, deadlines, positions and the default connection."""

from __future__ import annotations

import pickle
import threading
from importlib import metadata
from typing import Any
from urllib.parse import unquote

import grpc
import pytest

import rollforward as rf
from rollforward import Client, v1
from rollforward._transport.address import is_loopback
from rollforward._transport.backoff import Backoff
from rollforward._transport.default import default_connection
from rollforward.errors import InvalidRequest, Unavailable
from tests.servers.ports import free_port
from tests.timeouts import scaled
from tests.unit.client.conftest import Serve, Service


class Shaky(Service):
    """A registry that is unreachable for the first calls, and records requests."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.requests: list[v1.MoveAliasRequest] = []
        self.metadata: list[dict[str, str]] = []
        self.hold = threading.Event()

    def MoveAlias(self, request: v1.MoveAliasRequest, context: Any) -> v1.MoveAliasResponse:  # noqa: N802
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        if len(self.requests) <= self.failures:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        return v1.MoveAliasResponse(alias=v1.Alias(version=request.version), moved=True, position=41 + request.version)

    def GetModel(self, _request: v1.GetModelRequest, _context: Any) -> v1.GetModelResponse:  # noqa: N802
        self.hold.wait(scaled(20))
        return v1.GetModelResponse()


def test_request_is_retried_with_the_same_id(serve: Serve) -> None:
    shaky = Shaky(failures=2)
    client = serve(shaky, v1.add_RegistryServiceServicer_to_server)
    assert client.aliases.move("m@champion", 1, expected_revision=0).version == 1
    assert len(shaky.requests) == 3
    assert {request.SerializeToString() for request in shaky.requests} == {shaky.requests[0].SerializeToString()}
    assert len(shaky.requests[0].request_id) == 32
    assert shaky.requests[0].HasField("expected_revision")


def test_reads_send_the_seen_positions(serve: Serve) -> None:
    shaky = Shaky()
    client = serve(shaky, v1.add_RegistryServiceServicer_to_server)
    for version in (2, 1):
        client.aliases.move("m@champion", version)
    client.connection.note_position("tracking", 7)
    client.aliases.move("m@champion", 1)
    positions = [sent.get("rollforward-min-position") for sent in shaky.metadata]
    assert positions == [None, "registry=43", "registry=43,tracking=7"]
    assert {unquote(sent["rollforward-actor"]) for sent in shaky.metadata} == {"Zoë"}


def test_a_call_ends_at_its_deadline(serve: Serve) -> None:
    shaky = Shaky()
    client = serve(shaky, v1.add_RegistryServiceServicer_to_server, timeout=0.3)
    with pytest.raises(Unavailable) as late:
        client.models.get("m")
    shaky.hold.set()
    assert late.value.reason == "DEADLINE_EXCEEDED"


def test_retries_end_at_the_deadline() -> None:
    seconds: list[float] = []

    def ask(remaining: float | None) -> v1.GetModelResponse:
        assert remaining is not None
        seconds.append(remaining)
        return nobody.connection.registry.GetModel(v1.GetModelRequest(name="m"), timeout=remaining)

    with Client("127.0.0.1:1", timeout=0.5) as nobody, pytest.raises(Unavailable):
        nobody.connection.retry(ask)
    assert 0 < seconds[0] <= 0.5
    assert seconds == sorted(seconds, reverse=True)  # each attempt has the remaining time


def test_pauses_grow_up_to_the_maximum() -> None:
    backoff = Backoff(first=0.01, max_pause=0.05)
    pauses = [backoff.next_pause() for _ in range(200)]
    assert all(pause is not None and 0 <= pause <= 0.05 for pause in pauses)
    assert max(pause or 0 for pause in pauses[10:]) > 0.01
    assert Backoff(0).next_pause() is None


def test_the_default_connection_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLLFORWARD_URI", "example.invalid:1234")
    monkeypatch.setenv("ROLLFORWARD_ACTOR", "ci")
    rf.close()
    made = default_connection()
    assert (made.address, made.actor) == ("example.invalid:1234", "ci")
    chosen = rf.connect("127.0.0.1:5", actor="ada")
    assert default_connection() is chosen.connection
    rf.close()
    rf.close()
    made.close()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"timeout": 0}, "INVALID_TIMEOUT"),
        ({"correlation_id": "ä"}, "INVALID_CORRELATION_ID"),
        ({"address": "x"}, "INVALID_ADDRESS"),
    ],
)
def test_invalid_options_are_rejected(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Client(**options)
    assert refused.value.reason == reason


def test_service_missing_from_the_address_is_rejected() -> None:
    with Client("registry=127.0.0.1:1") as client, pytest.raises(InvalidRequest) as refused:
        client.experiments.list()
    assert refused.value.reason == "SERVICE_UNKNOWN"


def test_every_public_name_can_be_imported() -> None:
    names = set(dir(rf))
    assert {"start_run", "watch", "Conflict", "v1"} <= names
    assert all(getattr(rf, name) is not None for name in names - {"__cached__"})
    assert rf.__version__ == metadata.version("rollforward")
    assert names.isdisjoint({"import_module", "TYPE_CHECKING", "Any", "Final", "annotations", "aliases"})
    with pytest.raises(AttributeError):
        rf.nonsense  # type: ignore[attr-defined]  # noqa: B018


FOR_EVER = 36_000.0


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "localhost:{}", "tracking=127.0.0.1:{0},registry=127.0.0.1:{0}"])
def test_call_fails_fast_if_nothing_listens(address: str) -> None:
    port = free_port()
    with Client(address.format(port), timeout=FOR_EVER) as nobody:
        for _ in range(2):
            with pytest.raises(Unavailable) as refused:
                nobody.models.get("m")
            assert refused.value.reason == "UNAVAILABLE"
            assert f":{port}" in refused.value.message
            assert nobody.connection.refused
        with pytest.raises(Unavailable):
            nobody.runs.watch("0" * 32)
        with pytest.raises(Unavailable):
            list(nobody.connection.stream(nobody.connection.tracking.GetMetricHistory, v1.GetMetricHistoryRequest()))


def test_call_fails_fast_for_an_unknown_host() -> None:
    with Client("no-such-host.invalid:50051", timeout=FOR_EVER) as nobody, pytest.raises(Unavailable):
        nobody.models.get("m")


def test_call_waits_for_a_service_that_has_answered_before(serve: Serve) -> None:
    client = serve(Shaky(), v1.add_RegistryServiceServicer_to_server)
    client.aliases.move("m@champion", 1)
    with Client(f"127.0.0.1:{free_port()}", timeout=FOR_EVER) as restarting:
        restarting.connection.note_response()
        attempts: list[float | None] = []

        def attempt(seconds: float | None) -> v1.Model:
            attempts.append(seconds)
            if len(attempts) == 12:
                # The service is back; there was a pause of up to a second before each attempt.
                return v1.Model(name="m")
            return restarting.connection.registry.GetModel(v1.GetModelRequest(name="m"), timeout=seconds).model

        assert restarting.connection.retry(attempt, connect_timeout=0).name == "m"
        assert not restarting.connection.refused


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *((host, True) for host in ("localhost", "LocalHost", "localhost.", "a.localhost", "ip6-localhost")),
        *((host, True) for host in ("127.0.0.1", "127.1.2.3", "127.1", "0.0.0.0", "0", "2130706433", "0x7f000001")),
        *((host, True) for host in ("[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::1%lo]")),
        *((host, False) for host in ("example.com", "localhost.example.com", "128.0.0.1", "10.0.0.1", "1")),
        *((host, False) for host in ("[2001:db8::1]", "[::ffff:10.0.0.1]", "127.0.0.1.example.com")),
    ],
)
def test_loopback_addresses_are_recognized_in_any_spelling(host: str, expected: bool) -> None:
    assert is_loopback(f"{host}:50051") is expected


def test_error_with_unknown_outcome_has_the_request_id(serve: Serve) -> None:
    shaky = Shaky(failures=1_000)
    client = serve(shaky, v1.add_RegistryServiceServicer_to_server, timeout=0.3)
    with pytest.raises(Unavailable) as unknown:
        client.aliases.move("m@champion", 3)
    assert {request.request_id for request in shaky.requests} == {unknown.value.request_id}
    assert pickle.loads(pickle.dumps(unknown.value)).request_id == unknown.value.request_id  # noqa: S301
    shaky.failures = 0
    client.aliases.move("m@champion", 3, request_id=unknown.value.request_id)
    assert shaky.requests[-1] == shaky.requests[0]


def test_error_of_a_read_has_no_request_id(serve: Serve) -> None:
    client = serve(Shaky(), v1.add_RegistryServiceServicer_to_server, timeout=0.2)
    with pytest.raises(Unavailable) as late:
        client.models.get("m")
    assert (late.value.reason, late.value.request_id) == ("DEADLINE_EXCEEDED", "")

"""Every command returns what it wrote, once, even if its acknowledgement is lost and others act meanwhile."""

from __future__ import annotations

import pkgutil
import threading
from collections.abc import Callable, Iterator
from importlib import import_module

import grpc
import pytest
from google.protobuf.message import Message

from eventstore.errors import StoreUnavailable
from rollforward import v1
from rollforward.errors import from_rpc_error
from services.rpc.methods import is_command
from tests.integration.registry.registry_cases import REGISTRY, Case
from tests.integration.tracking.tracking_cases import SERVING, TRACKING, WEBHOOKS
from tests.integration.two_writers import Interruption, Writers, two_writers
from tests.integration.up import SECONDS, Client, new_id

pytestmark = pytest.mark.busy

CASES = [*REGISTRY, *TRACKING, *SERVING, *WEBHOOKS]


@pytest.fixture(scope="module")
def writers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Writers]:
    """Run all services two times, over one log."""
    with two_writers(tmp_path_factory.mktemp("writers")) as writers:
        yield writers


@pytest.fixture(params=CASES, ids=[f"{number}-{case}" for number, case in enumerate(CASES)])
def case(request: pytest.FixtureRequest) -> Case:
    """Return a command, and what another client does after it."""
    parameter: Case = request.param
    return parameter


def commands() -> set[tuple[str, str]]:
    """Return every command of every service, as the names of the service and the method."""
    files = [module.name for module in pkgutil.iter_modules(v1.__path__) if module.name.endswith("_service_pb2")]
    services = [
        service
        for name in files
        for service in import_module(f"rollforward.v1.{name}").DESCRIPTOR.services_by_name.values()
    ]
    return {(service.name, method.name) for service in services for method in service.methods if is_command(method)}


def test_every_command_has_a_case() -> None:
    names = {
        "registry": "RegistryService",
        "policies": "PolicyService",
        "tracking": "TrackingService",
        "logged_models": "LoggedModelService",
        "serving": "ServingService",
        "webhooks": "WebhookService",
    }
    assert {(names[case.service], case.method) for case in CASES} == commands()


def outcome(client: Client, case: Case, request: Message) -> tuple[str, Message | None]:
    """Send a request; return the reason of a rejection, or the response."""
    try:
        return "", getattr(getattr(client, case.service), case.method)(request, timeout=SECONDS)
    except grpc.RpcError as error:
        return from_rpc_error(error).reason, None


def check_outcome(case: Case, outcome_of_command: tuple[str, Message | None], written: list[int]) -> None:
    """Fail unless the outcome of a command matches the events that it wrote."""
    reason, response = outcome_of_command
    assert reason == case.refusal
    assert written
    assert response is None or response.position == written[-1]  # type: ignore[attr-defined]


def test_concurrent_changes_do_not_change_response(writers: Writers, case: Case) -> None:
    request, act = case.prepare(writers)
    request.request_id = request_id = new_id()  # type: ignore[attr-defined]

    def act_and_catch_up() -> None:
        act()
        writers.catch_up()

    writers.interruptions[request_id] = Interruption(act_and_catch_up)
    outcome_of_command = outcome(writers.one, case, request)
    assert not writers.interruptions
    check_outcome(case, outcome_of_command, writers.written(request_id))


@pytest.mark.parametrize("disconnects", [False, True], ids=["unavailable", "caller disconnects"])
def test_repeated_request_returns_first_outcome(writers: Writers, case: Case, disconnects: bool) -> None:
    request, act = case.prepare(writers)
    request.request_id = request_id = new_id()  # type: ignore[attr-defined]
    if disconnects:
        disconnect(writers, case, request, act)
    else:
        writers.interruptions[request_id] = Interruption(act, StoreUnavailable("the acknowledgement is lost"))
        assert outcome(writers.one, case, request) == ("LOG_UNAVAILABLE", None)
    written = writers.written(request_id)
    for client in (writers.other, writers.one):
        check_outcome(case, outcome(client, case, request), written)
    assert writers.written(request_id) == written
    check_repetition_is_needed(writers, case, request)


def disconnect(writers: Writers, case: Case, request: Message, act: Callable[[], object]) -> None:
    """Write a command whose caller disconnects before the response."""

    sent = threading.Event()

    def act_and_cancel() -> None:
        act()
        assert sent.wait(SECONDS)
        call_method.cancel()

    writers.interruptions[request.request_id] = Interruption(act_and_cancel, hangs=True)  # type: ignore[attr-defined]
    stub = type(getattr(writers.one, case.service))
    with grpc.insecure_channel(writers.address) as channel:
        call_method = getattr(stub(channel), case.method).future(request, timeout=SECONDS)
        sent.set()
        with pytest.raises(grpc.FutureCancelledError):
            call_method.result()


def check_repetition_is_needed(writers: Writers, case: Case, request: Message) -> None:
    """Fail if the same command succeeds as a new request: then the repetition would prove nothing."""
    if case.repeated_refusal is None:
        return
    request.request_id = new_id()  # type: ignore[attr-defined]
    reason, _ = outcome(writers.one, case, request)
    assert reason == case.repeated_refusal
    assert writers.written(request.request_id) == []  # type: ignore[attr-defined]

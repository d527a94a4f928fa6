"""Every command is answered as what it wrote, once, also when its acknowledgement is lost and others act meanwhile."""

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
from tests.integration.registry.overtaken import REGISTRY, Case
from tests.integration.tracking.overtaken_tracking import SERVING, TRACKING, WEBHOOKS
from tests.integration.two_writers import Interruption, Writers, two_writers
from tests.integration.up import SECONDS, Client, new_id

pytestmark = pytest.mark.busy

CASES = [*REGISTRY, *TRACKING, *SERVING, *WEBHOOKS]


@pytest.fixture(scope="module")
def writers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Writers]:
    """All services twice, over one log."""
    with two_writers(tmp_path_factory.mktemp("writers")) as writers:
        yield writers


@pytest.fixture(params=CASES, ids=[f"{number}-{case}" for number, case in enumerate(CASES)])
def case(request: pytest.FixtureRequest) -> Case:
    """A command, and what others do."""
    found: Case = request.param
    return found


def commands() -> set[tuple[str, str]]:
    """Every command of every service: the name of its service and its own."""
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
    """Why a request is refused, or what it is answered."""
    try:
        return "", getattr(getattr(client, case.service), case.method)(request, timeout=SECONDS)
    except grpc.RpcError as error:
        return from_rpc_error(error).reason, None


def check_answer(case: Case, answered: tuple[str, Message | None], written: list[int]) -> None:
    """Fails unless a command is answered as the events say that it wrote."""
    reason, answer = answered
    assert reason == case.refusal
    assert written
    assert answer is None or answer.position == written[-1]  # type: ignore[attr-defined]


def test_others_who_act_before_the_answer_do_not_change_it(writers: Writers, case: Case) -> None:
    request, act = case.prepare(writers)
    request.request_id = request_id = new_id()  # type: ignore[attr-defined]

    def act_and_catch_up() -> None:
        act()
        writers.catch_up()

    writers.interruptions[request_id] = Interruption(act_and_catch_up)
    answered = outcome(writers.one, case, request)
    assert not writers.interruptions
    check_answer(case, answered, writers.written(request_id))


@pytest.mark.parametrize("goes_away", [False, True], ids=["unavailable", "caller goes away"])
def test_a_repeated_request_finds_what_the_first_wrote(writers: Writers, case: Case, goes_away: bool) -> None:
    request, act = case.prepare(writers)
    request.request_id = request_id = new_id()  # type: ignore[attr-defined]
    if goes_away:
        go_away(writers, case, request, act)
    else:
        writers.interruptions[request_id] = Interruption(act, StoreUnavailable("the acknowledgement is lost"))
        assert outcome(writers.one, case, request) == ("LOG_UNAVAILABLE", None)
    written = writers.written(request_id)
    for client in (writers.other, writers.one):
        check_answer(case, outcome(client, case, request), written)
    assert writers.written(request_id) == written
    check_bites(writers, case, request)


def go_away(writers: Writers, case: Case, request: Message, act: Callable[[], object]) -> None:
    """Has a command written whose caller is gone by then."""

    sent = threading.Event()

    def act_and_cancel() -> None:
        act()
        assert sent.wait(SECONDS)
        call.cancel()

    writers.interruptions[request.request_id] = Interruption(act_and_cancel, hangs=True)  # type: ignore[attr-defined]
    stub = type(getattr(writers.one, case.service))
    with grpc.insecure_channel(writers.address) as channel:
        call = getattr(stub(channel), case.method).future(request, timeout=SECONDS)
        sent.set()
        with pytest.raises(grpc.FutureCancelledError):
            call.result()


def check_bites(writers: Writers, case: Case, request: Message) -> None:
    """Fails unless the same, asked for anew, is not possible any more: else a repetition would prove nothing."""
    if case.now is None:
        return
    request.request_id = new_id()  # type: ignore[attr-defined]
    reason, _ = outcome(writers.one, case, request)
    assert reason == case.now
    assert writers.written(request.request_id) == []  # type: ignore[attr-defined]

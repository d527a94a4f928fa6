"""Errors of the service as exceptions, with their class, reason and details."""

from __future__ import annotations

import pickle
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from rollforward import Client, errors, v1
from rollforward.errors import CLASS_OF, Conflict, InternalError, InvalidRequest, PreconditionFailed, Unavailable
from tests.timeouts import scaled
from tests.unit.client.conftest import Serve, Service


class Refusing(Service):
    """A registry that rejects every GetModel with a configured error."""

    def __init__(self) -> None:
        self.code = grpc.StatusCode.INTERNAL
        self.trailer: bytes | None = None
        self.answer: v1.GetModelResponse | None = None

    def refuse_with(self, code: grpc.StatusCode, *details: Message) -> None:
        status = Status(code=code.value[0], message="no")
        for detail in details:
            status.details.add().Pack(detail)
        self.code, self.trailer = code, status.SerializeToString()

    def GetModel(self, _request: v1.GetModelRequest, context: Any) -> v1.GetModelResponse:  # noqa: N802
        if self.answer is not None:
            return self.answer
        if self.trailer is not None:
            context.set_trailing_metadata((("grpc-status-details-bin", self.trailer),))
        context.abort(self.code, "no")
        raise AssertionError


def ask(client: Client) -> errors.RollforwardError:
    with pytest.raises(errors.RollforwardError) as refused:
        client.connection.call(client.connection.registry.GetModel, v1.GetModelRequest(name="m"), timeout=scaled(5))
    return refused.value


@pytest.fixture
def refusing() -> Refusing:
    return Refusing()


@pytest.fixture
def client(serve: Serve, refusing: Refusing) -> Client:
    return serve(refusing, v1.add_RegistryServiceServicer_to_server)


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_status_has_its_class(code: grpc.StatusCode, client: Client, refusing: Refusing) -> None:
    client.connection.timeout = 0.2
    refusing.refuse_with(code, ErrorInfo(reason="SOME_REASON", domain="rollforward", metadata={"model": "m"}))
    with pytest.raises(errors.RollforwardError) as refused:
        client.connection.call(client.connection.registry.GetModel, v1.GetModelRequest(name="m"))
    error = refused.value
    assert type(error) is CLASS_OF.get(code, InternalError)
    assert (error.reason, error.metadata) == ("SOME_REASON", {"model": "m"})
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (type(again), again.reason, again.metadata) == (type(error), error.reason, error.metadata)


def test_every_class_has_a_status() -> None:
    classes = set(errors.RollforwardError.__subclasses__())
    assert classes == {*CLASS_OF.values(), InternalError}


def test_conflict_has_the_current_alias(client: Client, refusing: Refusing) -> None:
    alias = v1.Alias(model="m", alias="champion", version=2, revision=17)
    refusing.refuse_with(grpc.StatusCode.ABORTED, ErrorInfo(reason="WRONG_REVISION", domain="rollforward"), alias)
    error = ask(client)
    assert isinstance(error, Conflict)
    assert (error.reason, error.current) == ("WRONG_REVISION", alias)
    assert pickle.loads(pickle.dumps(error)).current == alias  # noqa: S301


def test_failed_gate_has_its_evidence(client: Client, refusing: Refusing) -> None:
    evidence = v1.GateEvidence(expression="run.metrics.a > 1", detail="it is 0.5")
    refusing.refuse_with(
        grpc.StatusCode.FAILED_PRECONDITION, ErrorInfo(reason="GATE_FAILED", domain="rollforward"), evidence
    )
    error = ask(client)
    assert isinstance(error, PreconditionFailed)
    assert (error.reason, error.evidence) == ("GATE_FAILED", evidence)


def test_grpcs_own_errors_have_a_reason(client: Client, refusing: Refusing) -> None:
    refusing.code, refusing.trailer = grpc.StatusCode.RESOURCE_EXHAUSTED, None
    error = ask(client)
    assert (type(error), error.reason) == (InvalidRequest, "MESSAGE_TOO_LARGE")


def test_too_large_request_is_not_sent(client: Client) -> None:
    with pytest.raises(InvalidRequest) as refused:
        client.connection.call(client.connection.registry.GetModel, v1.GetModelRequest(name="m" * 5_000_000))
    assert refused.value.reason == "MESSAGE_TOO_LARGE"


def test_too_large_response_is_an_internal_error(client: Client, refusing: Refusing) -> None:
    refusing.answer = v1.GetModelResponse(model=v1.Model(description="x" * 5_000_000))
    error = ask(client)
    assert (type(error), error.reason) == (errors.InternalError, "ANSWER_TOO_LARGE")


@pytest.mark.parametrize("trailer", [b"\xff\xff", b"", Status(code=5).SerializeToString()])
def test_foreign_details_do_not_hide_the_status(trailer: bytes, client: Client, refusing: Refusing) -> None:
    refusing.code, refusing.trailer = grpc.StatusCode.NOT_FOUND, trailer
    error = ask(client)
    assert (type(error), error.reason) == (errors.NotFound, "NOT_FOUND")


def test_unreachable_service_raises_unavailable() -> None:
    with Client("127.0.0.1:1", timeout=0.5) as nobody:
        error = ask(nobody)
    assert (type(error), error.reason) == (Unavailable, "UNAVAILABLE")


def test_call_on_a_closed_connection_is_rejected(client: Client) -> None:
    client.close()
    error = ask(client)
    assert (type(error), error.reason) == (InvalidRequest, "CONNECTION_CLOSED")

"""The error table and its inverse: every error of the kernel travels over real gRPC to the client's error."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count
from typing import Any, cast

import grpc
import grpc.aio
import pytest

from eventstore.errors import Conflict as KernelConflict
from eventstore.errors import EventTooLarge, Kind, Rejected, StoreUnavailable
from eventstore.projections.projector import FollowerTooSlow
from rollforward import errors, v1
from rollforward.errors import from_rpc_error
from services.rpc.interceptor import Interceptor
from tests.timeouts import scaled

ALIAS = v1.Alias(model="fraud", alias="champion", version=2, digest="sha256:1", revision=7, actor="Zoë")
EVIDENCE = v1.GateEvidence(expression="run.metrics.acc > 0.9", run=v1.GateRun(run_id="r", metrics={"acc": 0.5}))
WATCH, GET = v1.WatchAliasesRequest(), v1.GetModelRequest()
LONG = "\N{FULL BLOCK}" * 5000

TABLE: list[tuple[Exception, type[errors.RollforwardError], str, dict[str, str]]] = [
    (Rejected(Kind.INVALID, "BAD_NAME", "no\nname", name="é/"), errors.InvalidRequest, "BAD_NAME", {"name": "é/"}),
    (Rejected(Kind.NOT_FOUND, "RUN_NOT_FOUND", "no run"), errors.NotFound, "RUN_NOT_FOUND", {}),
    (Rejected(Kind.EXISTS, "RUN_EXISTS", "is there", run_id="r"), errors.AlreadyExists, "RUN_EXISTS", {"run_id": "r"}),
    (
        Rejected(Kind.PRECONDITION, "GATE_FAILED", "no", detail=EVIDENCE, model="m"),
        errors.PreconditionFailed,
        "GATE_FAILED",
        {"model": "m"},
    ),
    (
        KernelConflict("WRONG_REVISION", "moved", current=ALIAS, revision="7"),
        errors.Conflict,
        "WRONG_REVISION",
        {"revision": "7"},
    ),
    (KernelConflict("STREAM_BUSY", "busy", stream="s"), errors.Conflict, "STREAM_BUSY", {"stream": "s"}),
    (EventTooLarge(5, 4), errors.InvalidRequest, "MESSAGE_TOO_LARGE", {"size": "5", "limit": "4"}),
    (StoreUnavailable("no log"), errors.Unavailable, "LOG_UNAVAILABLE", {}),
    (StoreUnavailable("behind", "PROJECTION_BEHIND"), errors.Unavailable, "PROJECTION_BEHIND", {}),
    (FollowerTooSlow(), errors.Unavailable, "WATCHER_TOO_SLOW", {}),
]  # fmt: skip


class Failing:
    """A registry whose every method raises `error`; a stream after its first response."""

    def __init__(self) -> None:
        self.error: Exception = AssertionError()

    def __getattr__(self, name: str) -> Callable[[Any, Any], Any]:
        return self._stream if name.startswith("Watch") else self._answer

    async def _answer(self, _request: Any, _context: Any) -> None:
        raise self.error

    async def _stream(self, _request: Any, _context: Any) -> AsyncIterator[v1.WatchAliasesResponse]:
        yield v1.WatchAliasesResponse(position=1)
        raise self.error


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Failing, v1.RegistryServiceStub]]:
    """Run a failing servicer behind the real interceptor; yield it and a stub."""
    failing, ports = Failing(), list[int]()
    started, ending = threading.Event(), threading.Event()

    async def work() -> None:
        server = grpc.aio.server(interceptors=[Interceptor()])
        v1.add_RegistryServiceServicer_to_server(cast("v1.RegistryServiceServicer", failing), server)
        ports.append(server.add_insecure_port("127.0.0.1:0"))
        await server.start()
        started.set()
        await asyncio.to_thread(ending.wait)
        await server.stop(None)

    thread = threading.Thread(target=asyncio.run, args=(work(),))
    thread.start()
    assert started.wait(scaled(20))
    with grpc.insecure_channel(f"127.0.0.1:{ports[0]}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        yield failing, v1.RegistryServiceStub(channel)
    ending.set()
    thread.join()


def caught(stub: v1.RegistryServiceStub, *, streamed: bool) -> errors.RollforwardError:
    """Return the error that a client raises for a failing call."""
    with pytest.raises(grpc.RpcError) as error:
        _ = list(stub.WatchAliases(WATCH, timeout=scaled(20))) if streamed else stub.GetModel(GET, timeout=scaled(20))
    return from_rpc_error(error.value)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("error", "kind", "reason", "metadata"), TABLE, ids=count())
def test_error_arrives_as_client_error(
    served: tuple[Failing, v1.RegistryServiceStub],
    error: Exception,
    kind: type[errors.RollforwardError],
    reason: str,
    metadata: dict[str, str],
    streamed: bool,
) -> None:
    failing, stub = served
    failing.error = error
    raised = caught(stub, streamed=streamed)
    assert (type(raised), raised.reason, raised.metadata) == (kind, reason, metadata)
    if isinstance(raised, errors.Conflict):
        assert raised.current == (ALIAS if reason == "WRONG_REVISION" else None)
    if isinstance(raised, errors.PreconditionFailed):
        assert raised.evidence == EVIDENCE


def test_table_has_every_kind_of_rejection() -> None:
    assert {error.kind for error, *_ in TABLE if isinstance(error, Rejected)} == set(Kind)


@pytest.mark.parametrize("streamed", [False, True])
def test_unexpected_error_is_internal_and_reveals_nothing(
    served: tuple[Failing, v1.RegistryServiceStub], streamed: bool
) -> None:
    failing, stub = served
    failing.error = KeyError("a secret")
    raised = caught(stub, streamed=streamed)
    assert (type(raised), raised.reason) == (errors.InternalError, "INTERNAL")
    assert "secret" not in str(raised)
    assert raised.metadata.keys() == {"error_id"}


def test_error_with_huge_details_keeps_type_and_reason(served: tuple[Failing, v1.RegistryServiceStub]) -> None:
    failing, stub = served
    huge = v1.GateEvidence(expression=LONG, run=v1.GateRun(params={str(number): LONG for number in range(10)}))
    metadata = {"model": LONG, "expression": LONG, "run_id": "r"}
    failing.error = Rejected(Kind.PRECONDITION, "GATE_FAILED", LONG, detail=huge, **metadata)
    raised = caught(stub, streamed=False)
    assert (type(raised), raised.reason) == (errors.PreconditionFailed, "GATE_FAILED")
    assert raised.metadata["run_id"] == "r"
    assert raised.metadata.keys() == {"model", "expression", "run_id"}

"""Fuzzing: any request to any method gets a response of the contract, and every projection can apply what was written.

Each run uses a new seed, which is printed and can be set as ``ROLLFORWARD_FUZZ_SEED``.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, cast

import grpc
import httpx
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from rollforward import v1
from rollforward.errors import RollforwardError, from_rpc_error
from tests.integration.up import Headers, Up, new_id, up
from tests.servers.postgres import PostgresServer
from tests.timeouts import scaled

FILES = [
    f"{name}_service_pb2"
    for name in ("registry", "policy", "tracking", "logged_model", "serving", "artifact", "audit", "system", "webhook")
]
METHODS: list[MethodDescriptor] = [
    method
    for file in FILES
    for service in importlib.import_module(f"rollforward.v1.{file}").DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
ENDLESS = {"AttendRun", *(method.name for method in METHODS if method.name.startswith("Watch"))}
"""Streams that stay open until the caller cancels them."""
FORBIDDEN = {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNIMPLEMENTED}
SECONDS = scaled(20.0)

F = FieldDescriptor
SIGNED = {F.TYPE_INT32: 31, F.TYPE_INT64: 63}
UNSIGNED = {F.TYPE_UINT32: 32, F.TYPE_UINT64: 64}


@dataclass(frozen=True, slots=True)
class Target:
    """A system, and texts that it knows."""

    system: Up
    texts: list[str]


@pytest.fixture(autouse=True)
def print_seed() -> None:
    """Print the seed, so that a failure can be reproduced."""
    print(f"ROLLFORWARD_FUZZ_SEED={SEED}")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Run a separate system over each kind of database."""
    data = tmp_path_factory.mktemp("fuzz") / "data"
    with ExitStack() as stack:
        options: list[str] = []
        if request.param == "postgresql":
            server: PostgresServer = request.getfixturevalue("postgres")
            options = ["--database", stack.enter_context(server.database())]
        system = stack.enter_context(up(data, *options))
        yield Target(system, known_texts(system))
        assert system.program.terminate() == 0
        assert "internal error" not in system.program.errors
        assert "projection failed" not in system.program.errors


def known_texts(system: Up) -> list[str]:
    """Return the names of existing objects, and texts that may break a database or a file system."""
    model, run_id, digest, pod_id = system.new_model(), system.new_run(), system.upload(), new_id()
    system.move(model, 1)
    pod = v1.StartPodRequest(
        pod_id=pod_id, host="h", endpoint="h:1", targets=[v1.Target(model=model, alias="champion")]
    )
    system.serving.StartPod(pod, timeout=SECONDS)
    odd = ["", "\0", "a\0b", "../x", "é", "e\u0301", "\U0001f600", "%", "'; --", "x" * 300, "f" * 32, "0", "WzFd", "1"]
    return [model, run_id, digest, pod_id, "champion", "registry", "model", "true", *odd]


def messages(descriptor: Descriptor, texts: list[str], depth: int = 0) -> st.SearchStrategy[Any]:
    """Draw any message of a type, with fewer fields at deeper levels."""

    @st.composite
    def build(draw: st.DrawFn) -> Any:
        message = GetMessageClass(descriptor)()
        for field in descriptor.fields:
            if draw(st.integers(0, 9)) < 9 - 2 * depth:
                _fill(draw, message, field, texts, depth)
        return message

    return build()


def _fill(draw: st.DrawFn, message: Any, field: FieldDescriptor, texts: list[str], depth: int) -> None:
    entry = field.message_type
    max_size = 3 if depth < 2 else 1
    if entry is not None and entry.GetOptions().map_entry:
        keys = draw(st.lists(_scalars(entry.fields_by_name["key"], texts), max_size=max_size))
        for key in keys:
            getattr(message, field.name)[key] = draw(_scalars(entry.fields_by_name["value"], texts))
    elif isinstance(getattr(message, field.name), (str, bytes, int, float)):
        setattr(message, field.name, draw(_scalars(field, texts)))
    elif entry is None:
        getattr(message, field.name).extend(draw(st.lists(_scalars(field, texts), max_size=max_size)))
    elif hasattr(getattr(message, field.name), "CopyFrom"):
        getattr(message, field.name).CopyFrom(draw(messages(entry, texts, depth + 1)))
    else:
        getattr(message, field.name).extend(draw(st.lists(messages(entry, texts, depth + 1), max_size=max_size)))


def _scalars(field: FieldDescriptor, texts: list[str]) -> st.SearchStrategy[Any]:
    if field.type == F.TYPE_STRING:
        return st.one_of(st.sampled_from(texts), st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
    if field.type == F.TYPE_BYTES:
        return st.one_of(st.binary(max_size=24), st.sampled_from([bytes(8), bytes(16), b"\xff" * 8]))
    if field.type == F.TYPE_BOOL:
        return st.booleans()
    if field.type == F.TYPE_ENUM:
        return st.integers(-1, 6)
    if field.type in {F.TYPE_DOUBLE, F.TYPE_FLOAT}:
        return st.floats()
    bits = (SIGNED | UNSIGNED)[field.type]
    smallest = -(2**bits) if field.type in SIGNED else 0
    largest = 2**bits - 1
    edges = [number for number in (0, 1, 2, 1000, 2**31, 2**63 - 1, 2**63) if number <= largest]
    return st.one_of(st.sampled_from([*edges, smallest, largest]), st.integers(smallest, largest))


def call(system: Up, method: MethodDescriptor, parts: Sequence[bytes], headers: Headers = ()) -> Any:
    """Make a call with these bytes; return its status and, if it failed, the SDK's error."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    decode = GetMessageClass(method.output_type).FromString
    channel: Any = system.channel
    seconds = 0.15 if method.name in ENDLESS else SECONDS
    try:
        if method.client_streaming:
            channel.stream_unary(path, None, decode)(iter(parts), metadata=headers, timeout=seconds)
        elif method.server_streaming:
            list(channel.unary_stream(path, None, decode)(parts[0], metadata=headers, timeout=seconds))
        else:
            channel.unary_unary(path, None, decode)(parts[0], metadata=headers, timeout=seconds)
    except grpc.RpcError as error:
        return cast("grpc.Call", error).code(), from_rpc_error(error)
    return grpc.StatusCode.OK, None


def check_contract(method: MethodDescriptor, code: grpc.StatusCode, error: Any, sent: Any) -> None:
    """Fail unless the outcome is a response, a rejection with a reason, or a stream that stayed open."""
    assert code not in FORBIDDEN, (error, sent)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        assert method.name in ENDLESS, sent
    elif isinstance(error, RollforwardError):
        assert error.reason != code.name, (error, sent)


SEED = int(os.environ.get("ROLLFORWARD_FUZZ_SEED") or secrets.randbits(32))
NEW_EXAMPLES = settings(
    deadline=None, database=None, phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@seed(SEED)
@settings(NEW_EXAMPLES, max_examples=15)
@given(data=st.data())
def test_any_request_gets_response_of_contract(target: Target, method: MethodDescriptor, data: st.DataObject) -> None:
    request = data.draw(messages(method.input_type, target.texts))
    actor = data.draw(st.sampled_from(["", "Zo%C3%AB", "%00", "%FF", "a b", "x" * 300]))
    parts = [request.SerializeToString()] * 2
    code, error = call(target.system, method, parts, (("rollforward-actor", actor),))
    check_contract(method, code, error, request)


INVALID_MESSAGES = [b"\x0a\x03\xff\xfe\xfd", b"\x0a", b"\xff" * 20, b"\x0a\x80\x80\x80\x80\x10", b"\x07", b"\x0c"]
"""Text that is not UTF-8, truncated fields and unknown wire types: invalid for every method."""


def decodes(method: MethodDescriptor, data: bytes) -> bool:
    """Return whether bytes are a valid request of a method."""
    try:
        GetMessageClass(method.input_type).FromString(data)
    except DecodeError:
        return False
    return True


@st.composite
def mutated(draw: st.DrawFn, whole: bytes) -> bytes:
    """Draw bytes of which some are changed, dropped, repeated or added."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        cut = draw(st.integers(0, min(4, len(data) - at)))
        data[at : at + cut] = draw(st.one_of(st.binary(max_size=6), st.just(bytes(data[at : at + 2 * cut]))))
    return bytes(data)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@seed(SEED)
@settings(NEW_EXAMPLES, max_examples=15)
@given(data=st.data())
def test_invalid_message_is_rejected(target: Target, method: MethodDescriptor, data: st.DataObject) -> None:
    whole = data.draw(messages(method.input_type, target.texts)).SerializeToString()
    sent = data.draw(st.one_of(st.sampled_from(INVALID_MESSAGES), st.binary(max_size=60), mutated(whole)))
    code, error = call(target.system, method, [sent, sent])
    check_contract(method, code, error, sent)
    if not decodes(method, sent):
        assert (code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MESSAGE"), sent


def test_invalid_part_of_upload_is_rejected(target: Target) -> None:
    (method,) = (method for method in METHODS if method.client_streaming)
    first = v1.UploadBlobRequest(digest=f"sha256:{hashlib.sha256(b'x').hexdigest()}").SerializeToString()
    code, error = call(target.system, method, [first, b"\xff\xff"])
    assert (code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MESSAGE")


def test_rejected_messages_are_counted(target: Target) -> None:
    def rejections() -> dict[str, float]:
        families = text_string_to_metric_families(httpx.get(f"{target.system.http}/metrics", timeout=SECONDS).text)
        return {
            sample.labels["method"]: sample.value
            for family in families
            for sample in family.samples
            if sample.name == "rollforward_rpc_seconds_count" and sample.labels["code"] == "INVALID_ARGUMENT"
        }

    before = rejections()
    for method in METHODS:
        call(target.system, method, [b"\xff"])
    after = rejections()
    # Methods of two services may have the same name.
    names = Counter(method.name for method in METHODS)
    assert {name: after[name] - before.get(name, 0) for name in names} == names


@seed(SEED)
@settings(NEW_EXAMPLES, max_examples=5)
@given(data=st.data())
def test_concurrent_requests_get_responses_of_contract(target: Target, data: st.DataObject) -> None:
    calls = []
    for _ in range(40):
        method = data.draw(st.sampled_from(METHODS))
        whole = data.draw(messages(method.input_type, target.texts)).SerializeToString()
        calls.append((method, data.draw(st.one_of(st.just(whole), mutated(whole)))))
    with ThreadPoolExecutor(20) as threads:
        outcomes = list(threads.map(lambda sent: call(target.system, sent[0], [sent[1]] * 2), calls))
    for (method, sent), (code, error) in zip(calls, outcomes, strict=True):
        check_contract(method, code, error, sent)


def test_projections_apply_all_written_events(target: Target) -> None:
    status = target.system.system.GetStatus(v1.GetStatusRequest(), timeout=SECONDS)
    for projection in status.projections:
        request = v1.RebuildProjectionRequest(name=projection.name)
        *_, last = target.system.system.RebuildProjection(request, timeout=SECONDS)
        assert last.live_digest == last.rebuilt_digest != ""
